#include "settle/retention.h"

#include <errno.h>

#include "store/directory.h"
#include "store/replay.h"

static const int64_t DAY_MS = INT64_C(86400) * 1000;

/* Whose turn it is, and until when its events are old. -ENOENT: nobody is left. */
static int whose_turn(const struct retention_sweep *sweep, struct store *s, int64_t now, uint32_t *ret_no,
                      int64_t *ret_before) {
    if (sweep->stage == SWEEP_OPERATOR) {
        *ret_no = TENANT_OPERATOR;
        *ret_before = now - RETENTION_OPERATOR_DAYS * DAY_MS;
        return 0;
    }
    struct tenant_record record;
    struct tenant tenant;
    bool deleted;
    int r = store_next_tenant(s, sweep->tenant_no, &record, &deleted);
    if (r < 0)
        return r;
    r = tenant_of_record(&record, &tenant);
    if (r < 0)
        return r == -EINVAL ? -EIO : r; /* what the store holds was valid when it went in */
    *ret_no = tenant.no;
    *ret_before = deleted ? now : now - tenant.limits.retention_days * DAY_MS;
    return 0;
}

static int sweep_idempotency(struct retention_sweep *sweep, struct store *s, int64_t now) {
    unsigned deleted = 0;
    int r = store_retain_idempotency(s, now - RETENTION_IDEMPOTENCY_DAYS * DAY_MS, RETENTION_ROWS_A_STEP,
                                     &deleted);
    if (r == 0 && deleted < RETENTION_ROWS_A_STEP)
        sweep->stage = SWEEP_OPERATOR;
    return r;
}

static int sweep_events(struct retention_sweep *sweep, struct store *s, uint32_t tenant_no, int64_t before) {
    unsigned passed = 0;
    int r = store_retain(s, tenant_no, before, RETENTION_ROWS_A_STEP, &sweep->at, &passed);
    if (r < 0 || passed == RETENTION_ROWS_A_STEP)
        return r;
    unsigned replays = 0, most = RETENTION_ROWS_A_STEP - passed;
    r = store_retain_replays(s, tenant_no, before, most, &replays);
    if (r < 0 || replays == most)
        return r;
    *sweep = (struct retention_sweep){.stage = SWEEP_TENANTS, .tenant_no = tenant_no};
    return 0;
}

int retention_step(struct retention_sweep *sweep, struct store *s, int64_t now, bool *ret_more) {
    uint32_t tenant_no = 0;
    int64_t before = 0;
    *ret_more = true;
    if (sweep->stage == SWEEP_IDEMPOTENCY)
        return sweep_idempotency(sweep, s, now);
    int r = whose_turn(sweep, s, now, &tenant_no, &before);
    if (r == 0)
        return sweep_events(sweep, s, tenant_no, before);
    if (r != -ENOENT)
        return r;
    *sweep = (struct retention_sweep){0};
    *ret_more = false;
    return 0;
}
