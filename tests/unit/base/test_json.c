#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include <errno.h>

#include "base/json.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

/* 0 when `text` is one JSON value and nothing else. */
static int scan(struct slice text, struct slice *ret_value, enum json_type *ret_type) {
    struct json_cursor c = json_open(text);
    int r = json_value(&c, ret_value, ret_type);
    if (r == 0)
        r = json_finish(&c);
    if (r < 0) {
        assert_int_equal(r, -EINVAL);
        assert_non_null(c.problem);
        assert_true(json_offset(&c) <= text.n);
    }
    return r;
}

static void test_values(void **state) {
    (void)state;
    static const struct {
        const char *text;
        enum json_type type;
    } cases[] = {
        {"null", JSON_TYPE_NULL},
        {"true", JSON_TYPE_TRUE},
        {"false", JSON_TYPE_FALSE},
        {"0", JSON_TYPE_NUMBER},
        {"-0", JSON_TYPE_NUMBER},
        {"-0.0e-0", JSON_TYPE_NUMBER},
        {"10", JSON_TYPE_NUMBER},
        {"1.50", JSON_TYPE_NUMBER},
        {"1e5", JSON_TYPE_NUMBER},
        {"1E+05", JSON_TYPE_NUMBER},
        {"1e999999", JSON_TYPE_NUMBER},
        {"12345678901234567890123", JSON_TYPE_NUMBER},
        {"\"\"", JSON_TYPE_STRING},
        {"\"a\x7f/\"", JSON_TYPE_STRING},
        {"\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\"", JSON_TYPE_STRING},
        {"\"\\u0000\"", JSON_TYPE_STRING},
        {"\"\\ud83d\\ude00\"", JSON_TYPE_STRING},
        {"\"\\ud83d\"", JSON_TYPE_STRING}, /* unpaired: RFC 8259 §8.2 lets it be */
        {"\"\\uDEAD\\uD800\"", JSON_TYPE_STRING},
        {"\"é€😀\xf4\x8f\xbf\xbf\"", JSON_TYPE_STRING},
        {"[]", JSON_TYPE_ARRAY},
        {"[ ]", JSON_TYPE_ARRAY},
        {"[1,[],{}]", JSON_TYPE_ARRAY},
        {"{}", JSON_TYPE_OBJECT},
        {"{ }", JSON_TYPE_OBJECT},
        {"{\"\":0}", JSON_TYPE_OBJECT},
        {"{\"a\":1,\"a\":2}", JSON_TYPE_OBJECT},
        {"{ \"a\" :\t[ 1 ,\n 2 ]\r}", JSON_TYPE_OBJECT},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        char padded[128];
        struct slice value = SLICE_NONE;
        enum json_type type = JSON_TYPE_OBJECT;
        snprintf(padded, sizeof padded, " \t\r\n%s\n ", cases[i].text);
        if (scan(slice_of(padded), &value, &type) < 0)
            fail_msg("%s is refused", cases[i].text);
        assert_true(slice_eq(value, slice_of(cases[i].text)));
        assert_int_equal(type, cases[i].type);
    }
}

