/* Days of the large tables on PostgreSQL: made ahead, dropped whole; and counts kept by deltas, summed up. */
#include "fixture.h"

#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "settle/retention.h"
#include "store/postgres/postgres.h"
#include "store/replay.h"

static int64_t number(struct fixture *f, const char *sql, int64_t day) {
    struct pg *c = &pg_reader_of(f->reader)->conn;
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    pg_int(pg_params(c), (int32_t)day);
    assert_int_equal(pg_query_row(c, sql, &rows), 1);
    return pg_column_int(&rows, 0);
}

/* How many of the five tables have a partition for this day. */
static int64_t tables_of(struct fixture *f, int64_t day) {
    return number(
        f,
        "SELECT count(*) FROM unnest(ARRAY['events', 'deliveries_closed', 'attempts', 'transitions',"
        " 'receipts']) t WHERE to_regclass(day_name(t, $1)) IS NOT NULL",
        day);
}

static int64_t day_of(int64_t ms) {
    return ms / DAY_MS;
}

/* As the housekeeper does, whenever it was done last. */
static void keep_house(struct fixture *f, int64_t before) {
    pg_reader_of(f->reader)->days_due_at = 0;
    assert_int_equal(store_keep_house(f->reader, f->now, before), 0);
}

static int setup(void **state) {
    int r = fixture_setup(state);
    struct fixture *f = *state;
    f->now += 100 * DAY_MS - f->now % DAY_MS + HOUR_MS; /* nothing of it is there yet */
    return r;
}

static void test_days_are_made_ahead(void **state) {
    struct fixture *f = *state;
    int64_t today = day_of(f->now);
    assert_int_equal(tables_of(f, today), 0);
    keep_house(f, 0);
    for (int64_t day = today; day <= today + 3; day++)
        assert_int_equal(tables_of(f, day), 5);
    assert_int_equal(tables_of(f, today - 1), 0);
    keep_house(f, 0);
    f->now += 2 * DAY_MS;
    keep_house(f, 0);
    assert_int_equal(tables_of(f, today + 5), 5);
}

/* Rows that came before their day was made keep it from being made, and stay found. */
static void test_a_day_that_comes_too_late_stays_with_the_others(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f), sub = make_subscription(f, tenant);
    struct id event = publish(f, tenant, sub);
    finish_one(f, tenant, sub, DELIVERY_DELIVERED);
    keep_house(f, 0);
    assert_int_equal(tables_of(f, day_of(f->now) + 1), 5);
    assert_true(tables_of(f, day_of(f->now)) < 5);
    assert_int_equal(state_of(f, tenant, event, sub), DELIVERY_DELIVERED);
}

static void test_a_day_with_nothing_open_is_dropped(void **state) {
    struct fixture *f = *state;
    keep_house(f, 0);
    uint32_t tenant = make_tenant(f), sub = make_subscription(f, tenant);
    int64_t today = day_of(f->now);
    uint64_t dead[DELIVERY_REASONS];
    struct id event = publish(f, tenant, sub);
    publish(f, tenant, sub);
    finish_one(f, tenant, sub, DELIVERY_DLQ);
    f->now += DAY_MS;
    struct id young = publish(f, tenant, sub);
    /* One of the older day is open. */
    keep_house(f, f->now);
    assert_int_equal(tables_of(f, today), 5);
    finish_one(f, tenant, sub, DELIVERY_DLQ);
    assert_int_equal(store_sum_dlq(f->reader, tenant, 0, dead), 0);
    assert_int_equal(dead[REASON_ATTEMPTS_EXHAUSTED], 2);
    /* It is not over yet. */
    keep_house(f, (today + 1) * DAY_MS - 1);
    assert_int_equal(tables_of(f, today), 5);
    keep_house(f, f->now);
    assert_int_equal(tables_of(f, today), 0);
    assert_int_equal(store_sum_dlq(f->reader, tenant, 0, dead), 0);
    assert_int_equal(dead[REASON_ATTEMPTS_EXHAUSTED], 0);
    struct deliveries *left = list_deliveries(f, (struct delivery_query){.tenant_no = tenant, .state = -1});
    assert_int_equal(left->n, 1);
    assert_true(id_eq(left->at[0].row.event_id, young));
    free(left);
    begin(f);
    assert_int_equal(
        store_replay(f->store, event.key, sub, tenant, 0, f->now, SLICE_LIT("api"), SLICE_LIT("key_1")),
        -ENOENT);
    commit(f);
}

