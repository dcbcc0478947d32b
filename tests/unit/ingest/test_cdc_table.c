#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "ingest/cdc_table.h"
#include "unit/ingest/pgoutput_cases.h"

static struct cdc_rule parsed(const char *text) {
    struct cdc_rule rule;
    _cleanup_buf_ struct buf complaint = {0};
    if (cdc_rule_parse(slice_of(text), &rule, &complaint) != 0)
        fail_msg("\"%s\": %s", text, complaint.p);
    return rule;
}

static struct cdc_table *table_of(const char *name) {
    struct pgoutput_message m;
    struct cdc_table *t = NULL;
    assert_int_equal(pgoutput_read(bytes_of(name), &m), 0);
    assert_int_equal(cdc_table_new(&m, &t), 0);
    return t;
}

/* The event of a case: "TYPE|TENANT|ORDERING KEY|DATA", or "! REASON". */
static void assert_event(const char *table, const char *rule_text, const char *row, const char *expected) {
    struct cdc_table *t = table_of(table);
    struct cdc_rule rule = parsed(rule_text);
    struct cdc_event e = {0};
    struct pgoutput_message m;
    _cleanup_buf_ struct buf reason = {0}, text = {0};
    assert_int_equal(pgoutput_read(bytes_of(row), &m), 0);
    int r = cdc_event_of(t, &rule, &m, &e, &reason);
    if (r == 0)
        buf_addf(&text, "%s|%s|%s|%s", e.type.p, e.tenant.n ? e.tenant.p : "",
                 e.ordering_key.n ? e.ordering_key.p : "", e.data.p);
    else
        buf_addf(&text, "! %s", reason.p);
    for (char *x = strstr(text.p, "xxxxx"); x; x = NULL) /* the long note */
        snprintf(x, 6, "%s", "xx\"}");
    assert_slice(slice_of(text.p), expected);
    cdc_event_free(&e);
    cdc_rule_clear(&rule);
    cdc_table_free(t);
}

static void test_events(void **state) {
    (void)state;
    assert_event("relation_orders", "public.orders insert type=order.created tenant=acme ordering-key={id}",
                 "insert_orders",
                 "order.created|acme|1|{\"id\":1,\"total\":12.50,\"paid\":true,\"note\":\"xx\"}");
    assert_event("relation_orders",
                 "public.orders insert type=order.{id}.made tenant=t{id} ordering-key={id}-{total} "
                 "data=doc,tags,at,total",
                 "insert_orders",
                 "order.1.made|t1|1-12.50|{\"doc\":{\"a\": [1, 2.50]},\"tags\":\"{a,b}\",\"at\":\"2026-01-02 "
                 "03:04:05+00\",\"total\":12.50}");
    assert_event("relation_full", "public.full_orders insert type=a", "insert_full",
                 "a|||{\"id\":1,\"note\":\"été\"}");
}

/* A value that an update did not change, and that is stored apart, is left out. */
static void test_unchanged(void **state) {
    (void)state;
    assert_event("relation_orders", "public.orders update type=a", "update_unchanged",
                 "a|||{\"id\":1,\"total\":13.00,\"paid\":null,\"doc\":{\"a\": [1, 2.50]},\"tags\":\"{a,b}\","
                 "\"at\":\"2026-01-02 03:04:05+00\"}");
    assert_event("relation_orders", "public.orders update type=a data=note,id", "update_unchanged",
                 "a|||{\"id\":1}");
    assert_event(
        "relation_orders", "public.orders update type=a ordering-key={note}", "update_unchanged",
        "! the value of note, which ordering-key names, is stored apart (TOAST) and was not changed, so "
        "it is not told: ALTER TABLE public.orders REPLICA IDENTITY FULL");
}

static void test_nulls(void **state) {
    (void)state;
    assert_event("relation_orders", "public.orders update type=a data=id ordering-key={paid}",
                 "update_unchanged", "a|||{\"id\":1}");
    assert_event("relation_orders", "public.orders update type=a tenant={paid}", "update_unchanged",
                 "! a column that tenant names is null");
    assert_event("relation_orders", "public.orders update type=a.{paid}", "update_unchanged",
                 "! a column that type names is null");
}

