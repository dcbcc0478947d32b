/* Each committed change of a delivery: is the transition one of api.md §4, was it this attempt's to make,
 * does the retry lie where the policy puts it. */
#include "judges.h"
#include "process.h"
#include "timeline.h"
#include "world.h"

/* What the judge itself knows of a delivery. */
struct ledger {
    uint32_t claims;  /* over all replays */
    uint32_t counted; /* towards max_attempts, since the last replay */
    uint32_t made;    /* since the last replay */
    uint32_t live;    /* number of the attempt that holds the lease, 0: none */
    int64_t window_at, due_since;
    bool scheduled; /* it has a deliver_at */
    bool closed;
    /* of the attempt that ended last */
    uint32_t ended;
    struct outcome outcome;
    struct policy policy;
};

static struct ledger *ledgers; /* by row */
static size_t ledgers_cap;

void judge_deliveries_begin(void) {
}

void judge_deliveries_clear(void) {
    host_free(ledgers);
    ledgers = NULL;
    ledgers_cap = 0;
}

int64_t delivery_due_since(size_t row) {
    const struct memory_delivery *d = memory_store_delivery(row);
    int64_t since = ledgers[row].due_since;
    if (!ledgers[row].scheduled)
        return since;
    /* A clock that was set moves what waits for a time. */
    int64_t due_at = world.true_ms - (world_wall() - d->order_at);
    return due_at > since ? due_at : since;
}

static void wrong(const struct memory_change *c, const char *what) {
    violate(c->after.subscription_no, c->after.event_key, what);
}

void judge_deliveries_ended(const struct attempt *a) {
    size_t row = memory_store_find(a->task.event_key, a->task.subscription_no);
    struct ledger *l = &ledgers[row];
    if (a->task.number < l->ended)
        return;
    l->ended = a->task.number;
    l->outcome = a->outcome;
    l->policy = *a->subscription->policy;
    /* The same array, where it outlives the process. */
    l->policy.retry.schedule_seconds =
        memory_store_subscription(a->task.subscription_no)->policy.retry.schedule_seconds;
}

/* ---- api.md §4, written out once more ---- */

enum meaning { MEANS_SUCCESS, MEANS_TRANSIENT, MEANS_BACKPRESSURE, MEANS_GONE, MEANS_PERMANENT };

static enum meaning meaning_of(const struct outcome *o) {
    if (o->status == 0)
        return MEANS_TRANSIENT;
    if (o->status / 100 == 2)
        return MEANS_SUCCESS;
    if (o->status == 429 || (o->status == 503 && o->retry_after_ms >= 0))
        return MEANS_BACKPRESSURE;
    if (o->status == 410)
        return MEANS_GONE;
    if (o->status / 100 == 4 && o->status != 408 && o->status != 409 && o->status != 425)
        return MEANS_PERMANENT;
    return MEANS_TRANSIENT;
}

struct bounds {
    int64_t least, most; /* the delay, ms; most -1: there is to be no further attempt */
};

static struct bounds delay_of(const struct policy *p, const struct ledger *l, bool backpressure) {
    const struct retry_policy *r = &p->retry;
    double ms = r->initial_seconds * 1000.0;
    if (r->schedule_seconds) {
        uint32_t step = l->counted ? l->counted : 1;
        if (step > r->schedule_n && !backpressure)
            return (struct bounds){0, -1};
        ms = r->schedule_seconds[(step > r->schedule_n ? r->schedule_n : step) - 1] * 1000.0;
    } else {
        for (uint32_t i = 1; i < l->made; i++)
            ms = ms * r->multiplier > r->max_seconds * 1000.0 ? r->max_seconds * 1000.0 : ms * r->multiplier;
        if (ms > r->max_seconds * 1000.0)
            ms = r->max_seconds * 1000.0;
    }
    return (struct bounds){(int64_t)(ms * (1 - r->jitter)) - 1, (int64_t)(ms * (1 + r->jitter)) + 1};
}

static void judge_retry(const struct memory_change *c, const struct ledger *l, const struct policy *p,
                        const struct outcome *o, bool backpressure, struct bounds delay) {
    int64_t end = l->window_at + (int64_t)p->window_seconds * 1000;
    int64_t asked = o->retry_after_ms > 0 ? o->retry_after_ms : 0;
    if (c->now + asked > end)
        asked = end - c->now;
    if (delay.least < asked)
        delay.least = asked;
    if (delay.most < asked)
        delay.most = asked;
    if (c->after.state == DELIVERY_DLQ) {
        if (c->after.reason == REASON_WINDOW_EXPIRED && c->now + delay.most <= end)
            wrong(c, "given up though the next retry lies within the window");
        return;
    }
    if (c->after.due_at > end)
        wrong(c, "a retry lies past the window");
    if (!backpressure && l->counted >= p->max_attempts)
        wrong(c, "a retry after max_attempts");
    if (c->after.due_at < c->now + delay.least)
        wrong(c, "a retry is due too early");
    if (c->after.due_at > c->now + delay.most)
        wrong(c, "a retry is due too late");
}

