/* What the control plane leaves behind goes after its time, in bounded steps; what is asked for stays. */
#include "fixture.h"

#include <stdlib.h>
#include <string.h>

#include "settle/retention.h"

static const struct retention_policy year = {.audit_days = 365, .key_days = 90};

/* In one go, to its end. */
static void sweep(struct fixture *f, struct retention_policy policy) {
    enum { STEPS_MAX = 100 };
    struct retention_sweep s = {.policy = policy};
    bool more = true;
    for (unsigned steps = 0; more; steps++) {
        assert_true(steps < STEPS_MAX);
        begin(f);
        assert_int_equal(retention_step(&s, f->store, f->now, &more), 0);
        commit(f);
    }
    assert_int_equal(s.policy.audit_days, policy.audit_days); /* for the next one */
}

static int64_t workers_there(struct fixture *f) {
    return fixture_number(f, "SELECT count(*) FROM workers");
}

/* ---- the audit ---- */

static void write_audit(struct fixture *f, int64_t at, size_t n) {
    begin(f);
    for (size_t i = 0; i < n; i++) {
        struct audit_record r = {.at = at,
                                 .actor = SLICE_LIT("admin"),
                                 .action = SLICE_LIT("key.create"),
                                 .object = SLICE_LIT("key"),
                                 .detail = SLICE_LIT("{}")};
        assert_int_equal(store_insert_audit(f->store, &r), 0);
    }
    commit(f);
}

struct audit_seen {
    size_t n;
    int64_t oldest;
};

static int see_audit(void *arg, uint64_t no, const struct audit_record *row) {
    struct audit_seen *seen = arg;
    (void)no;
    seen->n++;
    seen->oldest = row->at;
    return 0;
}

static struct audit_seen audit_of(struct fixture *f) {
    struct audit_seen seen = {0};
    assert_int_equal(store_list_audit(f->reader, SLICE_NONE, 0, 10000, see_audit, &seen), 0);
    return seen;
}

static void test_audit_leaves_after_its_days(void **state) {
    struct fixture *f = *state;
    int64_t old = f->now - 366 * DAY_MS, young = f->now - 364 * DAY_MS;
    write_audit(f, old, 3 * RETENTION_ROWS_A_STEP + 7);
    write_audit(f, young, 5);
    sweep(f, (struct retention_policy){0}); /* for good */
    assert_int_equal(audit_of(f).n, 3 * RETENTION_ROWS_A_STEP + 12);
    sweep(f, year);
    assert_int_equal(audit_of(f).n, 5);
    assert_int_equal(audit_of(f).oldest, young);
    f->now += 2 * DAY_MS;
    sweep(f, year);
    assert_int_equal(audit_of(f).n, 0);
}

static void test_steps_are_bounded(void **state) {
    struct fixture *f = *state;
    struct control_retention keep = {.audit_before = f->now};
    unsigned n = 0;
    write_audit(f, f->now - 1, 25);
    for (size_t left = 25; left > 0; left -= n) {
        begin(f);
        assert_int_equal(store_retain_control(f->store, &keep, 10, &n), 0);
        commit(f);
        assert_int_equal(n, left < 10 ? left : 10);
        assert_int_equal(audit_of(f).n, left - n);
    }
}

/* ---- keys ---- */

static struct id make_key(struct fixture *f, uint8_t filling, int64_t expires_at) {
    struct key_record r = {
        .id = next_id(f, f->now), .scopes = 1, .created_at = f->now, .expires_at = expires_at};
    memset(r.hash, filling, sizeof r.hash);
    begin(f);
    assert_int_equal(store_insert_key(f->store, &r), 0);
    commit(f);
    return r.id;
}

static int collect_key(void *arg, const struct key_record *row) {
    char *letters = arg;
    letters[strlen(letters)] = (char)row->hash[0];
    return 0;
}

static void assert_keys(struct fixture *f, const char *newest_first) {
    char letters[16] = "";
    assert_int_equal(store_list_keys(f->reader, 10, collect_key, letters), 0);
    assert_string_equal(letters, newest_first);
}

