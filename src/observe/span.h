/* Spans: what one step of a trace did and how long it took, and how OTLP/HTTP writes them as JSON
 * (opentelemetry-proto 1.x). Pure; observe/tracer.h sends them. */
#pragma once

#include "core/delivery.h"
#include "core/id.h"
#include "core/retry.h"
#include "core/tenant.h"
#include "core/trace.h"

enum span_kind {
    SPAN_PUBLISH, /* a request, from its arrival to its events being durable */
    SPAN_FANOUT,  /* subscriptions found and deliveries made */
    SPAN_ATTEMPT, /* one request to a subscriber */
    SPAN_KINDS,
};

struct span {
    char trace_id[TRACE_ID_N + 1]; /* hex */
    uint64_t id, parent;           /* parent 0: none */
    enum span_kind kind;
    bool failed;
    int64_t started_us, ended_us;           /* Unix microseconds */
    char tenant_id[TENANT_ID_MAX + 1];      /* "": not told */
    struct id event_id;                     /* of PUBLISH: the first of `count` events */
    uint32_t count;                         /* of PUBLISH: events; of FANOUT: deliveries */
    struct id delivery_id, subscription_id; /* these and what follows: of ATTEMPT */
    uint32_t number;
    int status; /* 0: none */
    enum attempt_error error;
};

/* An ExportTraceServiceRequest of n spans; look at buf_ok afterwards. `instance` names the process. */
void spans_render(const struct span *spans, size_t n, const char *instance, struct buf *out);