static void judge_failure(const struct memory_change *c, struct ledger *l, const struct policy *p,
                          const struct outcome *o, bool backpressure) {
    struct bounds delay = delay_of(p, l, backpressure);
    if (o->error == ATTEMPT_LEASE_EXPIRED && o->status == 0)
        delay = (struct bounds){0, 0}; /* due again at once */
    if (delay.most < 0 || (!backpressure && l->counted >= p->max_attempts)) {
        if (c->after.state != DELIVERY_DLQ || c->after.reason != REASON_ATTEMPTS_EXHAUSTED)
            wrong(c, "more attempts than the policy allows");
        return;
    }
    if (c->after.state == DELIVERY_DELIVERED || c->after.reason == REASON_ATTEMPTS_EXHAUSTED ||
        c->after.reason == REASON_GONE || c->after.reason == REASON_PERMANENT_RESPONSE)
        wrong(c, "what may pass was not retried");
    judge_retry(c, l, p, o, backpressure, delay);
}

static void judge_verdict(const struct memory_change *c, struct ledger *l) {
    struct outcome lost = {.error = ATTEMPT_LEASE_EXPIRED, .retry_after_ms = -1};
    bool was_lost = c->error == ATTEMPT_LEASE_EXPIRED;
    if (!was_lost && l->ended != c->number) {
        wrong(c, "an attempt was settled that never ended");
        return;
    }
    const struct outcome *o = was_lost ? &lost : &l->outcome;
    const struct memory_subscription *s = memory_store_subscription(c->after.subscription_no);
    const struct policy *p = was_lost ? &view_of(s->no)->now.policy : &l->policy;
    enum meaning m = meaning_of(o);
    if (c->counted != (m != MEANS_BACKPRESSURE))
        wrong(c, "an attempt counts that should not, or the other way round");
    l->counted += c->counted;
    bool delivered = c->after.state == DELIVERY_DELIVERED;
    switch (m) {
    case MEANS_SUCCESS:
        if (!delivered)
            wrong(c, "a success was not taken for one");
        break;
    case MEANS_GONE:
    case MEANS_PERMANENT:
        if (c->after.reason != (m == MEANS_GONE ? REASON_GONE : REASON_PERMANENT_RESPONSE))
            wrong(c, "a final answer was not taken for one");
        break;
    case MEANS_TRANSIENT:
    case MEANS_BACKPRESSURE:
        /* A policy that changed while the lease was lost is looked at by the reaper as it finds it. */
        if (!(was_lost && (!view_of(s->no)->known || s->status == SUBSCRIPTION_DELETED ||
                           settings_are_settling(view_of(s->no)->changed_at))))
            judge_failure(c, l, p, o, m == MEANS_BACKPRESSURE);
        break;
    }
}

/* ---- changes ---- */

static void made(const struct memory_change *c) {
    ledgers = host_grow(ledgers, &ledgers_cap, (size_t)c->row + 1, sizeof *ledgers);
    int64_t wait = c->after.order_at - world_wall();
    size_t no = memory_store_event_no(c->after.event_key);
    ledgers[c->row] = (struct ledger){.window_at = c->after.window_at,
                                      .scheduled = no && memory_store_event(no - 1)->deliver_at,
                                      .due_since = world.true_ms};
    note_value(c->after.subscription_no, c->after.event_key, 0, "new, due in ms", wait);
}

static bool waits(enum delivery_state s) {
    return s == DELIVERY_PENDING || s == DELIVERY_RETRY || s == DELIVERY_REPLAYING;
}

/* What was due at the very end, or what a pause has kept past it, may have one attempt more. */
static bool claimed_too_late(const struct memory_change *c, const struct ledger *l, const struct policy *p,
                             int64_t resumed_at) {
    int64_t end = l->window_at + (int64_t)p->window_seconds * 1000;
    return c->now > end && c->before.due_at != end && resumed_at < end;
}

static int64_t deliver_at_of(const struct memory_change *c) {
    return memory_store_event(memory_store_event_no(c->after.event_key) - 1)->deliver_at;
}

