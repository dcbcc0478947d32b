/* The judges: what must hold whatever happens (design.md §3, api.md §4). They know only what can be seen from
 * outside, at the store after each commit and at the receivers, and work everything out anew; a broken
 * invariant is told to the timeline. */
#pragma once

#include "edges.h"
#include "memory_store.h"
#include "receivers.h"

/* An attempt that was sent, until it is answered and the process has made of it what it will. */
struct flight {
    bool used, over;
    bool excused;            /* its lease was lost, or its process died: it may overlap with its successor */
    bool probe;              /* sent behind an open breaker */
    struct attempt *attempt; /* NULL once its process is dead */
    struct task task;
    struct policy policy; /* that it went by */
    int64_t sent_at;      /* true time */
    struct answer answer;
};
/* Walks over those under way; NULL: the first, and at the end. */
struct flight *flight_next(const struct flight *last);
const struct flight *flight_of(const struct attempt *a); /* NULL when nothing was sent */

void judge_begin(void);
void judge_clear(void);

/* ---- what happens ---- */

void judge_committed(void); /* a transaction; see memory_store_changes */
void judge_sent(struct flight *f);
void judge_answered(struct flight *f);     /* the receiver is done with it */
void judge_ended(const struct attempt *a); /* the process is about to hear of it */
void judge_died(void);                     /* the process; all in its memory is gone */
void judge_publishing(uint64_t event_key); /* in the event's transaction, before its commit is known */
void judge_accepted(uint64_t event_key);   /* 202 */
void judge_configured(uint32_t no);        /* a change of this subscription is in force, or on its way */
void judge_configured_tenant(uint32_t no);
void judge_sending_stopped(uint32_t no); /* 204 */

/* Looks at what ought to have happened and did not; a few times a minute. */
void judge_audit(void);
/* At the end of a seed, when all there is to do is done. */
void judge_end(void);

/* The longest wait of a healthy lane in calm that was seen since the start of the program, ms. */
int64_t judge_longest_wait(void);
