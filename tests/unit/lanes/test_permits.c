#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "lanes/permits.h"

enum { NOW = 1000000, MARGIN_MS = 30000, TENANT = 7, LANE = 1, CLAIMS = 4 };

/* A loop's lanes and the writer's permits, which this test carries plans and tasks between. */
struct fixture {
    struct tenant_budgets *tenants;
    struct lanes *ls;
    struct permits *p;
    struct permit_plan plan;
    struct lane_claim claims[CLAIMS];
    size_t claims_n;
    uint64_t changes; /* that the loop has heard of */
    uint64_t next_event;
    struct rng rng;
};

static void begin(struct fixture *f, uint32_t budget) {
    *f = (struct fixture){.next_event = 1};
    rng_seed(&f->rng, 1);
    assert_int_equal(tenant_budgets_new(&f->tenants), 0);
    assert_int_equal(lanes_new(f->tenants, budget, MARGIN_MS, NULL, &f->ls), 0);
    assert_int_equal(permits_new(&f->p), 0);
}

static void end(struct fixture *f) {
    permits_free(f->p);
    lanes_free(f->ls);
    tenant_budgets_free(f->tenants);
}

static struct subscription *make(uint32_t no, uint32_t cap) {
    struct subscription *s = calloc(1, sizeof *s);
    assert_non_null(s);
    atomic_init(&s->refs, 1);
    s->no = no;
    s->tenant_no = TENANT;
    s->tier = TIER_STANDARD;
    s->policy = policy_new();
    assert_non_null(s->policy);
    s->policy->max_in_flight = cap;
    return s;
}

static void put(struct fixture *f, struct subscription *s) {
    f->changes = permits_forget(f->p, s->no);
    assert_int_equal(lanes_put(f->ls, s, NULL, NOW), 0);
    subscription_unref(s);
}

/* A turn of which each claim finds `found` deliveries and, at next_due_at, one more. */
static void fill(struct fixture *f) {
    f->claims_n = lanes_plan(f->ls, NOW, f->claims, CLAIMS, 1000);
    lanes_plan_permits(f->ls, f->claims, f->claims_n, NOW, &f->plan);
    f->plan.changes = f->changes;
}

static void carry_out(struct fixture *f, uint32_t found, int64_t next_due_at) {
    for (size_t i = 0; i < f->claims_n; i++) {
        f->claims[i].claimed = found < f->claims[i].limit ? found : f->claims[i].limit;
        f->claims[i].next_due_at = next_due_at;
    }
    permits_apply(f->p, &f->plan);
    for (size_t i = 0; i < f->claims_n; i++)
        assert_false(lanes_claimed(f->ls, &f->claims[i], false, NOW));
    lanes_permits_planned(f->ls, &f->plan, false, NOW);
}

static void turn(struct fixture *f) {
    fill(f);
    carry_out(f, 1, INT64_MAX);
}

static struct new_delivery new_delivery(struct fixture *f, uint32_t no) {
    return (struct new_delivery){
        .event_key = f->next_event++, .subscription_no = no, .tenant_no = TENANT, .order_at = NOW};
}

static bool may_begin(struct fixture *f, const struct new_delivery *n) {
    int64_t lease_until = 0;
    bool begun = permits_begin(f->p, n, NOW, &lease_until);
    if (begun)
        assert_int_equal(lease_until, NOW + POLICY_TIMEOUT_MS_DEFAULT + MARGIN_MS);
    return begun;
}

/* Makes deliveries until one is not begun, up to most; how many were. */
static uint32_t make_deliveries(struct fixture *f, uint32_t no, uint32_t most) {
    uint32_t n = 0;
    for (struct new_delivery d = new_delivery(f, no); n < most && may_begin(f, &d); n++)
        d = new_delivery(f, no);
    return n;
}

/* The commit, and the loop that hears of it. */
static uint32_t tell(struct fixture *f) {
    size_t n;
    const struct task *t = permits_committed(f->p, &n);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(t[i].number, 1);
        lanes_begun(f->ls, t[i].subscription_no, NOW);
    }
    permits_told(f->p);
    return (uint32_t)n;
}

static void finish(struct fixture *f, uint32_t no, enum outcome_class class) {
    struct lane_outcome o = {.subscription_no = no,
                             .event_key = f->next_event++,
                             .class = class,
                             .started_at = NOW,
                             .retry_after_ms = -1,
                             .retry_due_at = class == OUTCOME_SUCCESS ? 0 : NOW + 5000};
    lanes_ended(f->ls, &o, NOW, &f->rng);
}

static uint32_t in_flight(struct fixture *f, uint32_t no) {
    struct lane_stats s;
    lanes_stats(f->ls, no, NOW, &s);
    return s.in_flight;
}

