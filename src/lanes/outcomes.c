/* What a lane makes of the attempts that end: its limits, its breaker, its health. */
#include "lanes/lane.h"
#include "lanes/tenant_budget.h"

enum { FAILING_NOTED_AFTER_MS = 60000 /* shorter runs of failures are not worth a write */ };

/* What the endpoint asks for holds for the whole lane, however long this task's own backoff is and whether it
 * is retried at all. Only the window cuts it. */
static void note_backpressure(struct lane *l, const struct lane_outcome *o, int64_t now) {
    int64_t rest_ms = o->retry_after_ms, most_ms = (int64_t)l->subscription->policy->window_seconds * 1000;
    if (rest_ms < 0)
        rest_ms = o->retry_due_at ? LANE_BACKPRESSURE_MS_MAX : 0;
    if (o->retry_due_at)
        most_ms = o->retry_due_at - now;
    int64_t until = now + (rest_ms < most_ms ? rest_ms : most_ms);
    if (until > l->rest_until)
        l->rest_until = until;
}

static void note_failure(struct lanes *ls, struct lane *l, const struct lane_outcome *o, int64_t now,
                         struct rng *rng) {
    uint32_t cap = l->subscription->policy->max_in_flight;
    if (o->class == OUTCOME_BACKPRESSURE)
        note_backpressure(l, o, now);
    if (o->class == OUTCOME_BACKPRESSURE || o->timed_out)
        concurrency_halve(&l->concurrency, cap, o->started_at, now);
    if (o->class != OUTCOME_TRANSIENT) {
        /* It answered: the endpoint is there. A probe that met backpressure has done its work. */
        if (breaker_success(&l->breaker, o->probe) && ls->metrics)
            metrics_gauge_add(ls->metrics, METRIC_BREAKER_OPEN, -1);
        return;
    }
    if (breaker_failure(&l->breaker, o->event_key, o->probe, now, rng) && ls->metrics)
        metrics_gauge_add(ls->metrics, METRIC_BREAKER_OPEN, 1);
}

static void note_success(struct lanes *ls, struct lane *l, uint32_t probe) {
    if (!breaker_success(&l->breaker, probe)) {
        concurrency_success(&l->concurrency, l->subscription->policy->max_in_flight);
        return;
    }
    concurrency_slow_start(&l->concurrency);
    if (ls->metrics)
        metrics_gauge_add(ls->metrics, METRIC_BREAKER_OPEN, -1);
}

/* The tenant is told once the breaker is open, by an outcome that may tell; and then of the first success. */
static void note_success_of_health(struct lane *l, bool quiet, struct lane_news *news) {
    news->noted = l->failing_noted;
    l->failing_since = 0;
    l->failing_noted = false;
    if (!l->raised_since || quiet || l->breaker.state != BREAKER_CLOSED)
        return;
    news->noted = news->recovered = true;
    news->failed_since = l->raised_since;
    l->raised_since = 0;
}

static void note_failure_of_health(struct lane *l, bool quiet, int64_t now, struct lane_news *news) {
    if (!l->failing_since)
        l->failing_since = now;
    int64_t failing_ms = now - l->failing_since;
    if (!l->raised_since && !quiet && l->breaker.state != BREAKER_CLOSED) {
        l->raised_since = l->failing_since;
        news->failing = true;
    }
    news->noted = news->failing || (!l->failing_noted && failing_ms >= FAILING_NOTED_AFTER_MS);
    l->failing_noted |= news->noted;
    news->exhausted = l->subscription->status != SUBSCRIPTION_DISABLED &&
                      failing_ms >= (int64_t)l->subscription->policy->disable_after_seconds * 1000;
}

static struct lane_news note_health(struct lane *l, bool success, bool quiet, int64_t now) {
    struct lane_news news = {0};
    if (success)
        note_success_of_health(l, quiet, &news);
    else
        note_failure_of_health(l, quiet, now, &news);
    news.failing_since = l->failing_since;
    news.raised_since = l->raised_since;
    return news;
}

struct lane_news lanes_ended(struct lanes *ls, const struct lane_outcome *o, int64_t now, struct rng *rng) {
    struct lane *l = lanes_find(ls, o->subscription_no);
    CHECK(l && l->in_flight > 0);
    struct lane_news news = {0};
    l->in_flight--;
    lane_count_in_flight(ls, l, -1);
    tenant_budget_return(l->group->budget, 1, o->not_sent);
    if (o->not_sent) {
        breaker_probe_lost(&l->breaker, o->probe, now);
    } else {
        bool success = o->class == OUTCOME_SUCCESS;
        lane_history_add(l, success, o->latency_ms);
        if (success)
            note_success(ls, l, o->probe);
        else
            note_failure(ls, l, o, now, rng);
        news = note_health(l, success, o->quiet, now);
        news.remember = !l->removed && lane_worth_keeping(l, &news.memory);
    }
    if (o->retry_due_at && o->retry_due_at < l->next_due_at)
        l->next_due_at = o->retry_due_at;
    news.removed = l->removed && !l->in_flight && !l->claiming;
    if (news.removed)
        lane_free(ls, l);
    else
        lane_refresh(ls, l, now);
    return news;
}
