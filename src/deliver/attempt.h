/* One attempt at a delivery: from a claimed task to a signed request on the wire, and what came of it. */
#pragma once

#include "core/retry.h"
#include "core/subscription.h"
#include "deliver/client.h"
#include "settle/settle.h"
#include "store/body_cache.h"
#include "store/store.h"

/* What a loop's attempts share. */
struct attempt_context {
    struct client *client;
    struct signer *signer;
    struct body_cache *bodies;
    struct store_reader *reader;
    const char *user_agent;
    const uint8_t *receipt_key; /* of RECEIPT_KEY_SIZE */
    uint32_t worker_no;
    /* Nothing is sent from this time of the monotonic clock on (µs); NULL: there is no such time. */
    const atomic_int_fast64_t *send_until_us;
    struct rng *rng; /* for ids of spans */
};

struct attempt {
    struct task task;
    struct subscription *subscription; /* as it is when the attempt begins */
    void (*done)(struct attempt *a);
    int64_t started_at; /* Unix ms */

    /* results, valid from done until attempt_clear */
    struct outcome outcome;
    bool not_sent; /* the lease had too little left, or there was no memory: nothing went out */
    bool reserved; /* what was sent is a "posthorn.…" event */

    /* private */
    const struct attempt_context *context;
    struct url url;
    struct body body;
    struct buf built; /* a body that is not the envelope itself */
    struct buf lines; /* "Name: value\r\n…" */
    size_t signature_at, signature_n;
    size_t traced_at; /* in lines, where the trace and the subscriber's own headers begin; 0: no trace */
    uint64_t span;    /* the id that this attempt has in it */
    struct client_request request;

    /* the caller's */
    void *owner;
    struct settlement settlement;
    struct health_change health;
    struct attempt *next;
};

/* Starts an attempt whose task, subscription (a reference it keeps) and done are set. done is called once,
 * later, from the loop; now is Unix ms. No send begins unless the lease outlives its deadline. */
void attempt_start(struct attempt *a, const struct attempt_context *context, int64_t now);

/* What is to be recorded of it; the slices live until attempt_clear. */
struct attempt_record attempt_record_of(const struct attempt *a);

/* Releases what the attempt holds; it can be used again. Keeps its buffers. */
void attempt_clear(struct attempt *a);
/* The buffers too. */
void attempt_free(struct attempt *a);