/* A lane of so many in flight at most, whose first deliveries have ended: all its room is the writer's. */
static void begin_lively(struct fixture *f, uint32_t cap) {
    begin(f, 400);
    put(f, make(LANE, cap));
    struct new_delivery n = new_delivery(f, LANE);
    assert_false(may_begin(f, &n));
    assert_true(lanes_due(f->ls, LANE, NOW, NOW));
    turn(f);
    finish(f, LANE, OUTCOME_SUCCESS);
    /* What the claim found no work for. */
    assert_int_equal(make_deliveries(f, LANE, 100), cap - 1);
    assert_int_equal(tell(f), cap - 1);
    for (uint32_t i = 1; i < cap; i++)
        finish(f, LANE, OUTCOME_SUCCESS);
    turn(f);
}

static void test_begun_up_to_the_cap(void **state) {
    (void)state;
    struct fixture f;
    begin_lively(&f, 10);
    assert_int_equal(make_deliveries(&f, LANE, 100), 10);
    assert_int_equal(tell(&f), 10);
    assert_int_equal(in_flight(&f, LANE), 10);
    turn(&f);
    assert_int_equal(make_deliveries(&f, LANE, 100), 0);
    for (int i = 0; i < 4; i++)
        finish(&f, LANE, OUTCOME_SUCCESS);
    turn(&f);
    assert_int_equal(make_deliveries(&f, LANE, 100), 4);
    end(&f);
}

static void test_not_what_must_wait(void **state) {
    (void)state;
    struct fixture f;
    begin_lively(&f, 10);
    struct new_delivery n = new_delivery(&f, LANE);
    n.lane_key = 1;
    assert_false(may_begin(&f, &n));
    n = new_delivery(&f, LANE);
    n.due_at = n.order_at = NOW + 1;
    assert_false(may_begin(&f, &n));
    n = new_delivery(&f, LANE);
    n.test = true;
    assert_false(may_begin(&f, &n));
    n = new_delivery(&f, LANE);
    assert_true(may_begin(&f, &n));
    end(&f);
}

static void test_a_void_transaction_used_nothing(void **state) {
    (void)state;
    struct fixture f;
    begin_lively(&f, 10);
    assert_int_equal(make_deliveries(&f, LANE, 3), 3);
    assert_int_equal(tell(&f), 3);
    for (int i = 0; i < 100; i++) { /* of the pool's places neither */
        assert_int_equal(make_deliveries(&f, LANE, 100), 7);
        permits_give_up(f.p);
    }
    assert_int_equal(make_deliveries(&f, LANE, 100), 7);
    assert_int_equal(tell(&f), 7);
    end(&f);
}

static void test_what_could_not_be_told_is_kept(void **state) {
    (void)state;
    struct fixture f;
    size_t n;
    begin_lively(&f, 10);
    assert_int_equal(make_deliveries(&f, LANE, 3), 3);
    (void)permits_committed(f.p, &n); /* no memory for the message */
    assert_int_equal(make_deliveries(&f, LANE, 2), 2);
    permits_give_up(f.p);
    assert_int_equal(tell(&f), 3);
    end(&f);
}

static void test_a_changed_lane_has_left_nothing(void **state) {
    (void)state;
    struct fixture f;
    begin_lively(&f, 10);
    put(&f, make(LANE, 2));
    assert_int_equal(make_deliveries(&f, LANE, 100), 0);
    assert_true(lanes_due(f.ls, LANE, NOW, NOW));
    turn(&f);
    assert_int_equal(make_deliveries(&f, LANE, 100), 1); /* beside the one that was claimed */
    end(&f);
}

static void test_a_plan_from_before_a_change_gives_nothing(void **state) {
    (void)state;
    struct fixture f;
    begin_lively(&f, 10);
    assert_int_equal(make_deliveries(&f, LANE, 100), 10);
    assert_int_equal(tell(&f), 10);
    for (int i = 0; i < 10; i++)
        finish(&f, LANE, OUTCOME_SUCCESS);
    fill(&f); /* gives ten once more */
    assert_int_equal(f.plan.n, 1);
    assert_int_equal(f.plan.grants[0].places, 10);
    struct subscription *paused = make(LANE, 10);
    paused->status = SUBSCRIPTION_PAUSED;
    uint64_t changes = permits_forget(f.p, LANE);
    carry_out(&f, 1, INT64_MAX);
    assert_int_equal(make_deliveries(&f, LANE, 100), 0);
    f.changes = changes;
    assert_int_equal(lanes_put(f.ls, paused, NULL, NOW), 0);
    subscription_unref(paused);
    turn(&f);
    assert_int_equal(make_deliveries(&f, LANE, 100), 0);
    end(&f);
}

