/* Tenants, subscriptions, secrets, keys and the audit trail. */
#include "fixture.h"

#include <errno.h>
#include <string.h>

#define assert_slice(s, text) assert_true(slice_eq((s), slice_of(text)))

static struct id seen_ids[ROWS_MAX];
static uint32_t seen_numbers[ROWS_MAX];
static size_t seen;

/* ---- tenants ---- */

static struct tenant_record tenant_named(struct fixture *f, const char *id) {
    return (struct tenant_record){.id = slice_of(id),
                                  .doc = SLICE_LIT("{\"name\":\"Acme\"}"),
                                  .created_at = f->now,
                                  .updated_at = f->now + 1};
}

static int see_tenant(void *arg, const struct tenant_record *row) {
    struct tenant_record *t = arg;
    if (t) {
        assert_slice(row->id, "acme");
        assert_slice(row->doc, "{\"name\":\"Acme\"}");
        *t = *row;
    }
    assert_true(seen < ROWS_MAX);
    seen_numbers[seen++] = row->no;
    return 0;
}

static void test_tenant_is_kept_as_given(void **state) {
    struct fixture *f = *state;
    struct tenant_record t = tenant_named(f, "acme"), got;
    uint32_t no = 0;
    begin(f);
    assert_int_equal(store_insert_tenant(f->store, &t, &no), 0);
    assert_int_equal(store_get_tenant(f->store, no, &got), 0);
    assert_slice(got.id, "acme");
    commit(f);
    assert_int_equal(store_read_tenant(f->reader, SLICE_LIT("acme"), see_tenant, &got), 0);
    assert_int_equal(got.no, no);
    assert_true(got.created_at == f->now && got.updated_at == f->now + 1);
    assert_int_equal(store_read_tenant(f->reader, SLICE_LIT("ACME"), see_tenant, &got), -ENOENT);
}

static void test_tenant_id_is_taken_once(void **state) {
    struct fixture *f = *state;
    struct tenant_record t = tenant_named(f, "acme");
    uint32_t first = 0, again = 77;
    begin(f);
    assert_int_equal(store_insert_tenant(f->store, &t, &first), 0);
    assert_int_equal(store_insert_tenant(f->store, &t, &again), -EEXIST);
    assert_int_equal(again, 77);
    /* Once deleted, it is free; the old one's number is not. */
    assert_int_equal(store_delete_tenant(f->store, first, f->now), 0);
    assert_int_equal(store_insert_tenant(f->store, &t, &again), 0);
    assert_true(again > first);
    commit(f);
}

static void test_tenant_is_updated(void **state) {
    struct fixture *f = *state;
    uint32_t no = make_tenant(f);
    struct tenant_record got;
    begin(f);
    assert_int_equal(store_update_tenant(f->store, no, SLICE_LIT("{\"name\":\"B\"}"), f->now + 9), 0);
    assert_int_equal(store_get_tenant(f->store, no, &got), 0);
    assert_slice(got.doc, "{\"name\":\"B\"}");
    assert_true(got.updated_at == f->now + 9 && got.created_at == f->now);
    assert_int_equal(store_update_tenant(f->store, no + 1000, SLICE_LIT("{}"), f->now), -ENOENT);
    commit(f);
}

static void test_tenant_with_work_is_not_deleted(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f), sub = make_subscription(f, tenant);
    struct id due = publish(f, tenant, sub), under_way = publish(f, tenant, sub);
    (void)due;
    (void)under_way;
    struct task t = claim_one(f, tenant, sub);
    begin(f);
    assert_int_equal(store_delete_tenant(f->store, tenant, f->now), -EBUSY);
    assert_int_equal(store_delete_subscription(f->store, sub, f->now), 0);
    assert_int_equal(store_delete_tenant(f->store, tenant, f->now), -EBUSY);
    unsigned n = 0;
    assert_int_equal(store_close_deleted(f->store, sub, f->now, 10, &n), 0);
    assert_int_equal(n, 1);
    assert_int_equal(store_delete_tenant(f->store, tenant, f->now), -EBUSY);
    settle(f, outcome_of(f, &t, DELIVERY_DELIVERED, 200));
    assert_int_equal(store_delete_tenant(f->store, tenant, f->now), 0);
    struct tenant_record got;
    assert_int_equal(store_get_tenant(f->store, tenant, &got), -ENOENT);
    assert_int_equal(store_update_tenant(f->store, tenant, SLICE_LIT("{}"), f->now), -ENOENT);
    assert_int_equal(store_delete_tenant(f->store, tenant, f->now), -ENOENT);
    commit(f);
}

