/* The lanes of one delivery loop: who may send next. Pure: no I/O, time and chance are arguments, so the
 * simulator runs the very same code.
 *
 * A lane knows of its backlog only when the earliest of it is due; claiming brings tasks, as many as cap,
 * rate limits, breaker and the loop's budget allow. Between lanes: tiers by weight, each with a reserved
 * share of the budget; within a tier round robin over tenants, within a tenant round robin over lanes, a
 * bounded number of tasks a turn (deficit round robin where every task costs one). */
#pragma once

#include "base/heap.h"
#include "core/partition.h"
#include "core/retry.h"
#include "core/subscription.h"
#include "observe/metrics.h"
#include "store/store.h"

struct lanes;
struct lane;

enum {
    LANE_CLAIM_MAX = 32,              /* tasks a lane gets a turn */
    LANE_BACKPRESSURE_MS_MAX = 60000, /* how long a lane rests after backpressure that names no time */
    LANE_EXPIRE_EVERY_MS = 60000, /* how often a lane that cannot send sheds what its window has closed on */
    LANE_LAST_CHANCE_MS =
        600000, /* behind an open breaker what is owed a last attempt waits for it, two probes long */
    LANE_TENANT_POLL_MS = 25, /* a tenant's cap was met, perhaps by another loop: look again */
    PERMIT_POOL_MAX = 256,    /* places of a tier that the writer may hold */
    PERMIT_GRANTS_MAX = 512,  /* lanes that a plan of permits names */
};

/* A tenant's caps over all its lanes, shared by all loops; counted by reference. */
struct tenant_budget;
struct tenant_budgets;
int tenant_budgets_new(struct tenant_budgets **ret) MUST_USE;
void tenant_budgets_free(struct tenant_budgets *b);
/* Creates or changes a tenant's caps; takes effect at once. Safe from all threads. */
int tenant_budgets_put(struct tenant_budgets *b, uint32_t tenant_no,
                       const struct tenant_limits *limits) MUST_USE;

/* `budget`: attempts in flight over all lanes. `margin_ms`: a lease is the policy's timeout and this. */
int lanes_new(struct tenant_budgets *tenants, uint32_t budget, int64_t margin_ms, struct metrics *m,
              struct lanes **ret) MUST_USE;
void lanes_free(struct lanes *ls);

/* What a lane has learnt of its endpoint and is worth keeping: of whoever serves it next, after a restart or
 * on another node. */
struct lane_memory {
    int32_t probe_interval_ms; /* of the open breaker; 0: it is closed */
    int64_t probe_at;
    float limit; /* of its concurrency; 0: the cap has not been met */
};
void lane_memory_write(const struct lane_memory *m, uint8_t out[LANE_STATE_SIZE]);
/* false: it is of another version, or damaged. */
bool lane_memory_read(struct slice bytes, struct lane_memory *ret);

/* How a lane begins that was served before. */
struct lane_start {
    struct lane_memory memory;
    bool taken_over; /* from another node: what its rate limit has allowed there is not known */
    /* Attempts that its owner before has under way: they count against its cap until lanes_disinherit. */
    uint32_t inherited;
};

/* Adds a lane, or changes its subscription; takes its own reference. The next claim goes by it. `start`: how
 * one that is added begins; NULL: it is new. */
int lanes_put(struct lanes *ls, struct subscription *s, const struct lane_start *start, int64_t now) MUST_USE;
/* So many of those that it inherited have ended. */
void lanes_disinherit(struct lanes *ls, uint32_t no, uint32_t n, int64_t now);
/* The lane claims nothing more and is freed when nothing of it is in flight. true: it is gone already. */
bool lanes_remove(struct lanes *ls, uint32_t no);
/* The same of one that another node is to serve, and of all of these partitions. One that comes back before
 * its last attempt has ended goes on with it. */
void lanes_release(struct lanes *ls, uint32_t no);
void lanes_release_all(struct lanes *ls, const struct partition_set *partitions);
/* How many of those released have something in flight. */
uint32_t lanes_leaving(const struct lanes *ls);

/* Whether the lane is there, and neither removed nor released. */
bool lanes_serves(struct lanes *ls, uint32_t no);

/* The store has something of this lane due at due_at. Unknown lanes are ignored: false. */
bool lanes_due(struct lanes *ls, uint32_t no, int64_t due_at, int64_t now);

/* Chooses what to claim now: up to max lanes, tasks_max tasks over all of them. Each lane named waits for
 * lanes_claimed. Claims are handed out in fair order; the sum of their limits keeps to the budget. */
size_t lanes_plan(struct lanes *ls, int64_t now, struct lane_claim *ret, size_t max, size_t tasks_max);
/* A claim's answer (its results filled in), or `failed`: nothing was claimed, ask again a little later. true:
 * the lane had been removed, and is gone now. */
bool lanes_claimed(struct lanes *ls, const struct lane_claim *c, bool failed, int64_t now);

/* What changes of the leave to begin new deliveries that the writer has (permits.h), as far as a turn takes
 * it along. */
