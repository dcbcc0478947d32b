#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "lanes/lanes.h"

enum { NOW = 1000000, MARGIN_MS = 30000, CLAIMS = 64 };

struct fixture {
    struct tenant_budgets *tenants;
    struct lanes *ls;
    struct rng rng;
    struct lane_claim claims[CLAIMS];
    size_t n;
    uint32_t probe; /* of the last claim */
};

static void begin(struct fixture *f, uint32_t budget) {
    *f = (struct fixture){0};
    rng_seed(&f->rng, 1);
    assert_int_equal(tenant_budgets_new(&f->tenants), 0);
    assert_int_equal(lanes_new(f->tenants, budget, MARGIN_MS, NULL, &f->ls), 0);
}

static void end(struct fixture *f) {
    lanes_free(f->ls);
    tenant_budgets_free(f->tenants);
}

static struct subscription *make(uint32_t no, uint32_t tenant_no, enum tenant_tier tier, uint32_t cap) {
    struct subscription *s = calloc(1, sizeof *s);
    assert_non_null(s);
    atomic_init(&s->refs, 1);
    s->no = no;
    s->tenant_no = tenant_no;
    s->tier = tier;
    s->policy = policy_new();
    assert_non_null(s->policy);
    s->policy->max_in_flight = cap;
    return s;
}

static void put(struct fixture *f, struct subscription *s, int64_t now) {
    assert_int_equal(lanes_put(f->ls, s, NULL, now), 0);
    subscription_unref(s);
}

static void add(struct fixture *f, uint32_t no, uint32_t tenant_no, enum tenant_tier tier, uint32_t cap) {
    put(f, make(no, tenant_no, tier, cap), NOW);
    assert_true(lanes_due(f->ls, no, NOW, NOW));
}

/* Plans, and answers each claim in full: there is always more. Returns the tasks claimed. */
static uint32_t run(struct fixture *f, int64_t now, size_t tasks_max) {
    uint32_t tasks = 0;
    f->n = lanes_plan(f->ls, now, f->claims, CLAIMS, tasks_max);
    for (size_t i = 0; i < f->n; i++) {
        f->claims[i].claimed = f->claims[i].limit;
        f->claims[i].next_due_at = NOW;
        tasks += f->claims[i].limit;
        f->probe = f->claims[i].probe;
        assert_false(lanes_claimed(f->ls, &f->claims[i], false, now));
    }
    return tasks;
}

static struct lane_news finish(struct fixture *f, uint32_t no, enum outcome_class class, uint64_t event,
                               int64_t started_at, int64_t now) {
    struct lane_outcome o = {
        .subscription_no = no,
        .event_key = event,
        .probe = f->probe,
        .class = class,
        .started_at = started_at,
        .retry_after_ms = -1,
        .retry_due_at = class == OUTCOME_TRANSIENT || class == OUTCOME_BACKPRESSURE ? now + 5000 : 0};
    return lanes_ended(f->ls, &o, now, &f->rng);
}

static struct lane_stats stats(struct fixture *f, uint32_t no, int64_t now) {
    struct lane_stats s;
    lanes_stats(f->ls, no, now, &s);
    assert_true(s.known);
    return s;
}

static void test_cap_and_claim_fields(void **state) {
    (void)state;
    struct fixture f;
    begin(&f, 100);
    add(&f, 1, 1, TIER_STANDARD, 3);
    assert_int_equal(lanes_next_wake(f.ls, NOW), NOW);
    assert_int_equal(run(&f, NOW, 100), 3);
    assert_int_equal(f.claims[0].lease_ms, POLICY_TIMEOUT_MS_DEFAULT + MARGIN_MS);
    assert_int_equal(run(&f, NOW, 100), 0);
    assert_int_equal(stats(&f, 1, NOW).waiting_on, LANE_WAIT_CONCURRENCY);
    finish(&f, 1, OUTCOME_SUCCESS, 1, NOW, NOW);
    assert_int_equal(run(&f, NOW, 100), 1);
    end(&f);
}

static void test_budget_holds_over_all_lanes(void **state) {
    (void)state;
    struct fixture f;
    begin(&f, 40);
    for (uint32_t no = 1; no <= 5; no++)
        add(&f, no, no, (enum tenant_tier)(no % TIERS), 100);
    uint32_t total = 0, got;
    while ((got = run(&f, NOW, 1000)) > 0)
        total += got;
    assert_true(total <= 40);
    assert_int_equal(lanes_in_flight(f.ls), total);
    end(&f);
}

static void test_tier_shares_are_reserved(void **state) {
    (void)state;
    struct fixture f;
    begin(&f, 100);
    add(&f, 1, 1, TIER_BULK, 1000);
    while (run(&f, NOW, 1000) > 0)
        ;
    /* Premium's 20 and standard's 10 stay free. */
    assert_int_equal(lanes_in_flight(f.ls), 70);
    add(&f, 2, 2, TIER_PREMIUM, 1000);
    while (run(&f, NOW, 1000) > 0)
        ;
    assert_int_equal(lanes_in_flight(f.ls), 90);
    add(&f, 3, 3, TIER_STANDARD, 1000);
    while (run(&f, NOW, 1000) > 0)
        ;
    assert_int_equal(lanes_in_flight(f.ls), 100);
    end(&f);
}

