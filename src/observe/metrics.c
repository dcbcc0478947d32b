#include "observe/metrics.h"

#include "observe/subscription_series.h"

#include <stdalign.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

enum {
    BUCKETS_MAX = 16,      /* of one histogram, +Inf not counted */
    HTTP_SERIES_MAX = 512, /* pairs of route and code; a power of two. Further pairs are not counted. */
};

/* Sums are kept in millionths, so that adding needs no loop. */
#define SUM_SCALE 1e6

struct histogram {
    alignas(64) atomic_uint_fast64_t sum_millionths;
    atomic_uint_fast64_t buckets[BUCKETS_MAX + 1]; /* not cumulative; the last is +Inf */
};

struct http_series {
    _Atomic(const char *) route; /* NULL: free; set once */
    atomic_int code;             /* 0: about to be set */
    atomic_uint_fast64_t n;
};

struct metrics {
    atomic_uint_fast64_t counters[METRIC_COUNTERS];
    atomic_int_fast64_t gauges[METRIC_GAUGES];
    struct histogram histograms[METRIC_HISTOGRAMS];
    atomic_uint_fast64_t attempts[OUTCOME_CLASSES];
    atomic_uint_fast64_t closed[2]; /* delivered, dlq */
    atomic_uint_fast64_t dlq[DELIVERY_REASONS];
    atomic_int_fast64_t queue_lag[METRIC_LOOPS_MAX];
    atomic_int_fast64_t in_flight[TIERS];
    atomic_int_fast64_t partitions[TIERS];
    atomic_int_fast64_t throttled[LANE_WAITS];
    struct http_series http[HTTP_SERIES_MAX];
    struct subscription_series *subscriptions; /* NULL: not asked for */
    struct metric_source sources[METRIC_SOURCES_MAX];
    size_t sources_n;
};

static const struct {
    const char *name, *help;
} counters[METRIC_COUNTERS] = {
    [METRIC_EVENTS_PUBLISHED] = {"posthorn_events_published_total", "Events accepted, duplicates left out."},
    [METRIC_LEASES_EXPIRED] = {"posthorn_leases_expired_total", "Attempts whose lease ran out."},
    [METRIC_STALE_SETTLES] = {"posthorn_stale_settles_total",
                              "Outcomes refused because their lease had passed to another attempt."},
    [METRIC_SPANS_EXPORTED] = {"posthorn_spans_exported_total", "Spans that the collector took."},
    [METRIC_SPANS_DROPPED] = {"posthorn_spans_dropped_total",
                              "Spans that the collector did not take, or not in time."},
};

static const struct {
    const char *name, *help;
    unsigned divisor; /* from the unit kept to the unit shown */
} gauges[METRIC_GAUGES] = {
    [METRIC_FANOUT_JOBS_PENDING] = {"posthorn_fanout_jobs_pending", "Large fan-outs not fully expanded.", 1},
    [METRIC_FANOUT_LAG_MS] = {"posthorn_fanout_lag_seconds", "Age of the oldest event not fully expanded.",
                              1000},
    [METRIC_DELIVERIES_PENDING] = {"posthorn_deliveries_pending", "Deliveries that are open.", 1},
    [METRIC_DELIVERY_QUEUE_LAG_MS] = {"posthorn_delivery_queue_lag_seconds",
                                      "How overdue the longest-waiting sendable delivery is.", 1000},
    [METRIC_DLQ_SIZE] = {"posthorn_dlq_size", "Deliveries in the dead-letter queue.", 1},
    [METRIC_BREAKER_OPEN] = {"posthorn_breaker_open", "Subscriptions whose circuit breaker is open.", 1},
    [METRIC_STORE_QUEUE_PERMILLE] =
        {"posthorn_store_queue_ratio",
         "How full the queue of requests that wait for the disk is; at 1 publishing "
         "is refused.",
         1000},
    [METRIC_NODES] = {"posthorn_nodes", "Processes that share the store; 0 where none can.", 1},
    [METRIC_NODE_LEASE_MS] = {"posthorn_node_lease_seconds_left",
                              "For how long this node may send unless it reaches the store.", 1000},
};

