#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "api/timeline.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static const int64_t T0 = 1795553340000;

static struct delivery_row delivery(enum delivery_state state, uint32_t attempts) {
    return (struct delivery_row){.event_key = 1,
                                 .subscription_no = 2,
                                 .state = state,
                                 .attempts = attempts,
                                 .created_at = T0,
                                 .claimed_at = state == DELIVERY_ATTEMPTING ? T0 + 900 : 0};
}

static struct attempt_row attempt(uint32_t number, int64_t started, int64_t settled, enum delivery_state to,
                                  int status) {
    return (struct attempt_row){.number = number,
                                .to = to,
                                .settled_at = T0 + settled,
                                .attempt = {.started_at = T0 + started, .status = status}};
}

/* "at from→to reason" of each step, a line each. */
static void assert_steps(const struct delivery_row *row, const struct attempt_row *attempts,
                         size_t attempts_n, const struct transition_row *transitions, size_t transitions_n,
                         const char *expected) {
    struct timeline t = {0};
    struct timeline_source source = {attempts, attempts_n, transitions, transitions_n};
    char text[2048] = "";
    size_t n = 0;
    assert_int_equal(timeline_derive(&t, row, &source), 0);
    for (size_t i = 0; i < t.n; i++) {
        const struct timeline_step *s = &t.steps[i];
        n += (size_t)snprintf(text + n, sizeof text - n, "%lld %s>%s%s%s\n", (long long)(s->at - T0),
                              s->from < 0 ? "-" : delivery_state_name((enum delivery_state)s->from),
                              delivery_state_name(s->to), s->reason[0] ? " " : "", s->reason);
    }
    timeline_free(&t);
    assert_string_equal(text, expected);
}

static void test_fresh(void **state) {
    (void)state;
    struct delivery_row row = delivery(DELIVERY_PENDING, 0);
    assert_steps(&row, NULL, 0, NULL, 0, "0 ->PENDING\n");
}

static void test_under_way(void **state) {
    (void)state;
    struct delivery_row row = delivery(DELIVERY_ATTEMPTING, 2);
    const struct attempt_row attempts[] = {attempt(1, 5, 10, DELIVERY_RETRY, 500)};
    assert_steps(&row, attempts, 1, NULL, 0,
                 "0 ->PENDING\n5 PENDING>ATTEMPTING\n10 ATTEMPTING>RETRY http_500\n900 RETRY>ATTEMPTING\n");
}

static void test_reasons(void **state) {
    (void)state;
    struct delivery_row row = delivery(DELIVERY_DLQ, 4);
    struct attempt_row attempts[] = {
        attempt(1, 1, 2, DELIVERY_RETRY, 0),
        attempt(2, 3, 4, DELIVERY_RETRY, 0),
        attempt(3, 5, 6, DELIVERY_RETRY, 429),
        attempt(4, 7, 8, DELIVERY_DLQ, 404),
    };
    attempts[0].attempt.error = ATTEMPT_TIMEOUT;
    attempts[1].attempt.error = ATTEMPT_LEASE_EXPIRED;
    attempts[3].reason = REASON_PERMANENT_RESPONSE;
    assert_steps(&row, attempts, COUNT(attempts), NULL, 0,
                 "0 ->PENDING\n"
                 "1 PENDING>ATTEMPTING\n2 ATTEMPTING>RETRY timeout\n"
                 "3 RETRY>ATTEMPTING\n4 ATTEMPTING>RETRY lease_expired\n"
                 "5 RETRY>ATTEMPTING\n6 ATTEMPTING>RETRY http_429\n"
                 "7 RETRY>ATTEMPTING\n8 ATTEMPTING>DLQ permanent_response\n");
}

static void test_transitions_without_attempts(void **state) {
    (void)state;
    struct delivery_row row = delivery(DELIVERY_DLQ, 1);
    const struct attempt_row attempts[] = {attempt(1, 10, 20, DELIVERY_RETRY, 503)};
    const struct transition_row transitions[] = {
        {T0 + 30, DELIVERY_RETRY, DELIVERY_DLQ, REASON_SUBSCRIPTION_DELETED}};
    assert_steps(&row, attempts, 1, transitions, 1,
                 "0 ->PENDING\n10 PENDING>ATTEMPTING\n20 ATTEMPTING>RETRY http_503\n"
                 "30 RETRY>DLQ subscription_deleted\n");
}

