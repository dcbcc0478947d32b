/* Ordered lanes: one at a time per lane key, in publish order, whatever happens to them. */
#include "fixture.h"

#include <stdlib.h>

#include "base/random.h"

static struct settlement settle_head(struct fixture *f, uint32_t tenant, uint32_t sub,
                                     enum delivery_state to) {
    struct task t = claim_one(f, tenant, sub);
    return settle(f, outcome_of(f, &t, to, 500));
}

static void test_only_the_head_of_a_key_is_given_out(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f), sub = make_subscription(f, tenant);
    struct id first = publish_ordered(f, tenant, sub, 7), second = publish_ordered(f, tenant, sub, 7);
    struct id other = publish_ordered(f, tenant, sub, 9), unordered = publish(f, tenant, sub);
    struct claim c = claim(f, lane_of(tenant, sub, 9));
    assert_int_equal(c.n, 3);
    assert_true(c.tasks[0].event_key == first.key && c.tasks[0].lane_key == 7);
    assert_true(c.tasks[1].event_key == other.key && c.tasks[1].lane_key == 9);
    assert_true(c.tasks[2].event_key == unordered.key && c.tasks[2].lane_key == 0);
    assert_int_equal(state_of(f, tenant, second, sub), DELIVERY_PENDING);
}

static void test_end_of_the_head_releases_the_next(void **state) {
    struct fixture *f = *state;
    static const enum delivery_state ends[] = {DELIVERY_DELIVERED, DELIVERY_DLQ};
    uint32_t tenant = make_tenant(f), sub = make_subscription(f, tenant);
    for (size_t i = 0; i < COUNT(ends); i++) {
        int64_t published_at = f->now;
        publish_ordered(f, tenant, sub, 7);
        struct id second = publish_ordered(f, tenant, sub, 7);
        f->now += 500;
        struct settlement s = settle_head(f, tenant, sub, ends[i]);
        assert_true(s.released_due_at == published_at);
        assert_true(claim_one(f, tenant, sub).event_key == second.key);
        struct task t = {.event_key = second.key, .subscription_no = sub, .number = 1, .lane_key = 7};
        assert_true(settle(f, outcome_of(f, &t, DELIVERY_DELIVERED, 200)).released_due_at == 0);
    }
}

/* Ids only go forward: those of a moment that the clock has fallen back behind are not waited for. */
static void test_a_clock_that_went_back_delays_no_successor(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f), sub = make_subscription(f, tenant);
    publish_ordered(f, tenant, sub, 7);
    struct id second = publish_ordered(f, tenant, sub, 7);
    struct task t = claim_one(f, tenant, sub);
    f->now -= 60000;
    assert_true(settle(f, outcome_of(f, &t, DELIVERY_DELIVERED, 200)).released_due_at == f->now);
    assert_true(claim_one(f, tenant, sub).event_key == second.key);
}

static void test_head_that_is_tried_again_holds_the_others(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f), sub = make_subscription(f, tenant);
    struct id first = publish_ordered(f, tenant, sub, 7);
    publish_ordered(f, tenant, sub, 7);
    struct settlement s = settle_head(f, tenant, sub, DELIVERY_RETRY);
    struct claim c = claim(f, lane_of(tenant, sub, 9));
    assert_int_equal(c.n, 0);
    assert_true(c.lane.next_due_at == s.due_at);
    f->now = s.due_at;
    assert_true(claim_one(f, tenant, sub).event_key == first.key);
}

static void test_expired_head_releases_the_next(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f), sub = make_subscription(f, tenant);
    publish_ordered(f, tenant, sub, 7);
    f->now += 73 * HOUR_MS;
    struct id second = publish_ordered(f, tenant, sub, 7);
    struct claim c = claim(f, lane_of(tenant, sub, 9));
    assert_int_equal(c.expired_n, 1);
    assert_true(c.n == 1 && c.tasks[0].event_key == second.key);
}

/* What a pause held back past its window gets one more attempt, and so does what backpressure put off to the
 * window's very end. */
