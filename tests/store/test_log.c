/* The logs by subscription and by type, while their batches are half done: whatever comes late, is undone,
 * deleted or started anew meanwhile, lists show each row once and the store stays whole. */
#include "fixture.h"

#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "store/upkeep.h"

enum { SUBSCRIPTIONS = 5, EVENTS_MAX = 160, ROUNDS = 160, ROUND_MS = 120000, SEEDS = 6, WIDE = 20000 };

static const char *const types[] = {"a", "b", "c"};

/* What the store should hold. */
struct model {
    struct {
        struct id id;
        int64_t at;
        size_t type;
        bool gone, has[SUBSCRIPTIONS], closed[SUBSCRIPTIONS];
    } events[EVENTS_MAX];
    size_t n;
};

struct scene {
    struct fixture *f;
    struct rng rng;
    uint32_t tenant, subs[SUBSCRIPTIONS];
    struct model model;
};

static struct scene *scene_new(struct fixture *f, uint64_t seed) {
    struct scene *c = calloc(1, sizeof *c);
    c->f = f;
    rng_seed(&c->rng, seed);
    begin(f);
    c->tenant = make_tenant(f);
    for (size_t i = 0; i < SUBSCRIPTIONS; i++)
        c->subs[i] = make_subscription(f, c->tenant);
    commit(f);
    return c;
}

/* ---- what happens, each in the transaction that has begun ---- */

static void add_delivery(struct scene *c, size_t event, size_t sub) {
    if (c->model.events[event].gone || c->model.events[event].has[sub])
        return;
    make_delivery(c->f, c->model.events[event].id, c->tenant, c->subs[sub]);
    c->model.events[event].has[sub] = true;
    c->model.events[event].closed[sub] = false;
}

/* An event of some time in the last hour, to some subscriptions. */
static void publish_some(struct scene *c) {
    if (c->model.n == EVENTS_MAX)
        return;
    size_t e = c->model.n++, type = rng_below(&c->rng, COUNT(types));
    int64_t at = c->f->now - 1 - (int64_t)rng_below(&c->rng, HOUR_MS);
    c->model.events[e].type = type;
    c->model.events[e].at = at;
    c->model.events[e].id = make_event(c->f, c->tenant, (struct event_spec){.at = at, .type = types[type]});
    for (size_t i = 0; i < SUBSCRIPTIONS; i++)
        if (rng_below(&c->rng, 2))
            add_delivery(c, e, i);
}

static void deliver_late(struct scene *c) {
    if (c->model.n)
        add_delivery(c, rng_below(&c->rng, c->model.n), rng_below(&c->rng, SUBSCRIPTIONS));
}

/* Mostly so little that a batch takes many steps. */
static void extend(struct scene *c) {
    bool more;
    int64_t upto = c->f->now - (int64_t)rng_below(&c->rng, HOUR_MS / 2);
    uint64_t most = rng_below(&c->rng, 4) ? 12 : 60;
    for (uint64_t i = rng_below(&c->rng, 3) + 1; i > 0; i--) {
        unsigned work = (unsigned)rng_below(&c->rng, most) + 1;
        assert_int_equal(store_extend_log(c->f->store, id_key_at(upto), work, &more), 0);
    }
}

/* Closes one delivery, whichever the claim finds. */
static void close_one(struct scene *c) {
    size_t sub = rng_below(&c->rng, SUBSCRIPTIONS);
    struct claim claimed = claim(c->f, lane_of(c->tenant, c->subs[sub], 1));
    if (!claimed.n)
        return;
    settle(c->f, outcome_of(c->f, &claimed.tasks[0], DELIVERY_DELIVERED, 200));
    for (size_t e = 0; e < c->model.n; e++)
        if (c->model.events[e].id.key == claimed.tasks[0].event_key)
            c->model.events[e].closed[sub] = true;
}

static void retain_some(struct scene *c) {
    int64_t before = c->f->now - (int64_t)rng_below(&c->rng, 2 * HOUR_MS);
    struct retain_cursor at = {0};
    unsigned n = 0;
    assert_int_equal(store_retain(c->f->store, c->tenant, before, 100000, &at, &n), 0);
    for (size_t e = 0; e < c->model.n; e++) {
        if (c->model.events[e].at >= before)
            continue;
        c->model.events[e].gone = true;
        for (size_t i = 0; i < SUBSCRIPTIONS; i++) {
            c->model.events[e].has[i] &= !c->model.events[e].closed[i];
            c->model.events[e].gone &= !c->model.events[e].has[i];
        }
    }
}

