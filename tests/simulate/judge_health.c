/* The breaker (api.md §4.1 point 4) and the rest after backpressure, seen from outside. */
#include "judges.h"
#include "timeline.h"
#include "world.h"

enum {
    OPENS_AFTER = 10, /* failures in a row, over … */
    OPENS_OVER = 5,   /* … deliveries */
    PROBE_MS_FIRST = 5000,
    PROBE_MS_MAX = 300000,
};
static const double PROBE_JITTER = 0.2;

struct health {
    uint32_t failures;
    uint64_t failed[OPENS_OVER]; /* different events of the run */
    uint32_t failed_n;
    bool open;
    bool blurred; /* a freeze or a jump: what was claimed when can no longer be told from outside */
    int64_t opened_at, probe_ended_at, interval_ms; /* true time */
    int64_t rest_until, rests_since;                /* wall time; true time */
    int64_t returned_at; /* true time a probe succeeded, 0: it has been there all along */
    uint32_t successes;  /* since then */
};

static struct health *healths; /* by subscription number */
static size_t healths_cap;

void judge_health_begin(void) {
    healths = host_grow(healths, &healths_cap, memory_store_subscriptions() + 1, sizeof *healths);
    judge_health_died();
}

void judge_health_clear(void) {
    host_free(healths);
    healths = NULL;
    healths_cap = 0;
}

void judge_health_died(void) {
    memset(healths, 0, (memory_store_subscriptions() + 1) * sizeof *healths);
}

void judge_health_forget(uint32_t no) {
    healths[no] = (struct health){0};
}

/* ---- sending ---- */

/* Another one than `but`. */
static bool probe_under_way(uint32_t no, const struct flight *but) {
    for (const struct flight *o = NULL; (o = flight_next(o));)
        if (o != but && o->attempt && o->probe && o->task.subscription_no == no)
            return true;
    return false;
}

/* One at first, and at most one more for each success. */
static void judge_slow_start(const struct flight *f, const struct health *h) {
    uint32_t n = 0;
    for (const struct flight *o = NULL; (o = flight_next(o));)
        n += o->task.subscription_no == f->task.subscription_no && o->attempt && !o->over &&
             o->sent_at >= h->returned_at;
    if (n > 1 + h->successes)
        violate(f->task.subscription_no, f->task.event_key, "the backlog rushes at an endpoint that is back");
}

void judge_health_sent(struct flight *f) {
    uint32_t no = f->task.subscription_no;
    struct health *h = &healths[no];
    if (h->returned_at)
        judge_slow_start(f, h);
    bool jumped = world.jumped_at >= h->rests_since;
    if (h->rest_until && !jumped && world_wall() < h->rest_until && !settings_are_settling(h->rests_since))
        violate(no, f->task.event_key, "sent while the endpoint asked for a rest");
    if (!h->open || h->blurred)
        return;
    if (settings_are_settling(h->opened_at))
        return; /* it may have been claimed before */
    f->probe = true;
    if (world.jumped_at >= h->opened_at)
        return;
    if (probe_under_way(no, f))
        violate(no, f->task.event_key, "a second probe while the first is under way");
    else if ((double)(world.true_ms - h->probe_ended_at) < (double)h->interval_ms * (1 - PROBE_JITTER) - 1)
        violate(no, f->task.event_key, "a probe before its time");
}

/* ---- outcomes ---- */

static void remember(struct health *h, uint64_t event_key) {
    for (uint32_t i = 0; i < h->failed_n; i++)
        if (h->failed[i] == event_key)
            return;
    if (h->failed_n < OPENS_OVER)
        h->failed[h->failed_n++] = event_key;
}

static void opens(struct health *h, uint32_t no) {
    h->open = true;
    h->blurred = settings_are_settling(edge_loops_frozen_until());
    h->opened_at = h->probe_ended_at = world.true_ms;
    h->interval_ms = PROBE_MS_FIRST;
    note(no, 0, 0, "the breaker should be open");
}

static void failed(struct health *h, const struct attempt *a, bool probe) {
    if (!h->open) {
        h->failures++;
        remember(h, a->task.event_key);
        if (h->failures >= OPENS_AFTER && h->failed_n >= OPENS_OVER)
            opens(h, a->task.subscription_no);
        return;
    }
    if (!probe)
        return; /* sent before it opened */
    h->probe_ended_at = world.true_ms;
    h->interval_ms = h->interval_ms * 2 > PROBE_MS_MAX ? PROBE_MS_MAX : h->interval_ms * 2;
}

/* Retry-After is asked of the whole lane; without it the lane rests too, for less. */
static void pushed_back(struct health *h, const struct attempt *a) {
    int64_t window_end = a->task.window_at + (int64_t)a->subscription->policy->window_seconds * 1000;
    int64_t until = world_wall() + a->outcome.retry_after_ms;
    if (until > window_end)
        until = window_end;
    if (a->outcome.retry_after_ms <= 0 || until <= h->rest_until)
        return;
    h->rest_until = until;
    h->rests_since = world.true_ms;
}

/* When a straggler closes the breaker, not its probe, claims may be under way that went by the limit before.
 */
static struct health is_there(const struct health *h, bool success, bool probe) {
    struct health now = {.rest_until = h->rest_until, .rests_since = h->rests_since};
    if (h->open && !h->blurred && success && probe) {
        now.returned_at = world.true_ms;
    } else if (!h->open && h->returned_at) {
        now.returned_at = h->returned_at;
        now.successes = h->successes + success;
    }
    return now;
}

void judge_health_ended(const struct attempt *a) {
    struct health *h = &healths[a->task.subscription_no];
    const struct flight *f = flight_of(a);
    if (!f) {
        /* Not sent: a probe that was lost is made up for at once. */
        h->interval_ms = 0;
        return;
    }
    const struct outcome *o = &a->outcome;
    if (o->status == 429 || (o->status == 503 && o->retry_after_ms >= 0))
        pushed_back(h, a);
    bool answered = o->status && o->status / 100 != 3 && o->status != 408 && o->status != 409 &&
                    o->status != 425 && (o->status < 500 || (o->status == 503 && o->retry_after_ms >= 0));
    if (answered) {
        *h = is_there(h, o->status / 100 == 2, f->probe);
        return;
    }
    failed(h, a, f->probe);
}
