/* The state machine of a delivery, as one pure table, and the words that go with it. */
#pragma once

#include "base/bytes.h"

/* Stored in the database: append only. */
enum delivery_state {
    DELIVERY_PENDING,
    DELIVERY_ATTEMPTING,
    DELIVERY_RETRY,
    DELIVERY_DELIVERED,
    DELIVERY_DLQ,
    DELIVERY_REPLAYING,
    DELIVERY_STATES,
};

/* Why a delivery is in the DLQ, or why a transition took place without an attempt. Stored: append only. */
enum delivery_reason {
    REASON_NONE,
    REASON_ATTEMPTS_EXHAUSTED,
    REASON_WINDOW_EXPIRED,
    REASON_PERMANENT_RESPONSE,
    REASON_GONE,
    REASON_BLOCKED_ADDRESS,
    REASON_SUBSCRIPTION_DELETED,
    REASON_REPLAY_CANCELLED,
    REASON_REPLAY_REQUESTED,
    DELIVERY_REASONS,
};

/* How an attempt ended when no usable answer came. Stored: append only. */
enum attempt_error {
    ATTEMPT_OK,
    ATTEMPT_TIMEOUT,
    ATTEMPT_CONNECT_REFUSED,
    ATTEMPT_CONNECT_FAILED,
    ATTEMPT_DNS,
    ATTEMPT_TLS,
    ATTEMPT_BLOCKED_ADDRESS,
    ATTEMPT_RESET,
    ATTEMPT_PROTOCOL,
    ATTEMPT_LEASE_EXPIRED,
    ATTEMPT_INTERNAL,
    ATTEMPT_ERRORS,
};

/* What brought an attempt about. Stored: append only. */
enum attempt_trigger { TRIGGER_SCHEDULE, TRIGGER_REPLAY, TRIGGER_TEST };

const char *delivery_state_name(enum delivery_state s);   /* "PENDING" … */
const char *delivery_reason_name(enum delivery_reason r); /* "window_expired" …; NULL for REASON_NONE */
const char *attempt_error_name(enum attempt_error e);     /* "timeout" …; NULL for ATTEMPT_OK */
const char *attempt_trigger_name(enum attempt_trigger t);

/* Case does not matter. -EINVAL for another word. */
int delivery_state_parse(struct slice s, enum delivery_state *ret) MUST_USE;
int delivery_reason_parse(struct slice s, enum delivery_reason *ret) MUST_USE;
int attempt_error_parse(struct slice s, enum attempt_error *ret) MUST_USE;

/* Whether the contract knows this transition (api.md §4); `with_attempt` tells whether an attempt's record
 * goes with it. The reason matters only without one. */
bool delivery_transition_allowed(enum delivery_state from, enum delivery_state to, bool with_attempt,
                                 enum delivery_reason reason);

/* PENDING, ATTEMPTING, RETRY and REPLAYING are open; DELIVERED and DLQ are closed. */
static inline bool delivery_is_open(enum delivery_state s) {
    return s != DELIVERY_DELIVERED && s != DELIVERY_DLQ;
}
