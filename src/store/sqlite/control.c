/* The control plane's writes, and what they read within their transaction. */
#include <errno.h>

#include "store/sqlite/secrets.h"

enum { CLOSE_A_ROUND = 64 };

/* Runs a statement that changes one row; `missing` when there was none to change. */
static int run_for(struct connection *c, sqlite3_stmt *st, int missing) {
    int r = statement_run(c, st);
    if (r < 0)
        return r;
    return sqlite3_changes(c->db) ? 0 : missing;
}

/* 1 when the query gives a row. */
static int has_row(struct connection *c, sqlite3_stmt *st) {
    int r = statement_next(c, st);
    if (r > 0)
        statement_done(st);
    return r;
}

/* ---- tenants ---- */

int sqlite_insert_tenant(struct store *s, const struct tenant_record *t, uint32_t *ret_no) {
    struct connection *c = &sqlite_of(s)->writer;
    sqlite3_stmt *st = connection_prepare(
        c, "INSERT INTO tenants (id, doc, created_at, updated_at) VALUES (?,?,?,?) ON CONFLICT DO NOTHING");
    bind_text(st, 1, t->id);
    bind_text(st, 2, t->doc);
    bind_int(st, 3, t->created_at);
    bind_int(st, 4, t->updated_at);
    int r = run_for(c, st, -EEXIST);
    if (r < 0)
        return r;
    *ret_no = (uint32_t)sqlite3_last_insert_rowid(c->db);
    return 0;
}

int sqlite_update_tenant(struct store *s, uint32_t no, struct slice doc, int64_t now) {
    sqlite3_stmt *st = connection_prepare(
        &sqlite_of(s)->writer, "UPDATE tenants SET doc=?, updated_at=? WHERE no=? AND deleted_at IS NULL");
    bind_text(st, 1, doc);
    bind_int(st, 2, now);
    bind_int(st, 3, no);
    return run_for(&sqlite_of(s)->writer, st, -ENOENT);
}

/* 1 while it has a live subscription, or a deleted one whose deliveries are not all closed. */
static int tenant_is_busy(struct connection *c, uint32_t no) {
    sqlite3_stmt *st = connection_prepare(
        c, "SELECT 1 FROM subscriptions s WHERE s.tenant=?1 AND (s.status<>3"
           " OR EXISTS (SELECT 1 FROM deliveries d WHERE d.subscription=s.no AND d.due_at IS NOT NULL)"
           " OR EXISTS (SELECT 1 FROM deliveries d WHERE d.subscription=s.no AND d.lane_key IS NOT NULL))"
           " UNION ALL SELECT 1 FROM deliveries WHERE lease_until>0 AND tenant=?1 LIMIT 1");
    bind_int(st, 1, no);
    return has_row(c, st);
}

int sqlite_delete_tenant(struct store *s, uint32_t no, int64_t now) {
    struct connection *c = &sqlite_of(s)->writer;
    int busy = tenant_is_busy(c, no);
    if (busy < 0)
        return busy;
    sqlite3_stmt *st = connection_prepare(
        c, "UPDATE tenants SET deleted_at=?1, updated_at=?1 WHERE no=?2 AND deleted_at IS NULL AND NOT ?3");
    bind_int(st, 1, now);
    bind_int(st, 2, no);
    bind_int(st, 3, busy);
    return run_for(c, st, busy ? -EBUSY : -ENOENT);
}

int sqlite_get_tenant(struct store *s, uint32_t no, struct tenant_record *ret) {
    sqlite3_stmt *st = connection_prepare(
        &sqlite_of(s)->writer, "SELECT " TENANT_COLUMNS " FROM tenants WHERE no=? AND deleted_at IS NULL");
    bind_int(st, 1, no);
    int r = statement_next(&sqlite_of(s)->writer, st);
    if (r <= 0)
        return r < 0 ? r : -ENOENT;
    /* Not reset: the slices point into the row. */
    read_tenant_columns(st, ret);
    return 0;
}

/* ---- subscriptions ---- */

