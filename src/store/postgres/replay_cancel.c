/* Cancelling bulk replays, and starting a delivery that there was none of. */
#include <errno.h>

#include "core/partition.h"
#include "store/postgres/order.h"
#include "store/postgres/replays.h"

/* ---- cancelling ---- */

int postgres_cancel_replay(struct store *s, uint32_t tenant_no, struct id id) {
    struct pg *c = &pg_of(s)->writer;
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    int r = pg_flush(pg_of(s));
    if (r < 0)
        return r;
    /* First the lock: whoever works on it brings its step to an end. */
    pg_bigint(pg_replay_params(s, tenant_no, id.key), (int64_t)id.tail);
    r = pg_query_row(c, "SELECT 1 FROM replays WHERE tenant=$1 AND key=$2 AND tail=$3 FOR UPDATE", &rows);
    if (r <= 0)
        return r < 0 ? r : -ENOENT;
    (void)pg_replay_params(s, tenant_no, id.key);
    r = pg_query_row(
        c, "SELECT " PG_REPLAY_STATE " FROM replays" PG_REPLAY_COUNTS "WHERE r.tenant=$1 AND r.key=$2",
        &rows);
    if (r <= 0)
        return r < 0 ? r : -ENOENT;
    enum replay_state state = (enum replay_state)pg_column_int(&rows, 0);
    if (state != REPLAY_RUNNING && state != REPLAY_SENDING)
        return -EALREADY;
    (void)pg_replay_params(s, tenant_no, id.key);
    r = pg_send(c, "UPDATE replays SET state=3 WHERE tenant=$1 AND key=$2");
    if (r < 0)
        return r;
    (void)pg_replay_params(s, tenant_no, id.key);
    return pg_send(c, "DELETE FROM replay_lanes WHERE tenant=$1 AND replay=$2");
}

enum { CANCEL_LOOKED_AT_MAX = 1000 };

/* How far cancelling has come. */
struct cancel_cursor {
    int64_t event, lane;
};

static int read_cancel_cursor(struct store *s, const struct replay_record *r, struct cancel_cursor *ret) {
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    (void)pg_replay_params(s, r->filter.tenant_no, r->id.key);
    int e = pg_query_row(&pg_of(s)->writer,
                         "SELECT cancel_event, cancel_lane FROM replays WHERE tenant=$1 AND key=$2", &rows);
    if (e <= 0)
        return e < 0 ? e : -EIO;
    *ret = (struct cancel_cursor){pg_column_int(&rows, 0), pg_column_int(&rows, 1)};
    return 0;
}

/* What a step of cancelling has found. */
struct unattempted {
    struct pg_waiting at[CANCEL_LOOKED_AT_MAX];
    struct cancel_cursor before[CANCEL_LOOKED_AT_MAX]; /* each of them */
    size_t n;
    struct cancel_cursor last; /* looked at */
    bool ended;
};

/* The next of the tenant's REPLAYING deliveries after the cursor; those of other replays are passed over, a
 * bounded number in all. */
static int find_unattempted(struct store *s, const struct replay_record *r, unsigned limit,
                            struct cancel_cursor from, struct unattempted *ret) {
    char source[ID_TEXT_SIZE];
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    id_format(ID_REPLAY, r->id, source);
    struct pg_params *p = pg_params(&pg_of(s)->writer);
    pg_int(p, (int32_t)r->filter.tenant_no);
    pg_bigint(p, from.event);
    pg_bigint(p, from.lane);
    pg_int(p, CANCEL_LOOKED_AT_MAX);
    int e = pg_query(&pg_of(s)->writer,
                     "SELECT event, subscription, lane_key, replay_source FROM deliveries_open WHERE (state=2"
                     " OR state=5) AND tenant=$1 AND state=5 AND event >= $2 AND (event, subscription) > ($2,"
                     " $3) ORDER BY event, subscription LIMIT $4",
                     &rows);
    if (e < 0)
        return e;
    ret->n = 0;
    ret->last = from;
    while (ret->n < limit && pg_next(&rows)) {
        if (slice_eq(pg_column_slice(&rows, 3), slice_of(source))) {
            ret->before[ret->n] = ret->last;
            ret->at[ret->n++] = (struct pg_waiting){.tenant_no = r->filter.tenant_no,
                                                    .event_key = (uint64_t)pg_column_int(&rows, 0),
                                                    .subscription_no = (uint32_t)pg_column_int(&rows, 1),
                                                    .lane_key = (uint64_t)pg_column_int(&rows, 2)};
        }
        ret->last = (struct cancel_cursor){pg_column_int(&rows, 0), pg_column_int(&rows, 1)};
    }
    ret->ended = ret->n < limit && rows.n < CANCEL_LOOKED_AT_MAX;
    return 0;
}