static void test_an_open_job_keeps_its_day(void **state) {
    struct fixture *f = *state;
    keep_house(f, 0);
    uint32_t tenant = make_tenant(f);
    int64_t today = day_of(f->now);
    struct id event = make_event(f, tenant, (struct event_spec){0});
    struct fanout_job job = {.event_key = event.key, .tenant_no = tenant, .upper = 3};
    begin(f);
    assert_int_equal(store_insert_job(f->store, &job), 0);
    commit(f);
    f->now += 2 * DAY_MS;
    keep_house(f, f->now);
    assert_int_equal(tables_of(f, today), 5);
    job.state = FANOUT_DONE;
    begin(f);
    assert_int_equal(store_update_job(f->store, &job), 0);
    commit(f);
    keep_house(f, f->now);
    assert_int_equal(tables_of(f, today), 0);
    assert_int_equal(number(f, "SELECT count(*) FROM fanout_jobs WHERE event >= first_key($1)", today), 0);
}

/* ---- only the days that are asked for ---- */

/* The plan of the one statement on the reader's connection that begins so. */
static struct buf plan_of(struct fixture *f, const char *beginning, const char *arguments) {
    struct pg *c = &pg_reader_of(f->reader)->conn;
    struct buf plan = {0};
    char sql[256];
    assert_true(PQexitPipelineMode(c->conn));
    snprintf(sql, sizeof sql, "SELECT name FROM pg_prepared_statements WHERE starts_with(statement, '%s')",
             beginning);
    PGresult *found = PQexec(c->conn, sql);
    assert_int_equal(PQntuples(found), 1);
    snprintf(sql, sizeof sql, "EXPLAIN (COSTS OFF) EXECUTE %s(%s)", PQgetvalue(found, 0, 0), arguments);
    PGresult *lines = PQexec(c->conn, sql);
    for (int i = 0; i < PQntuples(lines); i++)
        buf_addf(&plan, "%s\n", PQgetvalue(lines, i, 0));
    PQclear(found);
    PQclear(lines);
    assert_true(PQenterPipelineMode(c->conn) && plan.n > 0);
    return plan;
}

static struct buf plan_of_page(struct fixture *f, uint64_t first, uint64_t last) {
    char arguments[128];
    snprintf(arguments, sizeof arguments, "1, %llu, %llu, 4294967296, 64, true, true, 0, 10000",
             (unsigned long long)first, (unsigned long long)last);
    return plan_of(f, "SELECT * FROM ((SELECT", arguments);
}

static size_t count_in(const struct buf *text, const char *word) {
    size_t n = 0;
    for (const char *at = text->p; (at = strstr(at, word)); at++)
        n++;
    return n;
}

/* A page within one day touches that day's partition (and the one for what fell into none), and no other's.
 */
static void test_other_days_are_not_looked_into(void **state) {
    struct fixture *f = *state;
    keep_house(f, 0);
    uint32_t tenant = make_tenant(f);
    struct delivery_query q = {
        .tenant_no = tenant, .state = -1, .since = f->now - HOUR_MS / 2, .until = f->now + HOUR_MS};
    free(list_deliveries(f, q));
    struct buf day = plan_of_page(f, id_key_at(q.since), id_key_at(q.until)),
               all = plan_of_page(f, 0, ID_KEY_MAX);
    assert_int_equal(count_in(&day, " on deliveries_closed_"), 1);
    assert_int_equal(count_in(&day, "Subplans Removed"), 1);
    assert_true(count_in(&all, " on deliveries_closed_") > 8);
    assert_int_equal(count_in(&all, "Seq Scan") + count_in(&all, "  Sort  "), 0);
    buf_free(&day);
    buf_free(&all);
}

/* What was chosen is read whole by its keys: what belongs to it is fenced off by a limit each, so that no
 * join can begin with all subscriptions of a tenant whatever the server believes of them. */
static void test_rows_are_read_by_their_keys(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f), sub = make_subscription(f, tenant);
    struct id event = publish(f, tenant, sub);
    (void)state_of(f, tenant, event, sub);
    struct buf plan = plan_of(f, "SELECT d.event, d.subscription, d.tenant, s.key", "1, '{1}', '{1}'");
    assert_int_equal(count_in(&plan, "Join Filter"), 0);
    assert_true(count_in(&plan, "->  Limit") >= 3);
    buf_free(&plan);
}

static void sweep(struct fixture *f, struct retention_sweep *s) {
    bool more = true;
    for (int steps = 0; more; steps++) {
        assert_true(steps < 10000);
        begin(f);
        assert_int_equal(retention_step(s, f->store, f->now, &more), 0);
        commit(f);
    }
}

static int nothing(void *arg, const struct event_row *row) {
    (void)arg;
    (void)row;
    return 0;
}

static bool is_there(struct fixture *f, uint32_t tenant, struct id event) {
    return store_read_event(f->reader, tenant, event, nothing, NULL) == 0;
}