static void test_blocked_delivery_keeps_its_tenant(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f), sub = make_subscription(f, tenant);
    publish_ordered(f, tenant, sub, 9);
    publish_ordered(f, tenant, sub, 9);
    begin(f);
    assert_int_equal(store_delete_subscription(f->store, sub, f->now), 0);
    for (unsigned expected = 1; expected; expected--) {
        unsigned n = 0;
        assert_int_equal(store_close_deleted(f->store, sub, f->now, 1, &n), 0);
        assert_int_equal(n, 1);
        assert_int_equal(store_delete_tenant(f->store, tenant, f->now), -EBUSY);
    }
    unsigned n = 0;
    assert_int_equal(store_close_deleted(f->store, sub, f->now, 5, &n), 0);
    assert_int_equal(n, 1);
    assert_int_equal(store_delete_tenant(f->store, tenant, f->now), 0);
    commit(f);
}

static void test_tenants_are_listed_newest_first(void **state) {
    struct fixture *f = *state;
    uint32_t made[5];
    for (size_t i = 0; i < COUNT(made); i++)
        made[i] = make_tenant(f);
    begin(f);
    assert_int_equal(store_delete_tenant(f->store, made[2], f->now), 0);
    commit(f);
    seen = 0;
    assert_int_equal(store_list_tenants(f->reader, 0, 2, see_tenant, NULL), 0);
    assert_int_equal(seen, 2);
    assert_true(seen_numbers[0] == made[4] && seen_numbers[1] == made[3]);
    seen = 0;
    assert_int_equal(store_list_tenants(f->reader, made[3], 2, see_tenant, NULL), 0);
    assert_int_equal(seen, 2);
    assert_true(seen_numbers[0] == made[1] && seen_numbers[1] == made[0]);
}

static int stop_with_seven(void *arg, const struct tenant_record *row) {
    (void)row;
    ++*(int *)arg;
    return 7;
}

static void test_callback_ends_a_list(void **state) {
    struct fixture *f = *state;
    make_tenant(f);
    make_tenant(f);
    int calls = 0;
    assert_int_equal(store_list_tenants(f->reader, 0, 10, stop_with_seven, &calls), 7);
    assert_int_equal(calls, 1);
    /* The reader does not cling to what it saw then. */
    uint32_t no = make_tenant(f);
    seen = 0;
    assert_int_equal(store_list_tenants(f->reader, 0, 1, see_tenant, NULL), 0);
    assert_int_equal(seen_numbers[0], no);
}

/* ---- subscriptions ---- */

static int see_subscription(void *arg, const struct subscription_record *row) {
    (void)arg;
    assert_true(seen < ROWS_MAX);
    seen_numbers[seen] = row->no;
    seen_ids[seen++] = row->id;
    return 0;
}

static int check_subscription(void *arg, const struct subscription_record *row) {
    const struct subscription_record *want = arg;
    assert_true(row->no == want->no && row->tenant_no == want->tenant_no && id_eq(row->id, want->id));
    assert_int_equal(row->status, want->status);
    assert_true(slice_eq(row->disabled_reason, want->disabled_reason));
    assert_true(!row->disabled_reason.p == !want->disabled_reason.p);
    assert_true(slice_eq(row->doc, want->doc));
    assert_true(row->created_at == want->created_at && row->updated_at == want->updated_at);
    assert_true(row->resumed_at == want->resumed_at && row->failing_since == want->failing_since);
    assert_true(row->raised_since == want->raised_since && row->jobs_settled == want->jobs_settled);
    return 0;
}

