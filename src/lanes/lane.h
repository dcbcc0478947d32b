/* One lane and its neighbours in the fair queue, as lanes.c and fair.c share them. */
#pragma once

#include <uthash.h>

#include "base/heap.h"
#include "lanes/breaker.h"
#include "lanes/bucket.h"
#include "lanes/concurrency.h"
#include "lanes/lanes.h"

enum { LANE_MAGIC = 0x6c616e65 };

/* What the last hour or so looked like; made with the lane's first attempt. */
enum { LATENCY_BUCKETS = 34 };
struct lane_history {
    uint32_t successes, failures;
    uint16_t latency[LATENCY_BUCKETS]; /* geometric, two an octave from 1 ms */
};

struct lane {
    uint32_t magic;
    uint32_t no;
    struct subscription *subscription;
    struct lane_group *group;
    struct lane *prev, *next;               /* in the group's queue, while `queued` */
    struct lane *relane_prev, *relane_next; /* in the list of those that hold for a change of ordering */
    uint64_t relaned;                       /* the change that the store has followed, the snapshot not yet */
    struct heap_node wake;                  /* when waiting alone can make it sendable */
    struct heap_node expiry;
    int64_t next_due_at;   /* of what the store holds, INT64_MAX when nothing waits */
    int64_t rest_until;    /* backpressure, or a claim that failed */
    int64_t failing_since; /* of an unbroken run of failures, 0: healthy */
    int64_t raised_since;  /* failing_since as the tenant was told, until it is told of the recovery */
    uint32_t in_flight;
    uint32_t claiming;  /* places reserved by the claim under way, 0 when there is none */
    uint8_t waiting_on; /* enum lane_wait */
    bool queued, removed, failing_noted, relaning;
    struct concurrency concurrency;
    struct bucket bucket;
    struct breaker breaker;
    struct lane_history *history;
    UT_hash_handle hh;
};

/* The lanes of one tenant in one tier that could send now. */
struct lane_group {
    uint32_t tenant_no;
    enum tenant_tier tier;
    struct tenant_budget *budget;
    uint32_t lanes;                 /* that belong to it, queued or not */
    struct lane *queue;             /* round robin: the head is next */
    struct lane_group *prev, *next; /* in the tier's queue, while `queue` is not empty */
    UT_hash_handle hh;
};

/* The fair queue over tiers, tenants and lanes. */
struct fair_queue {
    struct lane_group *tiers[TIERS];
    int64_t credit[TIERS];
};

/* Of every round, premium gets 8 parts, standard 4, bulk 1, as far as they have work. */
void fair_push(struct fair_queue *q, struct lane *l);   /* to the end of its tenant's turn; idempotent */
void fair_remove(struct fair_queue *q, struct lane *l); /* idempotent */
/* Takes the lane whose turn it is out of the queue, from the tiers that `allowed` has set; NULL when there is
 * none. */
struct lane *fair_pop(struct fair_queue *q, const bool allowed[TIERS]);
/* The tasks a popped lane was granted count against its tier's credit. */
void fair_charge(struct fair_queue *q, enum tenant_tier tier, uint32_t tasks);
bool fair_has(const struct fair_queue *q, const bool allowed[TIERS]);

struct lane_history *lane_history_of(struct lane *l); /* NULL when memory is out */
void lane_history_add(struct lane *l, bool success, int32_t latency_ms);
/* The latency below which `share` of the attempts were, -1 when there were none. */
int32_t lane_history_percentile(const struct lane_history *h, double share);
