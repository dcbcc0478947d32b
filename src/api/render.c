#include "api/render.h"

#include <openssl/sha.h>

#include "base/clock.h"

static void member(struct buf *out, const char *name) {
    char before = out->n ? out->p[out->n - 1] : '{';
    if (before != '{' && before != '[')
        buf_add_char(out, ',');
    buf_addf(out, "\"%s\":", name);
}

void render_text(struct buf *out, const char *name, struct slice text) {
    member(out, name);
    if (text.p)
        buf_add_json_string(out, text);
    else
        buf_add_str(out, "null");
}

static void render_word(struct buf *out, const char *name, const char *word) {
    render_text(out, name, slice_of(word));
}

void render_time(struct buf *out, const char *name, int64_t ms) {
    char text[RFC3339_SIZE];
    if (ms)
        rfc3339_format(ms, text);
    render_word(out, name, ms ? text : NULL);
}

static void render_int(struct buf *out, const char *name, int64_t v) {
    member(out, name);
    buf_addf(out, "%lld", (long long)v);
}

static void render_int_or_null(struct buf *out, const char *name, int64_t v) {
    if (v)
        render_int(out, name, v);
    else
        render_word(out, name, NULL);
}

static void render_id(struct buf *out, const char *name, enum id_kind kind, struct id id) {
    char text[ID_TEXT_SIZE];
    id_format(kind, id, text);
    render_word(out, name, text);
}

/* ---- events ---- */

void render_event(struct buf *out, const char *tenant_id, const struct event_row *row) {
    static const char *const states[] = {"pending", "expanding", "done"};
    const struct event_record *e = &row->event;
    buf_add_char(out, '{');
    render_id(out, "id", ID_EVENT, e->id);
    render_word(out, "tenant_id", tenant_id);
    render_text(out, "type", e->type);
    render_text(out, "schema_version", e->schema_version);
    render_text(out, "ordering_key", e->ordering_key);
    render_time(out, "deliver_at", e->deliver_at);
    render_time(out, "created_at", id_ms(e->id));
    member(out, "data");
    buf_add_slice(out, event_data(e->body, e->data_size));
    buf_addf(out, ",\"fanout\":{\"state\":\"%s\",\"deliveries\":%llu}}", states[row->fanout],
             (unsigned long long)row->fanout_deliveries);
}

/* ---- deliveries ---- */

static void render_replay(struct buf *out, const struct delivery_row *row) {
    if (!row->replay_source.p) {
        render_word(out, "replay", NULL);
        return;
    }
    member(out, "replay");
    buf_add_char(out, '{');
    render_text(out, "source", row->replay_source);
    render_text(out, "requested_by", row->replay_requested_by);
    render_time(out, "at", row->replay_at);
    buf_add_char(out, '}');
}

static void render_receipt(struct buf *out, const struct delivery_row *row) {
    if (row->receipt == RECEIPT_NONE) {
        render_word(out, "receipt", NULL);
        return;
    }
    member(out, "receipt");
    buf_add_char(out, '{');
    render_word(out, "status", receipt_status_name(row->receipt));
    render_text(out, "note", row->receipt_note);
    render_time(out, "at", row->receipt_at);
    buf_add_char(out, '}');
}

void render_delivery_open(struct buf *out, const char *tenant_id, const struct delivery_row *row,
                          enum lane_wait waiting_on) {
    bool delivered = row->state == DELIVERY_DELIVERED, dlq = row->state == DELIVERY_DLQ;
    buf_add_char(out, '{');
    render_id(out, "id", ID_DELIVERY, id_of_delivery(row->event_key, row->subscription_no));
    render_word(out, "tenant_id", tenant_id);
    render_id(out, "event_id", ID_EVENT, row->event_id);
    render_text(out, "event_type", row->event_type);
    render_id(out, "subscription_id", ID_SUBSCRIPTION, row->subscription_id);
    render_word(out, "state", delivery_state_name(row->state));
    render_int(out, "attempt_count", row->attempts);
    render_time(out, "next_attempt_at", row->next_attempt_at);
    render_word(out, "waiting_on", lane_wait_name(waiting_on));
    render_time(out, "created_at", row->created_at);
    render_time(out, "delivered_at", delivered ? row->closed_at : 0);
    render_int_or_null(out, "last_status_code", row->last_status);
    render_word(out, "last_error", attempt_error_name(row->last_error));
    render_word(out, "failure_reason", dlq ? delivery_reason_name(row->reason) : NULL);
    render_time(out, "exhausted_at", dlq ? row->closed_at : 0);
    render_text(out, "ordering_key", row->ordering_key);
    render_replay(out, row);
    render_receipt(out, row);
}

void render_transition(struct buf *out, int64_t at, int from, enum delivery_state to, const char *reason) {
    render_time(out, "at", at);
    render_word(out, "from", from < 0 ? NULL : delivery_state_name((enum delivery_state)from));
    render_word(out, "to", delivery_state_name(to));
    render_word(out, "reason", reason);
}

/* ---- attempts ---- */

