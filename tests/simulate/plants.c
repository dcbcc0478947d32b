#include "plants.h"

#include <string.h>

#include "core/retry.h"
#include "fanout/fanout.h"
#include "fanout/index.h"
#include "lanes/breaker.h"
#include "lanes/bucket.h"
#include "lanes/concurrency.h"
#include "lanes/lanes.h"
#include "lanes/permits.h"
#include "scenario.h"
#include "world.h"

static const struct {
    const char *name, *what;
} plants[PLANTS] = {
    [PLANT_NONE] = {"none", "no bug"},
    [PLANT_FENCING] = {"fencing", "a settle is taken whatever its attempt number"},
    [PLANT_CAP] = {"cap", "the concurrency cap is forgotten on refill"},
    [PLANT_FIFO] = {"fifo", "a retry does not hold back the later ones of its key"},
    [PLANT_PROBE] = {"probe", "a half-open breaker lets a second probe go"},
    [PLANT_WAKEUP] = {"wakeup", "one wake-up in twenty is lost"},
    [PLANT_BARRIER] = {"barrier", "ordered lanes do not wait for earlier fan-outs"},
    [PLANT_REST] = {"rest", "Retry-After does not hold back the lane"},
    [PLANT_RUSH] = {"rush", "an endpoint that is back gets its whole backlog at once"},
    [PLANT_TENANT] = {"tenant", "a tenant may have twice its cap in flight"},
    [PLANT_RATE] = {"rate", "a token bucket fills twice as fast"},
    [PLANT_WINDOW] = {"window", "the last retry may lie past the window"},
    [PLANT_BACKOFF] = {"backoff", "a retry is due at once"},
    [PLANT_LEASE] = {"lease", "leases are reaped three seconds early"},
    [PLANT_FANOUT] = {"fanout", "a fan-out passes over one subscription in fifty"},
    [PLANT_HOARD] = {"hoard", "memory keeps 2 KB for each notice of due work"},
    [PLANT_EARLY] = {"early", "a new delivery is begun before its deliver_at"},
};

static enum plant the_plant;

void plant_set(enum plant p) {
    the_plant = p;
}

bool planted(enum plant p) {
    return the_plant == p;
}

const char *plant_name(enum plant p) {
    return plants[p].name;
}

enum plant plant_parse(const char *name) {
    int p = PLANT_NONE + 1;
    while (p < PLANTS && strcmp(name, plants[p].name) != 0)
        p++;
    return (enum plant)p;
}

void plant_list(FILE *to) {
    for (int p = PLANT_NONE + 1; p < PLANTS; p++)
        fprintf(to, "  %-8s  %s\n", plants[p].name, plants[p].what);
}

/* ---- in place of the lanes' own ---- */

#define REPLACES(result, name, ...)                                                                          \
    result __real_##name(__VA_ARGS__);                                                                       \
    result __wrap_##name(__VA_ARGS__);                                                                       \
    result __wrap_##name(__VA_ARGS__)

REPLACES(uint32_t, concurrency_limit, const struct concurrency *c, uint32_t cap) {
    return __real_concurrency_limit(c, cap) + (planted(PLANT_CAP) ? cap : 0);
}

REPLACES(void, concurrency_slow_start, struct concurrency *c) {
    if (!planted(PLANT_RUSH))
        __real_concurrency_slow_start(c);
}

REPLACES(uint32_t, breaker_allowance, const struct breaker *b, int64_t now) {
    if (planted(PLANT_PROBE) && b->state == BREAKER_HALF_OPEN)
        return 1;
    return __real_breaker_allowance(b, now);
}

REPLACES(bool, lanes_due, struct lanes *ls, uint32_t no, int64_t due_at, int64_t now) {
    if (planted(PLANT_WAKEUP) && chance(0.05))
        return true;
    static void *volatile kept;
    if (planted(PLANT_HOARD))
        kept = malloc(2048);
    (void)kept;
    return __real_lanes_due(ls, no, due_at, now);
}

REPLACES(struct lane_news, lanes_ended, struct lanes *ls, const struct lane_outcome *o, int64_t now,
         struct rng *rng) {
    struct lane_outcome forgetful = *o;
    if (planted(PLANT_REST) && o->class == OUTCOME_BACKPRESSURE)
        forgetful.retry_after_ms = 0, forgetful.retry_due_at = now;
    return __real_lanes_ended(ls, &forgetful, now, rng);
}

REPLACES(int, tenant_budgets_put, struct tenant_budgets *b, uint32_t tenant_no,
         const struct tenant_limits *limits) {
    struct tenant_limits doubled = *limits;
    if (planted(PLANT_TENANT))
        doubled.max_in_flight *= 2;
    return __real_tenant_budgets_put(b, tenant_no, &doubled);
}

REPLACES(uint32_t, bucket_available, struct bucket *b, double per_second, double burst, int64_t now) {
    return __real_bucket_available(b, planted(PLANT_RATE) ? per_second * 2 : per_second, burst, now);
}

REPLACES(struct verdict, retry_decide, const struct policy *p, const struct attempt_tally *t,
         const struct outcome *o, int64_t now, struct rng *rng) {
    struct policy changed = *p;
    if (planted(PLANT_WINDOW))
        changed.window_seconds += changed.window_seconds / 4;
    struct verdict v = __real_retry_decide(&changed, t, o, now, rng);
    if (planted(PLANT_BACKOFF) && v.to == DELIVERY_RETRY)
        v.due_at = now;
    return v;
}

REPLACES(bool, permits_begin, struct permits *p, const struct new_delivery *n, int64_t now,
         int64_t *ret_lease_until) {
    struct new_delivery hurried = *n;
    if (planted(PLANT_EARLY))
        hurried.due_at = now;
    return __real_permits_begin(p, &hurried, now, ret_lease_until);
}

/* No bug: small fan-outs become jobs now and then, so that barriers are met without a thousand lanes. */
REPLACES(size_t, index_walk_bound, const struct index_walk *w) {
    double share = scenario_job_share();
    return share > 0 && chance(share) ? FANOUT_INLINE_MAX + 1 : __real_index_walk_bound(w);
}

REPLACES(struct subscription *, index_walk_next, struct index_walk *w) {
    if (planted(PLANT_FANOUT) && chance(0.02))
        (void)__real_index_walk_next(w);
    return __real_index_walk_next(w);
}