static void test_ordered_and_limited_lanes_leave_nothing(void **state) {
    (void)state;
    for (int kind = 0; kind < 3; kind++) {
        struct fixture f;
        begin(&f, 400);
        struct subscription *s = make(LANE, 10);
        s->ordering = kind == 0 ? ORDERING_KEY : kind == 1 ? ORDERING_STRICT : ORDERING_NONE;
        s->policy->rate_per_second = s->policy->rate_burst = kind == 2 ? 1000 : 0;
        put(&f, s);
        assert_true(lanes_due(f.ls, LANE, NOW, NOW));
        turn(&f);
        finish(&f, LANE, OUTCOME_SUCCESS);
        turn(&f);
        assert_int_equal(make_deliveries(&f, LANE, 100), 0);
        end(&f);
    }
}

static void test_backpressure_takes_them_back(void **state) {
    (void)state;
    struct fixture f;
    begin_lively(&f, 10);
    assert_int_equal(make_deliveries(&f, LANE, 1), 1);
    assert_int_equal(tell(&f), 1);
    assert_false(lanes_permits_urgent(f.ls));
    finish(&f, LANE, OUTCOME_BACKPRESSURE);
    assert_true(lanes_permits_urgent(f.ls));
    fill(&f);
    lanes_permits_planned(f.ls, &f.plan, true, NOW); /* the turn failed */
    assert_true(lanes_permits_urgent(f.ls));
    turn(&f);
    assert_false(lanes_permits_urgent(f.ls));
    assert_int_equal(make_deliveries(&f, LANE, 100), 0);
    end(&f);
}

static void test_work_that_waits_gets_the_room(void **state) {
    (void)state;
    struct fixture f;
    begin_lively(&f, 10);
    assert_true(lanes_due(f.ls, LANE, NOW, NOW));
    turn(&f); /* takes them back … */
    assert_int_equal(make_deliveries(&f, LANE, 100), 0);
    fill(&f); /* … for the claim */
    assert_int_equal(f.claims_n, 1);
    assert_int_equal(f.claims[0].limit, 10);
    carry_out(&f, 4, NOW);
    assert_int_equal(make_deliveries(&f, LANE, 100), 0);
    end(&f);
}

static void test_tenants_cap_holds(void **state) {
    (void)state;
    struct fixture f;
    begin_lively(&f, 10);
    struct tenant_limits limits = {.max_in_flight = 3};
    assert_int_equal(tenant_budgets_put(f.tenants, TENANT, &limits), 0);
    assert_int_equal(make_deliveries(&f, LANE, 100), 3);
    assert_int_equal(tell(&f), 3);
    finish(&f, LANE, OUTCOME_SUCCESS);
    assert_int_equal(make_deliveries(&f, LANE, 100), 1);
    end(&f);
}

/* Half of what is free at most, so that claims in fair order have the rest; all of it when others wait. */
static void test_pool_keeps_to_the_budget(void **state) {
    (void)state;
    struct fixture f;
    begin(&f, 100);
    for (uint32_t no = 1; no <= 3; no++) {
        put(&f, make(no, 100));
        assert_true(lanes_due(f.ls, no, NOW, NOW));
    }
    turn(&f);
    for (uint32_t no = 1; no <= 3; no++)
        finish(&f, no, OUTCOME_SUCCESS);
    turn(&f);
    uint32_t begun = make_deliveries(&f, 1, 100) + make_deliveries(&f, 2, 100) + make_deliveries(&f, 3, 100);
    assert_in_range(begun, 20, 40); /* of 75 that the other tiers leave */
    assert_int_equal(tell(&f), begun);
    turn(&f);
    put(&f, make(4, 100));
    put(&f, make(5, 100));
    assert_true(lanes_due(f.ls, 4, NOW, NOW) && lanes_due(f.ls, 5, NOW, NOW));
    fill(&f);
    carry_out(&f, 1000, NOW);
    for (int i = 0; i < 4; i++) {
        fill(&f);
        carry_out(&f, 1000, NOW);
    }
    assert_int_equal(lanes_in_flight(f.ls), 75);
    assert_int_equal(make_deliveries(&f, 1, 100), 0);
    end(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_begun_up_to_the_cap),
        cmocka_unit_test(test_not_what_must_wait),
        cmocka_unit_test(test_a_void_transaction_used_nothing),
        cmocka_unit_test(test_what_could_not_be_told_is_kept),
        cmocka_unit_test(test_a_changed_lane_has_left_nothing),
        cmocka_unit_test(test_a_plan_from_before_a_change_gives_nothing),
        cmocka_unit_test(test_ordered_and_limited_lanes_leave_nothing),
        cmocka_unit_test(test_backpressure_takes_them_back),
        cmocka_unit_test(test_work_that_waits_gets_the_room),
        cmocka_unit_test(test_tenants_cap_holds),
        cmocka_unit_test(test_pool_keeps_to_the_budget),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
