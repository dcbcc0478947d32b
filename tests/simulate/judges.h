/* How the judges work together. */
#pragma once

#include "judge.h"

enum {
    /* How long claims under way may still go by what was in force before: two transactions and the way to the
     * loop and back. */
    SETTLING_MS = 1500,
};

/* Of a subscription, as it was put in force. */
struct settings {
    enum subscription_status status;
    struct policy policy;
    int64_t resumed_at;
};

struct view {
    struct settings now, before;
    enum subscription_status status; /* as fan-out sees it */
    int64_t changed_at;              /* true time */
    bool known, stopped;
};
struct view *view_of(uint32_t no);
/* Whether what was changed then need not be in force everywhere yet. */
bool settings_are_settling(int64_t changed_at);

/* An event answered 202 that matched this subscription. */
bool judge_promised(uint64_t event_key, uint32_t subscription_no);

/* ---- judge_deliveries.c: transitions, attempts, windows, backoff ---- */
void judge_deliveries_begin(void);
void judge_deliveries_clear(void);
void judge_change(const struct memory_change *c);
void judge_deliveries_ended(const struct attempt *a);
void judge_deliveries_end(void);
/* When it should have been sent at the earliest, true time; since it was made or replayed. */
int64_t delivery_due_since(size_t row);

/* ---- judge_traffic.c: leases, caps, rates, order, pauses ---- */
void judge_traffic_begin(void);
void judge_traffic_clear(void);
void judge_traffic_configured(uint32_t no);
void judge_traffic_sent(struct flight *f);
void judge_traffic_answered(struct flight *f);
void judge_traffic_lost(const struct memory_delivery *d); /* its lease was taken away */
void judge_traffic_died(void);

/* ---- judge_health.c: breaker, and the rest that backpressure asks for ---- */
void judge_health_begin(void);
void judge_health_clear(void);
void judge_health_forget(uint32_t no);
void judge_health_sent(struct flight *f);
void judge_health_ended(const struct attempt *a);
void judge_health_died(void);

/* ---- judge_waits.c: nobody starves, nothing is forgotten, memory is bounded ---- */
void judge_waits_begin(void);
void judge_waits_clear(void);
void judge_waits_sent(const struct flight *f);
void judge_waits_audit(void);
