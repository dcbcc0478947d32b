#include "lanes/delivery_loop.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <utlist.h>

#include "base/clock.h"
#include "core/log_id.h"
#include "lanes/attempt_report.h"
#include "lanes/turn.h"
#include "settle/settle.h"

enum {
    ATTEMPTS_IDLE_MAX = 1024,
    TURN_RETRY_MS = 200,
    LAG_EVERY_MS = 1000,
    SEND_CLOCK_SLACK_MS = 2, /* a timer must not fire before its millisecond has come */
    SLEEP_MS_MAX = 10000,    /* a wall clock that was set forward, or a machine that slept, is noticed */
};

/* A subscription being removed: who waits, and what is left to close. */
struct removal {
    uint32_t no;
    bool sending_stopped;
    void (*stopped)(void *arg);
    void *arg;
    struct removal *next;
};

struct delivery_loop {
    struct dispatch_options o;
    unsigned index;
    pthread_t thread;
    struct loop *loop;
    struct lanes *lanes;
    struct client *client;
    struct store_reader *reader;
    struct signer *signer;
    struct rng rng;
    struct attempt_context context;

    struct turn *turn; /* the one there is */
    bool turn_under_way;
    int64_t no_turn_before; /* after a failed one, Unix ms */
    struct writer_job job;
    struct loop_message turn_done;
    struct loop_timer wake;

    struct attempt *ended, **ended_tail;        /* to be settled, oldest first */
    struct attempt *settling[TURN_SETTLES_MAX]; /* of the turn under way */
    struct attempt *idle;
    unsigned idle_n;
    size_t attempts_open; /* started and not yet settled */

    uint64_t relane_walked; /* the change that turn->relane_cursor is of */
    struct removal *removals;
    bool stopping; /* claims nothing more */
    bool ending;   /* ends when nothing is in flight */
    int64_t lag_told_at, lag_told_ms;
};

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

