/* The control plane's writes, and what they read within their transaction: the rows that they go by stay
 * locked, so that two nodes do not overwrite each other's changes. */
#include <errno.h>

#include "store/postgres/secrets.h"

/* Runs a statement that changes one row; `missing` when there was none to change. */
static int run_for(struct pg *c, const char *sql, int missing) {
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    int r = pg_query(c, sql, &rows);
    if (r < 0)
        return r;
    return pg_changed(&rows) ? 0 : missing;
}

/* Of a query that gives a row of one number; `missing` when there is none. */
static int number_for(struct pg *c, const char *sql, int missing, int64_t *ret) {
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    int r = pg_query_row(c, sql, &rows);
    if (r <= 0)
        return r < 0 ? r : missing;
    *ret = pg_column_int(&rows, 0);
    return 0;
}

int pg_note_change(struct pg_store *s, enum pg_change kind, uint32_t tenant_no, uint64_t no) {
    struct pg_params *p = pg_params(&s->writer);
    pg_int(p, (int32_t)s->node.no);
    pg_int(p, (int32_t)kind);
    pg_int(p, (int32_t)tenant_no);
    pg_bigint(p, (int64_t)no);
    s->changed = true;
    return pg_send(&s->writer,
                   "INSERT INTO changes (node, kind, tenant, no, at) VALUES ($1, $2, $3, $4, " PG_NOW ")");
}

/* ---- tenants ---- */

void pg_read_tenant(const struct pg_rows *rows, struct tenant_record *ret) {
    *ret = (struct tenant_record){
        .no = (uint32_t)pg_column_int(rows, 0),
        .id = pg_column_slice(rows, 1),
        .doc = pg_column_slice(rows, 2),
        .created_at = pg_column_int(rows, 3),
        .updated_at = pg_column_int(rows, 4),
        .tier_change = (uint64_t)pg_column_int(rows, 5),
    };
}

int postgres_insert_tenant(struct store *store, const struct tenant_record *t, uint32_t *ret_no) {
    struct pg_store *s = pg_of(store);
    struct pg_params *p = pg_params(&s->writer);
    pg_text(p, t->id);
    pg_text(p, t->doc);
    pg_bigint(p, t->created_at);
    pg_bigint(p, t->updated_at);
    int64_t no = 0;
    int r = number_for(&s->writer,
                       "INSERT INTO tenants (id, doc, created_at, updated_at) VALUES ($1, $2, $3, $4)"
                       " ON CONFLICT DO NOTHING RETURNING no",
                       -EEXIST, &no);
    if (r < 0)
        return r;
    *ret_no = (uint32_t)no;
    return pg_note_change(s, PG_CHANGE_TENANT, *ret_no, *ret_no);
}

int postgres_update_tenant(struct store *store, uint32_t no, struct slice doc, int64_t now) {
    struct pg_store *s = pg_of(store);
    struct pg_params *p = pg_params(&s->writer);
    pg_text(p, doc);
    pg_bigint(p, now);
    pg_int(p, (int32_t)no);
    int r = run_for(&s->writer, "UPDATE tenants SET doc=$1, updated_at=$2 WHERE no=$3 AND deleted_at IS NULL",
                    -ENOENT);
    return r < 0 ? r : pg_note_change(s, PG_CHANGE_TENANT, no, no);
}

/* Locks it, so that no node makes a subscription in the meantime. */
static int lock_tenant(struct pg *c, uint32_t no) {
    int64_t ignored;
    pg_int(pg_params(c), (int32_t)no);
    return number_for(c, "SELECT no FROM tenants WHERE no=$1 AND deleted_at IS NULL FOR UPDATE", -ENOENT,
                      &ignored);
}

int postgres_delete_tenant(struct store *store, uint32_t no, int64_t now) {
    struct pg_store *s = pg_of(store);
    int64_t busy = 0;
    int r = pg_flush(s);
    if (r == 0)
        r = lock_tenant(&s->writer, no);
    if (r < 0)
        return r;
    pg_int(pg_params(&s->writer), (int32_t)no);
    r = number_for(&s->writer,
                   "SELECT EXISTS (SELECT 1 FROM subscriptions WHERE tenant=$1 AND status<>3)"
                   " OR EXISTS (SELECT 1 FROM deliveries_open WHERE tenant=$1)",
                   -EIO, &busy);
    if (r < 0 || busy)
        return r < 0 ? r : -EBUSY;
    struct pg_params *p = pg_params(&s->writer);
    pg_bigint(p, now);
    pg_int(p, (int32_t)no);
    r = pg_send(&s->writer, "UPDATE tenants SET deleted_at=$1, updated_at=$1 WHERE no=$2");
    return r < 0 ? r : pg_note_change(s, PG_CHANGE_TENANT, no, no);
}

