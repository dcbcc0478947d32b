/* A turn of a delivery loop at the writer: what it tells of, and what it leaves alone. */
#include "fixture.h"

#include <errno.h>

#include "lanes/turn.h"

enum { RAISED_MAX = 16 };

struct bench {
    struct fixture *f;
    uint32_t tenant, sub;
    struct turn *turn;
    struct dispatch_options options;
    struct operational_event raised[RAISED_MAX];
    unsigned raised_n, disabled_n;
    int disabling; /* what disable answers */
    bool held;
};

static int keep_raised(void *arg, struct store *s, const struct operational_event *e) {
    struct bench *b = arg;
    (void)s;
    assert_true(b->raised_n < RAISED_MAX);
    b->raised[b->raised_n++] = *e;
    return 0;
}

static int disable(void *arg, struct store *s, uint32_t no, const char *reason, int64_t now) {
    struct bench *b = arg;
    (void)s;
    assert_true(no == b->sub && reason && now == b->f->now);
    b->disabled_n++;
    return b->disabling;
}

static bool holds(void *arg, uint32_t no) {
    struct bench *b = arg;
    assert_int_equal(no, b->sub);
    return b->held;
}

static void start(struct bench *b, struct fixture *f) {
    *b = (struct bench){.f = f, .tenant = make_tenant(f), .disabling = 1};
    b->sub = make_subscription(f, b->tenant);
    b->options =
        (struct dispatch_options){.raise = keep_raised, .disable = disable, .holds = holds, .arg = b};
    b->turn = calloc(1, sizeof *b->turn);
    assert_non_null(b->turn);
}

static void stop(struct bench *b) {
    free(b->turn);
}

static struct health_change *add(struct bench *b, struct settlement s) {
    size_t at = b->turn->settlements_n++;
    b->turn->settlements[at] = s;
    b->turn->health[at] = (struct health_change){0};
    return &b->turn->health[at];
}

static void run(struct bench *b) {
    b->raised_n = b->disabled_n = 0;
    begin(b->f);
    assert_int_equal(turn_run(b->turn, b->f->store, b->f->now, &b->options), 0);
    commit(b->f);
}

static struct task begin_one(struct bench *b) {
    (void)publish(b->f, b->tenant, b->sub);
    return claim_one(b->f, b->tenant, b->sub);
}

static void assert_told(const struct bench *b, unsigned at, enum operational_kind kind) {
    assert_true(at < b->raised_n);
    assert_int_equal(b->raised[at].kind, kind);
    assert_int_equal(b->raised[at].subscription_no, b->sub);
}

/* ---- tests ---- */

static void test_a_death_is_told_once(void **state) {
    struct bench b;
    start(&b, *state);
    struct task dies = begin_one(&b), retried = begin_one(&b), delivered = begin_one(&b);
    add(&b, outcome_of(b.f, &dies, DELIVERY_DLQ, 404));
    add(&b, outcome_of(b.f, &retried, DELIVERY_RETRY, 500));
    add(&b, outcome_of(b.f, &delivered, DELIVERY_DELIVERED, 200));
    run(&b);
    assert_int_equal(b.raised_n, 1);
    assert_told(&b, 0, OPERATIONAL_EXHAUSTED);
    assert_true(b.raised[0].event_key == dies.event_key && b.raised[0].tenant_no == b.tenant);
    /* A settle that comes too late tells nothing, though it says what the store says. */
    run(&b);
    assert_true(b.turn->settlements[0].stale);
    assert_int_equal(b.raised_n, 0);
    stop(&b);
}

