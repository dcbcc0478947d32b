/* Liveness, readiness, metrics, and the front page. */
#include "api/routes.h"
#include "base/clock.h"

static const double OVERLOADED = 0.9; /* of the writer's queue */

void route_healthz(struct request *r) {
    buf_add_str(request_write(r, 200), "{\"status\":\"ok\"}");
}

/* A database that does not answer is no reason to send publishers elsewhere: the status stays 200. */
static void write_sources(struct request *r, struct buf *out) {
    for (size_t i = 0; i < sources_count(r->o->sources); i++) {
        struct source_status s;
        sources_status(r->o->sources, i, r->now, &s);
        buf_addf(out, "%s{\"name\":\"%s\",\"kind\":\"%s\",\"state\":\"%s\",\"reason\":", i ? "," : "", s.name,
                 s.kind, source_health_name(s.health));
        if (s.reason)
            buf_add_json_string(out, slice_of(s.reason));
        else
            buf_add_str(out, "null");
        buf_addf(out, ",\"lag_seconds\":%.3f}", (double)s.lag_ms / 1000);
    }
}

static void write_ready(struct request *r) {
    struct buf *out = request_write(r, 200);
    buf_add_str(out, "{\"status\":\"ready\"");
    if (sources_count(r->o->sources) > 0) {
        buf_add_str(out, ",\"sources\":[");
        write_sources(r, out);
        buf_add_char(out, ']');
    }
    buf_add_char(out, '}');
}

void route_readyz(struct request *r) {
    struct store_reader *reader = request_reader(r);
    if (!reader)
        return;
    if (store_reader_ping(reader) < 0) {
        request_problem(r, 503, "The store does not answer.");
        request_header(r, "Retry-After", "5");
    } else if (writer_fails(r->o->writer, clock_mono_us())) {
        request_problem(r, 503, "The store takes no writes; the log says why (a full disk?).");
        request_header(r, "Retry-After", "5");
    } else if (writer_load(r->o->writer) > OVERLOADED) {
        request_problem(r, 503, "Overloaded: the queue of requests that wait for the disk is nearly full.");
        request_header(r, "Retry-After", "1");
    } else {
        write_ready(r);
    }
}

void route_metrics(struct request *r) {
    metrics_gauge_set(r->o->metrics, METRIC_STORE_QUEUE_PERMILLE,
                      (int64_t)(writer_load(r->o->writer) * 1000));
    sources_observe(r->o->sources, r->now);
    metrics_render(r->o->metrics, request_write(r, 200));
    r->content_type = "text/plain; version=0.0.4; charset=utf-8";
}

void route_root(struct request *r) {
    buf_add_str(request_write(r, 200),
                "posthorn " POSTHORN_VERSION ": delivers webhooks, at least once.\n\n"
                "  /healthz   alive\n"
                "  /readyz    able to take events\n"
                "  /metrics   Prometheus\n"
                "  /v1/…      the API: tenants, subscriptions, events, deliveries, keys, audit\n"
                "  /v1/openapi.json   its description, OpenAPI 3.1\n");
    r->content_type = "text/plain; charset=utf-8";
}