static void test_before_and_after(void **state) {
    (void)state;
    assert_event("relation_full", "public.full_orders insert type=a before=true", "insert_full",
                 "a|||{\"before\":null,\"after\":{\"id\":1,\"note\":\"été\"}}");
    assert_event("relation_full", "public.full_orders update type=a before=true", "update_full",
                 "a|||{\"before\":{\"id\":1,\"note\":\"été\"},\"after\":{\"id\":1,\"note\":\"b\"}}");
    assert_event("relation_full", "public.full_orders delete type=a.{note} before=true data=note",
                 "delete_full", "a.b|||{\"before\":{\"note\":\"b\"},\"after\":null}");
    assert_event("relation_full", "public.full_orders delete type=a", "delete_full",
                 "a|||{\"id\":1,\"note\":\"b\"}");
    /* Without the whole old row, what is told of it is its key: null would be a lie. */
    assert_event("relation_orders", "public.orders delete type=a ordering-key={id}", "delete_key",
                 "a||2|{\"id\":2}");
}

static void append_number(struct buf *b, uint64_t v, int bytes) {
    while (bytes-- > 0)
        buf_add_char(b, (char)(v >> 8 * bytes));
}

/* A table t of one column c of this type, and the JSON that a value of it becomes. */
static void assert_json(uint32_t type, const char *value, const char *expected) {
    _cleanup_buf_ struct buf relation = {0}, row = {0}, reason = {0};
    struct pgoutput_message m;
    struct cdc_table *t = NULL;
    struct cdc_event e = {0};
    buf_add(&relation, "R\0\0\0\1public\0t\0d\0\1\1c\0", 20);
    append_number(&relation, type, 4);
    append_number(&relation, UINT32_MAX, 4);
    assert_int_equal(pgoutput_read(buf_slice(&relation), &m), 0);
    assert_int_equal(cdc_table_new(&m, &t), 0);
    buf_add(&row, "I\0\0\0\1N\0\1t", 9);
    append_number(&row, strlen(value), 4);
    buf_add_str(&row, value);
    assert_int_equal(pgoutput_read(buf_slice(&row), &m), 0);
    struct cdc_rule rule = parsed("public.t insert type=a");
    assert_int_equal(cdc_event_of(t, &rule, &m, &e, &reason), 0);
    _cleanup_buf_ struct buf whole = {0};
    buf_addf(&whole, "{\"c\":%s}", expected);
    assert_slice(buf_slice(&e.data), whole.p);
    cdc_event_free(&e);
    cdc_rule_clear(&rule);
    cdc_table_free(t);
}

static void test_types(void **state) {
    (void)state;
    assert_json(20, "9223372036854775807", "9223372036854775807");
    assert_json(1700, "-0.000000000000000000000000010", "-0.000000000000000000000000010");
    assert_json(1700, "NaN", "\"NaN\"");
    assert_json(701, "1e+300", "1e+300");
    assert_json(701, "-Infinity", "\"-Infinity\"");
    assert_json(700, "Infinity", "\"Infinity\"");
    assert_json(16, "t", "true");
    assert_json(16, "f", "false");
    assert_json(114, "[1,  {\"a\" : 1.0}]", "[1,  {\"a\" : 1.0}]");
    assert_json(3802, "null", "null");
    assert_json(25, "a \"b\"\n", "\"a \\\"b\\\"\\n\"");
    assert_json(2950, "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "\"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11\"");
    assert_json(790, "$1.00", "\"$1.00\"");
    assert_json(23, "", "\"\""); /* no integer is so */
}

static void assert_fits(const char *table, const char *rule_text, const char *why) {
    struct cdc_table *t = table_of(table);
    struct cdc_rule rule = parsed(rule_text);
    _cleanup_buf_ struct buf reason = {0};
    int r = cdc_table_fits(t, &rule, &reason);
    assert_int_equal(r, why ? -EINVAL : 0);
    if (why && !strstr(reason.p, why))
        fail_msg("\"%s\" does not tell of \"%s\"", reason.p, why);
    cdc_rule_clear(&rule);
    cdc_table_free(t);
}

static void test_fits(void **state) {
    (void)state;
    assert_fits("relation_orders",
                "public.orders insert,update type=o.{paid} tenant={note} ordering-key={id} data=doc", NULL);
    assert_fits("relation_orders", "public.orders insert,delete type=o ordering-key={id} data=id", NULL);
    assert_fits("relation_orders", "public.orders insert type=o before=true", NULL);
    assert_fits("relation_full", "public.full_orders update,delete type=o.{note} before=true", NULL);
    assert_fits("relation_orders", "public.orders insert type=o.{status}", "the column status in type");
    assert_fits("relation_orders", "public.orders insert type=o tenant={account}",
                "the column account in tenant");
    assert_fits("relation_orders", "public.orders insert type=o ordering-key={no}",
                "the column no in ordering-key");
    assert_fits("relation_orders", "public.orders insert type=o data=id,vat", "the column vat in data");
    assert_fits("relation_orders", "public.orders update type=o before=true", "REPLICA IDENTITY FULL");
    assert_fits("relation_orders", "public.orders delete type=o.{paid}", "REPLICA IDENTITY FULL");
}

