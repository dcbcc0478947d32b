/* Reading the control plane: tenants, subscriptions, keys, audit; and the counts of a lane. */
#include <errno.h>

#include "store/sqlite/secrets.h"

static int64_t limit_of(size_t limit) {
    return limit > INT64_MAX ? INT64_MAX : (int64_t)limit;
}

/* Hands each row of st to fn and resets st; *ret_n counts them. */
static int each_tenant(struct connection *c, sqlite3_stmt *st, tenant_row_fn fn, void *arg, size_t *ret_n) {
    int r;
    for (*ret_n = 0; (r = statement_next(c, st)) > 0; ++*ret_n) {
        struct tenant_record row;
        read_tenant_columns(st, &row);
        r = fn(arg, &row);
        if (r != 0) {
            statement_done(st);
            return r;
        }
    }
    return r;
}

static int each_subscription(struct store_reader *reader, sqlite3_stmt *st, subscription_row_fn fn, void *arg,
                             size_t *ret_n) {
    struct connection *c = &sqlite_reader_of(reader)->conn;
    _cleanup_(buf_wipe) struct buf doc = {0};
    int r;
    for (*ret_n = 0; (r = statement_next(c, st)) > 0; ++*ret_n) {
        struct subscription_record row;
        r = subscription_read(sqlite_reader_of(reader)->sealing, st, &doc, &row);
        if (r == 0)
            r = fn(arg, &row);
        if (r != 0) {
            statement_done(st);
            return r;
        }
    }
    return r;
}

int sqlite_read_tenant(struct store_reader *r, struct slice id, tenant_row_fn fn, void *arg) {
    sqlite3_stmt *st =
        connection_prepare(&sqlite_reader_of(r)->conn,
                           "SELECT " TENANT_COLUMNS " FROM tenants WHERE id=? AND deleted_at IS NULL");
    bind_text(st, 1, id);
    size_t n;
    int e = each_tenant(&sqlite_reader_of(r)->conn, st, fn, arg, &n);
    return e == 0 && n == 0 ? -ENOENT : e;
}

int sqlite_list_tenants(struct store_reader *r, uint32_t before_no, size_t limit, tenant_row_fn fn,
                        void *arg) {
    sqlite3_stmt *st = connection_prepare(
        &sqlite_reader_of(r)->conn,
        "SELECT " TENANT_COLUMNS " FROM tenants WHERE no<? AND deleted_at IS NULL ORDER BY no DESC LIMIT ?");
    bind_int(st, 1, before_no ? before_no : INT64_MAX);
    bind_int(st, 2, limit_of(limit));
    size_t n;
    return each_tenant(&sqlite_reader_of(r)->conn, st, fn, arg, &n);
}

int sqlite_read_subscription(struct store_reader *r, uint32_t tenant_no, struct id id, subscription_row_fn fn,
                             void *arg) {
    sqlite3_stmt *st = connection_prepare(
        &sqlite_reader_of(r)->conn, "SELECT " SUBSCRIPTION_COLUMNS
                                    " FROM subscriptions WHERE key=? AND tail=? AND tenant=? AND status<>3");
    bind_int(st, 1, (int64_t)id.key);
    bind_int(st, 2, (int64_t)id.tail);
    bind_int(st, 3, tenant_no);
    size_t n;
    int e = each_subscription(r, st, fn, arg, &n);
    return e == 0 && n == 0 ? -ENOENT : e;
}

int sqlite_find_subscription(struct store_reader *r, uint32_t tenant_no, struct id id, uint32_t *ret_no) {
    sqlite3_stmt *st = connection_prepare(&sqlite_reader_of(r)->conn,
                                          "SELECT no FROM subscriptions WHERE key=? AND tail=? AND tenant=?");
    bind_int(st, 1, (int64_t)id.key);
    bind_int(st, 2, (int64_t)id.tail);
    bind_int(st, 3, tenant_no);
    int e = statement_next(&sqlite_reader_of(r)->conn, st);
    if (e <= 0)
        return e < 0 ? e : -ENOENT;
    *ret_no = (uint32_t)column_int(st, 0);
    statement_done(st);
    return 0;
}

int sqlite_list_subscriptions(struct store_reader *r, uint32_t tenant_no, int status, uint32_t before_no,
                              size_t limit, subscription_row_fn fn, void *arg) {
    sqlite3_stmt *st = connection_prepare(
        &sqlite_reader_of(r)->conn,
        "SELECT " SUBSCRIPTION_COLUMNS
        " FROM subscriptions WHERE tenant=?1 AND no<?2 AND status<>3 AND (?3<0 OR status=?3)"
        " ORDER BY no DESC LIMIT ?4");
    bind_int(st, 1, tenant_no);
    bind_int(st, 2, before_no ? before_no : INT64_MAX);
    bind_int(st, 3, status);
    bind_int(st, 4, limit_of(limit));
    size_t n;
    return each_subscription(r, st, fn, arg, &n);
}

int sqlite_each_subscription(struct store_reader *r, subscription_row_fn fn, void *arg) {
    sqlite3_stmt *st =
        connection_prepare(&sqlite_reader_of(r)->conn,
                           "SELECT " SUBSCRIPTION_COLUMNS " FROM subscriptions WHERE status<>3 ORDER BY no");
    size_t n;
    return each_subscription(r, st, fn, arg, &n);
}

int sqlite_each_lane_state(struct store_reader *r, lane_state_row_fn fn, void *arg) {
    struct connection *c = &sqlite_reader_of(r)->conn;
    sqlite3_stmt *st = connection_prepare(c, "SELECT subscription, state FROM lane_states");
    int e;
    while ((e = statement_next(c, st)) > 0) {
        e = fn(arg, (uint32_t)column_int(st, 0), column_slice(st, 1));
        if (e != 0) {
            statement_done(st);
            return e;
        }
    }
    return e;
}

