#include "lanes/delivery_loop.h"

#include <errno.h>
#include <stdio.h>
#include <utlist.h>

#include "base/clock.h"
#include "core/log_id.h"
#include "lanes/attempt_report.h"
#include "lanes/delivery_state.h"
#include "settle/settle.h"

enum { ATTEMPTS_IDLE_MAX = 1024 };

/* ---- attempts ---- */

static void attempt_ended(struct attempt *a);

static struct attempt *take_attempt(struct delivery_loop *d) {
    struct attempt *a = d->idle;
    if (!a)
        return calloc(1, sizeof *a);
    d->idle = a->next;
    d->idle_n--;
    a->next = NULL;
    return a;
}

void delivery_return(struct delivery_loop *d, struct attempt *a) {
    CHECK(d->attempts_open > 0);
    d->attempts_open--;
    if (d->idle_n >= ATTEMPTS_IDLE_MAX) {
        attempt_free(a);
        return;
    }
    attempt_clear(a);
    a->next = d->idle;
    d->idle = a;
    d->idle_n++;
}

static void count_first_attempt(struct delivery_loop *d, const struct task *t, int64_t now) {
    if (t->number == 1)
        metrics_observe(d->o.metrics, METRIC_TIME_TO_FIRST_ATTEMPT, (double)(now - t->window_at) / 1000);
}

/* A claimed task whose lane or memory is gone: its lease returns it. */
static void drop_task(struct delivery_loop *d, const struct task *t, int64_t now) {
    struct lane_outcome o = {.subscription_no = t->subscription_no,
                             .event_key = t->event_key,
                             .probe = t->probe,
                             .not_sent = true,
                             .retry_after_ms = -1};
    lanes_ended(d->lanes, &o, now, &d->rng);
}

void delivery_begin(struct delivery_loop *d, const struct task *t, int64_t now) {
    struct subscription *s = lanes_subscription(d->lanes, t->subscription_no);
    CHECK(s != NULL);
    struct attempt *a = take_attempt(d);
    if (!a) {
        log_error("no memory for an attempt; its lease returns it",
                  log_id("subscription", ID_SUBSCRIPTION, s->id));
        drop_task(d, t, now);
        return;
    }
    d->attempts_open++;
    a->task = *t;
    a->subscription = subscription_ref(s);
    a->done = attempt_ended;
    a->owner = d;
    count_first_attempt(d, t, now);
    attempt_start(a, &d->context, now);
}

/* ---- the end of an attempt ---- */

static struct health_change health_of(const struct lane_news *news, bool gone, bool quiet) {
    struct health_change h = {
        .noted = news->noted,
        .failing = news->failing,
        .recovered = news->recovered,
        .failing_since = news->failing_since,
        .raised_since = news->raised_since,
        .failed_since = news->failed_since,
        .disable = gone              ? "the endpoint answered 410 Gone"
                   : news->exhausted ? "the endpoint only failed for disable_after_seconds"
                                     : NULL,
        .quiet = quiet,
        .remember = news->remember,
        .has_state = news->memory.probe_interval_ms || news->memory.limit != 0,
    };
    if (h.remember)
        lane_memory_write(&news->memory, h.state);
    return h;
}

