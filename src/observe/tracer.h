/* Sends spans to a collector (OTLP/HTTP, JSON) from a thread of its own. Nobody waits for it: spans beyond
 * TRACER_QUEUE_MAX, and those that the collector does not take after some tries, are dropped and counted. */
#pragma once

#include "observe/metrics.h"
#include "observe/span.h"

enum {
    TRACER_QUEUE_MAX = 8192,
    TRACER_BATCH_MAX = 512,
    TRACER_TRIES_MAX = 4, /* of one batch */
};

struct tracer;

struct tracer_options {
    const char *url;         /* base of the collector; /v1/traces is appended unless it ends so */
    const char *header;      /* "Name: value" to send along, or NULL */
    const char *instance;    /* names this process */
    unsigned sample_percent; /* of what is published without a trace */
    struct metrics *metrics;
};
/* The texts must outlive it. */
int tracer_start(const struct tracer_options *o, struct tracer **ret) MUST_USE;
/* Sends what is queued, once and for a short time, and frees. NULL-safe. */
void tracer_stop(struct tracer *t);

/* An id for a span, never 0. Safe from all threads, as the following. */
uint64_t tracer_new_id(struct tracer *t);

/* The trace of a publish request: that of `given` (absent: a new one, when chance samples it) with the span
 * of this request as the parent of what follows. *ret_span is that span's id, or 0 when nothing is to be
 * recorded: the trace is not sampled; out then holds `given`, or nothing. */
void tracer_begin(struct tracer *t, struct slice given, struct buf *out, uint64_t *ret_span);

/* Takes a copy; never waits for the collector. */
void tracer_add(struct tracer *t, const struct span *s);
