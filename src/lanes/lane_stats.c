/* What lanes tell of themselves. */
#include "lanes/lane.h"

void lane_stats_unknown(struct lane_stats *ret) {
    *ret = (struct lane_stats){.next_due_at = INT64_MAX,
                               .breaker = breaker_state_name(BREAKER_CLOSED),
                               .latency_p50_ms = -1,
                               .latency_p95_ms = -1,
                               .latency_p99_ms = -1};
}

void lanes_stats(struct lanes *ls, uint32_t no, int64_t now, struct lane_stats *ret) {
    struct lane *l = lanes_find(ls, no);
    lane_stats_unknown(ret);
    if (!l)
        return;
    lane_refresh(ls, l, now);
    ret->known = true;
    ret->in_flight = l->in_flight + l->inherited;
    ret->concurrency = concurrency_limit(&l->concurrency, l->subscription->policy->max_in_flight);
    ret->breaker = breaker_state_name(l->breaker.state);
    ret->waiting_on = (enum lane_wait)l->waiting_on;
    ret->next_due_at = l->next_due_at;
    if (!l->history)
        return;
    ret->successes = l->history->successes;
    ret->failures = l->history->failures;
    ret->latency_p50_ms = lane_history_percentile(l->history, 0.5);
    ret->latency_p95_ms = lane_history_percentile(l->history, 0.95);
    ret->latency_p99_ms = lane_history_percentile(l->history, 0.99);
}

uint32_t lanes_in_flight(const struct lanes *ls) {
    uint32_t total = 0;
    for (int t = 0; t < TIERS; t++)
        total += ls->in_flight[t];
    return total;
}

int64_t lanes_lag(struct lanes *ls, int64_t now) {
    int64_t lag = 0;
    for (int t = 0; t < TIERS; t++) {
        const struct lane_group *g = ls->ready.tiers[t];
        /* The head of each tier's queue has waited longest for its turn: close enough, and free. */
        if (g && now - g->queue->next_due_at > lag)
            lag = now - g->queue->next_due_at;
    }
    return lag;
}
