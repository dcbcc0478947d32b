/* What is sealed: rows of the tables secrets, subscription_tls and server_keys, headers. */
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

/* Binds headers and headers_key of a document that was split, at and at + 1; *d must outlive the step. */
void headers_bind(sqlite3_stmt *st, int at, const struct sealing *k, const struct split_doc *d);
/* A row of SUBSCRIPTION_COLUMNS; its document, put together again, is built in doc, which the caller wipes.
 */
int subscription_read(const struct sealing *k, sqlite3_stmt *st, struct buf *doc,
                      struct subscription_record *ret) MUST_USE;
/* As tls_reseal. */
int headers_reseal(struct store *s, const struct sealing *from, size_t *ret_n) MUST_USE;

/* Whether some are from before they were sealed; then all are walked through, STORE_SEAL_STEP a call: fewer
 * than that were left when *ret_n is. *total counts what was sealed. */
int headers_in_clear(struct connection *c, bool *ret) MUST_USE;
int headers_seal_docs(struct store *s, int64_t *at, uint64_t *total, size_t *ret_n) MUST_USE;
struct attempt_key {
    int64_t event, subscription, number;
};
int headers_seal_attempts(struct store *s, struct attempt_key *at, uint64_t *total, size_t *ret_n) MUST_USE;
