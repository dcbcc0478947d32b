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

enum source_health {
    SOURCE_STARTING,
    SOURCE_RUNNING,
    SOURCE_SLOWED,
    SOURCE_STANDING_BY, /* another process reads it; this one takes over when that ends */
    SOURCE_FAILING,
    SOURCE_HEALTHS
};
const char *source_health_name(enum source_health h); /* "starting" … */

/* Zero-initialise it. */
struct metric_source {
    char name[METRIC_SOURCE_NAME_MAX + 1]; /* no character of it needs escaping; "": it is free */
    atomic_uint_fast64_t rows[METRIC_SOURCE_OUTCOMES];
    atomic_int health; /* enum source_health */
    atomic_int_fast64_t lag_ms;
    atomic_int_fast64_t log_lag, log_kept; /* bytes, of those that told once */
    atomic_bool has_log;
};

void metrics_source_rows(struct metric_source *s, enum metric_source_outcome o, uint64_t n);
void metrics_source_health(struct metric_source *s, enum source_health h, int64_t lag_ms);
/* Of one that reads a database's log: how much of it is not accepted, and how much is kept for it. */
void metrics_source_log_bytes(struct metric_source *s, int64_t lag, int64_t kept);
/* posthorn_source_rows_total{source,outcome}, posthorn_source_state{source,state},
 * posthorn_source_lag_seconds{source}, and of those that told of a log posthorn_source_lag_bytes{source} and
 * posthorn_source_kept_bytes{source}. */
void source_series_render(struct metric_source *sources, size_t n, struct buf *out);
