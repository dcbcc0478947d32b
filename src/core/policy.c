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

void policy_clear(struct policy *p) {
    free(p->retry.schedule_seconds);
    free(p->retry_on);
    free(p->no_retry_on);
    *p = (struct policy){0};
}
