/* Rows of a table on their way: out of SQLite, into PostgreSQL, and back again to be compared. */
#pragma once

#include "store/import/tables.h"
#include "store/postgres/postgres.h"
#include "store/sqlite/sqlite.h"

/* How many rows there were, and a sum over what is in them that their order does not change. */
struct import_sum {
    uint64_t rows, sum;
};
/* Called now and then, with the rows since the last time. */
typedef void (*import_rows_fn)(void *arg, uint64_t rows);

/* Within a transaction of `to`. -ERANGE: a number does not fit its column. */
int import_copy(struct connection *from, struct pg *to, const struct import_table *t, import_rows_fn fn,
                void *arg, struct import_sum *ret) MUST_USE;
int import_read_back(struct pg *from, const struct import_table *t, import_rows_fn fn, void *arg,
                     struct import_sum *ret) MUST_USE;
