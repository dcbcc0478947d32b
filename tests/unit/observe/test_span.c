/* Spans as OTLP/HTTP JSON: read back with a reader of JSON that is not ours. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <jansson.h>

#include "observe/span.h"

static json_t *render(const struct span *spans, size_t n) {
    _cleanup_buf_ struct buf out = {0};
    json_error_t error;
    spans_render(spans, n, "host:\"7\"", &out);
    assert_true(buf_ok(&out));
    json_t *doc = json_loadb(out.p, out.n, JSON_REJECT_DUPLICATES, &error);
    if (!doc)
        fail_msg("%s: %s", error.text, out.p);
    return doc;
}

static json_t *first(json_t *of, const char *name) {
    return json_array_get(json_object_get(of, name), 0);
}

static const char *text(const json_t *of, const char *name) {
    return json_string_value(json_object_get(of, name));
}

/* The value of an attribute as text; NULL when there is none. */
static const char *attribute(const json_t *of, const char *key) {
    size_t i;
    json_t *each;
    json_array_foreach (json_object_get(of, "attributes"), i, each) {
        const json_t *value = json_object_get(each, "value");
        if (strcmp(text(each, "key"), key) == 0)
            return text(value, "stringValue") ? text(value, "stringValue") : text(value, "intValue");
    }
    return NULL;
}

static void test_an_attempt(void **state) {
    (void)state;
    struct span s = {.trace_id = "4bf92f3577b34da6a3ce929d0e0e4736",
                     .id = 0xabc,
                     .parent = 0xdef,
                     .kind = SPAN_ATTEMPT,
                     .failed = true,
                     .started_us = 1700000000000001,
                     .ended_us = 1700000000000301,
                     .tenant_id = "acme",
                     .delivery_id = {1, 2},
                     .subscription_id = {3, 4},
                     .number = 7,
                     .error = ATTEMPT_TIMEOUT};
    json_t *doc = render(&s, 1), *resource = first(doc, "resourceSpans");
    json_t *span = first(first(resource, "scopeSpans"), "spans");
    assert_string_equal(attribute(json_object_get(resource, "resource"), "service.name"), "posthorn");
    assert_string_equal(attribute(json_object_get(resource, "resource"), "service.instance.id"),
                        "host:\"7\"");
    assert_string_equal(text(span, "traceId"), s.trace_id);
    assert_string_equal(text(span, "spanId"), "0000000000000abc");
    assert_string_equal(text(span, "parentSpanId"), "0000000000000def");
    assert_string_equal(text(span, "name"), "attempt");
    assert_int_equal(json_integer_value(json_object_get(span, "kind")), 3);
    assert_string_equal(text(span, "startTimeUnixNano"), "1700000000000001000");
    assert_string_equal(text(span, "endTimeUnixNano"), "1700000000000301000");
    assert_string_equal(attribute(span, "posthorn.attempt"), "7");
    assert_string_equal(attribute(span, "error.type"), "timeout");
    assert_null(attribute(span, "http.response.status_code"));
    assert_int_equal(json_integer_value(json_object_get(json_object_get(span, "status"), "code")), 2);
    json_decref(doc);
}

static void test_many(void **state) {
    (void)state;
    struct span spans[3] = {{.trace_id = "a", .id = 1, .kind = SPAN_PUBLISH, .count = 5, .tenant_id = "t"},
                            {.trace_id = "a", .id = 2, .parent = 1, .kind = SPAN_FANOUT, .count = 6},
                            {.trace_id = "a", .id = 3, .parent = 1, .kind = SPAN_ATTEMPT, .status = 200}};
    json_t *doc = render(spans, 3);
    json_t *list = json_object_get(first(first(doc, "resourceSpans"), "scopeSpans"), "spans");
    assert_int_equal(json_array_size(list), 3);
    assert_null(json_object_get(json_array_get(list, 0), "parentSpanId"));
    assert_null(json_object_get(json_array_get(list, 0), "status"));
    assert_string_equal(attribute(json_array_get(list, 0), "posthorn.events"), "5");
    assert_string_equal(attribute(json_array_get(list, 1), "posthorn.deliveries"), "6");
    assert_null(attribute(json_array_get(list, 1), "posthorn.tenant.id"));
    assert_string_equal(attribute(json_array_get(list, 2), "http.response.status_code"), "200");
    json_decref(doc);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_attempt),
        cmocka_unit_test(test_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