static void do_some(struct scene *c) {
    for (uint64_t i = rng_below(&c->rng, 4) + 1; i > 0; i--) {
        switch (rng_below(&c->rng, 12)) {
        case 0:
            retain_some(c);
            break;
        case 1 ... 2:
            close_one(c);
            break;
        case 3 ... 4:
            publish_some(c);
            break;
        case 5 ... 7:
            deliver_late(c);
            break;
        default:
            extend(c);
        }
    }
}

/* A job that fails, after and before others of its transaction that do not. */
static void do_some_and_undo(struct scene *c) {
    struct model before = c->model;
    assert_int_equal(store_savepoint(c->f->store), 0);
    do_some(c);
    assert_int_equal(store_savepoint_rollback(c->f->store), 0);
    c->model = before;
}

static void do_transaction(struct scene *c) {
    struct model before = c->model;
    begin(c->f);
    do_some(c);
    if (rng_below(&c->rng, 3) == 0) {
        do_some_and_undo(c);
        do_some(c);
    }
    if (rng_below(&c->rng, 3) == 0) {
        rollback(c->f);
        c->model = before;
    } else {
        commit(c->f);
    }
    if (rng_below(&c->rng, 20) == 0)
        fixture_reopen(c->f);
}

/* ---- what is seen ---- */

static void assert_deliveries_listed(struct scene *c) {
    for (size_t i = 0; i < SUBSCRIPTIONS; i++) {
        struct deliveries *page = list_deliveries(
            c->f,
            (struct delivery_query){.tenant_no = c->tenant, .subscription_no = c->subs[i], .state = -1});
        size_t n = 0;
        for (size_t e = 0; e < c->model.n; e++)
            n += c->model.events[e].has[i];
        assert_int_equal(page->n, n);
        for (size_t k = 1; k < page->n; k++)
            assert_true(page->at[k - 1].row.event_key > page->at[k].row.event_key);
        free(page);
    }
}

static int count_event(void *arg, const struct event_row *row) {
    (void)row;
    ++*(size_t *)arg;
    return 0;
}

static void assert_events_listed(struct scene *c) {
    for (size_t t = 0; t < COUNT(types); t++) {
        size_t n = 0, listed = 0;
        uint64_t stop;
        for (size_t e = 0; e < c->model.n; e++)
            n += c->model.events[e].type == t && !c->model.events[e].gone;
        struct event_query q = {.tenant_no = c->tenant, .type = slice_of(types[t]), .limit = ROWS_MAX};
        assert_int_equal(store_list_events(c->f->reader, &q, count_event, &listed, &stop), 0);
        assert_int_equal(listed, n);
    }
}

static void count_finding(void *arg, const struct store_finding *found) {
    print_message("found: %s: %llu, such as %s\n", found->what, (unsigned long long)found->n, found->example);
    *(uint64_t *)arg += found->n;
}

static void assert_whole(struct fixture *f) {
    uint64_t found = 0;
    struct store_summary s;
    const char *message = "";
    struct store_check how = {.now = f->now, .found = count_finding, .arg = &found};
    if (store_check(f->url, &how, &s, &message) < 0)
        fail_msg("%s", message);
    assert_int_equal(found, 0);
}

static void finish_log(struct fixture *f) {
    bool more = true;
    begin(f);
    for (int steps = 0; more; steps++) {
        assert_true(steps < 10000);
        assert_int_equal(store_extend_log(f->store, id_key_at(f->now), 20, &more), 0);
    }
    commit(f);
}

static void test_whatever_happens_during_a_batch(void **state) {
    struct fixture *f = *state;
    if (!fixture_is_sqlite(f)) /* others have no log */
        skip();
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct scene *c = scene_new(f, seed);
        for (int round = 0; round < ROUNDS; round++) {
            f->now += ROUND_MS;
            do_transaction(c);
            assert_deliveries_listed(c);
            assert_events_listed(c);
        }
        finish_log(f);
        assert_deliveries_listed(c);
        assert_events_listed(c);
        assert_whole(f);
        free(c);
    }
}

