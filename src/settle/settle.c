#include "settle/settle.h"

enum outcome_class settle_prepare(const struct policy *p, const struct task *t, const struct outcome *o,
                                  int64_t now, struct rng *rng, struct settlement *ret) {
    struct attempt_tally tally = {
        .number = t->number, .base = t->base, .uncounted = t->uncounted, .window_at = t->window_at};
    struct verdict v = retry_decide(p, &tally, o, now, rng);
    CHECK(delivery_transition_allowed(DELIVERY_ATTEMPTING, v.to, true, v.reason));
    ret->event_key = t->event_key;
    ret->subscription_no = t->subscription_no;
    ret->tenant_no = t->tenant_no;
    ret->number = t->number;
    ret->lane_key = t->lane_key;
    ret->to = v.to;
    ret->reason = v.reason;
    ret->due_at = v.due_at;
    ret->counted = v.counted;
    ret->settled_at = now;
    return outcome_classify(o, p);
}