static void test_the_last_attempt_of_an_ordered_lane(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f), sub = make_subscription(f, tenant);
    struct id paused = publish_ordered(f, tenant, sub, 7), put_off = publish_ordered(f, tenant, sub, 8);
    struct lane_claim resumed = lane_of(tenant, sub, 9);
    int64_t end = f->now + resumed.window_ms;
    struct claim c = claim(f, lane_of(tenant, sub, 9));
    assert_int_equal(c.n, 2);
    for (size_t i = 0; i < 2; i++) {
        struct settlement s = outcome_of(f, &c.tasks[i], DELIVERY_RETRY, 429);
        s.due_at = c.tasks[i].event_key == put_off.key ? end : end - 1;
        settle(f, s);
    }
    f->now = end + HOUR_MS;
    resumed.resumed_at = end + 1;
    c = claim(f, resumed);
    assert_true(c.n == 2 && c.expired_n == 0);
    for (size_t i = 0; i < 2; i++) {
        struct settlement s = outcome_of(f, &c.tasks[i], DELIVERY_RETRY, 429);
        s.due_at = s.event_key == put_off.key ? end : end - 1;
        settle(f, s);
    }
    resumed.resumed_at = end - 1; /* before its window had closed: that was no pause that held it back */
    c = claim(f, resumed);
    assert_true(c.n == 1 && c.tasks[0].event_key == put_off.key);
    assert_true(c.expired_n == 1 && c.expired[0].event_key == paused.key);
}

static void test_what_is_not_due_yet_blocks_nobody(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f), sub = make_subscription(f, tenant);
    struct id later = make_event(f, tenant, (struct event_spec){.deliver_at = f->now + HOUR_MS});
    struct new_delivery d = {.event_key = later.key,
                             .subscription_no = sub,
                             .tenant_no = tenant,
                             .lane_key = 7,
                             .order_at = f->now + HOUR_MS};
    size_t made;
    begin(f);
    assert_int_equal(store_insert_deliveries(f->store, &d, 1, &made), 0);
    commit(f);
    struct id now = publish_ordered(f, tenant, sub, 7);
    assert_true(claim_one(f, tenant, sub).event_key == now.key);
    /* When it has come due, the one before it goes first still. */
    f->now += HOUR_MS;
    assert_int_equal(claim(f, lane_of(tenant, sub, 9)).n, 0);
    struct task t = {.event_key = now.key, .subscription_no = sub, .number = 1, .lane_key = 7};
    settle(f, outcome_of(f, &t, DELIVERY_DELIVERED, 200));
    assert_true(claim_one(f, tenant, sub).event_key == later.key);
}

/* It was published before, but commits only when the one after it is under way. */
static void test_late_comer_waits_for_what_is_under_way(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f), sub = make_subscription(f, tenant);
    struct id second = publish_ordered(f, tenant, sub, 7);
    struct task t = claim_one(f, tenant, sub);
    assert_true(t.event_key == second.key);
    begin(f);
    struct id first = make_event(f, tenant, (struct event_spec){.at = f->now - 10});
    make_ordered(f, first, tenant, sub, 7);
    commit(f);
    assert_int_equal(claim(f, lane_of(tenant, sub, 9)).n, 0);
    assert_true(settle(f, outcome_of(f, &t, DELIVERY_DELIVERED, 200)).released_due_at != 0);
    assert_true(claim_one(f, tenant, sub).event_key == first.key);
}

static void test_publish_order_of_one_moment(void **state) {
    struct fixture *f = *state;
    enum { BATCH = 20 };
    uint32_t tenant = make_tenant(f), sub = make_subscription(f, tenant);
    struct id events[BATCH];
    for (size_t i = 0; i < BATCH; i++)
        events[i] = make_event(f, tenant, (struct event_spec){0});
    /* Deliveries may be made in any order. */
    for (size_t i = BATCH; i-- > 0;)
        make_ordered(f, events[i], tenant, sub, 1);
    for (size_t i = 0; i < BATCH; i++) {
        struct task t = claim_one(f, tenant, sub);
        assert_true(t.event_key == events[i].key);
        settle(f, outcome_of(f, &t, DELIVERY_DELIVERED, 200));
    }
}

static void test_lost_lease_keeps_the_order(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f), sub = make_subscription(f, tenant);
    struct id first = publish_ordered(f, tenant, sub, 7);
    publish_ordered(f, tenant, sub, 7);
    struct task t = claim_one(f, tenant, sub);
    f->now += 2 * HOUR_MS;
    assert_int_equal(claim(f, lane_of(tenant, sub, 9)).n, 0);
    struct settlement lost = outcome_of(f, &t, DELIVERY_RETRY, 0);
    lost.attempt.error = ATTEMPT_LEASE_EXPIRED;
    lost.due_at = f->now;
    settle(f, lost);
    assert_true(claim_one(f, tenant, sub).event_key == first.key);
}

