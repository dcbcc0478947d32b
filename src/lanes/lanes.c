#include "lanes/lanes.h"

#include <errno.h>
#include <utlist.h>

#include "lanes/lane.h"
#include "lanes/tenant_budget.h"

int lanes_new(struct tenant_budgets *tenants, uint32_t budget, int64_t margin_ms, struct metrics *m,
              struct lanes **ret) {
    CHECK(budget >= 1 && margin_ms > 0);
    struct lanes *ls = calloc(1, sizeof *ls);
    if (!ls)
        return -ENOMEM;
    *ls = (struct lanes){.tenants = tenants, .metrics = m, .budget = budget, .margin_ms = margin_ms};
    *ret = ls;
    return 0;
}

struct lane *lanes_find(struct lanes *ls, uint32_t no) {
    struct lane *l = lane_table_find(&ls->by_no, no);
    CHECK(!l || l->magic == LANE_MAGIC);
    return l;
}

/* ---- groups ---- */

struct group_key {
    uint32_t tenant_no;
    enum tenant_tier tier;
};

static struct lane_group *group_for(struct lanes *ls, uint32_t tenant_no, enum tenant_tier tier) {
    struct group_key key = {tenant_no, tier};
    struct lane_group *g;
    HASH_FIND(hh, ls->groups, &key, sizeof key, g);
    if (g)
        return g;
    struct tenant_budget *budget = tenant_budget_of(ls->tenants, tenant_no);
    if (!budget || !(g = calloc(1, sizeof *g)))
        return NULL;
    g->tenant_no = tenant_no;
    g->tier = tier;
    g->budget = budget;
    HASH_ADD(hh, ls->groups, tenant_no, sizeof key, g);
    return g;
}

static void leave_group(struct lanes *ls, struct lane *l) {
    struct lane_group *g = l->group;
    CHECK(!l->queued && g->lanes > 0);
    if (--g->lanes == 0) {
        HASH_DEL(ls->groups, g);
        free(g);
    }
    l->group = NULL;
}

/* ---- lanes come and go ---- */

/* Whether the lane holds for a change of its ordering. */
static void set_relaning(struct lanes *ls, struct lane *l, bool relaning) {
    if (relaning && !l->relaning)
        DL_APPEND2(ls->relanes, l, relane_prev, relane_next);
    if (!relaning && l->relaning)
        DL_DELETE2(ls->relanes, l, relane_prev, relane_next);
    l->relaning = relaning;
}

void lane_free(struct lanes *ls, struct lane *l) {
    CHECK(l->in_flight == 0 && l->claiming == 0);
    set_relaning(ls, l, false);
    lane_forget_permits(ls, l);
    fair_remove(&ls->ready, l);
    heap_remove(&ls->wakes, &l->wake);
    heap_remove(&ls->expiries, &l->expiry);
    lane_set_waiting(ls, l, LANE_WAIT_NONE);
    if (ls->metrics && l->breaker.state != BREAKER_CLOSED)
        metrics_gauge_add(ls->metrics, METRIC_BREAKER_OPEN, -1);
    leave_group(ls, l);
    ls->leaving -= l->released;
    lane_table_remove(&ls->by_no, l);
    subscription_unref(l->subscription);
    free(l->history);
    l->magic = 0;
    free(l);
}

void lanes_free(struct lanes *ls) {
    if (!ls)
        return;
    struct lane *l;
    /* Whenever one goes, another may move into its slot. */
    for (size_t i = 0; i < ls->by_no.cap; i++) {
        while ((l = ls->by_no.slots[i])) {
            l->in_flight = l->claiming = 0;
            lane_free(ls, l);
        }
    }
    lane_table_free(&ls->by_no);
    heap_free(&ls->wakes);
    heap_free(&ls->expiries);
    free(ls);
}

