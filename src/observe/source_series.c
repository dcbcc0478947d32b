#include "observe/source_series.h"

static const char *const outcomes[METRIC_SOURCE_OUTCOMES] = {
    [METRIC_SOURCE_ACCEPTED] = "accepted",
    [METRIC_SOURCE_DUPLICATE] = "duplicate",
    [METRIC_SOURCE_REJECTED] = "rejected",
};

void metrics_source_rows(struct metric_source *s, enum metric_source_outcome o, uint64_t n) {
    CHECK(o < METRIC_SOURCE_OUTCOMES);
    atomic_fetch_add_explicit(&s->rows[o], n, memory_order_relaxed);
}

void metrics_source_lag(struct metric_source *s, int64_t lag_ms) {
    atomic_store_explicit(&s->lag_ms, lag_ms, memory_order_relaxed);
}

void source_series_render(struct metric_source *sources, size_t n, struct buf *out) {
    if (n == 0)
        return;
    buf_add_str(out,
                "# HELP posthorn_source_rows_total Rows that came out of a source, by what became of them.\n"
                "# TYPE posthorn_source_rows_total counter\n");
    for (size_t i = 0; i < n; i++)
        for (int o = 0; o < METRIC_SOURCE_OUTCOMES; o++)
            buf_addf(out, "posthorn_source_rows_total{source=\"%s\",outcome=\"%s\"} %llu\n", sources[i].name,
                     outcomes[o],
                     (unsigned long long)atomic_load_explicit(&sources[i].rows[o], memory_order_relaxed));
    buf_add_str(
        out, "# HELP posthorn_source_lag_seconds How long the oldest row that is not accepted has waited.\n"
             "# TYPE posthorn_source_lag_seconds gauge\n");
    for (size_t i = 0; i < n; i++)
        buf_addf(out, "posthorn_source_lag_seconds{source=\"%s\"} %.15g\n", sources[i].name,
                 (double)atomic_load_explicit(&sources[i].lag_ms, memory_order_relaxed) / 1000);
}
