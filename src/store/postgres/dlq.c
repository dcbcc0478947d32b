/* How many deliveries there are: in the dead-letter queue, kept by deltas with each transition; of a lane;
 * and of the store. */
#include <errno.h>

#include "store/postgres/postgres.h"

enum {
    COUNTS_A_ROUND = 500,
    COUNTED_MAX = 1000000, /* open deliveries; of more the database's estimate is told */
};

static void read_row(const struct pg_rows *rows, struct dlq_count_row *ret) {
    *ret = (struct dlq_count_row){
        .subscription_no = (uint32_t)pg_column_int(rows, 0),
        .subscription_id = {.key = (uint64_t)pg_column_int(rows, 1),
                            .tail = (uint64_t)pg_column_int(rows, 2)},
        .reason = (enum delivery_reason)pg_column_int(rows, 3),
        .n = (uint64_t)pg_column_int(rows, 4),
    };
}

int postgres_list_dlq_counts(struct store_reader *r, uint32_t tenant_no, uint32_t subscription_no,
                             uint32_t after_no, dlq_count_row_fn fn, void *arg) {
    struct pg *c = &pg_reader_of(r)->conn;
    struct dlq_count_row row = {.subscription_no = after_no, .reason = DELIVERY_REASONS};
    for (size_t n = COUNTS_A_ROUND; n == COUNTS_A_ROUND;) {
        _cleanup_pg_rows_ struct pg_rows rows = {0};
        struct pg_params *p = pg_params(c);
        pg_int(p, (int32_t)tenant_no);
        pg_int(p, (int32_t)row.subscription_no);
        pg_int(p, row.reason);
        pg_int(p, (int32_t)subscription_no);
        pg_int(p, COUNTS_A_ROUND);
        int e = pg_query(
            c,
            "SELECT d.subscription, s.key, s.tail, d.reason, d.n FROM (SELECT subscription, reason,"
            " sum(n)::bigint AS n FROM dlq_counts WHERE tenant=$1 AND (subscription, reason) > ($2, $3) AND"
            " ($4=0 OR subscription=$4) GROUP BY subscription, reason HAVING sum(n) > 0 ORDER BY"
            " subscription, reason LIMIT $5) d CROSS JOIN LATERAL (SELECT key, tail FROM subscriptions WHERE "
            "tenant=$1 AND"
            " no=d.subscription LIMIT 1) s"
            " ORDER BY d.subscription, d.reason",
            &rows);
        for (n = 0; e == 0 && pg_next(&rows); n++) {
            read_row(&rows, &row);
            e = fn(arg, &row);
        }
        if (e != 0)
            return e;
    }
    return 0;
}

int postgres_sum_dlq(struct store_reader *r, uint32_t tenant_no, uint32_t subscription_no,
                     uint64_t ret[DELIVERY_REASONS]) {
    struct pg *c = &pg_reader_of(r)->conn;
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    struct pg_params *p = pg_params(c);
    pg_int(p, (int32_t)tenant_no);
    pg_int(p, (int32_t)subscription_no);
    int e = pg_query(c,
                     "SELECT reason, sum(n)::bigint FROM dlq_counts WHERE tenant=$1"
                     " AND ($2=0 OR subscription=$2) GROUP BY reason",
                     &rows);
    memset(ret, 0, DELIVERY_REASONS * sizeof *ret);
    while (e == 0 && pg_next(&rows))
        if (pg_column_int(&rows, 0) < DELIVERY_REASONS && pg_column_int(&rows, 1) > 0)
            ret[pg_column_int(&rows, 0)] = (uint64_t)pg_column_int(&rows, 1);
    return e;
}

/* ---- of a lane, of the store ---- */

static int read_two(struct pg *c, const char *sql, uint64_t *ret_pending, uint64_t *ret_dlq) {
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    int r = pg_query_row(c, sql, &rows);
    if (r <= 0)
        return r < 0 ? r : -EIO;
    *ret_pending = (uint64_t)pg_column_int(&rows, 0);
    *ret_dlq = (uint64_t)pg_column_int(&rows, 1);
    return 0;
}

int postgres_count_lane(struct store_reader *r, uint32_t subscription_no, uint32_t tenant_no, uint64_t max,
                        uint64_t *ret_pending, uint64_t *ret_dlq) {
    struct pg *c = &pg_reader_of(r)->conn;
    struct pg_params *p = pg_params(c);
    pg_int(p, (int32_t)tenant_no);
    pg_int(p, (int32_t)subscription_no);
    pg_bigint(p, max > INT64_MAX ? INT64_MAX : (int64_t)max);
    return read_two(
        c,
        "SELECT (SELECT count(*) FROM (SELECT 1 FROM deliveries_open WHERE subscription=$2 LIMIT $3) o),"
        " greatest(0, least($3, (SELECT coalesce(sum(n), 0)::bigint FROM dlq_counts WHERE tenant=$1 AND "
        "subscription=$2)))",
        ret_pending, ret_dlq);
}

int postgres_count_deliveries(struct store_reader *r, uint64_t *ret_pending, uint64_t *ret_dlq) {
    struct pg *c = &pg_reader_of(r)->conn;
    pg_bigint(pg_params(c), COUNTED_MAX);
    return read_two(
        c,
        "SELECT (SELECT CASE WHEN n < $1 THEN n ELSE greatest(n, (SELECT reltuples::bigint FROM pg_class"
        " WHERE oid='deliveries_open'::regclass)) END FROM (SELECT count(*) AS n FROM (SELECT subscription"
        " FROM deliveries_open WHERE subscription > 0 LIMIT $1) x) o),"
        " greatest(0, (SELECT sum(n)::bigint FROM dlq_counts))",
        ret_pending, ret_dlq);
}
