#include "core/policy.h"

void policy_init(struct policy *p) {
    *p = (struct policy){
        .timeout_ms = POLICY_TIMEOUT_MS_DEFAULT,
        .max_in_flight = POLICY_MAX_IN_FLIGHT_DEFAULT,
        .retry = {.initial_seconds = 5, .multiplier = 4, .max_seconds = 21600, .jitter = 0.2},
        .max_attempts = POLICY_MAX_ATTEMPTS_DEFAULT,
        .window_seconds = POLICY_WINDOW_SECONDS_DEFAULT,
        .disable_after_seconds = POLICY_DISABLE_AFTER_SECONDS_DEFAULT,
    };
}

struct policy *policy_new(void) {
    struct policy *p = malloc(sizeof *p);
    if (!p)
        return NULL;
    policy_init(p);
    atomic_init(&p->refs, 1);
    return p;
}

struct policy *policy_ref(struct policy *p) {
    unsigned before = atomic_fetch_add_explicit(&p->refs, 1, memory_order_relaxed);
    CHECK(before > 0);
    return p;
}

void policy_unref(struct policy *p) {
    if (!p)
        return;
    unsigned before = atomic_fetch_sub_explicit(&p->refs, 1, memory_order_acq_rel);
    CHECK(before > 0);
    if (before > 1)
        return;
    free(p->retry.schedule_seconds);
    free(p->retry_on);
    free(p->no_retry_on);
    free(p);
}

void policy_memo_clear(struct policy_memo *m) {
    policy_unref(m->policy);
    buf_free(&m->text);
    m->policy = NULL;
}
