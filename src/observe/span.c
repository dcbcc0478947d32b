#include "observe/span.h"

enum { OTLP_STATUS_ERROR = 2 };

static const struct {
    const char *name;
    int kind; /* SpanKind of OTLP */
} kinds[SPAN_KINDS] = {
    [SPAN_PUBLISH] = {"publish", 2 /* server */},
    [SPAN_FANOUT] = {"fanout", 1 /* internal */},
    [SPAN_ATTEMPT] = {"attempt", 3 /* client */},
};

/* ---- attributes; a comma stands before each but the first ---- */

static void begin_attribute(struct buf *out, const char *key) {
    if (out->p[out->n - 1] != '[')
        buf_add_char(out, ',');
    buf_addf(out, "{\"key\":\"%s\",\"value\":", key);
}

static void add_text(struct buf *out, const char *key, const char *value) {
    begin_attribute(out, key);
    buf_add_str(out, "{\"stringValue\":");
    buf_add_json_string(out, slice_of(value));
    buf_add_str(out, "}}");
}

/* 64-bit integers are strings in the JSON of protocol buffers. */
static void add_int(struct buf *out, const char *key, int64_t value) {
    begin_attribute(out, key);
    buf_addf(out, "{\"intValue\":\"%lld\"}}", (long long)value);
}

static void add_id(struct buf *out, const char *key, enum id_kind kind, struct id id) {
    char text[ID_TEXT_SIZE];
    id_format(kind, id, text);
    add_text(out, key, text);
}

static void add_attempt(const struct span *s, struct buf *out) {
    add_id(out, "posthorn.delivery.id", ID_DELIVERY, s->delivery_id);
    add_id(out, "posthorn.subscription.id", ID_SUBSCRIPTION, s->subscription_id);
    add_int(out, "posthorn.attempt", s->number);
    add_text(out, "http.request.method", "POST");
    if (s->status)
        add_int(out, "http.response.status_code", s->status);
    if (s->error != ATTEMPT_OK)
        add_text(out, "error.type", attempt_error_name(s->error));
}

static void add_time(struct buf *out, const char *name, int64_t us) {
    buf_addf(out, ",\"%s\":\"%lld000\"", name, (long long)us);
}

static void add_span(const struct span *s, struct buf *out) {
    CHECK(s->kind < SPAN_KINDS);
    buf_addf(out, "{\"traceId\":\"%s\",\"spanId\":\"%016llx\"", s->trace_id, (unsigned long long)s->id);
    if (s->parent)
        buf_addf(out, ",\"parentSpanId\":\"%016llx\"", (unsigned long long)s->parent);
    buf_addf(out, ",\"name\":\"%s\",\"kind\":%d", kinds[s->kind].name, kinds[s->kind].kind);
    add_time(out, "startTimeUnixNano", s->started_us);
    add_time(out, "endTimeUnixNano", s->ended_us < s->started_us ? s->started_us : s->ended_us);
    buf_add_str(out, ",\"attributes\":[");
    if (s->tenant_id[0])
        add_text(out, "posthorn.tenant.id", s->tenant_id);
    if (s->event_id.key)
        add_id(out, "posthorn.event.id", ID_EVENT, s->event_id);
    if (s->kind == SPAN_ATTEMPT)
        add_attempt(s, out);
    else
        add_int(out, s->kind == SPAN_PUBLISH ? "posthorn.events" : "posthorn.deliveries", s->count);
    buf_add_str(out, "]");
    if (s->failed)
        buf_addf(out, ",\"status\":{\"code\":%d}", OTLP_STATUS_ERROR);
    buf_add_char(out, '}');
}

void spans_render(const struct span *spans, size_t n, const char *instance, struct buf *out) {
    buf_add_str(out, "{\"resourceSpans\":[{\"resource\":{\"attributes\":[");
    add_text(out, "service.name", "posthorn");
    add_text(out, "service.version", POSTHORN_VERSION);
    add_text(out, "service.instance.id", instance);
    buf_add_str(out, "]},\"scopeSpans\":[{\"scope\":{\"name\":\"posthorn\",\"version\":\"" POSTHORN_VERSION
                     "\"},\"spans\":[");
    for (size_t i = 0; i < n; i++) {
        if (i)
            buf_add_char(out, ',');
        add_span(&spans[i], out);
    }
    buf_add_str(out, "]}]}]}");
}
