#include "ingest/ingest.h"

#include <errno.h>

#include "base/clock.h"
#include "base/random.h"

enum { TRIES_MAX = 3 }; /* of a request whose idempotency key another node takes at the same time */

struct ingest {
    struct ingest_options o;
};

int ingest_new(const struct ingest_options *o, struct ingest **ret) {
    struct ingest *i = malloc(sizeof *i);
    if (!i)
        return -ENOMEM;
    i->o = *o;
    *ret = i;
    return 0;
}

void ingest_free(struct ingest *i) {
    free(i);
}

/* 0: new; 1: known with the same body (ids filled in); -EEXIST: known with another. */
static int look_up(struct store *st, uint32_t tenant_no, struct slice key, const uint8_t body_hash[32],
                   struct id *ids, size_t ids_max) {
    uint8_t hash[32];
    size_t n;
    int r = store_find_idempotency(st, tenant_no, key, hash, ids, ids_max, &n);
    if (r == -ENOENT)
        return 0;
    if (r < 0)
        return r;
    return n == ids_max && memcmp(hash, body_hash, sizeof hash) == 0 ? 1 : -EEXIST;
}

static int fold_whole_request(struct ingest_request *q, struct store *st) {
    struct id *ids = calloc(q->n, sizeof *ids);
    if (!ids)
        return -ENOMEM;
    int r = look_up(st, q->tenant_no, q->idempotency_key, q->body_hash, ids, q->n);
    for (size_t i = 0; r == 1 && i < q->n; i++) {
        q->events[i].id = ids[i];
        q->events[i].duplicate = true;
    }
    if (r == -EEXIST)
        q->conflict = SIZE_MAX;
    q->duplicate = r == 1;
    free(ids);
    return r;
}

/* An earlier event of the same batch with the same key; NULL when there is none. */
static struct ingest_event *twin_in_batch(struct ingest_request *q, size_t i) {
    struct slice key = q->events[i].publish.idempotency_key;
    for (size_t k = 0; k < i; k++) {
        struct slice other = q->events[k].publish.idempotency_key;
        if (other.p && slice_eq(other, key))
            return &q->events[k];
    }
    return NULL;
}

/* Marks the events of a batch whose own keys are known; writes nothing. */
static int fold_events(struct ingest_request *q, struct store *st) {
    for (size_t i = 0; i < q->n; i++) {
        struct ingest_event *e = &q->events[i];
        if (!e->publish.idempotency_key.p)
            continue;
        struct ingest_event *twin = twin_in_batch(q, i);
        int r;
        if (twin)
            r = memcmp(twin->body_hash, e->body_hash, sizeof e->body_hash) == 0 ? 1 : -EEXIST;
        else
            r = look_up(st, q->tenant_no, e->publish.idempotency_key, e->body_hash, &e->id, 1);
        if (r == -EEXIST)
            q->conflict = i;
        if (r < 0)
            return r;
        e->duplicate = r == 1;
        if (twin)
            e->id = twin->id;
    }
    return 0;
}

static int keep_key(struct ingest_request *q, struct store *st, struct slice key, const uint8_t hash[32],
                    const struct id *ids, size_t n) {
    struct idempotency_record record = {
        .tenant_no = q->tenant_no, .key = key, .ids = ids, .ids_n = n, .created_at = id_ms(ids[0])};
    memcpy(record.body_hash, hash, sizeof record.body_hash);
    return store_insert_idempotency(st, &record);
}

static int keep_whole_request(struct ingest_request *q, struct store *st) {
    struct id *ids = calloc(q->n, sizeof *ids);
    if (!ids)
        return -ENOMEM;
    for (size_t i = 0; i < q->n; i++)
        ids[i] = q->events[i].id;
    int r = keep_key(q, st, q->idempotency_key, q->body_hash, ids, q->n);
    free(ids);
    return r;
}

static int accept_event(struct ingest_request *q, struct ingest_event *e, struct store *st, int64_t now) {
    const struct ingest_options *o = &q->ingest->o;
    const struct publish *p = &e->publish;
    struct event_record record = {
        .id = e->id,
        .tenant_no = q->tenant_no,
        .type = p->type,
        .schema_version = p->schema_version,
        .ordering_key = p->ordering_key,
        .deliver_at = p->deliver_at,
        .body = blob_slice(e->envelope),
        .data_size = (uint32_t)p->data.n,
        .trace = q->kept_trace ? blob_slice(q->kept_trace) : SLICE_NONE,
    };
    int r = fanout_event(o->fanout, st, &record, q->only_subscription, now, o->dispatch);
    q->deliveries += record.deliveries;
    if (r == 0)
        r = store_insert_events(st, &record, 1);
    if (r == 0 && p->idempotency_key.p)
        r = keep_key(q, st, p->idempotency_key, e->body_hash, &e->id, 1);
    return r;
}

static void expect_keys(struct writer_job *job, struct store *st) {
    struct ingest_request *q = (struct ingest_request *)((char *)job - offsetof(struct ingest_request, job));
    if (q->idempotency_key.p)
        store_expect_idempotency(st, q->tenant_no, q->idempotency_key);
    for (size_t i = 0; i < q->n; i++)
        if (q->events[i].publish.idempotency_key.p)
            store_expect_idempotency(st, q->tenant_no, q->events[i].publish.idempotency_key);
}

