/* Reading events, and what happened to one delivery. */
#include "fixture.h"

#include <errno.h>
#include <string.h>

struct events {
    struct id at[ROWS_MAX];
    size_t n;
};

static int keep_id(void *arg, const struct event_row *row) {
    struct events *e = arg;
    assert_true(e->n < ROWS_MAX);
    e->at[e->n++] = row->event.id;
    return 0;
}

static struct events list_events(struct fixture *f, struct event_query q) {
    struct events e = {0};
    if (!q.limit)
        q.limit = ROWS_MAX;
    uint64_t stop_e;
    assert_int_equal(store_list_events(f->reader, &q, keep_id, &e, &stop_e), 0);
    return e;
}

static void assert_events(struct events got, const struct id *wanted, size_t n) {
    assert_int_equal(got.n, n);
    for (size_t i = 0; i < n; i++)
        assert_true(id_eq(got.at[i], wanted[i]));
}

/* ---- events ---- */

static int check_event(void *arg, const struct event_row *row) {
    const struct event_record *want = arg, *got = &row->event;
    assert_true(id_eq(got->id, want->id) && got->tenant_no == want->tenant_no);
    assert_true(slice_eq(got->type, want->type) && slice_eq(got->schema_version, want->schema_version));
    assert_true(slice_eq(got->ordering_key, want->ordering_key));
    assert_true(!got->ordering_key.p == !want->ordering_key.p);
    assert_true(slice_eq(got->body, want->body) && got->data_size == want->data_size);
    assert_true(slice_eq(got->trace, want->trace) && !got->trace.p == !want->trace.p);
    assert_true(got->deliver_at == want->deliver_at && got->has_job == want->has_job);
    assert_int_equal(row->fanout, FANOUT_DONE);
    assert_int_equal(row->fanout_deliveries, want->deliveries);
    return 0;
}

static void test_event_is_kept_byte_for_byte(void **state) {
    struct fixture *f = *state;
    static const char body[] = "{\"data\":\"a\\u0000\xc3\xa9\"}";
    uint32_t tenant = make_tenant(f);
    struct event_record e = {
        .id = next_id(f, f->now),
        .tenant_no = tenant,
        .type = SLICE_LIT("invoice.paid"),
        .schema_version = SLICE_LIT("2"),
        .ordering_key = SLICE_LIT("it's \xc3\xa9"),
        .deliver_at = f->now + HOUR_MS,
        .body = {body, sizeof body - 1},
        .data_size = 11,
        .deliveries = 4,
        .trace = SLICE_LIT("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01a=1"),
    };
    struct event_record bare = e;
    bare.id = next_id(f, f->now);
    bare.ordering_key = SLICE_NONE;
    bare.deliver_at = 0;
    bare.trace = SLICE_NONE;
    begin(f);
    assert_int_equal(store_insert_events(f->store, (struct event_record[]){e, bare}, 2), 0);
    commit(f);
    assert_int_equal(store_read_event(f->reader, tenant, e.id, check_event, &e), 0);
    assert_int_equal(store_read_event(f->reader, tenant, bare.id, check_event, &bare), 0);
    assert_int_equal(store_read_body(f->reader, tenant, e.id.key, check_event, &e), 0);
}

static void test_event_is_found_by_its_whole_id_and_tenant(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f), other = make_tenant(f);
    struct id id = make_event(f, tenant, (struct event_spec){0}), guessed = id;
    struct events got = {0};
    guessed.tail ^= 1;
    assert_int_equal(store_read_event(f->reader, tenant, guessed, keep_id, &got), -ENOENT);
    assert_int_equal(store_read_event(f->reader, other, id, keep_id, &got), -ENOENT);
    assert_int_equal(store_read_body(f->reader, tenant, id.key + 1, keep_id, &got), -ENOENT);
    assert_int_equal(store_read_body(f->reader, other, id.key, keep_id, &got), -ENOENT);
    assert_int_equal(got.n, 0);
}

static void test_events_are_listed_newest_first_in_pages(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f), other = make_tenant(f);
    struct id made[7];
    begin(f);
    for (int i = 6; i >= 0; i--) {
        made[i] = make_event(f, tenant, (struct event_spec){.at = f->now + (6 - i) / 2});
        make_event(f, other, (struct event_spec){.at = f->now});
    }
    commit(f);
    struct event_query q = {.tenant_no = tenant, .limit = 3};
    assert_events(list_events(f, q), made, 3);
    q.before_key = made[2].key;
    assert_events(list_events(f, q), made + 3, 3);
    q.before_key = made[5].key;
    assert_events(list_events(f, q), made + 6, 1);
    q.before_key = made[6].key;
    assert_events(list_events(f, q), NULL, 0);
}

