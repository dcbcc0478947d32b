/* Command lines held against options. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include <errno.h>

#include "cli/args.h"

static const struct option options[] = {
    {"name", "TEXT", "", OPTION_TEXT, IN_COMMAND, NULL, NULL},
    {"json", NULL, "", OPTION_BOOL, IN_COMMAND, NULL, NULL},
    {"type", "TYPE", "", OPTION_LIST, IN_COMMAND, NULL, NULL},
};

static int parse(struct args *a, const char *arguments, struct buf *problems, int n,
                 const char *const *words) {
    *a = (struct args){0};
    args_know(a, options, 3);
    return args_parse(a, n, (char *const *)(uintptr_t)words, arguments, problems);
}

#define PARSE(a, arguments, problems, ...)                                                                   \
    parse(a, arguments, problems, sizeof((const char *[]){__VA_ARGS__}) / sizeof(char *),                    \
          (const char *[]){__VA_ARGS__})

static void flags_and_plain_arguments_mix(void **state) {
    (void)state;
    struct args a;
    _cleanup_buf_ struct buf problems = {0};
    assert_int_equal(
        PARSE(&a, "ID [FILE]", &problems, "one", "--name", "x", "--json", "--type=a", "two", "--type", "b"),
        0);
    assert_string_equal(a.plain[0], "one");
    assert_string_equal(a.plain[1], "two");
    assert_string_equal(args_value(&a, "name"), "x");
    assert_true(args_is_set(&a, "json"));
    assert_int_equal(a.given_n, 4);
    assert_int_equal(PARSE(&a, "ID", &problems, "--json=false", "--", "--name"), 0);
    assert_false(args_is_set(&a, "json"));
    assert_string_equal(a.plain[0], "--name");
    assert_null(args_value(&a, "name"));
    assert_int_equal(PARSE(&a, "TYPE DATA", &problems, "t", "-1.5"), 0);
    assert_string_equal(a.plain[1], "-1.5");
}

static void refused(const char *why, const char *arguments, int n, const char *const *words) {
    struct args a;
    _cleanup_buf_ struct buf problems = {0};
    assert_int_equal(parse(&a, arguments, &problems, n, words), -EINVAL);
    assert_string_equal(problems.p, why);
}

static void mistakes_are_named(void **state) {
    (void)state;
    refused("unknown flag --nmae: did you mean --name?\n", "", 1, (const char *[]){"--nmae"});
    refused("unknown flag --hepl: did you mean --help?\n", "", 1, (const char *[]){"--hepl"});
    refused("--name needs a value: --name TEXT\n", "", 1, (const char *[]){"--name"});
    refused("--name is given twice\n", "", 2, (const char *[]){"--name=a", "--name=b"});
    refused("--json=yes: must be true or false\n", "", 1, (const char *[]){"--json=yes"});
    refused("FILE is missing\n", "ID FILE [X]", 1, (const char *[]){"a"});
    refused("unexpected argument b\n", "[ID]", 2, (const char *[]){"a", "b"});
}

static void too_many_are_refused(void **state) {
    (void)state;
    const char *words[ARGS_GIVEN_MAX + 1];
    for (size_t i = 0; i <= ARGS_GIVEN_MAX; i++)
        words[i] = "--type=x";
    refused("more than 256 flags\n", "", ARGS_GIVEN_MAX + 1, words);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(flags_and_plain_arguments_mix),
        cmocka_unit_test(mistakes_are_named),
        cmocka_unit_test(too_many_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