static void judge_claim(const struct memory_change *c, struct ledger *l) {
    if (l->live || !waits(c->before.state))
        wrong(c, "two live leases on one delivery");
    if (c->after.attempts != l->claims + 1)
        wrong(c, "attempt_count is wrong");
    /* The time of ids runs ahead of a clock that was set back, and a deliver_at may lie between. */
    if (l->scheduled && l->claims == 0 && c->now < deliver_at_of(c) &&
        world.jumped_at + CALM_MS < world.true_ms)
        wrong(c, "claimed before its deliver_at");
    l->claims++;
    l->made++;
    l->live = c->after.attempts;
    const struct view *v = view_of(c->after.subscription_no);
    if (claimed_too_late(c, l, &v->now.policy, v->now.resumed_at) &&
        (!settings_are_settling(v->changed_at) ||
         claimed_too_late(c, l, &v->before.policy, v->now.resumed_at)))
        wrong(c, "an attempt begins after the window");
    note(c->after.subscription_no, c->after.event_key, c->after.attempts, "claimed");
}

static void judge_settle(const struct memory_change *c, struct ledger *l) {
    if (c->before.state != DELIVERY_ATTEMPTING || l->live != c->number)
        wrong(c, "a settle was taken whose lease was lost");
    if (c->after.state != DELIVERY_DELIVERED && c->after.state != DELIVERY_RETRY &&
        c->after.state != DELIVERY_DLQ)
        wrong(c, "no such transition");
    /* A start takes all leases: whoever held them is dead. */
    if (c->error == ATTEMPT_LEASE_EXPIRED && c->now <= c->before.lease_until && !process_has_just_begun())
        wrong(c, "a lease was taken away before its end");
    judge_verdict(c, l);
    l->live = 0;
    if (c->error == ATTEMPT_LEASE_EXPIRED)
        judge_traffic_lost(&c->after);
    note_value(c->after.subscription_no, c->after.event_key, c->number,
               c->error == ATTEMPT_LEASE_EXPIRED ? "lease expired" : delivery_state_name(c->after.state),
               c->after.state == DELIVERY_RETRY ? c->after.due_at - c->now : 0);
}

static void judge_shed(const struct memory_change *c, const struct ledger *l) {
    const struct view *v = view_of(c->after.subscription_no);
    if (!waits(c->before.state))
        wrong(c, "no such transition");
    if (c->after.reason == REASON_SUBSCRIPTION_DELETED) {
        if (memory_store_subscription(c->after.subscription_no)->status != SUBSCRIPTION_DELETED)
            wrong(c, "given up for a deletion that never was");
    } else if (!settings_are_settling(v->changed_at)) {
        if (c->now <= l->window_at + (int64_t)v->now.policy.window_seconds * 1000)
            wrong(c, "given up within the window");
        if (v->now.status == SUBSCRIPTION_PAUSED)
            wrong(c, "given up while paused");
    }
    note(c->after.subscription_no, c->after.event_key, 0, delivery_reason_name(c->after.reason));
}

static void judge_replay(const struct memory_change *c, struct ledger *l) {
    if (!l->closed || delivery_is_open(c->before.state))
        wrong(c, "no such transition");
    if (c->after.attempts != l->claims)
        wrong(c, "a replay changed attempt_count");
    l->scheduled = false;
    l->counted = l->made = 0;
    l->window_at = c->now;
    l->due_since = world.true_ms;
    note(c->after.subscription_no, c->after.event_key, 0, "replayed");
}

void judge_change(const struct memory_change *c) {
    if (c->kind == CHANGE_NEW) {
        made(c);
        return;
    }
    struct ledger *l = &ledgers[c->row];
    switch (c->kind) {
    case CHANGE_NEW:
        break;
    case CHANGE_CLAIM:
        judge_claim(c, l);
        break;
    case CHANGE_SETTLE:
        judge_settle(c, l);
        break;
    case CHANGE_STALE:
        note(c->after.subscription_no, c->after.event_key, c->number, "a late settle is refused");
        break;
    case CHANGE_SHED:
        judge_shed(c, l);
        break;
    case CHANGE_REPLAY:
        judge_replay(c, l);
        break;
    }
    l->closed = !delivery_is_open(c->after.state);
}

void judge_deliveries_end(void) {
    for (size_t row = 0; row < memory_store_deliveries(); row++) {
        const struct memory_delivery *d = memory_store_delivery(row);
        if (d->attempts != ledgers[row].claims)
            violate(d->subscription_no, d->event_key, "attempt_count is wrong");
        if (!ledgers[row].closed)
            violate(d->subscription_no, d->event_key, "the store and the judge disagree");
    }
}
