/* The end of an attempt, and what may follow: a retry, the DLQ, a lost lease, a replay. */
#include "fixture.h"

#include <errno.h>
#include <stdlib.h>

static size_t attempts_of(struct fixture *f, struct id event, uint32_t sub) {
    struct attempts *a = list_attempts(f, event, sub);
    size_t n = a->n;
    free(a);
    return n;
}

static void test_outcome_and_attempt_are_written_together(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f), sub = make_subscription(f, tenant);
    struct id event = publish(f, tenant, sub);
    struct task t = claim_one(f, tenant, sub);
    begin(f);
    settle(f, outcome_of(f, &t, DELIVERY_DELIVERED, 200));
    rollback(f);
    assert_int_equal(state_of(f, tenant, event, sub), DELIVERY_ATTEMPTING);
    assert_int_equal(attempts_of(f, event, sub), 0);
    struct settlement s = settle(f, outcome_of(f, &t, DELIVERY_DELIVERED, 200));
    assert_true(!s.stale && s.released_due_at == 0);
    struct got_delivery d = read_delivery(f, tenant, event, sub);
    assert_true(d.row.state == DELIVERY_DELIVERED && d.row.closed_at == f->now && d.row.last_status == 200);
    assert_int_equal(attempts_of(f, event, sub), 1);
}

static void test_settling_twice_is_refused(void **state) {
    struct fixture *f = *state;
    static const enum delivery_state ends[] = {DELIVERY_DELIVERED, DELIVERY_DLQ, DELIVERY_RETRY};
    uint32_t tenant = make_tenant(f), sub = make_subscription(f, tenant);
    for (size_t i = 0; i < COUNT(ends); i++) {
        struct id event = publish(f, tenant, sub);
        struct task t = claim_one(f, tenant, sub);
        assert_false(settle(f, outcome_of(f, &t, ends[i], 500)).stale);
        assert_true(settle(f, outcome_of(f, &t, DELIVERY_DELIVERED, 200)).stale);
        assert_int_equal(state_of(f, tenant, event, sub), ends[i]);
        assert_int_equal(attempts_of(f, event, sub), 1);
    }
}

static void test_settling_what_was_never_claimed_is_refused(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f), sub = make_subscription(f, tenant);
    struct id event = publish(f, tenant, sub);
    for (uint32_t number = 0; number < 2; number++) {
        struct task t = {.event_key = event.key, .subscription_no = sub, .number = number};
        assert_true(settle(f, outcome_of(f, &t, DELIVERY_DELIVERED, 200)).stale);
    }
    struct task unknown = {.event_key = event.key + 1, .subscription_no = sub, .number = 1};
    assert_true(settle(f, outcome_of(f, &unknown, DELIVERY_DELIVERED, 200)).stale);
    assert_int_equal(state_of(f, tenant, event, sub), DELIVERY_PENDING);
    assert_int_equal(attempts_of(f, event, sub), 0);
}

static void test_late_settle_of_a_lost_lease_is_refused(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f), sub = make_subscription(f, tenant);
    struct id event = publish(f, tenant, sub);
    struct task first = claim_one(f, tenant, sub);
    f->now += 61000;
    struct settlement lost = outcome_of(f, &first, DELIVERY_RETRY, 0);
    lost.due_at = f->now;
    lost.attempt.error = ATTEMPT_LEASE_EXPIRED;
    settle(f, lost);
    struct task second = claim_one(f, tenant, sub);
    assert_int_equal(second.number, 2);
    assert_true(settle(f, outcome_of(f, &first, DELIVERY_DLQ, 404)).stale);
    assert_int_equal(state_of(f, tenant, event, sub), DELIVERY_ATTEMPTING);
    assert_false(settle(f, outcome_of(f, &second, DELIVERY_DELIVERED, 200)).stale);
    struct attempts *a = list_attempts(f, event, sub);
    assert_int_equal(a->n, 2);
    assert_int_equal(a->at[0].attempt.error, ATTEMPT_LEASE_EXPIRED);
    assert_int_equal(a->at[1].attempt.status, 200);
    free(a);
}

