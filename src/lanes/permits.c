/* A lane without an entry for lack of memory is served the ordinary way. */
#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#include "lanes/permits.h"

#include <errno.h>

#include "lanes/tenant_budget.h"

enum { BEGUN_MAX = TIERS * PERMIT_POOL_MAX }; /* the pools are no larger, and are filled again by the loop */

/* Of one lane. */
struct permit {
    uint32_t subscription_no, left;
    int64_t lease_ms;
    enum tenant_tier tier;
    struct tenant_budget *budget;
    UT_hash_handle hh;
};

struct permits {
    struct permit *by_no;
    uint32_t pool[TIERS];
    uint64_t changes; /* of lanes */
    struct task begun[BEGUN_MAX];
    size_t begun_n, committed_n;
};

int permits_new(struct permits **ret) {
    struct permits *p = calloc(1, sizeof *p);
    if (!p)
        return -ENOMEM;
    *ret = p;
    return 0;
}

static void drop(struct permits *p, struct permit *l) {
    HASH_DEL(p->by_no, l);
    free(l);
}

void permits_free(struct permits *p) {
    if (!p)
        return;
    struct permit *l, *next;
    HASH_ITER (hh, p->by_no, l, next)
        drop(p, l);
    free(p);
}

static struct permit *find(const struct permits *p, uint32_t subscription_no) {
    struct permit *l;
    HASH_FIND(hh, p->by_no, &subscription_no, sizeof subscription_no, l);
    return l;
}

/* ---- given and taken back ---- */

/* NULL when memory is out. */
static struct permit *add(struct permits *p, uint32_t subscription_no) {
    struct permit *l = calloc(1, sizeof *l);
    if (!l)
        return NULL;
    l->subscription_no = subscription_no;
    HASH_ADD(hh, p->by_no, subscription_no, sizeof l->subscription_no, l);
    if (l->hh.tbl)
        return l;
    free(l);
    return NULL;
}

static uint32_t give(struct permits *p, const struct permit_grant *g) {
    uint32_t places = g->places;
    if (g->claim) /* work that is left, or is to come at its time, goes first */
        places = g->claim->next_due_at == INT64_MAX ? g->claim->limit - g->claim->claimed : 0;
    if (!places)
        return 0;
    struct permit *l = find(p, g->subscription_no);
    if (!l && !(l = add(p, g->subscription_no)))
        return 0;
    l->lease_ms = g->lease_ms;
    l->tier = g->tier;
    l->budget = g->budget;
    l->left += places;
    return places;
}

static uint32_t take_back(struct permits *p, uint32_t subscription_no) {
    struct permit *l = find(p, subscription_no);
    uint32_t left = l ? l->left : 0;
    if (l)
        drop(p, l);
    return left;
}

void permits_apply(struct permits *p, struct permit_plan *plan) {
    for (size_t i = 0; i < plan->n; i++) {
        struct permit_grant *g = &plan->grants[i];
        if (g->back)
            g->done = take_back(p, g->subscription_no);
        else
            g->done = plan->changes == p->changes ? give(p, g) : 0;
    }
    for (int t = 0; t < TIERS; t++) {
        struct permit_pool *pool = &plan->pools[t];
        pool->taken = pool->back ? p->pool[t] : 0;
        p->pool[t] = p->pool[t] - pool->taken + pool->places;
        CHECK(p->pool[t] <= PERMIT_POOL_MAX);
    }
}

uint64_t permits_forget(struct permits *p, uint32_t subscription_no) {
    (void)take_back(p, subscription_no);
    return ++p->changes;
}

/* ---- used ---- */

bool permits_begin(struct permits *p, const struct new_delivery *n, int64_t now, int64_t *ret_lease_until) {
    int64_t due_at = n->due_at ? n->due_at : n->order_at;
    if (n->lane_key || n->test || due_at > now)
        return false;
    struct permit *l = find(p, n->subscription_no);
    enum lane_wait ignored;
    if (!l || !l->left || !p->pool[l->tier] || !tenant_budget_take(l->budget, 1, now, &ignored))
        return false;
    CHECK(p->begun_n < BEGUN_MAX);
    l->left--;
    p->pool[l->tier]--;
    *ret_lease_until = now + l->lease_ms;
    p->begun[p->begun_n++] = (struct task){.event_key = n->event_key,
                                           .subscription_no = n->subscription_no,
                                           .tenant_no = n->tenant_no,
                                           .number = 1,
                                           .window_at = n->order_at,
                                           .lease_until = *ret_lease_until,
                                           .trigger = TRIGGER_SCHEDULE};
    return true;
}

const struct task *permits_committed(struct permits *p, size_t *ret_n) {
    *ret_n = p->committed_n = p->begun_n;
    return p->begun;
}

void permits_told(struct permits *p) {
    p->begun_n = p->committed_n = 0;
}

void permits_give_up(struct permits *p) {
    while (p->begun_n > p->committed_n) {
        /* Lanes change between transactions: the entry is still there. */
        struct permit *l = find(p, p->begun[--p->begun_n].subscription_no);
        CHECK(l != NULL);
        l->left++;
        p->pool[l->tier]++;
        tenant_budget_return(l->budget, 1, true);
    }
}