/* ---- replays ---- */

static void replay(struct fixture *f, struct id event, uint32_t sub, uint64_t lane_key) {
    begin(f);
    assert_int_equal(store_replay(f->store, event.key, sub, tenant_of(f, sub), lane_key, f->now,
                                  SLICE_LIT("one"), SLICE_LIT("key_1")),
                     0);
    commit(f);
}

static void test_replay_is_serialised_with_its_key(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f), sub = make_subscription(f, tenant);
    struct id old = publish_ordered(f, tenant, sub, 7);
    finish_one(f, tenant, sub, DELIVERY_DLQ);
    f->now += 10;
    struct id current = publish_ordered(f, tenant, sub, 7);
    struct task t = claim_one(f, tenant, sub);
    assert_true(t.event_key == current.key);
    f->now += 10;
    replay(f, old, sub, 7);
    assert_int_equal(claim(f, lane_of(tenant, sub, 9)).n, 0);
    assert_true(read_delivery(f, tenant, old, sub).row.blocked);
    assert_true(settle(f, outcome_of(f, &t, DELIVERY_DELIVERED, 200)).released_due_at != 0);
    assert_true(claim_one(f, tenant, sub).event_key == old.key);
}

static void test_retries_of_a_replay_block_nobody(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f), sub = make_subscription(f, tenant);
    struct id old = publish_ordered(f, tenant, sub, 7);
    finish_one(f, tenant, sub, DELIVERY_DLQ);
    f->now += 10;
    replay(f, old, sub, 7);
    struct task t = claim_one(f, tenant, sub);
    f->now += 10;
    struct id later = publish_ordered(f, tenant, sub, 7);
    struct settlement s = settle(f, outcome_of(f, &t, DELIVERY_RETRY, 500));
    assert_true(s.released_due_at == id_ms(later));
    assert_true(claim_one(f, tenant, sub).event_key == later.key);
}

/* What is given up behind the first changes nothing about the first, which is under way. */
static void test_one_that_expires_behind_releases_nothing(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f), sub = make_subscription(f, tenant);
    struct id replayed = publish_ordered(f, tenant, sub, 7);
    finish_one(f, tenant, sub, DELIVERY_DLQ);
    struct id first = publish_ordered(f, tenant, sub, 7);
    struct task t = claim_one(f, tenant, sub);
    assert_true(t.event_key == first.key);
    f->now += 10;
    replay(f, replayed, sub, 7);
    f->now += 2 * HOUR_MS;
    struct lane_expiry lane = {.subscription_no = sub, .tenant_no = tenant, .window_ms = HOUR_MS};
    struct expired_task expired[4];
    size_t n = 0;
    begin(f);
    assert_int_equal(store_expire(f->store, &lane, f->now, expired, COUNT(expired), &n), 0);
    commit(f);
    assert_true(n == 1 && expired[0].event_key == replayed.key);
    struct claim c = claim(f, lane_of(tenant, sub, 9));
    assert_true(c.n == 0 && c.expired_n == 0 && c.lane.next_due_at == INT64_MAX);
    assert_int_equal(state_of(f, tenant, first, sub), DELIVERY_ATTEMPTING);
    assert_false(settle(f, outcome_of(f, &t, DELIVERY_DELIVERED, 200)).stale);
}

/* ---- the fan-out barrier ---- */

static struct fanout_job begin_job(struct fixture *f, uint32_t tenant, uint32_t cursor, uint32_t upper) {
    struct id event = make_event(f, tenant, (struct event_spec){0});
    struct fanout_job job = {.event_key = event.key, .tenant_no = tenant, .cursor = cursor, .upper = upper};
    begin(f);
    assert_int_equal(store_insert_job(f->store, &job), 0);
    commit(f);
    return job;
}

static void update_job(struct fixture *f, const struct fanout_job *job) {
    begin(f);
    assert_int_equal(store_update_job(f->store, job), 0);
    commit(f);
}

