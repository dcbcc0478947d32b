/* Subscriptions being removed: first their attempts end, then their waiting deliveries are closed, step by
 * step. */
#include <utlist.h>

#include "lanes/delivery_state.h"

struct removal *removals_find(struct delivery_loop *d, uint32_t no) {
    struct removal *r;
    LL_SEARCH_SCALAR(d->removals, r, no, no);
    return r;
}

void removals_sending_stopped(struct delivery_loop *d, uint32_t no) {
    struct removal *r = removals_find(d, no);
    if (!r || r->sending_stopped)
        return;
    r->sending_stopped = true;
    if (r->stopped)
        r->stopped(r->arg);
}

uint32_t removals_next_closing(const struct delivery_loop *d) {
    for (const struct removal *r = d->removals; r; r = r->next)
        if (r->sending_stopped)
            return r->no;
    return 0;
}

void removals_progressed(struct delivery_loop *d, uint32_t no, unsigned closed) {
    struct removal *r = removals_find(d, no);
    for (unsigned i = 0; i < closed; i++)
        metrics_delivery_closed(d->o.metrics, DELIVERY_DLQ, REASON_SUBSCRIPTION_DELETED);
    if (closed < TURN_CLOSE_A_STEP && r) {
        LL_DELETE(d->removals, r);
        free(r);
    }
}

void removals_add(struct delivery_loop *d, uint32_t no, void (*stopped)(void *arg), void *arg) {
    struct removal *r = calloc(1, sizeof *r);
    CHECK(r != NULL);
    *r = (struct removal){.no = no, .stopped = stopped, .arg = arg};
    LL_APPEND(d->removals, r);
    if (lanes_remove(d->lanes, no))
        removals_sending_stopped(d, no);
}
