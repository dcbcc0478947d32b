/* Finding what a bulk replay takes: on from a cursor, in the order of events, a bounded number of rows at a
 * time. Each walk yields event, state (NULL: no delivery), reason, closed_at, type, ordering_key, and whether
 * the row is out of bounds. */
#include <errno.h>

#include "store/postgres/postgres.h"
#include "store/replay_judge.h"

enum {
    ROWS_A_ROUND = 256,
    BODIES_A_ROUND = 32, /* of a walk whose filter sees the events */
};

#define DLQ (1U << DELIVERY_DLQ)
/* Parameters: tenant, subscription, the event after which and up to which, limit. */
#define CLOSED                                                                                               \
    "SELECT d.event, d.state, d.reason, d.closed_at, e.type, e.ordering_key, false FROM deliveries_closed "  \
    "d CROSS JOIN LATERAL (SELECT * FROM events WHERE tenant=$1 AND key=d.event LIMIT 1) e WHERE "           \
    "d.tenant=$1 AND d.subscription=$2 AND "                                                                 \
    "d.event>$3 AND d.event<=$4 "
#define OLDEST_FIRST "ORDER BY d.event LIMIT $5"

static const char dead[] = CLOSED "AND d.state=4 " OLDEST_FIRST;
static const char closed[] = CLOSED OLDEST_FIRST;
/* The tenant's events, with the subscription's delivery where there is one. An event whose fan-out goes on is
 * not missing: it may yet come. */
static const char events[] =
    "SELECT e.key, d.state, d.reason, d.closed_at, e.type, e.ordering_key, d.state IS NULL AND e.has_job AND "
    "coalesce((SELECT j.state <> 2 FROM fanout_jobs j WHERE j.tenant=$1 AND j.event=e.key LIMIT 1), false), "
    "e.schema_version, CASE WHEN $6 AND d.state IS NULL THEN e.body END, e.data_size FROM events e LEFT JOIN "
    "LATERAL (SELECT c.state, c.reason, c.closed_at FROM deliveries_closed c WHERE c.tenant=$1 AND "
    "c.event=e.key AND c.subscription=$2 UNION ALL SELECT o.state, NULL, NULL FROM deliveries_open o WHERE "
    "o.tenant=$1 AND o.event=e.key AND o.subscription=$2) d ON true WHERE e.tenant=$1 AND e.key>$3 AND "
    "e.key<=$4 ORDER BY e.key LIMIT $5";

static int is_wanted(const struct pg_rows *rows, const struct replay_filter *f,
                     const struct subscription *sub, unsigned *budget) {
    struct replay_place place = {
        .state = pg_column_null(rows, 1) ? -1 : (int)pg_column_int(rows, 1),
        .reason = (enum delivery_reason)pg_column_int(rows, 2),
        .closed_at = pg_column_int(rows, 3),
        .type = pg_column_slice(rows, 4),
        .ordering_key = pg_column_slice(rows, 5),
        .out_of_bounds = pg_column_int(rows, 6) != 0,
    };
    enum replay_verdict verdict = replay_judge(f, sub, &place);
    if (verdict != REPLAY_ASK_FILTER)
        return verdict == REPLAY_TAKE;
    return replay_ask_filter(sub, &place, pg_column_slice(rows, 7), pg_column_slice(rows, 8),
                             (uint32_t)pg_column_int(rows, 9), budget);
}

/* Looks at a round's rows; 1 when it stopped for the budget or because enough were found. */
static int look_at(struct pg_rows *rows, const struct replay_filter *f, const struct subscription *sub,
                   struct replay_look *look) {
    while (pg_next(rows)) {
        int wanted = is_wanted(rows, f, sub, &look->budget);
        if (wanted < 0)
            return wanted;
        look->cursor = (uint64_t)pg_column_int(rows, 0);
        look->budget--;
        if (wanted) {
            if (look->found)
                look->found[look->n] = (struct replay_candidate){
                    .event_key = look->cursor,
                    .missing = pg_column_null(rows, 1),
                    .lane_key = subscription_lane_key(sub->ordering, pg_column_slice(rows, 5))};
            look->n++;
        }
        if (look->budget == 0 || look->n == look->max)
            return 1;
    }
    return 0;
}

static const char *walk_of(const struct replay_filter *f) {
    return f->include_missing ? events : f->states == DLQ ? dead : closed;
}