static void test_events_are_found_by_time_type_and_ordering_key(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f);
    struct id made[6];
    begin(f);
    for (int i = 0; i < 6; i++)
        made[5 - i] = make_event(f, tenant,
                                 (struct event_spec){.at = f->now + i * 10,
                                                     .type = i % 2 ? "a.b" : "a",
                                                     .ordering_key = i < 3   ? "k"
                                                                     : i < 5 ? "K"
                                                                             : NULL});
    commit(f);
    struct event_query q = {.tenant_no = tenant};
    assert_events(list_events(f, q), made, 6);
    q.since = f->now + 20;
    assert_events(list_events(f, q), made, 4);
    q.until = f->now + 40;
    assert_events(list_events(f, q), made + 2, 2);
    q = (struct event_query){.tenant_no = tenant, .type = SLICE_LIT("a.b")};
    assert_events(list_events(f, q), (struct id[]){made[0], made[2], made[4]}, 3);
    q.ordering_key = SLICE_LIT("k");
    assert_events(list_events(f, q), &made[4], 1);
    q.type = SLICE_NONE;
    assert_events(list_events(f, q), made + 3, 3);
    q.before_key = made[3].key;
    q.since = f->now + 10;
    assert_events(list_events(f, q), made + 4, 1);
    q = (struct event_query){.tenant_no = tenant, .before_key = made[1].key, .until = f->now + 100};
    assert_events(list_events(f, q), made + 2, 4);
}

static int keep_fanout(void *arg, const struct event_row *row) {
    *(struct event_row *)arg = *row;
    return 0;
}

static void test_event_tells_how_far_its_fanout_is(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f);
    struct event_record e = {.id = next_id(f, f->now),
                             .tenant_no = tenant,
                             .type = SLICE_LIT("a"),
                             .schema_version = SLICE_LIT("1"),
                             .body = SLICE_LIT("{}"),
                             .has_job = true};
    struct fanout_job job = {.event_key = e.id.key, .tenant_no = tenant, .upper = 9000};
    struct event_row got;
    begin(f);
    assert_int_equal(store_insert_events(f->store, &e, 1), 0);
    assert_int_equal(store_insert_job(f->store, &job), 0);
    commit(f);
    assert_int_equal(store_read_event(f->reader, tenant, e.id, keep_fanout, &got), 0);
    assert_true(got.fanout == FANOUT_PENDING && got.fanout_deliveries == 0);
    static const enum fanout_state steps[] = {FANOUT_EXPANDING, FANOUT_DONE};
    for (uint32_t i = 0; i < COUNT(steps); i++) {
        job.state = steps[i];
        job.deliveries = (i + 1) * 1000;
        begin(f);
        assert_int_equal(store_update_job(f->store, &job), 0);
        commit(f);
        struct event_query q = {.tenant_no = tenant, .limit = 1};
        uint64_t stop_got;
        assert_int_equal(store_list_events(f->reader, &q, keep_fanout, &got, &stop_got), 0);
        assert_true(got.fanout == steps[i] && got.fanout_deliveries == job.deliveries);
    }
}

/* ---- one delivery ---- */

