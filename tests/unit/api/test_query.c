#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>

#include "api/query.h"
#include "core/id.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* A query of its own memory, as exact as the sanitizers want it. */
struct fixture {
    char *text;
    struct query_param params[2];
    struct field_errors errors;
};

static int parse(struct fixture *f, const char *query) {
    size_t n = strlen(query);
    free(f->text);
    f->text = malloc(n ? n : 1);
    assert_non_null(f->text);
    memcpy(f->text, query, n);
    f->params[0] = (struct query_param){.name = "limit"};
    f->params[1] = (struct query_param){.name = "type"};
    f->errors.n = f->errors.dropped = 0;
    return query_parse(f->text, n, f->params, COUNT(f->params), &f->errors);
}

static int setup(void **state) {
    *state = calloc(1, sizeof(struct fixture));
    return *state ? 0 : -1;
}

static int teardown(void **state) {
    struct fixture *f = *state;
    free(f->text);
    free(f);
    return 0;
}

static void assert_slice(struct slice s, const char *text) {
    assert_true(slice_eq(s, slice_of(text)));
}

static void test_parameters(void **state) {
    struct fixture *f = *state;
    assert_int_equal(parse(f, ""), 0);
    assert_null(f->params[0].value.p);
    assert_int_equal(parse(f, "type=a.b&limit=5"), 0);
    assert_slice(f->params[0].value, "5");
    assert_slice(f->params[1].value, "a.b");
    assert_int_equal(parse(f, "&&type=&"), 0);
    assert_non_null(f->params[1].value.p);
    assert_int_equal(f->params[1].value.n, 0);
    assert_int_equal(parse(f, "type"), 0);
    assert_non_null(f->params[1].value.p);
    assert_int_equal(f->errors.n, 0);
}

static void test_decoding(void **state) {
    struct fixture *f = *state;
    assert_int_equal(parse(f, "t%79pe=a%20b+c%2Bd%26e%3D%c3%A4"), 0);
    assert_slice(f->params[1].value, "a b c+d&e=\xc3\xa4");
    assert_int_equal(parse(f, "type=%00"), 0);
    assert_int_equal(f->params[1].value.n, 1);
    const char *const bad[] = {"type=%", "type=%2", "type=%zz", "%=1", "type=%2&limit=1"};
    for (size_t i = 0; i < COUNT(bad); i++)
        assert_int_equal(parse(f, bad[i]), -EINVAL);
}

static void test_unknown_and_repeated(void **state) {
    struct fixture *f = *state;
    assert_int_equal(parse(f, "colour=red&limit=1&limit=2&size=3"), 0);
    assert_int_equal(f->errors.n, 3);
    assert_string_equal(f->errors.at[0].field, "colour");
    assert_string_equal(f->errors.at[1].field, "limit");
    assert_string_equal(f->errors.at[2].field, "size");
    assert_int_equal(parse(f, "Limit=1"), 0);
    assert_int_equal(f->errors.n, 1);
}

static void test_limit(void **state) {
    struct fixture *f = *state;
    assert_int_equal(parse(f, ""), 0);
    assert_int_equal(query_limit(&f->params[0], &f->errors), QUERY_LIMIT_DEFAULT);
    assert_int_equal(parse(f, "limit=1"), 0);
    assert_int_equal(query_limit(&f->params[0], &f->errors), 1);
    assert_int_equal(parse(f, "limit=250"), 0);
    assert_int_equal(query_limit(&f->params[0], &f->errors), 250);
    assert_int_equal(f->errors.n, 0);
    const char *const bad[] = {
        "limit=0", "limit=251", "limit=x",  "limit=-1", "limit=1.5",
        "limit=",  "limit=+1",  "limit=1x", "limit=",   "limit=99999999999999999999999"};
    for (size_t i = 0; i < COUNT(bad); i++) {
        assert_int_equal(parse(f, bad[i]), 0);
        (void)query_limit(&f->params[0], &f->errors);
        assert_int_equal(f->errors.n, 1);
        assert_string_equal(f->errors.at[0].field, "limit");
    }
}

