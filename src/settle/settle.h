/* From an attempt's outcome to the transition that is written: taxonomy and state machine, pure. */
#pragma once

#include "core/retry.h"
#include "store/store.h"

/* Fills everything of `ret` but its attempt record's own measurements, which the caller has put there
 * (ret->attempt). Returns the outcome's class. now: when the attempt ended, Unix ms. */
enum outcome_class settle_prepare(const struct policy *p, const struct task *t, const struct outcome *o,
                                  int64_t now, struct rng *rng, struct settlement *ret);
