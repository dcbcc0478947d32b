#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include <pthread.h>

#include "observe/metrics.h"

/* api.md §5. */
static const char *const names[] = {
    "posthorn_events_published_total",
    "posthorn_fanout_lag_seconds",
    "posthorn_fanout_jobs_pending",
    "posthorn_delivery_queue_lag_seconds",
    "posthorn_deliveries_pending",
    "posthorn_deliveries_total",
    "posthorn_attempts_total",
    "posthorn_attempt_duration_seconds",
    "posthorn_time_to_first_attempt_seconds",
    "posthorn_attempts_per_delivery",
    "posthorn_dlq_size",
    "posthorn_dlq_total",
    "posthorn_in_flight",
    "posthorn_lanes_throttled",
    "posthorn_breaker_open",
    "posthorn_store_commit_seconds",
    "posthorn_store_batch_size",
    "posthorn_leases_expired_total",
    "posthorn_http_requests_total",
    "posthorn_store_queue_ratio",
    "posthorn_build_info",
};

static void assert_line(const struct buf *out, const char *line) {
    char whole[512];
    snprintf(whole, sizeof whole, "\n%s\n", line);
    if (!strstr(out->p, whole))
        fail_msg("there is no line %s in\n%s", line, out->p);
}

static void render(struct metrics *m, struct buf *out) {
    buf_reset(out);
    metrics_render(m, out);
    assert_true(buf_ok(out));
}

static void test_every_name_has_help_and_type(void **state) {
    (void)state;
    _cleanup_buf_ struct buf out = {0};
    struct metrics *m = metrics_new();
    assert_non_null(m);
    buf_add_char(&out, '\n');
    metrics_render(m, &out);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char text[128];
        snprintf(text, sizeof text, "\n# HELP %s ", names[i]);
        assert_non_null(strstr(out.p, text));
        snprintf(text, sizeof text, "\n# TYPE %s ", names[i]);
        assert_non_null(strstr(out.p, text));
    }
    metrics_free(m);
}

/* Every line is a comment, or a name with labels and one number: what the text format asks for. */
static void test_lines_are_well_formed(void **state) {
    (void)state;
    _cleanup_buf_ struct buf out = {0};
    struct metrics *m = metrics_new();
    metrics_http(m, "/v1/tenants/{t}", 200);
    render(m, &out);
    assert_int_equal(out.p[out.n - 1], '\n');
    for (char *line = strtok(out.p, "\n"); line; line = strtok(NULL, "\n")) {
        if (line[0] == '#')
            continue;
        char *space = strrchr(line, ' '), *end = NULL;
        assert_non_null(space);
        (void)strtod(space + 1, &end);
        assert_int_equal(*end, '\0');
        size_t name = strspn(line, "abcdefghijklmnopqrstuvwxyz_");
        assert_true(line + name == space || (line[name] == '{' && space[-1] == '}'));
    }
    metrics_free(m);
}

static void test_counters_and_gauges(void **state) {
    (void)state;
    _cleanup_buf_ struct buf out = {0};
    struct metrics *m = metrics_new();
    metrics_count(m, METRIC_EVENTS_PUBLISHED, 3);
    metrics_count(m, METRIC_EVENTS_PUBLISHED, 4);
    metrics_gauge_set(m, METRIC_FANOUT_LAG_MS, 1500);
    metrics_gauge_add(m, METRIC_DELIVERIES_PENDING, 5);
    metrics_gauge_add(m, METRIC_DELIVERIES_PENDING, -2);
    metrics_attempt(m, OUTCOME_TRANSIENT);
    metrics_in_flight(m, TIER_BULK, 2);
    metrics_throttled(m, LANE_WAIT_BREAKER, 1);
    render(m, &out);
    assert_line(&out, "posthorn_events_published_total 7");
    assert_line(&out, "posthorn_fanout_lag_seconds 1.5");
    assert_line(&out, "posthorn_deliveries_pending 3");
    assert_line(&out, "posthorn_attempts_total{class=\"transient\"} 1");
    assert_line(&out, "posthorn_attempts_total{class=\"success\"} 0");
    assert_line(&out, "posthorn_in_flight{tier=\"bulk\"} 2");
    assert_line(&out, "posthorn_lanes_throttled{cause=\"breaker\"} 1");
    metrics_free(m);
}