static void test_no_ordered_lane_passes_an_earlier_fanout(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f), sub = make_subscription(f, tenant);
    struct id before = publish_ordered(f, tenant, sub, 7);
    f->now++;
    struct fanout_job job = begin_job(f, tenant, sub - 1, sub);
    struct id unordered = publish(f, tenant, sub), after = publish_ordered(f, tenant, sub, 8);
    f->now++;
    struct claim c = claim(f, lane_of(tenant, sub, 9));
    assert_int_equal(c.n, 2);
    assert_true(c.tasks[0].event_key == before.key && c.tasks[1].event_key == unordered.key);
    assert_true(c.lane.next_due_at > f->now && c.lane.next_due_at < f->now + 1000);
    /* The fan-out reaches this lane: its event goes first if it has the same key. */
    make_ordered(f, (struct id){.key = job.event_key}, tenant, sub, 8);
    job.cursor = sub;
    update_job(f, &job);
    assert_true(claim_one(f, tenant, sub).event_key == job.event_key);
    struct task t = {.event_key = job.event_key, .subscription_no = sub, .number = 1, .lane_key = 8};
    settle(f, outcome_of(f, &t, DELIVERY_DELIVERED, 200));
    assert_true(claim_one(f, tenant, sub).event_key == after.key);
    job.state = FANOUT_DONE;
    update_job(f, &job);
}

static void test_lane_behind_a_fanout_looks_again_soon(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f), sub = make_subscription(f, tenant);
    /* One that is tried again in an hour must not put the look at the other off till then. */
    publish(f, tenant, sub);
    struct task t = claim_one(f, tenant, sub);
    struct settlement s = outcome_of(f, &t, DELIVERY_RETRY, 503);
    s.due_at = f->now + HOUR_MS;
    settle(f, s);
    struct fanout_job job = begin_job(f, tenant, sub - 1, sub);
    publish_ordered(f, tenant, sub, 8);
    f->now++;
    struct claim c = claim(f, lane_of(tenant, sub, 9));
    assert_int_equal(c.n, 0);
    assert_true(c.lane.next_due_at > f->now && c.lane.next_due_at < f->now + 1000);
    job.state = FANOUT_DONE;
    update_job(f, &job);
}

static void test_fanouts_that_do_not_concern_a_lane(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f), other = make_tenant(f), sub = make_subscription(f, tenant);
    struct fanout_job jobs[] = {
        begin_job(f, other, 0, sub + 100),      /* another tenant's */
        begin_job(f, tenant, sub, sub + 100),   /* past it */
        begin_job(f, tenant, sub - 1, sub - 1), /* of before it existed */
        begin_job(f, tenant, 0, sub + 100),     /* done */
        {0},
    };
    jobs[3].state = FANOUT_DONE;
    update_job(f, &jobs[3]);
    struct id event = publish_ordered(f, tenant, sub, 7);
    f->now++;
    jobs[4] = begin_job(f, tenant, 0, sub + 100); /* of a later event */
    assert_true(claim_one(f, tenant, sub).event_key == event.key);
    for (size_t i = 0; i < COUNT(jobs); i++) {
        jobs[i].state = FANOUT_DONE;
        update_job(f, &jobs[i]);
    }
}

/* ---- by chance ---- */

enum { KEYS = 3, STEPS = 250, MADE_MAX = STEPS };

struct made {
    struct id event;
    uint64_t lane_key;
    int64_t order_at;
    bool under_way, closed;
    struct task task;
};

struct lane {
    uint32_t tenant, sub;
    struct made at[MADE_MAX];
    size_t n;
};

static void lane_publish(struct fixture *f, struct lane *l, struct rng *rng) {
    struct made *m = &l->at[l->n++];
    int64_t delay = rng_below(rng, 4) ? 0 : (int64_t)rng_below(rng, 20000);
    *m = (struct made){.lane_key = rng_below(rng, KEYS) + 1, .order_at = f->now + delay};
    m->event = make_event(f, l->tenant, (struct event_spec){.deliver_at = delay ? m->order_at : 0});
    struct new_delivery d = {.event_key = m->event.key,
                             .subscription_no = l->sub,
                             .tenant_no = l->tenant,
                             .lane_key = m->lane_key,
                             .order_at = m->order_at};
    size_t made;
    begin(f);
    assert_int_equal(store_insert_deliveries(f->store, &d, 1, &made), 0);
    commit(f);
}

static struct made *find_made(struct lane *l, uint64_t event_key) {
    for (size_t i = 0; i < l->n; i++)
        if (l->at[i].event.key == event_key)
            return &l->at[i];
    fail_msg("an unknown delivery was given out");
    return NULL;
}

