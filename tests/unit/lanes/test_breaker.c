#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "lanes/breaker.h"

static struct rng rng;

static void open_it(struct breaker *b, int64_t now) {
    for (unsigned i = 0; i < BREAKER_FAILURES; i++)
        assert_int_equal(breaker_failure(b, i % BREAKER_DELIVERIES, now, &rng), i == BREAKER_FAILURES - 1);
    assert_int_equal(b->state, BREAKER_OPEN);
}

static void test_opens_after_ten_over_five(void **state) {
    (void)state;
    struct breaker b = {0};
    open_it(&b, 1000);
    assert_in_range(b.probe_at, 1000 + 4000, 1000 + 6000);
    assert_int_equal(breaker_allowance(&b, b.probe_at - 1), 0);
    assert_int_equal(breaker_allowance(&b, b.probe_at), 1);
}

static void test_few_deliveries_keep_their_schedule(void **state) {
    (void)state;
    struct breaker b = {0};
    for (unsigned i = 0; i < 1000; i++)
        assert_false(breaker_failure(&b, i % (BREAKER_DELIVERIES - 1), 0, &rng));
    assert_int_equal(breaker_allowance(&b, 0), UINT32_MAX);
    assert_true(breaker_failure(&b, 77, 0, &rng));
}

static void test_success_starts_afresh(void **state) {
    (void)state;
    struct breaker b = {0};
    for (unsigned i = 0; i < BREAKER_FAILURES - 1; i++)
        assert_false(breaker_failure(&b, i, 0, &rng));
    assert_false(breaker_success(&b));
    open_it(&b, 0);
    assert_true(breaker_success(&b));
    assert_int_equal(b.state, BREAKER_CLOSED);
}

static void test_probes_grow_rarer(void **state) {
    (void)state;
    struct breaker b = {0};
    int64_t now = 0;
    open_it(&b, now);
    int64_t interval = BREAKER_PROBE_MS_FIRST;
    for (int i = 0; i < 12; i++) {
        now = b.probe_at;
        breaker_probe_begun(&b);
        assert_int_equal(breaker_allowance(&b, INT64_MAX), 0);
        assert_false(breaker_failure(&b, 1, now, &rng));
        interval = interval * 2 > BREAKER_PROBE_MS_MAX ? BREAKER_PROBE_MS_MAX : interval * 2;
        assert_in_range(b.probe_at - now, interval * 8 / 10, interval * 12 / 10);
    }
    breaker_probe_begun(&b);
    breaker_probe_lost(&b, now + 5);
    assert_int_equal(breaker_allowance(&b, now + 5), 1);
}

int main(void) {
    rng_seed(&rng, 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_opens_after_ten_over_five),
        cmocka_unit_test(test_few_deliveries_keep_their_schedule),
        cmocka_unit_test(test_success_starts_afresh),
        cmocka_unit_test(test_probes_grow_rarer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
