/* Retention: deletes what is older than a tenant's retention_days, what a deleted tenant left behind, and old
 * rows of the control plane, in steps so small that deliveries do not feel them. */
#pragma once

#include "core/tenant.h"
#include "store/store.h"

enum {
    RETENTION_ROWS_A_STEP = 500,
    RETENTION_TENANTS_A_STEP = 16,
    RETENTION_IDEMPOTENCY_DAYS = 7,
    RETENTION_OPERATOR_DAYS = 30, /* of TENANT_OPERATOR's events */
    RETENTION_WORKER_DAYS = 30,   /* after a worker was last seen, at least */
};

/* How long the control plane's rows stay, in days; 0: for good. */
struct retention_policy {
    int64_t audit_days;
    int64_t key_days; /* after a key's end */
};

/* Where a sweep over the tenants stands; zero-initialised once, but for the policy. */
struct retention_sweep {
    struct retention_policy policy;
    enum { SWEEP_CONTROL, SWEEP_IDEMPOTENCY, SWEEP_LOOK, SWEEP_OPERATOR, SWEEP_TENANTS } stage;
    int64_t now;             /* when it began */
    uint32_t tenant_no;      /* whose turn is over */
    struct retain_cursor at; /* how far the next one's has come */
    int64_t oldest;          /* that any tenant keeps, as far as it has looked */
    int64_t floor;           /* what the store drops by days ends here */
    int64_t kept_since;      /* nobody keeps what is older; 0: no sweep has looked yet. Stays */
};

/* One step, within a transaction. *ret_more: the sweep has not ended. */
int retention_step(struct retention_sweep *sweep, struct store *s, int64_t now, bool *ret_more) MUST_USE;