int sqlite_insert_subscription(struct store *s, const struct subscription_record *r, uint32_t *ret_no) {
    struct connection *c = &sqlite_of(s)->writer;
    const struct sealing *k = &sqlite_of(s)->sealing;
    _cleanup_(split_doc_free) struct split_doc d = {0};
    int e = headers_split(k, r->tenant_no, r->id, r->doc, &d);
    if (e < 0)
        return e;
    sqlite3_stmt *st = connection_prepare(
        c, "INSERT INTO subscriptions (tenant, key, tail, status, disabled_reason, doc, created_at,"
           " updated_at, resumed_at, failing_since, headers, headers_key) VALUES (?,?,?,?,?,?,?,?,?,?,?,?)");
    bind_int(st, 1, r->tenant_no);
    bind_int(st, 2, (int64_t)r->id.key);
    bind_int(st, 3, (int64_t)r->id.tail);
    bind_int(st, 4, r->status);
    bind_text(st, 5, r->disabled_reason);
    bind_text(st, 6, d.doc);
    bind_int(st, 7, r->created_at);
    bind_int(st, 8, r->updated_at);
    bind_time(st, 9, r->resumed_at);
    bind_time(st, 10, r->failing_since);
    headers_bind(st, 11, k, &d);
    e = statement_run(c, st);
    if (e < 0)
        return e;
    *ret_no = (uint32_t)sqlite3_last_insert_rowid(c->db);
    return 0;
}

/* The headers are bound to whose they are, which a record that changes one need not say. */
static int split_for(struct store *s, uint32_t no, struct slice doc, struct split_doc *ret) {
    struct connection *c = &sqlite_of(s)->writer;
    ret->doc = doc;
    if (!headers_in_doc(doc))
        return 0;
    sqlite3_stmt *st =
        connection_prepare(c, "SELECT tenant, key, tail FROM subscriptions WHERE no=? AND status<>3");
    bind_int(st, 1, no);
    int r = statement_next(c, st);
    if (r <= 0)
        return r < 0 ? r : -ENOENT;
    uint32_t tenant_no = (uint32_t)column_int(st, 0);
    struct id id = {.key = (uint64_t)column_int(st, 1), .tail = (uint64_t)column_int(st, 2)};
    statement_done(st);
    return headers_split(&sqlite_of(s)->sealing, tenant_no, id, doc, ret);
}

int sqlite_update_subscription(struct store *s, const struct subscription_record *r) {
    _cleanup_(split_doc_free) struct split_doc d = {0};
    CHECK(r->status != SUBSCRIPTION_DELETED);
    int e = split_for(s, r->no, r->doc, &d);
    if (e < 0)
        return e;
    sqlite3_stmt *st = connection_prepare(
        &sqlite_of(s)->writer,
        "UPDATE subscriptions SET status=?, disabled_reason=?, doc=?, updated_at=?, resumed_at=?,"
        " jobs_settled=?, relane=?, headers=?, headers_key=? WHERE no=? AND status<>3");
    bind_int(st, 1, r->status);
    bind_text(st, 2, r->disabled_reason);
    bind_text(st, 3, d.doc);
    bind_int(st, 4, r->updated_at);
    bind_time(st, 5, r->resumed_at);
    bind_time(st, 6, (int64_t)r->jobs_settled);
    bind_time(st, 7, (int64_t)r->relane);
    headers_bind(st, 8, &sqlite_of(s)->sealing, &d);
    bind_int(st, 10, r->no);
    return run_for(&sqlite_of(s)->writer, st, -ENOENT);
}

int sqlite_set_health(struct store *s, uint32_t subscription_no, int64_t failing_since,
                      int64_t raised_since) {
    sqlite3_stmt *st = connection_prepare(
        &sqlite_of(s)->writer, "UPDATE subscriptions SET failing_since=?, raised_since=? WHERE no=?");
    bind_time(st, 1, failing_since);
    bind_time(st, 2, raised_since);
    bind_int(st, 3, subscription_no);
    return statement_run(&sqlite_of(s)->writer, st);
}