int postgres_get_tenant(struct store *store, uint32_t no, struct tenant_record *ret) {
    struct pg_store *s = pg_of(store);
    pg_int(pg_params(&s->writer), (int32_t)no);
    struct pg_rows *rows = pg_lend(s);
    int r = pg_query_row(&s->writer,
                         "SELECT " PG_TENANT_COLUMNS
                         " FROM tenants WHERE no=$1 AND deleted_at IS NULL FOR NO KEY UPDATE",
                         rows);
    if (r <= 0)
        return r < 0 ? r : -ENOENT;
    pg_read_tenant(rows, ret);
    return 0;
}

int postgres_next_tenant(struct store *store, uint32_t after_no, struct tenant_record *ret,
                         bool *ret_deleted) {
    struct pg_store *s = pg_of(store);
    pg_bigint(pg_params(&s->writer), after_no);
    struct pg_rows *rows = pg_lend(s);
    int r = pg_query_row(&s->writer,
                         "SELECT " PG_TENANT_COLUMNS
                         ", deleted_at IS NOT NULL FROM tenants WHERE no>$1 ORDER BY no LIMIT 1",
                         rows);
    if (r <= 0)
        return r < 0 ? r : -ENOENT;
    pg_read_tenant(rows, ret);
    *ret_deleted = pg_column_int(rows, 6) != 0;
    return 0;
}

/* ---- subscriptions ---- */

void pg_read_subscription(const struct pg_rows *rows, struct subscription_record *ret) {
    *ret = (struct subscription_record){
        .no = (uint32_t)pg_column_int(rows, 0),
        .tenant_no = (uint32_t)pg_column_int(rows, 1),
        .id = {.key = (uint64_t)pg_column_int(rows, 2), .tail = (uint64_t)pg_column_int(rows, 3)},
        .status = (enum subscription_status)pg_column_int(rows, 4),
        .disabled_reason = pg_column_slice(rows, 5),
        .doc = pg_column_slice(rows, 6),
        .created_at = pg_column_int(rows, 7),
        .updated_at = pg_column_int(rows, 8),
        .resumed_at = pg_column_int(rows, 9),
        .failing_since = pg_column_int(rows, 10),
        .raised_since = pg_column_int(rows, 11),
        .jobs_settled = (uint64_t)pg_column_int(rows, 12),
        .relane = (uint64_t)pg_column_int(rows, 13),
    };
}

#define INSERT_SUBSCRIPTION                                                                                  \
    "INSERT INTO subscriptions (tenant, key, tail, status, disabled_reason, doc, created_at, updated_at,"    \
    " resumed_at, failing_since, headers, headers_key) SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11," \
    " $12"

int postgres_insert_subscription(struct store *store, const struct subscription_record *r, uint32_t *ret_no) {
    struct pg_store *s = pg_of(store);
    _cleanup_(split_doc_free) struct split_doc d = {0};
    int e = headers_split(&s->sealing, r->tenant_no, r->id, r->doc, &d);
    if (e < 0)
        return e;
    struct pg_params *p = pg_params(&s->writer);
    pg_int(p, (int32_t)r->tenant_no);
    pg_bigint(p, (int64_t)r->id.key);
    pg_bigint(p, (int64_t)r->id.tail);
    pg_int(p, (int32_t)r->status);
    pg_text(p, r->disabled_reason);
    pg_text(p, d.doc);
    pg_bigint(p, r->created_at);
    pg_bigint(p, r->updated_at);
    pg_time(p, r->resumed_at);
    pg_time(p, r->failing_since);
    pg_add_headers(p, &s->sealing, &d);
    int64_t no = 0;
    /* Another node may be deleting the tenant; the operator's own have none. */
    e = number_for(
        &s->writer,
        r->tenant_no ? INSERT_SUBSCRIPTION
            " FROM (SELECT FROM tenants WHERE no=$1 AND deleted_at IS NULL FOR SHARE) t RETURNING no"
                     : INSERT_SUBSCRIPTION " RETURNING no",
        -ENOENT, &no);
    if (e < 0)
        return e;
    *ret_no = (uint32_t)no;
    return pg_note_change(s, PG_CHANGE_SUBSCRIPTION, r->tenant_no, *ret_no);
}

