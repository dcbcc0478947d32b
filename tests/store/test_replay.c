/* Bulk replays: what they find in bounded steps, what they count, and how they are cancelled. */
#include "fixture.h"

#include <errno.h>
#include <stdlib.h>

#include "store/replay.h"

enum { OPEN_MAX = 3, FOUND_MAX = 64 };

struct scene {
    struct fixture *f;
    uint32_t tenant, sub;
    struct subscription snapshot;
    struct replay_record replay;
};

static struct scene scene_of(struct fixture *f) {
    struct scene c = {.f = f, .tenant = make_tenant(f)};
    c.sub = make_subscription(f, c.tenant);
    c.snapshot = (struct subscription){.no = c.sub, .tenant_no = c.tenant};
    return c;
}

/* n events that ended so. */
static void finish_many(struct scene *c, unsigned n, enum delivery_state to) {
    for (unsigned i = 0; i < n; i++) {
        publish(c->f, c->tenant, c->sub);
        finish_one(c->f, c->tenant, c->sub, to);
    }
}

static int insert_replay(struct scene *c, struct replay_record r) {
    r.id = next_id(c->f, c->f->now);
    r.filter.tenant_no = c->tenant;
    if (!r.filter.last_event)
        r.filter.last_event = r.id.key;
    r.requested_by = SLICE_LIT("key_1");
    r.most = INT64_MAX;
    begin(c->f);
    int e = store_insert_replay(c->f->store, &r, OPEN_MAX);
    commit(c->f);
    c->replay = r;
    return e;
}

static int copy_row(void *arg, const struct replay_record *row) {
    *(struct replay_record *)arg = *row;
    return 0;
}

static struct replay_record read_replay(struct scene *c) {
    struct replay_record row;
    assert_int_equal(store_read_replay(c->f->reader, c->tenant, c->replay.id, copy_row, &row), 0);
    return row;
}

static struct replay_look look(struct scene *c, uint64_t cursor, unsigned budget, size_t max) {
    static struct replay_candidate found[FOUND_MAX];
    struct replay_look l = {.cursor = cursor, .budget = budget, .found = found, .max = max};
    begin(c->f);
    assert_int_equal(store_find_replayable(c->f->store, &c->replay.filter, &c->snapshot, &l), 0);
    commit(c->f);
    return l;
}

/* Everything there is, found in steps of `budget`. */
static size_t find_all(struct scene *c, unsigned budget) {
    struct replay_look l = {.cursor = 0};
    size_t total = 0;
    for (unsigned steps = 0; !l.ended; steps++) {
        assert_true(steps < 1000);
        l = look(c, l.cursor, budget, FOUND_MAX);
        total += l.n;
    }
    return total;
}

static void test_every_walk_finds_each_once_whatever_its_step(void **state) {
    struct scene c = scene_of(*state);
    struct fixture *f = *state;
    static const struct {
        uint32_t states;
        bool missing;
        size_t n;
    } walks[] = {{1U << DELIVERY_DLQ, false, 7},
                 {1U << DELIVERY_DELIVERED, false, 5},
                 {1U << DELIVERY_DELIVERED | 1U << DELIVERY_DLQ, false, 12},
                 {1U << DELIVERY_DLQ, true, 10},
                 {0, true, 3}};
    finish_many(&c, 4, DELIVERY_DLQ);
    f->now += 3 * HOUR_MS; /* another hour of the log */
    finish_many(&c, 5, DELIVERY_DELIVERED);
    for (int i = 0; i < 3; i++)
        make_event(f, c.tenant, (struct event_spec){0});
    finish_many(&c, 3, DELIVERY_DLQ);
    publish(f, c.tenant, c.sub); /* open: nobody's */
    for (size_t i = 0; i < COUNT(walks); i++) {
        struct replay_filter filter = {
            .subscription_no = c.sub, .states = walks[i].states, .include_missing = walks[i].missing};
        assert_int_equal(insert_replay(&c, (struct replay_record){.filter = filter, .state = REPLAY_DONE}),
                         0);
        uint64_t counted;
        bool exact;
        assert_int_equal(
            store_count_replayable(f->reader, &c.replay.filter, &c.snapshot, 1000, &counted, &exact), 0);
        assert_true(exact && counted == walks[i].n);
        static const unsigned budgets[] = {1, 2, 3, 1000};
        for (size_t b = 0; b < COUNT(budgets); b++)
            assert_int_equal(find_all(&c, budgets[b]), walks[i].n);
    }
}

