#include "settle/retention.h"

#include <errno.h>

#include "store/directory.h"
#include "store/replay.h"

static const int64_t DAY_MS = INT64_C(86400) * 1000;

/* The next tenant, and until when its events are old. -ENOENT: nobody is left. */
static int next_tenant(const struct retention_sweep *sweep, struct store *s, uint32_t *ret_no,
                       int64_t *ret_before, bool *ret_deleted) {
    struct tenant_record record;
    struct tenant tenant;
    int r = store_next_tenant(s, sweep->tenant_no, &record, ret_deleted);
    if (r < 0)
        return r;
    r = tenant_of_record(&record, &tenant);
    if (r < 0)
        return r == -EINVAL ? -EIO : r; /* what the store holds was valid when it went in */
    *ret_no = tenant.no;
    *ret_before = *ret_deleted ? sweep->now : sweep->now - tenant.limits.retention_days * DAY_MS;
    return 0;
}

static int whose_turn(const struct retention_sweep *sweep, struct store *s, uint32_t *ret_no,
                      int64_t *ret_before) {
    bool deleted;
    if (sweep->stage != SWEEP_OPERATOR)
        return next_tenant(sweep, s, ret_no, ret_before, &deleted);
    *ret_no = TENANT_OPERATOR;
    *ret_before = sweep->now - RETENTION_OPERATOR_DAYS * DAY_MS;
    return 0;
}

static int64_t days_before(const struct retention_sweep *sweep, int64_t days) {
    return days ? sweep->now - days * DAY_MS : 0;
}

static int sweep_control(struct retention_sweep *sweep, struct store *s) {
    const struct control_retention keep = {
        .audit_before = days_before(sweep, sweep->policy.audit_days),
        .keys_before = days_before(sweep, sweep->policy.key_days),
        .workers_before = days_before(sweep, RETENTION_WORKER_DAYS),
    };
    unsigned deleted = 0;
    int r = store_retain_control(s, &keep, RETENTION_ROWS_A_STEP, &deleted);
    if (r == 0 && deleted < RETENTION_ROWS_A_STEP)
        sweep->stage = SWEEP_IDEMPOTENCY;
    return r;
}

static int sweep_idempotency(struct retention_sweep *sweep, struct store *s) {
    unsigned deleted = 0;
    int r = store_retain_idempotency(s, sweep->now - RETENTION_IDEMPOTENCY_DAYS * DAY_MS,
                                     RETENTION_ROWS_A_STEP, &deleted);
    if (r < 0 || deleted == RETENTION_ROWS_A_STEP)
        return r;
    sweep->stage = SWEEP_LOOK;
    sweep->oldest = sweep->now - RETENTION_OPERATOR_DAYS * DAY_MS;
    return 0;
}

/* Looks for the longest retention in force. */
static int sweep_look(struct retention_sweep *sweep, struct store *s) {
    for (int i = 0; i < RETENTION_TENANTS_A_STEP; i++) {
        int64_t before = 0;
        bool deleted = false;
        int r = next_tenant(sweep, s, &sweep->tenant_no, &before, &deleted);
        if (r == -ENOENT) {
            sweep->kept_since = sweep->oldest;
            sweep->floor = store_retain_floor(s, sweep->oldest);
            sweep->tenant_no = 0;
            sweep->stage = SWEEP_OPERATOR;
            return 0;
        }
        if (r < 0)
            return r;
        if (!deleted && before < sweep->oldest)
            sweep->oldest = before;
    }
    return 0;
}

/* A part of a tenant's turn, of up to *rows; what is left of them comes back. */
static int sweep_events(struct retention_sweep *sweep, struct store *s, uint32_t tenant_no, int64_t before,
                        unsigned *rows) {
    /* The rest of the day leaves with its day. */
    int64_t upto = before - sweep->floor < DAY_MS ? sweep->floor : before;
    unsigned passed = 0, replays = 0, most = *rows;
    int r = store_retain(s, tenant_no, upto, most, &sweep->at, &passed);
    *rows -= passed;
    if (r < 0 || passed == most)
        return r;
    most = *rows;
    r = store_retain_replays(s, tenant_no, before, most, &replays);
    *rows -= replays;
    if (r < 0 || replays == most)
        return r;
    sweep->stage = SWEEP_TENANTS;
    sweep->tenant_no = tenant_no;
    sweep->at = (struct retain_cursor){0};
    return 0;
}

static int sweep_tenants(struct retention_sweep *sweep, struct store *s, bool *ret_more) {
    unsigned rows = RETENTION_ROWS_A_STEP;
    for (int i = 0; i < RETENTION_TENANTS_A_STEP && rows > 0; i++) {
        uint32_t tenant_no = 0;
        int64_t before = 0;
        int r = whose_turn(sweep, s, &tenant_no, &before);
        if (r == -ENOENT) {
            *sweep = (struct retention_sweep){.policy = sweep->policy, .kept_since = sweep->kept_since};
            *ret_more = false;
            return 0;
        }
        if (r == 0)
            r = sweep_events(sweep, s, tenant_no, before, &rows);
        if (r < 0)
            return r;
    }
    return 0;
}

int retention_step(struct retention_sweep *sweep, struct store *s, int64_t now, bool *ret_more) {
    *ret_more = true;
    if (!sweep->now)
        sweep->now = now;
    switch (sweep->stage) {
    case SWEEP_CONTROL:
        return sweep_control(sweep, s);
    case SWEEP_IDEMPOTENCY:
        return sweep_idempotency(sweep, s);
    case SWEEP_LOOK:
        return sweep_look(sweep, s);
    case SWEEP_OPERATOR:
    case SWEEP_TENANTS:
        return sweep_tenants(sweep, s, ret_more);
    }
    UNREACHABLE();
}