static void test_subscription_is_kept_and_changed(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f);
    struct subscription_record r = {.tenant_no = tenant,
                                    .id = next_id(f, f->now),
                                    .status = SUBSCRIPTION_PAUSED,
                                    .doc = SLICE_LIT("{\"a\":1}"),
                                    .created_at = f->now,
                                    .updated_at = f->now};
    begin(f);
    assert_int_equal(store_insert_subscription(f->store, &r, &r.no), 0);
    commit(f);
    assert_int_equal(store_read_subscription(f->reader, tenant, r.id, check_subscription, &r), 0);
    r.status = SUBSCRIPTION_DISABLED;
    r.disabled_reason = SLICE_LIT("gone");
    r.doc = SLICE_LIT("{\"a\":2}");
    r.updated_at = f->now + 5;
    r.resumed_at = f->now + 4;
    r.jobs_settled = 7;
    r.failing_since = f->now + 3;
    r.raised_since = f->now + 2;
    struct subscription_record got;
    begin(f);
    assert_int_equal(store_update_subscription(f->store, &r), 0);
    assert_int_equal(store_set_health(f->store, r.no, r.failing_since, r.raised_since), 0);
    assert_int_equal(store_get_subscription(f->store, r.no, &got), 0);
    check_subscription(&r, &got);
    commit(f);
    assert_int_equal(store_read_subscription(f->reader, tenant, r.id, check_subscription, &r), 0);
    begin(f);
    assert_int_equal(store_set_health(f->store, r.no, 0, 0), 0);
    commit(f);
    r.failing_since = r.raised_since = 0;
    assert_int_equal(store_read_subscription(f->reader, tenant, r.id, check_subscription, &r), 0);
}

static void test_subscription_of_another_tenant_is_not_found(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f), other = make_tenant(f);
    make_subscription(f, tenant);
    seen = 0;
    assert_int_equal(store_list_subscriptions(f->reader, tenant, -1, 0, 10, see_subscription, NULL), 0);
    assert_int_equal(seen, 1);
    struct id id = seen_ids[0];
    assert_int_equal(store_read_subscription(f->reader, tenant, id, see_subscription, NULL), 0);
    assert_int_equal(store_read_subscription(f->reader, other, id, see_subscription, NULL), -ENOENT);
    id.tail ^= 1;
    assert_int_equal(store_read_subscription(f->reader, tenant, id, see_subscription, NULL), -ENOENT);
}

static void test_deleted_subscription_is_gone(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f), kept = make_subscription(f, tenant), no = make_subscription(f, tenant);
    seen = 0;
    assert_int_equal(store_list_subscriptions(f->reader, tenant, -1, 0, 1, see_subscription, NULL), 0);
    struct id id = seen_ids[0];
    struct subscription_record got, change = {.no = no, .doc = SLICE_LIT("{}")};
    uint64_t count = 0;
    begin(f);
    assert_int_equal(store_count_subscriptions(f->store, tenant, &count), 0);
    assert_int_equal(count, 2);
    assert_int_equal(store_delete_subscription(f->store, no, f->now), 0);
    assert_int_equal(store_delete_subscription(f->store, no, f->now), -ENOENT);
    assert_int_equal(store_get_subscription(f->store, no, &got), -ENOENT);
    assert_int_equal(store_update_subscription(f->store, &change), -ENOENT);
    assert_int_equal(store_count_subscriptions(f->store, tenant, &count), 0);
    assert_int_equal(count, 1);
    commit(f);
    assert_int_equal(store_read_subscription(f->reader, tenant, id, see_subscription, NULL), -ENOENT);
    seen = 0;
    assert_int_equal(store_list_subscriptions(f->reader, tenant, -1, 0, 9, see_subscription, NULL), 0);
    assert_int_equal(seen, 1);
    assert_int_equal(seen_numbers[0], kept);
}

struct kept_state {
    uint32_t no;
    char text[LANE_STATE_SIZE + 1];
    size_t rows;
};

static int see_lane_state(void *arg, uint32_t no, struct slice state) {
    struct kept_state *k = arg;
    assert_int_equal(state.n, LANE_STATE_SIZE);
    k->no = no;
    memcpy(k->text, state.p, state.n);
    k->rows++;
    return 0;
}

