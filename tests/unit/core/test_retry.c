#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include <errno.h>

#include "core/retry.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

enum { SEEDS = 2000 };

static const int64_t NOW = 1795553340123;

static struct policy defaults(void) {
    struct policy p;
    policy_init(&p);
    return p;
}

/* An outcome with this status and no Retry-After. */
static struct outcome answered(int status) {
    return (struct outcome){.status = status, .retry_after_ms = -1};
}

static struct outcome answered_wait(int status, int64_t retry_after_ms) {
    return (struct outcome){.status = status, .retry_after_ms = retry_after_ms};
}

static struct outcome failed(enum attempt_error error) {
    return (struct outcome){.error = error, .retry_after_ms = -1};
}

static struct verdict decide(const struct policy *p, struct attempt_tally t, struct outcome o) {
    struct rng rng;
    rng_seed(&rng, 1);
    return retry_decide(p, &t, &o, NOW, &rng);
}

/* ---- classes ---- */

/* api.md §4's table, without overrides and Retry-After. */
static enum outcome_class expected_class(int status) {
    if (status >= 200 && status <= 299)
        return OUTCOME_SUCCESS;
    switch (status) {
    case 408:
    case 409:
    case 425:
        return OUTCOME_TRANSIENT;
    case 410:
        return OUTCOME_GONE;
    case 429:
        return OUTCOME_BACKPRESSURE;
    default:
        return status >= 400 && status <= 499 ? OUTCOME_PERMANENT : OUTCOME_TRANSIENT;
    }
}

static void test_every_status(void **state) {
    (void)state;
    struct policy p = defaults();
    for (int status = 200; status <= 599; status++) {
        struct outcome plain = answered(status), wait = answered_wait(status, 0);
        enum outcome_class expected = expected_class(status);
        if (outcome_classify(&plain, &p) != expected)
            fail_msg("%d is %s", status, outcome_class_name(outcome_classify(&plain, &p)));
        if (outcome_classify(&wait, &p) != (status == 503 ? OUTCOME_BACKPRESSURE : expected))
            fail_msg("%d with Retry-After is %s", status, outcome_class_name(outcome_classify(&wait, &p)));
    }
}

static void test_every_error(void **state) {
    (void)state;
    struct policy p = defaults();
    for (unsigned e = 1; e < ATTEMPT_ERRORS; e++) {
        struct outcome o = failed((enum attempt_error)e);
        assert_int_equal(outcome_classify(&o, &p),
                         e == ATTEMPT_BLOCKED_ADDRESS ? OUTCOME_BLOCKED : OUTCOME_TRANSIENT);
    }
}

static void test_the_status_line_decides(void **state) {
    (void)state;
    struct policy p = defaults();
    struct outcome o = {.status = 200, .error = ATTEMPT_RESET, .retry_after_ms = -1};
    assert_int_equal(outcome_classify(&o, &p), OUTCOME_SUCCESS);
    o.status = 404;
    o.error = ATTEMPT_TIMEOUT;
    assert_int_equal(outcome_classify(&o, &p), OUTCOME_PERMANENT);
}

static void test_overrides(void **state) {
    (void)state;
    uint16_t on[] = {403, 404, 410, 429, 503}, off[] = {301, 408, 429, 500, 503};
    struct policy retries = defaults(), gives_up = defaults();
    retries.retry_on = on;
    retries.retry_on_n = COUNT(on);
    gives_up.no_retry_on = off;
    gives_up.no_retry_on_n = COUNT(off);
    static const struct {
        int status;
        int64_t retry_after_ms;
        enum outcome_class with_on, with_off;
    } cases[] = {
        {403, -1, OUTCOME_TRANSIENT, OUTCOME_PERMANENT},    {404, -1, OUTCOME_TRANSIENT, OUTCOME_PERMANENT},
        {401, -1, OUTCOME_PERMANENT, OUTCOME_PERMANENT},    {410, -1, OUTCOME_TRANSIENT, OUTCOME_GONE},
        {429, -1, OUTCOME_BACKPRESSURE, OUTCOME_PERMANENT}, /* retried with care already */
        {503, -1, OUTCOME_TRANSIENT, OUTCOME_PERMANENT},    {503, 0, OUTCOME_BACKPRESSURE, OUTCOME_PERMANENT},
        {301, -1, OUTCOME_TRANSIENT, OUTCOME_PERMANENT},    {408, -1, OUTCOME_TRANSIENT, OUTCOME_PERMANENT},
        {500, -1, OUTCOME_TRANSIENT, OUTCOME_PERMANENT},    {502, -1, OUTCOME_TRANSIENT, OUTCOME_TRANSIENT},
        {200, -1, OUTCOME_SUCCESS, OUTCOME_SUCCESS},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct outcome o = answered_wait(cases[i].status, cases[i].retry_after_ms);
        assert_int_equal(outcome_classify(&o, &retries), cases[i].with_on);
        assert_int_equal(outcome_classify(&o, &gives_up), cases[i].with_off);
    }
}