static void test_delivery_tells_where_it_stands(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f), sub = make_subscription(f, tenant);
    int64_t created_at = f->now;
    struct id event = make_event(f, tenant, (struct event_spec){.type = "a.b", .ordering_key = "k"});
    struct new_delivery d = {
        .event_key = event.key, .subscription_no = sub, .tenant_no = tenant, .order_at = f->now + HOUR_MS};
    size_t made;
    begin(f);
    assert_int_equal(store_insert_deliveries(f->store, &d, 1, &made), 0);
    commit(f);
    struct got_delivery g = read_delivery(f, tenant, event, sub);
    assert_int_equal(g.row.state, DELIVERY_PENDING);
    assert_true(g.row.created_at == created_at && g.row.next_attempt_at == f->now + HOUR_MS);
    assert_true(!g.row.blocked && g.row.attempts == 0 && g.row.closed_at == 0);
    assert_string_equal(g.type, "a.b");
    assert_string_equal(g.ordering_key, "k");
    assert_string_equal(g.requested_by, "");
    f->now += HOUR_MS;
    struct task t = claim_one(f, tenant, sub);
    g = read_delivery(f, tenant, event, sub);
    assert_int_equal(g.row.state, DELIVERY_ATTEMPTING);
    assert_true(g.row.claimed_at == f->now && g.row.next_attempt_at == 0 && g.row.attempts == 1);
    settle(f, outcome_of(f, &t, DELIVERY_RETRY, 0));
    g = read_delivery(f, tenant, event, sub);
    assert_int_equal(g.row.state, DELIVERY_RETRY);
    assert_true(g.row.next_attempt_at == f->now + 5000 && g.row.claimed_at == 0);
    assert_true(g.row.last_status == 0 && g.row.last_error == ATTEMPT_TIMEOUT);
    f->now += 5000;
    finish_one(f, tenant, sub, DELIVERY_DLQ);
    g = read_delivery(f, tenant, event, sub);
    assert_int_equal(g.row.state, DELIVERY_DLQ);
    assert_int_equal(g.row.reason, REASON_ATTEMPTS_EXHAUSTED);
    assert_true(g.row.closed_at == f->now && g.row.next_attempt_at == 0);
    assert_true(g.row.last_status == 500 && g.row.last_error == ATTEMPT_OK && g.row.replay_at == 0);
    assert_true(g.row.created_at == created_at);
}

static int keep_nothing(void *arg, const struct delivery_row *row) {
    (void)arg;
    (void)row;
    return 0;
}

static void test_delivery_of_another_tenant_is_not_found(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f), other = make_tenant(f), sub = make_subscription(f, tenant);
    struct id event = publish(f, tenant, sub);
    assert_int_equal(store_read_delivery(f->reader, other, event.key, sub, keep_nothing, NULL), -ENOENT);
    assert_int_equal(store_read_delivery(f->reader, tenant, event.key, sub + 1, keep_nothing, NULL), -ENOENT);
    assert_int_equal(store_read_delivery(f->reader, tenant, event.key + 1, sub, keep_nothing, NULL), -ENOENT);
}

static void test_blocked_delivery_says_so(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f), sub = make_subscription(f, tenant);
    struct id head = publish_ordered(f, tenant, sub, 3), behind = publish_ordered(f, tenant, sub, 3);
    assert_false(read_delivery(f, tenant, head, sub).row.blocked);
    struct task t = claim_one(f, tenant, sub);
    struct got_delivery g = read_delivery(f, tenant, behind, sub);
    assert_true(g.row.blocked && g.row.next_attempt_at == f->now);
    settle(f, outcome_of(f, &t, DELIVERY_DELIVERED, 200));
    assert_false(read_delivery(f, tenant, behind, sub).row.blocked);
}

/* ---- its attempts ---- */

static int check_attempt(void *arg, const struct attempt_row *row) {
    const struct settlement *s = arg;
    const struct attempt_record *want = &s->attempt, *got = &row->attempt;
    assert_true(row->number == s->number && row->to == s->to && row->reason == s->reason);
    assert_true(row->settled_at == s->settled_at && got->started_at == want->started_at);
    assert_true(got->latency_ms == want->latency_ms && got->dns_ms == want->dns_ms);
    assert_true(got->connect_ms == want->connect_ms && got->tls_ms == want->tls_ms);
    assert_true(got->wait_ms == want->wait_ms && got->status == want->status && got->error == want->error);
    assert_true(got->trigger == want->trigger && got->worker_no == want->worker_no);
    assert_true(slice_eq(got->url, want->url) && slice_eq(got->content_type, want->content_type));
    assert_true(slice_eq(got->request_headers, want->request_headers));
    assert_true(slice_eq(got->signature, want->signature));
    assert_true(slice_eq(got->response_headers, want->response_headers));
    assert_true(slice_eq(got->response_body, want->response_body));
    assert_true(got->has_hash == want->has_hash);
    assert_memory_equal(got->response_hash, want->response_hash, sizeof got->response_hash);
    assert_true(slice_eq(row->worker, SLICE_LIT("host:7:x")));
    assert_true(slice_eq(row->user_agent, SLICE_LIT("posthorn/9")));
    assert_true(id_eq(row->id, id_of_attempt(s->event_key, s->subscription_no, s->number, want->started_at)));
    return 0;
}

