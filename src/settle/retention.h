/* Retention: deletes what is older than a tenant's retention_days, in steps so small that deliveries do not
 * feel them. */
#pragma once

#include "core/tenant.h"
#include "store/store.h"

enum {
    RETENTION_ROWS_A_STEP = 500,
    RETENTION_IDEMPOTENCY_DAYS = 7,
};

/* Where a sweep over the tenants stands; zero-initialised at its start. */
struct retention_sweep {
    uint32_t tenant_no; /* whose turn is over */
    uint64_t after_key; /* how far the next one's has come */
};

/* One step, within a transaction. `next` gives the tenant after a number: its number and retention, 0 when
 * there is none. *ret_more: the sweep has not ended. */
int retention_step(struct retention_sweep *sweep, struct store *s, int64_t now,
                   uint32_t (*next)(void *arg, uint32_t after_no, uint32_t *ret_days), void *arg,
                   bool *ret_more) MUST_USE;
