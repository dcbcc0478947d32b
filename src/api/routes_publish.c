/* Publishing: the hot path of the API. Nothing here parses more than it must. */
#include <errno.h>
#include <stdio.h>

#include <openssl/sha.h>
#include <strings.h>

#include "api/routes.h"
#include "base/clock.h"
#include "core/trace.h"

/* One publish request under way; lives in the request's data. */
struct publishing {
    struct request *r;
    bool batch;
    int result;
    struct buf trace;
    struct ingest_request ingest;
    struct ingest_event events[];
};

static void publishing_free(void *data) {
    struct publishing *p = data;
    ingest_request_clear(&p->ingest);
    buf_free(&p->trace);
    free(p);
}

static struct publishing *publishing_new(struct request *r, size_t n) {
    struct publishing *p = malloc(sizeof *p + n * sizeof p->events[0]);
    if (!p) {
        request_unavailable(r, -ENOMEM);
        return NULL;
    }
    memset(p, 0, sizeof *p);
    p->r = r;
    p->ingest.events = p->events;
    p->ingest.n = n;
    for (size_t i = 0; i < n; i++)
        p->events[i].envelope = NULL;
    r->data = p;
    r->data_free = publishing_free;
    return p;
}

/* ---- the answer ---- */

static void write_event(struct buf *out, const struct ingest_event *e) {
    char id[ID_TEXT_SIZE], at[RFC3339_SIZE];
    id_format(ID_EVENT, e->id, id);
    rfc3339_format(id_ms(e->id), at);
    /* A type's characters need no escaping. */
    buf_addf(out, "{\"id\":\"%s\",\"type\":\"%.*s\",\"created_at\":\"%s\",\"duplicate\":%s}", id,
             SLICE_ARG(e->publish.type), at, e->duplicate ? "true" : "false");
}

static void write_conflict(struct publishing *p) {
    if (p->ingest.conflict == SIZE_MAX)
        request_problem(
            p->r, 409,
            "This Idempotency-Key was used before with another body; use a new key for a new event.");
    else
        request_problem(p->r, 409,
                        "[%zu].idempotency_key was used before with another body; nothing was published.",
                        p->ingest.conflict);
}

/* Back on a thread of the API: the writer's is too precious for writing answers. */
static void write_answer(struct request *r) {
    struct publishing *p = r->data;
    const struct ingest_request *q = &p->ingest;
    if (p->result == -EEXIST) {
        write_conflict(p);
        return;
    }
    if (p->result < 0) {
        request_unavailable(r, p->result);
        return;
    }
    struct buf *out = request_write(r, 202);
    if (p->batch)
        buf_add_str(out, "{\"data\":[");
    for (size_t i = 0; i < q->n; i++) {
        if (i)
            buf_add_char(out, ',');
        write_event(out, &q->events[i]);
    }
    if (p->batch)
        buf_add_str(out, "]}");
}

static void published(struct ingest_request *q, int result) {
    struct publishing *p = (struct publishing *)((char *)q - offsetof(struct publishing, ingest));
    p->result = result;
    request_resume(p->r);
}

/* ---- what both have in common ---- */

/* What the headers of a name come to together (RFC 9110 §5.3). */
struct gathered {
    const char *name;
    struct buf values;
    unsigned n;
};

static enum MHD_Result gather(void *arg, enum MHD_ValueKind kind, const char *name, const char *value) {
    struct gathered *g = arg;
    (void)kind;
    if (strcasecmp(name, g->name) != 0 || !value)
        return MHD_YES;
    if (g->n++)
        buf_add_char(&g->values, ',');
    buf_add_str(&g->values, value);
    return MHD_YES;
}

static bool is_idempotency_key(struct slice key) {
    bool good = key.n >= 1 && key.n <= IDEMPOTENCY_KEY_MAX;
    for (size_t i = 0; good && i < key.n; i++)
        good = key.p[i] >= ' ' && key.p[i] <= '~';
    return good;
}

/* The Idempotency-Key header, of one event or of a whole batch. Two of them are none: which one would a
 * repetition be known by? */
