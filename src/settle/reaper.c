#include "settle/reaper.h"

#include <errno.h>

#include "base/log.h"
#include "settle/settle.h"

enum { LEASES_A_RUN = 500 };

struct reaper {
    struct reaper_options o;
    struct rng rng;
    struct settlement settled[LEASES_A_RUN];
    size_t n;
};

int reaper_new(const struct reaper_options *o, struct reaper **ret) {
    struct reaper *r = calloc(1, sizeof *r);
    if (!r)
        return -ENOMEM;
    r->o = *o;
    rng_seed_from_system(&r->rng);
    *ret = r;
    return 0;
}

void reaper_free(struct reaper *r) {
    free(r);
}

static struct settlement settle_lost(struct reaper *r, const struct leased_task *l, int64_t now) {
    const struct subscription *sub = r->o.subscription(r->o.arg, l->task.subscription_no);
    struct policy fallback;
    policy_init(&fallback);
    struct outcome lost = {.error = ATTEMPT_LEASE_EXPIRED, .retry_after_ms = -1};
    struct settlement s = {
        .attempt = {.started_at = l->started_at,
                    .latency_ms =
                        (int32_t)(now - l->started_at < INT32_MAX ? now - l->started_at : INT32_MAX),
                    .error = ATTEMPT_LEASE_EXPIRED,
                    .trigger = l->task.trigger,
                    .worker_no = r->o.worker_no,
                    .url = slice_of(sub ? sub->url : ""),
                    .content_type = SLICE_LIT("application/json")},
    };
    settle_prepare(sub ? sub->policy : &fallback, &l->task, &lost, now, &r->rng, &s);
    return s;
}

static int raise_exhausted(struct reaper *r, struct store *s, const struct settlement *i) {
    struct operational_event e = {.kind = OPERATIONAL_EXHAUSTED,
                                  .event_key = i->event_key,
                                  .subscription_no = i->subscription_no,
                                  .tenant_no = i->tenant_no};
    return i->stale || i->to != DELIVERY_DLQ ? 0 : r->o.raise(r->o.arg, s, &e);
}

int reaper_run(struct reaper *r, struct store *s, int64_t before, int64_t now, bool *ret_more) {
    struct leased_task leases[LEASES_A_RUN];
    size_t n;
    r->n = 0;
    int err = store_list_expired_leases(s, before, leases, LEASES_A_RUN, &n);
    if (err < 0)
        return err;
    size_t lost = 0;
    for (size_t i = 0; i < n; i++)
        if (!r->o.ours || r->o.ours(r->o.arg, leases[i].task.subscription_no, leases[i].task.lease_until))
            r->settled[lost++] = settle_lost(r, &leases[i], now);
    err = store_settle(s, r->settled, lost);
    for (size_t i = 0; err == 0 && i < lost; i++)
        err = raise_exhausted(r, s, &r->settled[i]);
    if (err < 0)
        return err;
    r->n = lost;
    *ret_more = n == LEASES_A_RUN && lost > 0;
    return 0;
}

static void count_closed(struct reaper *r, const struct settlement *s) {
    metrics_delivery_closed(r->o.metrics, s->to, s->reason);
    metrics_observe(r->o.metrics, METRIC_ATTEMPTS_PER_DELIVERY, s->number);
}

void reaper_announce(struct reaper *r) {
    if (!r->n)
        return;
    metrics_count(r->o.metrics, METRIC_LEASES_EXPIRED, r->n);
    log_warn("leases ran out: their outcome is unknown, they are sent again",
             log_int("deliveries", (int64_t)r->n));
    for (size_t i = 0; i < r->n; i++) {
        const struct settlement *s = &r->settled[i];
        if (!s->stale && s->to == DELIVERY_RETRY)
            r->o.due(r->o.arg, s->subscription_no, s->due_at);
        else if (!s->stale)
            count_closed(r, s);
        if (s->released_due_at)
            r->o.due(r->o.arg, s->subscription_no, s->released_due_at);
    }
    r->n = 0;
}

void reaper_forget(struct reaper *r) {
    if (r->n)
        log_warn("attempts were cut off by the last stop: their outcome is unknown, they are sent again",
                 log_int("deliveries", (int64_t)r->n));
    metrics_count(r->o.metrics, METRIC_LEASES_EXPIRED, r->n);
    for (size_t i = 0; i < r->n; i++)
        if (!r->settled[i].stale && r->settled[i].to != DELIVERY_RETRY)
            count_closed(r, &r->settled[i]);
    r->n = 0;
}
