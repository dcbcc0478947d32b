/* Fan-out over a real store: who gets an event, in its own transaction or by a job. */
#include "fixture.h"

#include <errno.h>

#include "fanout/fanout.h"

struct world {
    struct fixture *f;
    struct metrics *metrics;
    struct fanout *fanout;
    uint32_t tenant;
};

static struct world begin_world(struct fixture *f) {
    struct world w = {.f = f, .metrics = metrics_new(), .tenant = make_tenant(f)};
    assert_non_null(w.metrics);
    assert_int_equal(fanout_new(w.metrics, &w.fanout), 0);
    return w;
}

static void end_world(struct world *w) {
    fanout_free(w->fanout);
    metrics_free(w->metrics);
}

/* A snapshot with this filter (NULL: none); it needs no row in the store. */
static struct subscription *subscribe(struct world *w, uint32_t no, const char *filter) {
    _cleanup_buf_ struct buf text = {0};
    buf_addf(&text, "{\"url\":\"https://example.com/\",\"filter\":%s}", filter ? filter : "null");
    json_t *doc = json_loads(text.p, 0, NULL);
    struct subscription *s = subscription_from_doc(doc, SLICE_NONE);
    json_decref(doc);
    assert_non_null(s);
    s->no = no;
    s->tenant_no = w->tenant;
    assert_int_equal(fanout_put(w->fanout, s), 0);
    subscription_unref(s); /* the index has it */
    return fanout_subscription(w->fanout, no);
}

struct published {
    struct event_record record;
    struct buf body;
};

static uint32_t publish_data(struct world *w, const char *data, struct published *ret) {
    *ret = (struct published){0};
    buf_addf(&ret->body, "{\"data\":%s}", data);
    ret->record = (struct event_record){.id = next_id(w->f, w->f->now),
                                        .tenant_no = w->tenant,
                                        .type = SLICE_LIT("a.b"),
                                        .schema_version = SLICE_LIT("1"),
                                        .body = buf_slice(&ret->body),
                                        .data_size = (uint32_t)strlen(data)};
    begin(w->f);
    assert_int_equal(fanout_event(w->fanout, w->f->store, &ret->record, 0, w->f->now, NULL), 0);
    assert_int_equal(store_insert_events(w->f->store, &ret->record, 1), 0);
    commit(w->f);
    buf_free(&ret->body);
    return ret->record.deliveries;
}

static uint32_t publish_one(struct world *w, const char *data) {
    struct published p;
    uint32_t n = publish_data(w, data, &p);
    assert_false(p.record.has_job);
    return n;
}

static int keep_fanout(void *arg, const struct event_row *row) {
    *(uint64_t *)arg = row->fanout_deliveries;
    assert_int_equal(row->fanout, FANOUT_DONE);
    return 0;
}

/* Works off all jobs; how many deliveries the event has in the end. */
static uint64_t expand_all(struct world *w, struct id event) {
    bool more = true;
    for (int chunks = 0; more; chunks++) {
        assert_true(chunks < 1000);
        begin(w->f);
        assert_int_equal(fanout_expand(w->fanout, w->f->store, w->f->now, &more), 0);
        commit(w->f);
    }
    uint64_t n = 0;
    assert_int_equal(store_read_event(w->f->reader, w->tenant, event, keep_fanout, &n), 0);
    return n;
}

static const char PAID[] = "{\"data\":{\"status\":[\"paid\"]}}",
                  OPEN[] = "{\"data\":{\"status\":[\"open\"]}}";

static void test_filters_decide(void **state) {
    struct world w = begin_world(*state);
    subscribe(&w, 1, PAID);
    subscribe(&w, 2, OPEN);
    subscribe(&w, 3, NULL);
    subscribe(&w, 4, "{\"type\":[{\"prefix\":\"a.\"}],\"ordering_key\":[{\"exists\":false}]}");
    assert_int_equal(publish_one(&w, "{\"status\":\"paid\"}"), 3);
    assert_int_equal(publish_one(&w, "{\"status\":\"open\"}"), 3);
    assert_int_equal(publish_one(&w, "{}"), 2);
    subscribe(&w, 2, PAID);
    subscribe(&w, 3, OPEN);
    assert_int_equal(publish_one(&w, "{\"status\":\"paid\"}"), 3);
    subscribe(&w, 1, NULL);
    fanout_remove(w.fanout, 2);
    assert_int_equal(publish_one(&w, "{}"), 2);
    end_world(&w);
}

