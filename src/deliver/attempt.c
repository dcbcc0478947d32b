#include "deliver/attempt.h"

#include <errno.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/random.h"
#include "core/trace.h"

static const char *content_type(const struct attempt *a) {
    return a->subscription->format == FORMAT_CLOUDEVENTS ? "application/cloudevents+json"
                                                         : "application/json";
}

/* ---- the body ---- */

static int keep_trace(struct attempt *a, const struct event_row *row) {
    a->body.trace = row->event.trace.p ? blob_of(row->event.trace) : NULL;
    return row->event.trace.p && !a->body.trace ? -ENOMEM : 0;
}

static int keep_body(void *arg, const struct event_row *row) {
    struct attempt *a = arg;
    a->body.envelope = blob_of(row->event.body);
    a->body.data_size = row->event.data_size;
    int r = keep_trace(a, row);
    return a->body.envelope ? r : -ENOMEM;
}

/* A body that has left memory comes from the store, and is kept: its other deliveries will want it too. */
static int load_body(struct attempt *a) {
    if (body_cache_get(a->context->bodies, a->task.event_key, &a->body))
        return 0;
    int r = store_read_body(a->context->reader, a->task.tenant_no, a->task.event_key, keep_body, a);
    if (r == 0)
        body_cache_put(a->context->bodies, a->task.event_key, &a->body);
    return r;
}

static int build_cloudevent(void *arg, const struct event_row *row) {
    struct attempt *a = arg;
    struct event_meta meta = {
        .id = row->event.id,
        .type = row->event.type,
        .schema_version = row->event.schema_version,
        .ordering_key = row->event.ordering_key,
        .tenant_id = a->subscription->tenant_id,
    };
    a->reserved = event_type_reserved(row->event.type);
    buf_reset(&a->built);
    event_cloudevents(&meta, event_data(row->event.body, row->event.data_size), &a->built);
    int r = keep_trace(a, row);
    return buf_ok(&a->built) ? r : -ENOMEM;
}

static int choose_body(struct attempt *a, struct slice *ret) {
    if (a->subscription->format == FORMAT_CLOUDEVENTS) {
        int r =
            store_read_body(a->context->reader, a->task.tenant_no, a->task.event_key, build_cloudevent, a);
        if (r == 0)
            *ret = buf_slice(&a->built);
        return r;
    }
    int r = load_body(a);
    if (r < 0)
        return r;
    struct slice envelope = blob_slice(a->body.envelope);
    a->reserved = event_type_reserved(event_envelope_type(envelope));
    *ret = a->subscription->format == FORMAT_RAW ? event_data(envelope, a->body.data_size) : envelope;
    return 0;
}

/* ---- the headers ---- */

/* Every secret in force signs, newest first. */
static int add_signatures(struct attempt *a, const char *delivery_id, struct slice body) {
    buf_add_str(&a->lines, "webhook-signature: ");
    a->signature_at = a->lines.n;
    int64_t timestamp = a->started_at / 1000;
    for (uint16_t i = 0; i < a->subscription->keys_n; i++) {
        const struct signing_key *key = &a->subscription->keys[i];
        char text[SIGNATURE_TEXT_SIZE];
        if (key->expires_at && key->expires_at <= a->started_at)
            continue;
        int r = signer_sign(a->context->signer, key, slice_of(delivery_id), timestamp, body, text);
        if (r < 0)
            return r;
        if (a->lines.n > a->signature_at)
            buf_add_char(&a->lines, ' ');
        buf_add_str(&a->lines, text);
    }
    a->signature_n = a->lines.n - a->signature_at;
    buf_add_str(&a->lines, "\r\n");
    return a->signature_n ? 0 : -ENOKEY;
}

static void add_receipt_token(struct attempt *a) {
    char token[RECEIPT_TOKEN_SIZE];
    receipt_token(a->context->receipt_key, a->task.event_key, a->task.subscription_no, a->task.number, token);
    buf_addf(&a->lines, "posthorn-receipt-token: %s\r\n", token);
}

/* Each attempt is a step of its own in the trace that its event was published in. */
static void add_trace(struct attempt *a) {
    char parent[TRACEPARENT_N + 1];
    struct slice trace = blob_slice(a->body.trace), state = trace_state(trace);
    a->span = rng_next(a->context->rng);
    a->span += a->span == 0;
    trace_parent_for(trace, a->span, parent);
    a->traced_at = a->lines.n;
    buf_addf(&a->lines, "traceparent: %s\r\n", parent);
    if (state.n)
        buf_addf(&a->lines, "tracestate: %.*s\r\n", SLICE_ARG(state));
}

static int build_headers(struct attempt *a, struct slice body) {
    char delivery_id[ID_TEXT_SIZE], event_id[ID_TEXT_SIZE] = "";
    id_format(ID_DELIVERY, id_of_delivery(a->task.event_key, a->task.subscription_no), delivery_id);
    /* The envelope begins with {"id":"evt_… : the id's text without looking the event up. */
    struct slice envelope = a->body.envelope ? blob_slice(a->body.envelope) : body;
    const char *at = memmem(envelope.p, envelope.n, "\"evt_", 5);
    if (at && (size_t)(at - envelope.p) + ID_TEXT_SIZE <= envelope.n)
        memcpy(event_id, at + 1, ID_TEXT_SIZE - 1);
    buf_reset(&a->lines);
    buf_addf(&a->lines,
             "content-type: %s\r\nuser-agent: %s\r\nwebhook-id: %s\r\nwebhook-timestamp: %lld\r\n"
             "posthorn-event-id: %s\r\nposthorn-attempt: %u\r\n",
             content_type(a), a->context->user_agent, delivery_id, (long long)(a->started_at / 1000),
             event_id, a->task.number);
    int r = add_signatures(a, delivery_id, body);
    if (r < 0)
        return r;
    if (a->subscription->receipts)
        add_receipt_token(a);
    if (a->body.trace)
        add_trace(a);
    buf_add_slice(&a->lines, slice_of(a->subscription->headers));
    return buf_ok(&a->lines) ? 0 : -ENOMEM;
}

