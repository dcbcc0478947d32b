#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/random.h"
#include "lanes/lane.h"

enum { NUMBERS = 400, STEPS = 100000 };

static void test_empty(void **state) {
    (void)state;
    struct lane_table t = {0};
    assert_null(lane_table_find(&t, 1));
    lane_table_free(&t);
}

/* Lanes come and go in any order, and at every size those that are there are found, the others not. */
static void test_come_and_go(void **state) {
    (void)state;
    static struct lane lanes[NUMBERS];
    bool in[NUMBERS] = {false};
    struct lane_table t = {0};
    struct rng rng;
    size_t n = 0;
    rng_seed(&rng, 1);
    for (uint32_t step = 0; step < STEPS; step++) {
        /* It fills and empties in turn. */
        bool filling = step / 1000 % 2 == 0;
        uint32_t i = (uint32_t)rng_below(&rng, NUMBERS);
        lanes[i].no = i + 1;
        if (!in[i] && (filling || rng_below(&rng, 4) == 0)) {
            assert_int_equal(lane_table_add(&t, &lanes[i]), 0);
            in[i] = true;
            n++;
        } else if (in[i] && (!filling || rng_below(&rng, 4) == 0)) {
            lane_table_remove(&t, &lanes[i]);
            in[i] = false;
            n--;
        }
        assert_int_equal(t.n, n);
        if (step % 100 == 0)
            for (uint32_t k = 0; k < NUMBERS; k++)
                assert_ptr_equal(lane_table_find(&t, k + 1), in[k] ? &lanes[k] : NULL);
    }
    for (uint32_t k = 0; k < NUMBERS; k++)
        if (in[k])
            lane_table_remove(&t, &lanes[k]);
    lane_table_free(&t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_empty),
        cmocka_unit_test(test_come_and_go),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