static void test_attempt_is_kept_as_settled(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f), sub = make_subscription(f, tenant);
    struct id event = publish(f, tenant, sub);
    struct task t = claim_one(f, tenant, sub);
    struct settlement s = outcome_of(f, &t, DELIVERY_DLQ, 404);
    s.reason = REASON_PERMANENT_RESPONSE;
    s.attempt = (struct attempt_record){
        .started_at = f->now - 30,
        .latency_ms = 30,
        .dns_ms = 1,
        .connect_ms = 2,
        .tls_ms = 3,
        .wait_ms = 4,
        .status = 404,
        .trigger = TRIGGER_TEST,
        .url = SLICE_LIT("https://example.com/x"),
        .request_headers = SLICE_LIT("X-A: 1\r\n"),
        .content_type = SLICE_LIT("application/json"),
        .signature = SLICE_LIT("v1,abc"),
        .response_headers = SLICE_LIT("server: x\r\n"),
        .response_body = {"no\0such", 7},
        .has_hash = true,
        .response_hash = {1, 2, 3},
    };
    begin(f);
    assert_int_equal(store_register_worker(f->store, "host:7:x", "posthorn/9", f->now, &s.attempt.worker_no),
                     0);
    assert_false(settle(f, s).stale);
    commit(f);
    assert_int_equal(store_list_attempts(f->reader, tenant_of(f, sub), event.key, sub, check_attempt, &s), 0);
}

static void test_attempts_are_listed_oldest_first(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f), sub = make_subscription(f, tenant);
    struct id event = publish(f, tenant, sub);
    publish(f, tenant, make_subscription(f, tenant));
    enum { TRIES = 12 };
    for (int i = 0; i < TRIES; i++) {
        struct task t = claim_one(f, tenant, sub);
        settle(f, outcome_of(f, &t, i + 1 < TRIES ? DELIVERY_RETRY : DELIVERY_DELIVERED, 503));
        f->now += 5000;
    }
    struct attempts *got = list_attempts(f, event, sub);
    assert_int_equal(got->n, TRIES);
    for (uint32_t i = 0; i < TRIES; i++)
        assert_int_equal(got->at[i].number, i + 1);
    assert_false(got->at[0].attempt.has_hash);
    assert_int_equal(got->at[TRIES - 1].to, DELIVERY_DELIVERED);
    free(got);
    got = list_attempts(f, event, sub + 1);
    assert_int_equal(got->n, 0);
    free(got);
}

/* ---- counts ---- */

static void test_lane_is_counted(void **state) {
    struct fixture *f = *state;
    uint32_t tenant = make_tenant(f), sub = make_subscription(f, tenant),
             other = make_subscription(f, tenant);
    uint64_t before_pending = 0, before_dlq = 0, none_pending = 7, none_dlq = 7;
    assert_int_equal(store_count_deliveries(f->reader, &before_pending, &before_dlq), 0);
    assert_int_equal(store_count_lane(f->reader, sub, tenant, 100, &none_pending, &none_dlq), 0);
    assert_true(none_pending == 0 && none_dlq == 0);
    publish(f, tenant, other);
    (void)claim_one(f, tenant, other);
    for (int i = 0; i < 3; i++)
        publish(f, tenant, sub);
    finish_one(f, tenant, sub, DELIVERY_DLQ);
    finish_one(f, tenant, sub, DELIVERY_DELIVERED);
    (void)claim_one(f, tenant, sub);    /* one under way */
    publish(f, tenant, sub);            /* one due */
    publish_ordered(f, tenant, sub, 5); /* a head … */
    for (int i = 0; i < 3; i++)
        publish_ordered(f, tenant, sub, 5); /* … and what it blocks */
    uint64_t pending = 0, dlq = 0, all_pending = 0, all_dlq = 0;
    assert_int_equal(store_count_lane(f->reader, sub, tenant, 100, &pending, &dlq), 0);
    assert_true(pending == 6 && dlq == 1);
    /* All lanes': the other's too, and what was there before. */
    assert_int_equal(store_count_deliveries(f->reader, &all_pending, &all_dlq), 0);
    assert_true(all_pending == before_pending + 7 && all_dlq == before_dlq + 1);
    assert_int_equal(store_count_lane(f->reader, sub, tenant, 4, &pending, &dlq), 0);
    assert_true(pending == 4 && dlq == 1);
    (void)claim(f, lane_of(tenant, sub, 100));
    assert_int_equal(store_count_lane(f->reader, sub, tenant, 100, &pending, &dlq), 0);
    assert_true(pending == 6 && dlq == 1);
}