static void test_class_names(void **state) {
    (void)state;
    static const char *const names[] = {"success", "transient", "backpressure",
                                        "gone",    "permanent", "blocked"};
    for (unsigned i = 0; i < OUTCOME_CLASSES; i++)
        assert_string_equal(outcome_class_name((enum outcome_class)i), names[i]);
}

/* ---- backoff ---- */

static void test_exponential(void **state) {
    (void)state;
    struct policy p = defaults();
    static const int64_t seconds[] = {5, 20, 80, 320, 1280, 5120, 20480, 21600, 21600};
    for (uint32_t i = 0; i < COUNT(seconds); i++)
        assert_true(retry_backoff_ms(&p.retry, i + 1) == seconds[i] * 1000);
    assert_true(retry_backoff_ms(&p.retry, UINT32_MAX) == 21600000);
}

static void test_odd_exponentials(void **state) {
    (void)state;
    struct retry_policy constant = {.initial_seconds = 7, .multiplier = 1, .max_seconds = 60};
    assert_true(retry_backoff_ms(&constant, 1) == 7000);
    assert_true(retry_backoff_ms(&constant, 1000) == 7000);
    struct retry_policy slow = {.initial_seconds = 1, .multiplier = 1.5, .max_seconds = 60};
    assert_true(retry_backoff_ms(&slow, 3) == 2250);
    struct retry_policy capped = {.initial_seconds = 100, .multiplier = 2, .max_seconds = 60};
    assert_true(retry_backoff_ms(&capped, 1) == 60000);
    struct retry_policy at_once = {.initial_seconds = 0, .multiplier = 4, .max_seconds = 60};
    assert_true(retry_backoff_ms(&at_once, 1000) == 0);
}

static void test_schedule(void **state) {
    (void)state;
    uint32_t seconds[] = {0, 300, 1800};
    struct retry_policy r = {.schedule_seconds = seconds, .schedule_n = COUNT(seconds)};
    assert_true(retry_backoff_ms(&r, 1) == 0);
    assert_true(retry_backoff_ms(&r, 2) == 300000);
    assert_true(retry_backoff_ms(&r, 3) == 1800000);
    assert_true(retry_backoff_ms(&r, 4) == -1);
    assert_true(retry_backoff_ms(&r, 1000) == -1);
}

static void test_jitter_stays_in_bounds_and_fills_them(void **state) {
    (void)state;
    static const double jitters[] = {0, 0.2, 0.5, 1};
    for (size_t j = 0; j < COUNT(jitters); j++) {
        struct policy p = defaults();
        p.retry.jitter = jitters[j];
        const double delay = 20000, spread = delay * jitters[j];
        int64_t least = INT64_MAX, most = INT64_MIN;
        for (uint64_t seed = 0; seed < SEEDS; seed++) {
            struct rng rng;
            struct attempt_tally t = {.number = 2, .window_at = NOW};
            struct outcome o = answered(500);
            rng_seed(&rng, seed);
            struct verdict v = retry_decide(&p, &t, &o, NOW, &rng);
            assert_int_equal(v.to, DELIVERY_RETRY);
            least = v.due_at - NOW < least ? v.due_at - NOW : least;
            most = v.due_at - NOW > most ? v.due_at - NOW : most;
        }
        assert_true((double)least >= delay - spread - 1 && (double)most <= delay + spread + 1);
        assert_true((double)least <= delay - 0.95 * spread && (double)most >= delay + 0.95 * spread);
    }
}