static const struct {
    const char *name, *help;
    double bounds[BUCKETS_MAX]; /* ascending, ended by a zero when fewer */
} histograms[METRIC_HISTOGRAMS] = {
    [METRIC_ATTEMPT_DURATION] = {"posthorn_attempt_duration_seconds",
                                 "Duration of delivery attempts.",
                                 {0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60}},
    [METRIC_TIME_TO_FIRST_ATTEMPT] = {"posthorn_time_to_first_attempt_seconds",
                                      "From an event's acceptance to its first attempt.",
                                      {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10,
                                       30, 60, 300}},
    [METRIC_ATTEMPTS_PER_DELIVERY] = {"posthorn_attempts_per_delivery",
                                      "Attempts that a delivery took until it was closed.",
                                      {1, 2, 3, 4, 5, 8, 12, 16, 24, 50, 100}},
    [METRIC_STORE_COMMIT] = {"posthorn_store_commit_seconds",
                             "Duration of a transaction of the writer, commit included.",
                             {0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
                              0.5, 1, 5}},
    [METRIC_STORE_BATCH_SIZE] = {"posthorn_store_batch_size",
                                 "Jobs in one transaction of the writer.",
                                 {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096}},
};

static const char *const lane_waits[LANE_WAITS] = {
    [LANE_WAIT_RATE_LIMIT] = "rate_limit", [LANE_WAIT_CONCURRENCY] = "concurrency",
    [LANE_WAIT_BREAKER] = "breaker",       [LANE_WAIT_ORDERING] = "ordering",
    [LANE_WAIT_PAUSED] = "paused",
};

const char *lane_wait_name(enum lane_wait w) {
    CHECK(w < LANE_WAITS);
    return lane_waits[w];
}

struct metrics *metrics_new(void) {
    size_t size = (sizeof(struct metrics) + alignof(struct metrics) - 1) / alignof(struct metrics) *
                  alignof(struct metrics);
    struct metrics *m = aligned_alloc(alignof(struct metrics), size);
    if (m)
        memset(m, 0, size);
    return m;
}

void metrics_free(struct metrics *m) {
    if (m)
        subscription_series_free(m->subscriptions);
    free(m);
}

int metrics_keep_subscriptions(struct metrics *m, unsigned max) {
    CHECK(!m->subscriptions);
    return subscription_series_new(max, &m->subscriptions);
}

struct metric_source *metrics_keep_source(struct metrics *m, const char *name) {
    CHECK(m->sources_n < METRIC_SOURCES_MAX && strlen(name) <= METRIC_SOURCE_NAME_MAX);
    struct metric_source *s = &m->sources[m->sources_n++];
    memcpy(s->name, name, strlen(name) + 1);
    return s;
}

static void add(atomic_uint_fast64_t *to, uint64_t n) {
    atomic_fetch_add_explicit(to, n, memory_order_relaxed);
}

static void move(atomic_int_fast64_t *to, int64_t delta) {
    atomic_fetch_add_explicit(to, delta, memory_order_relaxed);
}

static uint64_t value(atomic_uint_fast64_t *of) {
    return atomic_load_explicit(of, memory_order_relaxed);
}

static int64_t level(atomic_int_fast64_t *of) {
    return atomic_load_explicit(of, memory_order_relaxed);
}

void metrics_count(struct metrics *m, enum metric_counter c, uint64_t n) {
    CHECK(c < METRIC_COUNTERS);
    add(&m->counters[c], n);
}

void metrics_gauge_set(struct metrics *m, enum metric_gauge g, int64_t v) {
    CHECK(g < METRIC_GAUGES);
    atomic_store_explicit(&m->gauges[g], v, memory_order_relaxed);
}

void metrics_gauge_add(struct metrics *m, enum metric_gauge g, int64_t delta) {
    CHECK(g < METRIC_GAUGES);
    move(&m->gauges[g], delta);
}

void metrics_queue_lag(struct metrics *m, unsigned loop, int64_t lag_ms) {
    CHECK(loop < METRIC_LOOPS_MAX);
    atomic_store_explicit(&m->queue_lag[loop], lag_ms, memory_order_relaxed);
}

static int64_t greatest_lag(struct metrics *m) {
    int64_t greatest = 0;
    for (size_t i = 0; i < METRIC_LOOPS_MAX; i++) {
        int64_t lag = atomic_load_explicit(&m->queue_lag[i], memory_order_relaxed);
        greatest = lag > greatest ? lag : greatest;
    }
    return greatest;
}