static struct lane *add_lane(struct lanes *ls, const struct subscription *s, const struct lane_start *start,
                             int64_t now) {
    struct lane *l = calloc(1, sizeof *l);
    if (!l)
        return NULL;
    l->magic = LANE_MAGIC;
    l->no = s->no;
    l->next_due_at = INT64_MAX;
    l->failing_since = s->failing_since;
    l->raised_since = s->raised_since;
    l->failing_noted = s->failing_since != 0;
    bucket_init(&l->bucket, start && start->taken_over ? 0 : s->policy->rate_burst, now);
    if (start) {
        l->inherited = start->inherited;
        lane_remember(l, &start->memory);
    }
    if (lane_table_add(&ls->by_no, l) < 0) {
        free(l);
        return NULL;
    }
    return l;
}

/* Moves a lane to its tenant's group in the tier its subscription has now. */
static int join_group(struct lanes *ls, struct lane *l, const struct subscription *s) {
    if (l->group && l->group->tier == s->tier && l->group->tenant_no == s->tenant_no)
        return 0;
    struct lane_group *g = group_for(ls, s->tenant_no, s->tier);
    if (!g)
        return -ENOMEM;
    g->lanes++;
    if (l->group) {
        fair_remove(&ls->ready, l);
        uint32_t held = l->in_flight + l->claiming;
        ls->in_flight[l->group->tier] -= held;
        ls->in_flight[g->tier] += held;
        if (ls->metrics) {
            metrics_in_flight(ls->metrics, l->group->tier, -(int64_t)held);
            metrics_in_flight(ls->metrics, g->tier, held);
        }
        leave_group(ls, l);
    }
    l->group = g;
    return 0;
}

int lanes_put(struct lanes *ls, struct subscription *s, const struct lane_start *start, int64_t now) {
    struct lane *l = lanes_find(ls, s->no);
    bool added = !l;
    if (added && !(l = add_lane(ls, s, start, now)))
        return -ENOMEM;
    if (l->group)
        lane_forget_permits(ls, l);
    int r = join_group(ls, l, s);
    if (r < 0) {
        if (added) {
            lane_table_remove(&ls->by_no, l);
            free(l);
        }
        return r;
    }
    struct subscription *before = l->subscription;
    if (start) /* also of one that comes back before its last attempt has ended */
        l->inherited = start->inherited;
    if (added && ls->metrics && l->breaker.state != BREAKER_CLOSED)
        metrics_gauge_add(ls->metrics, METRIC_BREAKER_OPEN, 1);
    if (before && before->policy->rate_burst != s->policy->rate_burst)
        bucket_init(&l->bucket, s->policy->rate_burst, now);
    /* Enabled again: what the endpoint did before says little about now, but its backlog starts slowly. */
    if (before && before->status == SUBSCRIPTION_DISABLED && s->status != SUBSCRIPTION_DISABLED) {
        if (breaker_reset(&l->breaker) && ls->metrics)
            metrics_gauge_add(ls->metrics, METRIC_BREAKER_OPEN, -1);
        concurrency_slow_start(&l->concurrency);
        l->failing_since = l->raised_since = 0;
        l->failing_noted = false;
        l->rest_until = 0;
    }
    l->subscription = subscription_ref(s);
    subscription_unref(before);
    ls->leaving -= l->released;
    l->removed = l->released = false;
    set_relaning(ls, l, s->relane && s->relane != l->relaned);
    lane_refresh(ls, l, now);
    return 0;
}

bool lanes_remove(struct lanes *ls, uint32_t no) {
    struct lane *l = lanes_find(ls, no);
    if (!l)
        return true;
    l->removed = true;
    lane_forget_permits(ls, l);
    lane_refresh(ls, l, 0);
    if (l->in_flight || l->claiming)
        return false;
    lane_free(ls, l);
    return true;
}

void lanes_release(struct lanes *ls, uint32_t no) {
    struct lane *l = lanes_find(ls, no);
    if (!l || l->removed || lanes_remove(ls, no))
        return;
    l->released = true;
    ls->leaving++;
}

