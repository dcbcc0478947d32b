/* Lanes from the inside, as the rooms behind lanes.h share them: lanes.c (they come and go, and fall due),
 * lane_table.c, allowance.c, fair.c, claims.c, lane_permits.c, outcomes.c, history.c, lane_memory.c,
 * lane_stats.c. */
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
    struct lane *prev, *next;                 /* in the group's queue, while `queued` */
    struct lane *relane_prev, *relane_next;   /* in the list of those that hold for a change of ordering */
    struct lane *permits_prev, *permits_next; /* in the list of those whose permits are to change */
    uint64_t relaned;      /* the change that the store has followed, the snapshot not yet */
    struct heap_node wake; /* when waiting alone can make it sendable */
    struct heap_node expiry;
    int64_t next_due_at;   /* of what the store holds, INT64_MAX when nothing waits */
    int64_t rest_until;    /* backpressure, or a claim that failed */
    int64_t failing_since; /* of an unbroken run of failures, 0: healthy */
    int64_t raised_since;  /* failing_since as the tenant was told, until it is told of the recovery */
    uint32_t in_flight;
    uint32_t claiming;        /* places reserved by the claim under way, 0 when there is none */
    uint32_t inherited;       /* attempts of an owner before this one that are still under way */
    int32_t kept_interval_ms; /* what the store keeps of its memory */
    float kept_limit;
    uint32_t permits;   /* that the writer has, or has used unheard of as yet (lane_permits.c) */
    uint8_t waiting_on; /* enum lane_wait */
    bool queued, removed, released, failing_noted, relaning, permits_listed;
    bool lively; /* it has given permits since it changed last */
    struct concurrency concurrency;
    struct bucket bucket;
    struct breaker breaker;
    struct lane_history *history;
};

struct lane_table {
    struct lane **slots; /* NULL: free */
    size_t n, cap;       /* cap: 0 or a power of two */
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

struct lanes {
    struct tenant_budgets *tenants;
    struct metrics *metrics;
    uint32_t budget;
    int64_t margin_ms;
    struct lane_table by_no;
    struct lane_group *groups; /* keyed by tenant and tier */
    struct fair_queue ready;
    struct heap wakes, expiries;
    struct lane *relanes, *permit_lanes;
    uint32_t leaving;          /* lanes released that are not free yet */
    bool permits_urgent;       /* one of permit_lanes has more than it can spare */
    uint32_t permits[TIERS];   /* of all lanes */
    uint32_t pools[TIERS];     /* places that the writer has, or has used unheard of */
    uint32_t in_flight[TIERS]; /* claims under way included */
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

/* Takes up what was kept. */
void lane_remember(struct lane *l, const struct lane_memory *m);
/* true, once, when what the lane knows has become so different from what is kept of it that it is worth a
 * write: its breaker has opened or closed, its probes have become rarer, its limit half or double. */
bool lane_worth_keeping(struct lane *l, struct lane_memory *ret);

int lane_table_add(struct lane_table *t, struct lane *l) MUST_USE;     /* one of a new number; -ENOMEM */
void lane_table_remove(struct lane_table *t, const struct lane *l);    /* one that is in it */
struct lane *lane_table_find(const struct lane_table *t, uint32_t no); /* NULL when unknown */
void lane_table_free(struct lane_table *t);                            /* an empty one */

struct lane *lanes_find(struct lanes *ls, uint32_t no); /* NULL when unknown */
/* Frees a lane of which nothing is in flight. */
void lane_free(struct lanes *ls, struct lane *l);
/* What was in flight or reserved has become more, or less, by delta. */
void lane_count_in_flight(struct lanes *ls, struct lane *l, int64_t delta);
/* How many more a tier may have in flight, and which may at all. */
uint32_t lanes_tier_room(const struct lanes *ls, enum tenant_tier tier);
void lanes_tiers_with_room(const struct lanes *ls, bool ret[TIERS]);

struct allowance {
    uint32_t tasks;       /* that may be claimed now */
    enum lane_wait cause; /* why none */
    int64_t wake_at;      /* when time alone changes that, INT64_MAX when it does not */
};
struct allowance lane_allowance(struct lane *l, int64_t now);
/* Puts the lane where its state says: into the fair queue, to sleep until a moment, or nowhere. Call after
 * every change. */
void lane_refresh(struct lanes *ls, struct lane *l, int64_t now);
/* A lane that holds work it may not send sheds what expires meanwhile; while paused nothing expires. */
void lane_refresh_expiry(struct lanes *ls, struct lane *l, int64_t now);
/* The same for its permits. */
void lane_refresh_permits(struct lanes *ls, struct lane *l, int64_t now);
/* The writer has forgotten them, or is about to. */
void lane_forget_permits(struct lanes *ls, struct lane *l);
int64_t lane_lease_ms(const struct lanes *ls, const struct lane *l);
void lane_set_waiting(struct lanes *ls, struct lane *l, enum lane_wait cause);