static void test_no_tier_and_no_tenant_starves(void **state) {
    (void)state;
    struct fixture f;
    begin(&f, 1000000);
    uint64_t got[5] = {0};
    add(&f, 1, 1, TIER_PREMIUM, 10000);
    add(&f, 2, 2, TIER_BULK, 10000);
    add(&f, 3, 3, TIER_STANDARD, 10000);
    add(&f, 4, 3, TIER_STANDARD, 10000);
    for (int turn = 0; turn < 130; turn++) {
        size_t n = lanes_plan(f.ls, NOW, f.claims, 1, LANE_CLAIM_MAX);
        assert_int_equal(n, 1);
        struct lane_claim *c = &f.claims[0];
        c->claimed = c->limit;
        c->next_due_at = NOW;
        got[c->subscription_no] += c->claimed;
        assert_false(lanes_claimed(f.ls, c, false, NOW));
    }
    /* 8 : 4 : 1, and a tenant's lanes take turns. */
    assert_int_equal(got[1], 80 * LANE_CLAIM_MAX);
    assert_int_equal(got[2], 10 * LANE_CLAIM_MAX);
    assert_int_equal(got[3], 20 * LANE_CLAIM_MAX);
    assert_int_equal(got[4], 20 * LANE_CLAIM_MAX);
    end(&f);
}

static void test_backpressure_halves_once_and_rests(void **state) {
    (void)state;
    struct fixture f;
    begin(&f, 100);
    add(&f, 1, 1, TIER_STANDARD, 8);
    assert_int_equal(run(&f, NOW, 100), 8);
    for (uint64_t i = 0; i < 8; i++)
        finish(&f, 1, OUTCOME_BACKPRESSURE, i, NOW, NOW + 10);
    assert_int_equal(stats(&f, 1, NOW + 10).concurrency, 4);
    assert_int_equal(run(&f, NOW + 10, 100), 0);
    assert_int_equal(stats(&f, 1, NOW + 10).waiting_on, LANE_WAIT_RATE_LIMIT);
    assert_int_equal(lanes_next_wake(f.ls, NOW + 10), NOW + 5010);
    assert_int_equal(run(&f, NOW + 5010, 100), 4);
    end(&f);
}

static void test_a_timeout_halves_as_backpressure_does(void **state) {
    (void)state;
    struct fixture f;
    begin(&f, 100);
    add(&f, 1, 1, TIER_STANDARD, 8);
    assert_int_equal(run(&f, NOW, 100), 8);
    struct lane_outcome o = {.subscription_no = 1,
                             .event_key = 1,
                             .class = OUTCOME_TRANSIENT,
                             .started_at = NOW,
                             .retry_after_ms = -1,
                             .retry_due_at = NOW + 5000};
    lanes_ended(f.ls, &o, NOW + 10, &f.rng); /* such as a 500 */
    assert_int_equal(stats(&f, 1, NOW + 10).concurrency, 8);
    o.timed_out = true;
    lanes_ended(f.ls, &o, NOW + 10, &f.rng);
    assert_int_equal(stats(&f, 1, NOW + 10).concurrency, 4);
    lanes_ended(f.ls, &o, NOW + 20, &f.rng); /* begun before it was halved: the same congestion */
    assert_int_equal(stats(&f, 1, NOW + 20).concurrency, 4);
    assert_int_equal(stats(&f, 1, NOW + 20).waiting_on, LANE_WAIT_CONCURRENCY); /* no rest */
    end(&f);
}

static void push_back(struct fixture *f, int64_t retry_after_ms, int64_t retry_due_at) {
    struct lane_outcome o = {.subscription_no = 1,
                             .event_key = 1,
                             .class = OUTCOME_BACKPRESSURE,
                             .started_at = NOW,
                             .retry_after_ms = retry_after_ms,
                             .retry_due_at = retry_due_at};
    lanes_ended(f->ls, &o, NOW, &f->rng);
}

/* Of the task's own schedule the lane knows nothing: a late attempt's backoff of hours is not the lane's. */
static void test_the_lane_rests_as_long_as_the_endpoint_asks(void **state) {
    (void)state;
    static const struct {
        int64_t retry_after_ms, retry_due_at, until;
    } cases[] = {
        {20000, NOW + 3600000, NOW + 20000}, /* the backoff is longer */
        {0, NOW + 3600000, NOW},
        {20000, 0, NOW + 20000},          /* given up: the others rest all the same */
        {900000, NOW + 5000, NOW + 5000}, /* cut at the task's window */
        {INT64_C(1) << 40, 0, NOW + (int64_t)POLICY_WINDOW_SECONDS_DEFAULT * 1000},
        {-1, NOW + 3600000, NOW + LANE_BACKPRESSURE_MS_MAX},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct fixture f;
        begin(&f, 100);
        add(&f, 1, 1, TIER_STANDARD, 1);
        assert_int_equal(run(&f, NOW, 100), 1);
        push_back(&f, cases[i].retry_after_ms, cases[i].retry_due_at);
        if (cases[i].until > NOW)
            assert_int_equal(run(&f, cases[i].until - 1, 100), 0);
        assert_int_equal(run(&f, cases[i].until, 100), 1);
        end(&f);
    }
}

static void test_breaker_opens_and_probes_alone(void **state) {
    (void)state;
    struct fixture f;
    begin(&f, 100);
    add(&f, 1, 1, TIER_STANDARD, 10);
    assert_int_equal(run(&f, NOW, 100), 10);
    for (uint64_t i = 0; i < 10; i++)
        finish(&f, 1, OUTCOME_TRANSIENT, i, NOW, NOW);
    assert_string_equal(stats(&f, 1, NOW).breaker, "open");
    assert_int_equal(run(&f, NOW + 3000, 100), 0);
    int64_t probe = lanes_next_wake(f.ls, NOW + 3000);
    assert_in_range(probe, NOW + 4000, NOW + 6000);
    assert_int_equal(run(&f, probe, 100), 1);
    assert_string_equal(stats(&f, 1, probe).breaker, "half_open");
    assert_int_equal(run(&f, probe + 60000, 100), 0);
    struct lane_expiry expiry;
    assert_int_equal(lanes_expiries(f.ls, probe + LANE_EXPIRE_EVERY_MS, &expiry, 1), 1);
    assert_int_equal(expiry.subscription_no, 1);
    /* It is back: its backlog starts slowly. */
    finish(&f, 1, OUTCOME_SUCCESS, 1, probe, probe + 60000);
    assert_int_equal(run(&f, probe + 60000, 100), 1);
    end(&f);
}

