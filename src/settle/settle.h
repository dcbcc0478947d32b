/* From an attempt's outcome to the transition that is written: taxonomy and state machine, pure. */
#pragma once

#include "core/retry.h"
#include "store/store.h"

/* What an attempt's outcome makes of its endpoint's health: written, and told, with its settlement. */
struct health_change {
    bool noted, failing, recovered;
    int64_t failing_since, raised_since; /* as it is now */
    int64_t failed_since;                /* with recovered: until now */
    const char *disable;                 /* why the subscription is disabled, static; NULL: it is not */
    bool quiet;                          /* nobody is told of the disabling */
    bool remember;                       /* what its lane has learnt is to be kept: */
    bool has_state;                      /* this, or nothing */
    uint8_t state[LANE_STATE_SIZE];
};

/* Fills everything of `ret` but its attempt record's own measurements, which the caller has put there
 * (ret->attempt). Returns the outcome's class. now: when the attempt ended, Unix ms. */
enum outcome_class settle_prepare(const struct policy *p, const struct task *t, const struct outcome *o,
                                  int64_t now, struct rng *rng, struct settlement *ret);
