/* Liveness, readiness, metrics, and the front page. */
#include "api/routes.h"

static const double OVERLOADED = 0.9; /* of the writer's queue */

void route_healthz(struct request *r) {
    buf_add_str(request_write(r, 200), "{\"status\":\"ok\"}");
}

void route_readyz(struct request *r) {
    struct store_reader *reader = request_reader(r);
    if (!reader)
        return;
    if (store_reader_ping(reader) < 0) {
        request_problem(r, 503, "The store does not answer.");
        request_header(r, "Retry-After", "5");
    } else if (writer_load(r->o->writer) > OVERLOADED) {
        request_problem(r, 503, "Overloaded: the queue of requests that wait for the disk is nearly full.");
        request_header(r, "Retry-After", "1");
    } else {
        buf_add_str(request_write(r, 200), "{\"status\":\"ready\"}");
    }
}

void route_metrics(struct request *r) {
    metrics_gauge_set(r->o->metrics, METRIC_STORE_QUEUE_PERMILLE,
                      (int64_t)(writer_load(r->o->writer) * 1000));
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