static void test_counting_keeps_to_its_budget(void **state) {
    struct scene c = scene_of(*state);
    finish_many(&c, 9, DELIVERY_DLQ);
    struct replay_filter filter = {.states = 1U << DELIVERY_DLQ};
    assert_int_equal(insert_replay(&c, (struct replay_record){.filter = filter}), 0);
    uint64_t n;
    bool exact;
    assert_int_equal(store_count_replayable(c.f->reader, &c.replay.filter, NULL, 4, &n, &exact), 0);
    assert_true(!exact && n == 4);
    assert_int_equal(store_count_replayable(c.f->reader, &c.replay.filter, NULL, 100, &n, &exact), 0);
    assert_true(exact && n == 9);
}

static void test_filters(void **state) {
    struct scene c = scene_of(*state);
    struct fixture *f = *state;
    static const char *const types[] = {"a", "a.b", "a.b.c", "b"};
    int64_t middle = 0;
    for (size_t i = 0; i < COUNT(types); i++) {
        f->now += 1000;
        middle = i == 2 ? f->now : middle;
        struct id event = make_event(f, c.tenant, (struct event_spec){.type = types[i]});
        make_delivery(f, event, c.tenant, c.sub);
        finish_one(f, c.tenant, c.sub, DELIVERY_DLQ);
    }
    const struct {
        struct replay_filter filter;
        size_t n;
    } cases[] = {{{.event_type = SLICE_LIT("a.b")}, 1},   {{.event_type = SLICE_LIT("a.*")}, 2},
                 {{.first_event = id_key_at(middle)}, 2}, {{.last_event = id_key_at(middle) - 1}, 2},
                 {{.closed_after = middle}, 2},           {{.reasons = 1U << REASON_ATTEMPTS_EXHAUSTED}, 4},
                 {{.reasons = 1U << REASON_GONE}, 0}};
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct replay_filter filter = cases[i].filter;
        filter.states = 1U << DELIVERY_DLQ;
        filter.subscription_no = c.sub;
        assert_int_equal(insert_replay(&c, (struct replay_record){.filter = filter, .state = REPLAY_DONE}),
                         0);
        struct replay_look l = look(&c, filter.first_event ? filter.first_event - 1 : 0, 100, FOUND_MAX);
        assert_true(l.ended);
        assert_int_equal(l.n, cases[i].n);
    }
}

/* Starts all that the replay finds, as the replayer does. */
static void start_all(struct scene *c) {
    char source[ID_TEXT_SIZE];
    id_format(ID_REPLAY, c->replay.id, source);
    struct replay_look l = look(c, 0, 1000, FOUND_MAX);
    begin(c->f);
    assert_int_equal(store_open_replay_lanes(c->f->store, &c->replay, 10), 0);
    for (size_t i = 0; i < l.n; i++)
        assert_int_equal(store_replay(c->f->store, l.found[i].event_key, c->sub, tenant_of(c->f, c->sub), 0,
                                      c->f->now, slice_of(source), SLICE_LIT("key_1")),
                         0);
    struct replay_lane lane = {
        .subscription_no = c->sub, .cursor = l.cursor, .share = 4, .outstanding = (uint32_t)l.n};
    assert_int_equal(store_update_replay_lane(c->f->store, c->replay.id.key, &lane), 0);
    c->replay.started = l.n;
    c->replay.state = REPLAY_SENDING;
    assert_int_equal(store_update_replay(c->f->store, &c->replay), 0);
    commit(c->f);
}

static size_t ready_lanes(struct scene *c) {
    struct replay_lane lanes[4];
    size_t n;
    begin(c->f);
    assert_int_equal(store_list_replay_lanes(c->f->store, c->replay.id.key, 0, lanes, 4, &n), 0);
    commit(c->f);
    return n;
}

