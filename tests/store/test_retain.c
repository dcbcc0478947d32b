/* Retention: what is old and closed leaves, in bounded steps; what is open or young stays. */
#include "fixture.h"

#include <errno.h>
#include <sqlite3.h>
#include <string.h>

#include "settle/retention.h"

static int keep_nothing(void *arg, const struct event_row *row) {
    (void)arg;
    (void)row;
    return 0;
}

static bool is_there(struct fixture *f, uint32_t tenant, struct id event) {
    int r = store_read_event(f->reader, tenant, event, keep_nothing, NULL);
    assert_true(r == 0 || r == -ENOENT);
    return r == 0;
}

static size_t deliveries_of(struct fixture *f, uint32_t tenant, struct id event) {
    struct deliveries *d =
        list_deliveries(f, (struct delivery_query){.tenant_no = tenant, .event_key = event.key, .state = -1});
    size_t n = d->n;
    free(d);
    return n;
}

/* Steps until nothing is left to do; how many steps it took. */
static unsigned retain(struct fixture *f, uint32_t tenant, int64_t before, unsigned limit) {
    enum { STEPS_MAX = 1000 };
    struct retain_cursor at = {0};
    unsigned n = limit, steps = 0;
    for (; n >= limit; steps++) {
        assert_true(steps < STEPS_MAX);
        begin(f);
        assert_int_equal(store_retain(f->store, tenant, before, limit, &at, &n), 0);
        commit(f);
        assert_true(n <= limit);
    }
    return steps;
}

static void test_old_and_closed_leaves_with_all_its_rows(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f), sub = make_subscription(f, tenant);
    struct id old = publish(f, tenant, sub), bare = make_event(f, tenant, (struct event_spec){0});
    finish_one(f, tenant, sub, DELIVERY_DLQ);
    begin(f);
    assert_int_equal(store_replay(f->store, old.key, sub, tenant_of(f, sub), 0, f->now, SLICE_LIT("one"),
                                  SLICE_LIT("key_1")),
                     0);
    commit(f);
    finish_one(f, tenant, sub, DELIVERY_DELIVERED);
    f->now += DAY_MS;
    struct id young = publish(f, tenant, sub);
    finish_one(f, tenant, sub, DELIVERY_DELIVERED);
    assert_int_equal(retain(f, tenant, id_ms(young), 100), 1);
    assert_false(is_there(f, tenant, old) || is_there(f, tenant, bare));
    assert_int_equal(deliveries_of(f, tenant, old), 0);
    assert_int_equal(list_transitions(f, old, sub).n, 0);
    struct attempts *a = list_attempts(f, old, sub);
    assert_int_equal(a->n, 0);
    free(a);
    assert_true(is_there(f, tenant, young));
    assert_int_equal(state_of(f, tenant, young, sub), DELIVERY_DELIVERED);
    uint64_t pending = 9, dlq = 9;
    assert_int_equal(store_count_lane(f->reader, sub, tenant, 9, &pending, &dlq), 0);
    assert_true(pending == 0 && dlq == 0);
}

/* ---- nothing of an event is left, in whatever table there is or will be ---- */

static int64_t number_of(sqlite3 *db, const char *sql, int64_t event) {
    sqlite3_stmt *st;
    assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &st, NULL), SQLITE_OK);
    sqlite3_bind_int64(st, 1, event);
    assert_int_equal(sqlite3_step(st), SQLITE_ROW);
    int64_t n = sqlite3_column_int64(st, 0);
    sqlite3_finalize(st);
    return n;
}

/* How many tables with a column "event" hold rows of this one; *ret_tables: how many there are. */
static unsigned tables_with(sqlite3 *db, struct id event, unsigned *ret_tables) {
    sqlite3_stmt *st;
    unsigned n = 0;
    assert_int_equal(sqlite3_prepare_v2(db,
                                        "SELECT m.name FROM sqlite_schema m JOIN pragma_table_info(m.name) c"
                                        " WHERE m.type='table' AND c.name='event'",
                                        -1, &st, NULL),
                     SQLITE_OK);
    for (*ret_tables = 0; sqlite3_step(st) == SQLITE_ROW; ++*ret_tables) {
        char sql[128];
        snprintf(sql, sizeof sql, "SELECT count(*) FROM %s WHERE event=?", sqlite3_column_text(st, 0));
        n += number_of(db, sql, (int64_t)event.key) > 0;
    }
    sqlite3_finalize(st);
    return n;
}

