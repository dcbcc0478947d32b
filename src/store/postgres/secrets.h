/* The sealed rows of the tables secrets and subscription_tls. */
#pragma once

#include "store/postgres/postgres.h"

#define PG_SECRET_COLUMNS "key, tail, subscription, tenant, scheme, seal_key, sealed, created_at, expires_at"
/* Errors are those of secret_open; the caller wipes *ret. */
int pg_read_secret(const struct sealing *k, const struct pg_rows *rows, struct secret_record *ret) MUST_USE;

#define PG_TLS_COLUMNS "subscription, tenant, seal_key, sealed"
/* Appends to ret, which the caller wipes. */
int pg_read_tls(const struct sealing *k, const struct pg_rows *rows, struct buf *ret) MUST_USE;
