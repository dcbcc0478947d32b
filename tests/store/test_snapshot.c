/* The snapshots that delivering works with, built from what the store holds. */
#include "fixture.h"

#include <errno.h>

#include "store/snapshot.h"

static const char doc_text[] =
    "{\"url\":\"http://127.0.0.1:9999/hook\",\"event_types\":[\"a.*\"],\"ordering\":\"key\"}";

static uint32_t insert_whole(struct fixture *f, uint32_t tenant, struct id *ret_id) {
    json_t *given = json_loads(doc_text, 0, NULL);
    struct field_errors errors = {0};
    json_t *doc = subscription_parse(given, &errors);
    assert_non_null(doc);
    char *text = json_dumps(doc, JSON_COMPACT);
    struct subscription_record r = {.tenant_no = tenant,
                                    .id = next_id(f, f->now),
                                    .status = SUBSCRIPTION_PAUSED,
                                    .doc = slice_of(text),
                                    .created_at = f->now,
                                    .updated_at = f->now,
                                    .resumed_at = f->now + 3};
    uint32_t no = 0;
    assert_int_equal(store_insert_subscription(f->store, &r, &no), 0);
    make_secret(f, no, 'a');
    make_secret(f, no, 'b');
    *ret_id = r.id;
    free(text);
    json_decref(doc);
    json_decref(given);
    return no;
}

static uint32_t insert_bulk_tenant(struct fixture *f, const char *id) {
    struct tenant_record t = {.id = slice_of(id),
                              .doc = SLICE_LIT("{\"tier\":\"bulk\",\"allow_http\":true}"),
                              .created_at = f->now};
    uint32_t no = 0;
    assert_int_equal(store_insert_tenant(f->store, &t, &no), 0);
    return no;
}

struct wanted {
    uint32_t no, tenant;
    struct id id;
    const char *tenant_id;
    bool http;
    unsigned seen;
};

static void check_snapshot(const struct subscription *s, const struct wanted *w) {
    assert_true(s->tenant_no == w->tenant && id_eq(s->id, w->id));
    assert_string_equal(s->tenant_id, w->tenant_id);
    assert_int_equal(s->status, SUBSCRIPTION_PAUSED);
    assert_int_equal(s->ordering, ORDERING_KEY);
    assert_int_equal(s->allow_http, w->http);
    assert_string_equal(s->url, "http://127.0.0.1:9999/hook");
    assert_int_equal(s->keys_n, 2);
    assert_true(s->keys[0].bytes[0] == 'b' && s->keys[1].bytes[0] == 'a');
    assert_int_equal(s->event_types_n, 1);
}

static int see_snapshot(void *arg, struct subscription *s) {
    struct wanted *all = arg;
    for (size_t i = 0; all[i].no; i++) {
        if (all[i].no != s->no)
            continue;
        check_snapshot(s, &all[i]);
        all[i].seen++;
    }
    subscription_unref(s);
    return 0;
}

static void test_snapshots(void **state) {
    struct fixture *f = *state;
    struct wanted all[4] = {0};
    begin(f);
    uint32_t bulk = insert_bulk_tenant(f, "bulky"), plain = make_tenant(f);
    all[0] = (struct wanted){.tenant = bulk, .tenant_id = "bulky", .http = true};
    all[1] = (struct wanted){.tenant = plain, .http = false};
    all[2] = (struct wanted){.tenant = bulk, .tenant_id = "bulky", .http = true};
    struct tenant_record t;
    assert_int_equal(store_get_tenant(f->store, plain, &t), 0);
    char *plain_id = slice_dup(t.id);
    all[1].tenant_id = plain_id;
    for (size_t i = 0; i < 3; i++)
        all[i].no = insert_whole(f, all[i].tenant, &all[i].id);
    struct id ignored;
    uint32_t gone = insert_whole(f, bulk, &ignored);
    assert_int_equal(store_delete_subscription(f->store, gone, f->now), 0);
    struct subscription *s = NULL;
    struct policy_memo memo = {0};
    assert_int_equal(snapshot_load(f->store, gone, f->now, false, &memo, &s), -ENOENT);
    assert_int_equal(snapshot_load(f->store, gone + 1000, f->now, false, &memo, &s), -ENOENT);
    assert_null(s);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(snapshot_load(f->store, all[i].no, f->now, false, &memo, &s), 0);
        check_snapshot(s, &all[i]);
        assert_int_equal(s->no, all[i].no);
        assert_int_equal(s->tier, i == 1 ? TIER_STANDARD : TIER_BULK);
        assert_true(s->resumed_at == f->now + 3);
        assert_ptr_equal(s->policy, memo.policy); /* they all have the same */
        subscription_unref(s);
    }
    assert_int_equal(snapshot_load(f->store, all[1].no, f->now, true, &memo, &s), 0);
    assert_true(s->allow_http);
    subscription_unref(s);
    policy_memo_clear(&memo);
    commit(f);
    assert_int_equal(snapshot_each(f->reader, f->now, false, see_snapshot, all), 0);
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(all[i].seen, 1);
    free(plain_id);
}

/* It has no row in the table of tenants. */
static void test_the_operators_own(void **state) {
    struct fixture *f = *state;
    struct wanted all[2] = {{.tenant = TENANT_OPERATOR, .tenant_id = "", .http = true}};
    begin(f);
    all[0].no = insert_whole(f, TENANT_OPERATOR, &all[0].id);
    struct subscription *s = NULL;
    struct policy_memo memo = {0};
    assert_int_equal(snapshot_load(f->store, all[0].no, f->now, true, &memo, &s), 0);
    check_snapshot(s, &all[0]);
    assert_int_equal(s->tier, TIER_STANDARD);
    subscription_unref(s);
    policy_memo_clear(&memo);
    commit(f);
    assert_int_equal(snapshot_each(f->reader, f->now, true, see_snapshot, all), 0);
    assert_int_equal(all[0].seen, 1);
}

static int refuse_snapshot(void *arg, struct subscription *s) {
    ++*(int *)arg;
    subscription_unref(s);
    return -ECANCELED;
}

static void test_callback_ends_the_snapshots(void **state) {
    struct fixture *f = *state;
    struct id ignored;
    begin(f);
    uint32_t tenant = make_tenant(f);
    insert_whole(f, tenant, &ignored);
    insert_whole(f, tenant, &ignored);
    commit(f);
    int calls = 0;
    assert_int_equal(snapshot_each(f->reader, f->now, false, refuse_snapshot, &calls), -ECANCELED);
    assert_int_equal(calls, 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        STORE_TEST(test_snapshots),
        STORE_TEST(test_the_operators_own),
        STORE_TEST(test_callback_ends_the_snapshots),
    };
    return cmocka_run_group_tests(tests, NULL, fixture_end);
}