/* ---- decisions ---- */

static void test_ends(void **state) {
    (void)state;
    struct policy p = defaults();
    static const struct {
        struct outcome o;
        enum delivery_state to;
        enum delivery_reason reason;
    } cases[] = {
        {{200, ATTEMPT_OK, -1}, DELIVERY_DELIVERED, REASON_NONE},
        {{299, ATTEMPT_RESET, -1}, DELIVERY_DELIVERED, REASON_NONE},
        {{410, ATTEMPT_OK, -1}, DELIVERY_DLQ, REASON_GONE},
        {{404, ATTEMPT_OK, -1}, DELIVERY_DLQ, REASON_PERMANENT_RESPONSE},
        {{404, ATTEMPT_OK, 5000}, DELIVERY_DLQ, REASON_PERMANENT_RESPONSE},
        {{0, ATTEMPT_BLOCKED_ADDRESS, -1}, DELIVERY_DLQ, REASON_BLOCKED_ADDRESS},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct verdict v = decide(&p, (struct attempt_tally){.number = 1, .window_at = NOW}, cases[i].o);
        assert_int_equal(v.to, cases[i].to);
        assert_int_equal(v.reason, cases[i].reason);
        assert_true(v.counted);
    }
}

static void test_attempts_exhausted(void **state) {
    (void)state;
    struct policy p = defaults();
    p.max_attempts = 3;
    p.retry.jitter = 0;
    struct verdict v = decide(&p, (struct attempt_tally){.number = 2, .window_at = NOW}, answered(500));
    assert_int_equal(v.to, DELIVERY_RETRY);
    assert_true(v.due_at == NOW + 20000);
    assert_true(v.counted);
    v = decide(&p, (struct attempt_tally){.number = 3, .window_at = NOW}, failed(ATTEMPT_TIMEOUT));
    assert_int_equal(v.to, DELIVERY_DLQ);
    assert_int_equal(v.reason, REASON_ATTEMPTS_EXHAUSTED);
    p.max_attempts = 1;
    v = decide(&p, (struct attempt_tally){.number = 1, .window_at = NOW}, answered(500));
    assert_int_equal(v.to, DELIVERY_DLQ);
}

static void test_a_replay_starts_afresh(void **state) {
    (void)state;
    struct policy p = defaults();
    p.max_attempts = 2;
    p.retry.jitter = 0;
    struct verdict v =
        decide(&p, (struct attempt_tally){.number = 25, .base = 24, .window_at = NOW}, answered(500));
    assert_int_equal(v.to, DELIVERY_RETRY);
    assert_true(v.due_at == NOW + 5000);
    v = decide(&p, (struct attempt_tally){.number = 26, .base = 24, .window_at = NOW}, answered(500));
    assert_int_equal(v.reason, REASON_ATTEMPTS_EXHAUSTED);
}

static void test_schedule_ends(void **state) {
    (void)state;
    uint32_t seconds[] = {0, 60};
    struct policy p = defaults();
    p.retry = (struct retry_policy){.schedule_seconds = seconds, .schedule_n = COUNT(seconds)};
    struct verdict v = decide(&p, (struct attempt_tally){.number = 1, .window_at = NOW}, answered(500));
    assert_true(v.to == DELIVERY_RETRY && v.due_at == NOW);
    v = decide(&p, (struct attempt_tally){.number = 2, .window_at = NOW}, answered(500));
    assert_true(v.to == DELIVERY_RETRY && v.due_at == NOW + 60000);
    v = decide(&p, (struct attempt_tally){.number = 3, .window_at = NOW}, answered(500));
    assert_int_equal(v.to, DELIVERY_DLQ);
    assert_int_equal(v.reason, REASON_ATTEMPTS_EXHAUSTED);
    p.max_attempts = 2;
    v = decide(&p, (struct attempt_tally){.number = 2, .window_at = NOW}, answered(500));
    assert_int_equal(v.reason, REASON_ATTEMPTS_EXHAUSTED);
}