static void test_an_empty_probe_leaves_the_breaker_open(void **state) {
    (void)state;
    struct fixture f;
    begin(&f, 100);
    add(&f, 1, 1, TIER_STANDARD, 10);
    run(&f, NOW, 100);
    for (uint64_t i = 0; i < 10; i++)
        finish(&f, 1, OUTCOME_TRANSIENT, i, NOW, NOW);
    assert_int_equal(lanes_plan(f.ls, NOW + 6000, f.claims, CLAIMS, 100), 1);
    f.claims[0].next_due_at = INT64_MAX;
    lanes_claimed(f.ls, &f.claims[0], false, NOW + 6000);
    assert_string_equal(stats(&f, 1, NOW + 6000).breaker, "open");
    lanes_due(f.ls, 1, NOW + 6001, NOW + 6001);
    assert_int_equal(run(&f, NOW + 6001, 100), 1);
    struct lane_outcome o = {.subscription_no = 1, .probe = f.probe, .not_sent = true, .retry_after_ms = -1};
    lanes_ended(f.ls, &o, NOW + 6002, &f.rng);
    assert_int_equal(run(&f, NOW + 6002, 100), 1);
    end(&f);
}

/* 20 are under way when it opens; then a probe goes, and what is older ends while it is under way. */
static void test_what_is_older_than_the_probe_sends_no_second(void **state) {
    (void)state;
    struct fixture f;
    begin(&f, 100);
    add(&f, 1, 1, TIER_STANDARD, 20);
    assert_int_equal(run(&f, NOW, 100), 20);
    for (uint64_t i = 0; i < 10; i++)
        finish(&f, 1, OUTCOME_TRANSIENT, i, NOW, NOW);
    assert_int_equal(run(&f, NOW + 6000, 100), 1);
    uint32_t probe = f.probe;
    f.probe = 0;
    finish(&f, 1, OUTCOME_TRANSIENT, 10, NOW, NOW + 6001);
    finish(&f, 1, OUTCOME_SUCCESS, 11, NOW, NOW + 6002);
    finish(&f, 1, OUTCOME_PERMANENT, 12, NOW, NOW + 6002);
    struct lane_outcome unsent = {.subscription_no = 1, .not_sent = true, .retry_after_ms = -1};
    lanes_ended(f.ls, &unsent, NOW + 6003, &f.rng);
    lanes_due(f.ls, 1, NOW, NOW + 6003);
    assert_string_equal(stats(&f, 1, NOW + 6003).breaker, "half_open");
    assert_int_equal(run(&f, NOW + 600000, 100), 0);
    f.probe = probe;
    finish(&f, 1, OUTCOME_SUCCESS, 20, NOW + 6000, NOW + 600000);
    assert_string_equal(stats(&f, 1, NOW + 600000).breaker, "closed");
    end(&f);
}

/* However a probe ends, another may go: the lane is never stuck. */
static void test_a_half_open_lane_is_never_stuck(void **state) {
    (void)state;
    for (int how = 0; how < 5; how++) {
        struct fixture f;
        begin(&f, 100);
        add(&f, 1, 1, TIER_STANDARD, 10);
        run(&f, NOW, 100);
        for (uint64_t i = 0; i < 10; i++)
            finish(&f, 1, OUTCOME_TRANSIENT, i, NOW, NOW);
        assert_int_equal(run(&f, NOW + 6000, 100), 1);
        /* The subscription is changed meanwhile. */
        struct subscription *paused = make(1, 1, TIER_BULK, 3);
        paused->status = how % 2 ? SUBSCRIPTION_PAUSED : SUBSCRIPTION_DISABLED;
        put(&f, paused, NOW + 6001);
        put(&f, make(1, 1, TIER_STANDARD, 10), NOW + 6002);
        struct lane_outcome o = {.subscription_no = 1,
                                 .event_key = 1,
                                 .probe = f.probe,
                                 .class = (enum outcome_class)how,
                                 .not_sent = how == 4,
                                 .retry_after_ms = -1};
        lanes_ended(f.ls, &o, NOW + 6003, &f.rng);
        lanes_due(f.ls, 1, NOW, NOW + 6003);
        assert_true(run(&f, NOW + 600000, 100) > 0);
        end(&f);
    }
}

static void open_breaker(struct fixture *f) {
    assert_int_equal(run(f, NOW, 100), 10);
    for (uint64_t i = 0; i < 10; i++)
        finish(f, 1, OUTCOME_TRANSIENT, i, NOW, NOW);
    assert_string_equal(stats(f, 1, NOW).breaker, "open");
}

/* Probes more often than that: yet its windows are looked at once in a while. */
static void test_probes_do_not_put_the_expiry_off(void **state) {
    (void)state;
    struct fixture f;
    begin(&f, 100);
    add(&f, 1, 1, TIER_STANDARD, 10);
    open_breaker(&f);
    struct lane_expiry e;
    for (int64_t now = NOW; now < NOW + LANE_EXPIRE_EVERY_MS; now += 1000) {
        assert_int_equal(lanes_expiries(f.ls, now, &e, 1), 0);
        if (run(&f, now, 100))
            finish(&f, 1, OUTCOME_TRANSIENT, 1, now, now);
    }
    assert_int_equal(lanes_expiries(f.ls, NOW + LANE_EXPIRE_EVERY_MS, &e, 1), 1);
    assert_int_equal(e.spare_ms, LANE_LAST_CHANCE_MS);
    assert_int_equal(lanes_expiries(f.ls, NOW + LANE_EXPIRE_EVERY_MS, &e, 1), 0);
    /* There was more than a turn could shed. */
    lanes_expire_on(f.ls, 1, NOW + LANE_EXPIRE_EVERY_MS);
    assert_int_equal(lanes_next_wake(f.ls, NOW + LANE_EXPIRE_EVERY_MS), NOW + LANE_EXPIRE_EVERY_MS);
    assert_int_equal(lanes_expiries(f.ls, NOW + LANE_EXPIRE_EVERY_MS, &e, 1), 1);
    end(&f);
}