static void test_time(void **state) {
    struct fixture *f = *state;
    assert_int_equal(parse(f, ""), 0);
    assert_int_equal(query_time(&f->params[1], &f->errors), 0);
    assert_int_equal(parse(f, "type=2026-11-24T20:49:00.123Z"), 0);
    int64_t utc = query_time(&f->params[1], &f->errors);
    assert_true(utc > 0);
    /* The plus sign of an offset, escaped and not. */
    const char *const same[] = {"type=2026-11-24T22:49:00.123%2B02:00", "type=2026-11-24T22:49:00.123+02:00"};
    for (size_t i = 0; i < COUNT(same); i++) {
        assert_int_equal(parse(f, same[i]), 0);
        assert_int_equal(query_time(&f->params[1], &f->errors), utc);
    }
    assert_int_equal(f->errors.n, 0);
    const char *const bad[] = {
        "type=yesterday", "type=", "type=2026-13-01T00:00:00Z", "type=1790000000",
        "type=2026-11-24T20:49:00.123Z2026-11-24T20:49:00.123Z2026-11-24T20:49:00.123Z"};
    for (size_t i = 0; i < COUNT(bad); i++) {
        assert_int_equal(parse(f, bad[i]), 0);
        (void)query_time(&f->params[1], &f->errors);
        assert_int_equal(f->errors.n, 1);
    }
}

static struct query_param given(const char *cursor) {
    return (struct query_param){.name = "cursor", .value = slice_of(cursor)};
}

/* Positions are keys of ids: others were made by somebody else. */
static void test_cursor_out_of_range(void **state) {
    struct fixture *f = *state;
    const uint64_t numbers[] = {0, ID_KEY_MAX + 1, UINT64_C(1) << 63, UINT64_MAX};
    for (size_t i = 0; i < COUNT(numbers); i++) {
        char text[CURSOR_TEXT_SIZE];
        uint64_t back = 7;
        f->errors.n = f->errors.dropped = 0;
        cursor_format('d', &numbers[i], 1, text);
        struct query_param p = given(text);
        assert_false(query_cursor(&p, 'd', &back, 1, &f->errors));
        assert_int_equal(f->errors.n, 1);
    }
}

static void test_cursor_comes_back(void **state) {
    struct fixture *f = *state;
    const uint64_t numbers[] = {1, 4096, UINT64_C(1) << 59, ID_KEY_MAX};
    f->errors.n = f->errors.dropped = 0;
    for (size_t i = 0; i < COUNT(numbers); i++) {
        char text[CURSOR_TEXT_SIZE];
        uint64_t parts[2] = {numbers[i], ID_KEY_MAX - numbers[i] + 1}, back[2];
        for (size_t n = 1; n <= 2; n++) {
            cursor_format('d', parts, n, text);
            assert_int_equal(strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"),
                             strlen(text));
            struct query_param p = given(text);
            assert_true(query_cursor(&p, 'd', back, n, &f->errors));
            assert_memory_equal(back, parts, n * sizeof parts[0]);
        }
    }
    assert_int_equal(f->errors.n, 0);
}

static void test_cursor_of_another_list(void **state) {
    struct fixture *f = *state;
    char text[CURSOR_TEXT_SIZE];
    uint64_t parts[2] = {7, 8}, back[2] = {1, 2};
    cursor_format('d', parts, 2, text);
    const struct query_param bad[] = {given(text),          given("nonsense"),    given(""), given("ZXZ0XzE"),
                                      given("ZAAAAAAAAAA"), given("ZAAAAAAAAA="), given("'")};
    for (size_t i = 0; i < COUNT(bad); i++) {
        f->errors.n = 0;
        assert_false(query_cursor(&bad[i], 'e', back, 1, &f->errors));
        assert_int_equal(f->errors.n, 1);
        assert_string_equal(f->errors.at[0].field, "cursor");
    }
    assert_int_equal(back[0], 1);
    struct query_param absent = {.name = "cursor"};
    f->errors.n = 0;
    assert_false(query_cursor(&absent, 'e', back, 1, &f->errors));
    assert_int_equal(f->errors.n, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_parameters, setup, teardown),
        cmocka_unit_test_setup_teardown(test_decoding, setup, teardown),
        cmocka_unit_test_setup_teardown(test_unknown_and_repeated, setup, teardown),
        cmocka_unit_test_setup_teardown(test_limit, setup, teardown),
        cmocka_unit_test_setup_teardown(test_time, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cursor_comes_back, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cursor_out_of_range, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cursor_of_another_list, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
