/* Deficit round robin over tiers, then tenants, then lanes; every task costs one. */
#include <utlist.h>

#include "lanes/lane.h"

static const int64_t weight[TIERS] = {[TIER_PREMIUM] = 8, [TIER_STANDARD] = 4, [TIER_BULK] = 1};

void fair_push(struct fair_queue *q, struct lane *l) {
    if (l->queued)
        return;
    struct lane_group *g = l->group;
    if (!g->queue)
        DL_APPEND(q->tiers[g->tier], g);
    DL_APPEND(g->queue, l);
    l->queued = true;
}

void fair_remove(struct fair_queue *q, struct lane *l) {
    if (!l->queued)
        return;
    struct lane_group *g = l->group;
    DL_DELETE(g->queue, l);
    l->queued = false;
    if (!g->queue)
        DL_DELETE(q->tiers[g->tier], g);
}

bool fair_has(const struct fair_queue *q, const bool allowed[TIERS]) {
    for (int t = 0; t < TIERS; t++)
        if (allowed[t] && q->tiers[t])
            return true;
    return false;
}

/* The tier whose turn it is: one with work and credit; when all with work have spent theirs, a new round
 * begins. */
static int choose_tier(struct fair_queue *q, const bool allowed[TIERS]) {
    for (int round = 0; round < 2; round++) {
        for (int t = 0; t < TIERS; t++)
            if (allowed[t] && q->tiers[t] && q->credit[t] > 0)
                return t;
        /* A tier that was idle starts with no savings from the rounds it sat out. */
        for (int t = 0; t < TIERS; t++) {
            int64_t grant = weight[t] * LANE_CLAIM_MAX;
            q->credit[t] = q->tiers[t] && q->credit[t] < 0 ? q->credit[t] + grant : grant;
            if (q->credit[t] <= 0 && q->tiers[t])
                q->credit[t] = 1;
        }
    }
    UNREACHABLE();
}

struct lane *fair_pop(struct fair_queue *q, const bool allowed[TIERS]) {
    if (!fair_has(q, allowed))
        return NULL;
    struct lane_group *g = q->tiers[choose_tier(q, allowed)];
    struct lane *l = g->queue;
    CHECK(l && l->magic == LANE_MAGIC);
    enum tenant_tier tier = g->tier;
    fair_remove(q, l);
    if (g->queue) {
        /* The tenant's turn is over: the next one's comes. */
        DL_DELETE(q->tiers[tier], g);
        DL_APPEND(q->tiers[tier], g);
    }
    return l;
}

void fair_charge(struct fair_queue *q, enum tenant_tier tier, uint32_t tasks) {
    q->credit[tier] -= tasks;
}
