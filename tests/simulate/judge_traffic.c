/* What is on the network: leases, caps, rates, order, pauses. */
#include "judges.h"
#include "timeline.h"
#include "world.h"

/* A token bucket of the judge's own, a little more generous: claims reach the network in bunches. */
struct meter {
    double tokens;
    int64_t filled_at;
    double per_second, most; /* per_second 0: no limit */
};

struct lane_traffic {
    uint32_t live; /* at the receiver, the excused left out */
    struct meter rate;
};

struct tenant_traffic {
    uint32_t live, cap, cap_before;
    int64_t changed_at;
    struct meter rate;
};

static struct lane_traffic *lanes; /* by subscription number */
static size_t lanes_cap;
static struct tenant_traffic tenants[MEMORY_TENANTS_MAX + 1];

void judge_traffic_begin(void) {
    size_t n = memory_store_subscriptions() + 1;
    lanes = host_grow(lanes, &lanes_cap, n, sizeof *lanes);
    memset(lanes, 0, n * sizeof *lanes);
    memset(tenants, 0, sizeof tenants);
}

void judge_traffic_clear(void) {
    host_free(lanes);
    lanes = NULL;
    lanes_cap = 0;
}

static void meter_set(struct meter *m, double per_second, double burst) {
    m->per_second = per_second;
    m->most = burst + per_second * SETTLING_MS / 1000 + 1;
    m->tokens = m->most;
    m->filled_at = world.true_ms;
}

/* false: more than the rate allows. A disturbance (a freeze, a clock that jumps, a start) may bunch anything.
 */
static bool meter_takes(struct meter *m) {
    if (m->per_second <= 0)
        return true;
    m->tokens += (double)(world.true_ms - m->filled_at) / 1000 * m->per_second;
    if (m->tokens > m->most || world.disturbed_at >= m->filled_at ||
        settings_are_settling(world.disturbed_at))
        m->tokens = m->most;
    m->filled_at = world.true_ms;
    m->tokens -= 1;
    return m->tokens >= 0;
}

void judge_traffic_configured(uint32_t no) {
    const struct settings *s = &view_of(no)->now;
    meter_set(&lanes[no].rate, s->policy.rate_per_second, s->policy.rate_burst);
}

void judge_configured_tenant(uint32_t no) {
    const struct tenant_limits *l = &memory_store_tenant(no)->limits;
    struct tenant_traffic *t = &tenants[no];
    t->cap_before = t->cap ? t->cap : l->max_in_flight;
    t->cap = l->max_in_flight;
    t->changed_at = world.true_ms;
    double burst = l->deliveries_per_minute < 10 ? 1 : l->deliveries_per_minute / 10.0;
    meter_set(&t->rate, l->deliveries_per_minute / 60.0, burst);
}

/* ---- one at a time, in order ---- */

static bool before(const struct memory_delivery *a, const struct memory_delivery *b) {
    return a->order_at != b->order_at ? a->order_at < b->order_at : a->event_key < b->event_key;
}

static void judge_key(const struct flight *f) {
    for (const struct flight *o = NULL; (o = flight_next(o));)
        if (o != f && !o->excused && !o->over && o->task.subscription_no == f->task.subscription_no &&
            o->task.lane_key == f->task.lane_key)
            violate(f->task.subscription_no, f->task.event_key, "two of one key at once");
}

/* One that came after this was claimed could not hold it back. */
static void judge_order(const struct flight *f, const struct memory_delivery *d) {
    if (d->replayed)
        return;
    size_t n;
    const uint32_t *open = memory_store_open(f->task.subscription_no, &n);
    for (size_t i = 0; i < n; i++) {
        const struct memory_delivery *o = memory_store_delivery(open[i]);
        if (o->lane_key == d->lane_key && o != d && !o->replayed && before(o, d) &&
            o->born_in < d->claimed_in)
            violate(f->task.subscription_no, f->task.event_key, "sent past an earlier one of its key");
    }
}

static void judge_barrier(const struct flight *f, const struct memory_delivery *d) {
    for (size_t i = memory_store_jobs_pending() ? memory_store_events() : 0; i-- > 0;) {
        const struct memory_event *e = memory_store_event(i);
        int64_t order_at = e->deliver_at > id_ms(e->id) ? e->deliver_at : id_ms(e->id);
        if ((order_at < d->order_at || (order_at == d->order_at && e->id.key < d->event_key)) &&
            e->id.key < d->event_key && memory_store_job_pending(e->id.key, f->task.subscription_no) &&
            judge_promised(e->id.key, f->task.subscription_no) &&
            memory_store_find(e->id.key, f->task.subscription_no) == SIZE_MAX)
            violate(f->task.subscription_no, f->task.event_key,
                    "sent past an earlier event that is still being fanned out");
    }
}

