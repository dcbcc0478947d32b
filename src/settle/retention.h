/* Retention: deletes what is older than a tenant's retention_days, and what a deleted tenant left behind, in
 * steps so small that deliveries do not feel them. */
#pragma once

#include "core/tenant.h"
#include "store/store.h"

enum {
    RETENTION_ROWS_A_STEP = 500,
    RETENTION_IDEMPOTENCY_DAYS = 7,
    RETENTION_OPERATOR_DAYS = 30, /* of TENANT_OPERATOR's events */
};

/* Where a sweep over the tenants stands; zero-initialised at its start. */
struct retention_sweep {
    enum { SWEEP_IDEMPOTENCY, SWEEP_OPERATOR, SWEEP_TENANTS } stage;
    uint32_t tenant_no;      /* whose turn is over */
    struct retain_cursor at; /* how far the next one's has come */
};

/* One step, within a transaction. *ret_more: the sweep has not ended. */
int retention_step(struct retention_sweep *sweep, struct store *s, int64_t now, bool *ret_more) MUST_USE;
