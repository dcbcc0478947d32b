/* What the system itself brings into the fan-out: changes of who takes part in a job, and operational events.
 */
#include "fixture.h"

#include <stdlib.h>

#include "fanout/raise.h"

struct stage {
    struct fixture *f;
    struct metrics *metrics;
    struct fanout *fanout;
    struct body_cache *bodies;
    struct id_source ids;
    struct raiser raiser;
    uint32_t tenant;
};

static void begin_stage(struct stage *g, struct fixture *f) {
    *g = (struct stage){.f = f, .metrics = metrics_new(), .tenant = make_tenant(f)};
    assert_non_null(g->metrics);
    assert_int_equal(fanout_new(g->metrics, &g->fanout), 0);
    assert_int_equal(body_cache_new(1 << 20, &g->bodies), 0);
    id_source_raise(&g->ids, id_key_at(f->now + DAY_MS));
    g->raiser = (struct raiser){.fanout = g->fanout, .ids = &g->ids, .bodies = g->bodies};
}

static void end_stage(struct stage *g) {
    fanout_free(g->fanout);
    body_cache_free(g->bodies);
    metrics_free(g->metrics);
}

/* Puts a snapshot in force, as a change that was committed does. */
static void put_in_force(struct stage *g, uint32_t no, const char *type, enum subscription_status status,
                         uint64_t jobs_settled) {
    json_t *doc = json_pack("{s:s, s:[]}", "url", "https://example.com/", "event_types");
    assert_non_null(doc);
    if (type)
        assert_int_equal(json_array_append_new(json_object_get(doc, "event_types"), json_string(type)), 0);
    struct subscription *s = subscription_from_doc(doc, SLICE_LIT("acme"));
    json_decref(doc);
    assert_non_null(s);
    s->no = no;
    s->tenant_no = g->tenant;
    s->id = next_id(g->f, g->f->now);
    s->status = status;
    s->jobs_settled = jobs_settled;
    assert_int_equal(fanout_put(g->fanout, s), 0);
    subscription_unref(s);
}

/* A subscription of the stage's tenant for events of this type; NULL: for all. */
static uint32_t subscribe(struct stage *g, const char *type) {
    uint32_t no = make_subscription(g->f, g->tenant);
    put_in_force(g, no, type, SUBSCRIPTION_ACTIVE, 0);
    return no;
}

/* The same with another type or status, as a PATCH does it. */
static void change(struct stage *g, uint32_t no, const char *type, enum subscription_status status) {
    uint64_t settled = 0;
    begin(g->f);
    assert_int_equal(fanout_settle_jobs_for(g->fanout, g->f->store, no, g->f->now, &settled), 0);
    commit(g->f);
    put_in_force(g, no, type, status, settled);
}

/* A delivery of an event of this type to `no`, in the DLQ. */
static struct id exhaust(struct stage *g, uint32_t no, const char *type) {
    struct id event = make_event(g->f, g->tenant, (struct event_spec){.type = type});
    make_delivery(g->f, event, g->tenant, no);
    finish_one(g->f, g->tenant, no, DELIVERY_DLQ);
    return event;
}

static void raise_exhausted(struct stage *g, uint32_t no, struct id event) {
    struct operational_event e = {
        .kind = OPERATIONAL_EXHAUSTED, .subscription_no = no, .tenant_no = g->tenant, .event_key = event.key};
    assert_int_equal(raise_operational(&g->raiser, g->f->store, &e), 0);
}

struct found {
    size_t n;
    char body[1024];
};

static int keep(void *arg, const struct event_row *row) {
    struct found *found = arg;
    found->n++;
    snprintf(found->body, sizeof found->body, "%.*s", SLICE_ARG(row->event.body));
    assert_int_equal(row->event.data_size,
                     strlen(found->body) - 1 -
                         (size_t)(strstr(found->body, "\"data\":") + strlen("\"data\":") - found->body));
    return 0;
}

static struct found events_of(struct stage *g, const char *type) {
    struct found found = {0};
    struct event_query q = {.tenant_no = g->tenant, .type = slice_of(type), .limit = ROWS_MAX};
    uint64_t stop_found;
    assert_int_equal(store_list_events(g->f->reader, &q, keep, &found, &stop_found), 0);
    return found;
}

static size_t deliveries_to(struct stage *g, uint32_t no) {
    struct deliveries *d = list_deliveries(
        g->f,
        (struct delivery_query){.tenant_no = g->tenant, .state = -1, .subscription_no = no, .limit = 50});
    size_t n = d->n;
    free(d);
    return n;
}

