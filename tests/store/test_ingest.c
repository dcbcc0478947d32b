/* What a publish writes: events, idempotency keys, deliveries and fan-out jobs, together or not at all. */
#include "fixture.h"

#include <errno.h>
#include <string.h>

static struct idempotency_record key_of(struct fixture *f, uint32_t tenant, const char *key,
                                        const struct id *ids, size_t n) {
    struct idempotency_record r = {
        .tenant_no = tenant, .key = slice_of(key), .ids = ids, .ids_n = n, .created_at = f->now};
    memset(r.body_hash, 0x5A, sizeof r.body_hash);
    return r;
}

/* Finds a key; the number of ids, or a negative error. */
static int find_key(struct fixture *f, uint32_t tenant, const char *key, struct id *ret_ids, size_t max) {
    uint8_t hash[32] = {0};
    size_t n = 0;
    int r = store_find_idempotency(f->store, tenant, slice_of(key), hash, ret_ids, max, &n);
    if (r < 0)
        return r;
    assert_true(hash[0] == 0x5A && hash[31] == 0x5A);
    return (int)n;
}

static int keep_nothing(void *arg, const struct event_row *row) {
    (void)arg;
    (void)row;
    return 0;
}

static void test_publish_is_there_after_its_commit(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f), sub = make_subscription(f, tenant);
    begin(f);
    struct id event = publish(f, tenant, sub);
    struct idempotency_record key = key_of(f, tenant, "k", &event, 1);
    assert_int_equal(store_insert_idempotency(f->store, &key), 0);
    commit(f);
    assert_int_equal(state_of(f, tenant, event, sub), DELIVERY_PENDING);
    struct id found;
    begin(f);
    assert_int_equal(find_key(f, tenant, "k", &found, 1), 1);
    commit(f);
    assert_true(id_eq(found, event));
}

static void test_rollback_leaves_nothing_of_a_publish(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f), sub = make_subscription(f, tenant);
    begin(f);
    struct id event = publish(f, tenant, sub);
    struct idempotency_record key = key_of(f, tenant, "k", &event, 1);
    struct fanout_job job = {.event_key = event.key, .tenant_no = tenant, .upper = 10};
    assert_int_equal(store_insert_idempotency(f->store, &key), 0);
    assert_int_equal(store_insert_job(f->store, &job), 0);
    rollback(f);
    assert_int_equal(store_read_event(f->reader, tenant, event, keep_nothing, NULL), -ENOENT);
    struct deliveries *d = list_deliveries(f, (struct delivery_query){.tenant_no = tenant, .state = -1});
    assert_int_equal(d->n, 0);
    free(d);
    struct id found;
    struct fanout_job jobs[1];
    size_t n = 9;
    begin(f);
    assert_int_equal(find_key(f, tenant, "k", &found, 1), -ENOENT);
    assert_int_equal(store_list_jobs(f->store, event.key - 1, jobs, 1, &n), 0);
    assert_int_equal(n, 0);
    assert_int_equal(claim(f, lane_of(tenant, sub, 5)).n, 0);
    commit(f);
}

static void test_publish_survives_a_restart(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f), sub = make_subscription(f, tenant);
    struct id event = publish(f, tenant, sub);
    fixture_reopen(f);
    assert_int_equal(state_of(f, tenant, event, sub), DELIVERY_PENDING);
    assert_true(claim_one(f, tenant, sub).event_key == event.key);
    fixture_reopen(f);
    assert_int_equal(state_of(f, tenant, event, sub), DELIVERY_ATTEMPTING);
}

/* ---- idempotency keys ---- */

static void test_key_stands_for_all_events_of_a_batch(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f);
    struct id made[5], found[5];
    for (size_t i = 0; i < COUNT(made); i++)
        made[i] = next_id(f, f->now);
    struct idempotency_record key = key_of(f, tenant, "batch", made, COUNT(made));
    begin(f);
    assert_int_equal(store_insert_idempotency(f->store, &key), 0);
    assert_int_equal(find_key(f, tenant, "batch", found, COUNT(found)), 5);
    assert_memory_equal(found, made, sizeof made);
    assert_int_equal(find_key(f, tenant, "batch", found, 2), 2);
    commit(f);
}

