/* What a lane gives out: what is due, the longest due first, within its window. Order has a file of its own.
 */
#include "fixture.h"

#include <errno.h>

static void test_task_tells_what_an_attempt_needs(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f), sub = make_subscription(f, tenant);
    int64_t published_at = f->now;
    struct id event = publish(f, tenant, sub);
    f->now += 50;
    struct task t = claim_one(f, tenant, sub);
    assert_true(t.event_key == event.key && t.subscription_no == sub && t.number == 1);
    assert_true(t.base == 0 && t.uncounted == 0 && t.lane_key == 0 && t.window_at == published_at);
    assert_true(t.lease_until == f->now + 60000 && t.trigger == TRIGGER_SCHEDULE);
}

static void test_task_is_given_out_once(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f), sub = make_subscription(f, tenant);
    publish(f, tenant, sub);
    (void)claim_one(f, tenant, sub);
    struct claim c = claim(f, lane_of(tenant, sub, 9));
    assert_int_equal(c.n, 0);
    assert_true(c.lane.next_due_at == INT64_MAX);
}

static void test_longest_due_first_and_no_more_than_the_limit(void **state) {
    struct fixture *f = *state;
    enum { DUE = 150, LIMIT = 70 };
    uint32_t tenant = make_tenant(f), sub = make_subscription(f, tenant);
    struct id events[DUE];
    begin(f);
    for (int i = 0; i < DUE; i++) {
        /* Out of order: every seventh place. */
        int at = i * 7 % DUE;
        events[at] = make_event(f, tenant, (struct event_spec){.at = f->now - DUE + at});
        make_delivery(f, events[at], tenant, sub);
    }
    commit(f);
    size_t next = 0;
    for (int round = 0; round < 3; round++) {
        struct claim c = claim(f, lane_of(tenant, sub, LIMIT));
        assert_int_equal(c.n, round < 2 ? LIMIT : DUE - 2 * LIMIT);
        for (size_t i = 0; i < c.n; i++)
            assert_true(c.tasks[i].event_key == events[next++].key);
        int64_t left = next < DUE ? id_ms(events[next]) : INT64_MAX;
        assert_true(c.lane.next_due_at == left);
    }
}

/* The clock was set back: the order lies ahead of it, and the delivery is due all the same. */
static void test_due_before_its_place_in_the_order(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f), sub = make_subscription(f, tenant);
    struct new_delivery d = {
        .subscription_no = sub, .tenant_no = tenant, .order_at = f->now + HOUR_MS, .due_at = f->now};
    size_t made;
    begin(f);
    d.event_key = make_event(f, tenant, (struct event_spec){.at = f->now + HOUR_MS}).key;
    assert_int_equal(store_insert_deliveries(f->store, &d, 1, &made), 0);
    commit(f);
    assert_true(claim_one(f, tenant, sub).event_key == d.event_key);
}

/* Made with its first attempt: as if it had been claimed. */
static void test_begun_as_it_is_made(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f), sub = make_subscription(f, tenant);
    struct id event = make_event(f, tenant, (struct event_spec){0});
    struct new_delivery d = {.event_key = event.key,
                             .subscription_no = sub,
                             .tenant_no = tenant,
                             .order_at = f->now,
                             .begun_at = f->now,
                             .lease_until = f->now + HOUR_MS};
    size_t made, n;
    begin(f);
    assert_int_equal(store_insert_deliveries(f->store, &d, 1, &made), 0);
    assert_int_equal(made, 1);
    commit(f);
    assert_int_equal(state_of(f, tenant, event, sub), DELIVERY_ATTEMPTING);
    struct claim c = claim(f, lane_of(tenant, sub, 5));
    assert_true(c.n == 0 && c.lane.next_due_at == INT64_MAX);
    struct leased_task leases[2];
    begin(f);
    assert_int_equal(store_list_expired_leases(f->store, d.lease_until + 1, leases, 2, &n), 0);
    assert_int_equal(n, 1);
    assert_true(leases[0].started_at == f->now && leases[0].task.number == 1);
    assert_int_equal(leases[0].task.trigger, TRIGGER_SCHEDULE);
    commit(f);
    settle(f, outcome_of(f, &leases[0].task, DELIVERY_DELIVERED, 200));
    assert_int_equal(state_of(f, tenant, event, sub), DELIVERY_DELIVERED);
}