static void test_refusals(void **state) {
    (void)state;
    static const struct slice cases[] = {
        SLICE_LIT(""),
        SLICE_LIT(" "),
        SLICE_LIT("\xEF\xBB\xBF{}"), /* a byte order mark */
        SLICE_LIT("{"),
        SLICE_LIT("}"),
        SLICE_LIT("["),
        SLICE_LIT("[1"),
        SLICE_LIT("[1,]"),
        SLICE_LIT("[,1]"),
        SLICE_LIT("[1 2]"),
        SLICE_LIT("[1}"),
        SLICE_LIT("{\"a\":1,}"),
        SLICE_LIT("{,}"),
        SLICE_LIT("{\"a\"}"),
        SLICE_LIT("{\"a\":}"),
        SLICE_LIT("{\"a\" 1}"),
        SLICE_LIT("{\"a\":1 \"b\":2}"),
        SLICE_LIT("{a:1}"),
        SLICE_LIT("{'a':1}"),
        SLICE_LIT("{1:1}"),
        SLICE_LIT("{\"a\":1}}"),
        SLICE_LIT("1 1"),
        SLICE_LIT("{} x"),
        SLICE_LIT("nul"),
        SLICE_LIT("nulls"),
        SLICE_LIT("True"),
        SLICE_LIT("NaN"),
        SLICE_LIT("Infinity"),
        SLICE_LIT("-Infinity"),
        SLICE_LIT("undefined"),
        SLICE_LIT("01"),
        SLICE_LIT("-01"),
        SLICE_LIT("00"),
        SLICE_LIT("+1"),
        SLICE_LIT("-"),
        SLICE_LIT("--1"),
        SLICE_LIT(".5"),
        SLICE_LIT("1."),
        SLICE_LIT("1.e1"),
        SLICE_LIT("1e"),
        SLICE_LIT("1e+"),
        SLICE_LIT("1e1.5"),
        SLICE_LIT("0x10"),
        SLICE_LIT("1_000"),
        SLICE_LIT("\""),
        SLICE_LIT("\"a"),
        SLICE_LIT("\"a\\"),
        SLICE_LIT("\"\\\""),
        SLICE_LIT("\"\\x41\""),
        SLICE_LIT("\"\\'\""),
        SLICE_LIT("\"\\\0\""),
        SLICE_LIT("\"\\u\""),
        SLICE_LIT("\"\\u12\""),
        SLICE_LIT("\"\\u12g4\""),
        SLICE_LIT("\"\\u123"),
        SLICE_LIT("\"\\U0041\""),
        SLICE_LIT("\"a\nb\""),
        SLICE_LIT("\"a\tb\""),
        SLICE_LIT("\"a\0b\""),
        SLICE_LIT("\"a\x1f\""),
        SLICE_LIT("'a'"),
        SLICE_LIT("\0"),
        SLICE_LIT("1\0"),
        SLICE_LIT("[1,\0]"),
        SLICE_LIT("\f1"),
        SLICE_LIT("\xC2\xA0"
                  "1"), /* a no-break space */
        SLICE_LIT("// 1\n1"),
        SLICE_LIT("/**/1"),
    };
    struct slice value;
    enum json_type type;
    for (size_t i = 0; i < COUNT(cases); i++)
        if (scan(cases[i], &value, &type) == 0)
            fail_msg("case %zu, %.*s, is accepted", i, SLICE_ARG(cases[i]));
    assert_int_equal(scan(SLICE_NONE, &value, &type), -EINVAL);
}

static void test_invalid_utf8(void **state) {
    (void)state;
    static const char *const cases[] = {
        "\x80",             /* a continuation alone */
        "\xC3",             /* cut short */
        "\xC3(",            /* not continued */
        "\xC0\xAF",         /* overlong '/' */
        "\xC1\xBF",         /* overlong */
        "\xE0\x80\xAF",     /* overlong '/' */
        "\xE0\x9F\xBF",     /* overlong */
        "\xE2\x82",         /* cut short */
        "\xED\xA0\x80",     /* U+D800 */
        "\xED\xBF\xBF",     /* U+DFFF */
        "\xF0\x80\x80\xAF", /* overlong '/' */
        "\xF0\x8F\xBF\xBF", /* overlong */
        "\xF0\x9F\x98",     /* cut short */
        "\xF4\x90\x80\x80", /* past U+10FFFF */
        "\xF5\x80\x80\x80",
        "\xFE",
        "\xFF",
    };
    static const char *const around[][2] = {{"\"", "\""}, {"{\"", "\":1}"}, {"\"", ""}};
    for (size_t i = 0; i < COUNT(cases) * COUNT(around); i++) {
        char text[32];
        struct slice value;
        enum json_type type;
        const char *const *quotes = around[i % COUNT(around)];
        snprintf(text, sizeof text, "%s%s%s", quotes[0], cases[i / COUNT(around)], quotes[1]);
        if (scan(slice_of(text), &value, &type) == 0)
            fail_msg("case %zu is accepted", i / COUNT(around));
    }
}

