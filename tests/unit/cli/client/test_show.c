/* What people see of answers: fields, tables, records, progress, times. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/clock.h"
#include "cli/client/field.h"
#include "cli/client/moment.h"
#include "cli/client/progress.h"
#include "cli/client/show.h"
#include "cli/client/tone.h"

static const struct column columns[] = {
    {"ID", "id", false}, {"STATE", "state", true}, {"N", "limits.n", false}};
static const struct column steps[] = {{"TO", "to", true}};

static void shows(const char *json, const char *expected) {
    _cleanup_buf_ struct buf out = {0};
    const char *problem;
    struct field f;
    assert_int_equal(field_parse(slice_of(json), &f, &problem), 0);
    field_show(f, &out);
    assert_string_equal(out.p, expected);
}

static void fields_are_shown_as_people_read_them(void **state) {
    (void)state;
    shows("\"a\\u00e9\"", "a\xc3\xa9");
    shows("null", "-");
    shows("\"\"", "-");
    shows("1.10", "1.10");
    shows("123456789012345678901234567890", "123456789012345678901234567890");
    shows("[\"a\",1,null]", "a, 1, -");
    shows("[]", "-");
    shows("[{\"a\":1}]", "[{\"a\":1}]");
    shows("\"a\\u001b[31m\\u007f\\u009b\\n\\r\"", "a\\x1b[31m\\x7f\\x9b\\n\\x0d");
}

static void fields_are_found_by_path(void **state) {
    (void)state;
    struct slice document = SLICE_LIT("{\"a\":{\"b\":{\"c\":7}},\"x\":[{\"a\":1}]}");
    assert_int_equal(field_int(field_find(document, "a.b.c"), -1), 7);
    assert_null(field_find(document, "a.c").text.p);
    assert_null(field_find(document, "x.a").text.p);
    assert_null(field_find(SLICE_LIT("[1]"), "a").text.p);
    assert_int_equal(field_int(field_find(document, "a"), -1), -1);
}

static void a_table_has_columns_as_wide_as_needed(void **state) {
    (void)state;
    struct table t = {.columns = columns, .columns_n = 3};
    _cleanup_buf_ struct buf out = {0};
    assert_int_equal(show_rows(&t,
                               SLICE_LIT("[{\"id\":\"\xc3\xa9\xc3\xa9\xc3\xa9\",\"state\":\"DLQ\",\"limits\":"
                                         "{\"n\":5}},{\"id\":\"b\"}]"),
                               false, &out),
                     0);
    assert_string_equal(out.p, "ID   STATE  N\n"
                               "\xc3\xa9\xc3\xa9\xc3\xa9  DLQ    5\n"
                               "b    -      -\n");
    buf_reset(&out); /* the next page has no titles, and no narrower columns */
    assert_int_equal(show_rows(&t, SLICE_LIT("[{\"id\":\"c\",\"state\":\"x\"}]"), false, &out), 0);
    assert_string_equal(out.p, "c    x      -\n");
}

static void what_is_no_table_is_refused(void **state) {
    (void)state;
    struct table t = {.columns = columns, .columns_n = 3};
    _cleanup_buf_ struct buf out = {0};
    assert_true(show_rows(&t, SLICE_LIT("[1]"), false, &out) < 0);
    assert_true(show_rows(&t, SLICE_LIT("{}"), false, &out) < 0);
    assert_int_equal(out.n, 0);
}

static void colours_only_where_wanted(void **state) {
    (void)state;
    struct table t = {.columns = columns, .columns_n = 2};
    _cleanup_buf_ struct buf out = {0};
    assert_int_equal(show_rows(&t, SLICE_LIT("[{\"id\":\"DLQ\",\"state\":\"DLQ\"}]"), true, &out), 0);
    assert_string_equal(out.p, "\033[1mID\033[0m   \033[1mSTATE\033[0m\nDLQ  \033[31mDLQ\033[0m\n");
}

static void a_record_has_a_line_a_member(void **state) {
    (void)state;
    static const struct view view = {.sections = {{"Steps", "steps", COLUMNS(steps)}}};
    _cleanup_buf_ struct buf out = {0};
    struct slice document =
        SLICE_LIT("{\"id\":\"x\",\"policy\":{\"retry\":{\"jitter\":0.20}},\"headers\":{},\"data\":{\"a\":1},"
                  "\"steps\":[{\"to\":\"RETRY\"}]}");
    assert_int_equal(show_record(&view, document, false, &out), 0);
    assert_string_equal(out.p, "id                   x\n"
                               "policy.retry.jitter  0.20\n"
                               "headers              {}\n"
                               "data                 {\"a\":1}\n"
                               "\nSteps\nTO\nRETRY\n");
    assert_true(show_record(&view, SLICE_LIT("[]"), false, &out) < 0);
}

static void line_is(int64_t done, int64_t failed, int64_t total, int64_t ms, const char *expected) {
    _cleanup_buf_ struct buf out = {0};
    progress_line(done, failed, total, "replayed", ms, &out);
    assert_string_equal(out.p, expected);
}

static void progress_in_a_line(void **state) {
    (void)state;
    line_is(0, 0, 10, 0, "[------------------------]   0 %  0 of 10 replayed");
    line_is(4, 1, 10, 2000, "[############------------]  50 %  5 of 10 replayed, 1 failed, 2/s");
    line_is(12, 0, 10, 0, "[########################] 100 %  12 of 10 replayed");
    line_is(7, 0, 0, 1000, "7 replayed, 7/s");
}

static void moment_is(const char *text, bool future, const char *expected) {
    _cleanup_buf_ struct buf out = {0};
    int64_t now = 0;
    assert_int_equal(rfc3339_parse(SLICE_LIT("2026-11-24T20:00:00.000Z"), &now), 0);
    moment_add(&out, text, future, now);
    assert_string_equal(out.p, expected);
}

static void times_as_people_give_them(void **state) {
    (void)state;
    moment_is("2h", false, "2026-11-24T18:00:00.000Z");
    moment_is("2h", true, "2026-11-24T22:00:00.000Z");
    moment_is("90s", false, "2026-11-24T19:58:30.000Z");
    moment_is("1w", true, "2026-12-01T20:00:00.000Z");
    moment_is("now", false, "2026-11-24T20:00:00.000Z");
    moment_is("999999w", false, "999999w");
    moment_is("9999999s", false, "9999999s");
    moment_is("2026-01-01T00:00:00Z", false, "2026-01-01T00:00:00Z");
    moment_is("h", false, "h");
    moment_is("2hh", false, "2hh");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fields_are_shown_as_people_read_them),
        cmocka_unit_test(fields_are_found_by_path),
        cmocka_unit_test(a_table_has_columns_as_wide_as_needed),
        cmocka_unit_test(what_is_no_table_is_refused),
        cmocka_unit_test(colours_only_where_wanted),
        cmocka_unit_test(a_record_has_a_line_a_member),
        cmocka_unit_test(progress_in_a_line),
        cmocka_unit_test(times_as_people_give_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