static void test_paused_and_disabled_send_nothing(void **state) {
    (void)state;
    struct fixture f;
    begin(&f, 100);
    add(&f, 1, 1, TIER_STANDARD, 10);
    for (int i = 0; i < 2; i++) {
        struct subscription *s = make(1, 1, TIER_STANDARD, 10);
        s->status = i ? SUBSCRIPTION_DISABLED : SUBSCRIPTION_PAUSED;
        put(&f, s, NOW);
        assert_int_equal(run(&f, NOW, 100), 0);
        assert_int_equal(stats(&f, 1, NOW).waiting_on, i ? LANE_WAIT_NONE : LANE_WAIT_PAUSED);
        /* While paused nothing expires. */
        struct lane_expiry e;
        assert_int_equal(lanes_expiries(f.ls, NOW + LANE_EXPIRE_EVERY_MS, &e, 1), i);
        assert_true(!i || e.spare_ms == 0); /* a last attempt is of no use there */
    }
    put(&f, make(1, 1, TIER_STANDARD, 10), NOW);
    assert_int_equal(run(&f, NOW, 100), 1);
    end(&f);
}

static struct subscription *make_relaning(uint64_t relane, enum subscription_ordering ordering) {
    struct subscription *s = make(1, 1, TIER_STANDARD, 2);
    s->ordering = ordering;
    s->relane = relane;
    return s;
}

static void test_a_lane_holds_while_its_ordering_changes(void **state) {
    (void)state;
    struct fixture f;
    begin(&f, 100);
    add(&f, 1, 1, TIER_STANDARD, 2);
    assert_int_equal(run(&f, NOW, 100), 2);
    put(&f, make_relaning(7, ORDERING_STRICT), NOW);
    /* Not before what is under way has ended. */
    finish(&f, 1, OUTCOME_SUCCESS, 1, NOW, NOW);
    assert_int_equal(lanes_next_relane(f.ls).subscription_no, 0);
    assert_int_equal(run(&f, NOW, 100), 0);
    assert_int_equal(stats(&f, 1, NOW).waiting_on, LANE_WAIT_ORDERING);
    finish(&f, 1, OUTCOME_SUCCESS, 2, NOW, NOW);
    struct lane_relane r = lanes_next_relane(f.ls);
    assert_true(r.subscription_no == 1 && r.relane == 7 && r.ordering == ORDERING_STRICT);
    assert_int_equal(lanes_next_wake(f.ls, NOW), NOW);
    /* Another change comes meanwhile: what was done for the first does not do. */
    put(&f, make_relaning(8, ORDERING_NONE), NOW);
    lanes_relaned(f.ls, &r);
    r = lanes_next_relane(f.ls);
    assert_true(r.relane == 8 && r.ordering == ORDERING_NONE);
    lanes_relaned(f.ls, &r);
    assert_int_equal(lanes_next_relane(f.ls).subscription_no, 0);
    assert_int_equal(run(&f, NOW, 100), 0);
    put(&f, make_relaning(0, ORDERING_NONE), NOW);
    assert_int_equal(run(&f, NOW, 100), 2);
    end(&f);
}

static void test_tenant_cap(void **state) {
    (void)state;
    struct fixture f;
    begin(&f, 100);
    struct tenant_limits limits = {.max_in_flight = 5};
    assert_int_equal(tenant_budgets_put(f.tenants, 1, &limits), 0);
    add(&f, 1, 1, TIER_STANDARD, 4);
    add(&f, 2, 1, TIER_STANDARD, 4);
    assert_int_equal(run(&f, NOW, 100), 5);
    assert_int_equal(run(&f, NOW, 100), 0);
    assert_int_equal(stats(&f, 1, NOW).in_flight + stats(&f, 2, NOW).in_flight, 5);
    finish(&f, 1, OUTCOME_SUCCESS, 1, NOW, NOW);
    assert_int_equal(run(&f, NOW + LANE_TENANT_POLL_MS, 100), 1);
    end(&f);
}

static void test_rate_limit(void **state) {
    (void)state;
    struct fixture f;
    begin(&f, 100);
    struct subscription *s = make(1, 1, TIER_STANDARD, 50);
    s->policy->rate_per_second = 10;
    s->policy->rate_burst = 2;
    put(&f, s, NOW);
    lanes_due(f.ls, 1, NOW, NOW);
    assert_int_equal(run(&f, NOW, 100), 2);
    assert_int_equal(run(&f, NOW, 100), 0);
    assert_int_equal(stats(&f, 1, NOW).waiting_on, LANE_WAIT_RATE_LIMIT);
    int64_t wake = lanes_next_wake(f.ls, NOW);
    assert_in_range(wake, NOW + 100, NOW + 101);
    /* What a claim did not use is given back. */
    assert_int_equal(lanes_plan(f.ls, wake, f.claims, CLAIMS, 100), 1);
    f.claims[0].next_due_at = NOW;
    lanes_claimed(f.ls, &f.claims[0], false, wake);
    assert_int_equal(run(&f, wake, 100), 1);
    end(&f);
}

