/* A changed ordering: what is open moves to the lane keys that it gives, in small steps. */
#include "fixture.h"

#include <errno.h>
#include <stdlib.h>

#include "base/random.h"

enum { EVENTS_MAX = 200 };

struct made {
    struct id event;
    const char *ordering_key;
    int64_t order_at;
    bool under_way, closed;
    struct task task;
};

struct lane {
    struct fixture *f;
    uint32_t tenant, sub;
    enum subscription_ordering ordering;
    struct relane_cursor cursor;
    bool relaning;
    struct made at[EVENTS_MAX];
    size_t n;
};

static struct lane *make_lane(struct fixture *f, enum subscription_ordering ordering) {
    struct lane *l = calloc(1, sizeof *l);
    assert_non_null(l);
    *l = (struct lane){.f = f, .tenant = make_tenant(f), .ordering = ordering};
    l->sub = make_subscription(f, l->tenant);
    return l;
}

static uint64_t key_of(const struct lane *l, const struct made *m) {
    return subscription_lane_key(l->ordering, slice_of(m->ordering_key));
}

static struct made *publish_keyed(struct lane *l, const char *ordering_key, int64_t delay) {
    assert_true(l->n < EVENTS_MAX);
    struct made *m = &l->at[l->n++];
    *m = (struct made){.ordering_key = ordering_key, .order_at = l->f->now + delay};
    m->event =
        make_event(l->f, l->tenant,
                   (struct event_spec){.ordering_key = ordering_key, .deliver_at = delay ? m->order_at : 0});
    struct new_delivery d = {.event_key = m->event.key,
                             .subscription_no = l->sub,
                             .tenant_no = l->tenant,
                             .lane_key = key_of(l, m),
                             .order_at = m->order_at};
    size_t made;
    begin(l->f);
    assert_int_equal(store_insert_deliveries(l->f->store, &d, 1, &made), 0);
    commit(l->f);
    return m;
}

static void change_ordering(struct lane *l, enum subscription_ordering ordering) {
    l->ordering = ordering;
    l->relaning = true;
    l->cursor = (struct relane_cursor){0};
}

static void relane_step(struct lane *l, unsigned limit) {
    bool done = false;
    begin(l->f);
    assert_int_equal(store_relane(l->f->store, l->sub, l->ordering, &l->cursor, limit, &done), 0);
    commit(l->f);
    l->relaning = !done;
}

static void relane_all(struct lane *l, unsigned limit) {
    for (int steps = 0; l->relaning; steps++) {
        assert_true(steps < 10000);
        relane_step(l, limit);
    }
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

/* Claims, and holds that nothing open of its key stands before, or is under way. Returns how many. */
static size_t claim_some(struct lane *l, uint32_t limit) {
    struct claim c = claim(l->f, lane_of(l->tenant, l->sub, limit));
    assert_int_equal(c.expired_n, 0);
    for (size_t i = 0; i < c.n; i++) {
        struct made *m = find_made(l, c.tasks[i].event_key);
        assert_false(m->closed || m->under_way);
        uint64_t key = key_of(l, m);
        for (size_t k = 0; key && k < l->n; k++)
            if (key_of(l, &l->at[k]) == key && !l->at[k].closed && &l->at[k] != m)
                assert_true(!l->at[k].under_way && comes_before(m, &l->at[k]));
        m->under_way = true;
        m->task = c.tasks[i];
    }
    return c.n;
}

static void settle_to(struct lane *l, struct made *m, enum delivery_state to) {
    assert_false(settle(l->f, outcome_of(l->f, &m->task, to, 500)).stale);
    m->under_way = false;
    m->closed = to != DELIVERY_RETRY;
}

static size_t open_of(const struct lane *l) {
    size_t n = 0;
    for (size_t i = 0; i < l->n; i++)
        n += !l->at[i].closed;
    return n;
}

static void drain(struct lane *l) {
    for (int round = 0; open_of(l); round++) {
        assert_true(round < 1000);
        l->f->now += 5000;
        claim_some(l, 5);
        for (size_t i = 0; i < l->n; i++)
            if (l->at[i].under_way)
                settle_to(l, &l->at[i], DELIVERY_DELIVERED);
    }
}

static void test_from_none_to_strict(void **state) {
    struct lane *l = make_lane(*state, ORDERING_NONE);
    for (int i = 0; i < 10; i++)
        publish_keyed(l, NULL, 0);
    change_ordering(l, ORDERING_STRICT);
    relane_all(l, 3);
    assert_int_equal(claim_some(l, 10), 1);
    assert_true(l->at[0].under_way);
    drain(l);
    free(l);
}

static void test_from_strict_to_none(void **state) {
    struct lane *l = make_lane(*state, ORDERING_STRICT);
    for (int i = 0; i < 10; i++)
        publish_keyed(l, "a", 0);
    change_ordering(l, ORDERING_NONE);
    relane_all(l, 3);
    assert_int_equal(claim_some(l, 10), 10);
    free(l);
}

static void test_from_strict_to_key_and_back(void **state) {
    struct lane *l = make_lane(*state, ORDERING_STRICT);
    static const char *const keys[] = {"a", "b", NULL};
    for (int i = 0; i < 12; i++)
        publish_keyed(l, keys[i % 3], 0);
    change_ordering(l, ORDERING_KEY);
    relane_all(l, 5);
    /* Two heads, and the four without a key. */
    assert_int_equal(claim_some(l, 12), 6);
    for (size_t i = 0; i < l->n; i++)
        if (l->at[i].under_way)
            settle_to(l, &l->at[i], DELIVERY_RETRY);
    change_ordering(l, ORDERING_STRICT);
    relane_all(l, 5);
    l->f->now += HOUR_MS;
    assert_int_equal(claim_some(l, 12), 1);
    drain(l);
    free(l);
}

/* A head keeps the time of its retry. */
static void test_a_retry_keeps_its_time(void **state) {
    struct lane *l = make_lane(*state, ORDERING_NONE);
    struct made *first = publish_keyed(l, "a", 0);
    publish_keyed(l, "a", 0);
    assert_int_equal(claim_some(l, 1), 1);
    struct settlement s = outcome_of(l->f, &first->task, DELIVERY_RETRY, 500);
    s.due_at = l->f->now + HOUR_MS;
    settle(l->f, s);
    first->under_way = false;
    change_ordering(l, ORDERING_KEY);
    relane_all(l, 1);
    assert_int_equal(claim_some(l, 5), 0);
    l->f->now += HOUR_MS;
    assert_int_equal(claim_some(l, 5), 1);
    assert_true(first->under_way);
    drain(l);
    free(l);
}

/* A lease that nobody holds any more is settled by what its row says. */
static void test_a_lost_attempt_moves_along(void **state) {
    struct lane *l = make_lane(*state, ORDERING_NONE);
    publish_keyed(l, "a", 0);
    publish_keyed(l, "a", 0);
    struct task lost = claim_one(l->f, l->tenant, l->sub);
    change_ordering(l, ORDERING_KEY);
    relane_all(l, 1);
    assert_int_equal(claim_some(l, 5), 0); /* behind the lost one */
    l->f->now += HOUR_MS;
    struct leased_task leases[ROWS_MAX];
    size_t n = 0;
    begin(l->f);
    assert_int_equal(store_list_expired_leases(l->f->store, l->f->now, leases, ROWS_MAX, &n), 0);
    for (size_t i = 0; i < n; i++)
        if (leases[i].task.event_key == lost.event_key)
            assert_int_equal(settle(l->f, outcome_of(l->f, &leases[i].task, DELIVERY_RETRY, 0)).stale, 0);
    commit(l->f);
    drain(l);
    free(l);
}

static void test_a_change_overtaken_by_another(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f), sub = make_subscription(f, tenant);
    struct subscription_record r;
    begin(f);
    assert_int_equal(store_get_subscription(f->store, sub, &r), 0);
    r.doc = SLICE_LIT("{}");
    r.relane = 5;
    assert_int_equal(store_update_subscription(f->store, &r), 0);
    assert_int_equal(store_set_relaned(f->store, sub, 4), 0);
    assert_int_equal(store_get_subscription(f->store, sub, &r), 0);
    assert_int_equal(r.relane, 5);
    assert_int_equal(store_set_relaned(f->store, sub, 5), 1);
    assert_int_equal(store_get_subscription(f->store, sub, &r), 0);
    assert_int_equal(r.relane, 0);
    commit(f);
}

