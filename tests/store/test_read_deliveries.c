/* Lists of deliveries: every combination of filters, page by page, against a model that filters a plain
 * array. */
#include "fixture.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"

enum { TENANTS = 2, SUBSCRIPTIONS = 4, EVENTS = 60, MODEL_MAX = TENANTS * EVENTS * SUBSCRIPTIONS };

struct known {
    struct id event;
    uint32_t tenant, sub;
    const char *type, *ordering_key;
    enum delivery_state state;
    int status;
    enum attempt_error error;
    enum delivery_reason reason;
};

struct model {
    uint32_t tenants[TENANTS], subs[TENANTS][SUBSCRIPTIONS];
    struct known at[MODEL_MAX];
    size_t n;
    int64_t first_at, last_at;
};

static const char *const types[] = {"a", "a.b", "c"};
static const char *const keys[] = {NULL, "k1", "k2"};

/* An event some hours back, to some of its tenant's subscriptions. */
static void publish_some(struct fixture *f, struct model *m, struct rng *rng, size_t tenant) {
    const char *type = types[rng_below(rng, COUNT(types))];
    int64_t at = m->first_at + (int64_t)rng_below(rng, (uint64_t)(m->last_at - m->first_at));
    const char *key = keys[rng_below(rng, COUNT(keys))];
    struct id event =
        make_event(f, m->tenants[tenant], (struct event_spec){.at = at, .type = type, .ordering_key = key});
    for (size_t i = 0; i < SUBSCRIPTIONS; i++) {
        if (rng_below(rng, 3) == 0)
            continue;
        make_delivery(f, event, m->tenants[tenant], m->subs[tenant][i]);
        m->at[m->n++] = (struct known){.event = event,
                                       .tenant = m->tenants[tenant],
                                       .sub = m->subs[tenant][i],
                                       .type = type,
                                       .ordering_key = key};
    }
}

/* Brings what is due in a lane to states of all kinds. */
static void work_off(struct fixture *f, struct rng *rng, uint32_t tenant, uint32_t sub) {
    struct claim c = claim(f, lane_of(tenant, sub, ROWS_MAX));
    for (size_t i = 0; i < c.n; i++) {
        static const enum delivery_state ends[] = {DELIVERY_ATTEMPTING, DELIVERY_RETRY, DELIVERY_DELIVERED,
                                                   DELIVERY_DLQ};
        enum delivery_state to = ends[rng_below(rng, COUNT(ends))];
        if (to == DELIVERY_ATTEMPTING)
            continue;
        static const int failures[] = {500, 404, 0};
        settle(f, outcome_of(f, &c.tasks[i], to,
                             to == DELIVERY_DELIVERED ? 200 : failures[rng_below(rng, COUNT(failures))]));
        if (to != DELIVERY_RETRY && rng_below(rng, 3) == 0)
            assert_int_equal(store_replay(f->store, c.tasks[i].event_key, sub, tenant_of(f, sub), 0, f->now,
                                          SLICE_LIT("one"), SLICE_LIT("key_1")),
                             0);
    }
}

static int by_newest(const void *pa, const void *pb) {
    const struct known *a = pa, *b = pb;
    if (a->event.key != b->event.key)
        return a->event.key < b->event.key ? 1 : -1;
    return a->sub < b->sub ? 1 : a->sub > b->sub ? -1 : 0;
}

/* Takes what is older than `at` into the log by subscription, some at a time. */
static void extend_log(struct fixture *f, int64_t at) {
    bool more = true;
    for (int steps = 0; more; steps++) {
        assert_true(steps < MODEL_MAX);
        assert_int_equal(store_extend_log(f->store, id_key_at(at), 7, &more), 0);
    }
}

/* `logged`: how much of it the log by subscription has taken in, in hours. */
static struct model *make_model(struct fixture *f, uint64_t seed, int logged) {
    struct model *m = calloc(1, sizeof *m);
    struct rng rng;
    rng_seed(&rng, seed);
    m->first_at = f->now - 20 * HOUR_MS;
    m->last_at = f->now - 1;
    begin(f);
    for (size_t t = 0; t < TENANTS; t++) {
        m->tenants[t] = make_tenant(f);
        for (size_t i = 0; i < SUBSCRIPTIONS; i++)
            m->subs[t][i] = make_subscription(f, m->tenants[t]);
    }
    for (size_t i = 0; i < EVENTS; i++) {
        publish_some(f, m, &rng, i % TENANTS);
        if (i != EVENTS * 2 / 3)
            continue;
        /* The last third stays pending, and comes later than the log. */
        extend_log(f, m->first_at + logged * HOUR_MS);
        for (size_t t = 0; t < TENANTS; t++)
            for (size_t k = 0; k < SUBSCRIPTIONS; k++)
                work_off(f, &rng, m->tenants[t], m->subs[t][k]);
    }
    commit(f);
    for (size_t i = 0; i < m->n; i++) {
        struct delivery_row row = read_delivery(f, m->at[i].tenant, m->at[i].event, m->at[i].sub).row;
        m->at[i].state = row.state;
        m->at[i].status = row.last_status;
        m->at[i].error = row.last_error;
        m->at[i].reason = row.reason;
    }
    qsort(m->at, m->n, sizeof m->at[0], by_newest);
    return m;
}