static void test_keys_are_each_tenants_own_and_exact(void **state) {
    struct fixture *f = *state;
    uint32_t one = make_tenant(f), two = make_tenant(f);
    struct id first = next_id(f, f->now), second = next_id(f, f->now), found;
    struct idempotency_record a = key_of(f, one, "Key", &first, 1), b = key_of(f, two, "Key", &second, 1);
    begin(f);
    assert_int_equal(store_insert_idempotency(f->store, &a), 0);
    assert_int_equal(store_insert_idempotency(f->store, &b), 0);
    assert_int_equal(find_key(f, one, "Key", &found, 1), 1);
    assert_true(id_eq(found, first));
    assert_int_equal(find_key(f, two, "Key", &found, 1), 1);
    assert_true(id_eq(found, second));
    assert_int_equal(find_key(f, one, "key", &found, 1), -ENOENT);
    assert_int_equal(find_key(f, one, "Key ", &found, 1), -ENOENT);
    commit(f);
}

static void test_key_is_taken_once(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f);
    struct id first = next_id(f, f->now), second = next_id(f, f->now), found;
    struct idempotency_record a = key_of(f, tenant, "k", &first, 1), b = key_of(f, tenant, "k", &second, 1);
    begin(f);
    assert_int_equal(store_insert_idempotency(f->store, &a), 0);
    commit(f);
    begin(f);
    int r = store_insert_idempotency(f->store, &b);
    assert_true(r < 0 || store_commit(f->store) < 0);
    rollback(f);
    begin(f);
    assert_int_equal(find_key(f, tenant, "k", &found, 1), 1);
    assert_true(id_eq(found, first));
    commit(f);
}

/* What is looked up ahead does not hide what the transaction itself does. */
static void test_expected_keys(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f), other = make_tenant(f);
    struct id first = next_id(f, f->now), second = next_id(f, f->now), found;
    struct idempotency_record a = key_of(f, tenant, "a", &first, 1), b = key_of(f, tenant, "b", &second, 1);
    begin(f);
    assert_int_equal(store_insert_idempotency(f->store, &a), 0);
    commit(f);
    begin(f);
    store_expect_idempotency(f->store, tenant, SLICE_LIT("b"));
    store_expect_idempotency(f->store, tenant, SLICE_LIT("a"));
    store_expect_idempotency(f->store, other, SLICE_LIT("a"));
    store_expect_idempotency(f->store, tenant, SLICE_LIT("b"));
    assert_int_equal(find_key(f, tenant, "a", &found, 1), 1);
    assert_true(id_eq(found, first));
    assert_int_equal(find_key(f, tenant, "b", &found, 1), -ENOENT);
    assert_int_equal(find_key(f, other, "a", &found, 1), -ENOENT);
    assert_int_equal(find_key(f, tenant, "c", &found, 1), -ENOENT);
    assert_int_equal(store_insert_idempotency(f->store, &b), 0);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(find_key(f, tenant, "b", &found, 1), 1);
        assert_true(id_eq(found, second));
    }
    rollback(f);
    begin(f);
    store_expect_idempotency(f->store, tenant, SLICE_LIT("b"));
    assert_int_equal(find_key(f, tenant, "b", &found, 1), -ENOENT);
    commit(f);
}

/* ---- deliveries ---- */

static void test_delivery_is_made_once(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f), one = make_subscription(f, tenant), two = make_subscription(f, tenant);
    struct id event = publish(f, tenant, one);
    finish_one(f, tenant, one, DELIVERY_DELIVERED);
    struct new_delivery d[] = {
        {.event_key = event.key, .subscription_no = one, .tenant_no = tenant, .order_at = f->now},
        {.event_key = event.key, .subscription_no = two, .tenant_no = tenant, .order_at = f->now},
    };
    size_t made = 0;
    begin(f);
    assert_int_equal(store_insert_deliveries(f->store, d, 2, &made), 0);
    assert_int_equal(made, 1);
    assert_int_equal(store_insert_deliveries(f->store, d, 2, &made), 0);
    assert_int_equal(made, 0);
    commit(f);
    assert_int_equal(state_of(f, tenant, event, one), DELIVERY_DELIVERED);
    assert_int_equal(state_of(f, tenant, event, two), DELIVERY_PENDING);
}

/* ---- events, as expanding needs them ---- */