static size_t bounds_of(enum metric_histogram h) {
    size_t n = 0;
    while (n < BUCKETS_MAX && histograms[h].bounds[n] > 0)
        n++;
    return n;
}

void metrics_observe(struct metrics *m, enum metric_histogram h, double v) {
    CHECK(h < METRIC_HISTOGRAMS);
    size_t n = bounds_of(h), i = 0;
    if (!(v >= 0)) /* a clock that was set back, or no number */
        v = 0;
    while (i < n && v > histograms[h].bounds[i])
        i++;
    add(&m->histograms[h].buckets[i < n ? i : BUCKETS_MAX], 1);
    add(&m->histograms[h].sum_millionths, (uint64_t)(v * SUM_SCALE + 0.5));
}

void metrics_attempt(struct metrics *m, enum outcome_class class) {
    CHECK(class < OUTCOME_CLASSES);
    add(&m->attempts[class], 1);
}

void metrics_subscription_attempt(struct metrics *m, const struct subscription *s, enum outcome_class class) {
    if (m->subscriptions)
        subscription_series_count(m->subscriptions, s->no, s->id, s->tenant_id, class == OUTCOME_SUCCESS);
}

void metrics_delivery_closed(struct metrics *m, enum delivery_state to, enum delivery_reason why) {
    CHECK(!delivery_is_open(to) && why < DELIVERY_REASONS);
    metrics_gauge_add(m, METRIC_DELIVERIES_PENDING, -1);
    add(&m->closed[to == DELIVERY_DLQ], 1);
    if (to == DELIVERY_DLQ) {
        add(&m->dlq[why], 1);
        metrics_gauge_add(m, METRIC_DLQ_SIZE, 1);
    }
}

void metrics_partitions(struct metrics *m, enum tenant_tier tier, int64_t owned) {
    CHECK(tier < TIERS);
    atomic_store_explicit(&m->partitions[tier], owned, memory_order_relaxed);
}

void metrics_in_flight(struct metrics *m, enum tenant_tier tier, int64_t delta) {
    CHECK(tier < TIERS);
    move(&m->in_flight[tier], delta);
}

void metrics_throttled(struct metrics *m, enum lane_wait cause, int64_t delta) {
    CHECK(cause < LANE_WAITS);
    move(&m->throttled[cause], delta);
}

/* Whether the slot counts this pair; a free one is taken for it. */
static bool claim_series(struct http_series *s, const char *route, int code) {
    const char *known = atomic_load_explicit(&s->route, memory_order_acquire);
    if (!known && atomic_compare_exchange_strong(&s->route, &known, route))
        known = route;
    if (known != route)
        return false;
    int held = 0;
    return atomic_compare_exchange_strong(&s->code, &held, code) || held == code;
}

void metrics_http(struct metrics *m, const char *route, int code) {
    CHECK(route && code > 0);
    uint64_t at = mix64((uint64_t)(uintptr_t)route ^ (uint64_t)code << 48);
    for (size_t i = 0; i < HTTP_SERIES_MAX; i++) {
        struct http_series *s = &m->http[(at + i) % HTTP_SERIES_MAX];
        if (claim_series(s, route, code)) {
            add(&s->n, 1);
            return;
        }
    }
}

