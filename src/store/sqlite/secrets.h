/* The sealed rows of the table secrets. */
#pragma once

#include "store/sqlite/sqlite.h"

#define SECRET_COLUMNS "key, tail, subscription, tenant, scheme, seal_key, sealed, created_at, expires_at"
/* Opens a row of these columns. -EIO, logged with the secret's id: it was changed from outside, or k is not
 * the key that sealed it. The caller wipes *ret. */
int secret_read(const struct sealing *k, sqlite3_stmt *st, struct secret_record *ret) MUST_USE;

/* Seals anew, with the store's key, up to STORE_SEAL_STEP TLS materials that `from` has sealed. */
int tls_reseal(struct store *s, const struct sealing *from, size_t *ret_n) MUST_USE;