/* Of the delivery loops, the one that lags most counts. */
static void test_queue_lag(void **state) {
    (void)state;
    _cleanup_buf_ struct buf out = {0};
    struct metrics *m = metrics_new();
    metrics_queue_lag(m, 0, 250);
    metrics_queue_lag(m, METRIC_LOOPS_MAX - 1, 1250);
    metrics_queue_lag(m, 2, 500);
    render(m, &out);
    assert_line(&out, "posthorn_delivery_queue_lag_seconds 1.25");
    metrics_queue_lag(m, METRIC_LOOPS_MAX - 1, 0);
    buf_reset(&out);
    render(m, &out);
    assert_line(&out, "posthorn_delivery_queue_lag_seconds 0.5");
    metrics_free(m);
}

static void test_closed_deliveries(void **state) {
    (void)state;
    _cleanup_buf_ struct buf out = {0};
    struct metrics *m = metrics_new();
    metrics_gauge_set(m, METRIC_DELIVERIES_PENDING, 5);
    metrics_delivery_closed(m, DELIVERY_DELIVERED, REASON_NONE);
    metrics_delivery_closed(m, DELIVERY_DLQ, REASON_GONE);
    metrics_delivery_closed(m, DELIVERY_DLQ, REASON_GONE);
    render(m, &out);
    assert_line(&out, "posthorn_deliveries_total{outcome=\"delivered\"} 1");
    assert_line(&out, "posthorn_deliveries_total{outcome=\"dlq\"} 2");
    assert_line(&out, "posthorn_dlq_total{reason=\"gone\"} 2");
    assert_line(&out, "posthorn_dlq_size 2");
    assert_line(&out, "posthorn_deliveries_pending 2");
    metrics_free(m);
}

static void test_series_of_subscriptions_are_bounded(void **state) {
    (void)state;
    _cleanup_buf_ struct buf out = {0};
    struct metrics *m = metrics_new();
    struct subscription s = {.tenant_id = "acme"};
    char id[ID_TEXT_SIZE], line[256];
    s.no = 7;
    metrics_subscription_attempt(m, &s, OUTCOME_SUCCESS); /* nobody asked for it */
    render(m, &out);
    assert_null(strstr(out.p, "posthorn_subscription_attempts_total"));
    assert_int_equal(metrics_keep_subscriptions(m, 2), 0);
    for (uint32_t no = 1; no <= 100; no++) {
        s.no = no;
        s.id = (struct id){.key = no, .tail = no};
        metrics_subscription_attempt(m, &s, OUTCOME_SUCCESS);
        metrics_subscription_attempt(m, &s, OUTCOME_TRANSIENT);
        metrics_subscription_attempt(m, &s, OUTCOME_GONE);
    }
    render(m, &out);
    for (uint32_t no = 1; no <= 3; no++) {
        id_format(ID_SUBSCRIPTION, (struct id){.key = no, .tail = no}, id);
        snprintf(
            line, sizeof line,
            "posthorn_subscription_attempts_total{tenant=\"acme\",subscription=\"%s\",outcome=\"failure\"} 2",
            id);
        if (no <= 2)
            assert_line(&out, line);
        else
            assert_null(strstr(out.p, id));
    }
    assert_line(&out, "posthorn_subscription_attempts_total{tenant=\"\",subscription=\"other\",outcome="
                      "\"success\"} 98");
    metrics_free(m);
}

