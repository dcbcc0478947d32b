/* Attempts counted by subscription, for operators who ask for it: as many subscriptions as they say, the
 * first that are seen; what comes after them is counted as one. Safe from all threads; only a subscription's
 * first attempt takes a lock. */
#pragma once

#include "base/bytes.h"
#include "core/id.h"

enum { SUBSCRIPTION_SERIES_MAX = 100000 };

struct subscription_series;

/* `max`: 1…SUBSCRIPTION_SERIES_MAX. */
int subscription_series_new(unsigned max, struct subscription_series **ret) MUST_USE;
void subscription_series_free(struct subscription_series *s); /* NULL-safe */

/* `no` is the subscription's number, never 0. */
void subscription_series_count(struct subscription_series *s, uint32_t no, struct id id,
                               const char *tenant_id, bool success);
/* posthorn_subscription_attempts_total{tenant,subscription,outcome} */
void subscription_series_render(struct subscription_series *s, struct buf *out);