static void test_window(void **state) {
    (void)state;
    struct policy p = defaults();
    p.retry.jitter = 0;
    p.window_seconds = 60;
    /* The second attempt would be due 5 s from now. */
    struct attempt_tally t = {.number = 1, .window_at = NOW - 55000};
    struct verdict v = decide(&p, t, answered(500));
    assert_int_equal(v.to, DELIVERY_RETRY);
    assert_true(v.due_at == retry_window_end(&p, t.window_at));
    t.window_at--;
    v = decide(&p, t, answered(500));
    assert_int_equal(v.to, DELIVERY_DLQ);
    assert_int_equal(v.reason, REASON_WINDOW_EXPIRED);
    assert_true(v.counted);
    /* It began in the future: deliver_at. */
    t.window_at = NOW + 1000;
    assert_int_equal(decide(&p, t, answered(500)).to, DELIVERY_RETRY);
    /* What succeeds after the window is delivered. */
    t.window_at = NOW - 3600000;
    assert_int_equal(decide(&p, t, answered(204)).to, DELIVERY_DELIVERED);
    /* Attempts used up and window closed: the attempts are told. */
    p.max_attempts = 1;
    assert_int_equal(decide(&p, t, answered(500)).reason, REASON_ATTEMPTS_EXHAUSTED);
}

static void test_retry_after(void **state) {
    (void)state;
    struct policy p = defaults();
    p.retry.jitter = 0;
    struct attempt_tally t = {.number = 1, .window_at = NOW};
    static const int statuses[] = {429, 503};
    for (size_t i = 0; i < COUNT(statuses); i++) {
        /* The later of Retry-After and backoff. */
        struct verdict v = decide(&p, t, answered_wait(statuses[i], 90000));
        assert_true(v.to == DELIVERY_RETRY && v.due_at == NOW + 90000 && !v.counted);
        v = decide(&p, t, answered_wait(statuses[i], 1000));
        assert_true(v.to == DELIVERY_RETRY && v.due_at == NOW + 5000 && !v.counted);
        v = decide(&p, t, answered_wait(statuses[i], 0));
        assert_true(v.to == DELIVERY_RETRY && v.due_at == NOW + 5000 && !v.counted);
    }
    struct verdict v = decide(&p, t, answered(429));
    assert_true(v.to == DELIVERY_RETRY && v.due_at == NOW + 5000 && !v.counted);
    v = decide(&p, t, answered(503));
    assert_true(v.to == DELIVERY_RETRY && v.due_at == NOW + 5000 && v.counted);
}

static void test_retry_after_is_capped_at_the_window(void **state) {
    (void)state;
    struct policy p = defaults();
    p.retry.jitter = 0;
    p.window_seconds = 60;
    struct attempt_tally t = {.number = 1, .window_at = NOW - 10000};
    struct verdict v = decide(&p, t, answered_wait(429, 3600000));
    assert_int_equal(v.to, DELIVERY_RETRY);
    assert_true(v.due_at == NOW + 50000);
    v = decide(&p, t, answered_wait(429, INT64_C(10) * 366 * 86400 * 1000));
    assert_true(v.due_at == NOW + 50000);
    /* But what the backoff alone takes past it is given up. */
    t.window_at = NOW - 58000;
    v = decide(&p, t, answered_wait(429, 3600000));
    assert_int_equal(v.to, DELIVERY_DLQ);
    assert_int_equal(v.reason, REASON_WINDOW_EXPIRED);
    assert_false(v.counted);
    t.window_at = NOW - 3600000;
    assert_int_equal(decide(&p, t, answered_wait(429, 1000)).reason, REASON_WINDOW_EXPIRED);
}

