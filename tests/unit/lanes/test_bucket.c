#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "lanes/bucket.h"

static void test_burst_then_rate(void **state) {
    (void)state;
    struct bucket b;
    bucket_init(&b, 5, 1000);
    assert_int_equal(bucket_available(&b, 10, 5, 1000), 5);
    bucket_take(&b, 5);
    assert_int_equal(bucket_available(&b, 10, 5, 1000), 0);
    int64_t ready = bucket_ready_at(&b, 10, 1000);
    assert_in_range(ready, 1100, 1101);
    assert_int_equal(bucket_available(&b, 10, 5, ready), 1);
    assert_int_equal(bucket_available(&b, 10, 5, 60000), 5);
}

static void test_clock_going_back(void **state) {
    (void)state;
    struct bucket b;
    bucket_init(&b, 2, 10000);
    bucket_take(&b, 1);
    assert_int_equal(bucket_available(&b, 1, 2, 5000), 1);
    assert_int_equal(bucket_available(&b, 1, 2, 5500), 1);
    assert_int_equal(bucket_available(&b, 1, 2, 6000), 2);
}

static void test_return_keeps_to_burst(void **state) {
    (void)state;
    struct bucket b;
    bucket_init(&b, 3, 0);
    bucket_take(&b, 2);
    bucket_return(&b, 1, 3);
    assert_int_equal(bucket_available(&b, 1, 3, 0), 2);
    bucket_return(&b, 9, 3);
    assert_int_equal(bucket_available(&b, 1, 3, 0), 3);
    assert_int_equal(bucket_ready_at(&b, 1, 7), 7);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_burst_then_rate),
        cmocka_unit_test(test_clock_going_back),
        cmocka_unit_test(test_return_keeps_to_burst),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