static void assert_kept(struct fixture *f, size_t rows, uint32_t no, const char *text) {
    struct kept_state k = {0};
    assert_int_equal(store_each_lane_state(f->reader, see_lane_state, &k), 0);
    assert_int_equal(k.rows, rows);
    if (rows == 1) {
        assert_int_equal(k.no, no);
        assert_string_equal(k.text, text);
    }
}

static void set_lane_state(struct fixture *f, uint32_t no, uint32_t tenant, const char *text) {
    begin(f);
    assert_int_equal(store_set_lane_state(f->store, no, tenant, text ? slice_of(text) : SLICE_NONE, f->now),
                     0);
    commit(f);
}

static void test_what_a_lane_has_learnt_is_kept(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f), first = make_subscription(f, tenant), no = make_subscription(f, tenant);
    assert_kept(f, 0, 0, NULL);
    set_lane_state(f, no, tenant, "aaaaaaaaaaaaaaaaaaaa");
    set_lane_state(f, no, tenant, "bbbbbbbbbbbbbbbbbbbb");
    assert_kept(f, 1, no, "bbbbbbbbbbbbbbbbbbbb");
    set_lane_state(f, first, tenant, "cccccccccccccccccccc");
    assert_kept(f, 2, 0, NULL);
    set_lane_state(f, first, tenant, NULL);
    set_lane_state(f, first, tenant, NULL);
    assert_kept(f, 1, no, "bbbbbbbbbbbbbbbbbbbb");
    begin(f);
    assert_int_equal(store_delete_subscription(f->store, no, f->now), 0);
    commit(f);
    assert_kept(f, 0, 0, NULL);
}

static void test_subscriptions_are_listed_by_status(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f), made[4];
    for (size_t i = 0; i < COUNT(made); i++)
        made[i] = make_subscription(f, tenant);
    begin(f);
    for (size_t i = 0; i < COUNT(made); i += 2) {
        struct subscription_record r = {
            .no = made[i], .status = SUBSCRIPTION_PAUSED, .doc = SLICE_LIT("{}"), .updated_at = f->now};
        assert_int_equal(store_update_subscription(f->store, &r), 0);
    }
    commit(f);
    seen = 0;
    assert_int_equal(
        store_list_subscriptions(f->reader, tenant, SUBSCRIPTION_PAUSED, 0, 9, see_subscription, NULL), 0);
    assert_int_equal(seen, 2);
    assert_true(seen_numbers[0] == made[2] && seen_numbers[1] == made[0]);
    seen = 0;
    assert_int_equal(store_list_subscriptions(f->reader, tenant, -1, made[2], 1, see_subscription, NULL), 0);
    assert_int_equal(seen, 1);
    assert_int_equal(seen_numbers[0], made[1]);
}

static int see_ascending(void *arg, const struct subscription_record *row) {
    uint32_t *last = arg;
    assert_true(row->no > *last);
    assert_int_not_equal(row->status, SUBSCRIPTION_DELETED);
    *last = row->no;
    return 0;
}

static void test_each_subscription_ascends(void **state) {
    struct fixture *f = *state;
    uint32_t first = make_subscription(f, make_tenant(f)), gone = make_subscription(f, make_tenant(f));
    uint32_t newest = make_subscription(f, make_tenant(f)), last = 0;
    begin(f);
    assert_int_equal(store_delete_subscription(f->store, gone, f->now), 0);
    commit(f);
    assert_int_equal(store_each_subscription(f->reader, see_ascending, &last), 0);
    assert_true(last == newest && newest > first);
}

/* ---- closing what a deleted subscription leaves ---- */

