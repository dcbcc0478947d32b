#include "settle/retention.h"

static const int64_t DAY_MS = INT64_C(86400) * 1000;

int retention_step(struct retention_sweep *sweep, struct store *s, int64_t now,
                   uint32_t (*next)(void *arg, uint32_t after_no, uint32_t *ret_days), void *arg,
                   bool *ret_more) {
    unsigned deleted = 0;
    if (sweep->tenant_no == 0) {
        int r = store_retain_idempotency(s, now - RETENTION_IDEMPOTENCY_DAYS * DAY_MS, RETENTION_ROWS_A_STEP,
                                         &deleted);
        if (r < 0)
            return r;
        if (deleted == RETENTION_ROWS_A_STEP) {
            *ret_more = true;
            return 0;
        }
    }
    uint32_t days = 0, tenant_no = next(arg, sweep->tenant_no, &days);
    if (!tenant_no) {
        sweep->tenant_no = 0;
        *ret_more = false;
        return 0;
    }
    int r =
        store_retain(s, tenant_no, now - days * DAY_MS, RETENTION_ROWS_A_STEP, &sweep->after_key, &deleted);
    if (r < 0)
        return r;
    if (deleted < RETENTION_ROWS_A_STEP) {
        sweep->tenant_no = tenant_no;
        sweep->after_key = 0;
    }
    *ret_more = true;
    return 0;
}