static void test_what_is_not_due_waits(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f), sub = make_subscription(f, tenant);
    struct id event = make_event(f, tenant, (struct event_spec){.deliver_at = f->now + HOUR_MS});
    struct new_delivery d = {
        .event_key = event.key, .subscription_no = sub, .tenant_no = tenant, .order_at = f->now + HOUR_MS};
    size_t made;
    begin(f);
    assert_int_equal(store_insert_deliveries(f->store, &d, 1, &made), 0);
    commit(f);
    struct claim c = claim(f, lane_of(tenant, sub, 5));
    assert_int_equal(c.n, 0);
    assert_true(c.lane.next_due_at == f->now + HOUR_MS);
    f->now += HOUR_MS - 1;
    assert_int_equal(claim(f, lane_of(tenant, sub, 5)).n, 0);
    f->now++;
    struct task t = claim_one(f, tenant, sub);
    /* The window of a delayed event begins when it is to be delivered. */
    assert_true(t.event_key == event.key && t.window_at == f->now);
}

static void test_a_held_lane_claims_nothing(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f), sub = make_subscription(f, tenant),
             other = make_subscription(f, tenant);
    struct id event = publish(f, tenant, sub);
    publish(f, tenant, other);
    struct lane_claim lanes[] = {lane_of(tenant, sub, 2), lane_of(tenant, other, 2)};
    struct task tasks[4];
    struct expired_task expired[1];
    size_t n = 0, expired_n = 9;
    lanes[0].held = true;
    f->now += 73 * HOUR_MS; /* nor is anything given up */
    lanes[1].resumed_at = f->now;
    begin(f);
    assert_int_equal(
        store_claim(f->store, lanes, COUNT(lanes), f->now, tasks, COUNT(tasks), &n, expired, 1, &expired_n),
        0);
    commit(f);
    assert_true(n == 1 && tasks[0].subscription_no == other && expired_n == 0);
    assert_true(lanes[0].claimed == 0 && lanes[0].expired == 0 && lanes[0].next_due_at == f->now);
    assert_int_equal(state_of(f, tenant, event, sub), DELIVERY_PENDING);
}

static void test_lanes_have_their_own(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f), one = make_subscription(f, tenant), two = make_subscription(f, tenant);
    uint32_t empty = make_subscription(f, tenant);
    for (int i = 0; i < 3; i++) {
        publish(f, tenant, one);
        publish(f, tenant, two);
    }
    struct lane_claim lanes[] = {lane_of(tenant, one, 2), lane_of(tenant, empty, 5), lane_of(tenant, two, 5)};
    struct task tasks[12];
    struct expired_task expired[1];
    size_t n = 0, expired_n = 9;
    begin(f);
    assert_int_equal(
        store_claim(f->store, lanes, COUNT(lanes), f->now, tasks, COUNT(tasks), &n, expired, 1, &expired_n),
        0);
    commit(f);
    assert_true(n == 5 && expired_n == 0);
    assert_true(lanes[0].claimed == 2 && lanes[1].claimed == 0 && lanes[2].claimed == 3);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(tasks[i].subscription_no, i < 2 ? one : two);
    assert_true(lanes[0].next_due_at == f->now && lanes[1].next_due_at == INT64_MAX);
}

static void test_triggers(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f), sub = make_subscription(f, tenant);
    struct id event = make_event(f, tenant, (struct event_spec){.type = "posthorn.test"});
    struct new_delivery d = {.event_key = event.key,
                             .subscription_no = sub,
                             .tenant_no = tenant,
                             .order_at = f->now,
                             .test = true};
    size_t made;
    begin(f);
    assert_int_equal(store_insert_deliveries(f->store, &d, 1, &made), 0);
    commit(f);
    struct task t = claim_one(f, tenant, sub);
    assert_int_equal(t.trigger, TRIGGER_TEST);
    settle(f, outcome_of(f, &t, DELIVERY_DELIVERED, 200));
    begin(f);
    assert_int_equal(store_replay(f->store, event.key, sub, tenant_of(f, sub), 0, f->now, SLICE_LIT("one"),
                                  SLICE_LIT("key_1")),
                     0);
    commit(f);
    assert_int_equal(claim_one(f, tenant, sub).trigger, TRIGGER_REPLAY);
}

/* ---- windows ---- */

