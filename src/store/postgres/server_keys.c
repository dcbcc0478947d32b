/* Keys that the server made for itself: sealed where they enter the database, opened where they leave it. */
#include <errno.h>
#include <openssl/crypto.h>

#include "store/postgres/secrets.h"

/* `sql` writes the key of a name ($1): what is sealed ($2), and by which key ($3). */
static int put(struct pg_store *s, const char *sql, struct slice name, const uint8_t bytes[SERVER_KEY_SIZE]) {
    uint8_t sealed[SEALED_SERVER_KEY_SIZE];
    int r = server_key_seal(&s->sealing, name, bytes, sealed);
    if (r < 0)
        return r;
    struct pg_params *p = pg_params(&s->writer);
    pg_text(p, name);
    pg_bytea(p, (struct slice){(const char *)sealed, sizeof sealed});
    pg_int(p, (int32_t)s->sealing.no);
    return pg_send(&s->writer, sql);
}

int pg_read_server_key(const struct sealing *k, const struct pg_rows *rows, uint8_t ret[SERVER_KEY_SIZE]) {
    return server_key_open(k, pg_column_int(rows, 2), pg_column_slice(rows, 0), pg_column_slice(rows, 1),
                           ret);
}

/* Of several nodes that start at once one makes it, and all take that. */
int postgres_server_key(struct store *store, const char *name, const uint8_t fresh[32], uint8_t ret[32]) {
    struct pg_store *s = pg_of(store);
    int r =
        put(s, "INSERT INTO server_keys (name, bytes, seal_key) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
            slice_of(name), fresh);
    if (r < 0)
        return r;
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    pg_text(pg_params(&s->writer), slice_of(name));
    r = pg_query_row(&s->writer, "SELECT " PG_SERVER_KEY_COLUMNS " FROM server_keys WHERE name=$1", &rows);
    if (r <= 0)
        return r < 0 ? r : -EIO;
    return pg_read_server_key(&s->sealing, &rows, ret);
}

/* The key of this row, which `from` has sealed; NULL: nothing has. */
static int read_row(const struct sealing *from, const struct pg_rows *rows, uint8_t ret[SERVER_KEY_SIZE]) {
    struct slice bytes = pg_column_slice(rows, 1);
    if (from)
        return pg_read_server_key(from, rows, ret);
    if (bytes.n != SERVER_KEY_SIZE || pg_column_slice(rows, 0).n > SERVER_KEY_NAME_MAX)
        return -EIO;
    memcpy(ret, bytes.p, SERVER_KEY_SIZE);
    return 0;
}

int pg_reseal_server_keys(struct pg_store *s, const struct sealing *from, size_t *ret_n) {
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    uint8_t bytes[SERVER_KEY_SIZE];
    struct pg_params *p = pg_params(&s->writer);
    pg_time(p, from ? from->no : 0);
    pg_bigint(p, STORE_SEAL_STEP);
    int r = pg_query(&s->writer,
                     "SELECT " PG_SERVER_KEY_COLUMNS " FROM server_keys WHERE seal_key IS NOT DISTINCT FROM"
                     " $1 LIMIT $2 FOR UPDATE",
                     &rows);
    for (*ret_n = 0; r == 0 && pg_next(&rows); ++*ret_n) {
        r = read_row(from, &rows, bytes);
        if (r == 0)
            r = put(s, "UPDATE server_keys SET bytes=$2, seal_key=$3 WHERE name=$1",
                    pg_column_slice(&rows, 0), bytes);
    }
    OPENSSL_cleanse(bytes, sizeof bytes);
    return r;
}
