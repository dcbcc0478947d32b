/* Signing secrets and TLS keys: sealed where they enter the database, opened where they leave it. */
#include "store/postgres/secrets.h"

#include <errno.h>

/* ---- signing secrets ---- */

int pg_read_secret(const struct sealing *k, const struct pg_rows *rows, struct secret_record *ret) {
    *ret = (struct secret_record){
        .id = {.key = (uint64_t)pg_column_int(rows, 0), .tail = (uint64_t)pg_column_int(rows, 1)},
        .subscription_no = (uint32_t)pg_column_int(rows, 2),
        .tenant_no = (uint32_t)pg_column_int(rows, 3),
        .key = {.scheme = (enum signing_scheme)pg_column_int(rows, 4), .expires_at = pg_column_int(rows, 8)},
        .created_at = pg_column_int(rows, 7),
    };
    return secret_open(k, pg_column_int(rows, 5), pg_column_slice(rows, 6), ret);
}

int postgres_insert_secret(struct store *store, const struct secret_record *r) {
    struct pg_store *s = pg_of(store);
    uint8_t sealed[SEALED_SECRET_MAX];
    size_t n = 0;
    int e = secret_seal(&s->sealing, r, sealed, &n);
    if (e < 0)
        return e;
    struct pg_params *p = pg_params(&s->writer);
    pg_int(p, (int32_t)r->tenant_no);
    pg_int(p, (int32_t)r->subscription_no);
    pg_bigint(p, (int64_t)r->id.key);
    pg_bigint(p, (int64_t)r->id.tail);
    pg_int(p, (int32_t)r->key.scheme);
    pg_bigint(p, s->sealing.no);
    pg_bytea(p, (struct slice){(const char *)sealed, n});
    pg_bigint(p, r->created_at);
    pg_time(p, r->key.expires_at);
    e = pg_send(&s->writer, "INSERT INTO secrets (tenant, subscription, key, tail, scheme, seal_key, sealed,"
                            " created_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)");
    return e < 0 ? e : pg_note_change(s, PG_CHANGE_SUBSCRIPTION, r->tenant_no, r->subscription_no);
}

int postgres_expire_secrets(struct store *store, uint32_t subscription_no, int64_t expires_at) {
    struct pg_store *s = pg_of(store);
    struct pg_params *p = pg_params(&s->writer);
    pg_bigint(p, expires_at);
    pg_int(p, (int32_t)subscription_no);
    int r = pg_send(&s->writer, "UPDATE secrets SET expires_at=$1 WHERE subscription=$2"
                                " AND (expires_at IS NULL OR expires_at>$1)");
    uint32_t tenant_no = 0;
    if (r == 0)
        r = postgres_get_subscription_tenant(store, subscription_no, &tenant_no);
    if (r < 0)
        return r == -ENOENT ? 0 : r;
    return pg_note_change(s, PG_CHANGE_SUBSCRIPTION, tenant_no, subscription_no);
}

/* Opens each row for fn and wipes it. */
static int each_secret(struct pg *c, const struct sealing *k, const char *sql, secret_row_fn fn, void *arg) {
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    int r = pg_query(c, sql, &rows);
    while (r == 0 && pg_next(&rows)) {
        struct secret_record row;
        r = pg_read_secret(k, &rows, &row);
        if (r == 0)
            r = fn(arg, &row);
        explicit_bzero(&row, sizeof row);
    }
    return r;
}

struct keys {
    struct signing_key *at;
    size_t n;
};

static int take_key(void *arg, const struct secret_record *row) {
    struct keys *keys = arg;
    keys->at[keys->n++] = row->key;
    return 0;
}