static void test_what_was_started_is_counted_when_it_closes(void **state) {
    struct scene c = scene_of(*state);
    struct fixture *f = *state;
    finish_many(&c, 4, DELIVERY_DLQ);
    struct replay_filter filter = {.subscription_no = c.sub, .states = 1U << DELIVERY_DLQ};
    assert_int_equal(insert_replay(&c, (struct replay_record){.filter = filter}), 0);
    start_all(&c);
    f->now += 1;
    assert_int_equal(ready_lanes(&c), 0); /* four of a share of four */
    struct task t = claim_one(f, c.tenant, c.sub);
    struct settlement retry = outcome_of(f, &t, DELIVERY_RETRY, 500);
    settle(f, retry);
    finish_one(f, c.tenant, c.sub, DELIVERY_DELIVERED);
    assert_int_equal(ready_lanes(&c), 1); /* two places are free: the retry holds none */
    finish_one(f, c.tenant, c.sub, DELIVERY_DLQ);
    finish_one(f, c.tenant, c.sub, DELIVERY_DELIVERED);
    struct replay_record row = read_replay(&c);
    assert_true(row.state == REPLAY_SENDING && row.done == 2 && row.failed == 1);
    f->now = retry.due_at;
    finish_one(f, c.tenant, c.sub, DELIVERY_DELIVERED);
    row = read_replay(&c);
    assert_true(row.state == REPLAY_DONE && row.done == 3 && row.failed == 1 && replay_matched(&row) == 4);
}

static void test_cancelling_takes_back_what_was_not_attempted(void **state) {
    struct scene c = scene_of(*state);
    struct fixture *f = *state;
    finish_many(&c, 7, DELIVERY_DLQ);
    struct id other = publish(f, c.tenant, c.sub);
    finish_one(f, c.tenant, c.sub, DELIVERY_DELIVERED);
    begin(f);
    assert_int_equal(store_replay(f->store, other.key, c.sub, tenant_of(f, c.sub), 0, f->now,
                                  SLICE_LIT("api"), SLICE_LIT("key_1")),
                     0);
    commit(f);
    struct replay_filter filter = {.subscription_no = c.sub, .states = 1U << DELIVERY_DLQ};
    assert_int_equal(insert_replay(&c, (struct replay_record){.filter = filter}), 0);
    start_all(&c);
    f->now += 1;
    begin(f);
    assert_int_equal(store_cancel_replay(f->store, c.tenant, c.replay.id), 0);
    assert_int_equal(store_cancel_replay(f->store, c.tenant, c.replay.id), -EALREADY);
    commit(f);
    bool ended = false;
    size_t moved_n = 0;
    for (unsigned steps = 0; !ended; steps++) {
        struct expired_task moved[3];
        size_t n;
        assert_true(steps < 10);
        begin(f);
        assert_int_equal(store_cancel_replay_step(f->store, &c.replay, f->now, 3, moved, &n, &ended), 0);
        commit(f);
        moved_n += n;
    }
    assert_int_equal(moved_n, 7);
    assert_int_equal(state_of(f, c.tenant, other, c.sub), DELIVERY_REPLAYING);
    struct replay_record row = read_replay(&c);
    assert_true(row.state == REPLAY_CANCELLED && row.done == 0 && row.failed == 0);
    uint64_t dead[DELIVERY_REASONS];
    assert_int_equal(store_sum_dlq(f->reader, c.tenant, 0, dead), 0);
    assert_int_equal(dead[REASON_REPLAY_CANCELLED], 7);
}

static void test_limits_and_retention(void **state) {
    struct scene c = scene_of(*state);
    struct fixture *f = *state;
    for (int i = 0; i < OPEN_MAX; i++)
        assert_int_equal(insert_replay(&c, (struct replay_record){.state = REPLAY_RUNNING}), 0);
    assert_int_equal(insert_replay(&c, (struct replay_record){.state = REPLAY_RUNNING}), -EDQUOT);
    struct scene other = scene_of(f);
    assert_int_equal(insert_replay(&other, (struct replay_record){.state = REPLAY_DONE}), 0);
    begin(f);
    assert_int_equal(store_cancel_replay(f->store, other.tenant, other.replay.id), -EALREADY);
    assert_int_equal(store_cancel_replay(f->store, c.tenant, other.replay.id), -ENOENT);
    unsigned n;
    assert_int_equal(store_retain_replays(f->store, other.tenant, f->now, 10, &n), 0);
    assert_int_equal(n, 0); /* too young */
    assert_int_equal(store_retain_replays(f->store, other.tenant, f->now + 1, 10, &n), 0);
    assert_int_equal(n, 1);
    assert_int_equal(store_retain_replays(f->store, c.tenant, f->now + 1, 10, &n), 0);
    assert_int_equal(n, 0); /* under way */
    commit(f);
}