static void test_backpressure_is_not_counted(void **state) {
    (void)state;
    struct policy p = defaults();
    p.max_attempts = 2;
    p.retry.jitter = 0;
    /* Far more attempts than allowed, all of them backpressure. */
    struct attempt_tally t = {.number = 50, .uncounted = 49, .window_at = NOW};
    assert_int_equal(decide(&p, t, answered(429)).to, DELIVERY_RETRY);
    /* The first that counts, and the second. */
    assert_int_equal(decide(&p, t, answered(500)).to, DELIVERY_RETRY);
    t = (struct attempt_tally){.number = 51, .uncounted = 49, .window_at = NOW};
    assert_int_equal(decide(&p, t, answered(429)).to, DELIVERY_RETRY);
    struct verdict v = decide(&p, t, answered(500));
    assert_int_equal(v.to, DELIVERY_DLQ);
    assert_int_equal(v.reason, REASON_ATTEMPTS_EXHAUSTED);
    /* After a replay, those before it are out of the reckoning. */
    t = (struct attempt_tally){.number = 60, .base = 58, .uncounted = 1, .window_at = NOW};
    assert_int_equal(decide(&p, t, answered(500)).to, DELIVERY_RETRY);
}

static void test_backpressure_does_not_use_up_a_schedule(void **state) {
    (void)state;
    uint32_t seconds[] = {1, 60};
    struct policy p = defaults();
    p.retry = (struct retry_policy){.schedule_seconds = seconds, .schedule_n = COUNT(seconds)};
    struct attempt_tally t = {.number = 10, .uncounted = 9, .window_at = NOW};
    struct verdict v = decide(&p, t, answered(429));
    assert_true(v.to == DELIVERY_RETRY && v.due_at == NOW + 1000);
    v = decide(&p, t, answered(500)); /* the first that counts */
    assert_true(v.to == DELIVERY_RETRY && v.due_at == NOW + 1000);
    t.uncounted = 8;
    v = decide(&p, t, answered(500)); /* the second */
    assert_true(v.to == DELIVERY_RETRY && v.due_at == NOW + 60000);
    t.uncounted = 7;
    assert_int_equal(decide(&p, t, answered(500)).to, DELIVERY_DLQ); /* the third */
    v = decide(&p, t, answered(429));
    assert_true(v.to == DELIVERY_RETRY && v.due_at == NOW + 60000);
}

static void test_a_lost_lease_is_due_at_once(void **state) {
    (void)state;
    struct policy p = defaults();
    struct attempt_tally t = {.number = 5, .window_at = NOW};
    struct verdict v = decide(&p, t, failed(ATTEMPT_LEASE_EXPIRED));
    assert_true(v.to == DELIVERY_RETRY && v.due_at == NOW && v.counted);
    /* It counts, and the window holds for it, too. */
    t.number = p.max_attempts;
    assert_int_equal(decide(&p, t, failed(ATTEMPT_LEASE_EXPIRED)).reason, REASON_ATTEMPTS_EXHAUSTED);
    t = (struct attempt_tally){.number = 1, .window_at = NOW - (int64_t)p.window_seconds * 1000};
    assert_int_equal(decide(&p, t, failed(ATTEMPT_LEASE_EXPIRED)).to, DELIVERY_RETRY);
    t.window_at--;
    assert_int_equal(decide(&p, t, failed(ATTEMPT_LEASE_EXPIRED)).reason, REASON_WINDOW_EXPIRED);
}

/* ---- Retry-After ---- */

static void test_parse_seconds_and_dates(void **state) {
    (void)state;
    const int64_t at = 784111777000; /* Sun, 06 Nov 1994 08:49:37 GMT */
    static const struct {
        const char *value;
        int64_t now_before_ms, delay_ms;
    } cases[] = {
        {"0", 0, 0},
        {"120", 0, 120000},
        {" 120\t", 0, 120000},
        {"007", 0, 7000},
        {"316224000", 0, INT64_C(316224000000)}, /* ten years: the most */
        {"316224001", 0, INT64_C(316224000000)},
        {"99999999999999999999999999", 0, INT64_C(316224000000)},
        {"Sun, 06 Nov 1994 08:49:37 GMT", 60000, 60000},
        {"Sunday, 06-Nov-94 08:49:37 GMT", 60000, 60000},
        {"Sun Nov  6 08:49:37 1994", 60000, 60000},
        {" Sun, 06 Nov 1994 08:49:37 GMT ", 1, 1},
        {"Sun, 06 Nov 1994 08:49:37 GMT", 0, 0},
        {"Sun, 06 Nov 1994 08:49:37 GMT", -60000, 0},
        {"Wednesday, 09-Nov-94 08:49:37 GMT", 0, INT64_C(3) * 86400000},
        {"Fri, 31 Dec 9999 23:59:59 GMT", 0, INT64_C(316224000000)},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        int64_t delay = 7;
        if (retry_after_parse(slice_of(cases[i].value), at - cases[i].now_before_ms, &delay) != 0 ||
            delay != cases[i].delay_ms)
            fail_msg("case %zu, \"%s\", is %lld", i, cases[i].value, (long long)delay);
    }
}

