/* Ingest: events in, durable before they are acknowledged. */
#pragma once

#include "core/event.h"
#include "fanout/fanout.h"
#include "observe/tracer.h"
#include "store/body_cache.h"
#include "store/writer.h"

enum { INGEST_BATCH_MAX = 1000 };

struct ingest;

struct ingest_options {
    struct writer *writer;
    struct fanout *fanout;
    struct dispatch *dispatch;
    struct body_cache *bodies;
    struct id_source *ids;
    struct metrics *metrics;
    struct tracer *tracer; /* NULL: nobody records */
};
int ingest_new(const struct ingest_options *o, struct ingest **ret) MUST_USE;
void ingest_free(struct ingest *i);

struct ingest_event {
    struct publish publish; /* filled by publish_parse */
    /* results */
    struct id id; /* id_ms(id) is created_at */
    bool duplicate;
    /* private */
    struct blob *envelope;
    uint8_t body_hash[32];
};

/* A publish request of one tenant: one event, or a batch, all or nothing. The caller allocates it with its
 * events and the bytes they point into, and keeps it alive until done. */
struct ingest_request {
    uint32_t tenant_no;
    char tenant_id[TENANT_ID_MAX + 1];
    struct slice idempotency_key; /* of the header, for the whole request; absent: p == NULL */
    uint8_t body_hash[32];        /* SHA-256 of the request body; needed with an idempotency key */
    uint32_t only_subscription;   /* the test route: deliver to this one alone */
    struct slice trace;           /* core/trace.h, of all its events; absent: p == NULL */
    bool duplicate;               /* result: the header's key was known, all events are the earlier ones */
    size_t conflict;              /* result with -EEXIST: which event's key, SIZE_MAX for the header's */
    size_t n;
    struct ingest_event *events;
    /* On the writer's thread once durable: 0; -EEXIST: an idempotency key was used before with another body;
     * -EIO, -ENOSPC: nothing was accepted, try again later. */
    void (*done)(struct ingest_request *r, int result);
    /* private */
    struct writer_job job;
    struct ingest *ingest;
    struct blob *kept_trace;
    uint64_t span;                                  /* of the request, 0: not recorded */
    int64_t submitted_us, fanout_us, fanned_out_us; /* monotonic, when it is recorded */
    uint32_t deliveries;
    unsigned tries;
    int64_t submitted_at;
};

/* Takes the request over until done. -EAGAIN: the queue is full (503); -ESHUTDOWN; -ENOMEM. With an error
 * done is not called. Events' idempotency keys (batch) are compared by the hash of the event's own bytes: set
 * body_hash of each that has one. */
int ingest_submit(struct ingest *i, struct ingest_request *r, int64_t now) MUST_USE;
void ingest_request_clear(struct ingest_request *r); /* frees what submit allocated */
