/* Looking whether a store on PostgreSQL is sound: what the store writes is, and every kind of damage is
 * found. */
#include "fixture.h"

#include <errno.h>
#include <string.h>

#include "own_server.h"
#include "store/postgres/postgres.h"
#include "store/replay.h"

enum { FOUND_MAX = 64 };

struct findings {
    char what[FOUND_MAX][128], example[FOUND_MAX][128];
    size_t n;
};

static void keep_finding(void *arg, const struct store_finding *f) {
    struct findings *found = arg;
    print_message("found: %s: %llu, such as %s\n", f->what, (unsigned long long)f->n, f->example);
    assert_true(found->n < FOUND_MAX);
    snprintf(found->what[found->n], sizeof found->what[0], "%s", f->what);
    snprintf(found->example[found->n++], sizeof found->example[0], "%s", f->example);
}

static struct findings check(struct fixture *f, const uint8_t key[SEAL_KEY_SIZE], struct store_summary *ret) {
    struct findings found = {0};
    struct seal_keyring keys = {.n = 1};
    const char *message = "";
    struct store_check how = {.now = f->now, .found = keep_finding, .arg = &found};
    if (key) {
        assert_int_equal(seal_key_of_bytes(key, &keys.keys[0]), 0);
        how.keys = &keys;
    }
    int r = store_check(f->url, &how, ret, &message);
    if (r < 0)
        fail_msg("%s", message);
    return found;
}

/* On a connection of its own: the store's are held to their indexes. */
static void run(struct fixture *f, const char *sql) {
    run_sql(f->url, sql);
}

/* A store in which something of everything happened. */
static struct id fill(struct fixture *f, uint32_t *ret_tenant, uint32_t *ret_sub) {
    uint32_t tenant = make_tenant(f), sub = make_subscription(f, tenant),
             ordered = make_subscription(f, tenant);
    (void)make_secret(f, sub, 's');
    for (int i = 0; i < 3; i++)
        (void)publish_ordered(f, tenant, ordered, 7);
    (void)claim_one(f, tenant, ordered);
    struct id dead = publish(f, tenant, sub);
    finish_one(f, tenant, sub, DELIVERY_DLQ);
    struct id delivered = publish(f, tenant, sub);
    finish_one(f, tenant, sub, DELIVERY_DELIVERED);
    publish(f, tenant, sub);
    struct claim c = claim(f, lane_of(tenant, sub, 1));
    settle(f, outcome_of(f, &c.tasks[0], DELIVERY_RETRY, 500));
    begin(f);
    assert_int_equal(
        store_replay(f->store, dead.key, sub, tenant, 0, f->now, SLICE_LIT("api"), SLICE_LIT("key_1")), 0);
    commit(f);
    struct event_record wide = {.id = next_id(f, f->now),
                                .tenant_no = tenant,
                                .type = SLICE_LIT("a"),
                                .schema_version = SLICE_LIT("1"),
                                .body = SLICE_LIT("{}"),
                                .has_job = true};
    struct fanout_job job = {.event_key = wide.id.key, .tenant_no = tenant, .upper = 9};
    struct replay_record replay = {.id = next_id(f, f->now),
                                   .filter = {.tenant_no = tenant, .last_event = ID_KEY_MAX},
                                   .most = 9,
                                   .requested_by = SLICE_LIT("key_1")};
    struct idempotency_record key = {
        .tenant_no = tenant, .key = SLICE_LIT("k"), .ids = &delivered, .ids_n = 1, .created_at = f->now};
    struct receipt_record receipt = {
        .event_key = delivered.key, .subscription_no = sub, .tenant_no = tenant, .number = 1, .at = f->now};
    begin(f);
    assert_int_equal(store_insert_events(f->store, &wide, 1), 0);
    assert_int_equal(store_insert_job(f->store, &job), 0);
    assert_int_equal(store_insert_replay(f->store, &replay, 5), 0);
    assert_int_equal(store_open_replay_lanes(f->store, &replay, 10), 0);
    assert_int_equal(store_insert_idempotency(f->store, &key), 0);
    assert_int_equal(store_insert_receipt(f->store, &receipt), 0);
    commit(f);
    *ret_tenant = tenant;
    *ret_sub = sub;
    return delivered;
}

