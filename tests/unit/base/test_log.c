/* Log lines: whole, well-formed and bounded, whatever stands in them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#include <jansson.h>

#include "base/clock.h"
#include "base/log.h"

/* What a piece of code writes to stderr. */
struct capture {
    int saved, pipe[2];
};

static void begin(struct capture *c) {
    assert_int_equal(pipe(c->pipe), 0);
    c->saved = dup(STDERR_FILENO);
    dup2(c->pipe[1], STDERR_FILENO);
    close(c->pipe[1]);
}

static void end(struct capture *c, struct buf *out) {
    char part[4096];
    ssize_t n;
    dup2(c->saved, STDERR_FILENO);
    close(c->saved);
    while ((n = read(c->pipe[0], part, sizeof part)) > 0)
        buf_add(out, part, (size_t)n);
    close(c->pipe[0]);
    buf_add_char(out, '\0');
    out->n--;
}

static void test_json_lines(void **state) {
    (void)state;
    struct capture c;
    _cleanup_buf_ struct buf out = {0};
    log_configure(LOG_DEBUG, true);
    begin(&c);
    log_debug("it \"happened\"", log_str("tenant", "a\nb"), log_int("n", -7), log_str("absent", NULL),
              log_slice("bytes", SLICE_LIT("\xff\x01")));
    end(&c, &out);
    assert_int_equal(out.p[out.n - 1], '\n');
    assert_null(memchr(out.p, '\n', out.n - 1));
    json_t *doc = json_loadb(out.p, out.n, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(doc);
    assert_int_equal(json_object_size(doc), 6);
    assert_string_equal(json_string_value(json_object_get(doc, "level")), "debug");
    assert_string_equal(json_string_value(json_object_get(doc, "message")), "it \"happened\"");
    assert_string_equal(json_string_value(json_object_get(doc, "tenant")), "a\nb");
    assert_int_equal(json_integer_value(json_object_get(doc, "n")), -7);
    json_decref(doc);
}

static void test_what_comes_again_and_again(void **state) {
    (void)state;
    struct log_again l = {0};
    int64_t left_out = -1, now = 1;
    assert_true(log_again(&l, 0, now, &left_out));
    assert_int_equal(left_out, 0);
    for (int i = 0; i < 3; i++)
        assert_false(log_again(&l, 0, now + i, &left_out));
    assert_true(log_again(&l, -5, now, &left_out));
    assert_int_equal(left_out, 3);
    now += (int64_t)LOG_AGAIN_MS * 1000;
    assert_false(log_again(&l, -5, now - 1, &left_out));
    assert_true(log_again(&l, -5, now, &left_out));
    assert_int_equal(left_out, 1);
}

static void test_text_lines(void **state) {
    (void)state;
    struct capture c;
    _cleanup_buf_ struct buf out = {0};
    log_configure(LOG_INFO, false);
    assert_false(log_enabled(LOG_DEBUG));
    assert_true(log_enabled(LOG_INFO));
    begin(&c);
    log_debug("not told");
    log_warn("told", log_str("plain", "a-1"), log_str("forged", "x\nlevel=error a=b"), log_str("empty", ""),
             log_str("absent", NULL), log_int("n", 3));
    end(&c, &out);
    assert_string_equal(out.p + RFC3339_SIZE - 1,
                        " warn  told plain=a-1 forged=\"x\\nlevel=error a=b\" empty=\"\" n=3\n");
}

/* A value is cut, and what comes after it still stands in the line. */
static void test_a_huge_value_does_not_break_lines(void **state) {
    (void)state;
    struct capture c;
    _cleanup_buf_ struct buf out = {0};
    char *huge = malloc(100001);
    memset(huge, 'x', 100000);
    huge[100000] = '\0';
    log_configure(LOG_INFO, true);
    begin(&c);
    log_info("huge", log_str("value", huge), log_int("n", 1));
    log_info("next");
    end(&c, &out);
    free(huge);
    char *second = strchr(out.p, '\n');
    assert_non_null(second);
    json_t *doc = json_loadb(out.p, (size_t)(second - out.p), 0, NULL);
    assert_non_null(doc);
    assert_int_equal(json_string_length(json_object_get(doc, "value")), LOG_VALUE_MAX);
    assert_int_equal(json_integer_value(json_object_get(doc, "n")), 1);
    json_decref(doc);
    doc = json_loads(second + 1, 0, NULL);
    assert_non_null(doc);
    assert_string_equal(json_string_value(json_object_get(doc, "message")), "next");
    json_decref(doc);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_json_lines),
        cmocka_unit_test(test_text_lines),
        cmocka_unit_test(test_what_comes_again_and_again),
        cmocka_unit_test(test_a_huge_value_does_not_break_lines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