int sqlite_list_keys(struct store_reader *r, size_t limit, key_row_fn fn, void *arg) {
    struct connection *c = &sqlite_reader_of(r)->conn;
    sqlite3_stmt *st =
        connection_prepare(c, "SELECT key, tail, hash, tenant, scopes, created_at, expires_at, revoked_at"
                              " FROM api_keys ORDER BY key DESC, tail DESC LIMIT ?");
    bind_int(st, 1, limit_of(limit));
    int e;
    while ((e = statement_next(c, st)) > 0) {
        struct key_record row = {
            .id = {.key = (uint64_t)column_int(st, 0), .tail = (uint64_t)column_int(st, 1)},
            .tenant_no = (uint32_t)column_int(st, 3),
            .scopes = (uint32_t)column_int(st, 4),
            .created_at = column_int(st, 5),
            .expires_at = column_int(st, 6),
            .revoked_at = column_int(st, 7),
        };
        struct slice hash = column_slice(st, 2);
        CHECK(hash.n == sizeof row.hash);
        memcpy(row.hash, hash.p, sizeof row.hash);
        e = fn(arg, &row);
        if (e != 0) {
            statement_done(st);
            return e;
        }
    }
    return e;
}

int sqlite_list_audit(struct store_reader *r, struct slice tenant_id, uint64_t before_no, size_t limit,
                      audit_row_fn fn, void *arg) {
    struct connection *c = &sqlite_reader_of(r)->conn;
    sqlite3_stmt *st = connection_prepare(
        c, "SELECT a.no, a.at, a.tenant, a.actor, a.action, a.object, a.detail, t.id FROM audit a"
           " LEFT JOIN tenants t ON t.no=a.tenant WHERE a.no<?1 AND (?2 IS NULL OR t.id=?2)"
           " ORDER BY a.no DESC LIMIT ?3");
    bind_int(st, 1, before_no ? (int64_t)before_no : INT64_MAX);
    bind_text(st, 2, tenant_id);
    bind_int(st, 3, limit_of(limit));
    int e;
    while ((e = statement_next(c, st)) > 0) {
        struct audit_record row = {
            .at = column_int(st, 1),
            .tenant_no = (uint32_t)column_int(st, 2),
            .actor = column_slice(st, 3),
            .action = column_slice(st, 4),
            .object = column_slice(st, 5),
            .detail = column_slice(st, 6),
            .tenant_id = column_slice(st, 7),
        };
        e = fn(arg, (uint64_t)column_int(st, 0), &row);
        if (e != 0) {
            statement_done(st);
            return e;
        }
    }
    return e;
}

static int count(struct connection *c, const char *sql, uint32_t subscription_no, uint64_t max,
                 uint64_t *ret) {
    sqlite3_stmt *st = connection_prepare(c, sql);
    bind_int(st, 1, subscription_no);
    bind_int(st, 2, max > INT64_MAX ? INT64_MAX : (int64_t)max);
    int r = statement_next(c, st);
    if (r <= 0)
        return r < 0 ? r : -EIO;
    *ret = (uint64_t)column_int(st, 0);
    statement_done(st);
    return 0;
}

int sqlite_count_lane(struct store_reader *r, uint32_t subscription_no, uint32_t tenant_no, uint64_t max,
                      uint64_t *ret_pending, uint64_t *ret_dlq) {
    (void)tenant_no; /* the indexes go by subscription */
    /* Three disjoint parts, each an index: due some time; in an ordered lane and not; under way elsewhere. */
    static const char open_sql[] =
        "SELECT count(*) FROM (SELECT 1 FROM deliveries WHERE subscription=?1 AND due_at IS NOT NULL"
        " UNION ALL SELECT 1 FROM deliveries"
        " WHERE subscription=?1 AND lane_key IS NOT NULL AND due_at IS NULL"
        " UNION ALL SELECT 1 FROM deliveries WHERE lease_until>0 AND lane_key IS NULL AND subscription=?1"
        " LIMIT ?2)";
    static const char dlq_sql[] =
        "SELECT count(*) FROM (SELECT 1 FROM deliveries WHERE subscription=?1 AND state=4 LIMIT ?2)";
    uint64_t pending, dlq;
    int e = count(&sqlite_reader_of(r)->conn, open_sql, subscription_no, max, &pending);
    if (e == 0)
        e = count(&sqlite_reader_of(r)->conn, dlq_sql, subscription_no, max, &dlq);
    if (e < 0)
        return e;
    *ret_pending = pending;
    *ret_dlq = dlq;
    return 0;
}

int sqlite_count_deliveries(struct store_reader *r, uint64_t *ret_pending, uint64_t *ret_dlq) {
    sqlite3_stmt *st = connection_prepare(
        &sqlite_reader_of(r)->conn,
        "SELECT (SELECT count(*) FROM deliveries INDEXED BY deliveries_due WHERE due_at IS NOT NULL)"
        " + (SELECT count(*) FROM deliveries INDEXED BY deliveries_blocked"
        "    WHERE lane_key IS NOT NULL AND due_at IS NULL AND lease_until IS NULL)"
        " + (SELECT count(*) FROM deliveries INDEXED BY deliveries_leased WHERE lease_until IS NOT NULL),"
        " (SELECT count(*) FROM deliveries INDEXED BY deliveries_failed"
        "    WHERE (state=2 OR state=4 OR state=5) AND state=4)");
    int e = statement_next(&sqlite_reader_of(r)->conn, st);
    if (e <= 0)
        return e < 0 ? e : -EIO;
    *ret_pending = (uint64_t)column_int(st, 0);
    *ret_dlq = (uint64_t)column_int(st, 1);
    statement_done(st);
    return 0;
}