/* An event of which every table holds something, except those of what is kept beside events. */
static struct id make_full_event(struct fixture *f, uint32_t tenant, uint32_t sub) {
    struct id event = publish(f, tenant, sub);
    struct fanout_job job = {.event_key = event.key, .tenant_no = tenant, .state = FANOUT_DONE};
    finish_one(f, tenant, sub, DELIVERY_DLQ);
    begin(f);
    assert_int_equal(store_insert_job(f->store, &job), 0);
    assert_int_equal(store_replay(f->store, event.key, sub, tenant_of(f, sub), 0, f->now, SLICE_LIT("one"),
                                  SLICE_LIT("key_1")),
                     0);
    commit(f);
    finish_one(f, tenant, sub, DELIVERY_DLQ);
    struct receipt_record receipt = {
        .event_key = event.key, .subscription_no = sub, .tenant_no = tenant, .number = 1, .at = f->now};
    begin(f);
    assert_int_equal(store_insert_receipt(f->store, &receipt), 0);
    bool more = true;
    while (more)
        assert_int_equal(store_extend_log(f->store, event.key, 10, &more), 0);
    commit(f);
    return event;
}

static void test_no_row_of_an_old_event_is_left_anywhere(void **state) {
    struct fixture *f = *state;
    sqlite3 *db;
    unsigned tables;
    if (!fixture_is_sqlite(f))
        skip();
    char *path = fixture_path(f);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    uint32_t tenant = make_tenant(f), sub = make_subscription(f, tenant);
    static const unsigned limits[] = {1, 3, 100}; /* cut short at every row, too */
    for (size_t i = 0; i < COUNT(limits); i++) {
        struct id old = make_full_event(f, tenant, sub);
        unsigned filled = tables_with(db, old, &tables);
        assert_true(filled == tables && tables >= 7);
        assert_int_equal(number_of(db, "SELECT sum(n) FROM dlq_counts", 0), 1);
        f->now += DAY_MS;
        (void)retain(f, tenant, f->now, limits[i]);
        assert_int_equal(tables_with(db, old, &tables), 0);
        assert_int_equal(number_of(db, "SELECT count(*) FROM events WHERE key=?", (int64_t)old.key), 0);
        assert_int_equal(number_of(db, "SELECT sum(n) FROM dlq_counts", 0), 0);
    }
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    free(path);
}

static void test_what_is_open_stays(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f), sub = make_subscription(f, tenant),
             other = make_subscription(f, tenant);
    struct id half_done = publish(f, tenant, sub);
    finish_one(f, tenant, sub, DELIVERY_DELIVERED);
    make_delivery(f, half_done, tenant, other);
    struct id expanding = make_event(f, tenant, (struct event_spec){0});
    struct fanout_job job = {.event_key = expanding.key, .tenant_no = tenant, .upper = 3};
    begin(f);
    assert_int_equal(store_insert_job(f->store, &job), 0);
    commit(f);
    f->now += 10 * DAY_MS;
    (void)retain(f, tenant, f->now, 100);
    assert_true(is_there(f, tenant, half_done) && is_there(f, tenant, expanding));
    assert_int_equal(deliveries_of(f, tenant, half_done), 1); /* the open one */
    job.state = FANOUT_DONE;
    begin(f);
    assert_int_equal(store_update_job(f->store, &job), 0);
    commit(f);
    struct lane_claim lane = lane_of(tenant, other, 1);
    lane.window_ms = 30 * DAY_MS;
    struct claim c = claim(f, lane);
    settle(f, outcome_of(f, &c.tasks[0], DELIVERY_DLQ, 500));
    (void)retain(f, tenant, f->now, 100);
    assert_false(is_there(f, tenant, half_done) || is_there(f, tenant, expanding));
}

static void test_other_tenants_keep_theirs(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f), other = make_tenant(f);
    struct id mine = make_event(f, tenant, (struct event_spec){0});
    struct id theirs = make_event(f, other, (struct event_spec){0});
    f->now += DAY_MS;
    (void)retain(f, tenant, f->now, 100);
    assert_true(!is_there(f, tenant, mine) && is_there(f, other, theirs));
}