static void test_a_test_event_meets_no_filter(void **state) {
    struct world w = begin_world(*state);
    subscribe(&w, 1, OPEN);
    struct event_record e = {.id = next_id(w.f, w.f->now),
                             .tenant_no = w.tenant,
                             .type = SLICE_LIT("posthorn.test"),
                             .schema_version = SLICE_LIT("1"),
                             .body = SLICE_LIT("{\"data\":{}}"),
                             .data_size = 2};
    begin(w.f);
    assert_int_equal(fanout_event(w.fanout, w.f->store, &e, 1, w.f->now, NULL), 0);
    assert_int_equal(store_insert_events(w.f->store, &e, 1), 0);
    commit(w.f);
    assert_int_equal(e.deliveries, 1);
    end_world(&w);
}

static void test_equal_filters_are_one(void **state) {
    struct world w = begin_world(*state);
    struct subscription *a = subscribe(&w, 1, "{\"data\":{\"a\":[1],\"b\":[2]}}");
    struct subscription *b = subscribe(&w, 2, "{\"data\":{\"b\":[2],\"a\":[1]}}");
    struct subscription *other = subscribe(&w, 3, PAID);
    assert_ptr_equal(a->filter, b->filter);
    assert_ptr_not_equal(a->filter, other->filter);
    fanout_remove(w.fanout, 1);
    assert_int_equal(publish_one(&w, "{\"a\":1,\"b\":2}"), 1);
    end_world(&w);
}

static void test_a_job_filters_too(void **state) {
    enum { N = 3 * FANOUT_CHUNK + 7 };
    struct world w = begin_world(*state);
    for (uint32_t no = 1; no <= N; no++)
        subscribe(&w, no, no % 3 == 0 ? PAID : no % 3 == 1 ? OPEN : NULL);
    struct published first, second;
    publish_data(&w, "{\"status\":\"paid\"}", &first);
    publish_data(&w, "{\"status\":\"void\"}", &second);
    assert_true(first.record.has_job && second.record.has_job);
    assert_int_equal(expand_all(&w, first.record.id), N / 3 * 2);
    assert_int_equal(expand_all(&w, second.record.id), N / 3);
    end_world(&w);
}

/* Many events in one transaction share what it may make at once: the others become jobs. */
static void test_a_transaction_makes_only_so_many_at_once(void **state) {
    enum { N = 100, EVENTS = FANOUT_A_TRANSACTION_MAX / N + 3 };
    struct world w = begin_world(*state);
    for (uint32_t no = 1; no <= N; no++)
        subscribe(&w, no, NULL);
    struct published p[EVENTS];
    unsigned at_once = 0;
    for (unsigned i = 0; i < EVENTS; i++) {
        at_once += publish_data(&w, "1", &p[i]);
        assert_int_equal(p[i].record.has_job, i >= FANOUT_A_TRANSACTION_MAX / N);
    }
    assert_int_equal(at_once, FANOUT_A_TRANSACTION_MAX);
    for (unsigned i = 0; i < EVENTS; i++)
        assert_int_equal(expand_all(&w, p[i].record.id), N);
    end_world(&w);
}

/* A few subscriptions whose filters cost more than a transaction may: the rest is left to a job. */
static void test_costly_filters_become_a_job(void **state) {
    enum { N = 20 };
    struct world w = begin_world(*state);
    _cleanup_buf_ struct buf data = {0};
    for (int i = 0; i < 20000; i++)
        buf_addf(&data, "%s%d", i ? "," : "[", i);
    buf_add_str(&data, "]");
    for (uint32_t no = 1; no <= N; no++) {
        char filter[64];
        snprintf(filter, sizeof filter, "{\"data\":[-%u,19999]}", no);
        subscribe(&w, no, filter);
    }
    struct published p;
    uint32_t at_once = publish_data(&w, data.p, &p);
    assert_true(p.record.has_job && at_once > 0 && at_once < N);
    assert_int_equal(expand_all(&w, p.record.id), N);
    end_world(&w);
}

/* The filter that was in force when the event was accepted decides, also when it is changed before its turn.
 */