void lanes_release_all(struct lanes *ls, const struct partition_set *partitions) {
    for (size_t i = 0; i < ls->by_no.cap; i++) {
        /* Whenever one goes, another may move into its slot. */
        for (struct lane *l; (l = ls->by_no.slots[i]) && !l->removed &&
                             partition_in(partitions, l->group->tier, partition_of(l->no));)
            lanes_release(ls, l->no);
    }
}

uint32_t lanes_leaving(const struct lanes *ls) {
    return ls->leaving;
}

void lanes_disinherit(struct lanes *ls, uint32_t no, uint32_t n, int64_t now) {
    struct lane *l = lanes_find(ls, no);
    if (!l)
        return;
    l->inherited -= n < l->inherited ? n : l->inherited;
    lane_refresh(ls, l, now);
}

bool lanes_serves(struct lanes *ls, uint32_t no) {
    const struct lane *l = lanes_find(ls, no);
    return l && !l->removed;
}

bool lanes_due(struct lanes *ls, uint32_t no, int64_t due_at, int64_t now) {
    struct lane *l = lanes_find(ls, no);
    if (!l)
        return false;
    if (due_at < l->next_due_at) {
        l->next_due_at = due_at;
        lane_refresh(ls, l, now);
    }
    return true;
}

struct subscription *lanes_subscription(struct lanes *ls, uint32_t no) {
    struct lane *l = lanes_find(ls, no);
    return l ? l->subscription : NULL;
}

/* ---- what falls due ---- */

size_t lanes_expiries(struct lanes *ls, int64_t now, struct lane_expiry *ret, size_t max) {
    size_t n = 0;
    struct heap_node *top;
    while (n < max && (top = heap_top(&ls->expiries)) && top->key <= now) {
        struct lane *l = (struct lane *)((char *)top - offsetof(struct lane, expiry));
        CHECK(l->magic == LANE_MAGIC);
        heap_remove(&ls->expiries, top);
        const struct subscription *s = l->subscription;
        ret[n++] =
            (struct lane_expiry){.subscription_no = l->no,
                                 .tenant_no = s->tenant_no,
                                 .window_ms = (int64_t)s->policy->window_seconds * 1000,
                                 .resumed_at = s->resumed_at,
                                 .spare_ms = s->status == SUBSCRIPTION_DISABLED ? 0 : LANE_LAST_CHANCE_MS};
        lane_refresh_expiry(ls, l, now);
    }
    return n;
}

void lanes_expire_on(struct lanes *ls, uint32_t no, int64_t now) {
    struct lane *l = lanes_find(ls, no);
    if (l && heap_contains(&l->expiry))
        CHECK(heap_set(&ls->expiries, &l->expiry, now) == 0);
}

static struct lane *relane_ready(const struct lanes *ls) {
    struct lane *l;
    DL_FOREACH2(ls->relanes, l, relane_next)
    if (!l->in_flight && !l->claiming && !l->inherited && !l->removed)
        return l;
    return NULL;
}

struct lane_relane lanes_next_relane(struct lanes *ls) {
    const struct lane *l = relane_ready(ls);
    if (!l)
        return (struct lane_relane){0};
    return (struct lane_relane){l->no, l->subscription->ordering, l->subscription->relane};
}

void lanes_relaned(struct lanes *ls, const struct lane_relane *r) {
    struct lane *l = lanes_find(ls, r->subscription_no);
    if (!l || l->subscription->relane != r->relane)
        return;
    l->relaned = r->relane;
    set_relaning(ls, l, false);
}

int64_t lanes_next_wake(struct lanes *ls, int64_t now) {
    bool allowed[TIERS];
    lanes_tiers_with_room(ls, allowed);
    if (fair_has(&ls->ready, allowed) || relane_ready(ls))
        return now;
    struct heap_node *wake = heap_top(&ls->wakes), *expiry = heap_top(&ls->expiries);
    int64_t at = wake ? wake->key : INT64_MAX;
    return expiry && expiry->key < at ? expiry->key : at;
}