static bool matches(const struct known *k, const struct delivery_query *q) {
    int64_t at = id_ms(k->event);
    return k->tenant == q->tenant_no && (q->state < 0 || k->state == (enum delivery_state)q->state) &&
           (!q->subscription_no || k->sub == q->subscription_no) &&
           (!q->event_key || k->event.key == q->event_key) && (!q->since || at >= q->since) &&
           (!q->until || at < q->until) && (!q->event_type.p || slice_eq(q->event_type, slice_of(k->type))) &&
           (!q->ordering_key.p || slice_eq(q->ordering_key, slice_of(k->ordering_key))) &&
           (!q->status || q->status == k->status) && (!q->error || q->error == k->error) &&
           (!q->reason || (k->state == DELIVERY_DLQ && q->reason == k->reason));
}

/* Pages through the list and the model side by side. */
static size_t assert_list(struct fixture *f, const struct model *m, struct delivery_query q) {
    size_t expected = 0, total = 0;
    for (;;) {
        struct deliveries *page = list_deliveries(f, q);
        for (size_t i = 0; i < page->n; i++, expected++, total++) {
            while (expected < m->n && !matches(&m->at[expected], &q))
                expected++;
            const struct delivery_row *row = &page->at[i].row;
            assert_true(expected < m->n);
            assert_true(id_eq(row->event_id, m->at[expected].event));
            assert_int_equal(row->subscription_no, m->at[expected].sub);
            assert_int_equal(row->state, m->at[expected].state);
            assert_string_equal(page->at[i].type, m->at[expected].type);
            q.before_event_key = row->event_key;
            q.before_subscription_no = row->subscription_no;
        }
        bool last = page->n < q.limit;
        free(page);
        if (last)
            break;
    }
    for (; expected < m->n; expected++)
        assert_false(matches(&m->at[expected], &q));
    return total;
}

static void assert_times(struct fixture *f, const struct model *m, struct delivery_query q) {
    int64_t third = (m->last_at - m->first_at) / 3;
    assert_list(f, m, q);
    q.since = m->first_at + third;
    assert_list(f, m, q);
    q.until = m->last_at - third;
    assert_list(f, m, q);
    q.since = 0;
    assert_list(f, m, q);
}

static void assert_states_and_types(struct fixture *f, const struct model *m, struct delivery_query q) {
    for (q.state = -1; q.state < DELIVERY_STATES; q.state++) {
        q.event_type = SLICE_NONE;
        assert_times(f, m, q);
        q.event_type = SLICE_LIT("a.b");
        assert_times(f, m, q);
    }
}

static void assert_failures(struct fixture *f, const struct model *m, struct delivery_query q) {
    static const struct delivery_query by[] = {{.status = 500},
                                               {.status = 200},
                                               {.error = ATTEMPT_TIMEOUT},
                                               {.error = ATTEMPT_DNS},
                                               {.reason = REASON_ATTEMPTS_EXHAUSTED},
                                               {.reason = REASON_GONE},
                                               {.ordering_key = {"k1", 2}},
                                               {.status = 404, .ordering_key = {"k2", 2}}};
    for (size_t i = 0; i < COUNT(by); i++) {
        q.status = by[i].status;
        q.error = by[i].error;
        q.reason = by[i].reason;
        q.ordering_key = by[i].ordering_key;
        assert_states_and_types(f, m, q);
    }
}

static int stop(void *arg, const struct delivery_row *row) {
    (void)row;
    ++*(int *)arg;
    return -ECANCELED;
}

/* A page that ends early loses nothing, wherever it ends. */
static void test_with_little_to_look_at(void **state) {
    struct fixture *f = *state;
    struct model *m = make_model(f, 8, 12);
    static const unsigned budgets[] = {1, 2, 6, 40};
    for (size_t i = 0; i < COUNT(budgets); i++) {
        struct delivery_query q = {.tenant_no = m->tenants[0], .limit = 5, .budget = budgets[i]};
        assert_states_and_types(f, m, q);
        assert_failures(f, m, q);
        q.subscription_no = m->subs[0][1];
        assert_states_and_types(f, m, q);
        assert_failures(f, m, q);
        q.event_key = m->at[m->n / 2].event.key;
        assert_states_and_types(f, m, q);
    }
    free(m);
}