struct permit_grant {
    uint32_t subscription_no;
    uint32_t places;                /* so many more, … */
    const struct lane_claim *claim; /* … or what this claim of the turn leaves unused, … */
    bool back;                      /* … or all are taken back */
    int64_t lease_ms;
    enum tenant_tier tier;
    struct tenant_budget *budget;
    uint32_t done; /* result: so many were given, or came back */
};
struct permit_pool {
    uint32_t places; /* so many more */
    bool back;       /* all are taken back */
    uint32_t taken;  /* result: so many came back */
};
struct permit_plan {
    uint64_t changes; /* of lanes that the loop had heard of */
    struct permit_grant grants[PERMIT_GRANTS_MAX];
    size_t n;
    struct permit_pool pools[TIERS];
};
static inline bool permit_plan_is_empty(const struct permit_plan *p) {
    bool pools = false;
    for (int t = 0; t < TIERS; t++)
        pools |= p->pools[t].places || p->pools[t].back;
    return !p->n && !pools;
}
/* Whether permits are in the way of other work, and want a turn of their own. */
bool lanes_permits_urgent(const struct lanes *ls);
/* All but `changes`, after lanes_plan and what it answered. */
void lanes_plan_permits(struct lanes *ls, const struct lane_claim *claims, size_t claims_n, int64_t now,
                        struct permit_plan *ret);
/* It was carried out, or `failed`: it comes up again. */
void lanes_permits_planned(struct lanes *ls, const struct permit_plan *plan, bool failed, int64_t now);
/* The writer has used a permit: an attempt begins. */
void lanes_begun(struct lanes *ls, uint32_t no, int64_t now);

/* An attempt has ended, as far as the network goes: its place is free. */
struct lane_outcome {
    uint32_t subscription_no;
    uint64_t event_key;
    uint32_t probe; /* the task's */
    enum outcome_class class;
    bool timed_out;
    bool not_sent; /* it never reached the network: says nothing about the endpoint */
    bool quiet;    /* of a "posthorn.…" event: the tenant is told nothing by it (api.md §4.1) */
    int64_t started_at;
    int64_t retry_after_ms; /* -1: none */
    int64_t retry_due_at;   /* of the verdict, 0 when it is not to be retried */
    int32_t latency_ms;
};
/* What the lane makes of it, for the caller to tell the store and the tenant. */
struct lane_news {
    bool noted; /* its health has changed: the store keeps these two */
    int64_t failing_since, raised_since;
    bool failing;         /* tell: the breaker is open */
    bool recovered;       /* tell: the first success since then */
    int64_t failed_since; /* with recovered */
    bool exhausted;       /* has failed for the policy's disable_after_seconds: disable it */
    bool removed;         /* it was removed, and this was its last attempt in flight */
    bool remember;        /* what it has learnt is to be kept; nothing, when it is all zero */
    struct lane_memory memory;
};
struct lane_news lanes_ended(struct lanes *ls, const struct lane_outcome *o, int64_t now, struct rng *rng);

/* Lanes that cannot send now though something of them is due (breaker open, disabled), and whose waiting
 * deliveries should be looked through for closed windows; each comes up once in LANE_EXPIRE_EVERY_MS. Up to
 * max. */
size_t lanes_expiries(struct lanes *ls, int64_t now, struct lane_expiry *ret, size_t max);
/* There may be more of that lane to look through: it comes up again at once. */
void lanes_expire_on(struct lanes *ls, uint32_t no, int64_t now);

/* A lane that holds because its ordering has changed, and of which nothing is under way any more: its open
 * deliveries may be given their new lane keys. The same one comes up until it is done. */
struct lane_relane {
    uint32_t subscription_no; /* 0: there is none */
    enum subscription_ordering ordering;
    uint64_t relane; /* the change's number */
};
struct lane_relane lanes_next_relane(struct lanes *ls);
/* They have followed: the lane goes on when its snapshot says so, too. */
void lanes_relaned(struct lanes *ls, const struct lane_relane *r);

/* When lanes_plan or lanes_expiries has something to say again, Unix ms: now when it has at once, INT64_MAX
 * when only a call of the others can change that. */
int64_t lanes_next_wake(struct lanes *ls, int64_t now);

struct lane_stats {
    bool known;
    uint32_t in_flight;   /* those inherited included */
    uint32_t concurrency; /* the limit in force now */
    const char *breaker;  /* "closed", "open", "half_open" */
    enum lane_wait waiting_on;
    int64_t next_due_at;                                    /* INT64_MAX: nothing waits */
    uint64_t successes, failures;                           /* attempts of the last hour or so, decaying */
    int32_t latency_p50_ms, latency_p95_ms, latency_p99_ms; /* -1: none yet */
};

struct subscription *lanes_subscription(struct lanes *ls, uint32_t no); /* borrowed; NULL when unknown */
/* Of a lane of which nothing is known. */
void lane_stats_unknown(struct lane_stats *ret);
void lanes_stats(struct lanes *ls, uint32_t no, int64_t now, struct lane_stats *ret);
uint32_t lanes_in_flight(const struct lanes *ls);
/* How overdue the longest-waiting lane that may send is, ms. */
int64_t lanes_lag(struct lanes *ls, int64_t now);