static void test_what_expires_is_told(void **state) {
    struct bench b;
    start(&b, *state);
    struct id claimed = publish(b.f, b.tenant, b.sub);
    b.f->now += 73 * HOUR_MS;
    b.turn->claims[0] = lane_of(b.tenant, b.sub, 5);
    b.turn->claims_n = 1;
    run(&b);
    assert_int_equal(b.raised_n, 1);
    assert_told(&b, 0, OPERATIONAL_EXHAUSTED);
    assert_true(b.raised[0].event_key == claimed.key);
    /* Behind an open breaker, or while disabled, likewise. */
    struct id shed = publish(b.f, b.tenant, b.sub);
    b.f->now += 73 * HOUR_MS;
    b.turn->claims_n = 0;
    b.turn->expiries[0] =
        (struct lane_expiry){.subscription_no = b.sub, .tenant_no = b.tenant, .window_ms = 72 * HOUR_MS};
    b.turn->expiries_n = 1;
    run(&b);
    assert_int_equal(b.raised_n, 1);
    assert_true(b.raised[0].event_key == shed.key);
    run(&b);
    assert_int_equal(b.raised_n, 0);
    stop(&b);
}

static void test_a_lane_that_changes_its_order_claims_nothing(void **state) {
    struct bench b;
    start(&b, *state);
    (void)publish(b.f, b.tenant, b.sub);
    b.turn->claims[0] = lane_of(b.tenant, b.sub, 5);
    b.turn->claims_n = 1;
    b.held = true;
    run(&b);
    assert_int_equal(b.turn->tasks_n, 0);
    b.held = false;
    run(&b);
    assert_int_equal(b.turn->tasks_n, 1);
    stop(&b);
}

static void test_disabling_is_told_when_it_did(void **state) {
    static const struct {
        int answer;
        bool quiet;
        unsigned told;
    } cases[] = {{1, false, 2}, {0, false, 1}, {-ENOENT, false, 1}, {1, true, 1}};
    struct bench b;
    start(&b, *state);
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct task t = begin_one(&b);
        b.disabling = cases[i].answer;
        b.turn->settlements_n = 0;
        struct health_change *h = add(&b, outcome_of(b.f, &t, DELIVERY_DLQ, 410));
        h->disable = "gone";
        h->quiet = cases[i].quiet;
        run(&b);
        assert_int_equal(b.disabled_n, 1);
        assert_int_equal(b.raised_n, cases[i].told);
        assert_int_equal(b.turn->disabled_any, cases[i].answer == 1);
        if (cases[i].told == 2)
            assert_told(&b, 1, OPERATIONAL_DISABLED);
    }
    stop(&b);
}

static void test_health_is_told_and_kept(void **state) {
    struct bench b;
    start(&b, *state);
    struct task t = begin_one(&b);
    struct health_change *h = add(&b, outcome_of(b.f, &t, DELIVERY_RETRY, 500));
    h->noted = h->failing = true;
    h->failing_since = 1000;
    run(&b);
    assert_int_equal(b.raised_n, 1);
    assert_told(&b, 0, OPERATIONAL_FAILING);
    assert_true(b.raised[0].failing_since == 1000 && b.raised[0].last_status == 500);
    struct subscription_record record;
    begin(b.f);
    assert_int_equal(store_get_subscription(b.f->store, b.sub, &record), 0);
    assert_true(record.failing_since == 1000);
    commit(b.f);
    t = begin_one(&b);
    b.turn->settlements_n = 0;
    h = add(&b, outcome_of(b.f, &t, DELIVERY_DELIVERED, 200));
    h->noted = h->recovered = true;
    h->failed_since = 1000;
    run(&b);
    assert_int_equal(b.raised_n, 1);
    assert_told(&b, 0, OPERATIONAL_RECOVERED);
    assert_true(b.raised[0].failing_since == 1000);
    stop(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        STORE_TEST(test_a_death_is_told_once),
        STORE_TEST(test_what_expires_is_told),
        STORE_TEST(test_a_lane_that_changes_its_order_claims_nothing),
        STORE_TEST(test_disabling_is_told_when_it_did),
        STORE_TEST(test_health_is_told_and_kept),
    };
    return cmocka_run_group_tests(tests, NULL, fixture_end);
}