static void test_ended_keys_leave_after_their_days(void **state) {
    struct fixture *f = *state;
    uint32_t tenant;
    (void)make_key(f, 'e', f->now + DAY_MS);       /* expires */
    (void)make_key(f, 'l', f->now + 300 * DAY_MS); /* lives long */
    (void)make_key(f, 'g', 0);                     /* for good */
    struct id revoked = make_key(f, 'r', 0), both = make_key(f, 'b', f->now + 300 * DAY_MS);
    begin(f);
    assert_int_equal(store_revoke_key(f->store, revoked, f->now + 10 * DAY_MS, &tenant), 0);
    assert_int_equal(store_revoke_key(f->store, both, f->now + 10 * DAY_MS, &tenant), 0);
    commit(f);
    f->now += 90 * DAY_MS;
    sweep(f, year);
    assert_keys(f, "brgle");
    f->now += 2 * DAY_MS;
    sweep(f, year);
    assert_keys(f, "brgl");
    f->now += 10 * DAY_MS;
    sweep(f, (struct retention_policy){.audit_days = 1});
    assert_keys(f, "brgl");
    sweep(f, year);
    assert_keys(f, "gl");
}

/* ---- workers ---- */

static uint32_t register_worker(struct fixture *f, const char *name) {
    uint32_t no = 0;
    begin(f);
    assert_int_equal(store_register_worker(f->store, name, "posthorn/1", f->now, &no), 0);
    commit(f);
    return no;
}

static void test_workers_leave_when_nobody_has_seen_them(void **state) {
    struct fixture *f = *state;
    uint32_t living = register_worker(f, "living");
    (void)register_worker(f, "dead");
    f->now += 20 * DAY_MS;
    begin(f);
    assert_int_equal(store_see_worker(f->store, living, f->now), 0);
    commit(f);
    f->now += 9 * DAY_MS;
    sweep(f, year);
    assert_int_equal(workers_there(f), 2);
    f->now += 2 * DAY_MS;
    assert_int_equal(store_keep_house(f->reader, f->now, f->now), 0); /* days without events hold nobody */
    sweep(f, year);
    assert_int_equal(workers_there(f), 1);
}

static int compare_worker(void *arg, const struct attempt_row *row) {
    assert_true(slice_eq(row->worker, slice_of(arg)));
    return 7;
}

/* The oldest event tells: whoever was gone before it came has attempted nothing that is left. */
static void test_a_worker_stays_while_attempts_name_it(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f), sub = make_subscription(f, tenant);
    uint32_t worker = register_worker(f, "host:1");
    begin(f);
    assert_int_equal(
        store_update_tenant(f->store, tenant, SLICE_LIT("{\"limits\":{\"retention_days\":365}}"), 1), 0);
    commit(f);
    struct id event = publish(f, tenant, sub);
    struct task t = claim_one(f, tenant, sub);
    struct settlement done = outcome_of(f, &t, DELIVERY_DELIVERED, 200);
    done.attempt.worker_no = worker;
    settle(f, done);
    f->now += 100 * DAY_MS;
    (void)register_worker(f, "host:2");
    assert_int_equal(store_keep_house(f->reader, f->now, f->now - 365 * DAY_MS), 0);
    sweep(f, year);
    assert_int_equal(store_list_attempts(f->reader, tenant, event.key, sub, compare_worker, "host:1"), 7);
    begin(f);
    assert_int_equal(
        store_update_tenant(f->store, tenant, SLICE_LIT("{\"limits\":{\"retention_days\":7}}"), 1), 0);
    commit(f);
    sweep(f, year);
    f->now += DAY_MS; /* the store looks at days again */
    assert_int_equal(store_keep_house(f->reader, f->now, f->now - 7 * DAY_MS), 0);
    sweep(f, year);
    assert_int_equal(store_list_attempts(f->reader, tenant, event.key, sub, compare_worker, "host:1"), 0);
    assert_int_equal(workers_there(f), 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        STORE_TEST(test_audit_leaves_after_its_days),
        STORE_TEST(test_steps_are_bounded),
        STORE_TEST(test_ended_keys_leave_after_their_days),
        STORE_TEST(test_workers_leave_when_nobody_has_seen_them),
        STORE_TEST(test_a_worker_stays_while_attempts_name_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
