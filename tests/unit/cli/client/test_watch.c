/* What counts as new to posthorn delivery watch. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "cli/client/watch.h"

static bool look(struct seen *s, int id, const char *state, int tries) {
    char text[128];
    snprintf(text, sizeof text, "{\"id\":\"%d\",\"state\":\"%s\",\"attempt_count\":%d,\"waiting_on\":\"%d\"}",
             id, state, tries, rand());
    return seen_changes(s, slice_of(text));
}

static void what_looks_the_same_is_not_new(void **state) {
    (void)state;
    static struct seen s;
    assert_true(look(&s, 1, "PENDING", 0));
    assert_true(look(&s, 2, "PENDING", 0));
    assert_false(look(&s, 1, "PENDING", 0));
    assert_true(look(&s, 1, "RETRY", 1));
    assert_true(look(&s, 1, "RETRY", 2));
    assert_false(look(&s, 1, "RETRY", 2));
    assert_false(look(&s, 2, "PENDING", 0));
}

static void the_oldest_are_forgotten(void **state) {
    (void)state;
    static struct seen s;
    for (int i = 0; i < WATCH_SEEN_MAX; i++)
        assert_true(look(&s, i, "DLQ", 1));
    assert_false(look(&s, 0, "DLQ", 1));
    assert_true(look(&s, WATCH_SEEN_MAX, "DLQ", 1));
    assert_false(look(&s, 1, "DLQ", 1));
    assert_true(look(&s, 0, "DLQ", 1));
    assert_int_equal(s.n, WATCH_SEEN_MAX);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_looks_the_same_is_not_new),
        cmocka_unit_test(the_oldest_are_forgotten),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