/* 1 when it stopped on the way, 0 when there is nothing left. */
static int walk(struct pg *c, const struct replay_filter *f, const struct subscription *sub,
                struct replay_look *look) {
    const char *sql = walk_of(f);
    bool sees_bodies = sql == events && sub->filter;
    unsigned most = sees_bodies ? BODIES_A_ROUND : ROWS_A_ROUND;
    for (;;) {
        _cleanup_pg_rows_ struct pg_rows rows = {0};
        unsigned limit = look->budget < most ? look->budget : most;
        struct pg_params *p = pg_params(c);
        pg_int(p, (int32_t)f->tenant_no);
        pg_int(p, (int32_t)sub->no);
        pg_bigint(p, (int64_t)look->cursor);
        pg_bigint(p, (int64_t)f->last_event);
        pg_int(p, (int32_t)limit);
        pg_bool(p, sees_bodies);
        int r = pg_query(c, sql, &rows);
        bool more = r == 0 && (unsigned)rows.n == limit;
        if (r == 0)
            r = look_at(&rows, f, sub, look);
        if (r != 0 || !more)
            return r;
    }
}

int postgres_find_replayable(struct store *s, const struct replay_filter *f, const struct subscription *sub,
                             struct replay_look *look) {
    CHECK(look->budget > 0 && look->max > 0 && look->found);
    look->n = 0;
    look->ended = false;
    int r = pg_flush(pg_of(s));
    if (r == 0)
        r = walk(&pg_of(s)->writer, f, sub, look);
    if (r == 0) {
        look->ended = true;
        look->cursor = f->last_event;
    }
    return r < 0 ? r : 0;
}

/* ---- counting, from a reader ---- */

/* Of closed ones no row need come here. Parameters: tenant, subscription, the event after which and up to
 * which, limit, states, reasons, closed after, type, prefix of types. */
#define COUNT(where)                                                                                         \
    "SELECT count(*), count(*) FILTER (WHERE (1 << d.state) & $6 <> 0 AND ($7=0 OR (1 << "                   \
    "coalesce(d.reason, "                                                                                    \
    "0)) & $7 <> 0) AND d.closed_at >= $8 AND ($9 IS NULL OR (SELECT e.type=$9 OR coalesce(starts_with("     \
    "e.type, $10), false) FROM events e WHERE e.tenant=$1 AND e.key=d.event LIMIT 1)) AND ($2 > 0 OR "       \
    "(SELECT s.status <> 3 FROM subscriptions s WHERE s.tenant=$1 AND s.no=d.subscription LIMIT 1))) FROM "  \
    "(SELECT d.* FROM deliveries_closed d WHERE d.tenant=$1 AND d.event>$3 AND d.event<=$4 AND " where

static int count_closed(struct pg *c, const struct replay_filter *f, unsigned budget, uint64_t *ret,
                        bool *ret_exact) {
    static const char of_lane[] = COUNT("d.subscription=$2 ORDER BY d.event LIMIT $5) d"),
                      dead_of_lane[] = COUNT("d.subscription=$2 AND d.state=4 ORDER BY d.event LIMIT $5) d"),
                      of_tenant[] = COUNT("true ORDER BY d.event, d.subscription LIMIT $5) d"),
                      dead_of_tenant[] = COUNT("d.state=4 ORDER BY d.event, d.subscription LIMIT $5) d");
    bool only_dead = f->states == DLQ, is_prefix = false;
    struct slice type = f->event_type;
    if (type.n >= 2 && memcmp(type.p + type.n - 2, ".*", 2) == 0) {
        is_prefix = true;
        type.n--;
    }
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    struct pg_params *p = pg_params(c);
    pg_int(p, (int32_t)f->tenant_no);
    pg_int(p, (int32_t)f->subscription_no);
    pg_bigint(p, f->first_event ? (int64_t)f->first_event - 1 : 0);
    pg_bigint(p, (int64_t)f->last_event);
    pg_int(p, (int32_t)budget);
    pg_int(p, (int32_t)f->states);
    pg_int(p, (int32_t)f->reasons);
    pg_bigint(p, f->closed_after);
    pg_text(p, f->event_type);
    pg_text(p, is_prefix ? type : SLICE_NONE);
    int r = pg_query_row(c,
                         f->subscription_no ? only_dead ? dead_of_lane : of_lane
                         : only_dead        ? dead_of_tenant
                                            : of_tenant,
                         &rows);
    if (r <= 0)
        return r < 0 ? r : -EIO;
    *ret = (uint64_t)pg_column_int(&rows, 1);
    *ret_exact = pg_column_int(&rows, 0) < budget;
    return 0;
}

int postgres_count_replayable(struct store_reader *r, const struct replay_filter *f,
                              const struct subscription *sub, unsigned budget, uint64_t *ret,
                              bool *ret_exact) {
    struct pg *c = &pg_reader_of(r)->conn;
    CHECK((sub != NULL) == (f->subscription_no != 0) && budget > 0);
    if (!f->include_missing || !sub)
        return count_closed(c, f, budget, ret, ret_exact);
    struct replay_look look = {
        .cursor = f->first_event ? f->first_event - 1 : 0, .budget = budget, .max = SIZE_MAX};
    int e = walk(c, f, sub, &look);
    if (e < 0)
        return e;
    *ret = look.n;
    *ret_exact = e == 0;
    return 0;
}