/* What the longest retention lets go of is not deleted row by row when its day will be dropped. */
static void test_a_sweep_leaves_whole_days_to_be_dropped(void **state) {
    struct fixture *f = *state;
    struct retention_sweep s = {0};
    keep_house(f, 0);
    uint32_t tenant = make_tenant(f), week = make_tenant(f);
    begin(f);
    assert_int_equal(store_update_tenant(f->store, week, SLICE_LIT("{\"limits\":{\"retention_days\":7}}"), 1),
                     0);
    commit(f);
    int64_t today = day_of(f->now);
    struct id old = make_event(f, tenant, (struct event_spec){0}),
              weeks = make_event(f, week, (struct event_spec){0});
    f->now += 8 * DAY_MS;
    sweep(f, &s);
    assert_true(is_there(f, tenant, old) && !is_there(f, week, weeks));
    f->now += 22 * DAY_MS + HOUR_MS;
    sweep(f, &s);
    assert_true(is_there(f, tenant, old));
    assert_int_equal(day_of(s.kept_since), today);
    keep_house(f, s.kept_since);
    assert_true(is_there(f, tenant, old)); /* not a whole day yet */
    f->now += DAY_MS;
    sweep(f, &s);
    keep_house(f, s.kept_since);
    assert_false(is_there(f, tenant, old));
    assert_int_equal(tables_of(f, today), 0);
}

static void test_counts_are_summed_up(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f), sub = make_subscription(f, tenant);
    uint64_t dead[DELIVERY_REASONS];
    static const char rows[] = "SELECT count(*) FROM dlq_counts WHERE subscription=$1";
    for (int i = 0; i < 3; i++) {
        publish(f, tenant, sub);
        finish_one(f, tenant, sub, DELIVERY_DLQ);
    }
    assert_int_equal(number(f, rows, sub), 3);
    keep_house(f, 0);
    assert_int_equal(number(f, rows, sub), 1);
    assert_int_equal(store_sum_dlq(f->reader, tenant, sub, dead), 0);
    assert_int_equal(dead[REASON_ATTEMPTS_EXHAUSTED], 3);
}

/* A replay that waits only for its last deliveries is ended by housekeeping, for no step comes to it. */
static void test_an_ended_replay_is_written_down(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f), sub = make_subscription(f, tenant);
    struct id event = publish(f, tenant, sub);
    char source[ID_TEXT_SIZE];
    finish_one(f, tenant, sub, DELIVERY_DLQ);
    struct replay_record r = {.id = next_id(f, f->now),
                              .filter = {.tenant_no = tenant, .last_event = ID_KEY_MAX},
                              .state = REPLAY_SENDING,
                              .most = 9,
                              .started = 1,
                              .requested_by = SLICE_LIT("key_1")};
    id_format(ID_REPLAY, r.id, source);
    begin(f);
    assert_int_equal(store_insert_replay(f->store, &r, 5), 0);
    assert_int_equal(
        store_replay(f->store, event.key, sub, tenant, 0, f->now, slice_of(source), SLICE_LIT("key_1")), 0);
    commit(f);
    finish_one(f, tenant, sub, DELIVERY_DELIVERED);
    static const char state_of_sub[] = "SELECT state FROM replays WHERE tenant=$1 ORDER BY key DESC LIMIT 1";
    assert_int_equal(number(f, state_of_sub, tenant), REPLAY_SENDING);
    keep_house(f, 0);
    assert_int_equal(number(f, state_of_sub, tenant), REPLAY_DONE);
    assert_int_equal(number(f, "SELECT count(*) FROM replay_counts WHERE tenant=$1", tenant), 0);
}

static void test_changes_that_everybody_knows_go(void **state) {
    struct fixture *f = *state;
    static const char changes[] = "SELECT count(*) FROM changes WHERE tenant=$1";
    uint32_t tenant = make_tenant(f);
    make_subscription(f, tenant);
    f->now = clock_now_ms();
    keep_house(f, 0);
    int64_t there = number(f, changes, tenant);
    assert_true(there >= 2);
    f->now += 2 * HOUR_MS;
    keep_house(f, 0);
    assert_int_equal(number(f, changes, tenant), 0);
}

#define DAYS_TEST(name) cmocka_unit_test_setup_teardown(name, setup, fixture_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        DAYS_TEST(test_days_are_made_ahead),
        DAYS_TEST(test_a_day_that_comes_too_late_stays_with_the_others),
        DAYS_TEST(test_a_day_with_nothing_open_is_dropped),
        DAYS_TEST(test_an_open_job_keeps_its_day),
        DAYS_TEST(test_other_days_are_not_looked_into),
        DAYS_TEST(test_rows_are_read_by_their_keys),
        DAYS_TEST(test_a_sweep_leaves_whole_days_to_be_dropped),
        DAYS_TEST(test_counts_are_summed_up),
        DAYS_TEST(test_an_ended_replay_is_written_down),
        DAYS_TEST(test_changes_that_everybody_knows_go),
    };
    return cmocka_run_group_tests(tests, NULL, fixture_end);
}