static int write_cancel_cursor(struct store *s, const struct replay_record *r, const struct cancel_cursor *at,
                               bool ended) {
    struct pg_params *p = pg_replay_params(s, r->filter.tenant_no, r->id.key);
    pg_int(p, ended ? REPLAY_CANCELLED : REPLAY_CANCELLING);
    pg_bigint(p, at->event);
    pg_bigint(p, at->lane);
    return pg_send(&pg_of(s)->writer,
                   "UPDATE replays SET state=$3, cancel_event=$4, cancel_lane=$5 WHERE tenant=$1 AND key=$2");
}

int postgres_cancel_replay_step(struct store *s, const struct replay_record *r, int64_t now, unsigned limit,
                                struct expired_task *moved, size_t *ret_n, bool *ret_ended) {
    struct unattempted found;
    struct cancel_cursor cursor;
    bool closed[CANCEL_LOOKED_AT_MAX] = {0};
    CHECK(limit > 0 && limit <= CANCEL_LOOKED_AT_MAX);
    *ret_n = 0;
    int e = pg_flush(pg_of(s));
    if (e == 0)
        e = read_cancel_cursor(s, r, &cursor);
    if (e == 0)
        e = find_unattempted(s, r, limit, cursor, &found);
    if (e == 0)
        e = pg_close_waiting(pg_of(s), found.at, found.n, REASON_REPLAY_CANCELLED, now, closed);
    if (e < 0)
        return e;
    cursor = found.last;
    *ret_ended = found.ended;
    for (size_t i = found.n; i-- > 0;)
        if (!closed[i]) { /* another node holds it: the next step looks again */
            cursor = found.before[i];
            *ret_ended = false;
        }
    for (size_t i = 0; i < found.n; i++)
        if (closed[i])
            moved[(*ret_n)++] = (struct expired_task){found.at[i].event_key, found.at[i].subscription_no,
                                                      r->filter.tenant_no};
    return write_cancel_cursor(s, r, &cursor, *ret_ended);
}

/* ---- what was missing ---- */

/* As every insert, it is due at once in an ordered lane too (ingest.c). */
static int insert_missing(struct pg *c, struct pg_rows *ret) {
    return pg_query_row(
        c,
        "WITH e AS (SELECT key FROM events WHERE tenant=$1 AND key=$2 FOR KEY SHARE), i AS (INSERT INTO"
        " deliveries_open (tenant, event, subscription, partition, state, due_at, lane_key, order_at,"
        " window_at, created_at, replay_source, replay_by) SELECT $1, key, $3, $4, 0, $6, $5, $6, $6, $6,"
        " $7, $8 FROM e WHERE NOT EXISTS (SELECT 1 FROM deliveries_closed c WHERE c.tenant=$1 AND c.event=$2"
        " AND c.subscription=$3) ON CONFLICT DO NOTHING RETURNING 1) SELECT (SELECT count(*) FROM e),"
        " (SELECT count(*) FROM i)",
        ret);
}

int postgres_replay_missing(struct store *s, uint64_t event_key, uint32_t subscription_no, uint32_t tenant_no,
                            uint64_t lane_key, int64_t now, struct slice source, struct slice requested_by) {
    struct pg *c = &pg_of(s)->writer;
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    int r = pg_flush(pg_of(s));
    if (r < 0)
        return r;
    struct pg_params *p = pg_replay_params(s, tenant_no, event_key);
    pg_int(p, (int32_t)subscription_no);
    pg_int(p, (int32_t)partition_of(subscription_no));
    pg_time(p, (int64_t)lane_key);
    pg_bigint(p, now);
    pg_text(p, source);
    pg_text(p, requested_by);
    r = insert_missing(c, &rows);
    if (r <= 0)
        return r < 0 ? r : -EIO;
    if (!pg_column_int(&rows, 0) || !pg_column_int(&rows, 1))
        return pg_column_int(&rows, 0) ? -EEXIST : -ESTALE;
    /* It may have closed on another node between the look and the insert. */
    pg_int(pg_replay_params(s, tenant_no, event_key), (int32_t)subscription_no);
    r = pg_query(c,
                 "DELETE FROM deliveries_open o WHERE o.tenant=$1 AND o.event=$2 AND o.subscription=$3 AND"
                 " EXISTS (SELECT 1 FROM deliveries_closed c WHERE c.tenant=$1 AND c.event=$2 AND"
                 " c.subscription=$3)",
                 &rows);
    return r < 0 ? r : pg_changed(&rows) ? -EEXIST : 0;
}
