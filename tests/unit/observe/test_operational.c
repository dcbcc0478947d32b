#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include <string.h>

#include "observe/operational.h"

#define AT INT64_C(1795553340123)

static const struct id SUBSCRIPTION = {.key = (uint64_t)AT << 12, .tail = 5};

static struct operational_event make(enum operational_kind kind) {
    return (struct operational_event){.kind = kind,
                                      .subscription_no = 7,
                                      .at = AT,
                                      .subscription_id = SUBSCRIPTION,
                                      .url = "https://example.com/\"hook\""};
}

/* `expected` is what follows the subscription's id and URL. */
static void assert_data(const struct operational_event *e, const char *expected) {
    char id[ID_TEXT_SIZE], whole[1024];
    id_format(ID_SUBSCRIPTION, e->subscription_id, id);
    snprintf(whole, sizeof whole,
             "{\"subscription_id\":\"%s\",\"url\":\"https://example.com/\\\"hook\\\"\",%s}", id, expected);
    char *data = operational_data(e);
    assert_non_null(data);
    assert_string_equal(data, whole);
    free(data);
}

static void test_disabled(void **state) {
    (void)state;
    struct operational_event e = make(OPERATIONAL_DISABLED);
    e.disabled_reason = "the endpoint answered 410 Gone";
    assert_data(&e, "\"disabled_reason\":\"the endpoint answered 410 Gone\",\"failing_since\":null,"
                    "\"disabled_at\":\"2026-11-24T20:49:00.123Z\"");
}

static void test_failing(void **state) {
    (void)state;
    struct operational_event e = make(OPERATIONAL_FAILING);
    e.failing_since = AT - 1000;
    e.last_status = 503;
    assert_data(&e, "\"failing_since\":\"2026-11-24T20:48:59.123Z\",\"last_status_code\":503,"
                    "\"last_error\":null");
    e.last_status = 0;
    e.last_error = ATTEMPT_TIMEOUT;
    assert_data(&e, "\"failing_since\":\"2026-11-24T20:48:59.123Z\",\"last_status_code\":null,"
                    "\"last_error\":\"timeout\"");
}

static void test_recovered(void **state) {
    (void)state;
    struct operational_event e = make(OPERATIONAL_RECOVERED);
    e.failing_since = AT - 123;
    assert_data(&e, "\"failing_since\":\"2026-11-24T20:49:00.000Z\","
                    "\"recovered_at\":\"2026-11-24T20:49:00.123Z\"");
}

static void test_exhausted(void **state) {
    (void)state;
    struct operational_event e = make(OPERATIONAL_EXHAUSTED);
    e.event_key = SUBSCRIPTION.key;
    e.event_id = SUBSCRIPTION;
    e.event_type = (struct slice){"invoice.paid and more", 12};
    e.attempt_count = 3;
    e.reason = REASON_ATTEMPTS_EXHAUSTED;
    e.last_status = 500;
    char delivery[ID_TEXT_SIZE], event[ID_TEXT_SIZE], expected[512];
    id_format(ID_DELIVERY, id_of_delivery(e.event_key, 7), delivery);
    id_format(ID_EVENT, SUBSCRIPTION, event);
    snprintf(expected, sizeof expected,
             "\"delivery_id\":\"%s\",\"event_id\":\"%s\",\"event_type\":\"invoice.paid\","
             "\"attempt_count\":3,\"failure_reason\":\"attempts_exhausted\","
             "\"exhausted_at\":\"2026-11-24T20:49:00.123Z\",\"last_status_code\":500,\"last_error\":null",
             delivery, event);
    assert_data(&e, expected);
}

static void test_types_are_reserved_names(void **state) {
    (void)state;
    for (int kind = 0; kind < OPERATIONAL_KINDS; kind++)
        assert_true(strncmp(operational_type((enum operational_kind)kind), "posthorn.", 9) == 0);
    assert_string_equal(operational_type(OPERATIONAL_EXHAUSTED), "posthorn.delivery.exhausted");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_disabled),
        cmocka_unit_test(test_failing),
        cmocka_unit_test(test_recovered),
        cmocka_unit_test(test_exhausted),
        cmocka_unit_test(test_types_are_reserved_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