static void test_stale_ones_do_not_spoil_a_batch(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f), sub = make_subscription(f, tenant);
    struct id one = publish(f, tenant, sub), two = publish(f, tenant, sub);
    struct claim c = claim(f, lane_of(tenant, sub, 2));
    struct settlement batch[] = {
        outcome_of(f, &c.tasks[0], DELIVERY_DELIVERED, 200),
        outcome_of(f, &c.tasks[0], DELIVERY_DLQ, 404),
        outcome_of(f, &c.tasks[1], DELIVERY_RETRY, 503),
    };
    begin(f);
    assert_int_equal(store_settle(f->store, batch, COUNT(batch)), 0);
    commit(f);
    assert_true(!batch[0].stale && batch[1].stale && !batch[2].stale);
    assert_int_equal(state_of(f, tenant, one, sub), DELIVERY_DELIVERED);
    assert_int_equal(state_of(f, tenant, two, sub), DELIVERY_RETRY);
}

/* Whatever the two say: the outcome that was told first stands. */
static void test_the_first_of_two_settles_counts(void **state) {
    static const enum delivery_state outcomes[] = {DELIVERY_RETRY, DELIVERY_DELIVERED, DELIVERY_DLQ};
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f), sub = make_subscription(f, tenant);
    for (size_t i = 0; i < COUNT(outcomes); i++) {
        for (size_t k = 0; k < COUNT(outcomes); k++) {
            struct id event = publish(f, tenant, sub);
            struct task t = claim_one(f, tenant, sub);
            struct settlement two[] = {outcome_of(f, &t, outcomes[i], 500),
                                       outcome_of(f, &t, outcomes[k], 500)};
            begin(f);
            assert_int_equal(store_settle(f->store, two, COUNT(two)), 0);
            commit(f);
            assert_true(!two[0].stale && two[1].stale);
            assert_int_equal(state_of(f, tenant, event, sub), outcomes[i]);
            assert_int_equal(attempts_of(f, event, sub), 1);
        }
    }
}

static void test_retry_is_due_when_it_says(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f), sub = make_subscription(f, tenant);
    int64_t published_at = f->now;
    publish(f, tenant, sub);
    struct task t = claim_one(f, tenant, sub);
    struct settlement s = settle(f, outcome_of(f, &t, DELIVERY_RETRY, 503));
    struct claim c = claim(f, lane_of(tenant, sub, 5));
    assert_true(c.n == 0 && c.lane.next_due_at == s.due_at);
    f->now = s.due_at;
    t = claim_one(f, tenant, sub);
    assert_true(t.number == 2 && t.uncounted == 0 && t.base == 0 && t.window_at == published_at);
    s = outcome_of(f, &t, DELIVERY_RETRY, 429);
    s.counted = false;
    settle(f, s);
    f->now = s.due_at;
    t = claim_one(f, tenant, sub);
    assert_true(t.number == 3 && t.uncounted == 1);
}

static void test_every_reason_is_kept(void **state) {
    struct fixture *f = *state;
    static const enum delivery_reason reasons[] = {REASON_ATTEMPTS_EXHAUSTED, REASON_WINDOW_EXPIRED,
                                                   REASON_PERMANENT_RESPONSE, REASON_GONE,
                                                   REASON_BLOCKED_ADDRESS};
    uint32_t tenant = make_tenant(f), sub = make_subscription(f, tenant);
    for (size_t i = 0; i < COUNT(reasons); i++) {
        struct id event = publish(f, tenant, sub);
        struct task t = claim_one(f, tenant, sub);
        struct settlement s = outcome_of(f, &t, DELIVERY_DLQ, 410);
        s.reason = reasons[i];
        settle(f, s);
        assert_int_equal(read_delivery(f, tenant, event, sub).row.reason, reasons[i]);
        struct attempts *a = list_attempts(f, event, sub);
        assert_int_equal(a->at[0].reason, reasons[i]);
        free(a);
    }
}

