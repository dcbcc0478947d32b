/* What lanes leave to the writer for deliveries that are yet to be made (permits.h). What a claim of a lane
 * finds no work for stays with the writer as permits, and is made up as they are used; they count against the
 * lane's cap until they are used or given back. The pool of a tier counts against the loop's budget likewise.
 */
#include <utlist.h>

#include "lanes/lane.h"

/* Whether the lane sends at will: then what is new need not be looked at. */
static bool is_open(const struct lane *l, int64_t now) {
    const struct subscription *s = l->subscription;
    return !l->removed && s->status == SUBSCRIPTION_ACTIVE && s->ordering == ORDERING_NONE && !s->relane &&
           !s->policy->rate_per_second && l->breaker.state == BREAKER_CLOSED && l->rest_until <= now;
}

/* How many permits the lane can have out. While work waits in it there come no more, and they take no room
 * that the work lacks. */
static uint32_t spare(const struct lane *l, int64_t now) {
    uint32_t limit = concurrency_limit(&l->concurrency, l->subscription->policy->max_in_flight),
             used = l->in_flight + l->inherited + l->claiming, room = limit > used ? limit - used : 0;
    if (!is_open(l, now))
        return 0;
    if (l->next_due_at > now)
        return room;
    return l->claiming || room > l->permits ? l->permits : 0;
}

/* How many come, once half are used. */
static uint32_t more(const struct lane *l, uint32_t n) {
    uint32_t most = n < LANE_CLAIM_MAX ? n : LANE_CLAIM_MAX;
    return l->lively && l->permits <= most / 2 ? most - l->permits : 0;
}

static void set_permits(struct lanes *ls, struct lane *l, uint32_t n) {
    ls->permits[l->group->tier] += n - l->permits;
    l->permits = n;
}

static void set_listed(struct lanes *ls, struct lane *l, bool listed) {
    if (listed && !l->permits_listed)
        DL_APPEND2(ls->permit_lanes, l, permits_prev, permits_next);
    if (!listed && l->permits_listed)
        DL_DELETE2(ls->permit_lanes, l, permits_prev, permits_next);
    l->permits_listed = listed;
}

void lane_refresh_permits(struct lanes *ls, struct lane *l, int64_t now) {
    uint32_t n = spare(l, now);
    bool too_many = n < l->permits;
    if (too_many)
        ls->permits_urgent = true;
    if (too_many || more(l, n))
        set_listed(ls, l, true);
}

void lane_forget_permits(struct lanes *ls, struct lane *l) {
    set_permits(ls, l, 0);
    set_listed(ls, l, false);
    l->lively = false;
}

/* ---- plans ---- */

static struct permit_grant grant_of(const struct lanes *ls, const struct lane *l) {
    return (struct permit_grant){.subscription_no = l->no,
                                 .lease_ms = lane_lease_ms(ls, l),
                                 .tier = l->group->tier,
                                 .budget = l->group->budget};
}

static bool plan_lane(const struct lanes *ls, const struct lane *l, int64_t now, struct permit_grant *ret) {
    uint32_t n = spare(l, now);
    *ret = grant_of(ls, l);
    ret->back = n < l->permits;
    ret->places = ret->back ? 0 : more(l, n);
    return ret->back || ret->places;
}

/* Whether lanes that may send lack room in the loop's budget. */
static bool others_wait(const struct lanes *ls) {
    bool full[TIERS];
    for (int t = 0; t < TIERS; t++)
        full[t] = lanes_tier_room(ls, (enum tenant_tier)t) == 0;
    return fair_has(&ls->ready, full);
}

/* About half of what the tier has free, while lanes of it have permits; nothing while others wait for room.
 */
static struct permit_pool plan_pool(const struct lanes *ls, enum tenant_tier tier, bool wanted) {
    uint32_t has = ls->pools[tier], most = wanted ? (lanes_tier_room(ls, tier) + has) / 2 : 0;
    if (most > PERMIT_POOL_MAX)
        most = PERMIT_POOL_MAX;
    return (struct permit_pool){.places = has < most ? most - has : 0, .back = has > most + most / 2};
}

static void plan_pools(const struct lanes *ls, struct permit_plan *p) {
    bool wanted[TIERS] = {false}, wait = others_wait(ls);
    for (size_t i = 0; i < p->n; i++)
        wanted[p->grants[i].tier] = true;
    for (int t = 0; t < TIERS; t++)
        p->pools[t] = plan_pool(ls, (enum tenant_tier)t, !wait && (wanted[t] || ls->permits[t]));
}

bool lanes_permits_urgent(const struct lanes *ls) {
    if (ls->permits_urgent)
        return true;
    for (int t = 0; t < TIERS; t++)
        if (ls->pools[t] && others_wait(ls))
            return true;
    return false;
}

void lanes_plan_permits(struct lanes *ls, const struct lane_claim *claims, size_t claims_n, int64_t now,
                        struct permit_plan *ret) {
    ret->n = 0;
    while (ls->permit_lanes && ret->n < PERMIT_GRANTS_MAX) {
        struct lane *l = ls->permit_lanes;
        set_listed(ls, l, false);
        if (plan_lane(ls, l, now, &ret->grants[ret->n]))
            ret->n++;
    }
    ls->permits_urgent &= ls->permit_lanes != NULL;
    for (size_t i = 0; i < claims_n && ret->n < PERMIT_GRANTS_MAX; i++) {
        const struct lane *l = lanes_find(ls, claims[i].subscription_no);
        if (!is_open(l, now))
            continue;
        ret->grants[ret->n] = grant_of(ls, l);
        ret->grants[ret->n++].claim = &claims[i];
    }
    plan_pools(ls, ret);
}

void lanes_permits_planned(struct lanes *ls, const struct permit_plan *plan, bool failed, int64_t now) {
    for (size_t i = 0; i < plan->n; i++) {
        const struct permit_grant *g = &plan->grants[i];
        struct lane *l = lanes_find(ls, g->subscription_no);
        if (!l)
            continue;
        if (!failed) {
            set_permits(ls, l, g->back ? l->permits - g->done : l->permits + g->done);
            l->lively = true;
        }
        lane_refresh(ls, l, now);
    }
    for (int t = 0; t < TIERS && !failed; t++)
        ls->pools[t] = ls->pools[t] - plan->pools[t].taken + plan->pools[t].places;
}

void lanes_begun(struct lanes *ls, uint32_t no, int64_t now) {
    struct lane *l = lanes_find(ls, no);
    CHECK(l && l->permits && ls->pools[l->group->tier]);
    set_permits(ls, l, l->permits - 1);
    ls->pools[l->group->tier]--;
    l->in_flight++;
    lane_count_in_flight(ls, l, 1);
    fair_charge(&ls->ready, l->group->tier, 1);
    lane_refresh(ls, l, now);
}