static void test_a_page_stops_when_enough_was_looked_at(void **state) {
    struct fixture *f = *state;
    struct model *m = make_model(f, 8, 12);
    int calls = 0;
    struct delivery_stop end;
    struct delivery_query q = {
        .tenant_no = m->tenants[0], .limit = 100, .state = -1, .budget = 10, .event_type = SLICE_LIT("none")};
    q.subscription_no = m->subs[0][0];
    assert_int_equal(store_list_deliveries(f->reader, &q, stop, &calls, &end), 0);
    assert_true(end.stopped && end.event_key > m->at[m->n - 1].event.key);
    free(m);
}

static void assert_every_combination(struct fixture *f, int logged) {
    struct model *m = make_model(f, 7, logged);
    static const size_t limits[] = {2, ROWS_MAX};
    for (size_t i = 0; i < COUNT(limits); i++) {
        struct delivery_query q = {.tenant_no = m->tenants[0], .limit = limits[i]};
        assert_states_and_types(f, m, q);
        assert_failures(f, m, q);
        q.subscription_no = m->subs[0][1];
        assert_states_and_types(f, m, q);
        assert_failures(f, m, q);
        q.event_key = m->at[m->n / 2].event.key;
        assert_states_and_types(f, m, q);
        q.subscription_no = 0;
        assert_states_and_types(f, m, q);
    }
    free(m);
}

static void test_every_combination_of_filters(void **state) {
    assert_every_combination(*state, 0);
}

static void test_with_half_of_it_in_the_log(void **state) {
    assert_every_combination(*state, 10);
}

static void test_with_all_of_it_in_the_log(void **state) {
    assert_every_combination(*state, 30);
}

static void test_the_model_has_every_state(void **state) {
    struct fixture *f = *state;
    struct model *m = make_model(f, 7, 10);
    for (int s = 0; s < DELIVERY_STATES; s++) {
        struct delivery_query q = {.tenant_no = m->tenants[0], .state = s, .limit = 3};
        assert_true(assert_list(f, m, q) > 3);
    }
    free(m);
}

static void test_tenants_do_not_see_each_other(void **state) {
    struct fixture *f = *state;
    struct model *m = make_model(f, 8, 10);
    struct delivery_query q = {.tenant_no = m->tenants[0], .state = -1, .limit = 9};
    q.subscription_no = m->subs[1][0];
    assert_int_equal(assert_list(f, m, q), 0);
    q.subscription_no = 0;
    for (size_t i = 0; i < m->n && !q.event_key; i++)
        if (m->at[i].tenant == m->tenants[1])
            q.event_key = m->at[i].event.key;
    for (q.state = -1; q.state < DELIVERY_STATES; q.state++)
        assert_int_equal(assert_list(f, m, q), 0);
    free(m);
}

/* A dead endpoint's backlog is too long to be sorted for a page. */
static void test_long_backlog_of_retries(void **state) {
    struct fixture *f = *state;
    enum { BACKLOG = 10100, A_MS = 100 };
    uint32_t tenant = make_tenant(f), sub = make_subscription(f, tenant),
             first_sub = make_subscription(f, tenant);
    struct id newest = {0};
    begin(f);
    for (int i = 0; i < BACKLOG; i++) {
        newest = make_event(f, tenant, (struct event_spec){.at = f->now - HOUR_MS + i / A_MS});
        make_delivery(f, newest, tenant, i == 5 ? first_sub : sub);
    }
    for (struct claim c = claim(f, lane_of(tenant, sub, ROWS_MAX)); c.n;
         c = claim(f, lane_of(tenant, sub, ROWS_MAX)))
        for (size_t i = 0; i < c.n; i++)
            settle(f, outcome_of(f, &c.tasks[i], DELIVERY_RETRY, 0));
    commit(f);
    struct delivery_query q = {
        .tenant_no = tenant, .subscription_no = sub, .state = DELIVERY_RETRY, .limit = 250};
    size_t total = 0;
    uint64_t last = ID_KEY_MAX;
    for (size_t n = q.limit; n == q.limit;) {
        struct deliveries *page = list_deliveries(f, q);
        n = page->n;
        assert_true(total > 0 || id_eq(page->at[0].row.event_id, newest));
        for (size_t i = 0; i < n; i++, total++) {
            assert_true(page->at[i].row.event_key < last);
            last = page->at[i].row.event_key;
        }
        q.before_event_key = last;
        q.before_subscription_no = sub;
        free(page);
    }
    assert_int_equal(total, BACKLOG - 1);
}