static void return_attempt(struct delivery_loop *d, struct attempt *a) {
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

static void begin_attempt(struct delivery_loop *d, const struct task *t, int64_t now) {
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

/* ---- removal of subscriptions ---- */

static struct removal *find_removal(struct delivery_loop *d, uint32_t no) {
    struct removal *r;
    LL_SEARCH_SCALAR(d->removals, r, no, no);
    return r;
}

static void sending_stopped(struct delivery_loop *d, uint32_t no) {
    struct removal *r = find_removal(d, no);
    if (!r || r->sending_stopped)
        return;
    r->sending_stopped = true;
    if (r->stopped)
        r->stopped(r->arg);
}

/* The removal whose waiting deliveries the next turn closes; 0 when there is none. */
static uint32_t next_closing(const struct delivery_loop *d) {
    for (const struct removal *r = d->removals; r; r = r->next)
        if (r->sending_stopped)
            return r->no;
    return 0;
}

static void closing_progressed(struct delivery_loop *d, uint32_t no, unsigned closed) {
    struct removal *r = find_removal(d, no);
    for (unsigned i = 0; i < closed; i++)
        metrics_delivery_closed(d->o.metrics, DELIVERY_DLQ, REASON_SUBSCRIPTION_DELETED);
    if (closed < TURN_CLOSE_A_STEP && r) {
        LL_DELETE(d->removals, r);
        free(r);
    }
}

/* ---- the end of an attempt ---- */

static struct health_change health_of(const struct lane_news *news, bool gone, bool quiet) {
    return (struct health_change){
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
    };
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
            sending_stopped(d, o.subscription_no);
        return_attempt(d, a);
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
        sending_stopped(d, o.subscription_no);
    a->next = NULL;
    *d->ended_tail = a;
    d->ended_tail = &a->next;
}

/* ---- turns ---- */

static int run_turn(struct writer_job *job, struct store *s) {
    struct delivery_loop *d = (struct delivery_loop *)((char *)job - offsetof(struct delivery_loop, job));
    return turn_run(d->turn, s, clock_now_ms(), &d->o);
}

/* On the writer's thread: back to the loop. */
static void turn_committed(struct writer_job *job, int result) {
    struct delivery_loop *d = (struct delivery_loop *)((char *)job - offsetof(struct delivery_loop, job));
    d->turn->result = result;
    if (result == 0 && d->turn->relaned)
        d->o.changed(d->o.arg, d->turn->relane.subscription_no);
    if (result == 0 && d->turn->disabled_any)
        for (size_t i = 0; i < d->turn->settlements_n; i++)
            if (d->turn->health[i].disable)
                d->o.changed(d->o.arg, d->turn->settlements[i].subscription_no);
    loop_post(d->loop, &d->turn_done);
}

static void settled(struct delivery_loop *d, struct attempt *a, const struct settlement *s, int64_t now) {
    if (s->stale) {
        metrics_count(d->o.metrics, METRIC_STALE_SETTLES, 1);
        log_warn("a settle came after its lease was lost and was refused",
                 log_id("delivery", ID_DELIVERY, id_of_delivery(s->event_key, s->subscription_no)),
                 log_int("attempt", s->number));
    } else if (s->to != DELIVERY_RETRY) {
        metrics_delivery_closed(d->o.metrics, s->to, s->reason);
        metrics_observe(d->o.metrics, METRIC_ATTEMPTS_PER_DELIVERY, s->number);
    }
    /* A claim that ran before this settle did not find the retry: told again, it is not forgotten. */
    if (!s->stale && s->to == DELIVERY_RETRY)
        lanes_due(d->lanes, s->subscription_no, s->due_at, now);
    if (s->released_due_at)
        lanes_due(d->lanes, s->subscription_no, s->released_due_at, now);
    return_attempt(d, a);
}

static void unsettle(struct delivery_loop *d) {
    /* Back to the front, in order: what happened on the network stays true. */
    for (size_t i = d->turn->settlements_n; i-- > 0;) {
        struct attempt *a = d->settling[i];
        a->next = d->ended;
        d->ended = a;
        if (d->ended_tail == &d->ended)
            d->ended_tail = &a->next;
    }
}

/* What the turn did not come to is shed by the next. */
static void expire_on(struct delivery_loop *d, size_t done, int64_t now) {
    for (size_t i = done; i < d->turn->expiries_n; i++)
        lanes_expire_on(d->lanes, d->turn->expiries[i].subscription_no, now);
}

static void turn_failed(struct delivery_loop *d, int64_t now) {
    struct turn *t = d->turn;
    unsettle(d);
    for (size_t i = 0; i < t->claims_n; i++)
        if (lanes_claimed(d->lanes, &t->claims[i], true, now))
            sending_stopped(d, t->claims[i].subscription_no);
    expire_on(d, 0, now);
    d->relane_walked = 0; /* what the walk has moved was rolled back */
    d->no_turn_before = now + TURN_RETRY_MS;
}

static void turn_succeeded(struct delivery_loop *d, int64_t now) {
    struct turn *t = d->turn;
    for (size_t i = 0; i < t->settlements_n; i++)
        settled(d, d->settling[i], &t->settlements[i], now);
    for (size_t i = 0; i < t->claims_n; i++)
        if (lanes_claimed(d->lanes, &t->claims[i], false, now))
            sending_stopped(d, t->claims[i].subscription_no);
    for (size_t i = 0; i < t->expired_n; i++)
        metrics_delivery_closed(d->o.metrics, DELIVERY_DLQ, REASON_WINDOW_EXPIRED);
    expire_on(d, t->expiries_done, now);
    if (t->relaned) {
        lanes_relaned(d->lanes, &t->relane);
        lanes_due(d->lanes, t->relane.subscription_no, now, now);
    }
    if (t->closing)
        closing_progressed(d, t->closing, t->closed);
    for (size_t i = 0; i < t->tasks_n; i++)
        begin_attempt(d, &t->tasks[i], now);
}

static void turn_returned(struct loop_message *m) {
    struct delivery_loop *d = (struct delivery_loop *)((char *)m - offsetof(struct delivery_loop, turn_done));
    int64_t now = clock_now_ms();
    CHECK(d->turn_under_way);
    d->turn_under_way = false;
    if (d->turn->result < 0)
        turn_failed(d, now);
    else
        turn_succeeded(d, now);
}

static void take_settlements(struct delivery_loop *d) {
    struct turn *t = d->turn;
    t->settlements_n = 0;
    while (d->ended && t->settlements_n < TURN_SETTLES_MAX) {
        struct attempt *a = d->ended;
        d->ended = a->next;
        if (!d->ended)
            d->ended_tail = &d->ended;
        d->settling[t->settlements_n] = a;
        t->health[t->settlements_n] = a->health;
        t->settlements[t->settlements_n++] = a->settlement;
    }
}

/* A walk that another change, or another lane, has overtaken is begun again. */
static void choose_relane(struct delivery_loop *d) {
    struct lane_relane next = lanes_next_relane(d->lanes);
    if (next.relane != d->relane_walked)
        d->turn->relane_cursor = (struct relane_cursor){0};
    d->relane_walked = next.relane;
    d->turn->relane = next;
}

static void fill_turn(struct delivery_loop *d, int64_t now) {
    struct turn *t = d->turn;
    take_settlements(d);
    t->closing = next_closing(d);
    t->claims_n = t->expiries_n = 0;
    t->relane.subscription_no = 0;
    if (d->stopping)
        return;
    choose_relane(d);
    t->claims_n = lanes_plan(d->lanes, now, t->claims, TURN_CLAIMS_MAX, TURN_TASKS_MAX);
    t->expiries_n = lanes_expiries(d->lanes, now, t->expiries, TURN_EXPIRIES_MAX);
}

static void sleep_until(struct delivery_loop *d, int64_t at_ms, int64_t now) {
    /* A lag that was told is to be taken back. */
    if (d->lag_told_ms > 0 && at_ms > d->lag_told_at + LAG_EVERY_MS)
        at_ms = d->lag_told_at + LAG_EVERY_MS;
    if (at_ms == INT64_MAX) {
        loop_timer_clear(d->loop, &d->wake);
        return;
    }
    int64_t in_ms = at_ms - now + SEND_CLOCK_SLACK_MS;
    if (in_ms > SLEEP_MS_MAX)
        in_ms = SLEEP_MS_MAX;
    loop_timer_set(d->loop, &d->wake, clock_mono_us() + in_ms * 1000);
}

static void tell_lag(struct delivery_loop *d, int64_t now) {
    if (now - d->lag_told_at < LAG_EVERY_MS)
        return;
    d->lag_told_at = now;
    d->lag_told_ms = lanes_lag(d->lanes, now);
    metrics_queue_lag(d->o.metrics, d->index, d->lag_told_ms);
}

/* The loop is about to wait: hand the writer what has gathered. */
static void before_wait(void *arg) {
    struct delivery_loop *d = arg;
    int64_t now = clock_now_ms();
    signer_forget(d->signer);
    if (d->turn_under_way)
        return;
    tell_lag(d, now);
    if (now < d->no_turn_before) {
        sleep_until(d, d->no_turn_before, now);
        return;
    }
    fill_turn(d, now);
    if (!turn_is_empty(d->turn)) {
        d->turn_under_way = true;
        writer_submit_internal(d->o.writer, &d->job);
        return;
    }
    if (d->ending && d->attempts_open == 0)
        loop_stop(d->loop);
    else
        sleep_until(d, d->stopping ? INT64_MAX : lanes_next_wake(d->lanes, now), now);
}

static void woken(struct loop_timer *t) {
    (void)t; /* before_wait does the work */
}

/* ---- messages from other threads ---- */

struct command {
    struct loop_message message;
    struct delivery_loop *d;
    struct subscription *subscription;
    uint32_t no;
    void (*stopped)(void *arg);
    void *arg;
    size_t notices_n;
    struct lane_notice notices[];
};

static int post(struct delivery_loop *d, struct command *c, void (*fn)(struct loop_message *m)) {
    if (!c)
        return -ENOMEM;
    c->d = d;
    c->message.fn = fn;
    loop_post(d->loop, &c->message);
    return 0;
}

static void do_put(struct loop_message *m) {
    struct command *c = (struct command *)m;
    if (lanes_put(c->d->lanes, c->subscription, clock_now_ms()) < 0)
        log_error("no memory for a lane; it is served after the next start",
                  log_id("subscription", ID_SUBSCRIPTION, c->subscription->id));
    subscription_unref(c->subscription);
    free(c);
}

int delivery_loop_put(struct delivery_loop *d, struct subscription *s) {
    struct command *c = calloc(1, sizeof *c);
    if (c)
        c->subscription = subscription_ref(s);
    return post(d, c, do_put);
}

static void add_removal(struct delivery_loop *d, uint32_t no, void (*stopped)(void *arg), void *arg) {
    struct removal *r = calloc(1, sizeof *r);
    CHECK(r != NULL);
    *r = (struct removal){.no = no, .stopped = stopped, .arg = arg};
    LL_APPEND(d->removals, r);
    if (lanes_remove(d->lanes, no))
        sending_stopped(d, no);
}

static void do_remove(struct loop_message *m) {
    struct command *c = (struct command *)m;
    add_removal(c->d, c->no, c->stopped, c->arg);
    free(c);
}

int delivery_loop_remove(struct delivery_loop *d, uint32_t no, void (*stopped)(void *arg), void *arg) {
    struct command *c = calloc(1, sizeof *c);
    if (c) {
        c->no = no;
        c->stopped = stopped;
        c->arg = arg;
    }
    return post(d, c, do_remove);
}

static void do_notify(struct loop_message *m) {
    struct command *c = (struct command *)m;
    struct delivery_loop *d = c->d;
    int64_t now = clock_now_ms();
    for (size_t i = 0; i < c->notices_n; i++) {
        uint32_t no = c->notices[i].subscription_no;
        /* No such lane: its subscription was deleted, perhaps before the last start, and left deliveries
         * behind. */
        if (!lanes_due(d->lanes, no, c->notices[i].due_at, now) && !find_removal(d, no))
            add_removal(d, no, NULL, NULL);
    }
    free(c);
}

int delivery_loop_notify(struct delivery_loop *d, const struct lane_notice *notices, size_t n) {
    struct command *c = malloc(sizeof *c + n * sizeof *notices);
    if (c) {
        *c = (struct command){.notices_n = n};
        memcpy(c->notices, notices, n * sizeof *notices);
    }
    return post(d, c, do_notify);
}

struct stats_question {
    struct loop_message message;
    struct delivery_loop *d;
    uint32_t no;
    struct lane_stats stats;
    atomic_uint refs; /* the asker's and the loop's: the asker may give up */
    pthread_mutex_t lock;
    pthread_cond_t answered;
    bool done;
};

static void question_unref(struct stats_question *q) {
    if (atomic_fetch_sub(&q->refs, 1) != 1)
        return;
    pthread_mutex_destroy(&q->lock);
    pthread_cond_destroy(&q->answered);
    free(q);
}

static void do_stats(struct loop_message *m) {
    struct stats_question *q = (struct stats_question *)m;
    pthread_mutex_lock(&q->lock);
    lanes_stats(q->d->lanes, q->no, clock_now_ms(), &q->stats);
    q->done = true;
    pthread_cond_signal(&q->answered);
    pthread_mutex_unlock(&q->lock);
    question_unref(q);
}

int delivery_loop_stats(struct delivery_loop *d, uint32_t no, struct lane_stats *ret) {
    struct stats_question *q = calloc(1, sizeof *q);
    if (!q)
        return -ENOMEM;
    *q = (struct stats_question){.message = {.fn = do_stats}, .d = d, .no = no};
    atomic_init(&q->refs, 2);
    pthread_mutex_init(&q->lock, NULL);
    pthread_cond_init(&q->answered, NULL);
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 1;
    pthread_mutex_lock(&q->lock);
    loop_post(d->loop, &q->message);
    int r = 0;
    while (!q->done && r == 0)
        r = pthread_cond_timedwait(&q->answered, &q->lock, &until);
    if (q->done)
        *ret = q->stats;
    bool done = q->done;
    pthread_mutex_unlock(&q->lock);
    question_unref(q);
    return done ? 0 : -ETIMEDOUT;
}

static void do_stop(struct loop_message *m) {
    struct command *c = (struct command *)m;
    c->d->stopping = true;
    free(c);
}

static void do_end(struct loop_message *m) {
    ((struct command *)m)->d->ending = true;
    do_stop(m);
}

void delivery_loop_stop(struct delivery_loop *d) {
    struct command *c = calloc(1, sizeof *c);
    CHECK(post(d, c, do_stop) == 0);
}

void delivery_loop_end(struct delivery_loop *d) {
    struct command *c = calloc(1, sizeof *c);
    CHECK(post(d, c, do_end) == 0);
}

/* ---- life ---- */

static void *delivery_loop_main(void *arg) {
    struct delivery_loop *d = arg;
    char name[16];
    snprintf(name, sizeof name, "deliver-%u", d->index % 1000U);
    pthread_setname_np(pthread_self(), name);
    loop_run(d->loop, before_wait, d);
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
    d->ended_tail = &d->ended;
    d->job = (struct writer_job){.run = run_turn, .done = turn_committed};
    d->turn_done.fn = turn_returned;
    d->wake.fn = woken;
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
    free(d->turn);
    free(d);
}
