#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include <errno.h>

#include "ingest/cdc_rules.h"

static void assert_refused(const char *text, const char *why) {
    struct cdc_rule rule;
    _cleanup_buf_ struct buf complaint = {0};
    if (cdc_rule_parse(slice_of(text), &rule, &complaint) != -EINVAL)
        fail_msg("\"%s\" passes", text);
    if (!complaint.p || !strstr(complaint.p, why))
        fail_msg("\"%s\": \"%s\" does not tell of \"%s\"", text, complaint.p ? complaint.p : "", why);
    assert_null(rule.name);
}

static struct cdc_rule parsed(const char *text) {
    struct cdc_rule rule;
    _cleanup_buf_ struct buf complaint = {0};
    if (cdc_rule_parse(slice_of(text), &rule, &complaint) != 0)
        fail_msg("\"%s\": %s", text, complaint.p);
    return rule;
}

static void test_least(void **state) {
    (void)state;
    struct cdc_rule r = parsed("public.orders insert type=order.created");
    assert_string_equal(r.name, "public.orders insert");
    assert_string_equal(r.schema, "public");
    assert_string_equal(r.table, "orders");
    assert_int_equal(r.operations, CDC_INSERT);
    assert_string_equal(r.type, "order.created");
    assert_string_equal(r.schema_version, "1");
    assert_null(r.tenant);
    assert_null(r.ordering_key);
    assert_int_equal(r.columns_n, 0);
    assert_false(r.before);
    cdc_rule_clear(&r);
}

static void test_most(void **state) {
    (void)state;
    struct cdc_rule r = parsed(
        "  shop.orders\tdelete,insert,update  type=order.{status} tenant={account} "
        "ordering-key=o-{id}-{\"line no\"} schema-version=2 data=id,\"a, \"\"b\"\"\",status before=true ");
    assert_string_equal(r.name, "shop.orders insert,update,delete");
    assert_int_equal(r.operations, CDC_INSERT | CDC_UPDATE | CDC_DELETE);
    assert_string_equal(r.type, "order.{status}");
    assert_string_equal(r.tenant, "{account}");
    assert_string_equal(r.ordering_key, "o-{id}-{\"line no\"}");
    assert_string_equal(r.schema_version, "2");
    assert_int_equal(r.columns_n, 3);
    assert_string_equal(r.columns[1], "a, \"b\"");
    assert_string_equal(r.columns[2], "status");
    assert_true(r.before);
    cdc_rule_clear(&r);
    r = parsed("\"My Shop\".\"order.lines\" update type=line.changed data=*");
    assert_string_equal(r.schema, "My Shop");
    assert_string_equal(r.table, "order.lines");
    cdc_rule_clear(&r);
}

static void test_refused(void **state) {
    (void)state;
    assert_refused("", "must be a table");
    assert_refused("public.orders", "must be a table");
    assert_refused("orders insert type=a", "must be a table with its schema");
    assert_refused("a.b.c insert type=a", "must be a table with its schema");
    assert_refused("public. insert type=a", "must be a table with its schema");
    assert_refused("public.\"open insert type=a", "must be a table");
    assert_refused("public.or\"ders\" insert type=a", "must be a table with its schema");
    assert_refused("public.orders insert,drop type=a", "must be operations");
    assert_refused("public.orders insert,insert type=a", "must be operations");
    assert_refused("public.orders insert,,update type=a", "must be operations");
    assert_refused("public.orders insert", "type=… is missing");
    assert_refused("public.orders insert type=", "no event type");
    assert_refused("public.orders insert type=order,paid", "no event type");
    assert_refused("public.orders insert type=order.{status", "no event type");
    assert_refused("public.orders insert type=order.status}", "no event type");
    assert_refused("public.orders insert type={}", "no event type");
    assert_refused("public.orders insert type=posthorn.{status}", "server's own");
    assert_refused("public.orders insert type=a tenant=a/b", "no tenant");
    assert_refused("public.orders insert type=a ordering-key=", "no ordering key");
    assert_refused("public.orders insert type=a schema-version=", "no schema version");
    assert_refused("public.orders insert type=a data=", "must be columns");
    assert_refused("public.orders insert type=a data=id,,b", "must be columns");
    assert_refused("public.orders insert type=a before=yes", "must be true or false");
    assert_refused("public.orders insert type=a type=b", "is set twice");
    assert_refused("public.orders insert type=a typo=b", "\"typo=b\" is not known");
    assert_refused("public.orders insert type=a b", "\"b\" is not known");
    _cleanup_buf_ struct buf many = {0};
    buf_add_str(&many, "public.orders insert type=a data=c");
    for (int i = 0; i < CDC_RULE_COLUMNS_MAX; i++)
        buf_addf(&many, ",c%d", i);
    assert_refused(many.p, "more than 64 columns");
}

static void test_overlap(void **state) {
    (void)state;
    struct cdc_rule a = parsed("public.orders insert,update type=a"),
                    b = parsed("public.orders delete type=a"), c = parsed("public.orders update type=b"),
                    d = parsed("shop.orders update type=b");
    assert_false(cdc_rules_overlap(&a, &b));
    assert_true(cdc_rules_overlap(&a, &c));
    assert_false(cdc_rules_overlap(&a, &d));
    struct cdc_rule *all[] = {&a, &b, &c, &d};
    for (size_t i = 0; i < 4; i++)
        cdc_rule_clear(all[i]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_least),
        cmocka_unit_test(test_most),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_overlap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
