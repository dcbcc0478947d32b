/* Keys that the server made for itself: sealed where they enter the database, opened where they leave it. */
#include <errno.h>
#include <openssl/crypto.h>

#include "store/sqlite/secrets.h"

static int put(struct store *s, struct slice name, const uint8_t bytes[SERVER_KEY_SIZE]) {
    uint8_t sealed[SEALED_SERVER_KEY_SIZE];
    int r = server_key_seal(&sqlite_of(s)->sealing, name, bytes, sealed);
    if (r < 0)
        return r;
    sqlite3_stmt *st = connection_prepare(
        &sqlite_of(s)->writer, "INSERT OR REPLACE INTO server_keys (name, bytes, seal_key) VALUES (?,?,?)");
    bind_text(st, 1, name);
    bind_blob(st, 2, (struct slice){(const char *)sealed, sizeof sealed});
    bind_int(st, 3, sqlite_of(s)->sealing.no);
    return statement_run(&sqlite_of(s)->writer, st);
}

int server_key_read(const struct sealing *k, sqlite3_stmt *st, uint8_t ret[SERVER_KEY_SIZE]) {
    return server_key_open(k, column_int(st, 2), column_slice(st, 0), column_slice(st, 1), ret);
}

int sqlite_server_key(struct store *s, const char *name, const uint8_t fresh[32], uint8_t ret[32]) {
    struct connection *c = &sqlite_of(s)->writer;
    sqlite3_stmt *st = connection_prepare(c, "SELECT " SERVER_KEY_COLUMNS " FROM server_keys WHERE name=?");
    bind_text(st, 1, slice_of(name));
    int r = statement_next(c, st);
    if (r > 0) {
        r = server_key_read(&sqlite_of(s)->sealing, st, ret);
        statement_done(st);
        return r;
    }
    if (r == 0)
        r = put(s, slice_of(name), fresh);
    if (r == 0)
        memcpy(ret, fresh, SERVER_KEY_SIZE);
    return r;
}

/* The next one that `from` has sealed (NULL: that nothing has): 1, or 0 when there is none. */
static int find_sealed_by(struct store *s, const struct sealing *from, struct buf *ret_name,
                          uint8_t ret[SERVER_KEY_SIZE]) {
    struct connection *c = &sqlite_of(s)->writer;
    sqlite3_stmt *st =
        connection_prepare(c, "SELECT " SERVER_KEY_COLUMNS " FROM server_keys WHERE seal_key IS ? LIMIT 1");
    if (from)
        bind_int(st, 1, from->no);
    else
        bind_time(st, 1, 0);
    int r = statement_next(c, st);
    if (r <= 0)
        return r;
    buf_reset(ret_name);
    buf_add_slice(ret_name, column_slice(st, 0));
    struct slice bytes = column_slice(st, 1);
    r = buf_ok(ret_name) ? 0 : -ENOMEM;
    if (r == 0 && from)
        r = server_key_read(from, st, ret);
    else if (r == 0 && (bytes.n != SERVER_KEY_SIZE || ret_name->n > SERVER_KEY_NAME_MAX))
        r = -EIO;
    else if (r == 0)
        memcpy(ret, bytes.p, SERVER_KEY_SIZE);
    statement_done(st);
    return r < 0 ? r : 1;
}

int server_keys_reseal(struct store *s, const struct sealing *from, size_t *ret_n) {
    _cleanup_buf_ struct buf name = {0};
    uint8_t bytes[SERVER_KEY_SIZE];
    int r = 1;
    for (*ret_n = 0; r > 0 && *ret_n < STORE_SEAL_STEP; *ret_n += (size_t)(r > 0)) {
        r = find_sealed_by(s, from, &name, bytes);
        int stored = r > 0 ? put(s, buf_slice(&name), bytes) : 0;
        r = stored < 0 ? stored : r;
    }
    OPENSSL_cleanse(bytes, sizeof bytes);
    return r < 0 ? r : 0;
}
