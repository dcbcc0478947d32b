#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "lanes/concurrency.h"

static void test_halves_once_per_congestion(void **state) {
    (void)state;
    struct concurrency c = {0};
    assert_int_equal(concurrency_limit(&c, 16), 16);
    concurrency_halve(&c, 16, 100, 200);
    assert_int_equal(concurrency_limit(&c, 16), 8);
    concurrency_halve(&c, 16, 199, 210);
    assert_int_equal(concurrency_limit(&c, 16), 8);
    concurrency_halve(&c, 16, 200, 220);
    assert_int_equal(concurrency_limit(&c, 16), 4);
}

static void test_never_below_one(void **state) {
    (void)state;
    struct concurrency c = {0};
    for (int64_t i = 0; i < 20; i++)
        concurrency_halve(&c, 10, i, i);
    assert_int_equal(concurrency_limit(&c, 10), 1);
}

static void test_success_climbs_back_to_the_cap(void **state) {
    (void)state;
    struct concurrency c = {0};
    concurrency_slow_start(&c);
    assert_int_equal(concurrency_limit(&c, 8), 1);
    concurrency_success(&c, 8);
    assert_int_equal(concurrency_limit(&c, 8), 2);
    for (int i = 0; i < 100; i++)
        concurrency_success(&c, 8);
    assert_int_equal(concurrency_limit(&c, 8), 8);
    assert_int_equal(concurrency_limit(&c, 3), 3);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_halves_once_per_congestion),
        cmocka_unit_test(test_never_below_one),
        cmocka_unit_test(test_success_climbs_back_to_the_cap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
