/* The dispatcher: the delivery loops (one a core), each with the lanes whose hash falls to it. It claims what
 * a lane may send, sends it, settles the outcome, and waits for what comes due. Lanes are loop-local; other
 * threads talk to them by message. */
#pragma once

#include "core/subscription.h"
#include "lanes/lanes.h"
#include "lanes/ownership.h"
#include "observe/metrics.h"
#include "observe/operational.h"
#include "observe/tracer.h"
#include "store/writer.h"

struct dispatch;
struct body_cache;
struct egress;

/* The store has deliveries of this lane that come due at due_at. */
struct lane_notice {
    uint32_t subscription_no;
    int64_t due_at;
};

/* What the lanes of a node among several go by. */
struct dispatch_node {
    struct ownership *ownership; /* outlives the dispatcher */
    /* No attempt is sent from this time of the monotonic clock on (µs): the node's lease is over. */
    const atomic_int_fast64_t *send_until_us;
    /* On the writer's thread: the tier of a lane, TIER_STANDARD of one that is not known. */
    enum tenant_tier (*tier_of)(void *arg, uint32_t subscription_no);
    /* On the writer's thread: whether the lane, in a partition that is this node's, must not begin here as
     * yet, for another may still serve it by an older tier. */
    bool (*holds_back)(void *arg, const struct subscription *s);
    /* Something is due in lanes that are another node's. From any thread. */
    void (*elsewhere)(void *arg, const struct lane_notice *notices, size_t n);
    void *arg;
};

struct dispatch_options {
    struct store *store;
    struct writer *writer;
    struct metrics *metrics;
    struct tracer *tracer; /* NULL: nobody records */
    struct body_cache *bodies;
    const struct egress *egress; /* outlives the dispatcher */
    unsigned loops;              /* threads, 1…64 */
    unsigned max_in_flight;      /* attempts under way over all loops */
    int64_t lease_margin_ms;     /* a lease is the policy's timeout and this */
    uint32_t worker_no;
    const char *worker_name;
    const char *user_agent;     /* "posthorn/VERSION" */
    const uint8_t *receipt_key; /* of RECEIPT_KEY_SIZE; outlives the dispatcher */
    /* Disables a subscription, within the transaction that settles why (410, or failing for too long): 1; 0
     * when it was disabled already, -ENOENT when it is gone. Then, after the commit, on the writer's thread:
     * its snapshot has changed. */
    int (*disable)(void *arg, struct store *s, uint32_t subscription_no, const char *reason, int64_t now);
    void (*changed)(void *arg, uint32_t subscription_no);
    /* On the writer's thread: whether the lane must not claim, for its ordering has changed. */
    bool (*holds)(void *arg, uint32_t subscription_no);
    /* Publishes an operational event, within the transaction of what it tells. */
    int (*raise)(void *arg, struct store *s, const struct operational_event *e);
    void *arg;
    struct dispatch_node node; /* all zero: every lane is this process's */
};

int dispatch_start(const struct dispatch_options *o, struct dispatch **ret) MUST_USE;
/* Stops claiming; what else is asked of the loops they still do. */
void dispatch_stop_claiming(struct dispatch *d);
/* Stops claiming, lets attempts in flight end within their deadlines, settles them. Blocks until all loops
 * have ended; nothing may be asked of them any more. */
void dispatch_stop(struct dispatch *d);
void dispatch_free(struct dispatch *d);

/* A new or changed subscription: takes effect on the next attempt. Takes its own reference. A lane that is
 * not this node's is let go of; one that is held back, and not served already, is for dispatch_resume. On the
 * writer's thread, as dispatch_remove, or before it has work. */
int dispatch_configure(struct dispatch *d, struct subscription *s) MUST_USE;
/* The lane of a subscription that was served before, as it was left. */
int dispatch_resume(struct dispatch *d, struct subscription *s, const struct lane_start *start) MUST_USE;

/* Lets go of the lanes of partitions, which are PARTITION_GOING. */
int dispatch_release(struct dispatch *d, const struct partition_set *partitions) MUST_USE;
/* false: some of what was released may still be claimed. Else *ret_leaving tells how many lanes have attempts
 * under way. From any thread. */
bool dispatch_released(struct dispatch *d, uint32_t *ret_leaving);
/* Attempts that a lane was resumed with have ended. */
int dispatch_disinherit(struct dispatch *d, uint32_t subscription_no, uint32_t n) MUST_USE;

/* The caps of a tenant over all its lanes; at once. */
int dispatch_configure_tenant(struct dispatch *d, uint32_t tenant_no,
                              const struct tenant_limits *limits) MUST_USE;

/* Stops sending for a deleted subscription; `stopped` is called on a loop's thread once no attempt of it is
 * under way. What waits in its lane then moves to the DLQ in chunks, in the background. */
int dispatch_remove(struct dispatch *d, uint32_t subscription_no, void (*stopped)(void *arg),
                    void *arg) MUST_USE;

/* On the writer's thread, after the commit. What is another node's is told elsewhere. */
int dispatch_notify(struct dispatch *d, const struct lane_notice *notices, size_t n) MUST_USE;
/* The same of what other nodes may have told, or a look at the store has found: what is not this node's is
 * passed over. */
int dispatch_wake(struct dispatch *d, const struct lane_notice *notices, size_t n) MUST_USE;

/* Whether a new delivery may be begun as it is made: its lane has left a place for it (permits.h). Then make
 * it with this lease, and begun_at now; its loop sends it after the commit. On the writer's thread, in the
 * transaction, whose end dispatch_made is to be told. Never on a node among several. */
bool dispatch_begin(struct dispatch *d, const struct new_delivery *n, int64_t now, int64_t *ret_lease_until);
void dispatch_made(struct dispatch *d, bool committed);

/* The same from any thread: what this node has no lane for is passed over, too. */
int dispatch_hear(struct dispatch *d, const struct lane_notice *notices, size_t n) MUST_USE;

/* Asks the lane's loop and waits for its answer (microseconds; at most a second: then -ETIMEDOUT). Not from a
 * loop's thread. */
int dispatch_stats(struct dispatch *d, uint32_t subscription_no, struct lane_stats *ret) MUST_USE;
