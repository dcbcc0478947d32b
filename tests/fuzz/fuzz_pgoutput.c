/* Messages of logical replication: any bytes. What is read as a row is written anew, by the manual's grammar,
 * and must give the same bytes. */
#include "ingest/pgoutput.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void add_number(struct buf *out, uint64_t v, unsigned bytes) {
    while (bytes-- > 0)
        buf_add_char(out, (char)(v >> 8 * bytes));
}

static void add_row(struct buf *out, struct pgoutput_list row) {
    struct pgoutput_value v;
    add_number(out, row.n, 2);
    while (pgoutput_next_value(&row, &v)) {
        buf_add_char(out, v.kind == PGOUTPUT_NULL ? 'n' : v.kind == PGOUTPUT_UNCHANGED ? 'u' : 't');
        if (v.kind != PGOUTPUT_TEXT)
            continue;
        add_number(out, v.text.n, 4);
        buf_add_slice(out, v.text);
    }
    CHECK(row.n == 0 && row.bytes.n == 0);
}

static void add_change(struct buf *out, const struct pgoutput_message *m) {
    buf_add_char(out, m->kind == PGOUTPUT_INSERT ? 'I' : m->kind == PGOUTPUT_UPDATE ? 'U' : 'D');
    add_number(out, m->row.oid, 4);
    if (m->row.has_old) {
        buf_add_char(out, m->row.has_old == PGOUTPUT_OLD_KEY ? 'K' : 'O');
        add_row(out, m->row.old);
    }
    if (m->kind == PGOUTPUT_DELETE)
        return;
    buf_add_char(out, 'N');
    add_row(out, m->row.new);
}

static void check_within(struct slice part, struct slice whole) {
    CHECK(part.n == 0 || (part.p >= whole.p && part.p + part.n <= whole.p + whole.n));
}

static void check_relation(const struct pgoutput_message *m, struct slice bytes) {
    struct pgoutput_list columns = m->relation.columns;
    struct pgoutput_column c;
    CHECK(columns.n <= PGOUTPUT_COLUMNS_MAX);
    unsigned n = 0;
    for (; pgoutput_next_column(&columns, &c); n++) {
        check_within(c.name, bytes);
        CHECK(c.name.p[c.name.n] == '\0' && !memchr(c.name.p, '\0', c.name.n));
    }
    CHECK(n == m->relation.columns.n && columns.bytes.n == 0);
    check_within(m->relation.schema, bytes);
    check_within(m->relation.name, bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct slice bytes = {(const char *)data, size};
    struct pgoutput_message m;
    if (pgoutput_read(bytes, &m) < 0)
        return 0;
    _cleanup_buf_ struct buf again = {0};
    if (m.kind == PGOUTPUT_INSERT || m.kind == PGOUTPUT_UPDATE || m.kind == PGOUTPUT_DELETE) {
        add_change(&again, &m);
        CHECK(slice_eq(buf_slice(&again), bytes));
    } else if (m.kind == PGOUTPUT_RELATION) {
        check_relation(&m, bytes);
    } else if (m.kind == PGOUTPUT_MESSAGE) {
        check_within(m.message.prefix, bytes);
        CHECK(m.message.content.n == 0 || m.message.content.p + m.message.content.n == bytes.p + bytes.n);
    } else if (m.kind == PGOUTPUT_TRUNCATE) {
        CHECK(size == 6 + (size_t)m.truncate.n * 4);
        for (uint32_t i = 0; i < m.truncate.n; i++)
            (void)pgoutput_truncated(&m, i);
    }
    return 0;
}
