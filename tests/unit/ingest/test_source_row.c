#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include <errno.h>

#include "ingest/source.h"

static struct source_row row_of(const char *type, const char *data) {
    return (struct source_row){.key = SLICE_LIT("17"), .type = slice_of(type), .data = slice_of(data)};
}

static void assert_body(const struct source_row *row, const char *expected) {
    _cleanup_buf_ struct buf out = {0};
    char reason[SOURCE_REASON_SIZE] = "";
    if (source_row_body("shop", row, &out, reason) != 0)
        fail_msg("refused: %s", reason);
    assert_string_equal(out.p, expected);
}

static void assert_refused(const struct source_row *row, const char *word) {
    _cleanup_buf_ struct buf out = {0};
    char reason[SOURCE_REASON_SIZE] = "";
    assert_int_equal(source_row_body("shop", row, &out, reason), -EINVAL);
    if (!strstr(reason, word))
        fail_msg("\"%s\" is missing in: %s", word, reason);
}

static void a_row_becomes_a_body(void **state) {
    (void)state;
    struct source_row row = row_of("order.paid", "{\"n\": 1.50}");
    assert_body(&row, "{\"type\":\"order.paid\",\"idempotency_key\":\"shop:17\",\"data\":{\"n\": 1.50}}");
    row.ordering_key = SLICE_LIT("a \"b\"");
    row.schema_version = SLICE_LIT("2");
    row.deliver_at = INT64_C(1764111000123);
    assert_body(
        &row, "{\"type\":\"order.paid\",\"idempotency_key\":\"shop:17\",\"ordering_key\":\"a \\\"b\\\"\","
              "\"schema_version\":\"2\",\"deliver_at\":\"2025-11-25T22:50:00.123Z\",\"data\":{\"n\": 1.50}}");
}

static void a_body_is_the_same_each_time(void **state) {
    (void)state;
    struct source_row row = row_of("a", "[1]");
    _cleanup_buf_ struct buf first = {0}, second = {0};
    char reason[SOURCE_REASON_SIZE];
    assert_int_equal(source_row_body("shop", &row, &first, reason), 0);
    row.committed_at = 5;
    assert_int_equal(source_row_body("shop", &row, &second, reason), 0);
    assert_string_equal(first.p, second.p);
}

static void what_it_publishes_is_what_it_says(void **state) {
    (void)state;
    struct source_row row = row_of("order.paid", "{\"a\":[1,2]}");
    row.ordering_key = SLICE_LIT("k\xc3\xa9\n");
    _cleanup_buf_ struct buf out = {0};
    char reason[SOURCE_REASON_SIZE];
    assert_int_equal(source_row_body("shop", &row, &out, reason), 0);
    struct publish_rules rules = {.prefix = "", .in_batch = true, .data_bytes_max = 100, .now = 1};
    struct publish p;
    struct field_errors errors;
    const char *problem;
    size_t offset;
    field_errors_init(&errors);
    assert_int_equal(publish_parse(buf_slice(&out), &rules, &p, &errors, &problem, &offset), 0);
    assert_true(slice_eq(p.type, row.type));
    assert_true(slice_eq(p.data, row.data));
    assert_true(slice_eq(p.ordering_key, row.ordering_key));
    assert_true(slice_eq(p.idempotency_key, SLICE_LIT("shop:17")));
}

static void data_that_is_not_one_value_is_refused(void **state) {
    (void)state;
    static const char *const bad[] = {"", "{", "1,\"type\":\"x\"", "1 2", "nul", "\xff", "{\"a\":1}}"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct source_row row = row_of("a", bad[i]);
        assert_refused(&row, "data: is not JSON");
    }
    struct source_row row = row_of("a", "1");
    row.data = SLICE_NONE;
    assert_refused(&row, "data: is missing");
    row.data = (struct slice){"", (size_t)SOURCE_ROW_BYTES_MAX + 1};
    assert_refused(&row, "data: has more than");
}

static void a_row_without_a_type_is_refused(void **state) {
    (void)state;
    struct source_row row = row_of(NULL, "1");
    assert_refused(&row, "type: is missing");
}

static void a_deliver_at_that_no_text_can_hold_is_refused(void **state) {
    (void)state;
    struct source_row row = row_of("a", "1");
    row.deliver_at = INT64_MAX;
    assert_refused(&row, "deliver_at: ");
    row.deliver_at = -1; /* before 1970: at once */
    assert_body(&row, "{\"type\":\"a\",\"idempotency_key\":\"shop:17\",\"data\":1}");
}

static void names(void **state) {
    (void)state;
    assert_true(source_name_valid(SLICE_LIT("shop")));
    assert_true(source_name_valid(SLICE_LIT("A.b_c-1")));
    assert_false(source_name_valid(SLICE_LIT("")));
    assert_false(source_name_valid(SLICE_LIT("a b")));
    assert_false(source_name_valid(SLICE_LIT("a:b")));
    assert_true(source_name_valid(SLICE_LIT("12345678901234567890123456789012")));
    assert_false(source_name_valid(SLICE_LIT("123456789012345678901234567890123")));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_row_becomes_a_body),
        cmocka_unit_test(a_body_is_the_same_each_time),
        cmocka_unit_test(what_it_publishes_is_what_it_says),
        cmocka_unit_test(data_that_is_not_one_value_is_refused),
        cmocka_unit_test(a_row_without_a_type_is_refused),
        cmocka_unit_test(a_deliver_at_that_no_text_can_hold_is_refused),
        cmocka_unit_test(names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
