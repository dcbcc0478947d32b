#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include <errno.h>

#include "ingest/cdc_event.h"

static void assert_refused(const char *content, const char *why) {
    struct cdc_event e = {0};
    _cleanup_buf_ struct buf reason = {0};
    if (cdc_event_of_message(slice_of(content), &e, &reason) != -EINVAL)
        fail_msg("%s passes", content);
    if (!strstr(reason.p, why))
        fail_msg("%s: \"%s\" does not tell of \"%s\"", content, reason.p, why);
    cdc_event_free(&e);
}

static void test_whole(void **state) {
    (void)state;
    struct cdc_event e = {0};
    _cleanup_buf_ struct buf reason = {0};
    assert_int_equal(cdc_event_of_message(
                         SLICE_LIT(" {\"data\" : {\"n\": 1.10 } ,\"type\":\"order\\u002epaid\",\"tenant\":"
                                   "\"acme\",\"ordering_key\":\"o-1\",\"schema_version\":\"2\","
                                   "\"deliver_at\":\"2026-11-24T20:49:00.5Z\"} "),
                         &e, &reason),
                     0);
    assert_string_equal(e.type.p, "order.paid");
    assert_string_equal(e.tenant.p, "acme");
    assert_string_equal(e.ordering_key.p, "o-1");
    assert_string_equal(e.schema_version.p, "2");
    assert_string_equal(e.data.p, "{\"n\": 1.10 }");
    assert_int_equal(e.deliver_at, 1795553340500);
    /* The next one has nothing of it. */
    assert_int_equal(
        cdc_event_of_message(SLICE_LIT("{\"type\":\"a\",\"data\":null,\"tenant\":null,\"deliver_at\":null}"),
                             &e, &reason),
        0);
    assert_int_equal(e.tenant.n + e.ordering_key.n + e.schema_version.n, 0);
    assert_string_equal(e.data.p, "null");
    assert_int_equal(e.deliver_at, 0);
    cdc_event_free(&e);
}

static void test_refused(void **state) {
    (void)state;
    assert_refused("", "not a JSON object");
    assert_refused("order.paid", "not a JSON object");
    assert_refused("[]", "not a JSON object");
    assert_refused("{\"type\":\"a\",\"data\":1", "not a JSON object");
    assert_refused("{\"type\":\"a\",\"data\":1}{}", "not a JSON object");
    assert_refused("{\"data\":1}", "type: is required");
    assert_refused("{\"type\":null,\"data\":1}", "type: is required");
    assert_refused("{\"type\":\"\",\"data\":1}", "type: must not be empty");
    assert_refused("{\"type\":1,\"data\":1}", "type: must be a string");
    assert_refused("{\"type\":\"a\"}", "data: is required");
    assert_refused("{\"type\":\"a\",\"data\":1,\"data\":2}", "data: is given twice");
    assert_refused("{\"type\":\"a\",\"data\":1,\"tenant\":7}", "tenant: must be a string");
    assert_refused("{\"type\":\"a\",\"data\":1,\"tenant\":\"\\u0000\"}", "tenant: must not contain U+0000");
    assert_refused("{\"type\":\"a\",\"data\":1,\"deliver_at\":\"tomorrow\"}", "deliver_at: must be a time");
    assert_refused("{\"type\":\"a\",\"data\":1,\"idempotency_key\":\"k\"}", "a member is not known");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_whole), cmocka_unit_test(test_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
