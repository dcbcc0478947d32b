#include "lanes/lanes.h"

#include <errno.h>
#include <utlist.h>

#include "lanes/lane.h"
#include "lanes/tenant_budget.h"

enum {
    CLAIM_FAILED_REST_MS = 100,
    FAILING_NOTED_AFTER_MS = 60000, /* shorter runs of failures are not worth a write */
    EXPIRE_EVERY_MS_MIN = 1000,
};

/* Of the loop's budget, what each tier finds free whatever the others do. */
static const double reserved_share[TIERS] = {[TIER_PREMIUM] = 0.2, [TIER_STANDARD] = 0.1, [TIER_BULK] = 0.05};

struct lanes {
    struct tenant_budgets *tenants;
    struct metrics *metrics;
    uint32_t budget;
    int64_t margin_ms;
    struct lane *by_no;
    struct lane_group *groups; /* keyed by tenant and tier */
    struct fair_queue ready;
    struct heap wakes, expiries;
    struct lane *relanes;
    uint32_t in_flight[TIERS]; /* claims under way included */
};

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

static struct lane *find(struct lanes *ls, uint32_t no) {
    struct lane *l;
    HASH_FIND(hh, ls->by_no, &no, sizeof no, l);
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

/* ---- what a lane may do now ---- */

static void set_waiting(struct lanes *ls, struct lane *l, enum lane_wait cause) {
    if (l->waiting_on == cause)
        return;
    if (ls->metrics) {
        if (l->waiting_on != LANE_WAIT_NONE)
            metrics_throttled(ls->metrics, (enum lane_wait)l->waiting_on, -1);
        if (cause != LANE_WAIT_NONE)
            metrics_throttled(ls->metrics, cause, 1);
    }
    l->waiting_on = (uint8_t)cause;
}

struct allowance {
    uint32_t tasks;       /* that may be claimed now */
    enum lane_wait cause; /* why none */
    int64_t wake_at;      /* when time alone changes that, INT64_MAX when it does not */
};

static struct allowance wait_until(enum lane_wait cause, int64_t wake_at) {
    return (struct allowance){.cause = cause, .wake_at = wake_at};
}

static struct allowance allowance_of(struct lane *l, int64_t now) {
    const struct subscription *s = l->subscription;
    if (l->removed || l->claiming || l->next_due_at == INT64_MAX)
        return wait_until(LANE_WAIT_NONE, INT64_MAX);
    if (s->status != SUBSCRIPTION_ACTIVE)
        return wait_until(s->status == SUBSCRIPTION_PAUSED ? LANE_WAIT_PAUSED : LANE_WAIT_NONE, INT64_MAX);
    if (s->relane)
        return wait_until(LANE_WAIT_ORDERING, INT64_MAX);
    if (l->next_due_at > now)
        return wait_until(LANE_WAIT_NONE, l->next_due_at);
    if (l->rest_until > now)
        return wait_until(LANE_WAIT_RATE_LIMIT, l->rest_until);
    uint32_t tasks = breaker_allowance(&l->breaker, now);
    if (!tasks)
        return wait_until(LANE_WAIT_BREAKER,
                          l->breaker.state == BREAKER_OPEN ? l->breaker.probe_at : INT64_MAX);
    uint32_t limit = concurrency_limit(&l->concurrency, s->policy->max_in_flight);
    if (l->in_flight >= limit)
        return wait_until(LANE_WAIT_CONCURRENCY, INT64_MAX);
    if (tasks > limit - l->in_flight)
        tasks = limit - l->in_flight;
    if (s->policy->rate_per_second) {
        uint32_t tokens =
            bucket_available(&l->bucket, s->policy->rate_per_second, s->policy->rate_burst, now);
        if (!tokens)
            return wait_until(LANE_WAIT_RATE_LIMIT,
                              bucket_ready_at(&l->bucket, s->policy->rate_per_second, now));
        if (tasks > tokens)
            tasks = tokens;
    }
    return (struct allowance){.tasks = tasks < LANE_CLAIM_MAX ? tasks : LANE_CLAIM_MAX};
}

static int64_t expire_every(const struct lane *l) {
    int64_t quarter = (int64_t)l->subscription->policy->window_seconds * 1000 / 4;
    return quarter < EXPIRE_EVERY_MS_MIN    ? EXPIRE_EVERY_MS_MIN
           : quarter < LANE_EXPIRE_EVERY_MS ? quarter
                                            : LANE_EXPIRE_EVERY_MS;
}

/* A lane that holds work it may not send sheds what expires meanwhile; while paused nothing expires. */
static void refresh_expiry(struct lanes *ls, struct lane *l, int64_t now) {
    /* While a probe is being claimed nobody knows what waits: its time goes on. */
    bool stuck = !l->removed && (l->next_due_at != INT64_MAX || l->claiming) &&
                 (l->subscription->status == SUBSCRIPTION_DISABLED ||
                  (l->subscription->status == SUBSCRIPTION_ACTIVE && l->breaker.state != BREAKER_CLOSED));
    if (!stuck)
        heap_remove(&ls->expiries, &l->expiry);
    else if (!heap_contains(&l->expiry))
        CHECK(heap_set(&ls->expiries, &l->expiry, now + expire_every(l)) == 0);
}

/* Puts the lane where its state says: into the fair queue, to sleep until a moment, or nowhere. Call after
 * every change. */
static void refresh(struct lanes *ls, struct lane *l, int64_t now) {
    struct allowance a = allowance_of(l, now);
    set_waiting(ls, l, a.cause);
    if (a.tasks) {
        heap_remove(&ls->wakes, &l->wake);
        fair_push(&ls->ready, l);
    } else {
        fair_remove(&ls->ready, l);
        if (a.wake_at == INT64_MAX)
            heap_remove(&ls->wakes, &l->wake);
        else
            CHECK(heap_set(&ls->wakes, &l->wake, a.wake_at) == 0);
    }
    refresh_expiry(ls, l, now);
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

static void free_lane(struct lanes *ls, struct lane *l) {
    CHECK(l->in_flight == 0 && l->claiming == 0);
    set_relaning(ls, l, false);
    fair_remove(&ls->ready, l);
    heap_remove(&ls->wakes, &l->wake);
    heap_remove(&ls->expiries, &l->expiry);
    set_waiting(ls, l, LANE_WAIT_NONE);
    if (ls->metrics && l->breaker.state != BREAKER_CLOSED)
        metrics_gauge_add(ls->metrics, METRIC_BREAKER_OPEN, -1);
    leave_group(ls, l);
    HASH_DEL(ls->by_no, l);
    subscription_unref(l->subscription);
    free(l->history);
    l->magic = 0;
    free(l);
}

void lanes_free(struct lanes *ls) {
    if (!ls)
        return;
    struct lane *l, *next;
    HASH_ITER (hh, ls->by_no, l, next) {
        l->in_flight = l->claiming = 0;
        free_lane(ls, l);
    }
    heap_free(&ls->wakes);
    heap_free(&ls->expiries);
    free(ls);
}

static struct lane *add_lane(struct lanes *ls, const struct subscription *s, int64_t now) {
    struct lane *l = calloc(1, sizeof *l);
    if (!l)
        return NULL;
    l->magic = LANE_MAGIC;
    l->no = s->no;
    l->next_due_at = INT64_MAX;
    l->failing_since = s->failing_since;
    l->raised_since = s->raised_since;
    l->failing_noted = s->failing_since != 0;
    bucket_init(&l->bucket, s->policy->rate_burst, now);
    HASH_ADD(hh, ls->by_no, no, sizeof l->no, l);
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

int lanes_put(struct lanes *ls, struct subscription *s, int64_t now) {
    struct lane *l = find(ls, s->no);
    if (!l && !(l = add_lane(ls, s, now)))
        return -ENOMEM;
    int r = join_group(ls, l, s);
    if (r < 0) {
        if (!l->subscription) {
            HASH_DEL(ls->by_no, l);
            free(l);
        }
        return r;
    }
    struct subscription *before = l->subscription;
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
    l->removed = false;
    set_relaning(ls, l, s->relane && s->relane != l->relaned);
    refresh(ls, l, now);
    return 0;
}

bool lanes_remove(struct lanes *ls, uint32_t no) {
    struct lane *l = find(ls, no);
    if (!l)
        return true;
    l->removed = true;
    refresh(ls, l, 0);
    if (l->in_flight || l->claiming)
        return false;
    free_lane(ls, l);
    return true;
}

bool lanes_due(struct lanes *ls, uint32_t no, int64_t due_at, int64_t now) {
    struct lane *l = find(ls, no);
    if (!l)
        return false;
    if (due_at < l->next_due_at) {
        l->next_due_at = due_at;
        refresh(ls, l, now);
    }
    return true;
}

/* ---- claiming ---- */

static uint32_t total_in_flight(const struct lanes *ls) {
    uint32_t total = 0;
    for (int t = 0; t < TIERS; t++)
        total += ls->in_flight[t];
    return total;
}

/* How many more a tier may have in flight: what is free less what the other tiers have reserved and do not
 * use. */
static uint32_t tier_room(const struct lanes *ls, enum tenant_tier tier) {
    int64_t room = (int64_t)ls->budget - total_in_flight(ls);
    for (int t = 0; t < TIERS; t++) {
        int64_t reserve = (int64_t)(reserved_share[t] * ls->budget) - ls->in_flight[t];
        if (t != (int)tier && reserve > 0)
            room -= reserve;
    }
    return room > 0 ? (uint32_t)room : 0;
}

static void tiers_with_room(const struct lanes *ls, bool ret[TIERS]) {
    for (int t = 0; t < TIERS; t++)
        ret[t] = tier_room(ls, (enum tenant_tier)t) > 0;
}

static void wake_lanes(struct lanes *ls, int64_t now) {
    struct heap_node *top;
    while ((top = heap_top(&ls->wakes)) && top->key <= now) {
        struct lane *l = (struct lane *)((char *)top - offsetof(struct lane, wake));
        CHECK(l->magic == LANE_MAGIC);
        heap_remove(&ls->wakes, top);
        refresh(ls, l, now);
        CHECK(!heap_contains(&l->wake) || l->wake.key > now);
    }
}

static void count_in_flight(struct lanes *ls, struct lane *l, int64_t delta) {
    ls->in_flight[l->group->tier] = (uint32_t)((int64_t)ls->in_flight[l->group->tier] + delta);
    if (ls->metrics)
        metrics_in_flight(ls->metrics, l->group->tier, delta);
}

/* Reserves up to `most` places for the lane's claim; 0 when it may not send after all. */
static uint32_t reserve(struct lanes *ls, struct lane *l, uint32_t most, int64_t now) {
    struct allowance a = allowance_of(l, now);
    uint32_t n = a.tasks < most ? a.tasks : most;
    enum lane_wait cause = LANE_WAIT_NONE;
    if (n)
        n = tenant_budget_take(l->group->budget, n, now, &cause);
    if (!n) {
        refresh(ls, l, now);
        if (cause != LANE_WAIT_NONE) {
            /* The tenant's cap, not the lane's: another loop may free it, which nobody tells us. */
            fair_remove(&ls->ready, l);
            set_waiting(ls, l, cause);
            CHECK(heap_set(&ls->wakes, &l->wake, now + LANE_TENANT_POLL_MS) == 0);
        }
        return 0;
    }
    if (l->subscription->policy->rate_per_second)
        bucket_take(&l->bucket, n);
    l->claiming = n;
    /* A notice that comes while the claim is under way is not lost: it sets this again. */
    l->next_due_at = INT64_MAX;
    count_in_flight(ls, l, n);
    fair_charge(&ls->ready, l->group->tier, n);
    refresh(ls, l, now);
    return n;
}

size_t lanes_plan(struct lanes *ls, int64_t now, struct lane_claim *ret, size_t max, size_t tasks_max) {
    wake_lanes(ls, now);
    size_t n = 0;
    bool allowed[TIERS];
    while (n < max && tasks_max > 0) {
        tiers_with_room(ls, allowed);
        struct lane *l = fair_pop(&ls->ready, allowed);
        if (!l)
            break;
        uint32_t most = tier_room(ls, l->group->tier);
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
            .lease_ms = s->policy->timeout_ms + ls->margin_ms,
            .probe = breaker_next_probe(&l->breaker),
        };
    }
    return n;
}

bool lanes_claimed(struct lanes *ls, const struct lane_claim *c, bool failed, int64_t now) {
    struct lane *l = find(ls, c->subscription_no);
    CHECK(l && l->claiming == c->limit && c->claimed <= c->limit);
    uint32_t claimed = failed ? 0 : c->claimed, unused = l->claiming - claimed;
    int64_t next_due_at = failed ? now : c->next_due_at;
    tenant_budget_return(l->group->budget, unused, true);
    if (unused && l->subscription->policy->rate_per_second)
        bucket_return(&l->bucket, unused, l->subscription->policy->rate_burst);
    count_in_flight(ls, l, -(int64_t)unused);
    l->claiming = 0;
    l->in_flight += claimed;
    if (failed && l->rest_until < now + CLAIM_FAILED_REST_MS)
        l->rest_until = now + CLAIM_FAILED_REST_MS;
    if (next_due_at < l->next_due_at)
        l->next_due_at = next_due_at;
    if (claimed)
        breaker_probe_begun(&l->breaker, c->probe);
    if (l->removed && !l->in_flight) {
        free_lane(ls, l);
        return true;
    }
    refresh(ls, l, now);
    return false;
}

/* ---- outcomes ---- */

/* What the endpoint asks for holds for the whole lane, however long this task's own backoff is and whether it
 * is retried at all. Only the window cuts it. */
static void note_backpressure(struct lane *l, const struct lane_outcome *o, int64_t now) {
    int64_t rest_ms = o->retry_after_ms, most_ms = (int64_t)l->subscription->policy->window_seconds * 1000;
    if (rest_ms < 0)
        rest_ms = o->retry_due_at ? LANE_BACKPRESSURE_MS_MAX : 0;
    if (o->retry_due_at)
        most_ms = o->retry_due_at - now;
    int64_t until = now + (rest_ms < most_ms ? rest_ms : most_ms);
    if (until > l->rest_until)
        l->rest_until = until;
}

static void note_failure(struct lanes *ls, struct lane *l, const struct lane_outcome *o, int64_t now,
                         struct rng *rng) {
    uint32_t cap = l->subscription->policy->max_in_flight;
    if (o->class == OUTCOME_BACKPRESSURE)
        note_backpressure(l, o, now);
    if (o->class == OUTCOME_BACKPRESSURE || o->timed_out)
        concurrency_halve(&l->concurrency, cap, o->started_at, now);
    if (o->class != OUTCOME_TRANSIENT) {
        /* It answered: the endpoint is there. A probe that met backpressure has done its work. */
        if (breaker_success(&l->breaker, o->probe) && ls->metrics)
            metrics_gauge_add(ls->metrics, METRIC_BREAKER_OPEN, -1);
        return;
    }
    if (breaker_failure(&l->breaker, o->event_key, o->probe, now, rng) && ls->metrics)
        metrics_gauge_add(ls->metrics, METRIC_BREAKER_OPEN, 1);
}

static void note_success(struct lanes *ls, struct lane *l, uint32_t probe) {
    if (!breaker_success(&l->breaker, probe)) {
        concurrency_success(&l->concurrency, l->subscription->policy->max_in_flight);
        return;
    }
    concurrency_slow_start(&l->concurrency);
    if (ls->metrics)
        metrics_gauge_add(ls->metrics, METRIC_BREAKER_OPEN, -1);
}

/* The tenant is told once the breaker is open, by an outcome that may tell; and then of the first success. */
static void note_success_of_health(struct lane *l, bool quiet, struct lane_news *news) {
    news->noted = l->failing_noted;
    l->failing_since = 0;
    l->failing_noted = false;
    if (!l->raised_since || quiet || l->breaker.state != BREAKER_CLOSED)
        return;
    news->noted = news->recovered = true;
    news->failed_since = l->raised_since;
    l->raised_since = 0;
}

static void note_failure_of_health(struct lane *l, bool quiet, int64_t now, struct lane_news *news) {
    if (!l->failing_since)
        l->failing_since = now;
    int64_t failing_ms = now - l->failing_since;
    if (!l->raised_since && !quiet && l->breaker.state != BREAKER_CLOSED) {
        l->raised_since = l->failing_since;
        news->failing = true;
    }
    news->noted = news->failing || (!l->failing_noted && failing_ms >= FAILING_NOTED_AFTER_MS);
    l->failing_noted |= news->noted;
    news->exhausted = l->subscription->status != SUBSCRIPTION_DISABLED &&
                      failing_ms >= (int64_t)l->subscription->policy->disable_after_seconds * 1000;
}

static struct lane_news note_health(struct lane *l, bool success, bool quiet, int64_t now) {
    struct lane_news news = {0};
    if (success)
        note_success_of_health(l, quiet, &news);
    else
        note_failure_of_health(l, quiet, now, &news);
    news.failing_since = l->failing_since;
    news.raised_since = l->raised_since;
    return news;
}

struct lane_news lanes_ended(struct lanes *ls, const struct lane_outcome *o, int64_t now, struct rng *rng) {
    struct lane *l = find(ls, o->subscription_no);
    CHECK(l && l->in_flight > 0);
    struct lane_news news = {0};
    l->in_flight--;
    count_in_flight(ls, l, -1);
    tenant_budget_return(l->group->budget, 1, o->not_sent);
    if (o->not_sent) {
        breaker_probe_lost(&l->breaker, o->probe, now);
    } else {
        bool success = o->class == OUTCOME_SUCCESS;
        lane_history_add(l, success, o->latency_ms);
        if (success)
            note_success(ls, l, o->probe);
        else
            note_failure(ls, l, o, now, rng);
        news = note_health(l, success, o->quiet, now);
    }
    if (o->retry_due_at && o->retry_due_at < l->next_due_at)
        l->next_due_at = o->retry_due_at;
    news.removed = l->removed && !l->in_flight && !l->claiming;
    if (news.removed)
        free_lane(ls, l);
    else
        refresh(ls, l, now);
    return news;
}

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
                                 .window_ms = (int64_t)s->policy->window_seconds * 1000,
                                 .resumed_at = s->resumed_at,
                                 .spare_ms = s->status == SUBSCRIPTION_DISABLED ? 0 : LANE_LAST_CHANCE_MS};
        refresh_expiry(ls, l, now);
    }
    return n;
}

