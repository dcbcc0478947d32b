/* TLS material of subscriptions: sealed where it enters the database, opened where it leaves it. */
#include <errno.h>

#include "store/sqlite/secrets.h"

static int remove_tls(struct store *s, uint32_t subscription_no) {
    sqlite3_stmt *st =
        connection_prepare(&sqlite_of(s)->writer, "DELETE FROM subscription_tls WHERE subscription=?");
    bind_int(st, 1, subscription_no);
    return statement_run(&sqlite_of(s)->writer, st);
}

int sqlite_put_tls(struct store *s, uint32_t subscription_no, uint32_t tenant_no, struct slice text) {
    if (!text.p)
        return remove_tls(s, subscription_no);
    _cleanup_free_ uint8_t *sealed = malloc(text.n + SEAL_OVERHEAD);
    if (!sealed)
        return -ENOMEM;
    int r = tls_seal(&sqlite_of(s)->sealing, tenant_no, subscription_no, text, sealed);
    if (r < 0)
        return r;
    sqlite3_stmt *st = connection_prepare(
        &sqlite_of(s)->writer,
        "INSERT OR REPLACE INTO subscription_tls (subscription, tenant, seal_key, sealed) VALUES (?,?,?,?)");
    bind_int(st, 1, subscription_no);
    bind_int(st, 2, tenant_no);
    bind_int(st, 3, sqlite_of(s)->sealing.no);
    bind_blob(st, 4, (struct slice){(const char *)sealed, text.n + SEAL_OVERHEAD});
    return statement_run(&sqlite_of(s)->writer, st);
}

int tls_read(const struct sealing *k, sqlite3_stmt *st, struct buf *ret) {
    return tls_open(k, column_int(st, 2), (uint32_t)column_int(st, 1), (uint32_t)column_int(st, 0),
                    column_slice(st, 3), ret);
}

#define TLS_QUERY "SELECT " TLS_COLUMNS " FROM subscription_tls WHERE "

static int read_tls(struct connection *c, const struct sealing *k, uint32_t subscription_no,
                    struct buf *ret) {
    sqlite3_stmt *st = connection_prepare(c, TLS_QUERY "subscription=?");
    bind_int(st, 1, subscription_no);
    int r = statement_next(c, st);
    if (r <= 0)
        return r < 0 ? r : -ENOENT;
    r = tls_read(k, st, ret);
    statement_done(st);
    return r;
}

int sqlite_get_tls(struct store *s, uint32_t subscription_no, struct buf *ret) {
    return read_tls(&sqlite_of(s)->writer, &sqlite_of(s)->sealing, subscription_no, ret);
}

int sqlite_read_tls(struct store_reader *r, uint32_t subscription_no, struct buf *ret) {
    return read_tls(&sqlite_reader_of(r)->conn, sqlite_reader_of(r)->sealing, subscription_no, ret);
}

/* The next one that `from` has sealed: 1, or 0 when there is none. */
static int find_sealed_by(struct store *s, const struct sealing *from, uint32_t *ret_no, uint32_t *ret_tenant,
                          struct buf *ret) {
    sqlite3_stmt *st = connection_prepare(&sqlite_of(s)->writer, TLS_QUERY "seal_key=? LIMIT 1");
    bind_int(st, 1, from->no);
    int r = statement_next(&sqlite_of(s)->writer, st);
    if (r <= 0)
        return r;
    *ret_no = (uint32_t)column_int(st, 0);
    *ret_tenant = (uint32_t)column_int(st, 1);
    buf_reset(ret);
    r = tls_read(from, st, ret);
    statement_done(st);
    return r < 0 ? r : 1;
}

int tls_reseal(struct store *s, const struct sealing *from, size_t *ret_n) {
    struct buf text = {0};
    int r = 1;
    for (*ret_n = 0; r > 0 && *ret_n < STORE_SEAL_STEP; *ret_n += (size_t)(r > 0)) {
        uint32_t no, tenant_no;
        r = find_sealed_by(s, from, &no, &tenant_no, &text);
        if (r > 0) {
            int put = remove_tls(s, no);
            if (put == 0)
                put = sqlite_put_tls(s, no, tenant_no, buf_slice(&text));
            r = put < 0 ? put : 1;
        }
    }
    buf_wipe(&text);
    return r < 0 ? r : 0;
}