static void test_event_is_read_within_the_transaction(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f);
    begin(f);
    struct id one = make_event(f, tenant, (struct event_spec){.type = "a", .ordering_key = "k"});
    struct id two = make_event(f, tenant, (struct event_spec){.type = "b", .body = "{\"data\":8}"});
    struct event_record e;
    assert_int_equal(store_get_event(f->store, tenant, one.key, &e), 0);
    assert_true(id_eq(e.id, one) && e.tenant_no == tenant);
    assert_true(slice_eq(e.type, SLICE_LIT("a")) && slice_eq(e.ordering_key, SLICE_LIT("k")));
    assert_int_equal(store_get_event(f->store, tenant, two.key, &e), 0);
    assert_true(slice_eq(e.type, SLICE_LIT("b")) && !e.ordering_key.p);
    assert_true(slice_eq(e.body, SLICE_LIT("{\"data\":8}")));
    assert_int_equal(store_get_event(f->store, tenant, two.key + 1, &e), -ENOENT);
    commit(f);
}

static void test_large_event(void **state) {
    struct fixture *f = *state;
    enum { BYTES = 1 << 20 };
    uint32_t tenant = make_tenant(f);
    char *body = malloc(BYTES + 1);
    memset(body, 'x', BYTES);
    body[BYTES] = '\0';
    begin(f);
    struct id id = make_event(f, tenant, (struct event_spec){.body = body});
    struct event_record e;
    assert_int_equal(store_get_event(f->store, tenant, id.key, &e), 0);
    assert_int_equal(e.body.n, BYTES);
    assert_memory_equal(e.body.p, body, BYTES);
    commit(f);
    free(body);
}

/* ---- jobs ---- */

static void test_job_goes_on_at_its_cursor(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f);
    struct id event = make_event(f, tenant, (struct event_spec){0});
    struct fanout_job job = {.event_key = event.key, .tenant_no = tenant, .cursor = 5, .upper = 9000}, got;
    size_t n = 0;
    begin(f);
    assert_int_equal(store_insert_job(f->store, &job), 0);
    job.cursor = 1005;
    job.deliveries = 998;
    job.state = FANOUT_EXPANDING;
    assert_int_equal(store_update_job(f->store, &job), 0);
    commit(f);
    fixture_reopen(f);
    begin(f);
    assert_int_equal(store_list_jobs(f->store, event.key - 1, &got, 1, &n), 0);
    assert_int_equal(n, 1);
    assert_true(got.event_key == event.key && got.tenant_no == tenant && got.cursor == 1005);
    assert_true(got.upper == 9000 && got.deliveries == 998 && got.state == FANOUT_EXPANDING);
    job.state = FANOUT_DONE;
    assert_int_equal(store_update_job(f->store, &job), 0);
    assert_int_equal(store_list_jobs(f->store, event.key - 1, &got, 1, &n), 0);
    assert_int_equal(n, 0);
    commit(f);
}

static void test_jobs_are_listed_oldest_first(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f);
    struct fanout_job job = {.tenant_no = tenant, .upper = 3}, got[4];
    uint64_t keys[4];
    size_t n = 0;
    begin(f);
    for (int i = 3; i >= 0; i--) {
        keys[i] = make_event(f, tenant, (struct event_spec){.at = f->now + i}).key;
        job.event_key = keys[i];
        assert_int_equal(store_insert_job(f->store, &job), 0);
    }
    assert_int_equal(store_list_jobs(f->store, keys[0] - 1, got, 3, &n), 0);
    assert_int_equal(n, 3);
    assert_true(got[0].event_key == keys[0] && got[1].event_key == keys[1] && got[2].event_key == keys[2]);
    assert_int_equal(store_list_jobs(f->store, keys[2], got, 3, &n), 0);
    assert_int_equal(n, 1);
    assert_true(got[0].event_key == keys[3]);
    commit(f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        STORE_TEST(test_publish_is_there_after_its_commit),
        STORE_TEST(test_rollback_leaves_nothing_of_a_publish),
        STORE_TEST(test_publish_survives_a_restart),
        STORE_TEST(test_key_stands_for_all_events_of_a_batch),
        STORE_TEST(test_keys_are_each_tenants_own_and_exact),
        STORE_TEST(test_key_is_taken_once),
        STORE_TEST(test_expected_keys),
        STORE_TEST(test_delivery_is_made_once),
        STORE_TEST(test_event_is_read_within_the_transaction),
        STORE_TEST(test_large_event),
        STORE_TEST(test_job_goes_on_at_its_cursor),
        STORE_TEST(test_jobs_are_listed_oldest_first),
    };
    return cmocka_run_group_tests(tests, NULL, fixture_end);
}