static void test_every_truncation_is_refused(void **state) {
    (void)state;
    static const char whole[] = "{\"k\\u00e9y\":[1.5e+3,\"é😀\\ud83d\\ude00\",{\"a\":null},true,false]}";
    for (size_t n = 0; n < sizeof whole - 1; n++) {
        /* A copy of its own, so that reading past its end is found. */
        char *part = malloc(n ? n : 1);
        assert_non_null(part);
        memcpy(part, whole, n);
        struct slice value;
        enum json_type type;
        assert_int_equal(scan((struct slice){part, n}, &value, &type), -EINVAL);
        free(part);
    }
}

static void nest(struct buf *b, int depth, const char *open, const char *close) {
    for (int i = 0; i < depth; i++)
        buf_add_str(b, open);
    buf_add_char(b, '1');
    for (int i = 0; i < depth; i++)
        buf_add_str(b, close);
}

static int scan_nested(int depth, const char *open, const char *close) {
    _cleanup_buf_ struct buf b = {0};
    nest(&b, depth, open, close);
    struct slice value;
    enum json_type type;
    return scan(buf_slice(&b), &value, &type);
}

/* Each byte at each place of strings of each length: what is passed over eight bytes at a time must be judged
 * like what is not. */
static void test_every_byte_at_every_place_of_a_string(void **state) {
    (void)state;
    for (size_t n = 1; n <= 20; n++) {
        for (size_t at = 0; at < n; at++) {
            for (int byte = 0; byte < 256; byte++) {
                char text[24];
                struct slice value;
                enum json_type type;
                memset(text, 'x', sizeof text);
                text[0] = text[n + 1] = '"';
                text[at + 1] = (char)byte;
                bool plain = byte >= 0x20 && byte < 0x80 && byte != '\\' && byte != '"';
                int r = scan((struct slice){text, n + 2}, &value, &type);
                assert_int_equal(r, plain ? 0 : -EINVAL);
                if (plain)
                    assert_int_equal(value.n, n + 2);
            }
        }
    }
}

static void test_depth(void **state) {
    (void)state;
    assert_int_equal(scan_nested(JSON_DEPTH_MAX, "[", "]"), 0);
    assert_int_equal(scan_nested(JSON_DEPTH_MAX + 1, "[", "]"), -EINVAL);
    assert_int_equal(scan_nested(JSON_DEPTH_MAX, "{\"a\":", "}"), 0);
    assert_int_equal(scan_nested(JSON_DEPTH_MAX + 1, "{\"a\":", "}"), -EINVAL);
    assert_int_equal(scan_nested(1000000, "[", ""), -EINVAL);
}

/* A list of documents, each as deep as one may be. */
static void test_depth_around(void **state) {
    (void)state;
    for (int deep = JSON_DEPTH_MAX + 1; deep <= JSON_DEPTH_MAX + 2; deep++) {
        _cleanup_buf_ struct buf b = {0};
        nest(&b, deep, "[", "]");
        struct json_cursor c = json_open_around(buf_slice(&b), 1);
        struct slice value;
        enum json_type type;
        bool first = true;
        assert_int_equal(json_value(&c, &value, &type), deep == JSON_DEPTH_MAX + 1 ? 0 : -EINVAL);
        c = json_open_around(buf_slice(&b), 1);
        assert_int_equal(json_enter_array(&c), 0);
        assert_int_equal(json_next_element(&c, &first, &value, &type), 1);
        assert_int_equal(value.n, b.n - 2);
    }
}

