/* A store moves from SQLite to PostgreSQL: everything in it, under the same numbers and ids, or nothing. */
#pragma once

#include "store/store.h"

struct store_import {
    /* Rows copied, of how many in all; then, again from 0, rows read back and compared. Some times a second.
     * May be NULL, as may be `copied`: a table is there, and is what it was. */
    void (*progress)(void *arg, bool comparing, uint64_t done, uint64_t total);
    void (*copied)(void *arg, const char *table, uint64_t rows);
    void *arg;
};

/* Takes the lock of `from` ("sqlite:FILE", of this program's schema; no server runs on it) and leaves it as
 * it is. `to` ("postgres://…") must be empty; its schema is made. All of it is one transaction there: on any
 * failure, or when the process dies, it is as empty as before. Every table is read back and compared, row by
 * row, before it is committed. Secrets stay sealed, with the keys that sealed them. -ENOENT: there is no
 * store to read; -EBUSY: a server runs on one of them; -EEXIST: `to` is not empty; -EPROTONOSUPPORT: another
 * schema; -EUCLEAN: what was read back differs, or what was read is damaged. */
int store_import(const char *from, const char *to, const struct store_import *how, uint64_t *ret_rows,
                 const char **ret_message) MUST_USE;