/* ---- leases ---- */

static size_t list_leases(struct fixture *f, int64_t before, struct leased_task *ret, size_t max) {
    size_t n = 99;
    begin(f);
    assert_int_equal(store_list_expired_leases(f->store, before, ret, max, &n), 0);
    commit(f);
    return n;
}

static void test_leases_that_ran_out_are_listed_oldest_first(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f), sub = make_subscription(f, tenant);
    struct leased_task got[8];
    struct task tasks[3];
    int64_t claimed_at = f->now;
    for (size_t i = 0; i < COUNT(tasks); i++) {
        publish_ordered(f, tenant, sub, 10 + i);
        tasks[i] = claim_one(f, tenant, sub);
        f->now += 1000;
    }
    assert_int_equal(list_leases(f, tasks[0].lease_until, got, 8), 0);
    assert_int_equal(list_leases(f, tasks[0].lease_until + 1, got, 8), 1);
    assert_int_equal(list_leases(f, INT64_MAX, got, 2), 2);
    assert_int_equal(list_leases(f, INT64_MAX, got, 8), 3);
    for (size_t i = 0; i < COUNT(tasks); i++) {
        assert_true(got[i].task.event_key == tasks[i].event_key && got[i].task.subscription_no == sub);
        assert_true(got[i].task.number == 1 && got[i].task.lane_key == tasks[i].lane_key);
        assert_true(got[i].task.lease_until == tasks[i].lease_until);
        assert_true(got[i].task.window_at == tasks[i].window_at);
        assert_true(got[i].started_at == claimed_at + (int64_t)i * 1000);
    }
    settle(f, outcome_of(f, &tasks[1], DELIVERY_DELIVERED, 200));
    assert_int_equal(list_leases(f, INT64_MAX, got, 8), 2);
    assert_true(got[1].task.event_key == tasks[2].event_key);
}

static void test_leases_survive_a_restart(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f), sub = make_subscription(f, tenant);
    struct id event = publish(f, tenant, sub);
    (void)claim_one(f, tenant, sub);
    fixture_reopen(f);
    struct leased_task got[2];
    assert_int_equal(list_leases(f, INT64_MAX, got, 2), 1);
    assert_true(got[0].task.event_key == event.key);
    assert_false(settle(f, outcome_of(f, &got[0].task, DELIVERY_DELIVERED, 200)).stale);
}

/* ---- replay ---- */

static int try_replay(struct fixture *f, uint32_t tenant, struct id event, uint32_t sub) {
    begin(f);
    int r = store_replay(f->store, event.key, sub, tenant, 0, f->now, SLICE_LIT("rpl_1"), SLICE_LIT("key_1"));
    commit(f);
    return r;
}

