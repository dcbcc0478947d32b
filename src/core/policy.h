/* A subscription's delivery policy (api.md §2, "policy"). */
#pragma once

#include "base/bytes.h"

enum {
    POLICY_TIMEOUT_MS_MIN = 100,
    POLICY_TIMEOUT_MS_MAX = 60000,
    POLICY_TIMEOUT_MS_DEFAULT = 15000,
    POLICY_MAX_IN_FLIGHT_DEFAULT = 10,
    POLICY_MAX_IN_FLIGHT_MAX = 10000,
    POLICY_SCHEDULE_MAX = 100, /* entries */
    POLICY_STATUSES_MAX = 32,  /* entries of retry_on and no_retry_on */
    POLICY_MAX_ATTEMPTS_DEFAULT = 24,
    POLICY_MAX_ATTEMPTS_MAX = 1000,
    POLICY_WINDOW_SECONDS_DEFAULT = 72 * 3600,
    POLICY_WINDOW_SECONDS_MAX = 30 * 86400,
    POLICY_DISABLE_AFTER_SECONDS_DEFAULT = 5 * 86400,
    POLICY_DISABLE_AFTER_SECONDS_MAX = 365 * 86400,
    POLICY_RATE_PER_SECOND_MAX = 100000,
    POLICY_RETRY_SECONDS_MAX = 30 * 86400, /* of a schedule's entry, of max_seconds */
    POLICY_RETRY_INITIAL_SECONDS_MAX = 86400,
    POLICY_RETRY_MULTIPLIER_MAX = 100,
};

struct retry_policy {
    /* Either an explicit schedule … */
    uint32_t *schedule_seconds; /* owned by the policy; NULL when exponential */
    uint32_t schedule_n;
    /* … or exponential. */
    uint32_t initial_seconds, max_seconds;
    double multiplier;
    double jitter; /* 0…1: the delay is spread over ±jitter of itself */
};

/* Shared by reference: most subscriptions have the same. Immutable once it is shared. */
struct policy {
    atomic_uint refs; /* of one that policy_new made */
    uint32_t timeout_ms;
    uint32_t max_in_flight;
    uint32_t rate_per_second; /* 0: no rate limit */
    uint32_t rate_burst;
    struct retry_policy retry;
    uint32_t max_attempts;
    uint32_t window_seconds;
    uint32_t disable_after_seconds;
    bool replay_on_recovery;          /* what it lost is replayed by itself when the endpoint recovers */
    uint16_t *retry_on, *no_retry_on; /* owned; status codes */
    uint16_t retry_on_n, no_retry_on_n;
};

/* All defaults, no lists; of a caller's own. */
void policy_init(struct policy *p);
/* The same with one reference; NULL when memory is out. */
struct policy *policy_new(void);
struct policy *policy_ref(struct policy *p);
void policy_unref(struct policy *p); /* NULL-safe */

DEFINE_CLEANUP(cleanup_policy, struct policy, policy_unref)
#define _cleanup_policy_ _cleanup_(cleanup_policy)

/* The policy that was read last and its text, so that equal ones are read and held once. Zero-initialise it.
 */
struct policy_memo {
    struct buf text;
    struct policy *policy; /* NULL: none was */
};
void policy_memo_clear(struct policy_memo *m); /* frees and zeroes */
