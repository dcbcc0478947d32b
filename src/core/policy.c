#include "core/policy.h"

#include <errno.h>

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

/* NULL when there is none. */
static void *list_dup(const void *list, size_t bytes) {
    void *copy = list ? malloc(bytes) : NULL;
    return copy ? memcpy(copy, list, bytes) : NULL;
}

int policy_copy(const struct policy *p, struct policy *ret) {
    struct policy copy = *p;
    const struct retry_policy *r = &p->retry;
    copy.retry.schedule_seconds = list_dup(r->schedule_seconds, r->schedule_n * sizeof *r->schedule_seconds);
    copy.retry_on = list_dup(p->retry_on, p->retry_on_n * sizeof *p->retry_on);
    copy.no_retry_on = list_dup(p->no_retry_on, p->no_retry_on_n * sizeof *p->no_retry_on);
    if (!copy.retry.schedule_seconds != !r->schedule_seconds || !copy.retry_on != !p->retry_on ||
        !copy.no_retry_on != !p->no_retry_on) {
        policy_clear(&copy);
        return -ENOMEM;
    }
    *ret = copy;
    return 0;
}

void policy_memo_clear(struct policy_memo *m) {
    policy_clear(&m->policy);
    buf_free(&m->text);
    m->known = false;
}