/* What a process maps counts as its memory, and would grow with the backlog. */
static bool is_mapped(const char *path) {
    char line[4096];
    bool found = false;
    FILE *maps = fopen("/proc/self/maps", "r");
    assert_non_null(maps);
    while (fgets(line, sizeof line, maps)) {
        line[strcspn(line, "\n")] = '\0';
        size_t n = strlen(line), path_n = strlen(path);
        found |= n >= path_n && strcmp(line + n - path_n, path) == 0;
    }
    fclose(maps);
    return found;
}

static void test_the_file_is_not_mapped(void **state) {
    struct fixture *f = *state;
    if (!fixture_is_sqlite(f))
        skip();
    uint32_t tenant_no = make_tenant(f), subscription_no = make_subscription(f, tenant_no);
    struct id event = publish(f, tenant_no, subscription_no);
    fixture_reopen(f); /* what the log held is in the file now */
    assert_int_equal(state_of(f, tenant_no, event, subscription_no), DELIVERY_PENDING);
    claim_one(f, tenant_no, subscription_no);
    char *path = fixture_path(f);
    assert_false(is_mapped(path));
    free(path);
}

/* However much of it the log of types has taken in. */
static void test_events_of_a_type_by_its_log(void **state) {
    struct fixture *f = *state;
    enum { OF_TYPE = 30, HOURS = 6 };
    uint32_t tenant = make_tenant(f), other = make_tenant(f);
    struct id wanted[OF_TYPE];
    int64_t first_at = f->now - HOURS * HOUR_MS;
    for (int i = 0; i < OF_TYPE; i++) {
        int64_t at = first_at + i * HOURS * HOUR_MS / OF_TYPE;
        make_event(f, tenant, (struct event_spec){.at = at, .type = "common"});
        wanted[OF_TYPE - 1 - i] = make_event(f, tenant, (struct event_spec){.at = at, .type = "rare"});
        make_event(f, other, (struct event_spec){.at = at, .type = "rare"});
    }
    for (int64_t logged = -1; logged <= HOURS; logged += 2) {
        bool more = true;
        begin(f);
        while (more)
            assert_int_equal(store_extend_log(f->store, id_key_at(first_at + logged * HOUR_MS), 4, &more), 0);
        commit(f);
        struct event_query q = {.tenant_no = tenant, .type = SLICE_LIT("rare")};
        assert_events(list_events(f, q), wanted, OF_TYPE);
        q.before_key = wanted[4].key;
        q.limit = 7;
        assert_events(list_events(f, q), wanted + 5, 7);
        q = (struct event_query){.tenant_no = tenant,
                                 .type = SLICE_LIT("rare"),
                                 .since = id_ms(wanted[19]),
                                 .until = id_ms(wanted[9])};
        assert_events(list_events(f, q), wanted + 10, 10);
        q.type = SLICE_LIT("none");
        assert_events(list_events(f, q), NULL, 0);
    }
    /* What comes later than the log passed is in it all the same. */
    struct id late = make_event(f, tenant, (struct event_spec){.at = first_at + 1, .type = "late"});
    assert_events(list_events(f, (struct event_query){.tenant_no = tenant, .type = SLICE_LIT("late")}), &late,
                  1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        STORE_TEST(test_event_is_kept_byte_for_byte),
        STORE_TEST(test_event_is_found_by_its_whole_id_and_tenant),
        STORE_TEST(test_events_are_listed_newest_first_in_pages),
        STORE_TEST(test_events_are_found_by_time_type_and_ordering_key),
        STORE_TEST(test_event_tells_how_far_its_fanout_is),
        STORE_TEST(test_delivery_tells_where_it_stands),
        STORE_TEST(test_delivery_of_another_tenant_is_not_found),
        STORE_TEST(test_blocked_delivery_says_so),
        STORE_TEST(test_attempt_is_kept_as_settled),
        STORE_TEST(test_attempts_are_listed_oldest_first),
        STORE_TEST(test_lane_is_counted),
        STORE_TEST(test_the_file_is_not_mapped),
        STORE_TEST(test_events_of_a_type_by_its_log),
    };
    return cmocka_run_group_tests(tests, NULL, fixture_end);
}