static void assert_expired(struct fixture *f, uint32_t tenant, struct id event, uint32_t sub,
                           enum delivery_state from) {
    struct got_delivery d = read_delivery(f, tenant, event, sub);
    assert_int_equal(d.row.state, DELIVERY_DLQ);
    assert_int_equal(d.row.reason, REASON_WINDOW_EXPIRED);
    assert_true(d.row.closed_at == f->now && d.row.next_attempt_at == 0);
    struct transitions t = list_transitions(f, event, sub);
    assert_true(t.n > 0);
    assert_true(t.at[t.n - 1].from == from && t.at[t.n - 1].to == DELIVERY_DLQ);
    assert_int_equal(t.at[t.n - 1].reason, REASON_WINDOW_EXPIRED);
}

static void test_closed_window_leads_to_the_dlq(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f), sub = make_subscription(f, tenant);
    struct id never_sent = publish(f, tenant, sub), retried = publish(f, tenant, sub);
    struct claim c = claim(f, lane_of(tenant, sub, 2));
    assert_int_equal(c.n, 2);
    settle(f, outcome_of(f, &c.tasks[1], DELIVERY_RETRY, 500));
    struct settlement lost = outcome_of(f, &c.tasks[0], DELIVERY_RETRY, 0);
    lost.due_at = f->now;
    settle(f, lost);
    struct id fresh = make_event(f, tenant, (struct event_spec){.at = f->now + 72 * HOUR_MS});
    make_delivery(f, fresh, tenant, sub);
    f->now += 72 * HOUR_MS + 1;
    c = claim(f, lane_of(tenant, sub, 5));
    assert_true(c.n == 1 && c.tasks[0].event_key == fresh.key);
    assert_int_equal(c.expired_n, 2);
    assert_true(c.expired[0].event_key == never_sent.key && c.expired[1].event_key == retried.key);
    assert_expired(f, tenant, never_sent, sub, DELIVERY_RETRY);
    assert_expired(f, tenant, retried, sub, DELIVERY_RETRY);
}

static void test_window_is_open_until_its_very_end(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f), sub = make_subscription(f, tenant);
    publish(f, tenant, sub);
    f->now += 72 * HOUR_MS;
    assert_int_equal(claim(f, lane_of(tenant, sub, 5)).n, 1);
}

static void test_pause_past_the_window_leaves_one_attempt(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f), sub = make_subscription(f, tenant);
    publish(f, tenant, sub);
    f->now += 80 * HOUR_MS;
    struct lane_claim lane = lane_of(tenant, sub, 5);
    lane.resumed_at = f->now;
    struct claim c = claim(f, lane);
    assert_true(c.n == 1 && c.expired_n == 0);
    /* One that was resumed while its window was open has no such claim. */
    publish(f, tenant, sub);
    f->now += 80 * HOUR_MS;
    lane.resumed_at = f->now - 40 * HOUR_MS;
    c = claim(f, lane);
    assert_true(c.n == 0 && c.expired_n == 1);
}

static void test_backpressure_up_to_the_window_leaves_one_attempt(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f), sub = make_subscription(f, tenant);
    publish(f, tenant, sub);
    struct task t = claim_one(f, tenant, sub);
    struct settlement s = outcome_of(f, &t, DELIVERY_RETRY, 429);
    s.due_at = t.window_at + 72 * HOUR_MS;
    settle(f, s);
    f->now = s.due_at + 1000;
    struct claim c = claim(f, lane_of(tenant, sub, 5));
    assert_true(c.n == 1 && c.expired_n == 0);
}

/* The policy's window was made shorter than the retry's delay, which was settled before. */
static void test_a_shorter_window_holds_for_what_is_due_behind_it(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f), sub = make_subscription(f, tenant);
    struct id event = publish(f, tenant, sub);
    struct task t = claim_one(f, tenant, sub);
    struct settlement s = outcome_of(f, &t, DELIVERY_RETRY, 500);
    f->now = s.due_at = f->now + 6 * HOUR_MS;
    settle(f, s);
    struct lane_claim lane = lane_of(tenant, sub, 5);
    lane.window_ms = HOUR_MS;
    assert_int_equal(claim(f, lane).n, 0);
    assert_expired(f, tenant, event, sub, DELIVERY_RETRY);
}

