#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "lanes/breaker.h"

static struct rng rng;

static void open_it(struct breaker *b, int64_t now) {
    for (unsigned i = 0; i < BREAKER_FAILURES; i++)
        assert_int_equal(breaker_failure(b, i % BREAKER_DELIVERIES, 0, now, &rng), i == BREAKER_FAILURES - 1);
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

/* Endpoints that failed together are not probed together. */
static void test_probes_are_spread(void **state) {
    (void)state;
    int64_t earliest = INT64_MAX, latest = 0;
    for (int i = 0; i < 200; i++) {
        struct breaker b = {0};
        open_it(&b, 0);
        assert_in_range(b.probe_at, BREAKER_PROBE_MS_FIRST * 8 / 10, BREAKER_PROBE_MS_FIRST * 12 / 10);
        earliest = b.probe_at < earliest ? b.probe_at : earliest;
        latest = b.probe_at > latest ? b.probe_at : latest;
    }
    assert_true(latest - earliest > BREAKER_PROBE_MS_FIRST / 4);
}

static void test_few_deliveries_keep_their_schedule(void **state) {
    (void)state;
    struct breaker b = {0};
    for (unsigned i = 0; i < 1000; i++)
        assert_false(breaker_failure(&b, i % (BREAKER_DELIVERIES - 1), 0, 0, &rng));
    assert_int_equal(breaker_allowance(&b, 0), UINT32_MAX);
    assert_true(breaker_failure(&b, 77, 0, 0, &rng));
}

static void test_success_starts_afresh(void **state) {
    (void)state;
    struct breaker b = {0};
    for (unsigned i = 0; i < BREAKER_FAILURES - 1; i++)
        assert_false(breaker_failure(&b, i, 0, 0, &rng));
    assert_false(breaker_success(&b, 0));
    open_it(&b, 0);
    assert_true(breaker_success(&b, 0));
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
        uint32_t probe = breaker_next_probe(&b);
        breaker_probe_begun(&b, probe);
        assert_int_equal(breaker_allowance(&b, INT64_MAX), 0);
        assert_false(breaker_failure(&b, 1, probe, now, &rng));
        interval = interval * 2 > BREAKER_PROBE_MS_MAX ? BREAKER_PROBE_MS_MAX : interval * 2;
        assert_in_range(b.probe_at - now, interval * 8 / 10, interval * 12 / 10);
    }
    uint32_t probe = breaker_next_probe(&b);
    breaker_probe_begun(&b, probe);
    breaker_probe_lost(&b, probe, now + 5);
    assert_int_equal(breaker_allowance(&b, now + 5), 1);
}

static uint32_t half_open_it(struct breaker *b) {
    open_it(b, 0);
    uint32_t probe = breaker_next_probe(b);
    breaker_probe_begun(b, probe);
    assert_int_equal(b->state, BREAKER_HALF_OPEN);
    return probe;
}

static void test_only_the_probe_moves_half_open(void **state) {
    (void)state;
    struct breaker b = {0};
    uint32_t probe = half_open_it(&b), others[] = {0, probe - 1, probe + 1};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        assert_false(breaker_failure(&b, 1, others[i], 10, &rng));
        assert_false(breaker_success(&b, others[i]));
        breaker_probe_lost(&b, others[i], 10);
        assert_int_equal(b.state, BREAKER_HALF_OPEN);
        assert_int_equal(breaker_allowance(&b, INT64_MAX), 0);
    }
    assert_true(breaker_success(&b, probe));
    assert_int_equal(b.state, BREAKER_CLOSED);
}

static void test_a_probe_of_an_earlier_opening_is_none_of_this(void **state) {
    (void)state;
    struct breaker b = {0};
    uint32_t old = half_open_it(&b);
    assert_true(breaker_reset(&b)); /* enabled again while it is under way */
    uint32_t probe = half_open_it(&b);
    assert_int_not_equal(old, probe);
    assert_false(breaker_success(&b, old));
    assert_int_equal(b.state, BREAKER_HALF_OPEN);
    assert_false(breaker_failure(&b, 1, probe, 10, &rng));
    assert_int_equal(b.state, BREAKER_OPEN);
}

static void test_a_claim_from_before_the_opening_is_no_probe(void **state) {
    (void)state;
    struct breaker b = {0};
    uint32_t claim = breaker_next_probe(&b);
    assert_int_equal(claim, 0);
    open_it(&b, 0);
    breaker_probe_begun(&b, claim);
    assert_int_equal(b.state, BREAKER_OPEN);
    /* And a probe whose breaker has closed while it was claimed opens nothing. */
    uint32_t probe = breaker_next_probe(&b);
    assert_true(breaker_success(&b, 0));
    breaker_probe_begun(&b, probe);
    assert_int_equal(b.state, BREAKER_CLOSED);
}

int main(void) {
    rng_seed(&rng, 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_opens_after_ten_over_five),
        cmocka_unit_test(test_probes_are_spread),
        cmocka_unit_test(test_few_deliveries_keep_their_schedule),
        cmocka_unit_test(test_success_starts_afresh),
        cmocka_unit_test(test_probes_grow_rarer),
        cmocka_unit_test(test_only_the_probe_moves_half_open),
        cmocka_unit_test(test_a_probe_of_an_earlier_opening_is_none_of_this),
        cmocka_unit_test(test_a_claim_from_before_the_opening_is_no_probe),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