static void test_replay_begins_afresh_and_numbers_on(void **state) {
    struct fixture *f = *state;
    static const enum delivery_state ends[] = {DELIVERY_DLQ, DELIVERY_DELIVERED};
    uint32_t tenant = make_tenant(f), sub = make_subscription(f, tenant);
    for (size_t i = 0; i < COUNT(ends); i++) {
        int64_t published_at = f->now;
        struct id event = publish(f, tenant, sub);
        struct task t = claim_one(f, tenant, sub);
        struct settlement s = outcome_of(f, &t, DELIVERY_RETRY, 429);
        s.counted = false;
        settle(f, s);
        f->now = s.due_at;
        finish_one(f, tenant, sub, ends[i]);
        f->now += 100 * HOUR_MS;
        assert_int_equal(try_replay(f, tenant, event, sub), 0);
        struct got_delivery d = read_delivery(f, tenant, event, sub);
        assert_int_equal(d.row.state, DELIVERY_REPLAYING);
        assert_true(d.row.next_attempt_at == f->now && d.row.replay_at == f->now && d.row.closed_at == 0);
        assert_true(d.row.created_at == published_at && d.row.attempts == 2 && d.row.reason == REASON_NONE);
        assert_string_equal(d.source, "rpl_1");
        assert_string_equal(d.requested_by, "key_1");
        t = claim_one(f, tenant, sub);
        assert_true(t.event_key == event.key && t.number == 3 && t.base == 2 && t.uncounted == 0);
        assert_true(t.window_at == f->now && t.trigger == TRIGGER_REPLAY);
        settle(f, outcome_of(f, &t, DELIVERY_DELIVERED, 200));
        assert_int_equal(attempts_of(f, event, sub), 3);
        struct transitions moves = list_transitions(f, event, sub);
        assert_int_equal(moves.n, 1);
        assert_true(moves.at[0].from == ends[i] && moves.at[0].to == DELIVERY_REPLAYING);
        assert_int_equal(moves.at[0].reason, REASON_REPLAY_REQUESTED);
    }
}

static void test_replay_again_and_again(void **state) {
    struct fixture *f = *state;
    enum { TIMES = 4 };
    uint32_t tenant = make_tenant(f), sub = make_subscription(f, tenant);
    struct id event = publish(f, tenant, sub);
    finish_one(f, tenant, sub, DELIVERY_DELIVERED);
    for (uint32_t i = 1; i <= TIMES; i++) {
        f->now += 10;
        assert_int_equal(try_replay(f, tenant, event, sub), 0);
        struct task t = claim_one(f, tenant, sub);
        assert_true(t.number == i + 1 && t.base == i);
        settle(f, outcome_of(f, &t, i % 2 ? DELIVERY_DLQ : DELIVERY_DELIVERED, 404));
    }
    assert_int_equal(list_transitions(f, event, sub).n, TIMES);
}

static void test_replay_is_refused(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f), sub = make_subscription(f, tenant);
    struct id event = publish(f, tenant, sub);
    assert_int_equal(try_replay(f, tenant, (struct id){.key = event.key + 1}, sub), -ENOENT);
    assert_int_equal(try_replay(f, tenant, event, sub + 1), -ENOENT);
    assert_int_equal(try_replay(f, tenant, event, sub), -EBUSY); /* PENDING */
    struct task t = claim_one(f, tenant, sub);
    assert_int_equal(try_replay(f, tenant, event, sub), -EBUSY); /* ATTEMPTING */
    settle(f, outcome_of(f, &t, DELIVERY_RETRY, 500));
    assert_int_equal(try_replay(f, tenant, event, sub), -EBUSY); /* RETRY */
    f->now += 5000;
    finish_one(f, tenant, sub, DELIVERY_DELIVERED);
    assert_int_equal(try_replay(f, tenant, event, sub), 0);
    assert_int_equal(try_replay(f, tenant, event, sub), -EBUSY); /* REPLAYING */
    assert_int_equal(list_transitions(f, event, sub).n, 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        STORE_TEST(test_outcome_and_attempt_are_written_together),
        STORE_TEST(test_settling_twice_is_refused),
        STORE_TEST(test_settling_what_was_never_claimed_is_refused),
        STORE_TEST(test_late_settle_of_a_lost_lease_is_refused),
        STORE_TEST(test_stale_ones_do_not_spoil_a_batch),
        STORE_TEST(test_the_first_of_two_settles_counts),
        STORE_TEST(test_retry_is_due_when_it_says),
        STORE_TEST(test_every_reason_is_kept),
        STORE_TEST(test_leases_that_ran_out_are_listed_oldest_first),
        STORE_TEST(test_leases_survive_a_restart),
        STORE_TEST(test_replay_begins_afresh_and_numbers_on),
        STORE_TEST(test_replay_again_and_again),
        STORE_TEST(test_replay_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, fixture_end);
}
