/* Transactions and savepoints, what readers see of them, and what a start asks for. */
#include "fixture.h"

#include <string.h>

static uint32_t seen_numbers[ROWS_MAX];
static size_t seen;

static int see_subscription(void *arg, const struct subscription_record *row) {
    (void)arg;
    assert_true(seen < ROWS_MAX);
    seen_numbers[seen++] = row->no;
    return 0;
}

static size_t list_subscriptions(struct fixture *f, uint32_t tenant) {
    seen = 0;
    assert_int_equal(store_list_subscriptions(f->reader, tenant, -1, 0, 9, see_subscription, NULL), 0);
    return seen;
}

/* ---- keys at start ---- */

static void test_last_key_is_the_greatest_of_all(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f), sub = make_subscription(f, tenant);
    uint64_t last = 0;
    f->now += 1000;
    struct id event = make_event(f, tenant, (struct event_spec){0});
    assert_int_equal(store_last_key(f->store, &last), 0);
    assert_true(last == event.key);
    f->now += 1000;
    begin(f);
    struct id secret = make_secret(f, sub, 'a');
    commit(f);
    assert_int_equal(store_last_key(f->store, &last), 0);
    assert_true(last == secret.key);
    f->now += 1000;
    struct key_record key = {.id = next_id(f, f->now), .created_at = f->now};
    memcpy(key.hash, &f->now, sizeof f->now);
    begin(f);
    assert_int_equal(store_insert_key(f->store, &key), 0);
    commit(f);
    assert_int_equal(store_last_key(f->store, &last), 0);
    assert_true(last == key.id.key);
}

/* However long ago, of whichever tenant. */
static void test_last_key_of_old_events_and_of_the_operators(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f), other = make_tenant(f);
    uint64_t last = 9;
    assert_int_equal(store_last_key(f->store, &last), 0);
    assert_int_equal(last, 0);
    struct id old = make_event(f, tenant, (struct event_spec){.at = f->now - 40 * DAY_MS});
    (void)make_event(f, other, (struct event_spec){.at = f->now - 41 * DAY_MS});
    assert_int_equal(store_last_key(f->store, &last), 0);
    assert_true(last == old.key);
    struct id operators = make_event(f, TENANT_OPERATOR, (struct event_spec){.at = f->now + 40 * DAY_MS});
    (void)make_event(f, tenant, (struct event_spec){.at = f->now + 39 * DAY_MS});
    assert_int_equal(store_last_key(f->store, &last), 0);
    assert_true(last == operators.key);
}

static void test_workers_are_numbered(void **state) {
    struct fixture *f = *state;
    uint32_t one = 0, two = 0;
    begin(f);
    assert_int_equal(store_register_worker(f->store, "host:1:a", "posthorn/1", f->now, &one), 0);
    assert_int_equal(store_register_worker(f->store, "host:1:a", "posthorn/1", f->now, &two), 0);
    commit(f);
    assert_true(one > 0 && two > one);
}

/* ---- transactions ---- */

static void test_rollback_leaves_nothing(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f);
    begin(f);
    make_subscription(f, tenant);
    make_event(f, tenant, (struct event_spec){0});
    rollback(f);
    assert_int_equal(list_subscriptions(f, tenant), 0);
}

static void test_savepoint_undoes_its_own_part(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f);
    begin(f);
    uint32_t before = make_subscription(f, tenant);
    assert_int_equal(store_savepoint(f->store), 0);
    make_subscription(f, tenant);
    assert_int_equal(store_savepoint_rollback(f->store), 0);
    assert_int_equal(store_savepoint(f->store), 0);
    uint32_t after = make_subscription(f, tenant);
    assert_int_equal(store_savepoint_release(f->store), 0);
    commit(f);
    assert_int_equal(list_subscriptions(f, tenant), 2);
    assert_true(seen_numbers[0] == after && seen_numbers[1] == before);
}

static void test_readers_see_what_was_committed(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f);
    assert_int_equal(store_reader_ping(f->reader), 0);
    begin(f);
    make_subscription(f, tenant);
    assert_int_equal(list_subscriptions(f, tenant), 0);
    commit(f);
    assert_int_equal(list_subscriptions(f, tenant), 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        STORE_TEST(test_last_key_is_the_greatest_of_all),
        STORE_TEST(test_workers_are_numbered),
        STORE_TEST(test_last_key_of_old_events_and_of_the_operators),
        STORE_TEST(test_rollback_leaves_nothing),
        STORE_TEST(test_savepoint_undoes_its_own_part),
        STORE_TEST(test_readers_see_what_was_committed),
    };
    return cmocka_run_group_tests(tests, NULL, fixture_end);
}