int postgres_get_signing_keys(struct store *store, uint32_t subscription_no, int64_t now,
                              struct signing_key *ret, size_t *ret_n) {
    struct pg_store *s = pg_of(store);
    struct keys keys = {.at = ret};
    struct pg_params *p = pg_params(&s->writer);
    pg_int(p, (int32_t)subscription_no);
    pg_bigint(p, now);
    pg_bigint(p, SUBSCRIPTION_SECRETS_MAX);
    int r = each_secret(&s->writer, &s->sealing,
                        "SELECT " PG_SECRET_COLUMNS " FROM secrets WHERE subscription=$1"
                        " AND (expires_at IS NULL OR expires_at>$2) ORDER BY key DESC LIMIT $3",
                        take_key, &keys);
    if (r == 0)
        *ret_n = keys.n;
    return r;
}

int postgres_list_secrets(struct store_reader *r, uint32_t subscription_no, int64_t now, secret_row_fn fn,
                          void *arg) {
    struct pg *c = &pg_reader_of(r)->conn;
    struct pg_params *p = pg_params(c);
    pg_int(p, (int32_t)subscription_no);
    pg_bigint(p, now);
    return each_secret(c, pg_reader_of(r)->sealing,
                       "SELECT " PG_SECRET_COLUMNS " FROM secrets WHERE subscription=$1"
                       " AND (expires_at IS NULL OR expires_at>$2) ORDER BY key DESC",
                       fn, arg);
}

/* ---- TLS keys ---- */

static int remove_tls(struct pg *c, uint32_t subscription_no) {
    pg_int(pg_params(c), (int32_t)subscription_no);
    return pg_send(c, "DELETE FROM subscription_tls WHERE subscription=$1");
}

int postgres_put_tls(struct store *store, uint32_t subscription_no, uint32_t tenant_no, struct slice text) {
    struct pg_store *s = pg_of(store);
    if (!text.p)
        return remove_tls(&s->writer, subscription_no);
    _cleanup_free_ uint8_t *sealed = malloc(text.n + SEAL_OVERHEAD);
    if (!sealed)
        return -ENOMEM;
    int r = tls_seal(&s->sealing, tenant_no, subscription_no, text, sealed);
    if (r < 0)
        return r;
    struct pg_params *p = pg_params(&s->writer);
    pg_int(p, (int32_t)tenant_no);
    pg_int(p, (int32_t)subscription_no);
    pg_bigint(p, s->sealing.no);
    pg_bytea(p, (struct slice){(const char *)sealed, text.n + SEAL_OVERHEAD});
    r = pg_send(
        &s->writer,
        "INSERT INTO subscription_tls (tenant, subscription, seal_key, sealed) VALUES ($1, $2, $3, $4)"
        " ON CONFLICT (tenant, subscription) DO UPDATE SET seal_key=excluded.seal_key,"
        " sealed=excluded.sealed");
    return r < 0 ? r : pg_note_change(s, PG_CHANGE_SUBSCRIPTION, tenant_no, subscription_no);
}

int pg_read_tls(const struct sealing *k, const struct pg_rows *rows, struct buf *ret) {
    return tls_open(k, pg_column_int(rows, 2), (uint32_t)pg_column_int(rows, 1),
                    (uint32_t)pg_column_int(rows, 0), pg_column_slice(rows, 3), ret);
}

static int find_tls(struct pg *c, const struct sealing *k, uint32_t subscription_no, struct buf *ret) {
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    pg_int(pg_params(c), (int32_t)subscription_no);
    int r = pg_query_row(c, "SELECT " PG_TLS_COLUMNS " FROM subscription_tls WHERE subscription=$1", &rows);
    if (r <= 0)
        return r < 0 ? r : -ENOENT;
    return pg_read_tls(k, &rows, ret);
}

int postgres_get_tls(struct store *s, uint32_t subscription_no, struct buf *ret) {
    return find_tls(&pg_of(s)->writer, &pg_of(s)->sealing, subscription_no, ret);
}

int postgres_read_tls(struct store_reader *r, uint32_t subscription_no, struct buf *ret) {
    return find_tls(&pg_reader_of(r)->conn, pg_reader_of(r)->sealing, subscription_no, ret);
}