static void test_what_the_store_writes_is_sound(void **state) {
    struct fixture *f = *state;
    uint32_t tenant, sub;
    struct store_summary s;
    fill(f, &tenant, &sub);
    static const uint8_t key[SEAL_KEY_SIZE] = "the key that tests seal with";
    assert_int_equal(check(f, key, &s).n, 0);
    assert_true(s.schema == s.schema_known && s.bytes > 0 && s.keys_n == 1);
    assert_int_equal(s.tenants, 1);
    assert_int_equal(s.subscriptions, 2);
    assert_int_equal(s.events, 7);
    assert_int_equal(s.deliveries, 6);
    static const uint8_t other[SEAL_KEY_SIZE] = "another key than that";
    assert_int_equal(check(f, other, &s).n, 1);
}

/* What damages, and what is found then. */
struct damage {
    const char *sql, *what;
};
static const struct damage damages[] = {
    {"INSERT INTO deliveries_open SELECT tenant, event, subscription, 0, 0, 0, 0, 0, 1, NULL, NULL, 1, 1 "
     "FROM "
     "deliveries_closed WHERE state=3 LIMIT 1",
     "deliveries both open and closed"},
    {"INSERT INTO deliveries_open VALUES (1, 77, 1, 0, 0, 0, 0, 0, 1, NULL, NULL, 1, 1)",
     "open deliveries without their event"},
    {"INSERT INTO deliveries_closed (tenant, event, subscription, state, attempts, base, uncounted, "
     "order_at, "
     "window_at, closed_at, test, reason) VALUES (1, 78, 1, 4, 0, 0, 0, 1, 1, 1, false, 2)",
     "closed deliveries without their event"},
    {"INSERT INTO deliveries_open SELECT tenant, key, 999, 0, 0, 0, 0, 0, 1, NULL, NULL, 1, 1 FROM events "
     "LIMIT 1",
     "open deliveries without their subscription"},
    {"INSERT INTO attempts SELECT tenant, 79, subscription, 1, 1, 1, 3, NULL, 1, 1, 1, 1, 1, 200, 0, 0, 1, "
     "'', "
     "'' FROM attempts LIMIT 1",
     "attempts without their delivery"},
    {"INSERT INTO transitions VALUES (1, 79, 1, 1, 3, 5, 8)", "transitions without their delivery"},
    {"INSERT INTO receipts VALUES (1, 79, 1, 1, 0, NULL, 1)", "receipts without their delivery"},
    {"UPDATE deliveries_open SET lease_until=NULL WHERE state=1",
     "ATTEMPTING deliveries without a lease or a number"},
    {"UPDATE deliveries_open SET lease_until=5 WHERE state=2",
     "leases on deliveries that are not ATTEMPTING"},
    {"UPDATE deliveries_open SET due_at=5 WHERE state=1",
     "ATTEMPTING deliveries that could be claimed once more"},
    {"UPDATE deliveries_open SET replay_by=NULL WHERE state=5", "REPLAYING deliveries that nobody asked for"},
    {"UPDATE deliveries_open SET uncounted=9 WHERE state=2", "counts of attempts that do not add up"},
    {"UPDATE deliveries_open SET due_at=NULL WHERE state=2", "deliveries that wait and are due never"},
    {"INSERT INTO deliveries_open SELECT tenant, event, subscription+100, 0, 0, 0, 0, 0, NULL, NULL, 5, 1, 1 "
     "FROM deliveries_open WHERE state=2",
     "ordered lane keys of which nothing may go"},
    {"UPDATE deliveries_closed SET attempts=attempts+1, reason=7 WHERE state=3",
     "reasons on deliveries that are not in the DLQ"},
    {"SELECT 1", "closed deliveries with gaps in their recorded attempts"},
    {"SELECT 1", "open deliveries whose recorded attempts are not those that ended"},
    {"UPDATE events SET has_job=false WHERE has_job", "fan-out jobs without their event"},
    {"UPDATE fanout_jobs SET cursor=50, deliveries=3", "fan-out jobs that stand where none can"},
    {"SELECT 1", "fan-out jobs that count more deliveries than there are"},
    {"INSERT INTO dlq_counts VALUES (1, 1, 2, 9)", "counts of the DLQ that are not what is in it"},
    {"UPDATE replay_lanes SET room=17", "replays' lanes that do not add up, or without their replay"},
    {"UPDATE idempotency SET body_hash='x'", "idempotency keys that are malformed"},
    {"UPDATE idempotency SET events=decode(repeat('00', 16), 'hex')",
     "idempotency keys without their events"},
    {"UPDATE secrets SET seal_key=9", "secrets that no known key has sealed"},
    {"INSERT INTO server_keys (name, bytes, seal_key) VALUES ('receipts', 'x', 9)",
     "keys of the server's own that no known key has sealed"},
    {"UPDATE subscriptions SET headers='x'", "headers that no known key has sealed"},
    {"UPDATE subscriptions SET doc='{\"headers\":{\"a\":\"b\"}}'", "headers that lie in clear"},
    {"UPDATE partitions SET node=99 WHERE tier=1 AND no=3", "partitions of a node that is gone"},
    {"DELETE FROM partitions WHERE tier=2 AND no=1023", "partitions that are missing"},
};
static const struct damage in_lanes[] = {
    {"UPDATE deliveries_open SET state=1, lane_key=8 WHERE state=2 OR state=5",
     "ordered lane keys of which several are ATTEMPTING"},
};