/* Decides what follows and keeps the settlement for the next turn. */
static void attempt_ended(struct attempt *a) {
    struct delivery_loop *d = a->owner;
    int64_t now = clock_now_ms();
    struct lane_outcome o = {
        .subscription_no = a->task.subscription_no,
        .event_key = a->task.event_key,
        .probe = a->task.probe,
        .timed_out = a->outcome.status == 0 && a->outcome.error == ATTEMPT_TIMEOUT,
        .not_sent = a->not_sent,
        .quiet = a->reserved,
        .started_at = a->started_at,
        .retry_after_ms = a->outcome.retry_after_ms,
        .latency_ms = (int32_t)(a->request.latency_us / 1000),
    };
    if (a->not_sent && a->outcome.error == ATTEMPT_LEASE_EXPIRED) {
        /* The reaper records it: nothing may be written by an attempt that has lost its lease. */
        if (lanes_ended(d->lanes, &o, now, &d->rng).removed)
            removals_sending_stopped(d, o.subscription_no);
        delivery_return(d, a);
        return;
    }
    a->settlement.attempt = attempt_record_of(a);
    o.class = settle_prepare(a->subscription->policy, &a->task, &a->outcome, now, &d->rng, &a->settlement);
    o.retry_due_at = a->settlement.to == DELIVERY_RETRY ? a->settlement.due_at : 0;
    if (!a->not_sent)
        report_attempt(&d->o, a, o.class);
    struct lane_news news = lanes_ended(d->lanes, &o, now, &d->rng);
    report_health(a, &news);
    a->health = health_of(&news, o.class == OUTCOME_GONE, a->reserved);
    if (news.removed)
        removals_sending_stopped(d, o.subscription_no);
    a->next = NULL;
    *d->ended_tail = a;
    d->ended_tail = &a->next;
}

/* ---- life ---- */

static void *delivery_loop_main(void *arg) {
    struct delivery_loop *d = arg;
    char name[16];
    snprintf(name, sizeof name, "deliver-%u", d->index % 1000U);
    pthread_setname_np(pthread_self(), name);
    loop_run(d->loop, delivery_before_wait, d);
    return NULL;
}

static int open_parts(struct delivery_loop *d, struct tenant_budgets *tenants, unsigned budget) {
    struct client_options client = {.egress = d->o.egress, .connections_kept = budget < 16 ? 16 : budget};
    int r = loop_new(&d->loop);
    if (r == 0)
        r = lanes_new(tenants, budget, d->o.lease_margin_ms, d->o.metrics, &d->lanes);
    if (r == 0)
        r = client_new(d->loop, &client, &d->client);
    if (r == 0)
        r = store_reader_open(d->o.store, &d->reader);
    if (r < 0)
        return r;
    d->turn = calloc(1, sizeof *d->turn);
    r = permits_new(&d->permits);
    if (r < 0)
        return r;
    d->signer = signer_new();
    return d->turn && d->signer ? 0 : -ENOMEM;
}

int delivery_loop_start(const struct dispatch_options *o, struct tenant_budgets *tenants, unsigned index,
                        unsigned budget, struct delivery_loop **ret) {
    struct delivery_loop *d = calloc(1, sizeof *d);
    if (!d)
        return -ENOMEM;
    d->o = *o;
    d->index = index;
    delivery_turns_init(d);
    rng_seed_from_system(&d->rng);
    int r = open_parts(d, tenants, budget);
    if (r == 0) {
        d->context = (struct attempt_context){.client = d->client,
                                              .signer = d->signer,
                                              .bodies = o->bodies,
                                              .reader = d->reader,
                                              .user_agent = o->user_agent,
                                              .receipt_key = o->receipt_key,
                                              .worker_no = o->worker_no,
                                              .send_until_us = o->node.send_until_us,
                                              .rng = &d->rng};
        r = -pthread_create(&d->thread, NULL, delivery_loop_main, d);
    }
    if (r < 0) {
        delivery_loop_free(d);
        return r;
    }
    *ret = d;
    return 0;
}

void delivery_loop_join(struct delivery_loop *d) {
    pthread_join(d->thread, NULL);
}

void delivery_loop_free(struct delivery_loop *d) {
    if (!d)
        return;
    while (d->idle) {
        struct attempt *a = d->idle;
        d->idle = a->next;
        attempt_free(a);
    }
    while (d->removals) {
        struct removal *r = d->removals;
        LL_DELETE(d->removals, r);
        free(r);
    }
    client_free(d->client);
    lanes_free(d->lanes);
    store_reader_close(d->reader);
    signer_free(d->signer);
    loop_free(d->loop);
    permits_free(d->permits);
    free(d->turn);
    free(d);
}
