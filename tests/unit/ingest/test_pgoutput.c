#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "unit/ingest/pgoutput_cases.h"

static struct pgoutput_message read_ok(const char *name, enum pgoutput_kind kind) {
    struct pgoutput_message m;
    assert_int_equal(pgoutput_read(bytes_of(name), &m), 0);
    assert_int_equal(m.kind, kind);
    return m;
}

/* A row as texts separated by '|', '-' for null and '=' for unchanged; long texts by their length. */
static void assert_row(struct pgoutput_list row, const char *expected) {
    _cleanup_buf_ struct buf text = {0};
    struct pgoutput_value v;
    for (bool first = true; pgoutput_next_value(&row, &v); first = false) {
        if (!first)
            buf_add_char(&text, '|');
        if (v.kind != PGOUTPUT_TEXT)
            buf_add_char(&text, v.kind == PGOUTPUT_NULL ? '-' : '=');
        else if (v.text.n > 100)
            buf_addf(&text, "<%zu>", v.text.n);
        else
            buf_add_slice(&text, v.text);
    }
    assert_slice(buf_slice(&text), expected);
}

/* Columns as "name:oid" separated by spaces, with a '*' for those of the replica identity. */
static void assert_columns(struct pgoutput_list columns, const char *expected) {
    _cleanup_buf_ struct buf text = {0};
    struct pgoutput_column c;
    while (pgoutput_next_column(&columns, &c))
        buf_addf(&text, "%s%.*s:%u%s", text.n ? " " : "", SLICE_ARG(c.name), c.type, c.identity ? "*" : "");
    assert_slice(buf_slice(&text), expected);
}

static void test_transaction(void **state) {
    (void)state;
    struct pgoutput_message m = read_ok("begin", PGOUTPUT_BEGIN);
    assert_int_equal(m.begin.final_lsn, 0x1547b48);
    int64_t began_at = m.begin.committed_at;
    m = read_ok("commit", PGOUTPUT_COMMIT);
    assert_int_equal(m.commit.commit_lsn, 0x1547b48);
    assert_int_equal(m.commit.end_lsn, 0x1547b78);
    assert_int_equal(m.commit.committed_at, began_at);
    assert_int_equal(m.commit.committed_at, 1795633732009); /* 2026-11-25 */
}

static void test_relations(void **state) {
    (void)state;
    struct pgoutput_message m = read_ok("relation_orders", PGOUTPUT_RELATION);
    assert_slice(m.relation.schema, "public");
    assert_slice(m.relation.name, "orders");
    assert_int_equal(m.relation.identity, 'd');
    assert_columns(m.relation.columns, "id:23* total:1700 paid:16 note:25 doc:3802 tags:1009 at:1184");
    m = read_ok("relation_full", PGOUTPUT_RELATION);
    assert_int_equal(m.relation.identity, 'f');
    assert_columns(m.relation.columns, "id:23* note:25*");
    m = read_ok("relation_enum", PGOUTPUT_RELATION);
    assert_columns(m.relation.columns, "id:23* m:16399");
    read_ok("type", PGOUTPUT_TYPE);
}

static void test_inserts(void **state) {
    (void)state;
    struct pgoutput_message m = read_ok("insert_orders", PGOUTPUT_INSERT);
    assert_int_equal(m.row.oid, 0x4000);
    assert_int_equal(m.row.has_old, PGOUTPUT_OLD_NONE);
    assert_row(m.row.old, "");
    assert_row(m.row.new, "1|12.50|t|<3000>|{\"a\": [1, 2.50]}|{a,b}|2026-01-02 03:04:05+00");
    assert_row(read_ok("insert_full", PGOUTPUT_INSERT).row.new, "1|été");
    assert_row(read_ok("insert_enum", PGOUTPUT_INSERT).row.new, "1|sad");
}

static void test_updates(void **state) {
    (void)state;
    struct pgoutput_message m = read_ok("update_unchanged", PGOUTPUT_UPDATE);
    assert_int_equal(m.row.has_old, PGOUTPUT_OLD_NONE);
    assert_row(m.row.new, "1|13.00|-|=|{\"a\": [1, 2.50]}|{a,b}|2026-01-02 03:04:05+00");
    m = read_ok("update_key", PGOUTPUT_UPDATE);
    assert_int_equal(m.row.has_old, PGOUTPUT_OLD_KEY);
    assert_row(m.row.old, "1|-|-|-|-|-|-");
    assert_row(m.row.new, "2|13.00|-|=|{\"a\": [1, 2.50]}|{a,b}|2026-01-02 03:04:05+00");
    m = read_ok("update_full", PGOUTPUT_UPDATE);
    assert_int_equal(m.row.has_old, PGOUTPUT_OLD_ROW);
    assert_row(m.row.old, "1|été");
    assert_row(m.row.new, "1|b");
}

