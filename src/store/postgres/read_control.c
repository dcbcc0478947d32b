/* Reading the control plane: tenants, subscriptions, keys, audit. */
#include <errno.h>

#include "store/postgres/secrets.h"

enum { SUBSCRIPTIONS_A_PAGE = 1000 };

/* Hands each row to fn; *ret_n counts them. */
static int each_tenant(struct pg *c, const char *sql, tenant_row_fn fn, void *arg, size_t *ret_n) {
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    int r = pg_query(c, sql, &rows);
    for (*ret_n = 0; r == 0 && pg_next(&rows); ++*ret_n) {
        struct tenant_record row;
        pg_read_tenant(&rows, &row);
        r = fn(arg, &row);
    }
    return r;
}

/* *ret_last: the number of the last one. */
static int each_subscription(struct store_reader *reader, const char *sql, subscription_row_fn fn, void *arg,
                             size_t *ret_n, uint32_t *ret_last) {
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    _cleanup_(buf_wipe) struct buf doc = {0};
    int r = pg_query(&pg_reader_of(reader)->conn, sql, &rows);
    for (*ret_n = 0; r == 0 && pg_next(&rows); ++*ret_n) {
        struct subscription_record row;
        r = pg_open_subscription(pg_reader_of(reader)->sealing, &rows, &doc, &row);
        *ret_last = row.no;
        if (r == 0)
            r = fn(arg, &row);
    }
    return r;
}

int postgres_read_tenant(struct store_reader *r, struct slice id, tenant_row_fn fn, void *arg) {
    struct pg *c = &pg_reader_of(r)->conn;
    size_t n;
    pg_text(pg_params(c), id);
    int e = each_tenant(c, "SELECT " PG_TENANT_COLUMNS " FROM tenants WHERE id=$1 AND deleted_at IS NULL", fn,
                        arg, &n);
    return e == 0 && n == 0 ? -ENOENT : e;
}

int postgres_list_tenants(struct store_reader *r, uint32_t before_no, size_t limit, tenant_row_fn fn,
                          void *arg) {
    struct pg *c = &pg_reader_of(r)->conn;
    struct pg_params *p = pg_params(c);
    size_t n;
    pg_bigint(p, before_no ? before_no : INT64_MAX);
    pg_bigint(p, pg_limit(limit));
    return each_tenant(c,
                       "SELECT " PG_TENANT_COLUMNS
                       " FROM tenants WHERE no<$1 AND deleted_at IS NULL ORDER BY no DESC LIMIT $2",
                       fn, arg, &n);
}

int postgres_read_subscription(struct store_reader *r, uint32_t tenant_no, struct id id,
                               subscription_row_fn fn, void *arg) {
    struct pg *c = &pg_reader_of(r)->conn;
    struct pg_params *p = pg_params(c);
    size_t n;
    uint32_t last;
    pg_int(p, (int32_t)tenant_no);
    pg_bigint(p, (int64_t)id.key);
    pg_bigint(p, (int64_t)id.tail);
    int e = each_subscription(r,
                              "SELECT " PG_SUBSCRIPTION_COLUMNS
                              " FROM subscriptions WHERE tenant=$1 AND key=$2 AND tail=$3 AND status<>3",
                              fn, arg, &n, &last);
    return e == 0 && n == 0 ? -ENOENT : e;
}

int postgres_find_subscription(struct store_reader *r, uint32_t tenant_no, struct id id, uint32_t *ret_no) {
    struct pg *c = &pg_reader_of(r)->conn;
    struct pg_params *p = pg_params(c);
    pg_int(p, (int32_t)tenant_no);
    pg_bigint(p, (int64_t)id.key);
    pg_bigint(p, (int64_t)id.tail);
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    int e = pg_query_row(c, "SELECT no FROM subscriptions WHERE tenant=$1 AND key=$2 AND tail=$3", &rows);
    if (e <= 0)
        return e < 0 ? e : -ENOENT;
    *ret_no = (uint32_t)pg_column_int(&rows, 0);
    return 0;
}

