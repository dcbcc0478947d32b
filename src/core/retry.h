/* The retry taxonomy and backoff (api.md §4), pure: what an outcome means, and what follows from it. */
#pragma once

#include "base/random.h"
#include "core/delivery.h"
#include "core/policy.h"

enum outcome_class {
    OUTCOME_SUCCESS,
    OUTCOME_TRANSIENT,
    OUTCOME_BACKPRESSURE,
    OUTCOME_GONE,
    OUTCOME_PERMANENT,
    OUTCOME_BLOCKED,
    OUTCOME_CLASSES,
};

const char *outcome_class_name(enum outcome_class c);

/* What an attempt brought. `status` is 0 when no final status line came; `retry_after_ms` is -1 when there
 * was none. */
struct outcome {
    int status;
    enum attempt_error error;
    int64_t retry_after_ms;
};

/* A 2xx whose body broke off afterwards is a success: the status line decides. */
enum outcome_class outcome_classify(const struct outcome *o, const struct policy *p);

/* Where a delivery stands among its attempts, the one just ended included. */
struct attempt_tally {
    uint32_t number;    /* of this attempt, over all replays */
    uint32_t base;      /* attempts made before the last replay */
    uint32_t uncounted; /* since then, those that met backpressure, this one not included */
    int64_t window_at;  /* when the window began, Unix ms */
};

struct verdict {
    enum delivery_state to; /* DELIVERED, RETRY or DLQ */
    int64_t due_at;         /* for RETRY: Unix ms, within the window */
    enum delivery_reason reason;
    bool counted; /* towards max_attempts */
};

/* What follows from an attempt that ended at `now`. A lost lease is due again at once. */
struct verdict retry_decide(const struct policy *p, const struct attempt_tally *t, const struct outcome *o,
                            int64_t now, struct rng *rng);

/* The unjittered delay in ms before the attempt that follows `attempts_made` (≥ 1); -1: the schedule ends
 * here. */
int64_t retry_backoff_ms(const struct retry_policy *r, uint32_t attempts_made);

/* When the window closes, Unix ms. */
static inline int64_t retry_window_end(const struct policy *p, int64_t window_at) {
    return window_at + (int64_t)p->window_seconds * 1000;
}

/* The value of a Retry-After header (RFC 9110 §10.2.3): delay seconds, or any of the three HTTP-date forms,
 * relative to now (a past date is 0). At most 10 years. -EINVAL when it is neither. */
int retry_after_parse(struct slice value, int64_t now_ms, int64_t *ret_delay_ms) MUST_USE;
