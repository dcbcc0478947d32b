#include "lanes/attempt_report.h"

#include <stdio.h>

#include "core/log_id.h"

static struct id delivery_of(const struct attempt *a) {
    return id_of_delivery(a->task.event_key, a->task.subscription_no);
}

static void record_span(struct tracer *t, const struct attempt *a) {
    struct slice trace = blob_slice(a->body.trace);
    if (!trace_sampled(trace))
        return;
    struct span s = {.id = a->span,
                     .parent = trace_span(trace),
                     .kind = SPAN_ATTEMPT,
                     .failed = a->outcome.status < 200 || a->outcome.status > 299,
                     .started_us = a->started_at * 1000,
                     .ended_us = a->started_at * 1000 + a->request.latency_us,
                     .delivery_id = delivery_of(a),
                     .subscription_id = a->subscription->id,
                     .number = a->task.number,
                     .status = a->outcome.status,
                     .error = a->outcome.error};
    trace_id(trace, s.trace_id);
    snprintf(s.tenant_id, sizeof s.tenant_id, "%s", a->subscription->tenant_id);
    tracer_add(t, &s);
}

static void log_attempt(const struct attempt *a, enum outcome_class class) {
    char trace[TRACE_ID_N + 1] = "";
    if (a->body.trace)
        trace_id(blob_slice(a->body.trace), trace);
    log_debug("an attempt has ended", log_str("tenant", a->subscription->tenant_id),
              log_id("subscription", ID_SUBSCRIPTION, a->subscription->id),
              log_id("delivery", ID_DELIVERY, delivery_of(a)), log_int("attempt", a->task.number),
              log_str("outcome", outcome_class_name(class)),
              log_str("state", delivery_state_name(a->settlement.to)), log_int("status", a->outcome.status),
              log_str("error", attempt_error_name(a->outcome.error)),
              log_int("latency_ms", a->request.latency_us / 1000), log_str("trace", *trace ? trace : NULL));
}

void report_attempt(const struct dispatch_options *o, const struct attempt *a, enum outcome_class class) {
    metrics_attempt(o->metrics, class);
    metrics_subscription_attempt(o->metrics, a->subscription, class);
    metrics_observe(o->metrics, METRIC_ATTEMPT_DURATION, (double)a->request.latency_us / 1e6);
    if (o->tracer && a->span)
        record_span(o->tracer, a);
    if (log_enabled(LOG_DEBUG))
        log_attempt(a, class);
}

void report_health(const struct attempt *a, const struct lane_news *news) {
    const struct subscription *s = a->subscription;
    if (news->failing)
        log_warn("an endpoint only fails: it is tried now and then, and its deliveries wait",
                 log_str("tenant", s->tenant_id), log_id("subscription", ID_SUBSCRIPTION, s->id),
                 log_int("status", a->outcome.status),
                 log_str("error", attempt_error_name(a->outcome.error)));
    if (news->recovered)
        log_info("an endpoint takes deliveries again", log_str("tenant", s->tenant_id),
                 log_id("subscription", ID_SUBSCRIPTION, s->id));
}