static void test_steps_are_bounded(void **state) {
    struct fixture *f = *state;
    enum { WIDE = 30, LIMIT = 7 };
    uint32_t tenant = make_tenant(f);
    struct id event = make_event(f, tenant, (struct event_spec){0});
    for (int i = 0; i < WIDE; i++) {
        uint32_t sub = make_subscription(f, tenant);
        make_delivery(f, event, tenant, sub);
        finish_one(f, tenant, sub, DELIVERY_DELIVERED);
    }
    f->now += DAY_MS;
    assert_true(retain(f, tenant, f->now, LIMIT) >= 2 * WIDE / LIMIT);
    assert_false(is_there(f, tenant, event));
    assert_int_equal(deliveries_of(f, tenant, event), 0);
}

/* However wide an event is, and whatever of it stays, each of its deliveries is passed once. */
static void test_a_wide_event_is_passed_once(void **state) {
    struct fixture *f = *state;
    enum { WIDE = 60, LIMIT = 4, ROWS_EACH = 2 };
    uint32_t tenant = make_tenant(f), sub = 0;
    struct id event = make_event(f, tenant, (struct event_spec){0});
    for (int i = 0; i < WIDE; i++) {
        sub = make_subscription(f, tenant);
        make_delivery(f, event, tenant, sub);
        if (i % 2 == 0)
            finish_one(f, tenant, sub, DELIVERY_DELIVERED);
    }
    f->now += DAY_MS;
    assert_true(retain(f, tenant, f->now, LIMIT) <= (WIDE / 2 * (1 + ROWS_EACH)) / LIMIT + 2);
    assert_int_equal(deliveries_of(f, tenant, event), WIDE / 2);
    assert_true(is_there(f, tenant, event));
    /* What is open keeps its payload, whatever else is gone. */
    assert_int_equal(state_of(f, tenant, event, sub), DELIVERY_PENDING);
}

static void test_open_events_do_not_stop_it(void **state) {
    struct fixture *f = *state;
    enum { OPEN = 40, LIMIT = 8 };
    uint32_t tenant = make_tenant(f), sub = make_subscription(f, tenant);
    struct id open = {0};
    for (int i = 0; i < OPEN; i++)
        open = publish(f, tenant, sub);
    f->now++;
    struct id closed = make_event(f, tenant, (struct event_spec){0});
    f->now += DAY_MS;
    (void)retain(f, tenant, f->now, LIMIT);
    assert_false(is_there(f, tenant, closed));
    assert_true(is_there(f, tenant, open));
}

static void test_idempotency_keys_leave_by_age(void **state) {
    struct fixture *f = *state;
    enum { KEYS = 10, YOUNG = 3 };
    uint32_t tenant = make_tenant(f);
    struct id id = next_id(f, f->now), found;
    char name[16];
    begin(f);
    for (int i = 0; i < KEYS; i++) {
        snprintf(name, sizeof name, "k%d", i);
        struct idempotency_record r = {.tenant_no = tenant,
                                       .key = slice_of(name),
                                       .ids = &id,
                                       .ids_n = 1,
                                       .created_at = f->now + (i < YOUNG ? 1000 : i)};
        assert_int_equal(store_insert_idempotency(f->store, &r), 0);
    }
    unsigned n = 4, total = 0;
    while (n == 4) {
        assert_int_equal(store_retain_idempotency(f->store, f->now + 1000, 4, &n), 0);
        assert_true(n <= 4);
        total += n;
    }
    assert_true(total >= KEYS - YOUNG);
    for (int i = 0; i < KEYS; i++) {
        uint8_t hash[32];
        size_t ids_n;
        snprintf(name, sizeof name, "k%d", i);
        int r = store_find_idempotency(f->store, tenant, slice_of(name), hash, &found, 1, &ids_n);
        assert_int_equal(r, i < YOUNG ? 0 : -ENOENT);
    }
    commit(f);
}

/* A whole sweep over all tenants. */
static void sweep(struct fixture *f) {
    struct retention_sweep s = {0};
    enum { STEPS_MAX = 10000 };
    bool more = true;
    for (int steps = 0; more; steps++) {
        assert_true(steps < STEPS_MAX);
        begin(f);
        assert_int_equal(retention_step(&s, f->store, f->now, &more), 0);
        commit(f);
    }
}