int postgres_list_subscriptions(struct store_reader *r, uint32_t tenant_no, int status, uint32_t before_no,
                                size_t limit, subscription_row_fn fn, void *arg) {
    struct pg *c = &pg_reader_of(r)->conn;
    struct pg_params *p = pg_params(c);
    size_t n;
    uint32_t last;
    pg_int(p, (int32_t)tenant_no);
    pg_bigint(p, before_no ? before_no : INT64_MAX);
    pg_int(p, status);
    pg_bigint(p, pg_limit(limit));
    return each_subscription(
        r,
        "SELECT " PG_SUBSCRIPTION_COLUMNS
        " FROM subscriptions WHERE tenant=$1 AND no<$2 AND status<>3 AND ($3<0 OR status=$3)"
        " ORDER BY no DESC LIMIT $4",
        fn, arg, &n, &last);
}

/* In pages: all of them at once may be more than memory holds. What changes in between is in the change feed.
 */
int postgres_each_subscription(struct store_reader *r, subscription_row_fn fn, void *arg) {
    struct pg *c = &pg_reader_of(r)->conn;
    size_t n = SUBSCRIPTIONS_A_PAGE;
    uint32_t last = 0;
    int e = 0;
    while (e == 0 && n == SUBSCRIPTIONS_A_PAGE) {
        struct pg_params *p = pg_params(c);
        pg_bigint(p, last);
        pg_bigint(p, SUBSCRIPTIONS_A_PAGE);
        e = each_subscription(r,
                              "SELECT " PG_SUBSCRIPTION_COLUMNS
                              " FROM subscriptions WHERE no>$1 AND status<>3 ORDER BY no LIMIT $2",
                              fn, arg, &n, &last);
    }
    return e;
}

int postgres_list_keys(struct store_reader *r, size_t limit, key_row_fn fn, void *arg) {
    struct pg *c = &pg_reader_of(r)->conn;
    pg_bigint(pg_params(c), pg_limit(limit));
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    int e =
        pg_query(c,
                 "SELECT key, tail, hash, tenant, scopes, created_at, expires_at, revoked_at FROM api_keys"
                 " ORDER BY key DESC, tail DESC LIMIT $1",
                 &rows);
    while (e == 0 && pg_next(&rows)) {
        struct key_record row = {
            .id = {.key = (uint64_t)pg_column_int(&rows, 0), .tail = (uint64_t)pg_column_int(&rows, 1)},
            .tenant_no = (uint32_t)pg_column_int(&rows, 3),
            .scopes = (uint32_t)pg_column_int(&rows, 4),
            .created_at = pg_column_int(&rows, 5),
            .expires_at = pg_column_int(&rows, 6),
            .revoked_at = pg_column_int(&rows, 7),
        };
        struct slice hash = pg_column_slice(&rows, 2);
        CHECK(hash.n == sizeof row.hash);
        memcpy(row.hash, hash.p, sizeof row.hash);
        e = fn(arg, &row);
    }
    return e;
}

#define AUDIT_QUERY                                                                                          \
    "SELECT a.no, a.at, a.tenant, a.actor, a.action, a.object, a.detail, t.id FROM audit a"                  \
    " LEFT JOIN tenants t ON t.no=a.tenant WHERE a.no<$1"
#define NEWEST_FIRST " ORDER BY a.no DESC LIMIT $2"

int postgres_list_audit(struct store_reader *r, struct slice tenant_id, uint64_t before_no, size_t limit,
                        audit_row_fn fn, void *arg) {
    struct pg *c = &pg_reader_of(r)->conn;
    struct pg_params *p = pg_params(c);
    pg_bigint(p, before_no ? (int64_t)before_no : INT64_MAX);
    pg_bigint(p, pg_limit(limit));
    if (tenant_id.p)
        pg_text(p, tenant_id);
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    int e = pg_query(c,
                     tenant_id.p ? AUDIT_QUERY
                         " AND a.tenant IN (SELECT no FROM tenants WHERE id=$3)" NEWEST_FIRST
                                 : AUDIT_QUERY NEWEST_FIRST,
                     &rows);
    while (e == 0 && pg_next(&rows)) {
        struct audit_record row = {
            .at = pg_column_int(&rows, 1),
            .tenant_no = (uint32_t)pg_column_int(&rows, 2),
            .actor = pg_column_slice(&rows, 3),
            .action = pg_column_slice(&rows, 4),
            .object = pg_column_slice(&rows, 5),
            .detail = pg_column_slice(&rows, 6),
            .tenant_id = pg_column_slice(&rows, 7),
        };
        e = fn(arg, (uint64_t)pg_column_int(&rows, 0), &row);
    }
    return e;
}