static void test_deleted_lane_is_closed_in_bounded_steps(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f), sub = make_subscription(f, tenant);
    struct id under_way = publish_ordered(f, tenant, sub, 5);
    struct task t = claim_one(f, tenant, sub);
    enum { WAITING = 150, STEP = 70 };
    struct id events[WAITING];
    begin(f);
    for (size_t i = 0; i < WAITING; i++)
        events[i] = publish_ordered(f, tenant, sub, i % 2 ? 5 : 0);
    assert_int_equal(store_delete_subscription(f->store, sub, f->now), 0);
    commit(f);
    f->now += 1000;
    static const unsigned expected[] = {STEP, STEP, WAITING - 2 * STEP, 0};
    for (size_t i = 0; i < COUNT(expected); i++) {
        unsigned n = 99;
        begin(f);
        assert_int_equal(store_close_deleted(f->store, sub, f->now, STEP, &n), 0);
        commit(f);
        assert_int_equal(n, expected[i]);
    }
    for (size_t i = 0; i < WAITING; i++) {
        struct got_delivery d = read_delivery(f, tenant, events[i], sub);
        assert_int_equal(d.row.state, DELIVERY_DLQ);
        assert_int_equal(d.row.reason, REASON_SUBSCRIPTION_DELETED);
        assert_true(d.row.closed_at == f->now && d.row.next_attempt_at == 0 && !d.row.blocked);
        struct transitions moves = list_transitions(f, events[i], sub);
        assert_int_equal(moves.n, 1);
        assert_int_equal(moves.at[0].from, DELIVERY_PENDING);
        assert_int_equal(moves.at[0].to, DELIVERY_DLQ);
        assert_int_equal(moves.at[0].reason, REASON_SUBSCRIPTION_DELETED);
        assert_true(moves.at[0].at == f->now);
    }
    assert_int_equal(state_of(f, tenant, under_way, sub), DELIVERY_ATTEMPTING);
    struct settlement s = settle(f, outcome_of(f, &t, DELIVERY_DELIVERED, 200));
    assert_true(!s.stale && s.released_due_at == 0);
}

/* ---- secrets ---- */

static size_t keys_at(struct fixture *f, uint32_t sub, int64_t at, char *ret_fillings) {
    struct signing_key keys[SUBSCRIPTION_SECRETS_MAX];
    size_t n = 0;
    assert_int_equal(store_get_signing_keys(f->store, sub, at, keys, &n), 0);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(keys[i].size, 24);
        assert_int_equal(keys[i].scheme, SIGNING_HMAC);
        ret_fillings[i] = (char)keys[i].bytes[23];
    }
    ret_fillings[n] = '\0';
    return n;
}

static void test_rotation_lets_both_sign_until_the_overlap_ends(void **state) {
    struct fixture *f = *state;
    uint32_t sub = make_subscription(f, make_tenant(f));
    char got[SUBSCRIPTION_SECRETS_MAX + 1];
    begin(f);
    make_secret(f, sub, 'a');
    assert_int_equal(keys_at(f, sub, f->now, got), 1);
    int64_t end = f->now + 1000;
    assert_int_equal(store_expire_secrets(f->store, sub, end), 0);
    make_secret(f, sub, 'b');
    keys_at(f, sub, f->now, got);
    assert_string_equal(got, "ba");
    /* One that ends sooner does so still. */
    assert_int_equal(store_expire_secrets(f->store, sub, end + 5000), 0);
    make_secret(f, sub, 'c');
    keys_at(f, sub, end - 1, got);
    assert_string_equal(got, "cba");
    keys_at(f, sub, end, got);
    assert_string_equal(got, "cb");
    keys_at(f, sub, end + 5000, got);
    assert_string_equal(got, "c");
    commit(f);
}

static void test_at_most_the_newest_secrets_sign(void **state) {
    struct fixture *f = *state;
    uint32_t sub = make_subscription(f, make_tenant(f));
    char got[SUBSCRIPTION_SECRETS_MAX + 1];
    begin(f);
    for (char c = 'a'; c < 'a' + SUBSCRIPTION_SECRETS_MAX + 2; c++)
        make_secret(f, sub, c);
    commit(f);
    keys_at(f, sub, f->now, got);
    assert_string_equal(got, "jihgfedc");
}

static int see_secret(void *arg, const struct secret_record *row) {
    char *text = arg;
    size_t n = strlen(text);
    text[n] = (char)row->key.bytes[0];
    text[n + 1] = '\0';
    return 0;
}