static void step_by_chance(struct lane *l, struct rng *rng) {
    static const char *const keys[] = {"a", "b", "c", NULL};
    static const enum delivery_state ends[] = {DELIVERY_DELIVERED, DELIVERY_RETRY, DELIVERY_DLQ};
    uint64_t what = rng_below(rng, 10);
    if (what < 4 && l->n < EVENTS_MAX)
        publish_keyed(l, keys[rng_below(rng, COUNT(keys))],
                      rng_below(rng, 4) ? 0 : (int64_t)rng_below(rng, 20000));
    else if (l->relaning && what == 9)
        l->cursor = (struct relane_cursor){0}; /* a crash: begun again */
    else if (l->relaning)
        relane_step(l, (unsigned)rng_below(rng, 4) + 1);
    else if (what < 7)
        claim_some(l, (uint32_t)rng_below(rng, 4) + 1);
    else
        for (size_t i = 0; i < l->n; i++)
            if (l->at[i].under_way && rng_below(rng, 2))
                settle_to(l, &l->at[i], ends[rng_below(rng, COUNT(ends))]);
}

static void test_order_holds_through_changes_by_chance(void **state) {
    enum { STEPS = 400, BETWEEN_CHANGES = 80 };
    for (uint64_t seed = 1; seed <= 8; seed++) {
        struct rng rng;
        rng_seed(&rng, seed);
        struct lane *l = make_lane(*state, ORDERING_NONE);
        for (int step = 1; step <= STEPS; step++) {
            l->f->now += (int64_t)rng_below(&rng, 3000);
            step_by_chance(l, &rng);
            if (step % BETWEEN_CHANGES || l->relaning)
                continue;
            /* The lane holds until nothing is under way. */
            for (size_t i = 0; i < l->n; i++)
                if (l->at[i].under_way)
                    settle_to(l, &l->at[i], DELIVERY_RETRY);
            change_ordering(l, (enum subscription_ordering)rng_below(&rng, 3));
        }
        relane_all(l, 3);
        drain(l);
        free(l);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        STORE_TEST(test_from_none_to_strict),
        STORE_TEST(test_from_strict_to_none),
        STORE_TEST(test_from_strict_to_key_and_back),
        STORE_TEST(test_a_retry_keeps_its_time),
        STORE_TEST(test_a_lost_attempt_moves_along),
        STORE_TEST(test_a_change_overtaken_by_another),
        STORE_TEST(test_order_holds_through_changes_by_chance),
    };
    return cmocka_run_group_tests(tests, NULL, fixture_end);
}
