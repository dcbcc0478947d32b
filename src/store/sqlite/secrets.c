/* Signing secrets: sealed where they enter the database, opened where they leave it. */
#include "store/sqlite/secrets.h"

int secret_read(const struct sealing *k, sqlite3_stmt *st, struct secret_record *ret) {
    *ret = (struct secret_record){
        .id = {.key = (uint64_t)column_int(st, 0), .tail = (uint64_t)column_int(st, 1)},
        .subscription_no = (uint32_t)column_int(st, 2),
        .tenant_no = (uint32_t)column_int(st, 3),
        .key = {.scheme = (enum signing_scheme)column_int(st, 4), .expires_at = column_int(st, 8)},
        .created_at = column_int(st, 7),
    };
    return secret_open(k, column_int(st, 5), column_slice(st, 6), ret);
}

int sqlite_insert_secret(struct store *s, const struct secret_record *r) {
    uint8_t sealed[SEALED_SECRET_MAX];
    size_t n = 0;
    int e = secret_seal(&sqlite_of(s)->sealing, r, sealed, &n);
    if (e < 0)
        return e;
    sqlite3_stmt *st =
        connection_prepare(&sqlite_of(s)->writer,
                           "INSERT INTO secrets (key, tail, subscription, tenant, scheme, seal_key, sealed,"
                           " created_at, expires_at) VALUES (?,?,?,?,?,?,?,?,?)");
    bind_int(st, 1, (int64_t)r->id.key);
    bind_int(st, 2, (int64_t)r->id.tail);
    bind_int(st, 3, r->subscription_no);
    bind_int(st, 4, r->tenant_no);
    bind_int(st, 5, r->key.scheme);
    bind_int(st, 6, sqlite_of(s)->sealing.no);
    bind_blob(st, 7, (struct slice){(const char *)sealed, n});
    bind_int(st, 8, r->created_at);
    bind_time(st, 9, r->key.expires_at);
    return statement_run(&sqlite_of(s)->writer, st);
}

int sqlite_expire_secrets(struct store *s, uint32_t subscription_no, int64_t expires_at) {
    sqlite3_stmt *st =
        connection_prepare(&sqlite_of(s)->writer, "UPDATE secrets SET expires_at=?1 WHERE subscription=?2"
                                                  " AND (expires_at IS NULL OR expires_at>?1)");
    bind_int(st, 1, expires_at);
    bind_int(st, 2, subscription_no);
    return statement_run(&sqlite_of(s)->writer, st);
}

/* Opens each row for fn and wipes it; resets st. */
static int each_secret(struct connection *c, const struct sealing *k, sqlite3_stmt *st, secret_row_fn fn,
                       void *arg) {
    int r;
    while ((r = statement_next(c, st)) > 0) {
        struct secret_record row;
        r = secret_read(k, st, &row);
        if (r == 0)
            r = fn(arg, &row);
        explicit_bzero(&row, sizeof row);
        if (r != 0) {
            statement_done(st);
            return r;
        }
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

int sqlite_get_signing_keys(struct store *s, uint32_t subscription_no, int64_t now, struct signing_key *ret,
                            size_t *ret_n) {
    struct connection *c = &sqlite_of(s)->writer;
    struct keys keys = {.at = ret};
    sqlite3_stmt *st =
        connection_prepare(c, "SELECT " SECRET_COLUMNS " FROM secrets WHERE subscription=?"
                              " AND (expires_at IS NULL OR expires_at>?) ORDER BY key DESC LIMIT ?");
    bind_int(st, 1, subscription_no);
    bind_int(st, 2, now);
    bind_int(st, 3, SUBSCRIPTION_SECRETS_MAX);
    int r = each_secret(c, &sqlite_of(s)->sealing, st, take_key, &keys);
    if (r == 0)
        *ret_n = keys.n;
    return r;
}

int sqlite_list_secrets(struct store_reader *r, uint32_t subscription_no, int64_t now, secret_row_fn fn,
                        void *arg) {
    sqlite3_stmt *st = connection_prepare(&sqlite_reader_of(r)->conn,
                                          "SELECT " SECRET_COLUMNS " FROM secrets WHERE subscription=?2"
                                          " AND (expires_at IS NULL OR expires_at>?1) ORDER BY key DESC");
    bind_int(st, 1, now);
    bind_int(st, 2, subscription_no);
    return each_secret(&sqlite_reader_of(r)->conn, sqlite_reader_of(r)->sealing, st, fn, arg);
}
