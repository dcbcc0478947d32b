#include "store/postgres/params.h"

#include <arpa/inet.h>
#include <endian.h>

/* pg_type.oid of these types and of their arrays: part of PostgreSQL's protocol, the same in every version.
 */
static const struct {
    uint32_t oid, array;
} types[] = {[PG_BOOL] = {16, 1000},
             [PG_INT] = {23, 1007},
             [PG_BIGINT] = {20, 1016},
             [PG_TEXT] = {25, 1009},
             [PG_BYTEA] = {17, 1001}};

static void add_u32(struct buf *b, uint32_t v) {
    uint32_t wire = htonl(v);
    buf_add(b, &wire, sizeof wire);
}

static void add_u64(struct buf *b, uint64_t v) {
    uint64_t wire = htobe64(v);
    buf_add(b, &wire, sizeof wire);
}

/* ---- columns ---- */

/* As in an array on the wire: a length and the value; the caller adds the value. */
static struct buf *element(struct pg_column *c, enum pg_type type, size_t length) {
    CHECK(c->type == type && length <= INT32_MAX);
    add_u32(&c->data, (uint32_t)length);
    c->n++;
    return &c->data;
}

void pg_add_null(struct pg_column *c) {
    add_u32(&c->data, UINT32_MAX);
    c->n++;
}

void pg_add_bool(struct pg_column *c, bool v) {
    buf_add_char(element(c, PG_BOOL, 1), v ? 1 : 0);
}

void pg_add_int(struct pg_column *c, int32_t v) {
    add_u32(element(c, PG_INT, 4), (uint32_t)v);
}

void pg_add_bigint(struct pg_column *c, int64_t v) {
    add_u64(element(c, PG_BIGINT, 8), (uint64_t)v);
}

void pg_add_time(struct pg_column *c, int64_t ms) {
    if (ms)
        pg_add_bigint(c, ms);
    else
        pg_add_null(c);
}

void pg_add_text(struct pg_column *c, struct slice s) {
    if (s.p)
        buf_add_slice(element(c, PG_TEXT, s.n), s);
    else
        pg_add_null(c);
}

void pg_add_bytea(struct pg_column *c, struct slice s) {
    if (s.p)
        buf_add_slice(element(c, PG_BYTEA, s.n), s);
    else
        pg_add_null(c);
}

void pg_column_reset(struct pg_column *c) {
    c->n = 0;
    buf_reset(&c->data);
}

void pg_column_free(struct pg_column *c) {
    buf_free(&c->data);
    c->n = 0;
}

/* ---- parameters ---- */

/* The caller adds the value to p->data. */
static struct buf *param(struct pg_params *p, uint32_t oid, size_t length) {
    CHECK(p->n < PG_PARAMS_MAX && length <= INT32_MAX);
    p->types[p->n] = oid;
    p->at[p->n] = p->data.n;
    p->length[p->n] = (int)length;
    p->n++;
    return &p->data;
}

static void null_param(struct pg_params *p, enum pg_type type) {
    (void)param(p, types[type].oid, 0);
    p->length[p->n - 1] = -1;
}

void pg_bool(struct pg_params *p, bool v) {
    buf_add_char(param(p, types[PG_BOOL].oid, 1), v ? 1 : 0);
}

void pg_int(struct pg_params *p, int32_t v) {
    add_u32(param(p, types[PG_INT].oid, 4), (uint32_t)v);
}

void pg_bigint(struct pg_params *p, int64_t v) {
    add_u64(param(p, types[PG_BIGINT].oid, 8), (uint64_t)v);
}

void pg_time(struct pg_params *p, int64_t ms) {
    if (ms)
        pg_bigint(p, ms);
    else
        null_param(p, PG_BIGINT);
}

void pg_text(struct pg_params *p, struct slice s) {
    if (s.p)
        buf_add_slice(param(p, types[PG_TEXT].oid, s.n), s);
    else
        null_param(p, PG_TEXT);
}

void pg_bytea(struct pg_params *p, struct slice s) {
    if (s.p)
        buf_add_slice(param(p, types[PG_BYTEA].oid, s.n), s);
    else
        null_param(p, PG_BYTEA);
}

void pg_array(struct pg_params *p, const struct pg_column *c) {
    enum { HEADER_SIZE = 20 };
    /* The server looks at the elements itself: the flag says only that some may be NULL. */
    const uint32_t dimensions = c->n ? 1 : 0, may_hold_nulls = 1, first_index = 1;
    size_t header = dimensions ? HEADER_SIZE : 12;
    struct buf *b = param(p, types[c->type].array, header + c->data.n);
    add_u32(b, dimensions);
    add_u32(b, may_hold_nulls);
    add_u32(b, types[c->type].oid);
    if (dimensions) {
        add_u32(b, c->n);
        add_u32(b, first_index);
        buf_add_slice(b, buf_slice(&c->data));
    }
    if (!buf_ok(&c->data))
        b->failed = true;
}

void pg_params_reset(struct pg_params *p) {
    p->n = 0;
    buf_reset(&p->data);
}

void pg_params_free(struct pg_params *p) {
    buf_free(&p->data);
    p->n = 0;
}
