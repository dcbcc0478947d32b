/* Places in flight: reserved for a claim in fair order, and given back. */
#include "lanes/lane.h"
#include "lanes/tenant_budget.h"

enum { CLAIM_FAILED_REST_MS = 100 };

/* Of the loop's budget, what each tier finds free whatever the others do. */
static const double reserved_share[TIERS] = {[TIER_PREMIUM] = 0.2, [TIER_STANDARD] = 0.1, [TIER_BULK] = 0.05};

/* How many more a tier may have in flight: what is free less what the other tiers have reserved and do not
 * use. */
uint32_t lanes_tier_room(const struct lanes *ls, enum tenant_tier tier) {
    int64_t room = ls->budget;
    for (int t = 0; t < TIERS; t++) {
        int64_t used = (int64_t)ls->in_flight[t] + ls->pools[t];
        int64_t reserve = (int64_t)(reserved_share[t] * ls->budget) - used;
        room -= used;
        if (t != (int)tier && reserve > 0)
            room -= reserve;
    }
    return room > 0 ? (uint32_t)room : 0;
}

void lanes_tiers_with_room(const struct lanes *ls, bool ret[TIERS]) {
    for (int t = 0; t < TIERS; t++)
        ret[t] = lanes_tier_room(ls, (enum tenant_tier)t) > 0;
}

int64_t lane_lease_ms(const struct lanes *ls, const struct lane *l) {
    return l->subscription->policy->timeout_ms + ls->margin_ms;
}

void lane_count_in_flight(struct lanes *ls, struct lane *l, int64_t delta) {
    ls->in_flight[l->group->tier] = (uint32_t)((int64_t)ls->in_flight[l->group->tier] + delta);
    if (ls->metrics)
        metrics_in_flight(ls->metrics, l->group->tier, delta);
}

/* Reserves up to `most` places for the lane's claim; 0 when it may not send after all. */
static uint32_t reserve(struct lanes *ls, struct lane *l, uint32_t most, int64_t now) {
    struct allowance a = lane_allowance(l, now);
    uint32_t n = a.tasks < most ? a.tasks : most;
    enum lane_wait cause = LANE_WAIT_NONE;
    if (n)
        n = tenant_budget_take(l->group->budget, n, now, &cause);
    if (!n) {
        lane_refresh(ls, l, now);
        if (cause != LANE_WAIT_NONE) {
            /* The tenant's cap, not the lane's: another loop may free it, which nobody tells us. */
            fair_remove(&ls->ready, l);
            lane_set_waiting(ls, l, cause);
            CHECK(heap_set(&ls->wakes, &l->wake, now + LANE_TENANT_POLL_MS) == 0);
        }
        return 0;
    }
    if (l->subscription->policy->rate_per_second)
        bucket_take(&l->bucket, n);
    l->claiming = n;
    /* A notice that comes while the claim is under way is not lost: it sets this again. */
    l->next_due_at = INT64_MAX;
    lane_count_in_flight(ls, l, n);
    fair_charge(&ls->ready, l->group->tier, n);
    lane_refresh(ls, l, now);
    return n;
}

static void wake_lanes(struct lanes *ls, int64_t now) {
    struct heap_node *top;
    while ((top = heap_top(&ls->wakes)) && top->key <= now) {
        struct lane *l = (struct lane *)((char *)top - offsetof(struct lane, wake));
        CHECK(l->magic == LANE_MAGIC);
        heap_remove(&ls->wakes, top);
        lane_refresh(ls, l, now);
        CHECK(!heap_contains(&l->wake) || l->wake.key > now);
    }
}

size_t lanes_plan(struct lanes *ls, int64_t now, struct lane_claim *ret, size_t max, size_t tasks_max) {
    wake_lanes(ls, now);
    size_t n = 0;
    bool allowed[TIERS];
    while (n < max && tasks_max > 0) {
        lanes_tiers_with_room(ls, allowed);
        struct lane *l = fair_pop(&ls->ready, allowed);
        if (!l)
            break;
        uint32_t most = lanes_tier_room(ls, l->group->tier);
        if (most > tasks_max)
            most = (uint32_t)tasks_max;
        uint32_t tasks = reserve(ls, l, most, now);
        if (!tasks)
            continue;
        tasks_max -= tasks;
        const struct subscription *s = l->subscription;
        ret[n++] = (struct lane_claim){
            .subscription_no = l->no,
            .tenant_no = s->tenant_no,
            .limit = tasks,
            .window_ms = (int64_t)s->policy->window_seconds * 1000,
            .resumed_at = s->resumed_at,
            .lease_ms = lane_lease_ms(ls, l),
            .probe = breaker_next_probe(&l->breaker),
        };
    }
    return n;
}

bool lanes_claimed(struct lanes *ls, const struct lane_claim *c, bool failed, int64_t now) {
    struct lane *l = lanes_find(ls, c->subscription_no);
    CHECK(l && l->claiming == c->limit && c->claimed <= c->limit);
    uint32_t claimed = failed ? 0 : c->claimed, unused = l->claiming - claimed;
    int64_t next_due_at = failed ? now : c->next_due_at;
    tenant_budget_return(l->group->budget, unused, true);
    if (unused && l->subscription->policy->rate_per_second)
        bucket_return(&l->bucket, unused, l->subscription->policy->rate_burst);
    lane_count_in_flight(ls, l, -(int64_t)unused);
    l->claiming = 0;
    l->in_flight += claimed;
    if (failed && l->rest_until < now + CLAIM_FAILED_REST_MS)
        l->rest_until = now + CLAIM_FAILED_REST_MS;
    if (next_due_at < l->next_due_at)
        l->next_due_at = next_due_at;
    if (claimed)
        breaker_probe_begun(&l->breaker, c->probe);
    if (l->removed && !l->in_flight) {
        lane_free(ls, l);
        return true;
    }
    lane_refresh(ls, l, now);
    return false;
}
