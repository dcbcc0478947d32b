#include "ingest/pgoutput.h"

#include <errno.h>
#include <stdio.h>

/* Microseconds from 1970 to 2000, where PostgreSQL's clock begins. */
#define POSTGRES_EPOCH_US INT64_C(946684800000000)

/* What is left to read; `bad` once more was asked for than there was. */
struct reader {
    const char *p;
    size_t n;
    bool bad;
};

static struct slice take(struct reader *r, size_t n) {
    if (n > r->n) {
        r->bad = true;
        r->n = 0;
        return (struct slice){"", 0};
    }
    struct slice s = {r->p, n};
    r->p += n;
    r->n -= n;
    return s;
}

static uint64_t take_number(struct reader *r, size_t bytes) {
    struct slice s = take(r, bytes);
    uint64_t v = 0;
    for (size_t i = 0; i < s.n; i++)
        v = v << 8 | (uint8_t)s.p[i];
    return v;
}

static uint8_t take_byte(struct reader *r) {
    return (uint8_t)take_number(r, 1);
}

static uint16_t take_count(struct reader *r) {
    uint16_t n = (uint16_t)take_number(r, 2);
    r->bad |= n > PGOUTPUT_COLUMNS_MAX;
    return r->bad ? 0 : n;
}

static uint32_t take_oid(struct reader *r) {
    return (uint32_t)take_number(r, 4);
}

/* Up to a NUL, which is stepped over. */
static struct slice take_name(struct reader *r) {
    const char *end = r->n ? memchr(r->p, '\0', r->n) : NULL;
    if (!end)
        return take(r, SIZE_MAX);
    struct slice s = take(r, (size_t)(end - r->p));
    take(r, 1);
    return s;
}

static int64_t take_time(struct reader *r) {
    uint64_t us = take_number(r, 8);
    /* Modulo 2^64, so that no time of a stranger overflows. */
    return (int64_t)(us + (uint64_t)POSTGRES_EPOCH_US) / 1000;
}

static struct pgoutput_value take_value(struct reader *r) {
    switch (take_byte(r)) {
    case 'n':
        return (struct pgoutput_value){.kind = PGOUTPUT_NULL};
    case 'u':
        return (struct pgoutput_value){.kind = PGOUTPUT_UNCHANGED};
    case 't':
        return (struct pgoutput_value){.kind = PGOUTPUT_TEXT, .text = take(r, take_oid(r))};
    default: /* 'b' too: values in binary were not asked for */
        r->bad = true;
        return (struct pgoutput_value){0};
    }
}

static struct pgoutput_column take_column(struct reader *r) {
    struct pgoutput_column c = {.identity = (take_byte(r) & 1) != 0};
    c.name = take_name(r);
    c.type = take_oid(r);
    take_number(r, 4); /* the type's modifier */
    return c;
}

static struct pgoutput_list take_row(struct reader *r) {
    struct pgoutput_list list = {.n = take_count(r)};
    const char *begin = r->p;
    for (uint16_t i = 0; i < list.n && !r->bad; i++)
        (void)take_value(r);
    list.bytes = (struct slice){begin, (size_t)(r->p - begin)};
    return list;
}

static void read_relation(struct reader *r, struct pgoutput_message *m) {
    m->relation.oid = take_oid(r);
    m->relation.schema = take_name(r);
    m->relation.name = take_name(r);
    m->relation.identity = (char)take_byte(r);
    m->relation.columns.n = take_count(r);
    const char *begin = r->p;
    for (uint16_t i = 0; i < m->relation.columns.n && !r->bad; i++)
        (void)take_column(r);
    m->relation.columns.bytes = (struct slice){begin, (size_t)(r->p - begin)};
}

/* Old and new row as the kind has them, each behind a letter. */
static void read_row(struct reader *r, struct pgoutput_message *m) {
    m->row.oid = take_oid(r);
    uint8_t letter = take_byte(r);
    if ((letter == 'K' || letter == 'O') && m->kind != PGOUTPUT_INSERT) {
        m->row.has_old = letter == 'K' ? PGOUTPUT_OLD_KEY : PGOUTPUT_OLD_ROW;
        m->row.old = take_row(r);
        if (m->kind == PGOUTPUT_DELETE)
            return;
        letter = take_byte(r);
    }
    r->bad |= letter != 'N' || m->kind == PGOUTPUT_DELETE;
    m->row.new = take_row(r);
}

static void read_truncate(struct reader *r, struct pgoutput_message *m) {
    m->truncate.n = take_oid(r);
    take_byte(r); /* CASCADE, RESTART IDENTITY */
    m->truncate.oids = take(r, (size_t)m->truncate.n * 4);
}

static void read_message(struct reader *r, struct pgoutput_message *m) {
    m->message.transactional = (take_byte(r) & 1) != 0;
    m->message.lsn = take_number(r, 8);
    m->message.prefix = take_name(r);
    m->message.content = take(r, take_oid(r));
}