static bool is_found(const struct findings *found, const char *what) {
    for (size_t i = 0; i < found->n; i++)
        if (strcmp(found->what[i], what) == 0)
            return true;
    return false;
}

static void assert_found(struct fixture *f, const struct damage *done, size_t n) {
    uint32_t tenant, sub;
    struct store_summary s;
    fill(f, &tenant, &sub);
    for (size_t i = 0; i < n; i++)
        run(f, done[i].sql);
    struct findings found = check(f, NULL, &s);
    for (size_t i = 0; i < n; i++)
        if (!is_found(&found, done[i].what))
            fail_msg("not found: %s", done[i].what);
}

static void test_every_damage_is_found(void **state) {
    assert_found(*state, damages, COUNT(damages));
}

static void test_damage_in_lanes_is_found(void **state) {
    assert_found(*state, in_lanes, COUNT(in_lanes));
}

/* A server that runs keeps days ahead of it. */
static void test_missing_days_are_found(void **state) {
    struct fixture *f = *state;
    struct store_summary s;
    f->now += 1000 * DAY_MS;
    assert_int_equal(check(f, NULL, &s).n, 0); /* nobody serves */
    run(f,
        "INSERT INTO nodes (slot, name, version, roles, tiers, lease_until, started_at) VALUES (9, 'n', '1', "
        "1, 1, 9000000000000000, 1)");
    struct findings found = check(f, NULL, &s);
    assert_true(is_found(&found, "days that should have been made by now"));
    assert_int_equal(store_keep_house(f->reader, f->now, 0), 0);
    assert_int_equal(check(f, NULL, &s).n, 0);
}

/* A delivery that is damaged is named by its id. */
static void test_an_example_is_an_id(void **state) {
    struct fixture *f = *state;
    uint32_t tenant, sub;
    struct store_summary s;
    char id[ID_TEXT_SIZE];
    struct id delivered = fill(f, &tenant, &sub);
    run(f, "UPDATE deliveries_closed SET reason=7 WHERE state=3");
    struct findings found = check(f, NULL, &s);
    assert_int_equal(found.n, 1);
    id_format(ID_DELIVERY, id_of_delivery(delivered.key, sub), id);
    assert_string_equal(found.example[0], id);
}

static void test_a_database_without_a_store_says_so(void **state) {
    struct fixture *f = *state;
    struct store_summary s;
    const char *message = "";
    struct store_check how = {.now = f->now};
    run(f, "DROP TABLE posthorn_schema");
    assert_int_equal(store_check(f->url, &how, &s, &message), -ENOENT);
    assert_non_null(strstr(message, "there is no store"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        STORE_TEST(test_what_the_store_writes_is_sound),
        STORE_TEST(test_every_damage_is_found),
        STORE_TEST(test_damage_in_lanes_is_found),
        STORE_TEST(test_missing_days_are_found),
        STORE_TEST(test_an_example_is_an_id),
        STORE_TEST(test_a_database_without_a_store_says_so),
    };
    return cmocka_run_group_tests(tests, NULL, fixture_end);
}