/* Takes the next "Name: value\r\n" off the front; false at the end. */
static bool next_line(struct slice *rest, struct slice *name, struct slice *value) {
    while (rest->n) {
        const char *end = memchr(rest->p, '\n', rest->n);
        size_t n = end ? (size_t)(end - rest->p) + 1 : rest->n;
        struct slice line = {rest->p, n};
        rest->p += n;
        rest->n -= n;
        while (line.n && (line.p[line.n - 1] == '\n' || line.p[line.n - 1] == '\r'))
            line.n--;
        const char *colon = memchr(line.p, ':', line.n);
        if (!colon)
            continue;
        *name = (struct slice){line.p, (size_t)(colon - line.p)};
        *value = (struct slice){colon + 1, line.n - name->n - 1};
        while (value->n && (*value->p == ' ' || *value->p == '\t'))
            value->p++, value->n--;
        return true;
    }
    return false;
}

static void add_lower_name(struct buf *out, struct slice name) {
    char lower[256];
    size_t n = name.n < sizeof lower ? name.n : sizeof lower;
    for (size_t i = 0; i < n; i++)
        lower[i] = name.p[i] >= 'A' && name.p[i] <= 'Z' ? (char)(name.p[i] + 32) : name.p[i];
    buf_add_json_string(out, (struct slice){lower, n});
}

/* The values of a name from here on, joined as RFC 9110 §5.3 allows. */
static void add_joined(struct buf *out, struct slice first, struct slice name, struct slice rest) {
    _cleanup_buf_ struct buf joined = {0};
    struct slice other, value;
    buf_add_slice(&joined, first);
    while (next_line(&rest, &other, &value)) {
        if (!slice_eq_nocase(other, name))
            continue;
        buf_add_str(&joined, ", ");
        buf_add_slice(&joined, value);
    }
    buf_add_json_string(out, buf_slice(&joined));
}

static bool seen_before(struct slice lines, struct slice name) {
    struct slice other, value;
    while (next_line(&lines, &other, &value) && other.p < name.p)
        if (slice_eq_nocase(other, name))
            return true;
    return false;
}

/* Looking for repeated names costs the square of the lines, and a subscriber chooses how many it sends. */
enum { HEADER_LINES_SHOWN_MAX = 128 };

static void add_header_lines(struct buf *out, struct slice lines) {
    struct slice rest = lines, name, value;
    for (int n = 0; n < HEADER_LINES_SHOWN_MAX && next_line(&rest, &name, &value); n++) {
        if (seen_before(lines, name))
            continue;
        if (out->p[out->n - 1] != '{')
            buf_add_char(out, ',');
        add_lower_name(out, name);
        buf_add_char(out, ':');
        add_joined(out, value, name, rest);
    }
}

/* What was sent, from what the attempt keeps and what follows from it. */
static void render_request_headers(struct buf *out, const struct delivery_row *d,
                                   const struct attempt_row *row) {
    const struct attempt_record *a = &row->attempt;
    member(out, "request_headers");
    buf_add_char(out, '{');
    render_text(out, "content-type", a->content_type);
    render_text(out, "user-agent", row->user_agent);
    render_id(out, "webhook-id", ID_DELIVERY, id_of_delivery(d->event_key, d->subscription_no));
    buf_addf(out, ",\"webhook-timestamp\":\"%lld\"", (long long)(a->started_at / 1000));
    if (a->signature.p)
        render_text(out, "webhook-signature", a->signature);
    render_id(out, "posthorn-event-id", ID_EVENT, d->event_id);
    buf_addf(out, ",\"posthorn-attempt\":\"%u\"", row->number);
    if (a->request_headers.p)
        add_header_lines(out, a->request_headers);
    buf_add_char(out, '}');
}

static void render_response(struct buf *out, const struct attempt_record *a) {
    if (!a->status) {
        buf_add_str(out, ",\"response_headers\":null,\"response_body\":null,\"response_hash\":null");
        return;
    }
    buf_add_str(out, ",\"response_headers\":{");
    add_header_lines(out, a->response_headers);
    buf_add_char(out, '}');
    render_text(out, "response_body", a->response_body.p ? a->response_body : SLICE_LIT(""));
    uint8_t hash[32];
    char hex[65];
    if (a->has_hash)
        memcpy(hash, a->response_hash, sizeof hash);
    else
        SHA256((const unsigned char *)"", 0, hash);
    hex_encode(hash, sizeof hash, hex);
    buf_addf(out, ",\"response_hash\":\"sha256:%s\"", hex);
}

void render_attempt(struct buf *out, const struct delivery_row *delivery, const struct attempt_row *row) {
    const struct attempt_record *a = &row->attempt;
    buf_add_char(out, '{');
    render_id(out, "id", ID_ATTEMPT, row->id);
    render_id(out, "delivery_id", ID_DELIVERY,
              id_of_delivery(delivery->event_key, delivery->subscription_no));
    render_int(out, "number", row->number);
    render_time(out, "started_at", a->started_at);
    render_int(out, "latency_ms", a->latency_ms);
    buf_addf(out, ",\"phases_ms\":{\"dns\":%d,\"connect\":%d,\"tls\":%d,\"wait\":%d}", a->dns_ms,
             a->connect_ms, a->tls_ms, a->wait_ms);
    render_int_or_null(out, "status_code", a->status);
    render_word(out, "error", attempt_error_name(a->error));
    render_text(out, "url", a->url);
    render_request_headers(out, delivery, row);
    render_response(out, a);
    render_text(out, "worker_id", row->worker);
    render_word(out, "trigger", attempt_trigger_name(a->trigger));
    buf_add_char(out, '}');
}
