/* Retention of what the control plane leaves behind: audit, ended keys, workers that are gone. */
#include <errno.h>

#include "store/postgres/postgres.h"

int postgres_see_worker(struct store *store, uint32_t no, int64_t now) {
    struct pg *c = &pg_of(store)->writer;
    struct pg_params *p = pg_params(c);
    pg_bigint(p, now);
    pg_int(p, (int32_t)no);
    return pg_send(c, "UPDATE workers SET seen_at=$1 WHERE no=$2");
}

/* Runs a deletion of what is from before $1, up to *left ($2) rows, which go off it. */
static int delete_before(struct pg *c, const char *sql, int64_t before, unsigned *left) {
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    if (*left == 0)
        return 0;
    struct pg_params *p = pg_params(c);
    pg_bigint(p, before);
    pg_bigint(p, *left);
    int r = pg_query(c, sql, &rows);
    if (r == 0)
        *left -= (unsigned)pg_changed(&rows);
    return r;
}

/* No event is older: the first of its days begins then. 0: some stand outside of days; INT64_MAX: there are
 * no days. */
static int first_day_at(struct pg *c, int64_t *ret) {
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    int r = pg_query_row(
        c,
        "SELECT CASE WHEN EXISTS (SELECT 1 FROM events_other WHERE tenant>=0) THEN 0 ELSE coalesce((SELECT"
        " min(to_date(right(c.relname, 8), 'YYYYMMDD') - date '1970-01-01')"
        " * bigint '86400000' FROM pg_inherits i JOIN pg_class c ON c.oid=i.inhrelid"
        " WHERE i.inhparent='events'::regclass AND c.relname<>'events_other'),"
        " 9223372036854775807) END",
        &rows);
    if (r > 0)
        *ret = pg_column_int(&rows, 0);
    return r > 0 ? 0 : r < 0 ? r : -EIO;
}

/* An attempt was made after its event came: a worker that was gone before the oldest of all has none. */
static int delete_workers(struct pg *c, int64_t before, unsigned *left) {
    static const int64_t DAY_MS = INT64_C(86400) * 1000;
    int64_t first_day = 0;
    int r = first_day_at(c, &first_day);
    if (r < 0)
        return r;
    return delete_before(c,
                         "DELETE FROM workers WHERE no IN (SELECT no FROM workers WHERE seen_at<$1 LIMIT $2)",
                         before < first_day - DAY_MS ? before : first_day - DAY_MS, left);
}

int postgres_retain_control(struct store *store, const struct control_retention *keep, unsigned limit,
                            unsigned *ret_n) {
    struct pg *c = &pg_of(store)->writer;
    unsigned left = limit;
    int r = pg_flush(pg_of(store));
    /* Its numbers go with the time. */
    if (r == 0)
        r = delete_before(
            c,
            "DELETE FROM audit WHERE no IN (SELECT no FROM (SELECT no, at FROM audit ORDER BY no"
            " LIMIT $2) a WHERE at<$1)",
            keep->audit_before, &left);
    if (r == 0)
        r = delete_before(c,
                          "DELETE FROM api_keys WHERE (key, tail) IN (SELECT key, tail FROM api_keys WHERE"
                          " coalesce(revoked_at, expires_at)<$1 LIMIT $2)",
                          keep->keys_before, &left);
    if (r == 0)
        r = delete_workers(c, keep->workers_before, &left);
    if (r == 0)
        *ret_n = limit - left;
    return r;
}
