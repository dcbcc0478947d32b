#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include <errno.h>

#include "ingest/timeline.h"

static const char file[] =
    "1\t0/3000148\tno recovery target specified\n\n# a comment\n"
    "2\t0/4000000\tbefore 2026-11-25 20:00:00+00\n3\t1/0\tno recovery target specified";

static struct timeline_history parsed(const char *text) {
    struct timeline_history h = {.timeline = 5, .flushed = 0x100000100};
    assert_int_equal(timeline_parse(slice_of(text), &h), 0);
    return h;
}

static void test_places(void **state) {
    (void)state;
    struct timeline_history h = parsed(file);
    assert_int_equal(h.n, 3);
    assert_int_equal(timeline_at(&h, 0), 1);
    assert_int_equal(timeline_at(&h, 0x3000147), 1);
    assert_int_equal(timeline_at(&h, 0x3000148), 2);
    assert_int_equal(timeline_at(&h, 0x4000000), 3);
    assert_int_equal(timeline_at(&h, 0x100000000), 5);
    h = parsed("");
    assert_int_equal(timeline_at(&h, 0), 5);
}

static void test_what_is_held(void **state) {
    (void)state;
    struct timeline_history h = parsed(file);
    assert_true(timeline_holds(&h, 1, 0x3000148));
    assert_false(timeline_holds(&h, 1, 0x3000149));
    assert_true(timeline_holds(&h, 3, 0x100000000));
    assert_true(timeline_holds(&h, 5, 0x100000100));
    assert_false(timeline_holds(&h, 5, 0x100000101));
    assert_false(timeline_holds(&h, 4, 0)); /* another branch */
    assert_false(timeline_holds(&h, 6, 0)); /* an older database that was put back */
}

static void test_malformed(void **state) {
    (void)state;
    static const char *const wrong[] = {
        "1", "1\t", "1 0/1", "x\t0/1", "0\t0/1", "4294967296\t0/1", "1\t0", "2\t0/2\n3\t0/1"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct timeline_history h = {0};
        if (timeline_parse(slice_of(wrong[i]), &h) != -EINVAL)
            fail_msg("\"%s\" passes", wrong[i]);
    }
}

static void test_many(void **state) {
    (void)state;
    _cleanup_buf_ struct buf text = {0};
    for (int i = 1; i <= 100; i++)
        buf_addf(&text, "%d\t0/%X\n", i, i * 16);
    struct timeline_history h = parsed(text.p);
    assert_int_equal(h.n, TIMELINES_MAX);
    assert_int_equal(h.past[0].timeline, 100 - TIMELINES_MAX + 1);
    assert_int_equal(timeline_at(&h, 100 * 16 - 1), 100);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_places),
        cmocka_unit_test(test_what_is_held),
        cmocka_unit_test(test_malformed),
        cmocka_unit_test(test_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
