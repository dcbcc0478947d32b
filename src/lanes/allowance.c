/* What a lane may do now, and where that puts it: into the fair queue, to sleep until a moment, or nowhere.
 */
#include "lanes/lane.h"

enum { EXPIRE_EVERY_MS_MIN = 1000 };

void lane_set_waiting(struct lanes *ls, struct lane *l, enum lane_wait cause) {
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

static struct allowance wait_until(enum lane_wait cause, int64_t wake_at) {
    return (struct allowance){.cause = cause, .wake_at = wake_at};
}

struct allowance lane_allowance(struct lane *l, int64_t now) {
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
    uint32_t tasks = breaker_allowance(&l->breaker, now), used = l->in_flight + l->inherited + l->permits;
    if (!tasks)
        return wait_until(LANE_WAIT_BREAKER,
                          l->breaker.state == BREAKER_OPEN ? l->breaker.probe_at : INT64_MAX);
    if (l->breaker.state == BREAKER_OPEN && l->inherited) /* one of them may be a probe */
        return wait_until(LANE_WAIT_BREAKER, INT64_MAX);
    uint32_t limit = concurrency_limit(&l->concurrency, s->policy->max_in_flight);
    if (used >= limit)
        return wait_until(LANE_WAIT_CONCURRENCY, INT64_MAX);
    if (tasks > limit - used)
        tasks = limit - used;
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

void lane_refresh_expiry(struct lanes *ls, struct lane *l, int64_t now) {
    /* While a probe is being claimed nobody knows what waits: its time goes on. */
    bool stuck = !l->removed && (l->next_due_at != INT64_MAX || l->claiming) &&
                 (l->subscription->status == SUBSCRIPTION_DISABLED ||
                  (l->subscription->status == SUBSCRIPTION_ACTIVE && l->breaker.state != BREAKER_CLOSED));
    if (!stuck)
        heap_remove(&ls->expiries, &l->expiry);
    else if (!heap_contains(&l->expiry))
        CHECK(heap_set(&ls->expiries, &l->expiry, now + expire_every(l)) == 0);
}

void lane_refresh(struct lanes *ls, struct lane *l, int64_t now) {
    struct allowance a = lane_allowance(l, now);
    lane_set_waiting(ls, l, a.cause);
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
    lane_refresh_expiry(ls, l, now);
    lane_refresh_permits(ls, l, now);
}