static void test_secrets_are_listed(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f), one = make_subscription(f, tenant), two = make_subscription(f, tenant);
    begin(f);
    make_secret(f, two, 'x');
    make_secret(f, one, 'a');
    make_secret(f, two, 'y');
    make_secret(f, one, 'b');
    commit(f);
    char got[ROWS_MAX] = "";
    assert_int_equal(store_list_secrets(f->reader, two, f->now, see_secret, got), 0);
    assert_string_equal(got, "yx");
    got[0] = '\0';
    assert_int_equal(store_list_secrets(f->reader, one, f->now, see_secret, got), 0);
    assert_string_equal(got, "ba");
}

static void test_deleted_subscription_has_no_secrets(void **state) {
    struct fixture *f = *state;
    uint32_t sub = make_subscription(f, make_tenant(f));
    char got[SUBSCRIPTION_SECRETS_MAX + 1];
    begin(f);
    make_secret(f, sub, 'a');
    assert_int_equal(store_delete_subscription(f->store, sub, f->now), 0);
    assert_int_equal(keys_at(f, sub, f->now, got), 0);
    commit(f);
}

/* ---- keys and audit ---- */

static int see_key(void *arg, const struct key_record *row) {
    struct key_record *want = arg;
    if (!id_eq(row->id, want->id))
        return 0;
    assert_memory_equal(row->hash, want->hash, sizeof row->hash);
    assert_true(row->tenant_no == want->tenant_no && row->scopes == want->scopes);
    assert_true(row->created_at == want->created_at && row->expires_at == want->expires_at);
    assert_true(row->revoked_at == want->revoked_at);
    seen++;
    return 0;
}

static void test_keys(void **state) {
    struct fixture *f = *state;
    struct key_record k = {.id = next_id(f, f->now),
                           .tenant_no = 3,
                           .scopes = 0x15,
                           .created_at = f->now,
                           .expires_at = f->now + DAY_MS};
    memset(k.hash, 0xA5, sizeof k.hash);
    memcpy(k.hash, &f->now, sizeof f->now);
    struct key_record same_hash = k;
    same_hash.id = next_id(f, f->now);
    begin(f);
    assert_int_equal(store_insert_key(f->store, &k), 0);
    assert_int_equal(store_insert_key(f->store, &same_hash), -EEXIST);
    commit(f);
    seen = 0;
    assert_int_equal(store_list_keys(f->reader, SIZE_MAX, see_key, &k), 0);
    assert_int_equal(seen, 1);
    uint32_t tenant_no = 0;
    begin(f);
    assert_int_equal(store_revoke_key(f->store, k.id, f->now + 4, &tenant_no), 0);
    assert_int_equal(tenant_no, 3);
    assert_int_equal(store_revoke_key(f->store, k.id, f->now + 5, &tenant_no), -ENOENT);
    assert_int_equal(store_revoke_key(f->store, same_hash.id, f->now, &tenant_no), -ENOENT);
    commit(f);
    k.revoked_at = f->now + 4;
    seen = 0;
    assert_int_equal(store_list_keys(f->reader, SIZE_MAX, see_key, &k), 0);
    assert_int_equal(seen, 1);
}

struct audit_seen {
    char actions[ROWS_MAX];
    uint64_t last_no;
    const char *tenant_id, *other_id; /* of the entry 'b' */
};

static int see_audit(void *arg, uint64_t no, const struct audit_record *row) {
    struct audit_seen *a = arg;
    assert_slice(row->actor, "system");
    assert_slice(row->object, "sub_1");
    assert_slice(row->tenant_id, row->action.p[0] == 'b' ? a->other_id : a->tenant_id);
    assert_true(a->last_no == 0 || no < a->last_no);
    a->last_no = no;
    strncat(a->actions, row->action.p, row->action.n);
    return 0;
}

static char *name_of(struct fixture *f, uint32_t tenant_no) {
    struct tenant_record t;
    assert_int_equal(store_get_tenant(f->store, tenant_no, &t), 0);
    return slice_dup(t.id);
}

