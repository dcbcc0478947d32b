/* Fan-out: which subscriptions an event goes to, and the deliveries that follow. The index lives in memory
 * and belongs to the writer's thread: every call here is made there (from a writer_job's run or done). */
#pragma once

#include "core/subscription.h"
#include "lanes/dispatch.h"
#include "observe/tracer.h"
#include "store/store.h"

struct fanout;

/* Above this an event becomes a persisted job, expanded in chunks. So does one that comes when its
 * transaction has made as many as that may for its events together: a batch, or many publishers at once,
 * would else keep everybody waiting for seconds. */
enum {
    FANOUT_INLINE_MAX = 1000,
    FANOUT_CHUNK = 1000,
    FANOUT_A_TRANSACTION_MAX = 4000,
    FANOUT_RAISED_INLINE_MAX = 8, /* of a "posthorn.…" event: hundreds may be raised in one transaction */
};

int fanout_new(struct metrics *m, struct fanout **ret) MUST_USE;
void fanout_free(struct fanout *f);
/* Others accept events on the same store: it numbers the jobs. Before the first event. */
void fanout_share(struct fanout *f);
/* Who records the spans of large fan-outs; nobody otherwise. */
void fanout_record(struct fanout *f, struct tracer *t);

/* Adds or replaces a subscription's snapshot (its own reference); only ACTIVE and PAUSED ones match new
 * events. Call it before the snapshot is shared: its filter is replaced by an equal one that others have. */
int fanout_put(struct fanout *f, struct subscription *s) MUST_USE;
void fanout_remove(struct fanout *f, uint32_t subscription_no);
/* The snapshot in force, borrowed until the next put or remove of it; NULL when unknown. */
struct subscription *fanout_subscription(struct fanout *f, uint32_t subscription_no);
/* Whether any subscription of the tenant asks for events of this type; costs next to nothing. */
bool fanout_wanted(const struct fanout *f, uint32_t tenant_no, struct slice type);
/* The greatest subscription number there is. */
uint32_t fanout_upper(const struct fanout *f);

/* Whether an event is one of those that a subscription asks for, by its type and filter, whatever its status
 * and whenever the event was published: 1 or 0; -ENOENT; -ENOMEM, -EIO. */
int fanout_wants(struct fanout *f, uint32_t subscription_no, const struct event_record *e) MUST_USE;

/* Call before a subscription's matching changes (types, filter, status, deletion), in the same transaction:
 * pending jobs are expanded for it alone, so that what matched at publish is delivered. *ret_settled becomes
 * its jobs_settled: what it matches afterwards takes no part in these jobs. */
int fanout_settle_jobs_for(struct fanout *f, struct store *st, uint32_t subscription_no, int64_t now,
                           uint64_t *ret_settled) MUST_USE;

/* In the event's transaction, before store_insert_events: makes its deliveries, or its job when they are many
 * (sets e->deliveries and e->has_job). only_subscription != 0: a test, to that subscription alone. `d` begins
 * those that have their place at once (dispatch_begin); NULL: none. What may be undone without its
 * transaction must not be begun. */
int fanout_event(struct fanout *f, struct store *st, struct event_record *e, uint32_t only_subscription,
                 int64_t now, struct dispatch *d) MUST_USE;

/* Expands the next chunk of the job whose turn it is (jobs take turns). *ret_more: there is more to do. Jobs
 * that a stop left behind are found by themselves: call it once at start. */
int fanout_expand(struct fanout *f, struct store *st, int64_t now, bool *ret_more) MUST_USE;
/* Whether there may be jobs: at start, and since an event became one until fanout_expand finds none. */
bool fanout_has_jobs(const struct fanout *f);
/* The greatest key of the events since the last call; 0: there was none. */
uint64_t fanout_newest(struct fanout *f);
/* Whether an event has become one since the last call. */
bool fanout_made_job(struct fanout *f);
/* There may be some that another node has accepted. */
void fanout_look_for_jobs(struct fanout *f);

/* After the commit: tells the lanes what was made since the last call, and counts it. What a rollback undid
 * is told too; a lane that finds nothing is none the worse. */
void fanout_announce(struct fanout *f, struct dispatch *d);
/* After a rollback: nothing was made. */
void fanout_forget(struct fanout *f);
