#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "core/filter.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static struct field_errors errors;
static struct json_tape tape;

static struct filter *compile(const char *text) {
    json_error_t error;
    json_t *doc = json_loads(text, JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
    if (!doc)
        fail_msg("%s: %s", text, error.text);
    field_errors_init(&errors);
    struct filter *f = filter_compile(doc, &errors);
    json_decref(doc);
    assert_true((f == NULL) == (errors.n > 0));
    return f;
}

static struct filter *compile_good(const char *text) {
    struct filter *f = compile(text);
    if (!f)
        fail_msg("%s: %s", text, errors.at[0].message);
    return f;
}

/* Of an event invoice.paid, version 2, without an ordering key. */
static bool matches_with(const struct filter *f, const char *data, uint64_t *steps) {
    struct filter_subject s = {.type = SLICE_LIT("invoice.paid"),
                               .schema_version = SLICE_LIT("2"),
                               .data = slice_of(data),
                               .tape = &tape};
    assert_int_equal(json_tape_read(&tape, s.data), 0);
    return filter_matches(f, &s, steps);
}

static bool matches(const char *filter, const char *data) {
    _cleanup_filter_ struct filter *f = compile_good(filter);
    uint64_t steps = 0;
    bool r = matches_with(f, data, &steps);
    assert_true(steps > 0);
    return r;
}

struct match_case {
    const char *filter, *data;
    bool expected;
};

static void assert_cases(const struct match_case *cases, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (matches(cases[i].filter, cases[i].data) != cases[i].expected)
            fail_msg("%s on %s is not %d", cases[i].filter, cases[i].data, cases[i].expected);
}

/* A filter of one field of the payload, x. */
static void assert_field(const struct match_case *cases, size_t n) {
    for (size_t i = 0; i < n; i++) {
        _cleanup_buf_ struct buf filter = {0};
        buf_addf(&filter, "{\"data\":{\"x\":%s}}", cases[i].filter);
        if (matches(filter.p, cases[i].data) != cases[i].expected)
            fail_msg("%s on %s is not %d", filter.p, cases[i].data, cases[i].expected);
    }
}

static void test_values(void **state) {
    (void)state;
    static const struct match_case cases[] = {
        {"[\"paid\"]", "{\"x\":\"paid\"}", true},
        {"[\"paid\"]", "{\"x\":\"p\\u0061id\"}", true},
        {"[\"paid\"]", "{\"x\":\"Paid\"}", false},
        {"[\"paid\"]", "{\"x\":\"paid \"}", false},
        {"[\"paid\"]", "{\"y\":\"paid\"}", false},
        {"[\"paid\"]", "{\"\\u0078\":\"paid\"}", true},
        {"[\"paid\",\"open\"]", "{\"x\":\"open\"}", true},
        {"[\"paid\",\"open\"]", "{\"x\":\"void\"}", false},
        {"[\"\"]", "{\"x\":\"\"}", true},
        {"[\"\"]", "{\"x\":null}", false},
        {"[\"1\"]", "{\"x\":1}", false},
        {"[1]", "{\"x\":\"1\"}", false},
        {"[1]", "{\"x\":1.0}", true},
        {"[1]", "{\"x\":true}", false},
        {"[true]", "{\"x\":true}", true},
        {"[true]", "{\"x\":false}", false},
        {"[false]", "{\"x\":false}", true},
        {"[null]", "{\"x\":null}", true},
        {"[null]", "{}", false},
        {"[null]", "{\"x\":0}", false},
        {"[\"a\"]", "{\"x\":{\"a\":1}}", false},
        /* the last of two counts */
        {"[\"a\"]", "{\"x\":\"a\",\"x\":\"b\"}", false},
        {"[\"b\"]", "{\"x\":\"a\",\"x\":\"b\"}", true},
        /* payloads that are no object */
        {"[\"a\"]", "\"a\"", false},
        {"[{\"exists\":false}]", "\"a\"", true},
        {"[{\"exists\":false}]", "null", true},
    };
    assert_field(cases, COUNT(cases));
}

static void test_numbers(void **state) {
    (void)state;
    static const struct match_case cases[] = {
        {"[0.1]", "{\"x\":0.10}", true},
        {"[0.1]", "{\"x\":1e-1}", true},
        {"[0.1]", "{\"x\":0.1000000000000000055511151231257827}", false},
        {"[9007199254740993]", "{\"x\":9007199254740993}", true},
        {"[9007199254740993]", "{\"x\":9007199254740992}", false},
        {"[-9223372036854775808]", "{\"x\":-9223372036854775808}", true},
        {"[0]", "{\"x\":-0.0}", true},
        {"[-0.0]", "{\"x\":0}", true},
        {"[1e20]", "{\"x\":100000000000000000000}", true},
        {"[{\"numeric\":[\">\",100]}]", "{\"x\":100}", false},
        {"[{\"numeric\":[\">\",100]}]", "{\"x\":100.00000000000000000001}", true},
        {"[{\"numeric\":[\">=\",100]}]", "{\"x\":100}", true},
        {"[{\"numeric\":[\"<\",100]}]", "{\"x\":100}", false},
        {"[{\"numeric\":[\"<\",100]}]", "{\"x\":-1e400}", true},
        {"[{\"numeric\":[\"<=\",100]}]", "{\"x\":100}", true},
        {"[{\"numeric\":[\"=\",100]}]", "{\"x\":1e2}", true},
        {"[{\"numeric\":[\">\",0,\"<=\",500]}]", "{\"x\":500}", true},
        {"[{\"numeric\":[\">\",0,\"<=\",500]}]", "{\"x\":0}", false},
        {"[{\"numeric\":[\">\",0,\"<=\",500]}]", "{\"x\":501}", false},
        {"[{\"numeric\":[\">\",0]}]", "{\"x\":\"5\"}", false},
        {"[{\"numeric\":[\"<\",0]},{\"numeric\":[\">\",10]}]", "{\"x\":11}", true},
        {"[{\"numeric\":[\"<\",0]},{\"numeric\":[\">\",10]}]", "{\"x\":5}", false},
    };
    assert_field(cases, COUNT(cases));
}

static void test_operators(void **state) {
    (void)state;
    static const struct match_case cases[] = {
        {"[{\"prefix\":\"par\"}]", "{\"x\":\"partial\"}", true},
        {"[{\"prefix\":\"par\"}]", "{\"x\":\"par\"}", true},
        {"[{\"prefix\":\"par\"}]", "{\"x\":\"pa\"}", false},
        {"[{\"prefix\":\"par\"}]", "{\"x\":\"p\\u0061rt\"}", true},
        {"[{\"prefix\":\"é\"}]", "{\"x\":\"\\u00e9t\\u00e9\"}", true},
        {"[{\"prefix\":\"par\"}]", "{\"x\":1}", false},
        {"[{\"suffix\":\".png\"}]", "{\"x\":\"a.png\"}", true},
        {"[{\"suffix\":\".png\"}]", "{\"x\":\"a.p\\u006eg\"}", true},
        {"[{\"suffix\":\".png\"}]", "{\"x\":\"png\"}", false},
        {"[{\"exists\":true}]", "{\"x\":null}", true},
        {"[{\"exists\":true}]", "{\"x\":{}}", true},
        {"[{\"exists\":true}]", "{\"x\":[]}", true},
        {"[{\"exists\":true}]", "{\"y\":1}", false},
        {"[{\"exists\":false}]", "{\"y\":1}", true},
        {"[{\"exists\":false}]", "{\"x\":null}", false},
        {"[{\"exists\":false},\"a\"]", "{\"x\":\"a\"}", true},
        {"[{\"exists\":false},null]", "{}", true},
        {"[{\"anything-but\":\"a\"}]", "{\"x\":\"b\"}", true},
        {"[{\"anything-but\":\"a\"}]", "{\"x\":\"a\"}", false},
        {"[{\"anything-but\":\"a\"}]", "{}", false},
        {"[{\"anything-but\":\"a\"}]", "{\"x\":{}}", true},
        {"[{\"anything-but\":\"a\"}]", "{\"x\":null}", true},
        {"[{\"anything-but\":[\"a\",1,null]}]", "{\"x\":null}", false},
        {"[{\"anything-but\":[\"a\",1]}]", "{\"x\":1.0}", false},
        {"[{\"anything-but\":[\"a\",1]}]", "{\"x\":2}", true},
        {"[{\"anything-but\":{\"prefix\":\"t\"}}]", "{\"x\":\"test\"}", false},
        {"[{\"anything-but\":[{\"prefix\":\"t\"},{\"suffix\":\"x\"}]}]", "{\"x\":\"ax\"}", false},
        {"[{\"anything-but\":{\"numeric\":[\"<\",5]}}]", "{\"x\":4}", false},
        {"[{\"anything-but\":{\"numeric\":[\"<\",5]}}]", "{\"x\":\"4\"}", true},
    };
    assert_field(cases, COUNT(cases));
}

static void test_arrays(void **state) {
    (void)state;
    static const struct match_case fields[] = {
        {"[\"a\"]", "{\"x\":[\"b\",\"a\"]}", true},
        {"[\"a\"]", "{\"x\":[\"b\",\"c\"]}", false},
        {"[\"a\"]", "{\"x\":[[\"b\"],[[\"a\"]]]}", true},
        {"[\"a\"]", "{\"x\":[]}", false},
        {"[\"a\"]", "{\"x\":[{\"a\":\"a\"}]}", false},
        {"[{\"numeric\":[\">\",1,\"<\",5]}]", "{\"x\":[0,9]}", false},
        {"[{\"anything-but\":\"a\"}]", "{\"x\":[\"b\",\"a\"]}", false},
        {"[{\"anything-but\":\"a\"}]", "{\"x\":[\"b\",\"c\"]}", true},
        {"[{\"anything-but\":\"a\"}]", "{\"x\":[]}", true},
        {"{\"a\":[1],\"b\":[2]}", "{\"x\":[{\"a\":1,\"b\":2}]}", true},
        /* one element has to fulfil all */
        {"{\"a\":[1],\"b\":[2]}", "{\"x\":[{\"a\":1,\"b\":3},{\"a\":0,\"b\":2}]}", false},
        {"{\"a\":[1],\"b\":[2]}", "{\"x\":[[{\"a\":0}],[{\"a\":1,\"b\":2}]]}", true},
        {"{\"a\":[{\"exists\":false}]}", "{\"x\":[]}", true},
        {"{\"a\":[{\"exists\":false}]}", "{\"x\":[{\"a\":1}]}", false},
        {"{\"a\":[{\"exists\":false}]}", "{\"x\":[{\"a\":1},{}]}", true},
        {"{\"$not\":{\"a\":[1]}}", "{\"x\":[{\"a\":1},{\"a\":2}]}", true},
        {"{\"$not\":{\"a\":[1]}}", "{\"x\":[{\"a\":1}]}", false},
    };
    assert_field(fields, COUNT(fields));
}

static void test_patterns(void **state) {
    (void)state;
    static const struct match_case cases[] = {
        {"{\"data\":{\"a\":{\"b\":{\"c\":[1]}}}}", "{\"a\":{\"b\":{\"c\":1}}}", true},
        {"{\"data\":{\"a\":{\"b\":{\"c\":[1]}}}}", "{\"a\":{\"b\":1}}", false},
        {"{\"data\":{\"a\":{\"b\":[{\"exists\":false}]}}}", "{}", true},
        {"{\"data\":{\"a\":{\"b\":[{\"exists\":false}]}}}", "{\"a\":1}", true},
        {"{\"data\":{\"a\":[1],\"b\":[2]}}", "{\"b\":2,\"a\":1}", true},
        {"{\"data\":{\"a\":[1],\"b\":[2]}}", "{\"a\":1}", false},
        {"{\"data\":[\"ping\"]}", "\"ping\"", true},
        {"{\"data\":[{\"exists\":true}]}", "null", true},
        {"{\"data\":{\"a\":[1]}}", "[{\"a\":1}]", true},
        {"{\"type\":[\"invoice.paid\"]}", "1", true},
        {"{\"type\":[{\"suffix\":\".paid\"}]}", "1", true},
        {"{\"type\":[{\"prefix\":\"order.\"}]}", "1", false},
        {"{\"type\":[{\"anything-but\":\"invoice.paid\"}]}", "1", false},
        {"{\"type\":[null,1,true,false,{\"numeric\":[\">\",0]}]}", "1", false},
        {"{\"schema_version\":[\"2\"]}", "1", true},
        {"{\"schema_version\":[\"1\",\"3\"]}", "1", false},
        {"{\"ordering_key\":[{\"exists\":false}]}", "1", true},
        {"{\"ordering_key\":[\"a\"]}", "1", false},
        {"{\"$or\":[{\"data\":{\"a\":[1]}},{\"data\":{\"b\":[1]}}]}", "{\"b\":1}", true},
        {"{\"$or\":[{\"data\":{\"a\":[1]}},{\"type\":[\"x\"]}]}", "{\"b\":1}", false},
        {"{\"data\":{\"$or\":[{\"a\":[1]},{\"b\":[1]}],\"c\":[1]}}", "{\"b\":1,\"c\":1}", true},
        {"{\"data\":{\"$or\":[{\"a\":[1]},{\"b\":[1]}],\"c\":[1]}}", "{\"b\":1,\"c\":2}", false},
        {"{\"data\":{\"$and\":[{\"x\":[\"a\"]},{\"x\":[\"b\"]}]}}", "{\"x\":[\"a\",\"b\"]}", true},
        {"{\"data\":{\"$and\":[{\"x\":[\"a\"]},{\"x\":[\"b\"]}]}}", "{\"x\":[\"a\"]}", false},
        {"{\"$not\":{\"data\":{\"test\":[true]}}}", "{\"test\":true}", false},
        {"{\"$not\":{\"data\":{\"test\":[true]}}}", "{}", true},
        {"{\"$not\":{\"$not\":{\"data\":{\"a\":[1]}}}}", "{\"a\":1}", true},
        {"{\"data\":{\"$$ref\":[1],\"$$$\":[2]}}", "{\"$ref\":1,\"$$\":2}", true},
        {"{\"data\":{\"a.b\":[1],\"\":[2]}}", "{\"a.b\":1,\"\":2}", true},
        {"{\"data\":{\"é\":[1]}}", "{\"\\u00e9\":1}", true},
    };
    assert_cases(cases, COUNT(cases));
}

/* Each message begins with its place. */
static void test_refused(void **state) {
    (void)state;
    static const char DATA[] = "there are data, type, schema_version and ordering_key; fields of the payload "
                               "stand under data";
    static const struct {
        const char *filter, *place, *expected;
    } cases[] = {
        {"1", "filter", "a pattern (an object) was expected"},
        {"[]", "filter", "a pattern (an object) was expected"},
        {"{}", "filter", "names no field; null stands for no filter"},
        {"{\"status\":[\"paid\"]}", "filter.status", DATA},
        {"{\"data\":{}}", "filter.data", "names no field"},
        {"{\"data\":{\"a\":{}}}", "filter.data.a", "names no field"},
        {"{\"data\":{\"a\":\"paid\"}}", "filter.data.a",
         "a list of what may stand there was expected, such as [\"paid\"]"},
        {"{\"data\":{\"a\":null}}", "filter.data.a",
         "a list of what may stand there was expected, such as [\"paid\"]"},
        {"{\"type\":{\"a\":[1]}}", "filter.type",
         "a list of what may stand there was expected, such as [\"paid\"]"},
        {"{\"data\":{\"a\":[]}}", "filter.data.a", "an empty list matches nothing"},
        {"{\"data\":{\"a\":[1,[2]]}}", "filter.data.a[1]",
         "a string, number, true, false, null or an operator such as {\"prefix\":\"a\"} was expected"},
        {"{\"data\":{\"a\":[{}]}}", "filter.data.a[0]",
         "an operator is an object of one member, such as {\"prefix\":\"a\"}"},
        {"{\"data\":{\"a\":[{\"prefix\":\"a\",\"suffix\":\"b\"}]}}", "filter.data.a[0]",
         "an operator is an object of one member, such as {\"prefix\":\"a\"}"},
        {"{\"data\":{\"a\":[{\"wildcard\":\"a\"}]}}", "filter.data.a[0].wildcard",
         "no such operator: there are prefix, suffix, numeric, exists and anything-but"},
        {"{\"data\":{\"a\":[{\"prefix\":\"\"}]}}", "filter.data.a[0].prefix",
         "a string that is not empty was expected"},
        {"{\"data\":{\"a\":[{\"suffix\":1}]}}", "filter.data.a[0].suffix",
         "a string that is not empty was expected"},
        {"{\"data\":{\"a\":[\"a\\u0000\"]}}", "filter.data.a[0]", "a string must not contain U+0000"},
        {"{\"data\":{\"a\":[{\"exists\":\"true\"}]}}", "filter.data.a[0].exists",
         "true or false was expected"},
        {"{\"data\":{\"a\":[0.12345678901234567]}}", "filter.data.a[0]",
         "a number of at most 15 digits, or a 64-bit integer, was expected"},
        {"{\"data\":{\"amount\":[{\"numeric\":[\">\",\"1\"]}]}}", "filter.data.amount[0].numeric[1]",
         "a number was expected"},
        {"{\"data\":{\"amount\":[{\"numeric\":[\">\",1,\"<\"]}]}}", "filter.data.amount[0].numeric[3]",
         "a number was expected"},
        {"{\"data\":{\"amount\":[{\"numeric\":[\">\",1,5,\"<\"]}]}}", "filter.data.amount[0].numeric[2]",
         "one of \"<\", \"<=\", \"=\", \">=\" and \">\" was expected"},
        {"{\"data\":{\"a\":[{\"numeric\":5}]}}", "filter.data.a[0].numeric",
         "one or two comparisons were expected, such as [\">=\",1] or [\">\",0,\"<=\",500]"},
        {"{\"data\":{\"a\":[{\"numeric\":[\">\",1,\"<\",2,\"<\",3]}]}}", "filter.data.a[0].numeric",
         "one or two comparisons were expected, such as [\">=\",1] or [\">\",0,\"<=\",500]"},
        {"{\"data\":{\"a\":[{\"anything-but\":[]}]}}", "filter.data.a[0].anything-but",
         "an empty list excludes nothing"},
        {"{\"data\":{\"a\":[{\"anything-but\":[1,{\"exists\":true}]}]}}",
         "filter.data.a[0].anything-but[1].exists",
         "\"anything-but\" takes values, \"prefix\", \"suffix\" and \"numeric\""},
        {"{\"data\":{\"$or\":{\"a\":[1]}}}", "filter.data.$or", "a list of patterns (objects) was expected"},
        {"{\"$or\":[]}", "filter.$or", "a list of patterns (objects) was expected"},
        {"{\"$or\":[{\"data\":{\"a\":[1]}},{}]}", "filter.$or[1]", "names no field"},
        {"{\"$or\":[{\"a\":[1]}]}", "filter.$or[0].a", DATA},
        {"{\"$not\":[]}", "filter.$not", "a pattern (an object) was expected"},
        {"{\"data\":{\"$nor\":[]}}", "filter.data.$nor",
         "there are $or, $and and $not; a field that begins with $ is written with $$"},
        {"{\"data\":{\"a.b\":{\"c\\\"d\":1}}}", "filter.data[\"a.b\"][\"c\\\"d\"]",
         "a list of what may stand there was expected, such as [\"paid\"]"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        char message[sizeof errors.at[0].message];
        if (compile(cases[i].filter))
            fail_msg("%s is accepted", cases[i].filter);
        snprintf(message, sizeof message, "at %s: %s", cases[i].place, cases[i].expected);
        assert_int_equal(errors.n, 1);
        assert_string_equal(errors.at[0].field, "filter");
        assert_string_equal(errors.at[0].message, message);
    }
}

static void test_every_error_is_told(void **state) {
    (void)state;
    assert_null(compile("{\"data\":{\"a\":[[],{\"prefix\":1}],\"b\":2},\"x\":1}"));
    assert_int_equal(errors.n, 4);
    assert_string_equal(errors.at[2].message,
                        "at filter.data.b: a list of what may stand there was expected, such as [\"paid\"]");
}

static void test_long_place(void **state) {
    (void)state;
    _cleanup_buf_ struct buf text = {0};
    buf_add_str(&text, "{\"data\":{\"");
    for (int i = 0; i < 200; i++)
        buf_add_str(&text, "é");
    buf_add_str(&text, "\":{\"end\":1}}}");
    assert_null(compile(text.p));
    const char *message = errors.at[0].message;
    assert_true(strncmp(message, "at …é", 5) == 0);
    assert_non_null(strstr(message, "é\"].end: a list of what may stand there was expected"));
}

/* `open` n times, the core, and `close` n times. */
static char *nest(const char *open, const char *core, const char *close, int n) {
    struct buf text = {0};
    for (int i = 0; i < n; i++)
        buf_add_str(&text, open);
    buf_add_str(&text, core);
    for (int i = 0; i < n; i++)
        buf_add_str(&text, close);
    return text.p;
}

static void test_limits(void **state) {
    (void)state;
    _cleanup_free_ char *deep = nest("{\"data\":", "[1]", "}", 1);
    filter_unref(compile_good(deep));
    _cleanup_free_ char *deepest = nest("{\"$not\":", "{\"type\":[\"a\"]}", "}", FILTER_DEPTH_MAX - 1);
    filter_unref(compile_good(deepest));
    _cleanup_free_ char *too_deep = nest("{\"$not\":", "{\"type\":[\"a\"]}", "}", FILTER_DEPTH_MAX);
    assert_null(compile(too_deep));
    assert_non_null(strstr(errors.at[0].message, ".$not: nested too deeply"));

    /* the pattern, data, its list and the values */
    _cleanup_buf_ struct buf many = {0};
    for (int i = 0; i < FILTER_VALUES_MAX - 3; i++)
        buf_addf(&many, "%s%d", i ? "," : "{\"data\":[", i);
    buf_add_str(&many, "]}");
    filter_unref(compile_good(many.p));
    many.n -= 2;
    buf_add_str(&many, ",1]}");
    assert_null(compile(many.p));
    assert_string_equal(errors.at[0].message, "must have at most 1000 fields, values and operators");

    _cleanup_buf_ struct buf longest = {0};
    buf_addf(&longest, "{\"data\":[\"%0*d\"]}", FILTER_BYTES_MAX - 13, 0);
    assert_int_equal(longest.n, FILTER_BYTES_MAX);
    filter_unref(compile_good(longest.p));
    buf_reset(&longest);
    buf_addf(&longest, "{\"data\":[\"%0*d\"]}", FILTER_BYTES_MAX - 12, 0);
    assert_null(compile(longest.p));
    assert_string_equal(errors.at[0].message, "must have at most 16384 bytes");
}

static bool same_program(const char *a, const char *b) {
    _cleanup_filter_ struct filter *fa = compile_good(a), *fb = compile_good(b);
    return slice_eq(filter_program(fa), filter_program(fb));
}

static void test_program(void **state) {
    (void)state;
    assert_true(same_program("{\"data\":{\"a\":[1],\"b\":[\"x\"]},\"type\":[\"t\"]}",
                             "{ \"type\":[\"t\"], \"data\":{\"b\":[\"x\"],\"a\":[1]}}"));
    assert_true(same_program("{\"data\":[1.50]}", "{\"data\":[1.5]}"));
    assert_false(same_program("{\"data\":{\"a\":[1]}}", "{\"data\":{\"a\":[2]}}"));
    assert_false(same_program("{\"data\":{\"a\":[1]}}", "{\"data\":{\"a\":[-1]}}"));
    assert_false(same_program("{\"data\":{\"a\":[1]}}", "{\"data\":{\"a\":[10]}}"));
    assert_false(same_program("{\"data\":{\"a\":[\"1\"]}}", "{\"data\":{\"a\":[1]}}"));
    assert_false(
        same_program("{\"data\":{\"a\":[{\"prefix\":\"1\"}]}}", "{\"data\":{\"a\":[{\"suffix\":\"1\"}]}}"));
    assert_false(same_program("{\"data\":{\"a\":[{\"numeric\":[\"<\",1]}]}}",
                              "{\"data\":{\"a\":[{\"numeric\":[\"<=\",1]}]}}"));
    assert_false(same_program("{\"data\":{\"ab\":[\"c\"]}}", "{\"data\":{\"a\":[\"bc\"]}}"));
}

/* What would take too long is not decided, and delivered. */
static void test_steps(void **state) {
    (void)state;
    _cleanup_buf_ struct buf filter = {0}, data = {0};
    for (int i = 0; i < 500; i++)
        buf_addf(&filter, "%s%d", i ? "," : "{\"data\":[", 100 + i);
    buf_add_str(&filter, "]}");
    for (int i = 0; i < 100000; i++)
        buf_addf(&data, "%s%d", i ? "," : "[", i % 100);
    buf_add_str(&data, "]");
    _cleanup_filter_ struct filter *f = compile_good(filter.p);
    uint64_t steps = 0;
    assert_true(matches_with(f, data.p, &steps));
    assert_true(steps > FILTER_STEPS_MAX && steps < 2 * FILTER_STEPS_MAX);
    steps = 0;
    assert_false(matches_with(f, "[1,2,3]", &steps));
    assert_true(steps < 3000);
}

static void test_references(void **state) {
    (void)state;
    struct filter *f = compile_good("{\"type\":[\"a\"]}");
    assert_ptr_equal(filter_ref(f), f);
    filter_unref(f);
    assert_int_equal(filter_program(f).n > 0, 1);
    filter_unref(f);
    filter_unref(NULL);
}

static int release(void **state) {
    (void)state;
    json_tape_free(&tape);
    return 0;
}

int main(void) {
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_operators),
        cmocka_unit_test(test_arrays),
        cmocka_unit_test(test_patterns),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_every_error_is_told),
        cmocka_unit_test(test_long_place),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_program),
        cmocka_unit_test(test_steps),
        cmocka_unit_test(test_references),
    };
    return cmocka_run_group_tests(tests, NULL, release);
}
