/* Lanes that do not claim: closed windows, deleted subscriptions; and which have work at all. */
#include <errno.h>

#include "store/postgres/order.h"

enum {
    CLOSE_A_ROUND = 512,
    EXPIRE_LOOK_MAX = 4096,
};

/* Rows of event, lane key and tenant. */
static int read_waiting(struct pg *c, const char *sql, uint32_t subscription_no, struct pg_waiting *ret,
                        size_t *ret_n) {
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    int r = pg_query(c, sql, &rows);
    size_t n = 0;
    while (r == 0 && pg_next(&rows))
        ret[n++] = (struct pg_waiting){.event_key = (uint64_t)pg_column_int(&rows, 0),
                                       .subscription_no = subscription_no,
                                       .tenant_no = (uint32_t)pg_column_int(&rows, 2),
                                       .lane_key = (uint64_t)pg_column_int(&rows, 1)};
    *ret_n = n;
    return r;
}

/* ---- closed windows ---- */

/* Windows that closed before now, but for those that the lane spares. So many are looked at: what is due at
 * its window's very end is rare, for backpressure rests the lane. */
static int find_expired(struct pg *c, const char *sql, const struct lane_expiry *lane, int64_t now,
                        struct pg_waiting *ret, size_t max, size_t *ret_n) {
    struct pg_params *p = pg_params(c);
    bool resumed = lane->resumed_at && now < lane->resumed_at + lane->spare_ms;
    pg_int(p, (int32_t)lane->subscription_no);
    pg_bigint(p, resumed ? lane->resumed_at - lane->window_ms : 0);
    pg_bigint(p, now - lane->window_ms);
    pg_bigint(p, lane->window_ms);
    pg_bigint(p, lane->spare_ms);
    pg_bigint(p, (int64_t)max);
    pg_int(p, EXPIRE_LOOK_MAX);
    return read_waiting(c, sql, lane->subscription_no, ret, ret_n);
}

/* One look; *ret_n are moved. */
static int expire_round(struct pg_store *s, const char *sql, const struct lane_expiry *lane, int64_t now,
                        struct expired_task *ret, size_t max, size_t *ret_n) {
    struct pg_waiting found[CLOSE_A_ROUND];
    bool closed[CLOSE_A_ROUND];
    size_t n = 0;
    *ret_n = 0;
    int r = find_expired(&s->writer, sql, lane, now, found, max < CLOSE_A_ROUND ? max : CLOSE_A_ROUND, &n);
    if (r == 0)
        r = pg_close_waiting(s, found, n, REASON_WINDOW_EXPIRED, now, closed);
    for (size_t i = 0; r == 0 && i < n; i++)
        if (closed[i])
            ret[(*ret_n)++] =
                (struct expired_task){found[i].event_key, lane->subscription_no, lane->tenant_no};
    return r;
}

int postgres_expire(struct store *s, const struct lane_expiry *lane, int64_t now, struct expired_task *ret,
                    size_t limit, size_t *ret_n) {
    /* A delivery that was never attempted is due when its window begins, or a little before, so the due index
     * finds it; the others have an index of their own. */
    static const char *const queries[] = {
        "SELECT event, lane_key, tenant FROM (SELECT event, lane_key, tenant, due_at, window_at"
        " FROM deliveries_open WHERE subscription=$1 AND (state=2 OR state=5) AND window_at>$2 AND "
        "window_at<$3"
        " ORDER BY window_at LIMIT $7) d WHERE due_at IS NULL OR due_at<window_at+$4 OR window_at<$3-$5"
        " LIMIT $6",
        "SELECT event, lane_key, tenant FROM (SELECT event, lane_key, tenant, window_at, state"
        " FROM deliveries_open WHERE subscription=$1 AND due_at IS NOT NULL AND due_at<$3"
        " ORDER BY due_at, event LIMIT $7) d WHERE state=0 AND window_at>$2 AND window_at<$3"
        " AND $4 IS NOT NULL AND $5 IS NOT NULL LIMIT $6",
    };
    size_t total = 0;
    int r = pg_flush(pg_of(s));
    for (int q = 0; r == 0 && q < 2; q++)
        for (size_t n = 1; r == 0 && n > 0 && total < limit; total += n)
            r = expire_round(pg_of(s), queries[q], lane, now, ret + total, limit - total, &n);
    *ret_n = total;
    return r;
}

/* ---- deleted subscriptions ---- */

int postgres_close_deleted(struct store *s, uint32_t subscription_no, int64_t now, unsigned limit,
                           unsigned *ret_n) {
    /* Without their lane keys: the next of each is closed too, there is no use in releasing it. */
    static const char *const queries[] = {
        "SELECT event, NULL::bigint, tenant FROM deliveries_open WHERE subscription=$1 AND due_at IS NOT NULL"
        " ORDER BY due_at, event LIMIT $2",
        "SELECT event, NULL::bigint, tenant FROM deliveries_open WHERE subscription=$1 AND lane_key IS NOT "
        "NULL"
        " AND due_at IS NULL AND state<>1 ORDER BY lane_key, order_at, event LIMIT $2",
    };
    struct pg_waiting found[CLOSE_A_ROUND];
    bool closed[CLOSE_A_ROUND];
    unsigned total = 0;
    int r = pg_flush(pg_of(s));
    for (int q = 0; r == 0 && q < 2; q++) {
        for (size_t n = 1, done = 1; r == 0 && done > 0 && total < limit; total += (unsigned)done) {
            struct pg_params *p = pg_params(&pg_of(s)->writer);
            pg_int(p, (int32_t)subscription_no);
            pg_bigint(p, limit - total < CLOSE_A_ROUND ? limit - total : CLOSE_A_ROUND);
            r = read_waiting(&pg_of(s)->writer, queries[q], subscription_no, found, &n);
            if (r == 0)
                r = pg_close_waiting(pg_of(s), found, n, REASON_SUBSCRIPTION_DELETED, now, closed);
            done = 0;
            for (size_t i = 0; r == 0 && i < n; i++)
                done += closed[i];
        }
    }
    *ret_n = total;
    return r;
}

/* ---- lanes with work ---- */

int postgres_list_lanes_due(struct store *s, uint32_t after_no, struct lane_due *ret, size_t max,
                            size_t *ret_n) {
    int r = pg_flush(pg_of(s));
    if (r == 0)
        r = pg_find_owed(pg_of(s));
    if (r == 0)
        r = pg_release_owed(pg_of(s), INT64_MAX);
    if (r < 0)
        return r;
    struct pg_params *p = pg_params(&pg_of(s)->writer);
    pg_bigint(p, after_no);
    pg_bigint(p, (int64_t)max);
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    /* One step over the index a lane, however many deliveries wait in it. */
    r = pg_query(
        &pg_of(s)->writer,
        "WITH RECURSIVE lane AS ((SELECT subscription, due_at FROM deliveries_open WHERE due_at IS NOT NULL"
        "  AND subscription>$1 ORDER BY subscription, due_at LIMIT 1)"
        " UNION ALL SELECT n.* FROM lane l CROSS JOIN LATERAL (SELECT subscription, due_at"
        "  FROM deliveries_open WHERE due_at IS NOT NULL AND subscription>l.subscription"
        "  ORDER BY subscription, due_at LIMIT 1) n)"
        " SELECT subscription, due_at FROM lane LIMIT $2",
        &rows);
    size_t n = 0;
    while (r == 0 && pg_next(&rows))
        ret[n++] = (struct lane_due){(uint32_t)pg_column_int(&rows, 0), pg_column_int(&rows, 1)};
    *ret_n = n;
    return r;
}