static void expand_all(struct stage *g) {
    bool more = true;
    while (more) {
        begin(g->f);
        assert_int_equal(fanout_expand(g->fanout, g->f->store, g->f->now, &more), 0);
        commit(g->f);
    }
}

/* ---- who takes part in a job ---- */

/* Of a type for which few subscriptions are many. */
static struct id accept_event(struct stage *g, const char *type) {
    struct event_record e = {.id = next_id(g->f, g->f->now),
                             .tenant_no = g->tenant,
                             .type = slice_of(type),
                             .schema_version = SLICE_LIT("1"),
                             .body = SLICE_LIT("{\"data\":7}"),
                             .data_size = 1};
    begin(g->f);
    assert_int_equal(fanout_event(g->fanout, g->f->store, &e, 0, g->f->now, NULL), 0);
    assert_int_equal(store_insert_events(g->f->store, &e, 1), 0);
    commit(g->f);
    return e.id;
}

static void subscribe_many(struct stage *g, const char *type) {
    for (int i = 0; i <= FANOUT_RAISED_INLINE_MAX; i++)
        subscribe(g, type);
}

static void test_what_matches_later_takes_no_part(void **state) {
    struct stage g;
    begin_stage(&g, *state);
    subscribe_many(&g, "posthorn.a.*");
    uint32_t widened = subscribe(&g, "posthorn.b"), enabled = subscribe(&g, "posthorn.a.*"),
             last = subscribe(&g, "posthorn.a.*");
    put_in_force(&g, enabled, "posthorn.a.*", SUBSCRIPTION_DISABLED, 0);
    accept_event(&g, "posthorn.a.x");
    change(&g, widened, "posthorn.*", SUBSCRIPTION_ACTIVE);
    change(&g, enabled, "posthorn.a.*", SUBSCRIPTION_ACTIVE);
    expand_all(&g);
    assert_int_equal(deliveries_to(&g, widened), 0);
    assert_int_equal(deliveries_to(&g, enabled), 0);
    assert_int_equal(deliveries_to(&g, last), 1);
    accept_event(&g, "posthorn.a.x");
    expand_all(&g);
    assert_int_equal(deliveries_to(&g, widened), 1);
    assert_int_equal(deliveries_to(&g, enabled), 1);
    assert_int_equal(deliveries_to(&g, last), 2);
    end_stage(&g);
}

static void test_what_matched_takes_its_part_once(void **state) {
    struct stage g;
    begin_stage(&g, *state);
    subscribe_many(&g, "posthorn.a.*");
    uint32_t widened = subscribe(&g, "posthorn.a.*"), narrowed = subscribe(&g, "posthorn.a.*"),
             off_and_on = subscribe(&g, "posthorn.a.*");
    accept_event(&g, "posthorn.a.x");
    change(&g, widened, "posthorn.*", SUBSCRIPTION_ACTIVE);
    change(&g, narrowed, "posthorn.b", SUBSCRIPTION_ACTIVE);
    change(&g, off_and_on, "posthorn.a.*", SUBSCRIPTION_DISABLED);
    change(&g, off_and_on, "posthorn.a.*", SUBSCRIPTION_ACTIVE);
    change(&g, narrowed, "posthorn.*", SUBSCRIPTION_ACTIVE);
    expand_all(&g);
    assert_int_equal(deliveries_to(&g, widened), 1);
    assert_int_equal(deliveries_to(&g, narrowed), 1);
    assert_int_equal(deliveries_to(&g, off_and_on), 1);
    end_stage(&g);
}

/* The jobs are gone, what was noted of them is not: later ones go on from there. */
static void test_jobs_are_numbered_on_after_a_restart(void **state) {
    struct stage g;
    begin_stage(&g, *state);
    subscribe_many(&g, "posthorn.a.*");
    uint32_t sub = make_subscription(g.f, g.tenant);
    put_in_force(&g, sub, "posthorn.a.*", SUBSCRIPTION_ACTIVE, 1000000);
    accept_event(&g, "posthorn.a.x");
    expand_all(&g);
    assert_int_equal(deliveries_to(&g, sub), 1);
    end_stage(&g);
}

/* ---- operational events ---- */