static void read_commit(struct reader *r, struct pgoutput_message *m) {
    take_byte(r); /* flags, of which there are none */
    m->commit.commit_lsn = take_number(r, 8);
    m->commit.end_lsn = take_number(r, 8);
    m->commit.committed_at = take_time(r);
}

static void read_begin(struct reader *r, struct pgoutput_message *m) {
    m->begin.final_lsn = take_number(r, 8);
    m->begin.committed_at = take_time(r);
    take_number(r, 4); /* xid */
}

static int kind_of(uint8_t letter, enum pgoutput_kind *ret) {
    static const char letters[] = {
        [PGOUTPUT_BEGIN] = 'B',    [PGOUTPUT_COMMIT] = 'C', [PGOUTPUT_ORIGIN] = 'O',
        [PGOUTPUT_RELATION] = 'R', [PGOUTPUT_TYPE] = 'Y',   [PGOUTPUT_INSERT] = 'I',
        [PGOUTPUT_UPDATE] = 'U',   [PGOUTPUT_DELETE] = 'D', [PGOUTPUT_TRUNCATE] = 'T',
        [PGOUTPUT_MESSAGE] = 'M',
    };
    const char *at = memchr(letters, letter, sizeof letters);
    if (!at)
        return -EBADMSG;
    *ret = (enum pgoutput_kind)(at - letters);
    return 0;
}

int pgoutput_read(struct slice bytes, struct pgoutput_message *ret) {
    struct reader r = {.p = bytes.p, .n = bytes.n};
    struct pgoutput_message m = {0};
    if (kind_of(take_byte(&r), &m.kind) < 0)
        return -EBADMSG;
    switch (m.kind) {
    case PGOUTPUT_BEGIN:
        read_begin(&r, &m);
        break;
    case PGOUTPUT_COMMIT:
        read_commit(&r, &m);
        break;
    case PGOUTPUT_ORIGIN:
        take_number(&r, 8);
        take_name(&r);
        break;
    case PGOUTPUT_TYPE:
        take_oid(&r);
        take_name(&r);
        take_name(&r);
        break;
    case PGOUTPUT_RELATION:
        read_relation(&r, &m);
        break;
    case PGOUTPUT_INSERT:
    case PGOUTPUT_UPDATE:
    case PGOUTPUT_DELETE:
        read_row(&r, &m);
        break;
    case PGOUTPUT_TRUNCATE:
        read_truncate(&r, &m);
        break;
    case PGOUTPUT_MESSAGE:
        read_message(&r, &m);
        break;
    }
    if (r.bad || r.n)
        return -EBADMSG;
    *ret = m;
    return 0;
}

bool pgoutput_next_value(struct pgoutput_list *values, struct pgoutput_value *ret) {
    if (!values->n)
        return false;
    struct reader r = {.p = values->bytes.p, .n = values->bytes.n};
    *ret = take_value(&r);
    CHECK(!r.bad);
    *values = (struct pgoutput_list){.bytes = {r.p, r.n}, .n = (uint16_t)(values->n - 1)};
    return true;
}

bool pgoutput_next_column(struct pgoutput_list *columns, struct pgoutput_column *ret) {
    if (!columns->n)
        return false;
    struct reader r = {.p = columns->bytes.p, .n = columns->bytes.n};
    *ret = take_column(&r);
    CHECK(!r.bad);
    *columns = (struct pgoutput_list){.bytes = {r.p, r.n}, .n = (uint16_t)(columns->n - 1)};
    return true;
}

uint32_t pgoutput_truncated(const struct pgoutput_message *m, uint32_t i) {
    CHECK(m->kind == PGOUTPUT_TRUNCATE && i < m->truncate.n);
    struct reader r = {.p = m->truncate.oids.p + (size_t)i * 4, .n = 4};
    return take_oid(&r);
}

void lsn_format(uint64_t lsn, char ret[LSN_TEXT_SIZE]) {
    snprintf(ret, LSN_TEXT_SIZE, "%X/%X", (unsigned)(lsn >> 32), (unsigned)(lsn & UINT32_MAX));
}

/* 1 to 8 hexadecimal digits. */
static int half_of(struct slice text, uint64_t *ret) {
    if (text.n < 1 || text.n > 8)
        return -EINVAL;
    uint64_t v = 0;
    for (size_t i = 0; i < text.n; i++) {
        static const char digits[] = "0123456789ABCDEFabcdef";
        const char *at = text.p[i] ? strchr(digits, text.p[i]) : NULL;
        if (!at)
            return -EINVAL;
        uint64_t digit = (uint64_t)(at - digits);
        v = v << 4 | (digit < 16 ? digit : digit - 6);
    }
    *ret = v;
    return 0;
}

int lsn_parse(struct slice text, uint64_t *ret) {
    const char *slash = text.n ? memchr(text.p, '/', text.n) : NULL;
    uint64_t high, low;
    if (!slash || half_of((struct slice){text.p, (size_t)(slash - text.p)}, &high) < 0 ||
        half_of((struct slice){slash + 1, text.n - (size_t)(slash + 1 - text.p)}, &low) < 0)
        return -EINVAL;
    *ret = high << 32 | low;
    return 0;
}