static void test_notice_during_a_claim_is_kept(void **state) {
    (void)state;
    struct fixture f;
    begin(&f, 100);
    add(&f, 1, 1, TIER_STANDARD, 10);
    assert_int_equal(lanes_plan(f.ls, NOW, f.claims, CLAIMS, 100), 1);
    assert_int_equal(lanes_next_wake(f.ls, NOW), INT64_MAX);
    lanes_due(f.ls, 1, NOW + 5, NOW);
    f.claims[0].next_due_at = INT64_MAX;
    lanes_claimed(f.ls, &f.claims[0], false, NOW + 1);
    assert_int_equal(lanes_next_wake(f.ls, NOW + 1), NOW + 5);
    assert_int_equal(run(&f, NOW + 5, 100), 10);
    end(&f);
}

static void test_failed_claim_is_asked_again(void **state) {
    (void)state;
    struct fixture f;
    begin(&f, 100);
    add(&f, 1, 1, TIER_STANDARD, 10);
    assert_int_equal(lanes_plan(f.ls, NOW, f.claims, CLAIMS, 100), 1);
    lanes_claimed(f.ls, &f.claims[0], true, NOW);
    assert_int_equal(lanes_in_flight(f.ls), 0);
    int64_t wake = lanes_next_wake(f.ls, NOW);
    assert_in_range(wake, NOW + 1, NOW + 1000);
    assert_int_equal(run(&f, wake, 100), 10);
    end(&f);
}

/* The endpoint asked for a rest while the claim was under way. */
static void test_a_failed_claim_cuts_no_rest_short(void **state) {
    (void)state;
    struct fixture f;
    begin(&f, 100);
    add(&f, 1, 1, TIER_STANDARD, 2);
    assert_int_equal(run(&f, NOW, 1), 1);
    assert_int_equal(lanes_plan(f.ls, NOW, f.claims, CLAIMS, 100), 1);
    push_back(&f, 60000, NOW + 60000);
    assert_false(lanes_claimed(f.ls, &f.claims[0], true, NOW));
    assert_int_equal(run(&f, NOW + 59999, 100), 0);
    assert_true(run(&f, NOW + 60000, 100) > 0);
    end(&f);
}

static void test_removal_waits_for_what_is_under_way(void **state) {
    (void)state;
    struct fixture f;
    begin(&f, 100);
    add(&f, 1, 1, TIER_STANDARD, 2);
    assert_int_equal(run(&f, NOW, 100), 2);
    assert_false(lanes_remove(f.ls, 1));
    assert_false(finish(&f, 1, OUTCOME_SUCCESS, 1, NOW, NOW).removed);
    assert_int_equal(run(&f, NOW, 100), 0);
    assert_true(finish(&f, 1, OUTCOME_SUCCESS, 2, NOW, NOW).removed);
    assert_null(lanes_subscription(f.ls, 1));
    assert_false(lanes_due(f.ls, 1, NOW, NOW));
    add(&f, 2, 1, TIER_STANDARD, 2);
    assert_int_equal(lanes_plan(f.ls, NOW, f.claims, CLAIMS, 100), 1);
    assert_false(lanes_remove(f.ls, 2));
    f.claims[0].next_due_at = INT64_MAX;
    assert_true(lanes_claimed(f.ls, &f.claims[0], false, NOW));
    assert_true(lanes_remove(f.ls, 2));
    end(&f);
}

/* An outcome of an event of the system's own. */
static struct lane_news finish_quietly(struct fixture *f, uint32_t no, enum outcome_class class,
                                       uint64_t event, int64_t now) {
    struct lane_outcome o = {.subscription_no = no,
                             .event_key = event,
                             .class = class,
                             .quiet = true,
                             .started_at = now,
                             .retry_after_ms = -1};
    return lanes_ended(f->ls, &o, now, &f->rng);
}

static struct subscription *make_with_health(int64_t failing_since, int64_t raised_since) {
    struct subscription *s = make(1, 1, TIER_STANDARD, 20);
    s->policy->disable_after_seconds = 3600;
    s->failing_since = failing_since;
    s->raised_since = raised_since;
    return s;
}

static void begin_with_health(struct fixture *f, int64_t failing_since, int64_t raised_since) {
    begin(f, 100);
    put(f, make_with_health(failing_since, raised_since), NOW);
    lanes_due(f->ls, 1, NOW, NOW);
    assert_int_equal(run(f, NOW, 100), 20);
}

static void test_health_is_noted_after_a_while(void **state) {
    (void)state;
    struct fixture f;
    begin_with_health(&f, 0, 0);
    assert_false(finish(&f, 1, OUTCOME_TRANSIENT, 1, NOW, NOW).noted);
    struct lane_news news = finish(&f, 1, OUTCOME_TRANSIENT, 1, NOW, NOW + 60000);
    assert_true(news.noted && !news.exhausted && !news.failing);
    assert_int_equal(news.failing_since, NOW);
    assert_false(finish(&f, 1, OUTCOME_TRANSIENT, 1, NOW, NOW + 60001).noted);
    assert_true(finish(&f, 1, OUTCOME_TRANSIENT, 1, NOW, NOW + 3600000).exhausted);
    /* Too little for anybody to be told: so nobody is told that it is over. */
    news = finish(&f, 1, OUTCOME_SUCCESS, 1, NOW, NOW + 3600000);
    assert_true(news.noted && !news.recovered && news.failing_since == 0);
    assert_false(finish(&f, 1, OUTCOME_SUCCESS, 1, NOW, NOW + 3600000).noted);
    end(&f);
}