static void test_members(void **state) {
    (void)state;
    struct json_cursor c = json_open(SLICE_LIT(" { \"a\" : [1, 2] , \"b\\u0062\":\"x\" } "));
    struct json_member m;
    bool first = true;
    assert_int_equal(json_enter_object(&c), 0);
    assert_int_equal(json_next_member(&c, &first, &m), 1);
    assert_true(slice_eq(m.key, SLICE_LIT("a")));
    assert_true(slice_eq(m.value, SLICE_LIT("[1, 2]")));
    assert_int_equal(m.type, JSON_TYPE_ARRAY);
    assert_int_equal(json_next_member(&c, &first, &m), 1);
    assert_true(slice_eq(m.key, SLICE_LIT("b\\u0062")));
    assert_true(json_key_is(m.key, "bb"));
    assert_false(json_key_is(m.key, "b"));
    assert_true(slice_eq(m.value, SLICE_LIT("\"x\"")));
    assert_int_equal(json_next_member(&c, &first, &m), 0);
    assert_int_equal(json_finish(&c), 0);
}

static void test_elements(void **state) {
    (void)state;
    struct json_cursor c = json_open(SLICE_LIT("[ {\"a\":1} ,-0.50,\"\" ]"));
    static const char *const expected[] = {"{\"a\":1}", "-0.50", "\"\""};
    struct slice value;
    enum json_type type;
    bool first = true;
    assert_int_equal(json_enter_array(&c), 0);
    for (size_t i = 0; i < COUNT(expected); i++) {
        assert_int_equal(json_next_element(&c, &first, &value, &type), 1);
        assert_true(slice_eq(value, slice_of(expected[i])));
    }
    assert_int_equal(json_next_element(&c, &first, &value, &type), 0);
    assert_int_equal(json_finish(&c), 0);
}

/* Steps through an object (or array) as a caller does. */
static int walk(const char *text) {
    struct json_cursor c = json_open(slice_of(text));
    struct json_member m;
    bool first = true, array = text[0] == '[';
    int r = array ? json_enter_array(&c) : json_enter_object(&c);
    if (r < 0)
        return r;
    do
        r = array ? json_next_element(&c, &first, &m.value, &m.type) : json_next_member(&c, &first, &m);
    while (r > 0);
    return r < 0 ? r : json_finish(&c);
}

static void test_walks_refuse_what_values_refuse(void **state) {
    (void)state;
    static const char *const bad[] = {"{",        "{,}",        "{\"a\":1,}",    "{\"a\":1 \"b\":1}",
                                      "{\"a\"1}", "{\"a\":}",   "{\"a\":1",      "{\"a\":1,",
                                      "{a:1}",    "{\"a\":1}x", "{\"a\xff\":1}", "{\"a\":1]",
                                      "[",        "[,]",        "[1,]",          "[1 2]",
                                      "[1",       "[1,",        "[1}",           "[1]x",
                                      "[01]",     "1",          "\"{\"",         ""};
    for (size_t i = 0; i < COUNT(bad); i++)
        if (walk(bad[i]) != -EINVAL)
            fail_msg("%s is accepted", bad[i]);
    assert_int_equal(walk("{}"), 0);
    assert_int_equal(walk("[]"), 0);
    assert_int_equal(walk("{ } "), 0);
    assert_int_equal(walk("[1,{\"a\":2}]"), 0);
}

static void test_keys(void **state) {
    (void)state;
    assert_true(json_key_is(SLICE_LIT("type"), "type"));
    assert_true(json_key_is(SLICE_LIT("t\\u0079pe"), "type"));
    assert_true(json_key_is(SLICE_LIT("\\u0074\\u0079\\u0070\\u0065"), "type"));
    assert_true(json_key_is(SLICE_LIT(""), ""));
    assert_false(json_key_is(SLICE_LIT("typ"), "type"));
    assert_false(json_key_is(SLICE_LIT("types"), "type"));
    assert_false(json_key_is(SLICE_LIT("type\\u0000"), "type"));
    assert_false(json_key_is(SLICE_LIT(""), "type"));
}

