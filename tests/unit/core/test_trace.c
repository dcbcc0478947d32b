/* W3C Trace Context: what is taken, what is ignored, and what is passed on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "core/trace.h"

#define IDS    "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7"
#define PARENT "00-" IDS "-01"

static void assert_taken(const char *parent, const char *state, const char *wanted) {
    _cleanup_buf_ struct buf out = {0};
    bool taken = trace_take(slice_of(parent), slice_of(state), &out);
    if (taken != (wanted != NULL))
        fail_msg("%s was %s", parent, taken ? "taken" : "ignored");
    if (taken)
        assert_string_equal(out.p, wanted);
    else
        assert_int_equal(out.n, 0);
}

static void test_traceparents(void **state) {
    (void)state;
    assert_taken(PARENT, NULL, PARENT);
    assert_taken(" " PARENT "\t", NULL, PARENT);
    assert_taken("00-" IDS "-00", NULL, "00-" IDS "-00");
    assert_taken("00-" IDS "-ff", NULL, PARENT);
    assert_taken("00-" IDS "-0e", NULL, "00-" IDS "-00");
    /* of later versions */
    assert_taken("cc-" IDS "-01", NULL, PARENT);
    assert_taken("01-" IDS "-01-what-the-future-will-be-like", NULL, PARENT);
    assert_taken("cc-" IDS "-01.what-the-future-will-not-be-like", NULL, NULL);
    static const char *const bad[] = {
        "",
        "00",
        "ff-" IDS "-01",
        "0-" IDS "-01",
        "0x-" IDS "-01",
        "00-" IDS "-01-more",
        "00-" IDS "-01x",
        "00-" IDS "-0",
        "00-" IDS "-0x",
        "00-" IDS "-",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e473.-00f067aa0ba902b7-01",
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        "00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7_01",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_taken(bad[i], "a=1", NULL);
    assert_taken(NULL, "a=1", NULL);
}

static void test_tracestates(void **state) {
    (void)state;
    assert_taken(PARENT, "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE",
                 PARENT "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE");
    assert_taken(PARENT, " a=1 ,\t, b@c=x y/!~ ,", PARENT "a=1,b@c=x y/!~");
    assert_taken(PARENT, "fw529a3039@dt=FfffffffO,0a*_-/=1", PARENT "fw529a3039@dt=FfffffffO,0a*_-/=1");
    static const char *const bad[] = {"a",     "=1",    "a=",   "A=1",    "a=1,b",
                                      "a b=1", "a=1=2", "@a=1", "a=\x01", "a=\xc3\xa9"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_taken(PARENT, bad[i], PARENT);
}

static void test_a_tracestate_is_bounded(void **state) {
    (void)state;
    _cleanup_buf_ struct buf list = {0}, wanted = {0};
    for (int i = 0; i < 32; i++)
        buf_addf(&list, "%sk%d=v", i ? "," : "", i);
    buf_addf(&wanted, PARENT "%s", list.p);
    assert_taken(PARENT, list.p, wanted.p);
    buf_add_str(&list, ",one=more");
    assert_taken(PARENT, list.p, PARENT);
    /* Two members of 512 bytes with their comma; one byte more is too much. */
    buf_reset(&list);
    buf_reset(&wanted);
    buf_addf(&list, "a=%0254d,b=%0253d", 0, 0);
    assert_int_equal(list.n, TRACE_STATE_MAX);
    buf_addf(&wanted, PARENT "%s", list.p);
    assert_taken(PARENT, list.p, wanted.p);
    buf_add_char(&list, '0');
    assert_taken(PARENT, list.p, PARENT);
}

static void test_a_step_keeps_the_trace(void **state) {
    (void)state;
    _cleanup_buf_ struct buf out = {0};
    char parent[TRACEPARENT_N + 1];
    assert_true(trace_take(SLICE_LIT(PARENT), SLICE_LIT("a=1"), &out));
    trace_parent_for(buf_slice(&out), 0xabcdef, parent);
    assert_string_equal(parent, "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000abcdef-01");
    assert_true(slice_eq(trace_state(buf_slice(&out)), SLICE_LIT("a=1")));
    assert_true(trace_sampled(buf_slice(&out)));
    assert_true(trace_span(buf_slice(&out)) == 0x00f067aa0ba902b7);
    char id[TRACE_ID_N + 1];
    trace_id(buf_slice(&out), id);
    assert_string_equal(id, "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_false(trace_sampled(SLICE_LIT("00-" IDS "-00")));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_traceparents),
        cmocka_unit_test(test_tracestates),
        cmocka_unit_test(test_a_tracestate_is_bounded),
        cmocka_unit_test(test_a_step_keeps_the_trace),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
