#include "core/delivery.h"

#include <errno.h>

static const char *const state_names[DELIVERY_STATES] = {"PENDING",   "ATTEMPTING", "RETRY",
                                                         "DELIVERED", "DLQ",        "REPLAYING"};

static const char *const reason_names[DELIVERY_REASONS] = {
    [REASON_NONE] = NULL,
    [REASON_ATTEMPTS_EXHAUSTED] = "attempts_exhausted",
    [REASON_WINDOW_EXPIRED] = "window_expired",
    [REASON_PERMANENT_RESPONSE] = "permanent_response",
    [REASON_GONE] = "gone",
    [REASON_BLOCKED_ADDRESS] = "blocked_address",
    [REASON_SUBSCRIPTION_DELETED] = "subscription_deleted",
    [REASON_REPLAY_CANCELLED] = "replay_cancelled",
    [REASON_REPLAY_REQUESTED] = "replay_requested",
};

static const char *const error_names[ATTEMPT_ERRORS] = {
    [ATTEMPT_OK] = NULL,
    [ATTEMPT_TIMEOUT] = "timeout",
    [ATTEMPT_CONNECT_REFUSED] = "connect_refused",
    [ATTEMPT_CONNECT_FAILED] = "connect_failed",
    [ATTEMPT_DNS] = "dns",
    [ATTEMPT_TLS] = "tls",
    [ATTEMPT_BLOCKED_ADDRESS] = "blocked_address",
    [ATTEMPT_RESET] = "reset",
    [ATTEMPT_PROTOCOL] = "protocol",
    [ATTEMPT_LEASE_EXPIRED] = "lease_expired",
    [ATTEMPT_INTERNAL] = "internal",
};

/* Transitions that an attempt's beginning or end brings about. */
static const bool with_attempt_allowed[DELIVERY_STATES][DELIVERY_STATES] = {
    [DELIVERY_PENDING] = {[DELIVERY_ATTEMPTING] = true},
    [DELIVERY_RETRY] = {[DELIVERY_ATTEMPTING] = true},
    [DELIVERY_REPLAYING] = {[DELIVERY_ATTEMPTING] = true},
    [DELIVERY_ATTEMPTING] = {[DELIVERY_DELIVERED] = true, [DELIVERY_RETRY] = true, [DELIVERY_DLQ] = true},
};

/* Transitions without one. */
static const bool without_attempt_allowed[DELIVERY_STATES][DELIVERY_STATES] = {
    [DELIVERY_DELIVERED] = {[DELIVERY_REPLAYING] = true}, [DELIVERY_DLQ] = {[DELIVERY_REPLAYING] = true},
    [DELIVERY_PENDING] = {[DELIVERY_DLQ] = true},         [DELIVERY_RETRY] = {[DELIVERY_DLQ] = true},
    [DELIVERY_REPLAYING] = {[DELIVERY_DLQ] = true},
};

const char *delivery_state_name(enum delivery_state s) {
    CHECK(s < DELIVERY_STATES);
    return state_names[s];
}

const char *delivery_reason_name(enum delivery_reason r) {
    CHECK(r < DELIVERY_REASONS);
    return reason_names[r];
}

const char *attempt_error_name(enum attempt_error e) {
    CHECK(e < ATTEMPT_ERRORS);
    return error_names[e];
}

const char *attempt_trigger_name(enum attempt_trigger t) {
    static const char *const names[] = {"schedule", "replay", "test"};
    CHECK(t <= TRIGGER_TEST);
    return names[t];
}

/* The position of a word among n; -EINVAL when it is none of them. */
static int find_word(struct slice s, const char *const *words, int n) {
    for (int i = 0; i < n; i++)
        if (words[i] && slice_eq_nocase(s, slice_of(words[i])))
            return i;
    return -EINVAL;
}

int delivery_state_parse(struct slice s, enum delivery_state *ret) {
    int i = find_word(s, state_names, DELIVERY_STATES);
    if (i >= 0)
        *ret = (enum delivery_state)i;
    return i < 0 ? i : 0;
}

int delivery_reason_parse(struct slice s, enum delivery_reason *ret) {
    int i = find_word(s, reason_names, DELIVERY_REASONS);
    if (i >= 0)
        *ret = (enum delivery_reason)i;
    return i < 0 ? i : 0;
}

int attempt_error_parse(struct slice s, enum attempt_error *ret) {
    int i = find_word(s, error_names, ATTEMPT_ERRORS);
    if (i >= 0)
        *ret = (enum attempt_error)i;
    return i < 0 ? i : 0;
}

bool delivery_transition_allowed(enum delivery_state from, enum delivery_state to, bool with_attempt,
                                 enum delivery_reason reason) {
    CHECK(from < DELIVERY_STATES && to < DELIVERY_STATES);
    if (with_attempt)
        return with_attempt_allowed[from][to];
    if (to == DELIVERY_DLQ && reason != REASON_WINDOW_EXPIRED && reason != REASON_SUBSCRIPTION_DELETED &&
        reason != REASON_REPLAY_CANCELLED)
        return false;
    return without_attempt_allowed[from][to];
}