/* A replay asked for, claimed and settled within the millisecond in which the attempt before it ended. */
static void test_all_in_one_millisecond(void **state) {
    (void)state;
    struct delivery_row row = delivery(DELIVERY_DELIVERED, 2);
    const struct attempt_row attempts[] = {attempt(1, 5, 5, DELIVERY_DELIVERED, 200),
                                           attempt(2, 5, 5, DELIVERY_DELIVERED, 204)};
    const struct transition_row transitions[] = {
        {T0 + 5, DELIVERY_DELIVERED, DELIVERY_REPLAYING, REASON_REPLAY_REQUESTED}};
    assert_steps(&row, attempts, 2, transitions, 1,
                 "0 ->PENDING\n5 PENDING>ATTEMPTING\n5 ATTEMPTING>DELIVERED\n"
                 "5 DELIVERED>REPLAYING replay_requested\n5 REPLAYING>ATTEMPTING\n5 ATTEMPTING>DELIVERED\n");
}

/* The row was read first: what was settled afterwards is not shown, or the steps would contradict its state.
 */
static void test_attempts_settled_later(void **state) {
    (void)state;
    const struct attempt_row attempts[] = {attempt(1, 5, 10, DELIVERY_RETRY, 500),
                                           attempt(2, 900, 950, DELIVERY_DELIVERED, 200)};
    struct delivery_row row = delivery(DELIVERY_ATTEMPTING, 2);
    assert_steps(&row, attempts, 2, NULL, 0,
                 "0 ->PENDING\n5 PENDING>ATTEMPTING\n10 ATTEMPTING>RETRY http_500\n900 RETRY>ATTEMPTING\n");
    row = delivery(DELIVERY_RETRY, 1);
    assert_steps(&row, attempts, 2, NULL, 0,
                 "0 ->PENDING\n5 PENDING>ATTEMPTING\n10 ATTEMPTING>RETRY http_500\n");
}

static void test_rendered(void **state) {
    (void)state;
    struct timeline t = {0};
    _cleanup_buf_ struct buf out = {0};
    struct delivery_row row = delivery(DELIVERY_ATTEMPTING, 1);
    struct timeline_source nothing = {0};
    assert_int_equal(timeline_derive(&t, &row, &nothing), 0);
    timeline_render(&t, &out, false);
    assert_string_equal(out.p,
                        "[{\"at\":\"2026-11-24T20:49:00.000Z\",\"from\":null,\"to\":\"PENDING\",\"reason\":"
                        "null},{\"at\":\"2026-11-24T20:49:00.900Z\",\"from\":\"PENDING\",\"to\":"
                        "\"ATTEMPTING\",\"reason\":null}]");
    timeline_free(&t);
}

static void test_sorted_by_time_and_else_as_added(void **state) {
    (void)state;
    struct timeline t = {0};
    struct timeline_source nothing = {0};
    for (uint32_t no = 1; no <= 50; no++) {
        struct delivery_row row = delivery(DELIVERY_ATTEMPTING, 1);
        row.subscription_no = no;
        assert_int_equal(timeline_derive(&t, &row, &nothing), 0);
    }
    timeline_sort(&t);
    assert_int_equal(t.n, 100);
    for (size_t i = 1; i < t.n; i++) {
        const struct timeline_step *a = &t.steps[i - 1], *b = &t.steps[i];
        assert_true(a->at < b->at || (a->at == b->at && a->order < b->order));
    }
    timeline_free(&t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fresh),
        cmocka_unit_test(test_under_way),
        cmocka_unit_test(test_reasons),
        cmocka_unit_test(test_transitions_without_attempts),
        cmocka_unit_test(test_all_in_one_millisecond),
        cmocka_unit_test(test_attempts_settled_later),
        cmocka_unit_test(test_rendered),
        cmocka_unit_test(test_sorted_by_time_and_else_as_added),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