static bool take_idempotency_key(struct request *r, struct ingest_request *q) {
    const char *key = request_header_value(r, "Idempotency-Key");
    if (!key)
        return true;
    struct gathered all = {.name = "Idempotency-Key"};
    MHD_get_connection_values(r->connection, MHD_HEADER_KIND, gather, &all);
    buf_free(&all.values);
    q->idempotency_key = slice_of(key);
    if (all.n != 1 || !is_idempotency_key(q->idempotency_key)) {
        struct field_errors errors;
        field_errors_init(&errors);
        field_error_add(&errors, "Idempotency-Key",
                        "must be one header of 1 to %d printable ASCII characters", IDEMPOTENCY_KEY_MAX);
        request_invalid(r, &errors);
        return false;
    }
    SHA256((const unsigned char *)r->body.p, r->body.n, q->body_hash);
    return true;
}

/* The trace that the producer is in. Two traceparents are none, as the standard says. */
static void take_trace(struct request *r, struct publishing *p) {
    if (!request_header_value(r, "traceparent"))
        return;
    struct gathered parent = {.name = "traceparent"}, state = {.name = "tracestate"};
    MHD_get_connection_values(r->connection, MHD_HEADER_KIND, gather, &parent);
    MHD_get_connection_values(r->connection, MHD_HEADER_KIND, gather, &state);
    struct slice list = state.n && buf_ok(&state.values) ? buf_slice(&state.values) : SLICE_NONE;
    if (parent.n == 1 && buf_ok(&parent.values) && trace_take(buf_slice(&parent.values), list, &p->trace) &&
        buf_ok(&p->trace))
        p->ingest.trace = buf_slice(&p->trace);
    buf_free(&parent.values);
    buf_free(&state.values);
}

static bool within_quota(struct request *r, size_t n) {
    unsigned wait_seconds;
    if (directory_take_events(r->o->directory, r->tenant.no, (unsigned)n, clock_mono_us(), &wait_seconds))
        return true;
    char text[16];
    snprintf(text, sizeof text, "%u", wait_seconds);
    request_problem(r, 429,
                    "The tenant's events_per_second is used up: try again after Retry-After seconds.");
    request_header(r, "Retry-After", text);
    return false;
}

static void submit(struct request *r, struct publishing *p) {
    struct ingest_request *q = &p->ingest;
    q->tenant_no = r->tenant.no;
    memcpy(q->tenant_id, r->tenant.id, sizeof q->tenant_id);
    q->done = published;
    if (!take_idempotency_key(r, q) || !within_quota(r, q->n))
        return;
    take_trace(r, p);
    r->finish = write_answer;
    request_suspend(r);
    int err = ingest_submit(r->o->ingest, q, r->now);
    if (err < 0) {
        p->result = err;
        request_resume(r);
    }
}

static size_t data_limit(const struct request *r) {
    return r->tenant.limits.max_payload_bytes < r->o->event_bytes_max ? r->tenant.limits.max_payload_bytes
                                                                      : r->o->event_bytes_max;
}

static void malformed(struct request *r, const char *problem, size_t offset) {
    request_problem(r, 400, "The body is not JSON: %s at byte %zu.", problem, offset);
}

static void payload_too_large(struct request *r, const char *prefix) {
    request_problem(r, 413, "%sdata may have at most %zu bytes.", prefix, data_limit(r));
}

/* ---- one event ---- */

void route_publish(struct request *r) {
    static const char *const types[] = {"application/json"};
    if (!request_content_type(r, types, 1) || !request_no_query(r))
        return;
    struct publishing *p = publishing_new(r, 1);
    if (!p)
        return;
    struct publish_rules rules = {.prefix = "", .data_bytes_max = data_limit(r), .now = r->now};
    struct field_errors errors;
    field_errors_init(&errors);
    const char *problem = "";
    size_t offset = 0;
    int err = publish_parse(buf_slice(&r->body), &rules, &p->events[0].publish, &errors, &problem, &offset);
    if (err == -EBADMSG)
        malformed(r, problem, offset);
    else if (err == -EMSGSIZE)
        payload_too_large(r, "");
    else if (err == -EINVAL)
        request_invalid(r, &errors);
    else if (err < 0)
        request_unavailable(r, err);
    else
        submit(r, p);
}

/* ---- a batch ---- */

enum { BATCH_AROUND = 2 }; /* the array and the event around each data */