static void test_lane_stops_when_expired_is_full(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f), sub = make_subscription(f, tenant);
    for (int i = 0; i < 5; i++)
        publish(f, tenant, sub);
    f->now += 80 * HOUR_MS;
    size_t total = 0;
    for (int round = 0; round < 3; round++) {
        struct lane_claim lane = lane_of(tenant, sub, 5);
        struct task tasks[5];
        struct expired_task expired[2];
        size_t n = 9, expired_n = 9;
        begin(f);
        assert_int_equal(store_claim(f->store, &lane, 1, f->now, tasks, 5, &n, expired, 2, &expired_n), 0);
        commit(f);
        assert_true(n == 0 && expired_n <= 2 && lane.expired == expired_n);
        assert_true((lane.next_due_at != INT64_MAX) == (round < 2));
        total += expired_n;
    }
    assert_int_equal(total, 5);
}

static void test_lane_that_does_not_claim_expires_too(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f), sub = make_subscription(f, tenant);
    struct id retried = publish(f, tenant, sub), replayed = publish(f, tenant, sub);
    struct claim c = claim(f, lane_of(tenant, sub, 2));
    struct settlement s = outcome_of(f, &c.tasks[0], DELIVERY_RETRY, 500);
    s.due_at = f->now + 71 * HOUR_MS;
    settle(f, s);
    settle(f, outcome_of(f, &c.tasks[1], DELIVERY_DLQ, 404));
    struct id waiting = publish(f, tenant, sub);
    f->now += 10 * HOUR_MS;
    struct id younger = publish(f, tenant, sub);
    begin(f);
    assert_int_equal(store_replay(f->store, replayed.key, sub, tenant_of(f, sub), 0, f->now, SLICE_LIT("one"),
                                  SLICE_LIT("key_1")),
                     0);
    commit(f);
    f->now += 62 * HOUR_MS + 1;
    struct lane_expiry lane = {.subscription_no = sub, .window_ms = 72 * HOUR_MS};
    struct expired_task expired[9];
    size_t n = 9, more = 9;
    begin(f);
    assert_int_equal(store_expire(f->store, &lane, f->now, expired, 1, &n), 0);
    assert_int_equal(n, 1);
    assert_int_equal(store_expire(f->store, &lane, f->now, expired, 9, &more), 0);
    assert_int_equal(more, 1);
    commit(f);
    assert_expired(f, tenant, retried, sub, DELIVERY_RETRY);
    assert_expired(f, tenant, waiting, sub, DELIVERY_PENDING);
    assert_int_equal(state_of(f, tenant, younger, sub), DELIVERY_PENDING);
    assert_int_equal(state_of(f, tenant, replayed, sub), DELIVERY_REPLAYING);
    f->now += 10 * HOUR_MS;
    begin(f);
    assert_int_equal(store_expire(f->store, &lane, f->now, expired, 9, &n), 0);
    commit(f);
    assert_int_equal(n, 2);
    assert_expired(f, tenant, replayed, sub, DELIVERY_REPLAYING);
    assert_expired(f, tenant, younger, sub, DELIVERY_PENDING);
}

/* What a claim would give its last attempt, a lane that only probes keeps; a disabled one does not. */
static void test_a_last_attempt_to_come_is_not_expired(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f), sub = make_subscription(f, tenant);
    struct id at_the_end = publish(f, tenant, sub), before = publish(f, tenant, sub);
    int64_t begun_at = f->now;
    struct claim c = claim(f, lane_of(tenant, sub, 2));
    for (size_t i = 0; i < 2; i++) {
        struct settlement s = outcome_of(f, &c.tasks[i], DELIVERY_RETRY, 429);
        s.due_at = begun_at + 72 * HOUR_MS - (c.tasks[i].event_key == before.key);
        settle(f, s);
    }
    struct id held_back = publish(f, tenant, sub);
    f->now += HOUR_MS;
    struct id later = publish(f, tenant, sub);
    f->now += 72 * HOUR_MS + 1;
    struct lane_expiry lane = {.subscription_no = sub,
                               .window_ms = 72 * HOUR_MS,
                               .resumed_at = begun_at + 72 * HOUR_MS,
                               .spare_ms = 2 * HOUR_MS};
    struct expired_task expired[9];
    size_t n = 9;
    begin(f);
    assert_int_equal(store_expire(f->store, &lane, f->now, expired, 9, &n), 0);
    assert_true(n == 1 && expired[0].event_key == later.key); /* its window closed after the pause */
    lane.resumed_at = 0;
    assert_int_equal(store_expire(f->store, &lane, f->now, expired, 9, &n), 0);
    assert_int_equal(n, 2);
    commit(f);
    assert_expired(f, tenant, before, sub, DELIVERY_RETRY);
    assert_expired(f, tenant, held_back, sub, DELIVERY_PENDING);
    assert_int_equal(state_of(f, tenant, at_the_end, sub), DELIVERY_RETRY);
    lane.spare_ms = HOUR_MS; /* an hour and a millisecond have passed */
    begin(f);
    assert_int_equal(store_expire(f->store, &lane, f->now, expired, 9, &n), 0);
    assert_int_equal(n, 1);
    commit(f);
    assert_expired(f, tenant, at_the_end, sub, DELIVERY_RETRY);
}

