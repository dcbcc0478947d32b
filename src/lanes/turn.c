#include "lanes/turn.h"

#include <errno.h>

static int raise(const struct dispatch_options *o, struct store *s, struct operational_event e) {
    return o->raise(o->arg, s, &e);
}

static int raise_exhausted(const struct dispatch_options *o, struct store *s, uint64_t event_key,
                           uint32_t subscription_no, uint32_t tenant_no) {
    return raise(o, s,
                 (struct operational_event){.kind = OPERATIONAL_EXHAUSTED,
                                            .tenant_no = tenant_no,
                                            .event_key = event_key,
                                            .subscription_no = subscription_no});
}

static int raise_health(const struct turn *t, struct store *s, const struct health_change *h,
                        const struct settlement *i, const struct dispatch_options *o) {
    struct operational_event e = {.subscription_no = i->subscription_no,
                                  .at = t->now,
                                  .last_status = i->attempt.status,
                                  .last_error = i->attempt.error};
    if (h->failing) {
        e.kind = OPERATIONAL_FAILING;
        e.failing_since = h->failing_since;
        return raise(o, s, e);
    }
    if (!h->recovered)
        return 0;
    e.kind = OPERATIONAL_RECOVERED;
    e.failing_since = h->failed_since;
    return raise(o, s, e);
}

static int disable(struct turn *t, struct store *s, const struct health_change *h, const struct settlement *i,
                   const struct dispatch_options *o) {
    int r = o->disable(o->arg, s, i->subscription_no, h->disable, t->now);
    if (r <= 0)
        return r == -ENOENT ? 0 : r; /* deleted meanwhile */
    t->disabled_any = true;
    return h->quiet ? 0
                    : raise(o, s,
                            (struct operational_event){.kind = OPERATIONAL_DISABLED,
                                                       .subscription_no = i->subscription_no,
                                                       .at = t->now,
                                                       .disabled_reason = h->disable,
                                                       .failing_since = h->failing_since});
}

static int keep_memory(const struct turn *t, struct store *s, const struct health_change *h,
                       const struct settlement *i) {
    struct slice state = {(const char *)h->state, sizeof h->state};
    return store_set_lane_state(s, i->subscription_no, i->tenant_no, h->has_state ? state : SLICE_NONE,
                                t->now);
}

/* What follows from an attempt beside its own transition. A stale one's endpoint answered all the same. */
static int note_consequences(struct turn *t, struct store *s, const struct dispatch_options *o) {
    int r = 0;
    for (size_t k = 0; r == 0 && k < t->settlements_n; k++) {
        const struct settlement *i = &t->settlements[k];
        const struct health_change *h = &t->health[k];
        if (!i->stale && i->to == DELIVERY_DLQ)
            r = raise_exhausted(o, s, i->event_key, i->subscription_no, i->tenant_no);
        if (r == 0 && h->noted)
            r = store_set_health(s, i->subscription_no, h->failing_since, h->raised_since);
        if (r == 0 && h->remember)
            r = keep_memory(t, s, h, i);
        if (r == 0)
            r = raise_health(t, s, h, i, o);
        if (r == 0 && h->disable)
            r = disable(t, s, h, i, o);
    }
    return r;
}

static int raise_expired(const struct turn *t, struct store *s, const struct dispatch_options *o) {
    int r = 0;
    for (size_t i = 0; r == 0 && i < t->expired_n; i++)
        r = raise_exhausted(o, s, t->expired[i].event_key, t->expired[i].subscription_no,
                            t->expired[i].tenant_no);
    return r;
}

static int shed_expired(struct turn *t, struct store *s) {
    for (; t->expiries_done < t->expiries_n; t->expiries_done++) {
        size_t n = 0, room = TURN_EXPIRED_MAX - t->expired_n;
        int r = room ? store_expire(s, &t->expiries[t->expiries_done], t->now, t->expired + t->expired_n,
                                    room, &n)
                     : 0;
        if (r < 0)
            return r;
        t->expired_n += n;
        if (n == room)
            break;
    }
    return 0;
}

/* Lanes that are unknown are those of deleted subscriptions; store_close_deleted looks itself whether that is
 * so. */
static int close_deleted(struct turn *t, struct store *s) {
    struct subscription_record record;
    t->closed = 0;
    if (!t->closing)
        return 0;
    int r = store_get_subscription(s, t->closing, &record);
    if (r == 0)
        return 0;
    return r == -ENOENT ? store_close_deleted(s, t->closing, t->now, TURN_CLOSE_A_STEP, &t->closed) : r;
}

/* A change of ordering may have been committed that the lane has not heard of: then nothing is claimed. */
static void hold_claims(struct turn *t, const struct dispatch_options *o) {
    for (size_t i = 0; i < t->claims_n; i++)
        t->claims[i].held = o->holds(o->arg, t->claims[i].subscription_no);
}

static int relane(struct turn *t, struct store *s) {
    t->relaned = false;
    if (!t->relane.subscription_no)
        return 0;
    bool done = false;
    int r = store_relane(s, t->relane.subscription_no, t->relane.ordering, &t->relane_cursor,
                         TURN_RELANE_A_STEP, &done);
    if (r == 0 && done)
        r = store_set_relaned(s, t->relane.subscription_no, t->relane.relane);
    t->relaned = r > 0;
    return r < 0 ? r : 0;
}

int turn_run(struct turn *t, struct store *s, int64_t now, const struct dispatch_options *o) {
    t->now = now;
    t->tasks_n = t->expired_n = t->expiries_done = 0;
    t->disabled_any = false;
    int r = store_settle(s, t->settlements, t->settlements_n);
    if (r == 0)
        r = note_consequences(t, s, o);
    hold_claims(t, o);
    if (r == 0)
        r = relane(t, s);
    if (r == 0)
        r = store_claim(s, t->claims, t->claims_n, now, t->tasks, TURN_TASKS_MAX, &t->tasks_n, t->expired,
                        TURN_EXPIRED_MAX, &t->expired_n);
    if (r == 0)
        r = shed_expired(t, s);
    if (r == 0)
        r = raise_expired(t, s, o);
    return r == 0 ? close_deleted(t, s) : r;
}