int sqlite_set_lane_state(struct store *s, uint32_t subscription_no, uint32_t tenant_no, struct slice state,
                          int64_t now) {
    (void)tenant_no;
    (void)now;
    sqlite3_stmt *st =
        state.p ? connection_prepare(&sqlite_of(s)->writer,
                                     "INSERT OR REPLACE INTO lane_states (subscription, state) VALUES (?,?)")
                : connection_prepare(&sqlite_of(s)->writer, "DELETE FROM lane_states WHERE subscription=?");
    bind_int(st, 1, subscription_no);
    if (state.p)
        bind_blob(st, 2, state);
    return statement_run(&sqlite_of(s)->writer, st);
}

int sqlite_delete_subscription(struct store *s, uint32_t no, int64_t now) {
    struct connection *c = &sqlite_of(s)->writer;
    /* The row stays for the deliveries that name it; its document goes: headers hold what receivers ask for.
     */
    sqlite3_stmt *st = connection_prepare(
        c, "UPDATE subscriptions SET status=3, updated_at=?, doc='{}', disabled_reason=NULL, headers=NULL,"
           " headers_key=NULL WHERE no=? AND status<>3");
    bind_int(st, 1, now);
    bind_int(st, 2, no);
    int r = run_for(c, st, -ENOENT);
    if (r < 0)
        return r;
    /* Nothing signs for it any more. */
    st = connection_prepare(c, "DELETE FROM secrets WHERE subscription=?");
    bind_int(st, 1, no);
    r = statement_run(c, st);
    if (r == 0)
        r = sqlite_set_lane_state(s, no, 0, SLICE_NONE, now);
    return r < 0 ? r : sqlite_put_tls(s, no, 0, SLICE_NONE);
}

int sqlite_get_subscription(struct store *s, uint32_t no, struct subscription_record *ret) {
    sqlite3_stmt *st = connection_prepare(
        &sqlite_of(s)->writer, "SELECT " SUBSCRIPTION_COLUMNS " FROM subscriptions WHERE no=? AND status<>3");
    bind_int(st, 1, no);
    int r = statement_next(&sqlite_of(s)->writer, st);
    if (r <= 0)
        return r < 0 ? r : -ENOENT;
    /* Not reset: the slices point into the row. */
    return subscription_read(&sqlite_of(s)->sealing, st, &sqlite_of(s)->doc, ret);
}

int sqlite_get_subscription_tenant(struct store *s, uint32_t no, uint32_t *ret_tenant_no) {
    sqlite3_stmt *st =
        connection_prepare(&sqlite_of(s)->writer, "SELECT tenant FROM subscriptions WHERE no=?");
    bind_int(st, 1, no);
    int r = statement_next(&sqlite_of(s)->writer, st);
    if (r <= 0)
        return r < 0 ? r : -ENOENT;
    *ret_tenant_no = (uint32_t)column_int(st, 0);
    statement_done(st);
    return 0;
}

int sqlite_count_subscriptions(struct store *s, uint32_t tenant_no, uint64_t *ret) {
    sqlite3_stmt *st = connection_prepare(&sqlite_of(s)->writer,
                                          "SELECT count(*) FROM subscriptions WHERE tenant=? AND status<>3");
    bind_int(st, 1, tenant_no);
    int r = statement_next(&sqlite_of(s)->writer, st);
    if (r <= 0)
        return r < 0 ? r : -EIO;
    *ret = (uint64_t)column_int(st, 0);
    statement_done(st);
    return 0;
}

/* Collects up to max of a lane's waiting deliveries: of those that are due some time first, then of those
 * that are blocked. */