void lanes_expire_on(struct lanes *ls, uint32_t no, int64_t now) {
    struct lane *l = find(ls, no);
    if (l && heap_contains(&l->expiry))
        CHECK(heap_set(&ls->expiries, &l->expiry, now) == 0);
}

static struct lane *relane_ready(const struct lanes *ls) {
    struct lane *l;
    DL_FOREACH2(ls->relanes, l, relane_next)
    if (!l->in_flight && !l->claiming && !l->removed)
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
    struct lane *l = find(ls, r->subscription_no);
    if (!l || l->subscription->relane != r->relane)
        return;
    l->relaned = r->relane;
    set_relaning(ls, l, false);
}

int64_t lanes_next_wake(struct lanes *ls, int64_t now) {
    bool allowed[TIERS];
    tiers_with_room(ls, allowed);
    if (fair_has(&ls->ready, allowed) || relane_ready(ls))
        return now;
    struct heap_node *wake = heap_top(&ls->wakes), *expiry = heap_top(&ls->expiries);
    int64_t at = wake ? wake->key : INT64_MAX;
    return expiry && expiry->key < at ? expiry->key : at;
}

/* ---- looking ---- */

struct subscription *lanes_subscription(struct lanes *ls, uint32_t no) {
    struct lane *l = find(ls, no);
    return l ? l->subscription : NULL;
}