static void test_decode(void **state) {
    (void)state;
    static const struct {
        const char *json, *text;
    } cases[] = {
        {"\"\"", ""},
        {"\"plain é\"", "plain é"},
        {"\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "\"\\/\b\f\n\r\t"},
        {"\"\\u0041\\u00e9\\u20AC\"", "Aé€"},
        {"\"\\u007f\\u0080\\u07ff\\u0800\\uffff\"", "\x7f\xC2\x80\xDF\xBF\xE0\xA0\x80\xEF\xBF\xBF"},
        {"\"a\\ud83d\\uDE00b\"", "a😀b"},
        {"\"\\ud800\\udc00\\udbff\\udfff\"", "\xF0\x90\x80\x80\xF4\x8F\xBF\xBF"},
        {"\"\\ud83d\"", "\xEF\xBF\xBD"},
        {"\"\\ude00x\"", "\xEF\xBF\xBDx"},
        {"\"\\ud83dx\"", "\xEF\xBF\xBDx"},
        {"\"\\ud83d\\n\"", "\xEF\xBF\xBD\n"},
        {"\"\\ud83d\\u0041\"", "\xEF\xBF\xBD"
                               "A"},
        {"\"\\ud83d\\ud83d\\ude00\"", "\xEF\xBF\xBD😀"},
        {"\"\\\\u0041\"", "\\u0041"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        _cleanup_buf_ struct buf out = {0};
        buf_add_str(&out, ">");
        assert_int_equal(json_string_decode(slice_of(cases[i].json), &out), 0);
        assert_string_equal(out.p + 1, cases[i].text);
    }
    _cleanup_buf_ struct buf out = {0};
    assert_int_equal(json_string_decode(SLICE_LIT("\"a\\u0000\""), &out), -EINVAL);
    _cleanup_buf_ struct buf small = {.limit = 2};
    assert_int_equal(json_string_decode(SLICE_LIT("\"abc\""), &small), -ENOMEM);
}

static void test_written_strings_read_back(void **state) {
    (void)state;
    _cleanup_buf_ struct buf text = {0}, json = {0}, back = {0};
    for (int c = 1; c < 0x80; c++)
        buf_add_char(&text, (char)c);
    buf_add_str(&text, "é€😀");
    buf_add_json_string(&json, buf_slice(&text));
    struct slice value;
    enum json_type type;
    assert_int_equal(scan(buf_slice(&json), &value, &type), 0);
    assert_int_equal(json_string_decode(value, &back), 0);
    assert_true(slice_eq(buf_slice(&back), buf_slice(&text)));
}

static void test_integers(void **state) {
    (void)state;
    static const struct {
        const char *text;
        int r;
        int64_t value;
    } cases[] = {
        {"0", 0, 0},
        {"-0", 0, 0},
        {"42", 0, 42},
        {"-42", 0, -42},
        {"9223372036854775807", 0, INT64_MAX},
        {"-9223372036854775807", 0, -INT64_MAX},
        {"-9223372036854775808", 0, INT64_MIN},
        {"9223372036854775808", -ERANGE, 7},
        {"-9223372036854775809", -ERANGE, 7},
        {"18446744073709551616", -ERANGE, 7},
        {"99999999999999999999999", -ERANGE, 7},
        {"1.0", -EINVAL, 7},
        {"99999999999999999999999e-9", -EINVAL, 7},
        {"99999999999999999999999.5", -EINVAL, 7},
        {"1e3", -EINVAL, 7},
        {"-", -EINVAL, 7},
        {"", -EINVAL, 7},
        {"\"1\"", -EINVAL, 7},
        {"true", -EINVAL, 7},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        int64_t value = 7;
        assert_int_equal(json_int(slice_of(cases[i].text), &value), cases[i].r);
        assert_true(value == cases[i].value);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_invalid_utf8),
        cmocka_unit_test(test_every_truncation_is_refused),
        cmocka_unit_test(test_every_byte_at_every_place_of_a_string),
        cmocka_unit_test(test_depth),
        cmocka_unit_test(test_depth_around),
        cmocka_unit_test(test_members),
        cmocka_unit_test(test_elements),
        cmocka_unit_test(test_walks_refuse_what_values_refuse),
        cmocka_unit_test(test_keys),
        cmocka_unit_test(test_decode),
        cmocka_unit_test(test_written_strings_read_back),
        cmocka_unit_test(test_integers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