static int find_waiting(struct connection *c, const char *sql, uint32_t subscription_no,
                        struct waiting_delivery *ret, size_t max, size_t *ret_n) {
    sqlite3_stmt *st = connection_prepare(c, sql);
    bind_int(st, 1, subscription_no);
    bind_int(st, 2, (int64_t)max);
    size_t n = 0;
    int r;
    while ((r = statement_next(c, st)) > 0)
        /* Without its lane key: the next of it is closed too, there is no use in releasing it. */
        ret[n++] = (struct waiting_delivery){.event_key = (uint64_t)column_int(st, 0),
                                             .subscription_no = subscription_no,
                                             .state = (enum delivery_state)column_int(st, 1)};
    *ret_n = n;
    return r;
}

int sqlite_close_deleted(struct store *s, uint32_t subscription_no, int64_t now, unsigned limit,
                         unsigned *ret_n) {
    static const char *const queries[] = {
        "SELECT event, state FROM deliveries WHERE subscription=? AND due_at IS NOT NULL LIMIT ?",
        "SELECT event, state FROM deliveries INDEXED BY deliveries_blocked WHERE subscription=?"
        " AND lane_key IS NOT NULL AND due_at IS NULL AND lease_until IS NULL LIMIT ?",
    };
    struct waiting_delivery found[CLOSE_A_ROUND];
    unsigned total = 0;
    for (size_t q = 0; q < sizeof queries / sizeof queries[0]; q++) {
        size_t n = 1;
        while (n > 0 && total < limit) {
            size_t max = limit - total < CLOSE_A_ROUND ? limit - total : CLOSE_A_ROUND;
            int r = find_waiting(&sqlite_of(s)->writer, queries[q], subscription_no, found, max, &n);
            for (size_t i = 0; r == 0 && i < n; i++)
                r = close_waiting(&sqlite_of(s)->writer, &found[i], REASON_SUBSCRIPTION_DELETED, now);
            if (r < 0)
                return r;
            total += (unsigned)n;
        }
    }
    *ret_n = total;
    return 0;
}

/* ---- API keys and the audit trail ---- */

int sqlite_insert_key(struct store *s, const struct key_record *r) {
    sqlite3_stmt *st = connection_prepare(
        &sqlite_of(s)->writer, "INSERT INTO api_keys (key, tail, hash, tenant, scopes, created_at,"
                               " expires_at) VALUES (?,?,?,?,?,?,?) ON CONFLICT (hash) DO NOTHING");
    bind_int(st, 1, (int64_t)r->id.key);
    bind_int(st, 2, (int64_t)r->id.tail);
    bind_blob(st, 3, (struct slice){(const char *)r->hash, sizeof r->hash});
    bind_int(st, 4, r->tenant_no);
    bind_int(st, 5, r->scopes);
    bind_int(st, 6, r->created_at);
    bind_time(st, 7, r->expires_at);
    return run_for(&sqlite_of(s)->writer, st, -EEXIST);
}

int sqlite_revoke_key(struct store *s, struct id id, int64_t now, uint32_t *ret_tenant_no) {
    struct connection *c = &sqlite_of(s)->writer;
    sqlite3_stmt *st =
        connection_prepare(c, "UPDATE api_keys SET revoked_at=? WHERE key=? AND tail=? AND revoked_at IS NULL"
                              " RETURNING tenant");
    bind_int(st, 1, now);
    bind_int(st, 2, (int64_t)id.key);
    bind_int(st, 3, (int64_t)id.tail);
    int r = statement_next(c, st);
    if (r <= 0)
        return r < 0 ? r : -ENOENT;
    *ret_tenant_no = (uint32_t)column_int(st, 0);
    statement_done(st);
    return 0;
}

int sqlite_insert_audit(struct store *s, const struct audit_record *r) {
    sqlite3_stmt *st = connection_prepare(
        &sqlite_of(s)->writer,
        "INSERT INTO audit (at, tenant, actor, action, object, detail) VALUES (?,?,?,?,?,?)");
    bind_int(st, 1, r->at);
    bind_int(st, 2, r->tenant_no);
    bind_text(st, 3, r->actor);
    bind_text(st, 4, r->action);
    bind_text(st, 5, r->object);
    bind_text(st, 6, r->detail);
    return statement_run(&sqlite_of(s)->writer, st);
}
