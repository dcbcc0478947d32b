/* The reaper against a store: whose leases it settles, how, and whom it tells. */
#include "fixture.h"

#include <string.h>

#include "settle/reaper.h"

enum { LEASE_MS = 60000 /* of the fixture's claims */, MANY = 600 /* more than a run takes */ };

struct bench {
    struct fixture *f;
    uint32_t tenant, sub;
    struct metrics *metrics;
    struct reaper *reaper;
    struct subscription snapshot;
    struct policy policy;
    uint32_t not_ours; /* a subscription that another process sees to */
    unsigned told, raised;
    int64_t told_due_at;
    struct operational_event last_raised;
};

static const struct subscription *find(void *arg, uint32_t no) {
    struct bench *b = arg;
    return no == b->sub ? &b->snapshot : NULL;
}

static void due(void *arg, uint32_t no, int64_t due_at) {
    struct bench *b = arg;
    assert_int_equal(no, b->sub);
    b->told++;
    b->told_due_at = due_at;
}

static bool ours(void *arg, uint32_t no, int64_t lease_until) {
    assert_true(lease_until > 0);
    return no != ((struct bench *)arg)->not_ours;
}

static int keep_raised(void *arg, struct store *s, const struct operational_event *e) {
    struct bench *b = arg;
    (void)s;
    b->raised++;
    b->last_raised = *e;
    return 0;
}

static void start(struct bench *b, struct fixture *f) {
    *b = (struct bench){.f = f, .tenant = make_tenant(f), .metrics = metrics_new()};
    assert_non_null(b->metrics);
    b->sub = make_subscription(f, b->tenant);
    policy_init(&b->policy);
    b->snapshot = (struct subscription){
        .no = b->sub, .tenant_no = b->tenant, .url = "https://example.com/", .policy = &b->policy};
    struct reaper_options o = {.metrics = b->metrics,
                               .worker_no = 1,
                               .subscription = find,
                               .due = due,
                               .ours = ours,
                               .raise = keep_raised,
                               .arg = b};
    assert_int_equal(reaper_new(&o, &b->reaper), 0);
}

static void stop(struct bench *b) {
    reaper_free(b->reaper);
    metrics_free(b->metrics);
}

/* Whether there is more. Nobody is told before the commit. */
static bool reap(struct bench *b) {
    bool more = false;
    unsigned told = b->told;
    begin(b->f);
    assert_int_equal(reaper_run(b->reaper, b->f->store, b->f->now, b->f->now, &more), 0);
    commit(b->f);
    assert_int_equal(b->told, told);
    reaper_announce(b->reaper);
    return more;
}

static void assert_metric(struct bench *b, const char *line) {
    _cleanup_buf_ struct buf text = {0};
    metrics_render(b->metrics, &text);
    buf_add_char(&text, '\0');
    assert_true(buf_ok(&text));
    if (!strstr(text.p, line))
        fail_msg("there is no %s", line);
}

static struct attempt_row last_attempt(struct bench *b, struct id event) {
    struct attempts *a = list_attempts(b->f, event, b->sub);
    assert_true(a->n > 0);
    struct attempt_row row = a->at[a->n - 1];
    free(a);
    return row;
}

static void test_a_lost_lease_is_due_again_at_once(void **state) {
    struct bench b;
    start(&b, *state);
    struct id event = publish(b.f, b.tenant, b.sub);
    struct task t = claim_one(b.f, b.tenant, b.sub);
    b.f->now = t.lease_until; /* its last moment */
    assert_false(reap(&b));
    assert_int_equal(state_of(b.f, b.tenant, event, b.sub), DELIVERY_ATTEMPTING);
    b.f->now++;
    assert_false(reap(&b));
    assert_int_equal(state_of(b.f, b.tenant, event, b.sub), DELIVERY_RETRY);
    assert_int_equal(last_attempt(&b, event).attempt.error, ATTEMPT_LEASE_EXPIRED);
    assert_true(b.told == 1 && b.told_due_at == b.f->now && b.raised == 0);
    assert_metric(&b, "\nposthorn_leases_expired_total 1\n");
    assert_int_equal(claim_one(b.f, b.tenant, b.sub).number, 2);
    assert_true(settle(b.f, outcome_of(b.f, &t, DELIVERY_DELIVERED, 200)).stale);
    stop(&b);
}

static void test_the_last_attempt_that_is_lost_is_dead_and_told(void **state) {
    struct bench b;
    start(&b, *state);
    b.policy.max_attempts = 1;
    struct id event = publish(b.f, b.tenant, b.sub);
    struct task t = claim_one(b.f, b.tenant, b.sub);
    b.f->now = t.lease_until + 1;
    assert_false(reap(&b));
    assert_int_equal(state_of(b.f, b.tenant, event, b.sub), DELIVERY_DLQ);
    assert_int_equal(b.told, 0);
    assert_int_equal(b.raised, 1);
    assert_true(b.last_raised.kind == OPERATIONAL_EXHAUSTED && b.last_raised.event_key == event.key &&
                b.last_raised.subscription_no == b.sub && b.last_raised.tenant_no == b.tenant);
    assert_metric(&b, "\nposthorn_dlq_total{reason=\"attempts_exhausted\"} 1\n");
    stop(&b);
}

static void test_the_next_of_a_key_is_told_of(void **state) {
    struct bench b;
    start(&b, *state);
    b.policy.max_attempts = 1;
    (void)publish_ordered(b.f, b.tenant, b.sub, 7);
    struct id second = publish_ordered(b.f, b.tenant, b.sub, 7);
    struct task t = claim_one(b.f, b.tenant, b.sub);
    assert_int_equal(claim(b.f, lane_of(b.tenant, b.sub, 9)).n, 0);
    b.f->now = t.lease_until + 1;
    assert_false(reap(&b));
    assert_int_equal(b.told, 1);
    assert_true(claim_one(b.f, b.tenant, b.sub).event_key == second.key);
    stop(&b);
}

static void test_anothers_leases_are_left_to_it(void **state) {
    struct bench b;
    start(&b, *state);
    struct id event = publish(b.f, b.tenant, b.sub);
    struct task t = claim_one(b.f, b.tenant, b.sub);
    b.f->now = t.lease_until + 1;
    b.not_ours = b.sub;
    assert_false(reap(&b));
    assert_int_equal(state_of(b.f, b.tenant, event, b.sub), DELIVERY_ATTEMPTING);
    b.not_ours = 0;
    assert_false(reap(&b));
    assert_int_equal(state_of(b.f, b.tenant, event, b.sub), DELIVERY_RETRY);
    stop(&b);
}

static void test_many_are_taken_in_steps(void **state) {
    struct bench b;
    start(&b, *state);
    begin(b.f);
    for (int i = 0; i < MANY; i++) {
        (void)publish(b.f, b.tenant, b.sub);
        (void)claim_one(b.f, b.tenant, b.sub);
    }
    commit(b.f);
    b.f->now += LEASE_MS + 1;
    assert_true(reap(&b));
    assert_in_range(b.told, 1, MANY - 1);
    assert_false(reap(&b));
    assert_int_equal(b.told, MANY);
    stop(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        STORE_TEST(test_a_lost_lease_is_due_again_at_once),
        STORE_TEST(test_the_last_attempt_that_is_lost_is_dead_and_told),
        STORE_TEST(test_the_next_of_a_key_is_told_of),
        STORE_TEST(test_anothers_leases_are_left_to_it),
        STORE_TEST(test_many_are_taken_in_steps),
    };
    return cmocka_run_group_tests(tests, NULL, fixture_end);
}
