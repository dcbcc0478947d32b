#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/json_tape.h"

static struct json_tape tape;

static int read_tape(const char *text) {
    return json_tape_read(&tape, slice_of(text));
}

/* Each node as its text and the node behind it. */
static void assert_nodes(const char *text, const char *expected) {
    _cleanup_buf_ struct buf got = {0};
    assert_int_equal(read_tape(text), 0);
    for (size_t i = 0; i < tape.n; i++)
        buf_addf(&got, "%s%.*s>%u", i ? " " : "", SLICE_ARG(json_node_text(&tape.nodes[i], text)),
                 tape.nodes[i].next);
    assert_string_equal(got.p, expected);
}

static void test_nodes(void **state) {
    (void)state;
    assert_nodes("1", "1>1");
    assert_nodes(" \"a\" ", "\"a\">1");
    assert_nodes("[]", "[]>1");
    assert_nodes("[1,[2],3]", "[1,[2],3]>5 1>2 [2]>4 2>4 3>5");
    assert_nodes("{ \"a\" : 1 }", "{ \"a\" : 1 }>3 \"a\">2 1>3");
    assert_nodes("{\"a\":{\"b\":[]},\"c\":null}",
                 "{\"a\":{\"b\":[]},\"c\":null}>7 \"a\">2 {\"b\":[]}>5 \"b\">4 []>5 \"c\">6 null>7");
}

static void test_types(void **state) {
    (void)state;
    static const enum json_type types[] = {JSON_TYPE_ARRAY,  JSON_TYPE_OBJECT, JSON_TYPE_STRING,
                                           JSON_TYPE_NUMBER, JSON_TYPE_TRUE,   JSON_TYPE_FALSE,
                                           JSON_TYPE_NULL};
    assert_int_equal(read_tape("[{},\"\",-1.5e3,true,false,null]"), 0);
    assert_int_equal(tape.n, 7);
    for (size_t i = 0; i < 7; i++)
        assert_int_equal(tape.nodes[i].type, types[i]);
}

static void test_refused(void **state) {
    (void)state;
    static const char *const texts[] = {"", "{", "[1,]", "{\"a\"}", "1 2", "\"\\x\"", "\"\x80\"", "01"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        assert_int_equal(read_tape(texts[i]), -EINVAL);
        assert_int_equal(tape.n, 0);
    }
    char deep[2 * (JSON_DEPTH_MAX + 1) + 1];
    memset(deep, '[', JSON_DEPTH_MAX + 1);
    memset(deep + JSON_DEPTH_MAX + 1, ']', JSON_DEPTH_MAX + 1);
    deep[sizeof deep - 1] = '\0';
    assert_int_equal(read_tape(deep), -EINVAL);
    deep[sizeof deep - 2] = '\0';
    assert_int_equal(read_tape(deep + 1), 0);
}

/* The memory of an earlier, longer text is used again. */
static void test_again(void **state) {
    (void)state;
    _cleanup_buf_ struct buf text = {0};
    buf_add_char(&text, '[');
    for (int i = 0; i < 1000; i++)
        buf_addf(&text, "%s%d", i ? "," : "", i);
    buf_add_char(&text, ']');
    assert_int_equal(read_tape(text.p), 0);
    assert_int_equal(tape.n, 1001);
    size_t cap = tape.cap;
    assert_nodes("[true]", "[true]>2 true>2");
    assert_int_equal(tape.cap, cap);
}

static void assert_compares(const char *text, const char *with, int expected) {
    assert_int_equal(read_tape(text), 0);
    assert_int_equal(json_node_compare(&tape.nodes[0], text, slice_of(with)), expected);
    assert_int_equal(json_string_compare(json_node_text(&tape.nodes[0], text), slice_of(with)), expected);
}

static void test_strings(void **state) {
    (void)state;
    assert_compares("\"\"", "", 1);
    assert_compares("\"\"", "a", -1);
    assert_compares("\"paid\"", "paid", 1);
    assert_compares("\"paid\"", "pa", 0);
    assert_compares("\"paid\"", "", 0);
    assert_compares("\"paid\"", "paid!", -1);
    assert_compares("\"paid\"", "pb", -1);
    assert_compares("\"p\\u0061id\"", "paid", 1);
    assert_compares("\"\\u0070aid\"", "pa", 0);
    assert_compares("\"a\\/b\\n\"", "a/b\n", 1);
    assert_compares("\"a\\\\b\"", "a\\b", 1);
    assert_compares("\"a\\\\b\"", "a\\\\b", -1);
    assert_compares("\"\\u00e9\"", "\xc3\xa9", 1);
    assert_compares("\"\xc3\xa9\"", "\xc3\xa9", 1);
    assert_compares("\"\\ud83d\\ude00!\"", "\xf0\x9f\x98\x80", 0);
    assert_compares("\"\\ud83d!\"", "\xef\xbf\xbd!", 1);
    assert_compares("\"a\\u0000b\"", "a", 0);
    assert_compares("\"a\\u0000b\"", "ab", -1);
}

static void test_suffixes(void **state) {
    (void)state;
    static const struct {
        const char *text, *suffix;
        bool expected;
    } cases[] = {
        {"\"\"", "", true},
        {"\"\"", "a", false},
        {"\"a.png\"", ".png", true},
        {"\"a.png\"", "a.png", true},
        {"\"a.png\"", "xa.png", false},
        {"\"a.pn\\u0067\"", ".png", true},
        {"\"a\\u002epng\"", ".png", true},
        {"\"\\u0061.png\"", ".png", true},
        {"\"\\ud83d\\ude00\"", "\xf0\x9f\x98\x80", true},
        {"\"x\\ud83d\\ude00y\"", "\xf0\x9f\x98\x80y", true},
        {"\"x\\ud83d\\ude00y\"", "x", false},
        {"\"a\\u0000\"", "a", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_int_equal(json_string_ends_with(slice_of(cases[i].text), slice_of(cases[i].suffix)),
                         cases[i].expected);
}

static int release(void **state) {
    (void)state;
    json_tape_free(&tape);
    return 0;
}

int main(void) {
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nodes), cmocka_unit_test(test_types),   cmocka_unit_test(test_refused),
        cmocka_unit_test(test_again), cmocka_unit_test(test_strings), cmocka_unit_test(test_suffixes),
    };
    return cmocka_run_group_tests(tests, NULL, release);
}