/* The slices of a batch's events. */
struct batch {
    struct slice items[INGEST_BATCH_MAX];
    size_t n, total; /* total counts those past the maximum too */
};

static void add_item(struct batch *b, struct slice item) {
    if (b->n < INGEST_BATCH_MAX)
        b->items[b->n++] = item;
    b->total++;
}

static bool split_array(struct request *r, struct batch *b) {
    struct json_cursor c = json_open_around(buf_slice(&r->body), BATCH_AROUND);
    struct slice whole;
    enum json_type type;
    /* Malformed JSON anywhere is a 400, before what the array holds is looked at. */
    if (json_value(&c, &whole, &type) < 0 || json_finish(&c) < 0) {
        malformed(r, c.problem, json_offset(&c));
        return false;
    }
    if (type != JSON_TYPE_ARRAY) {
        struct field_errors errors;
        field_errors_init(&errors);
        field_error_add(&errors, "body", "must be an array of events");
        request_invalid(r, &errors);
        return false;
    }
    c = json_open_around(whole, BATCH_AROUND);
    bool first = true;
    struct slice item;
    CHECK(json_enter_array(&c) == 0);
    while (json_next_element(&c, &first, &item, &type) > 0)
        add_item(b, item);
    return true;
}

static bool split_lines(struct request *r, struct batch *b) {
    struct slice rest = buf_slice(&r->body);
    while (rest.n) {
        const char *end = memchr(rest.p, '\n', rest.n);
        size_t n = end ? (size_t)(end - rest.p) : rest.n;
        struct slice line = {rest.p, n};
        while (line.n &&
               (line.p[line.n - 1] == '\r' || line.p[line.n - 1] == ' ' || line.p[line.n - 1] == '\t'))
            line.n--;
        if (line.n)
            add_item(b, line);
        n += end ? 1 : 0;
        rest.p += n;
        rest.n -= n;
    }
    return true;
}

static bool parse_item(struct request *r, struct publishing *p, const struct batch *b, size_t i,
                       struct field_errors *errors) {
    char prefix[24];
    snprintf(prefix, sizeof prefix, "[%zu].", i);
    struct publish_rules rules = {
        .prefix = prefix, .in_batch = true, .data_bytes_max = data_limit(r), .now = r->now};
    const char *problem = "";
    size_t offset = 0;
    int err = publish_parse(b->items[i], &rules, &p->events[i].publish, errors, &problem, &offset);
    if (err == -EBADMSG)
        malformed(r, problem, offset + (size_t)(b->items[i].p - r->body.p));
    else if (err == -EMSGSIZE)
        payload_too_large(r, prefix);
    else if (err == -ENOMEM)
        request_unavailable(r, err);
    else if (p->events[i].publish.idempotency_key.p)
        SHA256((const unsigned char *)b->items[i].p, b->items[i].n, p->events[i].body_hash);
    return err == 0 || err == -EINVAL;
}

static void publish_items(struct request *r, const struct batch *b) {
    struct field_errors errors;
    field_errors_init(&errors);
    if (b->total == 0 || b->total > INGEST_BATCH_MAX) {
        field_error_add(&errors, "body", "must hold 1 to %d events, not %zu", INGEST_BATCH_MAX, b->total);
        request_invalid(r, &errors);
        return;
    }
    struct publishing *p = publishing_new(r, b->n);
    if (!p)
        return;
    p->batch = true;
    for (size_t i = 0; i < b->n; i++)
        if (!parse_item(r, p, b, i, &errors))
            return;
    if (errors.n)
        request_invalid(r, &errors);
    else
        submit(r, p);
}

void route_publish_batch(struct request *r) {
    static const char *const types[] = {"application/json", "application/x-ndjson"};
    if (!request_content_type(r, types, 2) || !request_no_query(r))
        return;
    const char *type = request_header_value(r, MHD_HTTP_HEADER_CONTENT_TYPE);
    bool lines = type && strncasecmp(type, types[1], strlen(types[1])) == 0;
    struct batch *b = calloc(1, sizeof *b);
    if (!b) {
        request_unavailable(r, -ENOMEM);
        return;
    }
    if (lines ? split_lines(r, b) : split_array(r, b))
        publish_items(r, b);
    free(b);
}
