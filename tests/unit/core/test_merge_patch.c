#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "core/merge_patch.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static json_t *read_json(const char *text) {
    json_t *value = json_loads(text, JSON_DECODE_ANY, NULL);
    assert_non_null(value);
    return value;
}

/* Target, patch and result as of RFC 7396 appendix A, and some more. */
static const struct {
    const char *target, *patch, *result;
} EXAMPLES[] = {
    {"{\"a\":\"b\"}", "{\"a\":\"c\"}", "{\"a\":\"c\"}"},
    {"{\"a\":\"b\"}", "{\"b\":\"c\"}", "{\"a\":\"b\",\"b\":\"c\"}"},
    {"{\"a\":\"b\"}", "{\"a\":null}", "{}"},
    {"{\"a\":\"b\",\"b\":\"c\"}", "{\"a\":null}", "{\"b\":\"c\"}"},
    {"{\"a\":[\"b\"]}", "{\"a\":\"c\"}", "{\"a\":\"c\"}"},
    {"{\"a\":\"c\"}", "{\"a\":[\"b\"]}", "{\"a\":[\"b\"]}"},
    {"{\"a\":{\"b\":\"c\"}}", "{\"a\":{\"b\":\"d\",\"c\":null}}", "{\"a\":{\"b\":\"d\"}}"},
    {"{\"a\":[{\"b\":\"c\"}]}", "{\"a\":[1]}", "{\"a\":[1]}"},
    {"[\"a\",\"b\"]", "[\"c\",\"d\"]", "[\"c\",\"d\"]"},
    {"{\"a\":\"b\"}", "[\"c\"]", "[\"c\"]"},
    {"{\"a\":\"foo\"}", "null", "null"},
    {"{\"a\":\"foo\"}", "\"bar\"", "\"bar\""},
    {"{\"e\":null}", "{\"a\":1}", "{\"e\":null,\"a\":1}"},
    {"[1,2]", "{\"a\":\"b\",\"c\":null}", "{\"a\":\"b\"}"},
    {"{}", "{\"a\":{\"bb\":{\"ccc\":null}}}", "{\"a\":{\"bb\":{}}}"},
    /* The example of section 3. */
    {"{\"title\":\"Goodbye!\",\"author\":{\"givenName\":\"John\",\"familyName\":\"Doe\"},"
     "\"tags\":[\"example\",\"sample\"],\"content\":\"This will be unchanged\"}",
     "{\"title\":\"Hello!\",\"phoneNumber\":\"+01-123-456-7890\",\"author\":{\"familyName\":null},"
     "\"tags\":[\"example\"]}",
     "{\"title\":\"Hello!\",\"author\":{\"givenName\":\"John\"},\"tags\":[\"example\"],"
     "\"content\":\"This will be unchanged\",\"phoneNumber\":\"+01-123-456-7890\"}"},
    {"{\"a\":1}", "{}", "{\"a\":1}"},
    {"{\"a\":1}", "{\"a\":{\"b\":1,\"c\":null}}", "{\"a\":{\"b\":1}}"},
    {"{}", "{\"a\":[null,{\"b\":null}]}", "{\"a\":[null,{\"b\":null}]}"},
    {"7", "{\"a\":{\"b\":2}}", "{\"a\":{\"b\":2}}"},
};

static void test_examples(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(EXAMPLES); i++) {
        json_t *target = read_json(EXAMPLES[i].target), *patch = read_json(EXAMPLES[i].patch);
        json_t *result = json_merge_patch(target, patch);
        char *text = json_dumps(result, JSON_COMPACT | JSON_ENCODE_ANY);
        assert_non_null(text);
        assert_string_equal(text, EXAMPLES[i].result);
        free(text);
        json_decref(result);
        /* Neither was changed. */
        json_t *target_again = read_json(EXAMPLES[i].target), *patch_again = read_json(EXAMPLES[i].patch);
        assert_true(json_equal(target, target_again));
        assert_true(json_equal(patch, patch_again));
        json_decref(target);
        json_decref(patch);
        json_decref(target_again);
        json_decref(patch_again);
    }
}

static void test_of_nothing(void **state) {
    (void)state;
    json_t *patch = read_json("{\"a\":{\"b\":null,\"c\":1},\"d\":null}");
    json_t *result = json_merge_patch(NULL, patch), *expected = read_json("{\"a\":{\"c\":1}}");
    assert_true(json_equal(result, expected));
    json_decref(result);
    json_decref(expected);
    json_decref(patch);
}

static void test_result_stands_alone(void **state) {
    (void)state;
    json_t *target = read_json("{\"kept\":{\"a\":1}}"),
           *patch = read_json("{\"new\":{\"b\":[1]},\"list\":[{}]}");
    json_t *result = json_merge_patch(target, patch);
    json_object_clear(json_object_get(target, "kept"));
    json_object_clear(json_object_get(patch, "new"));
    json_array_clear(json_object_get(patch, "list"));
    json_decref(target);
    json_decref(patch);
    json_t *expected = read_json("{\"kept\":{\"a\":1},\"new\":{\"b\":[1]},\"list\":[{}]}");
    assert_true(json_equal(result, expected));
    json_decref(result);
    json_decref(expected);
}

static void test_as_deep_as_the_parser_goes(void **state) {
    (void)state;
    enum { DEPTH = 2000 };
    _cleanup_buf_ struct buf text = {0};
    for (int i = 0; i < DEPTH; i++)
        buf_add_str(&text, "{\"a\":");
    buf_add_char(&text, '1');
    for (int i = 0; i < DEPTH; i++)
        buf_add_char(&text, '}');
    json_t *patch = read_json(text.p), *result = json_merge_patch(NULL, patch);
    assert_true(json_equal(result, patch));
    json_decref(result);
    json_decref(patch);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_examples),
        cmocka_unit_test(test_of_nothing),
        cmocka_unit_test(test_result_stands_alone),
        cmocka_unit_test(test_as_deep_as_the_parser_goes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
