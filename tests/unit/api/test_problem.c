#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <jansson.h>

#include "api/problem.h"

static json_t *rendered(int status, const char *detail, const struct field_errors *errors) {
    _cleanup_buf_ struct buf out = {0};
    problem_render(&out, status, detail, errors);
    assert_true(buf_ok(&out));
    json_t *doc = json_loadb(out.p, out.n, 0, NULL);
    assert_non_null(doc);
    return doc;
}

static const char *text(const json_t *doc, const char *name) {
    return json_string_value(json_object_get(doc, name));
}

static void test_members(void **state) {
    (void)state;
    json_t *doc = rendered(404, "There is no such event.", NULL);
    assert_string_equal(text(doc, "type"), "urn:posthorn:problem:not_found");
    assert_string_equal(text(doc, "detail"), "There is no such event.");
    assert_non_null(text(doc, "title"));
    assert_int_equal(json_integer_value(json_object_get(doc, "status")), 404);
    assert_int_equal(json_object_size(doc), 4);
    json_decref(doc);
}

static void test_errors_name_fields(void **state) {
    (void)state;
    struct field_errors errors;
    errors.n = errors.dropped = 0;
    field_error_add(&errors, "url", "is required");
    field_error_add(&errors, "policy.\"odd\"", "must be %d or more", 3);
    json_t *doc = rendered(422, "See errors.", &errors);
    assert_string_equal(text(doc, "type"), "urn:posthorn:problem:validation");
    const json_t *list = json_object_get(doc, "errors");
    assert_int_equal(json_array_size(list), 2);
    assert_string_equal(text(json_array_get(list, 0), "field"), "url");
    assert_string_equal(text(json_array_get(list, 0), "message"), "is required");
    assert_string_equal(text(json_array_get(list, 1), "field"), "policy.\"odd\"");
    assert_string_equal(text(json_array_get(list, 1), "message"), "must be 3 or more");
    json_decref(doc);
}

static void test_no_errors_no_member(void **state) {
    (void)state;
    struct field_errors errors;
    errors.n = errors.dropped = 0;
    json_t *doc = rendered(422, "", &errors);
    assert_null(json_object_get(doc, "errors"));
    json_decref(doc);
}

/* The detail may quote what a client sent. */
static void test_detail_is_escaped(void **state) {
    (void)state;
    json_t *doc = rendered(400, "\"\\\n\x01\xff", NULL);
    assert_string_equal(text(doc, "detail"), "\"\\\n\x01\xEF\xBF\xBD");
    json_decref(doc);
}

static void test_every_status_has_its_own_type(void **state) {
    (void)state;
    const int statuses[] = {400, 401, 403, 404, 405, 409, 410, 413, 414, 415, 422, 429, 500, 503};
    enum { N = sizeof statuses / sizeof statuses[0] };
    json_t *docs[N];
    for (size_t i = 0; i < N; i++) {
        docs[i] = rendered(statuses[i], "x", NULL);
        assert_int_equal(json_integer_value(json_object_get(docs[i], "status")), statuses[i]);
        for (size_t k = 0; k < i; k++)
            assert_string_not_equal(text(docs[i], "type"), text(docs[k], "type"));
    }
    for (size_t i = 0; i < N; i++)
        json_decref(docs[i]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_members),
        cmocka_unit_test(test_errors_name_fields),
        cmocka_unit_test(test_no_errors_no_member),
        cmocka_unit_test(test_detail_is_escaped),
        cmocka_unit_test(test_every_status_has_its_own_type),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
