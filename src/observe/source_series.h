/* What is counted of each source (ingest/source.h): as many as a configuration may hold, so the labels are
 * bounded. Safe from all threads. */
#pragma once

#include "base/bytes.h"

enum { METRIC_SOURCES_MAX = 16, METRIC_SOURCE_NAME_MAX = 32 };

enum metric_source_outcome {
    METRIC_SOURCE_ACCEPTED,
    METRIC_SOURCE_DUPLICATE,
    METRIC_SOURCE_REJECTED,
    METRIC_SOURCE_OUTCOMES
};

/* Zero-initialise it. */
struct metric_source {
    char name[METRIC_SOURCE_NAME_MAX + 1]; /* no character of it needs escaping; "": it is free */
    atomic_uint_fast64_t rows[METRIC_SOURCE_OUTCOMES];
    atomic_int_fast64_t lag_ms;
};

void metrics_source_rows(struct metric_source *s, enum metric_source_outcome o, uint64_t n);
void metrics_source_lag(struct metric_source *s, int64_t lag_ms);
/* posthorn_source_rows_total{source,outcome} and posthorn_source_lag_seconds{source}; nothing without
 * sources. */
void source_series_render(struct metric_source *sources, size_t n, struct buf *out);
