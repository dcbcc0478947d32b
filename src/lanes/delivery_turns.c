/* A delivery loop's turns at the writer: what they take along, and what follows from their answers. */
#include "base/clock.h"
#include "core/log_id.h"
#include "lanes/delivery_state.h"

enum {
    TURN_RETRY_MS = 200,
    LAG_EVERY_MS = 1000,
    LEASE_LOOK_MS = 100,     /* while the node's lease is over */
    SEND_CLOCK_SLACK_MS = 2, /* a timer must not fire before its millisecond has come */
    SLEEP_MS_MAX = 10000,    /* a wall clock that was set forward, or a machine that slept, is noticed */
};

static int run_turn(struct writer_job *job, struct store *s) {
    struct delivery_loop *d = (struct delivery_loop *)((char *)job - offsetof(struct delivery_loop, job));
    return turn_run(d->turn, s, clock_now_ms(), &d->o);
}

/* On the writer's thread: back to the loop. */
static void turn_committed(struct writer_job *job, int result) {
    struct delivery_loop *d = (struct delivery_loop *)((char *)job - offsetof(struct delivery_loop, job));
    d->turn->result = result;
    if (result == 0)
        permits_apply(d->permits, &d->turn->permits);
    if (result == 0 && d->turn->relaned)
        d->o.changed(d->o.arg, d->turn->relane.subscription_no);
    if (result == 0 && d->turn->disabled_any)
        for (size_t i = 0; i < d->turn->settlements_n; i++)
            if (d->turn->health[i].disable)
                d->o.changed(d->o.arg, d->turn->settlements[i].subscription_no);
    loop_post(d->loop, &d->turn_done);
}

/* A lane that another node serves by now is told there. */
static void tell_due(struct delivery_loop *d, const struct attempt *a, int64_t due_at, int64_t now) {
    struct lane_notice notice = {a->task.subscription_no, due_at};
    const struct dispatch_node *node = &d->o.node;
    if (node->ownership &&
        (!lanes_serves(d->lanes, notice.subscription_no) ||
         ownership_of(node->ownership, a->subscription->tier, notice.subscription_no) != PARTITION_OWN))
        node->elsewhere(node->arg, &notice, 1);
    else
        lanes_due(d->lanes, notice.subscription_no, due_at, now);
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
        tell_due(d, a, s->due_at, now);
    if (s->released_due_at)
        tell_due(d, a, s->released_due_at, now);
    delivery_return(d, a);
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
            removals_sending_stopped(d, t->claims[i].subscription_no);
    lanes_permits_planned(d->lanes, &t->permits, true, now);
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
            removals_sending_stopped(d, t->claims[i].subscription_no);
    for (size_t i = 0; i < t->expired_n; i++)
        metrics_delivery_closed(d->o.metrics, DELIVERY_DLQ, REASON_WINDOW_EXPIRED);
    expire_on(d, t->expiries_done, now);
    if (t->relaned) {
        lanes_relaned(d->lanes, &t->relane);
        lanes_due(d->lanes, t->relane.subscription_no, now, now);
    }
    lanes_permits_planned(d->lanes, &t->permits, false, now);
    if (t->closing)
        removals_progressed(d, t->closing, t->closed);
    for (size_t i = 0; i < t->tasks_n; i++)
        delivery_begin(d, &t->tasks[i], now);
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

/* What is claimed then could not be sent. The writer's heartbeats go on: with one of them it may be renewed.
 */
static bool lease_is_over(const struct delivery_loop *d) {
    const struct dispatch_node *node = &d->o.node;
    return node->send_until_us && clock_mono_us() >= atomic_load(node->send_until_us);
}

static void fill_turn(struct delivery_loop *d, int64_t now) {
    struct turn *t = d->turn;
    take_settlements(d);
    t->closing = removals_next_closing(d);
    t->claims_n = t->expiries_n = 0;
    t->relane.subscription_no = 0;
    t->permits.n = 0;
    memset(t->permits.pools, 0, sizeof t->permits.pools);
    if (d->stopping || lease_is_over(d))
        return;
    choose_relane(d);
    t->claims_n = lanes_plan(d->lanes, now, t->claims, TURN_CLAIMS_MAX, TURN_TASKS_MAX);
    t->expiries_n = lanes_expiries(d->lanes, now, t->expiries, TURN_EXPIRIES_MAX);
    /* A node's claims are checked against its lease, which new deliveries are not. */
    if (!d->o.node.ownership && (!turn_is_empty(t) || lanes_permits_urgent(d->lanes))) {
        lanes_plan_permits(d->lanes, t->claims, t->claims_n, now, &t->permits);
        t->permits.changes = d->lane_changes;
    }
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

static int64_t next_wake(struct delivery_loop *d, int64_t now) {
    if (d->stopping)
        return INT64_MAX;
    int64_t at = lanes_next_wake(d->lanes, now);
    return at < now + LEASE_LOOK_MS && lease_is_over(d) ? now + LEASE_LOOK_MS : at;
}

void delivery_before_wait(void *arg) {
    struct delivery_loop *d = arg;
    int64_t now = clock_now_ms();
    signer_forget(d->signer);
    if (d->o.node.ownership)
        atomic_store(&d->leaving, lanes_leaving(d->lanes));
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
        sleep_until(d, next_wake(d, now), now);
}

static void woken(struct loop_timer *t) {
    (void)t; /* before_wait does the work */
}

void delivery_turns_init(struct delivery_loop *d) {
    d->ended_tail = &d->ended;
    d->job = (struct writer_job){.run = run_turn, .done = turn_committed};
    d->turn_done.fn = turn_returned;
    d->wake.fn = woken;
}