static void test_missing_ones_are_made_once(void **state) {
    struct scene c = scene_of(*state);
    struct fixture *f = *state;
    struct id event = make_event(f, c.tenant, (struct event_spec){0});
    f->now += HOUR_MS;
    begin(f);
    assert_int_equal(store_replay_missing(f->store, event.key, c.sub, c.tenant, 0, f->now, SLICE_LIT("rpl_1"),
                                          SLICE_LIT("key_1")),
                     0);
    assert_int_equal(store_replay_missing(f->store, event.key, c.sub, c.tenant, 0, f->now, SLICE_LIT("rpl_1"),
                                          SLICE_LIT("key_1")),
                     -EEXIST);
    commit(f);
    struct got_delivery d = read_delivery(f, c.tenant, event, c.sub);
    assert_true(d.row.state == DELIVERY_PENDING && d.row.created_at == f->now && d.row.replay_at == f->now);
    struct task t = claim_one(f, c.tenant, c.sub);
    assert_true(t.trigger == TRIGGER_REPLAY && t.window_at == f->now);
}

static void test_dead_ones_are_counted(void **state) {
    struct scene c = scene_of(*state);
    struct fixture *f = *state;
    finish_many(&c, 3, DELIVERY_DLQ);
    struct id event = publish(f, c.tenant, c.sub);
    finish_one(f, c.tenant, c.sub, DELIVERY_DLQ);
    uint64_t dead[DELIVERY_REASONS];
    assert_int_equal(store_sum_dlq(f->reader, c.tenant, c.sub, dead), 0);
    assert_int_equal(dead[REASON_ATTEMPTS_EXHAUSTED], 4);
    begin(f);
    assert_int_equal(store_replay(f->store, event.key, c.sub, tenant_of(f, c.sub), 0, f->now,
                                  SLICE_LIT("api"), SLICE_LIT("key_1")),
                     0);
    struct retain_cursor after = {0};
    unsigned n;
    assert_int_equal(store_retain(f->store, c.tenant, f->now + DAY_MS, 1000, &after, &n), 0);
    commit(f);
    assert_int_equal(store_sum_dlq(f->reader, c.tenant, 0, dead), 0);
    assert_int_equal(dead[REASON_ATTEMPTS_EXHAUSTED], 0);
}

static int count_row(void *arg, const struct replay_record *row) {
    (void)row;
    ++*(unsigned *)arg;
    return 0;
}

static void test_another_tenants_are_not_there(void **state) {
    struct scene c = scene_of(*state);
    uint32_t other = make_tenant(c.f);
    struct replay_record row;
    unsigned own = 0, others = 0;
    struct id event = publish(c.f, c.tenant, c.sub);
    finish_one(c.f, c.tenant, c.sub, DELIVERY_DLQ);
    assert_int_equal(insert_replay(&c, (struct replay_record){.filter.states = 1U << DELIVERY_DLQ}), 0);
    assert_int_equal(store_list_replays(c.f->reader, c.tenant, 0, 9, count_row, &own), 0);
    assert_int_equal(store_list_replays(c.f->reader, other, 0, 9, count_row, &others), 0);
    assert_true(own == 1 && others == 0);
    assert_int_equal(store_read_replay(c.f->reader, other, c.replay.id, copy_row, &row), -ENOENT);
    begin(c.f);
    assert_int_equal(store_cancel_replay(c.f->store, other, c.replay.id), -ENOENT);
    /* Nor is a delivery to be replayed one by one. */
    assert_int_equal(
        store_replay(c.f->store, event.key, c.sub, other, 0, c.f->now, SLICE_LIT("api"), SLICE_LIT("k")),
        -ENOENT);
    commit(c.f);
    assert_int_equal(state_of(c.f, c.tenant, event, c.sub), DELIVERY_DLQ);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        STORE_TEST(test_another_tenants_are_not_there),
        STORE_TEST(test_every_walk_finds_each_once_whatever_its_step),
        STORE_TEST(test_counting_keeps_to_its_budget),
        STORE_TEST(test_filters),
        STORE_TEST(test_what_was_started_is_counted_when_it_closes),
        STORE_TEST(test_cancelling_takes_back_what_was_not_attempted),
        STORE_TEST(test_limits_and_retention),
        STORE_TEST(test_missing_ones_are_made_once),
        STORE_TEST(test_dead_ones_are_counted),
    };
    return cmocka_run_group_tests(tests, NULL, fixture_end);
}