static void test_a_change_comes_after_pending_jobs(void **state) {
    enum { N = FANOUT_INLINE_MAX + 1 };
    struct world w = begin_world(*state);
    for (uint32_t no = 1; no <= N; no++)
        subscribe(&w, no, PAID);
    struct published p;
    publish_data(&w, "{\"status\":\"paid\"}", &p);
    assert_true(p.record.has_job);
    uint64_t settled = 0;
    begin(w.f);
    assert_int_equal(fanout_settle_jobs_for(w.fanout, w.f->store, 5, w.f->now, &settled), 0);
    commit(w.f);
    assert_true(settled > 0);
    subscribe(&w, 5, OPEN);
    assert_int_equal(expand_all(&w, p.record.id), N);
    end_world(&w);
}

static void assert_metric(struct world *w, const char *line) {
    _cleanup_buf_ struct buf out = {0};
    metrics_render(w->metrics, &out);
    if (!strstr(out.p, line))
        fail_msg("%s is not in %s", line, out.p);
}

static bool expand_once(struct world *w, int64_t now) {
    bool more = false;
    begin(w->f);
    assert_int_equal(fanout_expand(w->fanout, w->f->store, now, &more), 0);
    commit(w->f);
    return more;
}

/* Jobs take turns, a chunk each; what the gauges tell is of all of them, and of those that a stop left
 * behind. */
static void test_jobs_take_turns(void **state) {
    enum { N = 2 * FANOUT_CHUNK };
    struct world w = begin_world(*state);
    for (uint32_t no = 1; no <= N; no++)
        subscribe(&w, no, NULL);
    struct published first, second;
    w.f->now += 1000;
    publish_data(&w, "1", &first);
    w.f->now += 3000;
    publish_data(&w, "2", &second);
    int64_t now = w.f->now + 1000;
    struct fanout_job jobs[2];
    size_t n = 0;
    for (int turn = 1; turn <= 2; turn++) {
        assert_true(expand_once(&w, now));
        assert_metric(&w, "\nposthorn_fanout_lag_seconds 4\n");
        assert_metric(&w, "\nposthorn_fanout_jobs_pending 2\n");
    }
    begin(w.f);
    assert_int_equal(store_list_jobs(w.f->store, 0, jobs, 2, &n), 0);
    commit(w.f);
    assert_int_equal(n, 2);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(jobs[i].deliveries, FANOUT_CHUNK);
    /* a restart: nothing of the gauges is left */
    fanout_free(w.fanout);
    assert_int_equal(fanout_new(w.metrics, &w.fanout), 0);
    for (uint32_t no = 1; no <= N; no++)
        subscribe(&w, no, NULL);
    metrics_gauge_set(w.metrics, METRIC_FANOUT_JOBS_PENDING, 0);
    assert_true(fanout_has_jobs(w.fanout));
    assert_true(expand_once(&w, now)); /* and the first is done */
    assert_metric(&w, "\nposthorn_fanout_jobs_pending 1\n");
    assert_int_equal(expand_all(&w, first.record.id), N);
    assert_int_equal(expand_all(&w, second.record.id), N);
    assert_metric(&w, "\nposthorn_fanout_jobs_pending 0\n");
    assert_metric(&w, "\nposthorn_fanout_lag_seconds 0\n");
    end_world(&w);
}

static void test_wants(void **state) {
    struct world w = begin_world(*state);
    subscribe(&w, 1, PAID);
    struct event_record e = {.id = next_id(w.f, w.f->now),
                             .type = SLICE_LIT("a.b"),
                             .body = SLICE_LIT("{\"data\":{\"status\":\"paid\"}}"),
                             .data_size = 17};
    assert_int_equal(fanout_wants(w.fanout, 1, &e), 1);
    e.type = SLICE_LIT("posthorn.x");
    assert_int_equal(fanout_wants(w.fanout, 1, &e), 0);
    e.type = SLICE_LIT("a.b");
    e.id = next_id(w.f, w.f->now);
    e.body = SLICE_LIT("{\"data\":{\"status\":\"open\"}}");
    assert_int_equal(fanout_wants(w.fanout, 1, &e), 0);
    assert_int_equal(fanout_wants(w.fanout, 2, &e), -ENOENT);
    end_world(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        STORE_TEST(test_filters_decide),
        STORE_TEST(test_a_test_event_meets_no_filter),
        STORE_TEST(test_equal_filters_are_one),
        STORE_TEST(test_a_job_filters_too),
        STORE_TEST(test_a_transaction_makes_only_so_many_at_once),
        STORE_TEST(test_costly_filters_become_a_job),
        STORE_TEST(test_a_change_comes_after_pending_jobs),
        STORE_TEST(test_jobs_take_turns),
        STORE_TEST(test_wants),
    };
    return cmocka_run_group_tests(tests, NULL, fixture_end);
}