static void test_deletes(void **state) {
    (void)state;
    struct pgoutput_message m = read_ok("delete_key", PGOUTPUT_DELETE);
    assert_int_equal(m.row.has_old, PGOUTPUT_OLD_KEY);
    assert_row(m.row.old, "2|-|-|-|-|-|-");
    assert_row(m.row.new, "");
    m = read_ok("delete_full", PGOUTPUT_DELETE);
    assert_int_equal(m.row.has_old, PGOUTPUT_OLD_ROW);
    assert_row(m.row.old, "1|b");
    m = read_ok("truncate", PGOUTPUT_TRUNCATE);
    assert_int_equal(m.truncate.n, 2);
    assert_int_equal(pgoutput_truncated(&m, 0), 0x4000);
    assert_int_equal(pgoutput_truncated(&m, 1), 0x4013);
}

static void test_messages(void **state) {
    (void)state;
    struct pgoutput_message m = read_ok("message", PGOUTPUT_MESSAGE);
    assert_true(m.message.transactional);
    assert_int_equal(m.message.lsn, 0x15495c0);
    assert_slice(m.message.prefix, "posthorn");
    assert_slice(m.message.content, "{\"type\":\"order.paid\",\"data\":{\"n\":1}}");
    m = read_ok("message_outside", PGOUTPUT_MESSAGE);
    assert_false(m.message.transactional);
    assert_slice(m.message.content, "now");
}

/* Every message cut short, and every one with a byte too many, is refused. */
static void test_malformed(void **state) {
    (void)state;
    struct pgoutput_message m;
    for (size_t i = 0; i < CASES; i++) {
        for (size_t n = 0; n < cases[i].n; n++) {
            /* Memory of its own, so that a sanitizer sees a read past the end. */
            _cleanup_free_ char *cut = malloc(n ? n : 1);
            memcpy(cut, cases[i].bytes, n);
            if (pgoutput_read((struct slice){cut, n}, &m) != -EBADMSG)
                fail_msg("%zu bytes of %s pass", n, cases[i].name);
        }
        _cleanup_free_ char *longer = malloc(cases[i].n + 1);
        memcpy(longer, cases[i].bytes, cases[i].n);
        longer[cases[i].n] = 'n';
        assert_int_equal(pgoutput_read((struct slice){longer, cases[i].n + 1}, &m), -EBADMSG);
    }
}

#define ASSERT_REFUSED(bytes)                                                                                \
    do {                                                                                                     \
        struct pgoutput_message _m = {.kind = PGOUTPUT_TYPE};                                                \
        assert_int_equal(pgoutput_read(SLICE_LIT(bytes), &_m), -EBADMSG);                                    \
        assert_int_equal(_m.kind, PGOUTPUT_TYPE);                                                            \
    } while (0)

static void test_refused(void **state) {
    (void)state;
    ASSERT_REFUSED("");
    ASSERT_REFUSED("\0");
    ASSERT_REFUSED("S\0\0\0\1\1");                               /* a stream of version 2 */
    ASSERT_REFUSED("I\0\0\0\1N\0\1b\0\0\0\1x");                  /* a value in binary */
    ASSERT_REFUSED("I\0\0\0\1K\0\1n");                           /* an insert with an old row */
    ASSERT_REFUSED("D\0\0\0\1N\0\1n");                           /* a delete with a new one */
    ASSERT_REFUSED("U\0\0\0\1K\0\1nK\0\1n");                     /* an update with two old ones */
    ASSERT_REFUSED("I\0\0\0\1N\xff\xff");                        /* more columns than a table can have */
    ASSERT_REFUSED("I\0\0\0\1N\0\1t\xff\xff\xff\xffx");          /* a text of 4 GiB */
    ASSERT_REFUSED("T\xff\xff\xff\xff\0\0\0\0\1");               /* as many relations */
    ASSERT_REFUSED("M\1\0\0\0\0\0\0\0\1posthorn\0\0\0\0\5text"); /* shorter than it says */
    ASSERT_REFUSED("Y\0\0\0\1public");                           /* a name without its end */
}

static void test_lsn(void **state) {
    (void)state;
    char text[LSN_TEXT_SIZE];
    uint64_t lsn = 7;
    lsn_format(UINT64_MAX, text);
    assert_string_equal(text, "FFFFFFFF/FFFFFFFF");
    lsn_format(0x16B374D848, text);
    assert_string_equal(text, "16/B374D848");
    assert_int_equal(lsn_parse(slice_of("16/b374D848"), &lsn), 0);
    assert_int_equal(lsn, 0x16B374D848);
    assert_int_equal(lsn_parse(slice_of("0/0"), &lsn), 0);
    assert_int_equal(lsn, 0);
    static const char *const wrong[] = {"",      "/",   "1",    "1/",  "/1", "1/123456789",
                                        "1/1/1", "x/1", "1/ 1", "-1/1"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        if (lsn_parse(slice_of(wrong[i]), &lsn) != -EINVAL)
            fail_msg("\"%s\" passes", wrong[i]);
    assert_int_equal(lsn_parse((struct slice){"1/\0", 3}, &lsn), -EINVAL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_transaction), cmocka_unit_test(test_relations), cmocka_unit_test(test_inserts),
        cmocka_unit_test(test_updates),     cmocka_unit_test(test_deletes),   cmocka_unit_test(test_messages),
        cmocka_unit_test(test_malformed),   cmocka_unit_test(test_refused),   cmocka_unit_test(test_lsn),
    };
    return cmocka_run_group_tests(tests, read_cases, NULL);
}