static void assert_keeps(const char *rule_text, const char *known, const char *why) {
    struct cdc_table *t = table_of("relation_full");
    struct cdc_rule rule = parsed(rule_text);
    _cleanup_buf_ struct buf reason = {0};
    assert_int_equal(cdc_shape_keeps(t, &rule, slice_of(known), &reason), why ? -EINVAL : 0);
    if (why && !strstr(reason.p, why))
        fail_msg("\"%s\" does not tell of \"%s\"", reason.p, why);
    cdc_rule_clear(&rule);
    cdc_table_free(t);
}

static void test_shapes(void **state) {
    (void)state;
    struct cdc_table *t = table_of("relation_orders");
    struct cdc_rule rule = parsed("public.orders insert type=o schema-version=7");
    _cleanup_buf_ struct buf shape = {0}, reason = {0};
    cdc_shape_write(t, &rule, &shape);
    assert_slice(
        buf_slice(&shape),
        "{\"schema_version\":\"7\",\"columns\":{\"id\":\"number\",\"total\":\"number\",\"paid\":\"boolean\","
        "\"note\":\"string\",\"doc\":\"json\",\"tags\":\"string\",\"at\":\"string\"}}");
    assert_int_equal(cdc_shape_keeps(t, &rule, buf_slice(&shape), &reason), 0);
    cdc_rule_clear(&rule);
    cdc_table_free(t);

    assert_keeps("public.f insert type=a", "{\"schema_version\":\"1\",\"columns\":{\"id\":\"number\"}}",
                 NULL);
    assert_keeps("public.f insert type=a", "{\"schema_version\":\"1\",\"columns\":{\"id\":\"string\"}}",
                 "the column id of public.full_orders was a \"string\" and is now a \"number\"");
    assert_keeps("public.f insert type=a", "{\"schema_version\":\"1\",\"columns\":{\"gone\":\"string\"}}",
                 "is gone");
    assert_keeps("public.f insert type=a data=id",
                 "{\"schema_version\":\"1\",\"columns\":{\"gone\":\"string\"}}", NULL);
    assert_keeps("public.f insert type=a schema-version=2",
                 "{\"schema_version\":\"1\",\"columns\":{\"gone\":\"string\"}}", NULL);
}

static void test_bad_shapes(void **state) {
    (void)state;
    static const char *const bad[] = {"",
                                      "{}",
                                      "{\"schema_version\":\"1\"}",
                                      "{\"schema_version\":1,\"columns\":{}}",
                                      "{\"schema_version\":\"1\",\"columns\":[]}",
                                      "{\"schema_version\":\"1\",\"columns\":{\"id\":1}}"};
    struct cdc_table *t = table_of("relation_full");
    struct cdc_rule rule = parsed("public.full_orders insert type=a");
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        _cleanup_buf_ struct buf reason = {0};
        if (cdc_shape_keeps(t, &rule, slice_of(bad[i]), &reason) != -EBADMSG)
            fail_msg("\"%s\" passes", bad[i]);
    }
    cdc_rule_clear(&rule);
    cdc_table_free(t);
}

/* A row that is not of the table it says. */
static void test_other_columns(void **state) {
    (void)state;
    struct cdc_table *t = table_of("relation_full");
    struct cdc_rule rule = parsed("public.full_orders insert type=a");
    struct pgoutput_message m;
    struct cdc_event e = {0};
    _cleanup_buf_ struct buf reason = {0};
    assert_int_equal(pgoutput_read(bytes_of("insert_orders"), &m), 0);
    assert_int_equal(cdc_event_of(t, &rule, &m, &e, &reason), -EBADMSG);
    cdc_event_free(&e);
    cdc_rule_clear(&rule);
    cdc_table_free(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_events),        cmocka_unit_test(test_unchanged),
        cmocka_unit_test(test_nulls),         cmocka_unit_test(test_before_and_after),
        cmocka_unit_test(test_types),         cmocka_unit_test(test_fits),
        cmocka_unit_test(test_shapes),        cmocka_unit_test(test_bad_shapes),
        cmocka_unit_test(test_other_columns),
    };
    return cmocka_run_group_tests(tests, read_cases, NULL);
}
