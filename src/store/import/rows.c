#include "store/import/rows.h"

#include <errno.h>

enum {
    ROWS_A_STATEMENT = 2000,
    BYTES_A_STATEMENT = 4 << 20,
};

/* ---- sums ---- */

static uint64_t with_null(uint64_t h) {
    return mix64(h ^ 0x6e756c6c);
}

static uint64_t with_number(uint64_t h, int64_t v) {
    return mix64(h ^ mix64((uint64_t)v + 1));
}

static uint64_t with_bytes(uint64_t h, struct slice s) {
    return mix64(h ^ (hash64(s.p, s.n) + s.n));
}

static bool is_number(char type) {
    return type == 'b' || type == 'i' || type == 'l';
}

/* ---- out of SQLite, into PostgreSQL ---- */

struct copying {
    const struct import_table *t;
    struct pg *to;
    struct pg_column columns[IMPORT_COLUMNS_MAX];
    size_t bytes;
};

static enum pg_type pg_type_of(char type) {
    switch (type) {
    case 'b':
        return PG_BOOL;
    case 'i':
        return PG_INT;
    case 'l':
        return PG_BIGINT;
    case 't':
        return PG_TEXT;
    default:
        return PG_BYTEA;
    }
}

static int flush(struct copying *k) {
    if (k->columns[0].n == 0)
        return 0;
    struct pg_params *p = pg_params(k->to);
    for (size_t i = 0; k->t->types[i]; i++) {
        pg_array(p, &k->columns[i]);
        pg_column_reset(&k->columns[i]);
    }
    k->bytes = 0;
    return pg_query(k->to, k->t->insert, NULL);
}

static int add_number(struct pg_column *c, char type, int64_t v) {
    if (type == 'i' && (v < INT32_MIN || v > INT32_MAX))
        return -ERANGE;
    if (type == 'b')
        pg_add_bool(c, v != 0);
    else if (type == 'i')
        pg_add_int(c, (int32_t)v);
    else
        pg_add_bigint(c, v);
    return 0;
}

static int add_value(struct copying *k, sqlite3_stmt *st, int i, uint64_t *h) {
    struct pg_column *c = &k->columns[i];
    char type = k->t->types[i];
    if (sqlite3_column_type(st, i) == SQLITE_NULL) {
        pg_add_null(c);
        *h = with_null(*h);
        return 0;
    }
    if (is_number(type)) {
        int64_t v = column_int(st, i);
        *h = with_number(*h, v);
        return add_number(c, type, v);
    }
    struct slice s = column_slice(st, i);
    if (!s.p)
        s = (struct slice){"", 0}; /* an empty blob */
    *h = with_bytes(*h, s);
    k->bytes += s.n;
    if (type == 't')
        pg_add_text(c, s);
    else
        pg_add_bytea(c, s);
    return 0;
}

static int copy_row(struct copying *k, sqlite3_stmt *st, struct import_sum *sum) {
    uint64_t h = 0;
    for (int i = 0; k->t->types[i]; i++) {
        int r = add_value(k, st, i, &h);
        if (r < 0)
            return r;
    }
    sum->rows++;
    sum->sum += h;
    return k->columns[0].n >= ROWS_A_STATEMENT || k->bytes >= BYTES_A_STATEMENT ? flush(k) : 0;
}

int import_copy(struct connection *from, struct pg *to, const struct import_table *t, import_rows_fn fn,
                void *arg, struct import_sum *ret) {
    struct copying k = {.t = t, .to = to};
    uint64_t told = 0;
    for (size_t i = 0; t->types[i]; i++)
        k.columns[i] = PG_COLUMN(pg_type_of(t->types[i]));
    *ret = (struct import_sum){0};
    sqlite3_stmt *st = connection_prepare(from, t->select);
    int r = 0, more = 0;
    while (r == 0 && (more = statement_next(from, st)) > 0) {
        r = copy_row(&k, st, ret);
        if (k.columns[0].n == 0) {
            fn(arg, ret->rows - told);
            told = ret->rows;
        }
    }
    if (r < 0)
        statement_done(st);
    if (r == 0)
        r = more < 0 ? more : flush(&k);
    fn(arg, ret->rows - told);
    for (size_t i = 0; t->types[i]; i++)
        pg_column_free(&k.columns[i]);
    return r;
}

/* ---- and back ---- */

static uint64_t sum_row(const struct pg_rows *rows, const char *types) {
    uint64_t h = 0;
    for (int i = 0; types[i]; i++)
        h = pg_column_null(rows, i) ? with_null(h)
            : is_number(types[i])   ? with_number(h, pg_column_int(rows, i))
                                    : with_bytes(h, pg_column_slice(rows, i));
    return h;
}

int import_read_back(struct pg *from, const struct import_table *t, import_rows_fn fn, void *arg,
                     struct import_sum *ret) {
    *ret = (struct import_sum){0};
    pg_params_reset(pg_params(from));
    int r = pg_query(from, t->declare, NULL);
    for (int n = 1; r == 0 && n > 0;) {
        _cleanup_pg_rows_ struct pg_rows rows = {0};
        r = pg_query(from, t->fetch, &rows);
        n = r == 0 ? rows.n : 0;
        while (r == 0 && pg_next(&rows))
            ret->sum += sum_row(&rows, t->types);
        ret->rows += (uint64_t)n;
        fn(arg, (uint64_t)n);
    }
    return r < 0 ? r : pg_query(from, t->close, NULL);
}
