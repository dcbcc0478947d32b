/* The sealed rows of the tables secrets, subscription_tls and server_keys. */
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
