#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/random.h"

enum { DRAWS = 4096 };

static int by_value(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void assert_all_differ(uint64_t *drawn, size_t n) {
    qsort(drawn, n, sizeof *drawn, by_value);
    for (size_t i = 1; i < n; i++)
        assert_true(drawn[i - 1] != drawn[i]);
}

static void test_bytes_are_never_handed_out_twice(void **state) {
    (void)state;
    static uint64_t drawn[DRAWS];
    for (int i = 0; i < DRAWS; i++)
        random_bytes(&drawn[i], sizeof drawn[i]);
    assert_all_differ(drawn, DRAWS);
}

/* Sizes that do not divide what is fetched at one time, and some beyond it. */
static void test_all_sizes_are_filled(void **state) {
    (void)state;
    for (size_t n = 1; n <= 600; n++) {
        unsigned char ored[601] = {0};
        for (int draw = 0; draw < 24; draw++) {
            unsigned char bytes[601] = {0};
            random_bytes(bytes, n);
            for (size_t i = 0; i <= n; i++)
                ored[i] |= bytes[i];
        }
        for (size_t i = 0; i < n; i++)
            assert_int_not_equal(ored[i], 0);
        assert_int_equal(ored[n], 0);
    }
}

static void test_seeded_numbers_repeat(void **state) {
    (void)state;
    struct rng a, b, c;
    rng_seed(&a, 7);
    rng_seed(&b, 7);
    rng_seed(&c, 8);
    bool other = false;
    for (int i = 0; i < 100; i++) {
        uint64_t x = rng_next(&a);
        assert_int_equal(x, rng_next(&b));
        other = other || x != rng_next(&c);
        assert_true(rng_below(&a, 10) < 10 && rng_below(&b, 10) < 10);
    }
    assert_true(other);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytes_are_never_handed_out_twice),
        cmocka_unit_test(test_all_sizes_are_filled),
        cmocka_unit_test(test_seeded_numbers_repeat),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