/* ---- the lease ---- */

static void judge_lease(const struct flight *f, const struct memory_delivery *d) {
    if (f->task.number != d->attempts)
        violate(f->task.subscription_no, f->task.event_key, "sent by an attempt that has a successor");
    /* A clock that jumps may take a lease away early. */
    if (d->state != DELIVERY_ATTEMPTING && world.jumped_at + CALM_MS < world.true_ms)
        violate(f->task.subscription_no, f->task.event_key, "sent without a lease");
    if (world_wall() + f->policy.timeout_ms >= f->task.lease_until)
        violate(f->task.subscription_no, f->task.event_key, "sent though its lease ends before its deadline");
    for (const struct flight *o = NULL; (o = flight_next(o));)
        if (o != f && !o->excused && !o->over && o->task.subscription_no == f->task.subscription_no &&
            o->task.event_key == f->task.event_key)
            violate(f->task.subscription_no, f->task.event_key, "one delivery is sent twice at once");
}

/* ---- how many, and whether at all ---- */

static void judge_cap(const struct flight *f) {
    const struct view *v = view_of(f->task.subscription_no);
    uint32_t cap = v->now.policy.max_in_flight;
    if (settings_are_settling(v->changed_at) && v->before.policy.max_in_flight > cap)
        cap = v->before.policy.max_in_flight;
    if (lanes[f->task.subscription_no].live > cap)
        violate(f->task.subscription_no, f->task.event_key, "more in flight than the lane's cap");
}

static void judge_tenant(const struct flight *f, struct tenant_traffic *t) {
    uint32_t cap = t->cap;
    if (settings_are_settling(t->changed_at) && t->cap_before > cap)
        cap = t->cap_before;
    if (t->live > cap)
        violate(f->task.subscription_no, f->task.event_key, "more in flight than the tenant's cap");
    if (!meter_takes(&t->rate))
        violate(f->task.subscription_no, f->task.event_key, "more than the tenant's deliveries_per_minute");
}

static void judge_status(const struct flight *f) {
    const struct view *v = view_of(f->task.subscription_no);
    if (v->stopped)
        violate(f->task.subscription_no, f->task.event_key, "sent after its subscription was deleted");
    else if (v->now.status != SUBSCRIPTION_ACTIVE && !settings_are_settling(v->changed_at))
        violate(f->task.subscription_no, f->task.event_key,
                "sent while its subscription is paused, disabled or deleted");
}

static uint32_t tenant_of(const struct flight *f) {
    return memory_store_subscription(f->task.subscription_no)->tenant_no;
}

void judge_traffic_sent(struct flight *f) {
    size_t row = memory_store_find(f->task.event_key, f->task.subscription_no);
    const struct memory_delivery *d = memory_store_delivery(row);
    struct lane_traffic *l = &lanes[f->task.subscription_no];
    note(f->task.subscription_no, f->task.event_key, f->task.number, f->probe ? "sent, a probe" : "sent");
    l->live++;
    tenants[tenant_of(f)].live++;
    judge_lease(f, d);
    judge_cap(f);
    judge_tenant(f, &tenants[tenant_of(f)]);
    judge_status(f);
    if (!meter_takes(&l->rate))
        violate(f->task.subscription_no, f->task.event_key, "more than the lane's rate_limit");
    if (f->task.lane_key) {
        judge_key(f);
        judge_order(f, d);
        judge_barrier(f, d);
    }
}

static void leave(struct flight *f) {
    if (f->excused)
        return;
    lanes[f->task.subscription_no].live--;
    tenants[tenant_of(f)].live--;
}

void judge_traffic_answered(struct flight *f) {
    leave(f);
}

static void excuse(struct flight *f) {
    if (!f->over)
        leave(f);
    f->excused = true;
}

void judge_traffic_lost(const struct memory_delivery *d) {
    for (struct flight *f = NULL; (f = flight_next(f));)
        if (f->task.subscription_no == d->subscription_no && f->task.event_key == d->event_key)
            excuse(f);
}

void judge_traffic_died(void) {
    for (struct flight *f = NULL; (f = flight_next(f));)
        excuse(f);
}
