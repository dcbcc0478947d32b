/* The sealed rows of the tables secrets, subscription_tls and server_keys. */
#pragma once

#include "store/sqlite/sqlite.h"

#define SECRET_COLUMNS "key, tail, subscription, tenant, scheme, seal_key, sealed, created_at, expires_at"
/* Opens a row of these columns. -EIO, logged with the secret's id: it was changed from outside, or k is not
 * the key that sealed it. The caller wipes *ret. */
int secret_read(const struct sealing *k, sqlite3_stmt *st, struct secret_record *ret) MUST_USE;

/* Seals anew, with the store's key, up to STORE_SEAL_STEP TLS materials that `from` has sealed. */
int tls_reseal(struct store *s, const struct sealing *from, size_t *ret_n) MUST_USE;

#define TLS_COLUMNS "subscription, tenant, seal_key, sealed"
/* Opens a row of these columns; appends to ret, which the caller wipes. */
int tls_read(const struct sealing *k, sqlite3_stmt *st, struct buf *ret) MUST_USE;

#define SERVER_KEY_COLUMNS "name, bytes, seal_key"
/* Opens a row of these columns; the caller wipes ret. */
int server_key_read(const struct sealing *k, sqlite3_stmt *st, uint8_t ret[SERVER_KEY_SIZE]) MUST_USE;
/* Likewise, of the server's own keys; from NULL: those that are not sealed yet. */
int server_keys_reseal(struct store *s, const struct sealing *from, size_t *ret_n) MUST_USE;