/* The headers are bound to whose they are, which a record that changes one need not say. */
static int split_for(struct pg_store *s, uint32_t no, struct slice doc, struct split_doc *ret) {
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    ret->doc = doc;
    if (!headers_in_doc(doc))
        return 0;
    pg_int(pg_params(&s->writer), (int32_t)no);
    int r = pg_query_row(&s->writer, "SELECT tenant, key, tail FROM subscriptions WHERE no=$1 AND status<>3",
                         &rows);
    if (r <= 0)
        return r < 0 ? r : -ENOENT;
    struct id id = {.key = (uint64_t)pg_column_int(&rows, 1), .tail = (uint64_t)pg_column_int(&rows, 2)};
    return headers_split(&s->sealing, (uint32_t)pg_column_int(&rows, 0), id, doc, ret);
}

int postgres_update_subscription(struct store *store, const struct subscription_record *r) {
    CHECK(r->status != SUBSCRIPTION_DELETED);
    struct pg_store *s = pg_of(store);
    _cleanup_(split_doc_free) struct split_doc d = {0};
    int e = split_for(s, r->no, r->doc, &d);
    if (e < 0)
        return e;
    struct pg_params *p = pg_params(&s->writer);
    pg_int(p, (int32_t)r->status);
    pg_text(p, r->disabled_reason);
    pg_text(p, d.doc);
    pg_bigint(p, r->updated_at);
    pg_time(p, r->resumed_at);
    pg_time(p, (int64_t)r->jobs_settled);
    pg_time(p, (int64_t)r->relane);
    pg_int(p, (int32_t)r->no);
    pg_add_headers(p, &s->sealing, &d);
    int64_t tenant = 0;
    e = number_for(&s->writer,
                   "UPDATE subscriptions SET status=$1, disabled_reason=$2, doc=$3, updated_at=$4,"
                   " resumed_at=$5, jobs_settled=$6, relane=$7, headers=$9, headers_key=$10 WHERE no=$8"
                   " AND status<>3 RETURNING tenant",
                   -ENOENT, &tenant);
    return e < 0 ? e : pg_note_change(s, PG_CHANGE_SUBSCRIPTION, (uint32_t)tenant, r->no);
}

int postgres_set_health(struct store *store, uint32_t subscription_no, int64_t failing_since,
                        int64_t raised_since) {
    struct pg *c = &pg_of(store)->writer;
    struct pg_params *p = pg_params(c);
    pg_time(p, failing_since);
    pg_time(p, raised_since);
    pg_int(p, (int32_t)subscription_no);
    return pg_send(c, "UPDATE subscriptions SET failing_since=$1, raised_since=$2 WHERE no=$3");
}

int postgres_delete_subscription(struct store *store, uint32_t no, int64_t now) {
    struct pg_store *s = pg_of(store);
    struct pg_params *p = pg_params(&s->writer);
    pg_bigint(p, now);
    pg_int(p, (int32_t)no);
    int64_t tenant = 0;
    /* The row stays for the deliveries that name it; its document goes: headers hold what receivers ask for.
     */
    int r = number_for(&s->writer,
                       "UPDATE subscriptions SET status=3, updated_at=$1, doc='{}', disabled_reason=NULL,"
                       " headers=NULL, headers_key=NULL WHERE no=$2 AND status<>3 RETURNING tenant",
                       -ENOENT, &tenant);
    if (r < 0)
        return r;
    /* Nothing signs for it any more. */
    p = pg_params(&s->writer);
    pg_int(p, (int32_t)tenant);
    pg_int(p, (int32_t)no);
    r = pg_send(&s->writer, "DELETE FROM secrets WHERE tenant=$1 AND subscription=$2");
    if (r == 0)
        r = postgres_put_tls(store, no, (uint32_t)tenant, SLICE_NONE);
    if (r == 0)
        r = postgres_set_lane_state(store, no, (uint32_t)tenant, SLICE_NONE, now);
    return r < 0 ? r : pg_note_change(s, PG_CHANGE_SUBSCRIPTION, (uint32_t)tenant, no);
}