static void test_two_digit_years(void **state) {
    (void)state;
    int64_t delay = 7;
    /* In 2026, 70 is 2070 and 94 is 1994: more than 50 years ahead is of the past. */
    assert_int_equal(retry_after_parse(SLICE_LIT("Thursday, 06-Nov-70 08:49:37 GMT"), NOW, &delay), 0);
    assert_true(delay > 0);
    assert_int_equal(retry_after_parse(SLICE_LIT("Sunday, 06-Nov-94 08:49:37 GMT"), NOW, &delay), 0);
    assert_int_equal(delay, 0);
}

static void test_parse_refusals(void **state) {
    (void)state;
    static const struct slice cases[] = {
        {"", 0},
        {NULL, 0},
        {"  ", 2},
        {"soon", 4},
        {"-5", 2},
        {"+5", 2},
        {"5.5", 3},
        {"1e3", 3},
        {"0x10", 4},
        {"5 s", 3},
        {"5,6", 3},
        {"120\0", 4},
        {"Sun, 06 Nov 1994 08:49:37 GMT\0x", 31},
        {"Sun, 99 Foo 2026 00:00:00 GMT", 29},
        {"Sun, 31 Feb 2026 00:00:00 GMT", 29},
        {"Sun, 06 Nov 1994 08:49:37", 25},
        {"Sun, 06 Nov 1994 08:49:37 UTC", 29},
        {"Sun, 06 Nov 1994 08:49:37 GMT x", 31},
        {"Sun, 06 Nov 1994 24:49:37 GMT", 29},
        {"Sun, 06 Nov 1994 08:60:37 GMT", 29},
        {"06 Nov 1994 08:49:37 GMT", 24},
        {"Sunday, 06-Nov-94", 17},
        {"Sun Nov  6 08:49:37 1994 x", 26},
        {"1994-11-06T08:49:37Z", 20},
        {"Sun, 06 Nov 1994 08:49:37 GMTSun, 06 Nov 1994 08:49:37 GMT0000000", 65},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        int64_t delay = 7;
        if (retry_after_parse(cases[i], NOW, &delay) != -EINVAL)
            fail_msg("case %zu, %.*s, is %lld", i, SLICE_ARG(cases[i]), (long long)delay);
        assert_int_equal(delay, 7);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_status),
        cmocka_unit_test(test_every_error),
        cmocka_unit_test(test_the_status_line_decides),
        cmocka_unit_test(test_overrides),
        cmocka_unit_test(test_class_names),
        cmocka_unit_test(test_exponential),
        cmocka_unit_test(test_odd_exponentials),
        cmocka_unit_test(test_schedule),
        cmocka_unit_test(test_jitter_stays_in_bounds_and_fills_them),
        cmocka_unit_test(test_ends),
        cmocka_unit_test(test_attempts_exhausted),
        cmocka_unit_test(test_a_replay_starts_afresh),
        cmocka_unit_test(test_schedule_ends),
        cmocka_unit_test(test_window),
        cmocka_unit_test(test_retry_after),
        cmocka_unit_test(test_retry_after_is_capped_at_the_window),
        cmocka_unit_test(test_backpressure_is_not_counted),
        cmocka_unit_test(test_backpressure_does_not_use_up_a_schedule),
        cmocka_unit_test(test_a_lost_lease_is_due_at_once),
        cmocka_unit_test(test_parse_seconds_and_dates),
        cmocka_unit_test(test_two_digit_years),
        cmocka_unit_test(test_parse_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