static bool comes_before(const struct made *a, const struct made *b) {
    return a->order_at < b->order_at || (a->order_at == b->order_at && a->event.key < b->event.key);
}

static void lane_claim_some(struct fixture *f, struct lane *l, struct rng *rng) {
    struct claim c = claim(f, lane_of(l->tenant, l->sub, (uint32_t)rng_below(rng, 4) + 1));
    for (size_t i = 0; i < c.expired_n; i++)
        find_made(l, c.expired[i].event_key)->closed = true;
    for (size_t i = 0; i < c.n; i++) {
        struct made *m = find_made(l, c.tasks[i].event_key);
        assert_false(m->closed || m->under_way);
        for (size_t k = 0; k < l->n; k++)
            if (l->at[k].lane_key == m->lane_key && !l->at[k].closed && &l->at[k] != m)
                assert_true(!l->at[k].under_way && comes_before(m, &l->at[k]));
        m->under_way = true;
        m->task = c.tasks[i];
    }
}

static void lane_settle_some(struct fixture *f, struct lane *l, struct rng *rng) {
    static const enum delivery_state ends[] = {DELIVERY_DELIVERED, DELIVERY_RETRY, DELIVERY_DLQ};
    for (size_t i = 0; i < l->n; i++) {
        struct made *m = &l->at[i];
        if (!m->under_way || rng_below(rng, 2))
            continue;
        enum delivery_state to = ends[rng_below(rng, COUNT(ends))];
        assert_false(settle(f, outcome_of(f, &m->task, to, 500)).stale);
        m->under_way = false;
        m->closed = to != DELIVERY_RETRY;
    }
}

static void lane_drain(struct fixture *f, struct lane *l, struct rng *rng) {
    bool open = true;
    for (int round = 0; open; round++) {
        assert_true(round < 1000);
        f->now += 5000;
        lane_claim_some(f, l, rng);
        lane_settle_some(f, l, rng);
        open = false;
        for (size_t i = 0; i < l->n; i++)
            open |= !l->at[i].closed;
    }
    struct deliveries *d = list_deliveries(
        f, (struct delivery_query){.tenant_no = l->tenant, .subscription_no = l->sub, .state = -1});
    assert_int_equal(d->n, l->n);
    for (size_t i = 0; i < d->n; i++)
        assert_false(delivery_is_open(d->at[i].row.state));
    free(d);
}

static void test_order_holds_by_chance(void **state) {
    struct fixture *f = *state;
    for (uint64_t seed = 1; seed <= 8; seed++) {
        struct rng rng;
        rng_seed(&rng, seed);
        struct lane *l = calloc(1, sizeof *l);
        l->tenant = make_tenant(f);
        l->sub = make_subscription(f, l->tenant);
        for (int step = 0; step < STEPS; step++) {
            f->now += (int64_t)rng_below(&rng, 3000);
            uint64_t what = rng_below(&rng, 10);
            if (what < 4)
                lane_publish(f, l, &rng);
            else if (what < 7)
                lane_claim_some(f, l, &rng);
            else
                lane_settle_some(f, l, &rng);
        }
        lane_drain(f, l, &rng);
        free(l);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        STORE_TEST(test_only_the_head_of_a_key_is_given_out),
        STORE_TEST(test_end_of_the_head_releases_the_next),
        STORE_TEST(test_a_clock_that_went_back_delays_no_successor),
        STORE_TEST(test_head_that_is_tried_again_holds_the_others),
        STORE_TEST(test_expired_head_releases_the_next),
        STORE_TEST(test_the_last_attempt_of_an_ordered_lane),
        STORE_TEST(test_what_is_not_due_yet_blocks_nobody),
        STORE_TEST(test_late_comer_waits_for_what_is_under_way),
        STORE_TEST(test_publish_order_of_one_moment),
        STORE_TEST(test_lost_lease_keeps_the_order),
        STORE_TEST(test_replay_is_serialised_with_its_key),
        STORE_TEST(test_retries_of_a_replay_block_nobody),
        STORE_TEST(test_one_that_expires_behind_releases_nothing),
        STORE_TEST(test_no_ordered_lane_passes_an_earlier_fanout),
        STORE_TEST(test_lane_behind_a_fanout_looks_again_soon),
        STORE_TEST(test_fanouts_that_do_not_concern_a_lane),
        STORE_TEST(test_order_holds_by_chance),
    };
    return cmocka_run_group_tests(tests, NULL, fixture_end);
}
