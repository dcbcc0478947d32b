#include "lanes/turn.h"

#include <errno.h>

static int note_changes(struct turn *t, struct store *s,
                        int (*disable)(void *arg, struct store *s, uint32_t no, const char *reason,
                                       int64_t now),
                        void *arg) {
    for (size_t i = 0; i < t->changes_n; i++) {
        const struct health_change *c = &t->changes[i];
        int r = c->kind == HEALTH_DISABLE
                    ? disable(arg, s, c->subscription_no, c->reason, t->now)
                    : store_set_failing_since(s, c->subscription_no,
                                              c->kind == HEALTH_FAILING ? c->failing_since : 0);
        /* Deleted meanwhile: nothing is left to note. */
        if (r < 0 && r != -ENOENT)
            return r;
        t->disabled_any |= r == 0 && c->kind == HEALTH_DISABLE;
    }
    return 0;
}

static int shed_expired(struct turn *t, struct store *s) {
    for (size_t i = 0; i < t->expiries_n && t->expired_n < TURN_EXPIRED_MAX; i++) {
        size_t n;
        int r = store_expire(s, t->expiries[i].subscription_no, t->expiries[i].window_ms, t->now,
                             t->expired + t->expired_n, TURN_EXPIRED_MAX - t->expired_n, &n);
        if (r < 0)
            return r;
        t->expired_n += n;
    }
    return 0;
}

/* Lanes that are unknown are those of deleted subscriptions; store_close_deleted looks itself whether that is
 * so. */
static int close_deleted(struct turn *t, struct store *s) {
    struct subscription_record record;
    t->closed = 0;
    if (!t->closing)
        return 0;
    int r = store_get_subscription(s, t->closing, &record);
    if (r == 0)
        return 0;
    return r == -ENOENT ? store_close_deleted(s, t->closing, t->now, TURN_CLOSE_A_STEP, &t->closed) : r;
}

int turn_run(struct turn *t, struct store *s, int64_t now,
             int (*disable)(void *arg, struct store *s, uint32_t no, const char *reason, int64_t now),
             void *arg) {
    t->now = now;
    t->tasks_n = t->expired_n = 0;
    t->disabled_any = false;
    int r = store_settle(s, t->settlements, t->settlements_n);
    if (r == 0)
        r = note_changes(t, s, disable, arg);
    if (r == 0)
        r = store_claim(s, t->claims, t->claims_n, now, t->tasks, TURN_TASKS_MAX, &t->tasks_n, t->expired,
                        TURN_EXPIRED_MAX, &t->expired_n);
    if (r == 0)
        r = shed_expired(t, s);
    return r == 0 ? close_deleted(t, s) : r;
}