static void test_who_asks_by_name_is_told(void **state) {
    struct stage g;
    begin_stage(&g, *state);
    uint32_t shop = subscribe(&g, "invoice.*"), all = subscribe(&g, NULL),
             by_name = subscribe(&g, "posthorn.*"), exact = subscribe(&g, "posthorn.delivery.exhausted"),
             other = subscribe(&g, "posthorn.subscription.*");
    struct id event = exhaust(&g, shop, "invoice.paid");
    begin(g.f);
    raise_exhausted(&g, shop, event);
    commit(g.f);
    struct found found = events_of(&g, "posthorn.delivery.exhausted");
    assert_int_equal(found.n, 1);
    char id[ID_TEXT_SIZE];
    id_format(ID_EVENT, event, id);
    assert_non_null(strstr(found.body, id));
    assert_non_null(strstr(found.body, "\"tenant_id\":\"acme\""));
    assert_non_null(strstr(found.body, "\"attempt_count\":1,\"failure_reason\":\"attempts_exhausted\""));
    assert_int_equal(deliveries_to(&g, by_name), 1);
    assert_int_equal(deliveries_to(&g, exact), 1);
    assert_int_equal(deliveries_to(&g, all), 0);
    assert_int_equal(deliveries_to(&g, other), 0);
    end_stage(&g);
}

static void test_nobody_asks_nothing_is_written(void **state) {
    struct stage g;
    begin_stage(&g, *state);
    uint32_t shop = subscribe(&g, NULL);
    struct id event = exhaust(&g, shop, "invoice.paid");
    begin(g.f);
    raise_exhausted(&g, shop, event);
    commit(g.f);
    assert_int_equal(events_of(&g, "posthorn.delivery.exhausted").n, 0);
    end_stage(&g);
}

static void test_a_rollback_takes_the_event_along(void **state) {
    struct stage g;
    begin_stage(&g, *state);
    uint32_t shop = subscribe(&g, NULL), ops = subscribe(&g, "posthorn.*");
    struct id event = exhaust(&g, shop, "invoice.paid");
    begin(g.f);
    raise_exhausted(&g, shop, event);
    rollback(g.f);
    assert_int_equal(events_of(&g, "posthorn.delivery.exhausted").n, 0);
    assert_int_equal(deliveries_to(&g, ops), 0);
    end_stage(&g);
}

static void test_its_own_events_raise_none(void **state) {
    struct stage g;
    begin_stage(&g, *state);
    uint32_t ops = subscribe(&g, "posthorn.*");
    struct id event = exhaust(&g, ops, "posthorn.subscription.failing");
    struct id tried = exhaust(&g, ops, "posthorn.test");
    begin(g.f);
    raise_exhausted(&g, ops, event);
    raise_exhausted(&g, ops, tried);
    commit(g.f);
    assert_int_equal(events_of(&g, "posthorn.delivery.exhausted").n, 0);
    end_stage(&g);
}

static void test_of_a_deleted_subscription_nothing_is_told(void **state) {
    struct stage g;
    begin_stage(&g, *state);
    uint32_t shop = subscribe(&g, NULL);
    subscribe(&g, "posthorn.*");
    struct id event = exhaust(&g, shop, "invoice.paid");
    fanout_remove(g.fanout, shop);
    begin(g.f);
    raise_exhausted(&g, shop, event);
    commit(g.f);
    assert_int_equal(events_of(&g, "posthorn.delivery.exhausted").n, 0);
    end_stage(&g);
}

/* What a transaction raises may be hundreds: only a few are fanned out within it. */
static void test_many_who_ask_become_a_job(void **state) {
    struct stage g;
    begin_stage(&g, *state);
    uint32_t last = 0;
    for (int i = 0; i <= FANOUT_RAISED_INLINE_MAX; i++)
        last = subscribe(&g, "posthorn.subscription.*");
    struct operational_event e = {
        .kind = OPERATIONAL_DISABLED, .subscription_no = last, .at = g.f->now, .disabled_reason = "gone"};
    begin(g.f);
    assert_int_equal(raise_operational(&g.raiser, g.f->store, &e), 0);
    commit(g.f);
    assert_int_equal(deliveries_to(&g, last), 0);
    expand_all(&g);
    assert_int_equal(deliveries_to(&g, last), 1);
    end_stage(&g);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        STORE_TEST(test_what_matches_later_takes_no_part),
        STORE_TEST(test_what_matched_takes_its_part_once),
        STORE_TEST(test_jobs_are_numbered_on_after_a_restart),
        STORE_TEST(test_who_asks_by_name_is_told),
        STORE_TEST(test_nobody_asks_nothing_is_written),
        STORE_TEST(test_a_rollback_takes_the_event_along),
        STORE_TEST(test_its_own_events_raise_none),
        STORE_TEST(test_of_a_deleted_subscription_nothing_is_told),
        STORE_TEST(test_many_who_ask_become_a_job),
    };
    return cmocka_run_group_tests(tests, NULL, fixture_end);
}