static int accept_request(struct writer_job *job, struct store *st) {
    struct ingest_request *q = (struct ingest_request *)((char *)job - offsetof(struct ingest_request, job));
    q->deliveries = 0;
    int r = q->idempotency_key.p ? fold_whole_request(q, st) : 0;
    if (r != 0)
        return r < 0 ? r : 0;
    r = fold_events(q, st);
    int64_t now = clock_now_ms(); /* it may have waited for its turn */
    if (q->span)
        q->fanout_us = clock_mono_us();
    for (size_t i = 0; r == 0 && i < q->n; i++)
        if (!q->events[i].duplicate)
            r = accept_event(q, &q->events[i], st, now);
    if (q->span)
        q->fanned_out_us = clock_mono_us();
    if (r == 0 && q->idempotency_key.p)
        r = keep_whole_request(q, st);
    return r;
}

/* Monotonic microseconds of this request as Unix ones. */
static int64_t wall_us(const struct ingest_request *q, int64_t mono_us) {
    return q->submitted_at * 1000 + (mono_us - q->submitted_us);
}

static void record_spans(struct ingest_request *q, int result, bool accepted) {
    struct span s = {.id = q->span,
                     .parent = q->trace.p ? trace_span(q->trace) : 0,
                     .kind = SPAN_PUBLISH,
                     .failed = result < 0,
                     .started_us = wall_us(q, q->submitted_us),
                     .ended_us = wall_us(q, clock_mono_us()),
                     .count = (uint32_t)q->n};
    trace_id(blob_slice(q->kept_trace), s.trace_id);
    memcpy(s.tenant_id, q->tenant_id, sizeof s.tenant_id);
    s.event_id = result < 0 ? (struct id){0} : q->events[0].id;
    tracer_add(q->ingest->o.tracer, &s);
    if (!accepted)
        return;
    s.parent = s.id;
    s.id = tracer_new_id(q->ingest->o.tracer);
    s.kind = SPAN_FANOUT;
    s.started_us = wall_us(q, q->fanout_us);
    s.ended_us = wall_us(q, q->fanned_out_us);
    s.count = q->deliveries;
    tracer_add(q->ingest->o.tracer, &s);
}

static void request_done(struct writer_job *job, int result) {
    struct ingest_request *q = (struct ingest_request *)((char *)job - offsetof(struct ingest_request, job));
    uint64_t accepted = 0;
    if (result < 0 && job->clashed && ++q->tries < TRIES_MAX) {
        writer_submit_internal(q->ingest->o.writer, job);
        return;
    }
    for (size_t i = 0; result == 0 && i < q->n; i++)
        accepted += !q->events[i].duplicate;
    if (accepted)
        metrics_count(q->ingest->o.metrics, METRIC_EVENTS_PUBLISHED, accepted);
    if (q->span)
        record_spans(q, result, accepted != 0);
    q->done(q, result);
}

void ingest_request_clear(struct ingest_request *r) {
    for (size_t i = 0; i < r->n; i++) {
        blob_unref(r->events[i].envelope);
        r->events[i].envelope = NULL;
    }
    blob_unref(r->kept_trace);
    r->kept_trace = NULL;
}

/* The trace that its events are kept with: the producer's, in which this request is a step when that is
 * recorded. */
static int keep_trace(struct ingest *i, struct ingest_request *r) {
    _cleanup_buf_ struct buf text = {0};
    if (i->o.tracer)
        tracer_begin(i->o.tracer, r->trace, &text, &r->span);
    else
        buf_add_slice(&text, r->trace);
    if (!buf_ok(&text) || (text.n && !(r->kept_trace = blob_of(buf_slice(&text)))))
        return -ENOMEM;
    if (r->span)
        r->submitted_us = clock_mono_us();
    return 0;
}

/* Gives every event its id and builds its envelope, on the caller's thread. */
static int prepare(struct ingest *i, struct ingest_request *r, int64_t now) {
    int err = keep_trace(i, r);
    if (err < 0)
        return err;
    uint64_t key = id_source_take(i->o.ids, now, (unsigned)r->n);
    for (size_t k = 0; k < r->n; k++) {
        struct ingest_event *e = &r->events[k];
        e->id.key = key + k * id_source_step(i->o.ids);
        random_bytes(&e->id.tail, sizeof e->id.tail);
        e->id.tail &= ID_TAIL_MAX;
        e->duplicate = false;
        e->envelope = event_envelope(e->id, r->tenant_id, &e->publish);
        if (!e->envelope)
            return -ENOMEM;
        /* Before it is accepted, and for an event that turns out to be a duplicate in vain: the writer's time
         * is dearer. */
        struct body body = {
            .envelope = e->envelope, .trace = r->kept_trace, .data_size = (uint32_t)e->publish.data.n};
        body_cache_put(i->o.bodies, e->id.key, &body);
    }
    return 0;
}

int ingest_submit(struct ingest *i, struct ingest_request *r, int64_t now) {
    CHECK(r->n > 0 && r->n <= INGEST_BATCH_MAX && r->done);
    for (size_t k = 0; k < r->n; k++)
        r->events[k].envelope = NULL;
    r->kept_trace = NULL;
    r->span = 0;
    r->tries = 0;
    r->ingest = i;
    r->submitted_at = now;
    r->duplicate = false;
    r->job = (struct writer_job){.expect = expect_keys, .run = accept_request, .done = request_done};
    int err = prepare(i, r, now);
    if (err == 0)
        err = writer_submit(i->o.writer, &r->job);
    if (err < 0)
        ingest_request_clear(r);
    return err;
}