static void test_a_sweep_goes_by_each_tenants_days(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f), week = make_tenant(f), gone = make_tenant(f);
    begin(f);
    assert_int_equal(store_update_tenant(f->store, week, SLICE_LIT("{\"limits\":{\"retention_days\":7}}"), 1),
                     0);
    commit(f);
    struct id kept = make_event(f, tenant, (struct event_spec){0}),
              old = make_event(f, week, (struct event_spec){0}),
              left_behind = make_event(f, gone, (struct event_spec){0}),
              told = make_event(f, TENANT_OPERATOR, (struct event_spec){0});
    f->now += 8 * DAY_MS;
    begin(f);
    assert_int_equal(store_delete_tenant(f->store, gone, f->now), 0);
    commit(f);
    assert_true(is_there(f, gone, left_behind));
    sweep(f);
    assert_true(is_there(f, tenant, kept) && is_there(f, TENANT_OPERATOR, told));
    assert_false(is_there(f, week, old));
    assert_false(is_there(f, gone, left_behind)); /* at once, whatever its days were */
    f->now += 23 * DAY_MS;
    sweep(f);
    assert_false(is_there(f, tenant, kept) || is_there(f, TENANT_OPERATOR, told));
}

/* The tenants of a step share its rows: many that each have some to go stall the writer no longer than one.
 */
static void test_a_step_is_bounded_over_all_tenants(void **state) {
    struct fixture *f = *state;
    enum { TENANTS = 4, EVENTS = RETENTION_ROWS_A_STEP - 100 };
    struct retention_sweep s = {0};
    bool more = true;
    unsigned steps = 0;
    for (int i = 0; i < TENANTS; i++) {
        uint32_t tenant = make_tenant(f);
        begin(f);
        for (int k = 0; k < EVENTS; k++)
            (void)make_event(f, tenant, (struct event_spec){0});
        commit(f);
    }
    f->now += 40 * DAY_MS;
    while (more) {
        steps += s.stage == SWEEP_TENANTS;
        begin(f);
        assert_int_equal(retention_step(&s, f->store, f->now, &more), 0);
        commit(f);
    }
    assert_in_range(steps, TENANTS * EVENTS / RETENTION_ROWS_A_STEP, 4 * TENANTS);
}

static int find_key(struct fixture *f, uint32_t tenant, const char *name) {
    uint8_t hash[32];
    struct id found;
    size_t n;
    begin(f);
    int r = store_find_idempotency(f->store, tenant, slice_of(name), hash, &found, 1, &n);
    commit(f);
    return r;
}

static void test_a_sweep_keeps_idempotency_keys_for_a_week(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f);
    struct id id = next_id(f, f->now);
    static const char *const names[] = {"first", "second"};
    for (int i = 0; i < 2; i++) {
        struct idempotency_record r = {.tenant_no = tenant,
                                       .key = slice_of(names[i]),
                                       .ids = &id,
                                       .ids_n = 1,
                                       .created_at = f->now + i * HOUR_MS};
        begin(f);
        assert_int_equal(store_insert_idempotency(f->store, &r), 0);
        commit(f);
    }
    f->now += 7 * DAY_MS - 1;
    sweep(f);
    assert_int_equal(find_key(f, tenant, "first"), 0);
    f->now += HOUR_MS;
    sweep(f);
    assert_int_equal(find_key(f, tenant, "first"), -ENOENT);
    assert_int_equal(find_key(f, tenant, "second"), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        STORE_TEST(test_old_and_closed_leaves_with_all_its_rows),
        STORE_TEST(test_no_row_of_an_old_event_is_left_anywhere),
        STORE_TEST(test_what_is_open_stays),
        STORE_TEST(test_other_tenants_keep_theirs),
        STORE_TEST(test_steps_are_bounded),
        STORE_TEST(test_a_wide_event_is_passed_once),
        STORE_TEST(test_open_events_do_not_stop_it),
        STORE_TEST(test_idempotency_keys_leave_by_age),
        STORE_TEST(test_a_sweep_goes_by_each_tenants_days),
        STORE_TEST(test_a_step_is_bounded_over_all_tenants),
        STORE_TEST(test_a_sweep_keeps_idempotency_keys_for_a_week),
    };
    return cmocka_run_group_tests(tests, NULL, fixture_end);
}