static void test_histogram_is_cumulative(void **state) {
    (void)state;
    _cleanup_buf_ struct buf out = {0};
    struct metrics *m = metrics_new();
    const double seconds[] = {0.005, 0.006, 0.3, 1000, -1};
    for (size_t i = 0; i < sizeof seconds / sizeof seconds[0]; i++)
        metrics_observe(m, METRIC_ATTEMPT_DURATION, seconds[i]);
    render(m, &out);
    assert_line(&out, "posthorn_attempt_duration_seconds_bucket{le=\"0.005\"} 2");
    assert_line(&out, "posthorn_attempt_duration_seconds_bucket{le=\"0.01\"} 3");
    assert_line(&out, "posthorn_attempt_duration_seconds_bucket{le=\"0.5\"} 4");
    assert_line(&out, "posthorn_attempt_duration_seconds_bucket{le=\"60\"} 4");
    assert_line(&out, "posthorn_attempt_duration_seconds_bucket{le=\"+Inf\"} 5");
    assert_line(&out, "posthorn_attempt_duration_seconds_sum 1000.311");
    assert_line(&out, "posthorn_attempt_duration_seconds_count 5");
    metrics_free(m);
}

static void test_http_by_route_and_code(void **state) {
    (void)state;
    _cleanup_buf_ struct buf out = {0};
    struct metrics *m = metrics_new();
    static const char route[] = "/v1/tenants/{t}/events", other[] = "/healthz";
    for (int i = 0; i < 3; i++)
        metrics_http(m, route, 202);
    metrics_http(m, route, 503);
    metrics_http(m, other, 200);
    render(m, &out);
    assert_line(&out, "posthorn_http_requests_total{route=\"/v1/tenants/{t}/events\",code=\"202\"} 3");
    assert_line(&out, "posthorn_http_requests_total{route=\"/v1/tenants/{t}/events\",code=\"503\"} 1");
    assert_line(&out, "posthorn_http_requests_total{route=\"/healthz\",code=\"200\"} 1");
    metrics_free(m);
}

enum { THREADS = 4, ROUNDS = 20000, CODES = 100 };

static const char shared_route[] = "/shared";

static void *count_much(void *arg) {
    for (int i = 0; i < ROUNDS; i++) {
        metrics_http(arg, shared_route, 200 + i % CODES);
        metrics_observe(arg, METRIC_STORE_BATCH_SIZE, 1);
    }
    return NULL;
}

static void test_no_count_is_lost_between_threads(void **state) {
    (void)state;
    _cleanup_buf_ struct buf out = {0};
    struct metrics *m = metrics_new();
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, count_much, m), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    render(m, &out);
    for (int code = 200; code < 200 + CODES; code++) {
        char line[128];
        snprintf(line, sizeof line, "posthorn_http_requests_total{route=\"/shared\",code=\"%d\"} %d", code,
                 THREADS * ROUNDS / CODES);
        assert_line(&out, line);
    }
    assert_line(&out, "posthorn_store_batch_size_count 80000");
    assert_line(&out, "posthorn_store_batch_size_sum 80000");
    metrics_free(m);
}

/* More pairs than the table holds: they are not counted, and nothing goes wrong. */
static void test_http_table_is_bounded(void **state) {
    (void)state;
    _cleanup_buf_ struct buf out = {0};
    struct metrics *m = metrics_new();
    for (int code = 1; code < 2000; code++)
        metrics_http(m, shared_route, code);
    render(m, &out);
    assert_true(out.n < 200000);
    metrics_free(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_name_has_help_and_type),
        cmocka_unit_test(test_lines_are_well_formed),
        cmocka_unit_test(test_counters_and_gauges),
        cmocka_unit_test(test_queue_lag),
        cmocka_unit_test(test_closed_deliveries),
        cmocka_unit_test(test_series_of_subscriptions_are_bounded),
        cmocka_unit_test(test_histogram_is_cumulative),
        cmocka_unit_test(test_http_by_route_and_code),
        cmocka_unit_test(test_no_count_is_lost_between_threads),
        cmocka_unit_test(test_http_table_is_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