static void test_audit(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f), other = make_tenant(f);
    begin(f);
    _cleanup_free_ char *tenant_id = name_of(f, tenant), *other_id = name_of(f, other);
    for (char c = 'a'; c < 'f'; c++) {
        struct audit_record r = {.at = f->now,
                                 .actor = SLICE_LIT("system"),
                                 .action = {&c, 1},
                                 .object = SLICE_LIT("sub_1"),
                                 .tenant_no = c == 'b' ? other : tenant,
                                 .detail = c == 'c' ? SLICE_LIT("{}") : SLICE_NONE};
        assert_int_equal(store_insert_audit(f->store, &r), 0);
    }
    commit(f);
    struct audit_seen a = {.tenant_id = tenant_id, .other_id = other_id};
    assert_int_equal(store_list_audit(f->reader, slice_of(tenant_id), 0, 2, see_audit, &a), 0);
    assert_string_equal(a.actions, "ed");
    assert_int_equal(store_list_audit(f->reader, slice_of(tenant_id), a.last_no, 9, see_audit, &a), 0);
    assert_string_equal(a.actions, "edca");
    /* A tenant that is gone keeps its name in the audit. */
    begin(f);
    assert_int_equal(store_delete_tenant(f->store, other, f->now), 0);
    commit(f);
    a = (struct audit_seen){.tenant_id = tenant_id, .other_id = other_id};
    assert_int_equal(store_list_audit(f->reader, SLICE_NONE, 0, 5, see_audit, &a), 0);
    assert_string_equal(a.actions, "edcba");
    a = (struct audit_seen){.other_id = other_id};
    assert_int_equal(store_list_audit(f->reader, slice_of(other_id), 0, 5, see_audit, &a), 0);
    assert_string_equal(a.actions, "b");
}

static void assert_note(struct fixture *f, const char *source, const char *item, const char *expected) {
    _cleanup_buf_ struct buf text = {0};
    begin(f);
    int r = store_get_source_note(f->store, slice_of(source), slice_of(item), &text);
    commit(f);
    assert_int_equal(r, expected ? 0 : -ENOENT);
    if (expected)
        assert_string_equal(text.p, expected);
}

static void put_note(struct fixture *f, const char *source, const char *item, const char *text) {
    begin(f);
    assert_int_equal(store_put_source_note(f->store, slice_of(source), slice_of(item), slice_of(text)), 0);
    commit(f);
}

static void test_source_notes(void **state) {
    struct fixture *f = *state;
    assert_note(f, "orders", "position", NULL);
    put_note(f, "orders", "position", "7 1 0/16B3748");
    put_note(f, "orders", "position", "7 1 0/16B3800");
    put_note(f, "orders", "shape", "{}");
    put_note(f, "other", "position", "9");
    fixture_reopen(f);
    assert_note(f, "orders", "position", "7 1 0/16B3800");
    assert_note(f, "orders", "shape", "{}");
    assert_note(f, "other", "position", "9");
    assert_note(f, "other", "shape", NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        STORE_TEST(test_tenant_is_kept_as_given),
        STORE_TEST(test_tenant_id_is_taken_once),
        STORE_TEST(test_tenant_is_updated),
        STORE_TEST(test_tenant_with_work_is_not_deleted),
        STORE_TEST(test_blocked_delivery_keeps_its_tenant),
        STORE_TEST(test_tenants_are_listed_newest_first),
        STORE_TEST(test_callback_ends_a_list),
        STORE_TEST(test_subscription_is_kept_and_changed),
        STORE_TEST(test_subscription_of_another_tenant_is_not_found),
        STORE_TEST(test_deleted_subscription_is_gone),
        STORE_TEST(test_what_a_lane_has_learnt_is_kept),
        STORE_TEST(test_subscriptions_are_listed_by_status),
        STORE_TEST(test_each_subscription_ascends),
        STORE_TEST(test_deleted_lane_is_closed_in_bounded_steps),
        STORE_TEST(test_rotation_lets_both_sign_until_the_overlap_ends),
        STORE_TEST(test_at_most_the_newest_secrets_sign),
        STORE_TEST(test_secrets_are_listed),
        STORE_TEST(test_deleted_subscription_has_no_secrets),
        STORE_TEST(test_keys),
        STORE_TEST(test_audit),
        STORE_TEST(test_source_notes),
    };
    return cmocka_run_group_tests(tests, NULL, fixture_end);
}
