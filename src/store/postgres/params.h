/* Parameters of a statement, in PostgreSQL's binary form: single values, and whole columns of them for
 * statements that take arrays (… FROM unnest($1, $2) …). What is added is copied. When memory is out the
 * next pg_send or pg_query says so. */
#pragma once

#include "base/bytes.h"

enum { PG_PARAMS_MAX = 48 };

enum pg_type { PG_BOOL, PG_INT, PG_BIGINT, PG_TEXT, PG_BYTEA };

/* The values of one column, gathered row by row. Begin with PG_COLUMN(type); release with pg_column_free. */
struct pg_column {
    enum pg_type type;
    uint32_t n;
    struct buf data;
};
#define PG_COLUMN(of) ((struct pg_column){.type = (of)})

void pg_add_bool(struct pg_column *c, bool v);
void pg_add_int(struct pg_column *c, int32_t v);
void pg_add_bigint(struct pg_column *c, int64_t v);
void pg_add_time(struct pg_column *c, int64_t ms);     /* a bigint, NULL for 0 */
void pg_add_text(struct pg_column *c, struct slice s); /* NULL when absent; so is pg_add_bytea */
void pg_add_bytea(struct pg_column *c, struct slice s);
void pg_add_null(struct pg_column *c);
void pg_column_reset(struct pg_column *c); /* empties, keeps the memory */
void pg_column_free(struct pg_column *c);

/* Zero-initialise; release with pg_params_free. The n-th added is $n. */
struct pg_params {
    int n;
    uint32_t types[PG_PARAMS_MAX];
    size_t at[PG_PARAMS_MAX];
    int length[PG_PARAMS_MAX]; /* -1: NULL */
    struct buf data;
};

void pg_bool(struct pg_params *p, bool v);
void pg_int(struct pg_params *p, int32_t v);
void pg_bigint(struct pg_params *p, int64_t v);
void pg_time(struct pg_params *p, int64_t ms);     /* a bigint, NULL for 0 */
void pg_text(struct pg_params *p, struct slice s); /* NULL when absent; so is pg_bytea */
void pg_bytea(struct pg_params *p, struct slice s);
/* An array of the column's values; the column may be emptied or freed afterwards. */
void pg_array(struct pg_params *p, const struct pg_column *c);
void pg_params_reset(struct pg_params *p); /* empties, keeps the memory */
void pg_params_free(struct pg_params *p);
