/* One delivery that is sent once more. */
#include <errno.h>

#include "core/partition.h"
#include "store/postgres/gather.h"

enum { TRIES_MAX = 3 };

static void add_name(struct pg_params *p, uint32_t tenant_no, uint64_t event_key, uint32_t subscription_no) {
    pg_int(p, (int32_t)tenant_no);
    pg_bigint(p, (int64_t)event_key);
    pg_int(p, (int32_t)subscription_no);
}

/* -EAGAIN: another has replayed it meanwhile, and it is closed once more. */
static int why_not(struct pg *c, uint32_t tenant_no, uint64_t event_key, uint32_t subscription_no) {
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    add_name(pg_params(c), tenant_no, event_key, subscription_no);
    int r = pg_query_row(
        c,
        "SELECT EXISTS (SELECT FROM deliveries_open WHERE tenant=$1 AND event=$2 AND subscription=$3),"
        " EXISTS (SELECT FROM deliveries_closed WHERE tenant=$1 AND event=$2 AND subscription=$3),"
        " EXISTS (SELECT FROM events WHERE tenant=$1 AND key=$2)",
        &rows);
    if (r <= 0)
        return r < 0 ? r : -EIO;
    if (pg_column_int(&rows, 0))
        return -EBUSY;
    return !pg_column_int(&rows, 1) ? -ENOENT : pg_column_int(&rows, 2) ? -EAGAIN : -ESTALE;
}

/* 1 when it is done; *ret_from and *ret_reason are what it was. */
static int reopen(struct pg *c, uint32_t tenant_no, uint64_t event_key, uint32_t subscription_no,
                  uint64_t lane_key, int64_t now, struct slice source, struct slice requested_by,
                  enum delivery_state *ret_from, enum delivery_reason *ret_reason) {
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    struct pg_params *p = pg_params(c);
    add_name(p, tenant_no, event_key, subscription_no);
    pg_int(p, (int32_t)partition_of(subscription_no));
    pg_time(p, (int64_t)lane_key);
    pg_bigint(p, now);
    pg_text(p, source);
    pg_text(p, requested_by);
    int r = pg_query_row(
        c,
        "WITH old AS (DELETE FROM deliveries_closed WHERE tenant=$1 AND event=$2 AND subscription=$3"
        "  AND EXISTS (SELECT FROM events WHERE tenant=$1 AND key=$2) RETURNING *),"
        " opened AS (INSERT INTO deliveries_open (tenant, event, subscription, partition, state, attempts,"
        "  base, due_at, lane_key, order_at, window_at, last_status, last_error, replay_source, replay_by,"
        "  test, created_at) SELECT tenant, event, subscription, $4, 5, attempts, attempts, $6, $5, $6, $6,"
        "  last_status, last_error, $7, $8, test, created_at FROM old)"
        " SELECT state, reason FROM old",
        &rows);
    if (r > 0) {
        *ret_from = (enum delivery_state)pg_column_int(&rows, 0);
        *ret_reason = (enum delivery_reason)pg_column_int(&rows, 1);
    }
    return r;
}

/* In an ordered lane too it is due at once, as every insert is (ingest.c). */
int postgres_replay(struct store *s, uint64_t event_key, uint32_t subscription_no, uint32_t tenant_no,
                    uint64_t lane_key, int64_t now, struct slice source, struct slice requested_by) {
    struct pg *c = &pg_of(s)->writer;
    enum delivery_state from = DELIVERY_DELIVERED;
    enum delivery_reason reason = REASON_NONE;
    int r = 0;
    for (int try = 0; r == 0 && try < TRIES_MAX; try++) {
        r = reopen(c, tenant_no, event_key, subscription_no, lane_key, now, source, requested_by, &from,
                   &reason);
        if (r == 0)
            r = why_not(c, tenant_no, event_key, subscription_no);
        if (r == -EAGAIN)
            r = 0;
    }
    if (r <= 0)
        return r < 0 ? r : -EBUSY;
    CHECK(delivery_transition_allowed(from, DELIVERY_REPLAYING, false, REASON_REPLAY_REQUESTED));
    r = from == DELIVERY_DLQ ? pg_count_dead(pg_of(s), tenant_no, subscription_no, reason, -1) : 0;
    return r < 0 ? r
                 : pg_add_transition(pg_of(s), tenant_no, event_key, subscription_no, now, from,
                                     DELIVERY_REPLAYING, REASON_REPLAY_REQUESTED);
}