static void head(struct buf *out, const char *name, const char *type, const char *help) {
    buf_addf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void line(struct buf *out, const char *name, const char *label, const char *word, int64_t v) {
    buf_addf(out, "%s{%s=\"%s\"} %lld\n", name, label, word, (long long)v);
}

static void render_plain(struct metrics *m, struct buf *out) {
    metrics_gauge_set(m, METRIC_DELIVERY_QUEUE_LAG_MS, greatest_lag(m));
    for (size_t i = 0; i < METRIC_COUNTERS; i++) {
        head(out, counters[i].name, "counter", counters[i].help);
        buf_addf(out, "%s %llu\n", counters[i].name, (unsigned long long)value(&m->counters[i]));
    }
    for (size_t i = 0; i < METRIC_GAUGES; i++) {
        double v = (double)level(&m->gauges[i]) / gauges[i].divisor;
        head(out, gauges[i].name, "gauge", gauges[i].help);
        buf_addf(out, "%s %.15g\n", gauges[i].name, v);
    }
}

static void render_labelled(struct metrics *m, struct buf *out) {
    head(out, "posthorn_deliveries_total", "counter", "Deliveries that were closed.");
    line(out, "posthorn_deliveries_total", "outcome", "delivered", (int64_t)value(&m->closed[0]));
    line(out, "posthorn_deliveries_total", "outcome", "dlq", (int64_t)value(&m->closed[1]));
    head(out, "posthorn_attempts_total", "counter", "Delivery attempts by the class of their outcome.");
    for (int c = 0; c < OUTCOME_CLASSES; c++)
        line(out, "posthorn_attempts_total", "class", outcome_class_name((enum outcome_class)c),
             (int64_t)value(&m->attempts[c]));
    head(out, "posthorn_dlq_total", "counter", "Deliveries that went to the dead-letter queue.");
    for (int r = REASON_NONE + 1; r < DELIVERY_REASONS; r++)
        if (r != REASON_REPLAY_REQUESTED) /* leads out of the queue, never into it */
            line(out, "posthorn_dlq_total", "reason", delivery_reason_name((enum delivery_reason)r),
                 (int64_t)value(&m->dlq[r]));
    head(out, "posthorn_in_flight", "gauge", "Attempts under way.");
    for (int t = 0; t < TIERS; t++)
        line(out, "posthorn_in_flight", "tier", tenant_tier_name((enum tenant_tier)t),
             level(&m->in_flight[t]));
    head(out, "posthorn_partitions_owned", "gauge", "Parts of a tier's lanes that this node sends for.");
    for (int t = 0; t < TIERS; t++)
        line(out, "posthorn_partitions_owned", "tier", tenant_tier_name((enum tenant_tier)t),
             level(&m->partitions[t]));
    head(out, "posthorn_lanes_throttled", "gauge", "Subscriptions that hold work back.");
    for (int w = LANE_WAIT_NONE + 1; w < LANE_WAITS; w++)
        line(out, "posthorn_lanes_throttled", "cause", lane_waits[w], level(&m->throttled[w]));
}

static void render_histogram(struct metrics *m, enum metric_histogram h, struct buf *out) {
    const char *name = histograms[h].name;
    struct histogram *from = &m->histograms[h];
    size_t n = bounds_of(h);
    uint64_t sum = value(&from->sum_millionths), seen = 0;
    head(out, name, "histogram", histograms[h].help);
    for (size_t i = 0; i < n; i++) {
        seen += value(&from->buckets[i]);
        buf_addf(out, "%s_bucket{le=\"%.15g\"} %llu\n", name, histograms[h].bounds[i],
                 (unsigned long long)seen);
    }
    seen += value(&from->buckets[BUCKETS_MAX]);
    buf_addf(out, "%s_bucket{le=\"+Inf\"} %llu\n", name, (unsigned long long)seen);
    buf_addf(out, "%s_sum %.15g\n", name, (double)sum / SUM_SCALE);
    buf_addf(out, "%s_count %llu\n", name, (unsigned long long)seen);
}

static void render_http(struct metrics *m, struct buf *out) {
    head(out, "posthorn_http_requests_total", "counter", "Requests answered by the HTTP API.");
    for (size_t i = 0; i < HTTP_SERIES_MAX; i++) {
        struct http_series *s = &m->http[i];
        const char *route = atomic_load_explicit(&s->route, memory_order_acquire);
        uint64_t n = value(&s->n);
        if (route && n)
            buf_addf(out, "posthorn_http_requests_total{route=\"%s\",code=\"%d\"} %llu\n", route,
                     atomic_load(&s->code), (unsigned long long)n);
    }
}

void metrics_render(struct metrics *m, struct buf *out) {
    head(out, "posthorn_build_info", "gauge", "The running version; always 1.");
    buf_add_str(out, "posthorn_build_info{version=\"" POSTHORN_VERSION "\"} 1\n");
    render_plain(m, out);
    render_labelled(m, out);
    for (int h = 0; h < METRIC_HISTOGRAMS; h++)
        render_histogram(m, (enum metric_histogram)h, out);
    render_http(m, out);
    source_series_render(m->sources, m->sources_n, out);
    if (m->subscriptions)
        subscription_series_render(m->subscriptions, out);
}