int postgres_get_subscription(struct store *store, uint32_t no, struct subscription_record *ret) {
    struct pg_store *s = pg_of(store);
    pg_int(pg_params(&s->writer), (int32_t)no);
    struct pg_rows *rows = pg_lend(s);
    int r = pg_query_row(&s->writer,
                         "SELECT " PG_SUBSCRIPTION_COLUMNS
                         " FROM subscriptions WHERE no=$1 AND status<>3 FOR NO KEY UPDATE",
                         rows);
    if (r <= 0)
        return r < 0 ? r : -ENOENT;
    return pg_open_subscription(&s->sealing, rows, &s->doc, ret);
}

int postgres_get_subscription_tenant(struct store *store, uint32_t no, uint32_t *ret_tenant_no) {
    struct pg *c = &pg_of(store)->writer;
    int64_t tenant = 0;
    pg_int(pg_params(c), (int32_t)no);
    int r = number_for(c, "SELECT tenant FROM subscriptions WHERE no=$1", -ENOENT, &tenant);
    if (r == 0)
        *ret_tenant_no = (uint32_t)tenant;
    return r;
}

int postgres_count_subscriptions(struct store *store, uint32_t tenant_no, uint64_t *ret) {
    struct pg *c = &pg_of(store)->writer;
    int64_t n = 0;
    pg_int(pg_params(c), (int32_t)tenant_no);
    int r = number_for(c, "SELECT count(*) FROM subscriptions WHERE tenant=$1 AND status<>3", -EIO, &n);
    if (r == 0)
        *ret = (uint64_t)n;
    return r;
}

/* ---- API keys and the audit trail ---- */

int postgres_insert_key(struct store *store, const struct key_record *r) {
    struct pg_store *s = pg_of(store);
    struct pg_params *p = pg_params(&s->writer);
    pg_bigint(p, (int64_t)r->id.key);
    pg_bigint(p, (int64_t)r->id.tail);
    pg_bytea(p, (struct slice){(const char *)r->hash, sizeof r->hash});
    pg_int(p, (int32_t)r->tenant_no);
    pg_int(p, (int32_t)r->scopes);
    pg_bigint(p, r->created_at);
    pg_time(p, r->expires_at);
    int e = run_for(&s->writer,
                    "INSERT INTO api_keys (key, tail, hash, tenant, scopes, created_at, expires_at)"
                    " VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (hash) DO NOTHING",
                    -EEXIST);
    return e < 0 ? e : pg_note_change(s, PG_CHANGE_KEY, r->tenant_no, r->id.key);
}

int postgres_revoke_key(struct store *store, struct id id, int64_t now, uint32_t *ret_tenant_no) {
    struct pg_store *s = pg_of(store);
    struct pg_params *p = pg_params(&s->writer);
    pg_bigint(p, now);
    pg_bigint(p, (int64_t)id.key);
    pg_bigint(p, (int64_t)id.tail);
    int64_t tenant = 0;
    int r = number_for(&s->writer,
                       "UPDATE api_keys SET revoked_at=$1 WHERE key=$2 AND tail=$3 AND revoked_at IS NULL"
                       " RETURNING tenant",
                       -ENOENT, &tenant);
    if (r < 0)
        return r;
    *ret_tenant_no = (uint32_t)tenant;
    return pg_note_change(s, PG_CHANGE_KEY, *ret_tenant_no, id.key);
}

int postgres_insert_audit(struct store *store, const struct audit_record *r) {
    struct pg *c = &pg_of(store)->writer;
    struct pg_params *p = pg_params(c);
    pg_bigint(p, r->at);
    pg_int(p, (int32_t)r->tenant_no);
    pg_text(p, r->actor);
    pg_text(p, r->action);
    pg_text(p, r->object);
    pg_text(p, r->detail);
    return pg_send(c, "INSERT INTO audit (at, tenant, actor, action, object, detail)"
                      " VALUES ($1, $2, $3, $4, $5, $6)");
}