static void test_an_open_breaker_is_told_and_its_end(void **state) {
    (void)state;
    struct fixture f;
    begin_with_health(&f, 0, 0);
    for (uint64_t i = 1; i < 10; i++)
        assert_false(finish(&f, 1, OUTCOME_TRANSIENT, i, NOW, NOW + (int64_t)i).failing);
    struct lane_news news = finish(&f, 1, OUTCOME_TRANSIENT, 10, NOW, NOW + 10);
    assert_true(news.failing && news.noted);
    assert_true(news.failing_since == NOW + 1 && news.raised_since == NOW + 1);
    assert_false(finish(&f, 1, OUTCOME_TRANSIENT, 11, NOW, NOW + 11).failing);
    news = finish(&f, 1, OUTCOME_SUCCESS, 12, NOW, NOW + 12);
    assert_true(news.recovered && news.noted && news.failed_since == NOW + 1);
    assert_true(news.failing_since == 0 && news.raised_since == 0);
    assert_false(finish(&f, 1, OUTCOME_SUCCESS, 13, NOW, NOW + 13).recovered);
    end(&f);
}

static void test_the_systems_own_events_tell_nothing(void **state) {
    (void)state;
    struct fixture f;
    begin_with_health(&f, 0, 0);
    for (uint64_t i = 1; i <= 10; i++)
        assert_false(finish_quietly(&f, 1, OUTCOME_TRANSIENT, i, NOW).failing);
    assert_string_equal(stats(&f, 1, NOW).breaker, "open");
    /* The next that may tell does; and so with the recovery. */
    assert_true(finish(&f, 1, OUTCOME_TRANSIENT, 11, NOW, NOW + 1).failing);
    struct lane_news news = finish_quietly(&f, 1, OUTCOME_SUCCESS, 12, NOW + 2);
    assert_true(!news.recovered && news.noted && news.failing_since == 0 && news.raised_since == NOW);
    news = finish(&f, 1, OUTCOME_SUCCESS, 13, NOW, NOW + 3);
    assert_true(news.recovered && news.failed_since == NOW && news.raised_since == 0);
    end(&f);
}

static void test_health_is_taken_up_where_the_store_left_it(void **state) {
    (void)state;
    struct fixture f;
    begin_with_health(&f, NOW - 3599999, NOW - 3599999);
    struct lane_news news = finish(&f, 1, OUTCOME_TRANSIENT, 1, NOW, NOW);
    assert_true(!news.exhausted && !news.failing && !news.noted);
    assert_true(finish(&f, 1, OUTCOME_TRANSIENT, 1, NOW, NOW + 1).exhausted);
    assert_true(finish(&f, 1, OUTCOME_SUCCESS, 1, NOW, NOW + 2).recovered);
    end(&f);
}

static void test_enabled_again_it_starts_afresh(void **state) {
    (void)state;
    struct fixture f;
    begin_with_health(&f, NOW - 3599999, NOW - 3599999);
    struct subscription *s = make_with_health(NOW - 3599999, NOW - 3599999);
    s->status = SUBSCRIPTION_DISABLED;
    put(&f, s, NOW);
    put(&f, make_with_health(0, 0), NOW);
    assert_false(finish(&f, 1, OUTCOME_TRANSIENT, 1, NOW, NOW + 1).exhausted);
    assert_false(finish(&f, 1, OUTCOME_SUCCESS, 1, NOW, NOW + 2).recovered);
    end(&f);
}

static void assert_metric(struct metrics *m, const char *line) {
    struct buf out = {0};
    metrics_render(m, &out);
    assert_true(buf_ok(&out));
    assert_non_null(strstr(out.p, line));
    buf_free(&out);
}

/* A hundred places, and what the lanes count. */
static struct metrics *begin_counted(struct fixture *f) {
    struct metrics *m = metrics_new();
    assert_non_null(m);
    begin(f, 100);
    lanes_free(f->ls);
    assert_int_equal(lanes_new(f->tenants, 100, MARGIN_MS, m, &f->ls), 0);
    return m;
}

static void test_a_new_tier_takes_its_places_along(void **state) {
    (void)state;
    struct fixture f;
    struct metrics *m = begin_counted(&f);
    add(&f, 1, 1, TIER_BULK, 2);
    assert_int_equal(run(&f, NOW, 100), 2);
    assert_metric(m, "{tier=\"bulk\"} 2\n");
    put(&f, make(1, 1, TIER_PREMIUM, 2), NOW);
    assert_metric(m, "{tier=\"bulk\"} 0\n");
    assert_metric(m, "{tier=\"premium\"} 2\n");
    finish(&f, 1, OUTCOME_SUCCESS, 1, NOW, NOW);
    finish(&f, 1, OUTCOME_SUCCESS, 2, NOW, NOW);
    assert_metric(m, "{tier=\"premium\"} 0\n");
    end(&f);
    metrics_free(m);
}

static void test_a_removed_lane_leaves_the_gauge(void **state) {
    (void)state;
    struct fixture f;
    struct metrics *m = begin_counted(&f);
    add(&f, 1, 1, TIER_STANDARD, 10);
    run(&f, NOW, 100);
    for (uint64_t i = 0; i < 10; i++)
        finish(&f, 1, OUTCOME_TRANSIENT, i, NOW, NOW);
    assert_metric(m, "posthorn_breaker_open 1\n");
    assert_true(lanes_remove(f.ls, 1));
    assert_metric(m, "posthorn_breaker_open 0\n");
    end(&f);
    metrics_free(m);
}

/* ---- lanes that were served before ---- */

static void resume(struct fixture *f, struct lane_start start, uint32_t cap, int64_t now) {
    struct subscription *s = make(1, 1, TIER_STANDARD, cap);
    s->policy->rate_per_second = start.taken_over ? 10 : 0;
    s->policy->rate_burst = 10;
    assert_int_equal(lanes_put(f->ls, s, &start, now), 0);
    subscription_unref(s);
    assert_true(lanes_due(f->ls, 1, now, now));
}

