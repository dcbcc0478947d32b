/* What is sealed: rows of the tables secrets, subscription_tls and server_keys, headers. */
#pragma once

#include "store/postgres/postgres.h"

#define PG_SECRET_COLUMNS "key, tail, subscription, tenant, scheme, seal_key, sealed, created_at, expires_at"
/* Errors are those of secret_open; the caller wipes *ret. */
int pg_read_secret(const struct sealing *k, const struct pg_rows *rows, struct secret_record *ret) MUST_USE;

#define PG_TLS_COLUMNS "subscription, tenant, seal_key, sealed"
/* Appends to ret, which the caller wipes. */
int pg_read_tls(const struct sealing *k, const struct pg_rows *rows, struct buf *ret) MUST_USE;

#define PG_SERVER_KEY_COLUMNS "name, bytes, seal_key"
/* The caller wipes ret. */
int pg_read_server_key(const struct sealing *k, const struct pg_rows *rows,
                       uint8_t ret[SERVER_KEY_SIZE]) MUST_USE;
/* Seals anew, with the store's key, those that `from` has sealed; NULL: those that are not sealed yet. */
int pg_reseal_server_keys(struct pg_store *s, const struct sealing *from, size_t *ret_n) MUST_USE;

/* Adds headers and headers_key of a document that was split. */
void pg_add_headers(struct pg_params *p, const struct sealing *k, const struct split_doc *d);
/* A row of PG_SUBSCRIPTION_COLUMNS; its document, put together again, is built in doc, which the caller
 * wipes. */
int pg_open_subscription(const struct sealing *k, const struct pg_rows *rows, struct buf *doc,
                         struct subscription_record *ret) MUST_USE;
/* Seals anew up to STORE_SEAL_STEP of them that `from` has sealed. */
int pg_reseal_headers(struct pg_store *s, const struct sealing *from, size_t *ret_n) MUST_USE;

/* Whether some are from before they were sealed; then all are walked through, STORE_SEAL_STEP a call: fewer
 * than that were left when *ret_n is. *total counts what was sealed. */
int pg_headers_in_clear(struct pg *c, bool *ret) MUST_USE;
int pg_seal_docs(struct pg_store *s, int64_t *at, uint64_t *total, size_t *ret_n) MUST_USE;
struct pg_attempt_key {
    int32_t tenant;
    int64_t event;
    int32_t subscription, number;
};
int pg_seal_attempts(struct pg_store *s, struct pg_attempt_key *at, uint64_t *total, size_t *ret_n) MUST_USE;