static void test_what_is_deleted_during_a_batch(void **state) {
    struct fixture *f = *state;
    if (!fixture_is_sqlite(f))
        skip();
    uint32_t tenant = make_tenant(f), sub = make_subscription(f, tenant);
    /* Cut short at each place of it. */
    for (unsigned work = 1; work < 60; work++) {
        f->now += 2 * HOUR_MS;
        for (int i = 0; i < 3; i++)
            publish(f, tenant, sub);
        for (int i = 0; i < 2; i++)
            finish_one(f, tenant, sub, DELIVERY_DELIVERED);
        f->now += HOUR_MS;
        bool more = true;
        struct retain_cursor at = {0};
        unsigned n;
        begin(f);
        assert_int_equal(store_extend_log(f->store, id_key_at(f->now), work, &more), 0);
        commit(f);
        begin(f);
        assert_int_equal(store_retain(f->store, tenant, f->now, 1000, &at, &n), 0);
        commit(f);
        finish_log(f);
        finish_one(f, tenant, sub, DELIVERY_DELIVERED);
    }
    assert_whole(f);
}

static void extend_by(struct fixture *f, int64_t upto, unsigned work) {
    bool more;
    assert_int_equal(store_extend_log(f->store, id_key_at(upto), work, &more), 0);
}

/* What one transaction began is gone on with in another that comes to nothing: `most` further, or into the
 * next batch. */
static void test_what_is_undone_during_a_batch(void **state) {
    enum { FIRST = 4, SECOND = 12 };
    struct fixture *f = *state;
    if (!fixture_is_sqlite(f))
        skip();
    uint32_t tenant = make_tenant(f), subs[] = {make_subscription(f, tenant), make_subscription(f, tenant)};
    static const unsigned most[] = {2, 30, 1000};
    for (unsigned i = 0; i < 50 * COUNT(most); i++) {
        f->now += 2 * HOUR_MS;
        begin(f);
        for (int e = 0; e < SECOND; e++) {
            int64_t at = f->now + e;
            struct id event = make_event(f, tenant, (struct event_spec){.at = at});
            make_delivery(f, event, tenant, subs[e % 2 == 0]);
        }
        commit(f);
        begin(f);
        extend_by(f, f->now + FIRST, i / COUNT(most) + 1);
        commit(f);
        begin(f);
        extend_by(f, f->now + FIRST, most[i % COUNT(most)]);
        extend_by(f, f->now + SECOND, most[i % COUNT(most)]);
        rollback(f);
        f->now += HOUR_MS;
        finish_log(f);
    }
    assert_whole(f);
}

/* ---- more than a batch holds ---- */

static void insert_wide(struct fixture *f, uint64_t event_key, uint32_t tenant, uint32_t from,
                        uint32_t upto) {
    begin(f);
    for (uint32_t no = from; no < upto; no++) {
        struct new_delivery d = {
            .event_key = event_key, .subscription_no = no, .tenant_no = tenant, .order_at = f->now};
        size_t made = 0;
        assert_int_equal(store_insert_deliveries(f->store, &d, 1, &made), 0);
        assert_int_equal(made, 1);
    }
    commit(f);
}

/* An event goes to more than a batch holds, so one ends in its midst. `left_out`: those that come when it
 * does, once below the place and once above it. */
static void test_an_event_wider_than_a_batch(void **state) {
    struct fixture *f = *state;
    if (!fixture_is_sqlite(f))
        skip();
    static const uint32_t left_out[] = {7, WIDE - 7};
    uint32_t tenant = make_tenant(f);
    struct id event = make_event(f, tenant, (struct event_spec){.at = f->now - 1000});
    insert_wide(f, event.key, tenant, 1, left_out[0]);
    insert_wide(f, event.key, tenant, left_out[0] + 1, left_out[1]);
    insert_wide(f, event.key, tenant, left_out[1] + 1, WIDE + 1);
    static const char logged[] = "SELECT count(*) FROM subscription_log",
                      mark[] = "SELECT value FROM marks WHERE name='log_watermark'";
    bool more = true, came_late = false;
    for (int steps = 0; more; steps++) {
        assert_true(steps < 1000);
        begin(f);
        assert_int_equal(store_extend_log(f->store, id_key_at(f->now), 3000, &more), 0);
        commit(f);
        assert_true(fixture_number(f, logged) == WIDE || fixture_number(f, mark) < (int64_t)event.key);
        if (!came_late && fixture_number(f, logged) >= WIDE * 4 / 5) {
            came_late = true;
            for (size_t i = 0; i < COUNT(left_out); i++)
                insert_wide(f, event.key, tenant, left_out[i], left_out[i] + 1);
        }
    }
    assert_true(came_late);
    assert_int_equal(fixture_number(f, logged), WIDE);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        STORE_TEST(test_whatever_happens_during_a_batch),
        STORE_TEST(test_what_is_deleted_during_a_batch),
        STORE_TEST(test_what_is_undone_during_a_batch),
        STORE_TEST(test_an_event_wider_than_a_batch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