void lanes_stats(struct lanes *ls, uint32_t no, int64_t now, struct lane_stats *ret) {
    struct lane *l = find(ls, no);
    *ret = (struct lane_stats){.next_due_at = INT64_MAX, .breaker = breaker_state_name(BREAKER_CLOSED)};
    ret->latency_p50_ms = ret->latency_p95_ms = ret->latency_p99_ms = -1;
    if (!l)
        return;
    refresh(ls, l, now);
    ret->known = true;
    ret->in_flight = l->in_flight;
    ret->concurrency = concurrency_limit(&l->concurrency, l->subscription->policy->max_in_flight);
    ret->breaker = breaker_state_name(l->breaker.state);
    ret->waiting_on = (enum lane_wait)l->waiting_on;
    ret->next_due_at = l->next_due_at;
    if (!l->history)
        return;
    ret->successes = l->history->successes;
    ret->failures = l->history->failures;
    ret->latency_p50_ms = lane_history_percentile(l->history, 0.5);
    ret->latency_p95_ms = lane_history_percentile(l->history, 0.95);
    ret->latency_p99_ms = lane_history_percentile(l->history, 0.99);
}

uint32_t lanes_in_flight(const struct lanes *ls) {
    return total_in_flight(ls);
}

int64_t lanes_lag(struct lanes *ls, int64_t now) {
    int64_t lag = 0;
    for (int t = 0; t < TIERS; t++) {
        const struct lane_group *g = ls->ready.tiers[t];
        /* The head of each tier's queue has waited longest for its turn: close enough, and free. */
        if (g && now - g->queue->next_due_at > lag)
            lag = now - g->queue->next_due_at;
    }
    return lag;
}