/* ---- the course of an attempt ---- */

static void request_done(struct client_request *r) {
    struct attempt *a = (struct attempt *)((char *)r - offsetof(struct attempt, request));
    a->outcome = (struct outcome){.status = r->status, .error = r->error, .retry_after_ms = -1};
    int64_t delay_ms;
    int64_t now = a->started_at + r->latency_us / 1000;
    if (r->retry_after.p && retry_after_parse(r->retry_after, now, &delay_ms) == 0)
        a->outcome.retry_after_ms = delay_ms;
    a->done(a);
}

/* An attempt that cannot be sent ends through the loop all the same, so that done never runs within
 * attempt_start. */
static void fail_later(struct attempt *a, enum attempt_error error) {
    a->not_sent = true;
    client_fail(a->context->client, &a->request, error);
}

static bool lease_suffices(const struct attempt *a, int64_t now) {
    const atomic_int_fast64_t *until_us = a->context->send_until_us;
    if (until_us && clock_mono_us() >= atomic_load(until_us))
        return false;
    return now + a->subscription->policy->timeout_ms < a->task.lease_until;
}

static int prepare(struct attempt *a) {
    struct slice body;
    const char *reason = "";
    int r = url_parse(slice_of(a->subscription->url), &a->url, &reason);
    if (r == 0)
        r = choose_body(a, &body);
    if (r == 0)
        r = build_headers(a, body);
    if (r < 0) {
        char id[ID_TEXT_SIZE];
        id_format(ID_DELIVERY, id_of_delivery(a->task.event_key, a->task.subscription_no), id);
        log_error("an attempt could not be prepared; it is retried", log_str("delivery", id),
                  log_str("error", strerror(-r)), log_str("reason", reason));
        return r;
    }
    a->request.url = &a->url;
    a->request.header_lines = buf_slice(&a->lines);
    a->request.body = body;
    return 0;
}

void attempt_start(struct attempt *a, const struct attempt_context *context, int64_t now) {
    a->context = context;
    a->started_at = now;
    a->not_sent = false;
    a->request.done = request_done;
    a->request.allow_http = a->subscription->allow_http;
    a->request.tls = a->subscription->tls;
    a->request.timeout_ms = a->subscription->policy->timeout_ms;
    if (!lease_suffices(a, now))
        fail_later(a, ATTEMPT_LEASE_EXPIRED);
    else if (prepare(a) < 0)
        fail_later(a, ATTEMPT_INTERNAL);
    else
        client_send(context->client, &a->request);
}

static int32_t to_ms(int64_t us) {
    return (int32_t)(us / 1000);
}

struct attempt_record attempt_record_of(const struct attempt *a) {
    const struct client_request *r = &a->request;
    struct attempt_record record = {
        .started_at = a->started_at,
        .latency_ms = to_ms(r->latency_us),
        .dns_ms = to_ms(r->dns_us),
        .connect_ms = to_ms(r->connect_us),
        .tls_ms = to_ms(r->tls_us),
        .wait_ms = to_ms(r->wait_us),
        .status = r->status,
        .error = r->error,
        .trigger = a->task.trigger,
        .worker_no = a->context->worker_no,
        .url = slice_of(a->subscription->url),
        .content_type = slice_of(content_type(a)),
        .request_headers = slice_of(a->subscription->headers),
        .response_headers = r->headers.n ? buf_slice(&r->headers) : SLICE_NONE,
        .response_body = r->body_kept.n ? buf_slice(&r->body_kept) : SLICE_NONE,
        .has_hash = r->has_hash,
    };
    if (a->traced_at)
        record.request_headers = (struct slice){a->lines.p + a->traced_at, a->lines.n - a->traced_at};
    if (a->signature_n)
        record.signature = (struct slice){a->lines.p + a->signature_at, a->signature_n};
    memcpy(record.response_hash, r->body_hash, sizeof record.response_hash);
    return record;
}

void attempt_clear(struct attempt *a) {
    struct buf built = a->built, lines = a->lines, headers = a->request.headers, body = a->request.body_kept;
    url_free(&a->url);
    blob_unref(a->body.envelope);
    blob_unref(a->body.trace);
    subscription_unref(a->subscription);
    *a = (struct attempt){.built = built, .lines = lines};
    a->request.headers = headers;
    a->request.body_kept = body;
    buf_reset(&a->built);
    buf_reset(&a->lines);
    buf_reset(&a->request.headers);
    buf_reset(&a->request.body_kept);
}

void attempt_free(struct attempt *a) {
    attempt_clear(a);
    buf_free(&a->built);
    buf_free(&a->lines);
    client_request_clear(&a->request);
    free(a);
}
