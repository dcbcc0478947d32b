#include "observe/source_series.h"

static const char *const outcomes[METRIC_SOURCE_OUTCOMES] = {
    [METRIC_SOURCE_ACCEPTED] = "accepted",
    [METRIC_SOURCE_DUPLICATE] = "duplicate",
    [METRIC_SOURCE_REJECTED] = "rejected",
};

static const char *const healths[SOURCE_HEALTHS] = {
    [SOURCE_STARTING] = "starting",       [SOURCE_RUNNING] = "running", [SOURCE_SLOWED] = "slowed",
    [SOURCE_STANDING_BY] = "standing_by", [SOURCE_FAILING] = "failing",
};

const char *source_health_name(enum source_health h) {
    CHECK(h < SOURCE_HEALTHS);
    return healths[h];
}

void metrics_source_rows(struct metric_source *s, enum metric_source_outcome o, uint64_t n) {
    CHECK(o < METRIC_SOURCE_OUTCOMES);
    atomic_fetch_add_explicit(&s->rows[o], n, memory_order_relaxed);
}

void metrics_source_health(struct metric_source *s, enum source_health h, int64_t lag_ms) {
    atomic_store_explicit(&s->health, (int)h, memory_order_relaxed);
    atomic_store_explicit(&s->lag_ms, lag_ms, memory_order_relaxed);
}

void metrics_source_log_bytes(struct metric_source *s, int64_t lag, int64_t kept) {
    atomic_store_explicit(&s->log_lag, lag, memory_order_relaxed);
    atomic_store_explicit(&s->log_kept, kept, memory_order_relaxed);
    atomic_store_explicit(&s->has_log, true, memory_order_release);
}

static void render_bytes(struct metric_source *sources, size_t n, const char *name, const char *what,
                         bool kept, struct buf *out) {
    buf_addf(out, "# HELP %s %s\n# TYPE %s gauge\n", name, what, name);
    for (size_t i = 0; i < n; i++)
        if (atomic_load_explicit(&sources[i].has_log, memory_order_acquire))
            buf_addf(out, "%s{source=\"%s\"} %lld\n", name, sources[i].name,
                     (long long)atomic_load_explicit(kept ? &sources[i].log_kept : &sources[i].log_lag,
                                                     memory_order_relaxed));
}

static void render_states(struct metric_source *sources, size_t n, struct buf *out) {
    buf_add_str(out, "# HELP posthorn_source_state 1 for the state that a source is in, 0 for the others.\n"
                     "# TYPE posthorn_source_state gauge\n");
    for (size_t i = 0; i < n; i++) {
        int now = atomic_load_explicit(&sources[i].health, memory_order_relaxed);
        for (int h = 0; h < SOURCE_HEALTHS; h++)
            buf_addf(out, "posthorn_source_state{source=\"%s\",state=\"%s\"} %d\n", sources[i].name,
                     healths[h], h == now);
    }
}

void source_series_render(struct metric_source *sources, size_t n, struct buf *out) {
    buf_add_str(out,
                "# HELP posthorn_source_rows_total Rows that came out of a source, by what became of them.\n"
                "# TYPE posthorn_source_rows_total counter\n");
    for (size_t i = 0; i < n; i++)
        for (int o = 0; o < METRIC_SOURCE_OUTCOMES; o++)
            buf_addf(out, "posthorn_source_rows_total{source=\"%s\",outcome=\"%s\"} %llu\n", sources[i].name,
                     outcomes[o],
                     (unsigned long long)atomic_load_explicit(&sources[i].rows[o], memory_order_relaxed));
    render_states(sources, n, out);
    buf_add_str(
        out, "# HELP posthorn_source_lag_seconds How long the oldest row that is not accepted has waited.\n"
             "# TYPE posthorn_source_lag_seconds gauge\n");
    for (size_t i = 0; i < n; i++)
        buf_addf(out, "posthorn_source_lag_seconds{source=\"%s\"} %.15g\n", sources[i].name,
                 (double)atomic_load_explicit(&sources[i].lag_ms, memory_order_relaxed) / 1000);
    render_bytes(sources, n, "posthorn_source_lag_bytes",
                 "Bytes of the database's log that are not accepted yet.", false, out);
    render_bytes(sources, n, "posthorn_source_kept_bytes",
                 "Bytes of its log that the database keeps for the source.", true, out);
}
