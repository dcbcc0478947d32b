#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include <errno.h>

#include "core/delivery.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

/* api.md §4, every pair written out: "-" never, "a" with an attempt, "d" without one and only for the three
 * reasons of giving up, "r" without one for a replay. Rows are from, columns to. */
static const char *const TABLE[DELIVERY_STATES][DELIVERY_STATES] = {
    /*                  PENDING ATTEMPTING RETRY DELIVERED DLQ REPLAYING */
    [DELIVERY_PENDING] = {"-", "a", "-", "-", "d", "-"},
    [DELIVERY_ATTEMPTING] = {"-", "-", "a", "a", "a", "-"},
    [DELIVERY_RETRY] = {"-", "a", "-", "-", "d", "-"},
    [DELIVERY_DELIVERED] = {"-", "-", "-", "-", "-", "r"},
    [DELIVERY_DLQ] = {"-", "-", "-", "-", "-", "r"},
    [DELIVERY_REPLAYING] = {"-", "a", "-", "-", "d", "-"},
};

static bool gives_up(enum delivery_reason reason) {
    return reason == REASON_WINDOW_EXPIRED || reason == REASON_SUBSCRIPTION_DELETED ||
           reason == REASON_REPLAY_CANCELLED;
}

static void test_every_transition(void **state) {
    (void)state;
    /* The table's columns stand in this order. */
    assert_int_equal(DELIVERY_PENDING, 0);
    assert_int_equal(DELIVERY_ATTEMPTING, 1);
    assert_int_equal(DELIVERY_RETRY, 2);
    assert_int_equal(DELIVERY_DELIVERED, 3);
    assert_int_equal(DELIVERY_DLQ, 4);
    assert_int_equal(DELIVERY_REPLAYING, 5);
    for (unsigned i = 0; i < DELIVERY_STATES * DELIVERY_STATES * DELIVERY_REASONS; i++) {
        enum delivery_state from = i / DELIVERY_REASONS / DELIVERY_STATES;
        enum delivery_state to = i / DELIVERY_REASONS % DELIVERY_STATES;
        enum delivery_reason reason = i % DELIVERY_REASONS;
        char how = TABLE[from][to][0];
        if (delivery_transition_allowed(from, to, true, reason) != (how == 'a'))
            fail_msg("%s to %s with an attempt", delivery_state_name(from), delivery_state_name(to));
        if (delivery_transition_allowed(from, to, false, reason) !=
            (how == 'r' || (how == 'd' && gives_up(reason))))
            fail_msg("%s to %s without an attempt, reason %u", delivery_state_name(from),
                     delivery_state_name(to), (unsigned)reason);
    }
}

static void test_state_names(void **state) {
    (void)state;
    static const char *const names[] = {"PENDING", "ATTEMPTING", "RETRY", "DELIVERED", "DLQ", "REPLAYING"};
    assert_int_equal(COUNT(names), DELIVERY_STATES);
    for (unsigned i = 0; i < DELIVERY_STATES; i++) {
        enum delivery_state back;
        assert_string_equal(delivery_state_name((enum delivery_state)i), names[i]);
        assert_int_equal(delivery_state_parse(slice_of(names[i]), &back), 0);
        assert_int_equal(back, i);
    }
}

static void test_state_parse(void **state) {
    (void)state;
    enum delivery_state s = DELIVERY_RETRY;
    static const char *const bad[] = {"", "RETR", "RETRYX", " RETRY", "deleted"};
    for (size_t i = 0; i < COUNT(bad); i++)
        assert_int_equal(delivery_state_parse(slice_of(bad[i]), &s), -EINVAL);
    assert_int_equal(delivery_state_parse(SLICE_LIT("DLQ\0"), &s), -EINVAL);
    assert_int_equal(delivery_state_parse(SLICE_NONE, &s), -EINVAL);
    assert_int_equal(s, DELIVERY_RETRY);
    assert_int_equal(delivery_state_parse(SLICE_LIT("dlq"), &s), 0);
    assert_int_equal(s, DELIVERY_DLQ);
    assert_int_equal(delivery_state_parse(SLICE_LIT("Delivered"), &s), 0);
    assert_int_equal(s, DELIVERY_DELIVERED);
}

static void test_words(void **state) {
    (void)state;
    static const char *const reasons[] = {NULL,
                                          "attempts_exhausted",
                                          "window_expired",
                                          "permanent_response",
                                          "gone",
                                          "blocked_address",
                                          "subscription_deleted",
                                          "replay_cancelled",
                                          "replay_requested"};
    static const char *const errors[] = {NULL,       "timeout",       "connect_refused", "connect_failed",
                                         "dns",      "tls",           "blocked_address", "reset",
                                         "protocol", "lease_expired", "internal"};
    assert_null(delivery_reason_name(REASON_NONE));
    for (unsigned i = 1; i < COUNT(reasons); i++)
        assert_string_equal(delivery_reason_name((enum delivery_reason)i), reasons[i]);
    assert_null(attempt_error_name(ATTEMPT_OK));
    for (unsigned i = 1; i < COUNT(errors); i++)
        assert_string_equal(attempt_error_name((enum attempt_error)i), errors[i]);
    for (unsigned i = 1; i < ATTEMPT_ERRORS; i++)
        assert_non_null(attempt_error_name((enum attempt_error)i));
    for (unsigned i = 1; i < DELIVERY_REASONS; i++)
        assert_non_null(delivery_reason_name((enum delivery_reason)i));
    assert_string_equal(attempt_trigger_name(TRIGGER_SCHEDULE), "schedule");
    assert_string_equal(attempt_trigger_name(TRIGGER_REPLAY), "replay");
    assert_string_equal(attempt_trigger_name(TRIGGER_TEST), "test");
}

static void test_open_and_closed(void **state) {
    (void)state;
    assert_true(delivery_is_open(DELIVERY_PENDING));
    assert_true(delivery_is_open(DELIVERY_ATTEMPTING));
    assert_true(delivery_is_open(DELIVERY_RETRY));
    assert_true(delivery_is_open(DELIVERY_REPLAYING));
    assert_false(delivery_is_open(DELIVERY_DELIVERED));
    assert_false(delivery_is_open(DELIVERY_DLQ));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_transition), cmocka_unit_test(test_state_names),
        cmocka_unit_test(test_state_parse),      cmocka_unit_test(test_words),
        cmocka_unit_test(test_open_and_closed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