static void test_callback_ends_every_kind_of_list(void **state) {
    struct fixture *f = *state;
    struct model *m = make_model(f, 9, 10);
    struct delivery_query q = {.tenant_no = m->tenants[0], .limit = 9};
    for (q.state = -1; q.state < DELIVERY_STATES; q.state++) {
        int calls = 0;
        struct delivery_stop end;
        q.subscription_no = 0;
        assert_int_equal(store_list_deliveries(f->reader, &q, stop, &calls, &end), -ECANCELED);
        q.subscription_no = m->subs[0][0];
        assert_int_equal(store_list_deliveries(f->reader, &q, stop, &calls, &end), -ECANCELED);
        assert_int_equal(calls, 2);
    }
    free(m);
}

/* A step of the log ends in the middle of a wide event; then a delivery comes that lies before that, the
 * steps are rolled back or the process starts anew: all of them stay listed, once. */
static void test_log_steps_within_an_event(void **state) {
    enum { WIDE = 9 };
    struct fixture *f = *state;
    if (!fixture_is_sqlite(f)) /* others have no log */
        skip();
    uint32_t tenant = make_tenant(f), subs[WIDE];
    for (size_t i = 0; i < WIDE; i++)
        subs[i] = make_subscription(f, tenant);
    for (int way = 0; way < 3; way++) {
        struct id event = make_event(f, tenant, (struct event_spec){.at = f->now - (3 - way) * DAY_MS});
        int64_t at = id_ms(event);
        for (size_t i = 0; i < WIDE; i++)
            if (i != 1)
                make_delivery(f, event, tenant, subs[i]);
        bool more = false;
        begin(f);
        assert_int_equal(store_extend_log(f->store, id_key_at(at + 1), 4, &more), 0);
        assert_true(more);
        (way == 1 ? rollback : commit)(f);
        if (way == 2)
            fixture_reopen(f);
        begin(f);
        make_delivery(f, event, tenant, subs[1]);
        for (more = true; more;)
            assert_int_equal(store_extend_log(f->store, id_key_at(at + 1), 4, &more), 0);
        commit(f);
        for (size_t i = 0; i < WIDE; i++) {
            struct deliveries *page = list_deliveries(
                f, (struct delivery_query){
                       .tenant_no = tenant, .subscription_no = subs[i], .state = -1, .limit = 10});
            assert_int_equal(page->n, way + 1);
            assert_true(id_eq(page->at[0].row.event_id, event));
            free(page);
        }
    }
}

static int add_count(void *arg, const struct dlq_count_row *row) {
    *(uint64_t *)arg += row->n;
    return 0;
}

static void test_counts_of_the_dead_are_the_tenants_own(void **state) {
    struct fixture *f = *state;
    uint32_t tenants[2], subs[2];
    for (int i = 0; i < 2; i++) {
        tenants[i] = make_tenant(f);
        subs[i] = make_subscription(f, tenants[i]);
        for (int k = 0; k <= i; k++) {
            (void)publish(f, tenants[i], subs[i]);
            finish_one(f, tenants[i], subs[i], DELIVERY_DLQ);
        }
    }
    for (unsigned i = 0; i < 2; i++) {
        uint64_t by_reason[DELIVERY_REASONS] = {0}, listed = 0, foreign = 0;
        assert_int_equal(store_sum_dlq(f->reader, tenants[i], 0, by_reason), 0);
        assert_int_equal(by_reason[REASON_ATTEMPTS_EXHAUSTED], i + 1);
        assert_int_equal(store_list_dlq_counts(f->reader, tenants[i], 0, 0, add_count, &listed), 0);
        assert_int_equal(listed, i + 1);
        /* Not by the other's subscription either. */
        memset(by_reason, 0, sizeof by_reason);
        assert_int_equal(store_sum_dlq(f->reader, tenants[i], subs[1 - i], by_reason), 0);
        assert_int_equal(by_reason[REASON_ATTEMPTS_EXHAUSTED], 0);
        assert_int_equal(store_list_dlq_counts(f->reader, tenants[i], subs[1 - i], 0, add_count, &foreign),
                         0);
        assert_int_equal(foreign, 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        STORE_TEST(test_counts_of_the_dead_are_the_tenants_own),
        STORE_TEST(test_every_combination_of_filters),
        STORE_TEST(test_with_half_of_it_in_the_log),
        STORE_TEST(test_with_all_of_it_in_the_log),
        STORE_TEST(test_the_model_has_every_state),
        STORE_TEST(test_tenants_do_not_see_each_other),
        STORE_TEST(test_long_backlog_of_retries),
        STORE_TEST(test_callback_ends_every_kind_of_list),
        STORE_TEST(test_with_little_to_look_at),
        STORE_TEST(test_a_page_stops_when_enough_was_looked_at),
        STORE_TEST(test_log_steps_within_an_event),
    };
    return cmocka_run_group_tests(tests, NULL, fixture_end);
}
