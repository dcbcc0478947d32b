/* A committed change of a subscription takes effect: its new snapshot goes to the index and to its lane. On
 * the writer's thread, from a job's done. */
#pragma once

#include <stdatomic.h>

#include "fanout/fanout.h"
#include "store/writer.h"

/* Those of apply_tenant, for whoever must know when all is in force. */
struct apply_walks {
    atomic_uint under_way;
    struct tenant_walk *stalled; /* the store did not answer them; of the writer's thread */
};

struct apply_context {
    struct store *store;
    struct writer *writer;
    struct fanout *fanout;
    struct dispatch *dispatch;
    bool server_allow_http;
    struct policy_memo *policies; /* what the snapshots have in common is held once */
    struct apply_walks *walks; /* NULL: what the store does not answer is put in force with the next start */
};

/* Whether it was deleted; a store that does not answer says no. */
bool subscription_is_gone(const struct apply_context *c, uint32_t subscription_no);

/* Failure is logged; the change is in the store and takes effect at the next start at the latest. */
void apply_subscription(const struct apply_context *c, uint32_t subscription_no, int64_t now);

enum {
    APPLY_A_STEP = 100,       /* subscriptions put in force at one go */
    APPLY_LOOKED_AT = 100000, /* numbers passed over at one go */
};
/* The same for all subscriptions of a changed tenant, in steps between which the writer serves others; the
 * first at once. */
void apply_tenant(const struct apply_context *c, uint32_t tenant_no, int64_t now);
/* Those that are stalled go on: the store answers. */
void apply_go_on(const struct apply_context *c);

/* Within a transaction: disables a subscription for its endpoint's sake: 1. 0 when it is disabled already;
 * -ENOENT when it is gone. Call apply_subscription after the commit. */
int disable_subscription(const struct apply_context *c, uint32_t subscription_no, const char *reason,
                         int64_t now) MUST_USE;