static void test_what_holds_a_lane_back_is_counted(void **state) {
    (void)state;
    struct fixture f;
    struct metrics *m = begin_counted(&f);
    add(&f, 1, 1, TIER_STANDARD, 2);
    add(&f, 2, 1, TIER_STANDARD, 2);
    assert_int_equal(run(&f, NOW, 100), 4);
    assert_int_equal(run(&f, NOW, 100), 0);
    assert_metric(m, "posthorn_lanes_throttled{cause=\"concurrency\"} 2\n");
    finish(&f, 1, OUTCOME_BACKPRESSURE, 1, NOW, NOW);
    assert_metric(m, "posthorn_lanes_throttled{cause=\"concurrency\"} 1\n");
    assert_metric(m, "posthorn_lanes_throttled{cause=\"rate_limit\"} 1\n");
    struct subscription *s = make(2, 1, TIER_STANDARD, 2);
    s->status = SUBSCRIPTION_PAUSED;
    put(&f, s, NOW);
    assert_metric(m, "posthorn_lanes_throttled{cause=\"concurrency\"} 0\n");
    assert_metric(m, "posthorn_lanes_throttled{cause=\"paused\"} 1\n");
    assert_int_equal(run(&f, NOW + 5000, 100), 0); /* the rest is over, the limit was halved to one */
    assert_metric(m, "posthorn_lanes_throttled{cause=\"rate_limit\"} 0\n");
    assert_metric(m, "posthorn_lanes_throttled{cause=\"concurrency\"} 1\n");
    end(&f);
    metrics_free(m);
}

static void test_memory_survives_its_bytes(void **state) {
    (void)state;
    struct lane_memory m = {.probe_interval_ms = 80000, .probe_at = INT64_C(1764100000123), .limit = 2.5F},
                       got;
    uint8_t bytes[LANE_STATE_SIZE];
    lane_memory_write(&m, bytes);
    assert_true(lane_memory_read((struct slice){(char *)bytes, sizeof bytes}, &got));
    assert_int_equal(got.probe_interval_ms, m.probe_interval_ms);
    assert_true(got.probe_at == m.probe_at && got.limit == m.limit);
    assert_false(lane_memory_read((struct slice){(char *)bytes, sizeof bytes - 1}, &got));
    bytes[0]++;
    assert_false(lane_memory_read((struct slice){(char *)bytes, sizeof bytes}, &got));
}

static void test_an_open_breaker_is_kept_and_taken_up(void **state) {
    (void)state;
    struct fixture f;
    begin(&f, 100);
    add(&f, 1, 1, TIER_STANDARD, 10);
    assert_int_equal(run(&f, NOW, 100), 10);
    struct lane_news news = {0};
    for (uint64_t i = 0; i < 10; i++) {
        assert_false(news.remember);
        news = finish(&f, 1, OUTCOME_TRANSIENT, i, NOW, NOW);
    }
    assert_true(news.remember);
    assert_int_equal(news.memory.probe_interval_ms, 5000);
    int64_t probe = lanes_next_wake(f.ls, NOW);
    assert_int_equal(run(&f, probe, 100), 1);
    news = finish(&f, 1, OUTCOME_TRANSIENT, 77, probe, probe);
    assert_true(news.remember);
    assert_int_equal(news.memory.probe_interval_ms, 10000);
    struct lane_memory kept = news.memory;
    end(&f);

    begin(&f, 100);
    resume(&f, (struct lane_start){.memory = kept}, 10, probe);
    assert_string_equal(stats(&f, 1, probe).breaker, "open");
    assert_int_equal(run(&f, kept.probe_at - 1, 100), 0);
    assert_int_equal(run(&f, kept.probe_at, 100), 1);
    news = finish(&f, 1, OUTCOME_SUCCESS, 77, kept.probe_at, kept.probe_at);
    /* Closed, but its limit begins at one. */
    assert_true(news.remember && news.memory.probe_interval_ms == 0 && news.memory.limit == 1);
    end(&f);
}

static void test_a_limit_is_kept_when_it_has_halved_or_doubled(void **state) {
    (void)state;
    struct fixture f;
    begin(&f, 100);
    resume(&f, (struct lane_start){.memory = {.limit = 4}}, 16, NOW);
    assert_int_equal(stats(&f, 1, NOW).concurrency, 4);
    unsigned writes = 0, attempts = 0;
    float last = 4;
    for (struct lane_news news; last != 0 && attempts < 1000; attempts++) {
        assert_true(run(&f, NOW, 1) == 1);
        news = finish(&f, 1, OUTCOME_SUCCESS, 1, NOW, NOW);
        assert_true(lanes_due(f.ls, 1, NOW, NOW));
        if (!news.remember)
            continue;
        assert_true(news.memory.limit == 0 || news.memory.limit >= 2 * last);
        last = news.memory.limit;
        writes++;
    }
    assert_int_equal(last, 0);
    assert_true(writes <= 2 && attempts > 100);
    end(&f);
}

static void test_inherited_attempts_count(void **state) {
    (void)state;
    struct fixture f;
    begin(&f, 100);
    resume(&f, (struct lane_start){.inherited = 3}, 4, NOW);
    assert_int_equal(run(&f, NOW, 100), 1);
    assert_int_equal(stats(&f, 1, NOW).in_flight, 4);
    assert_int_equal(run(&f, NOW, 100), 0);
    assert_int_equal(stats(&f, 1, NOW).waiting_on, LANE_WAIT_CONCURRENCY);
    lanes_disinherit(f.ls, 1, 2, NOW);
    assert_int_equal(run(&f, NOW, 100), 2);
    lanes_disinherit(f.ls, 1, 9, NOW); /* never below none */
    assert_int_equal(run(&f, NOW, 100), 1);
    /* While one of them may be a probe there is no other. */
    end(&f);
    begin(&f, 100);
    resume(&f, (struct lane_start){.inherited = 1, .memory = {.probe_interval_ms = 5000, .probe_at = NOW}}, 4,
           NOW);
    assert_int_equal(run(&f, NOW, 100), 0);
    lanes_disinherit(f.ls, 1, 1, NOW);
    assert_int_equal(run(&f, NOW, 100), 1);
    end(&f);
}

