/* The reaper: returns deliveries whose lease ran out, recorded as an attempt `lease_expired` (api.md §4.1).
 */
#pragma once

#include "observe/metrics.h"
#include "observe/operational.h"
#include "store/writer.h"

struct reaper_options {
    struct metrics *metrics;
    uint32_t worker_no;
    /* On the writer's thread: the policy of a subscription, NULL when it is gone. */
    const struct subscription *(*subscription)(void *arg, uint32_t no);
    /* On the writer's thread after the commit: something of this lane is due. */
    void (*due)(void *arg, uint32_t subscription_no, int64_t due_at);
    /* On the writer's thread: whether this process is to settle a lost lease of this lane. NULL: always. */
    bool (*ours)(void *arg, uint32_t subscription_no, int64_t lease_until);
    /* Publishes an operational event, within the transaction of what it tells. */
    int (*raise)(void *arg, struct store *s, const struct operational_event *e);
    void *arg;
};

struct reaper;
int reaper_new(const struct reaper_options *o, struct reaper **ret) MUST_USE;
void reaper_free(struct reaper *r);

/* Settles leases that ended before `before` (INT64_MAX: all of them, for a start that finds no other worker),
 * a bounded number. Within a transaction; *ret_more: call again. */
int reaper_run(struct reaper *r, struct store *s, int64_t before, int64_t now, bool *ret_more) MUST_USE;
/* After that transaction's commit. */
void reaper_announce(struct reaper *r);
/* Instead of it, at a start whose lanes are told of all that is due anyway. */
void reaper_forget(struct reaper *r);