static void test_a_pause_spares_for_a_while_only(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f), sub = make_subscription(f, tenant);
    struct id event = publish(f, tenant, sub);
    f->now += 80 * HOUR_MS;
    struct lane_expiry lane = {
        .subscription_no = sub, .window_ms = 72 * HOUR_MS, .resumed_at = f->now, .spare_ms = HOUR_MS};
    struct expired_task expired[9];
    size_t n = 9;
    begin(f);
    assert_int_equal(store_expire(f->store, &lane, f->now + HOUR_MS - 1, expired, 9, &n), 0);
    assert_int_equal(n, 0);
    assert_int_equal(store_expire(f->store, &lane, f->now + HOUR_MS, expired, 9, &n), 0);
    assert_int_equal(n, 1);
    commit(f);
    f->now += HOUR_MS;
    assert_expired(f, tenant, event, sub, DELIVERY_PENDING);
}

/* ---- lanes with work ---- */

static void test_lanes_due(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f), subs[5];
    for (size_t i = 0; i < COUNT(subs); i++)
        subs[i] = make_subscription(f, tenant);
    int64_t earliest = f->now;
    publish(f, tenant, subs[0]);
    f->now += 10;
    publish(f, tenant, subs[0]);
    publish(f, tenant, subs[1]); /* under way */
    (void)claim_one(f, tenant, subs[1]);
    publish(f, tenant, subs[3]); /* will be tried again */
    struct task t = claim_one(f, tenant, subs[3]);
    struct settlement s = settle(f, outcome_of(f, &t, DELIVERY_RETRY, 500));
    publish_ordered(f, tenant, subs[4], 7); /* under way, and one behind it */
    (void)claim_one(f, tenant, subs[4]);
    publish_ordered(f, tenant, subs[4], 7);
    /* A store may see that it is blocked only when it comes to it. */
    assert_int_equal(claim(f, lane_of(tenant, subs[4], 9)).n, 0);
    struct lane_due due[4];
    size_t n = 0;
    begin(f);
    assert_int_equal(store_list_lanes_due(f->store, subs[0] - 1, due, 4, &n), 0);
    assert_int_equal(n, 2);
    assert_true(due[0].subscription_no == subs[0] && due[0].due_at == earliest);
    assert_true(due[1].subscription_no == subs[3] && due[1].due_at == s.due_at);
    assert_int_equal(store_list_lanes_due(f->store, subs[0] - 1, due, 1, &n), 0);
    assert_int_equal(n, 1);
    assert_int_equal(store_list_lanes_due(f->store, subs[0], due, 4, &n), 0);
    assert_true(n == 1 && due[0].subscription_no == subs[3]);
    commit(f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        STORE_TEST(test_task_tells_what_an_attempt_needs),
        STORE_TEST(test_task_is_given_out_once),
        STORE_TEST(test_longest_due_first_and_no_more_than_the_limit),
        STORE_TEST(test_due_before_its_place_in_the_order),
        STORE_TEST(test_begun_as_it_is_made),
        STORE_TEST(test_what_is_not_due_waits),
        STORE_TEST(test_a_held_lane_claims_nothing),
        STORE_TEST(test_lanes_have_their_own),
        STORE_TEST(test_triggers),
        STORE_TEST(test_closed_window_leads_to_the_dlq),
        STORE_TEST(test_window_is_open_until_its_very_end),
        STORE_TEST(test_pause_past_the_window_leaves_one_attempt),
        STORE_TEST(test_backpressure_up_to_the_window_leaves_one_attempt),
        STORE_TEST(test_a_shorter_window_holds_for_what_is_due_behind_it),
        STORE_TEST(test_lane_stops_when_expired_is_full),
        STORE_TEST(test_lane_that_does_not_claim_expires_too),
        STORE_TEST(test_a_last_attempt_to_come_is_not_expired),
        STORE_TEST(test_a_pause_spares_for_a_while_only),
        STORE_TEST(test_lanes_due),
    };
    return cmocka_run_group_tests(tests, NULL, fixture_end);
}