static void test_taken_over_its_bucket_begins_empty(void **state) {
    (void)state;
    struct fixture f;
    begin(&f, 100);
    resume(&f, (struct lane_start){.taken_over = true}, 100, NOW);
    assert_int_equal(run(&f, NOW, 100), 0);
    assert_int_equal(run(&f, NOW + 1000, 100), 10);
    end(&f);
}

/* Of lanes that another node is to serve those with attempts under way stay until these have ended; nothing
 * is claimed for them meanwhile. */
static void test_released_lanes_let_their_attempts_end(void **state) {
    (void)state;
    struct fixture f;
    begin(&f, 1000);
    struct partition_set set = {0};
    for (uint32_t no = 1; no <= 200; no++)
        add(&f, no, no % 3 + 1, no % 2 ? TIER_STANDARD : TIER_BULK, 1);
    for (unsigned p = 0; p < PARTITIONS; p++)
        partition_add(&set, TIER_STANDARD, p);
    for (uint32_t claimed = 0; claimed < 50;)
        claimed += run(&f, NOW, 50 - claimed);
    uint32_t busy = lanes_in_flight(f.ls), standard = 0, left = 0;
    assert_int_equal(busy, 50);
    lanes_release_all(f.ls, &set);
    for (uint32_t no = 1; no <= 200; no++) {
        bool there = lanes_subscription(f.ls, no) != NULL;
        standard += there && no % 2;
        left += there && !(no % 2);
    }
    assert_int_equal(left, 100);
    assert_int_equal(lanes_leaving(f.ls), standard);
    assert_true(standard > 0 && standard <= busy);
    while (run(&f, NOW, 100) > 0)
        for (size_t i = 0; i < f.n; i++)
            assert_int_equal(f.claims[i].subscription_no % 2, 0);
    /* One comes back, the others end. */
    uint32_t back = 1;
    while (!lanes_subscription(f.ls, back))
        back += 2;
    put(&f, make(back, back % 3 + 1, TIER_STANDARD, 2), NOW);
    assert_int_equal(lanes_leaving(f.ls), standard - 1);
    assert_int_equal(stats(&f, back, NOW).in_flight, 1);
    for (uint32_t no = 1; no <= 200; no += 2)
        if (no != back && lanes_subscription(f.ls, no))
            assert_true(finish(&f, no, OUTCOME_SUCCESS, 1, NOW, NOW).removed);
    assert_int_equal(lanes_leaving(f.ls), 0);
    assert_true(lanes_due(f.ls, back, NOW, NOW));
    assert_int_equal(run(&f, NOW, 100), 1);
    end(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cap_and_claim_fields),
        cmocka_unit_test(test_budget_holds_over_all_lanes),
        cmocka_unit_test(test_tier_shares_are_reserved),
        cmocka_unit_test(test_no_tier_and_no_tenant_starves),
        cmocka_unit_test(test_backpressure_halves_once_and_rests),
        cmocka_unit_test(test_a_timeout_halves_as_backpressure_does),
        cmocka_unit_test(test_the_lane_rests_as_long_as_the_endpoint_asks),
        cmocka_unit_test(test_breaker_opens_and_probes_alone),
        cmocka_unit_test(test_an_empty_probe_leaves_the_breaker_open),
        cmocka_unit_test(test_what_is_older_than_the_probe_sends_no_second),
        cmocka_unit_test(test_a_half_open_lane_is_never_stuck),
        cmocka_unit_test(test_probes_do_not_put_the_expiry_off),
        cmocka_unit_test(test_paused_and_disabled_send_nothing),
        cmocka_unit_test(test_a_lane_holds_while_its_ordering_changes),
        cmocka_unit_test(test_tenant_cap),
        cmocka_unit_test(test_rate_limit),
        cmocka_unit_test(test_notice_during_a_claim_is_kept),
        cmocka_unit_test(test_failed_claim_is_asked_again),
        cmocka_unit_test(test_a_failed_claim_cuts_no_rest_short),
        cmocka_unit_test(test_removal_waits_for_what_is_under_way),
        cmocka_unit_test(test_health_is_noted_after_a_while),
        cmocka_unit_test(test_an_open_breaker_is_told_and_its_end),
        cmocka_unit_test(test_the_systems_own_events_tell_nothing),
        cmocka_unit_test(test_health_is_taken_up_where_the_store_left_it),
        cmocka_unit_test(test_enabled_again_it_starts_afresh),
        cmocka_unit_test(test_a_new_tier_takes_its_places_along),
        cmocka_unit_test(test_a_removed_lane_leaves_the_gauge),
        cmocka_unit_test(test_what_holds_a_lane_back_is_counted),
        cmocka_unit_test(test_memory_survives_its_bytes),
        cmocka_unit_test(test_released_lanes_let_their_attempts_end),
        cmocka_unit_test(test_an_open_breaker_is_kept_and_taken_up),
        cmocka_unit_test(test_a_limit_is_kept_when_it_has_halved_or_doubled),
        cmocka_unit_test(test_inherited_attempts_count),
        cmocka_unit_test(test_taken_over_its_bucket_begins_empty),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
