#include "lanes/dispatch.h"

#include <errno.h>

#include "lanes/delivery_loop.h"

enum { LOOPS_MAX = METRIC_LOOPS_MAX };

struct dispatch {
    struct dispatch_node node;
    struct tenant_budgets *tenants;
    struct delivery_loop *loops[LOOPS_MAX];
    unsigned loops_n;
    atomic_bool stopping; /* nothing more is begun */
};

/* A lane's loop never changes while the process lives. By other bits than its partition, so that few
 * partitions are many loops' all the same. */
static unsigned loop_of(const struct dispatch *d, uint32_t subscription_no) {
    return (unsigned)((mix64(subscription_no) >> 32) % d->loops_n);
}

int dispatch_start(const struct dispatch_options *o, struct dispatch **ret) {
    CHECK(o->loops >= 1 && o->loops <= LOOPS_MAX && o->disable && o->changed && o->holds && o->raise);
    struct dispatch *d = calloc(1, sizeof *d);
    if (!d)
        return -ENOMEM;
    d->node = o->node;
    unsigned budget = o->max_in_flight / o->loops;
    int r = tenant_budgets_new(&d->tenants);
    for (unsigned i = 0; r == 0 && i < o->loops; i++) {
        r = delivery_loop_start(o, d->tenants, i, budget ? budget : 1, &d->loops[i]);
        if (r == 0)
            d->loops_n++;
    }
    if (r < 0) {
        dispatch_stop(d);
        dispatch_free(d);
        return r;
    }
    *ret = d;
    return 0;
}

void dispatch_stop_claiming(struct dispatch *d) {
    atomic_store(&d->stopping, true);
    for (unsigned i = 0; i < d->loops_n; i++)
        delivery_loop_stop(d->loops[i]);
}

void dispatch_stop(struct dispatch *d) {
    atomic_store(&d->stopping, true);
    for (unsigned i = 0; i < d->loops_n; i++)
        delivery_loop_end(d->loops[i]);
    for (unsigned i = 0; i < d->loops_n; i++)
        delivery_loop_join(d->loops[i]);
}

void dispatch_free(struct dispatch *d) {
    if (!d)
        return;
    for (unsigned i = 0; i < d->loops_n; i++)
        delivery_loop_free(d->loops[i]);
    tenant_budgets_free(d->tenants);
    free(d);
}

int dispatch_configure(struct dispatch *d, struct subscription *s) {
    struct delivery_loop *loop = d->loops[loop_of(d, s->no)];
    const struct dispatch_node *node = &d->node;
    switch (node->ownership ? ownership_of(node->ownership, s->tier, s->no) : PARTITION_OWN) {
    case PARTITION_OWN:
        if (!node->ownership || !node->holds_back(node->arg, s))
            return delivery_loop_put(loop, s, NULL);
        return delivery_loop_change(loop, s);
    case PARTITION_COMING:
        (void)node->holds_back(node->arg, s); /* it may come too late to be put in place with the others */
        return delivery_loop_change(loop, s);
    case PARTITION_GOING:
    case PARTITION_AWAY:
        return delivery_loop_release(loop, s->no, NULL);
    }
    UNREACHABLE();
}

int dispatch_resume(struct dispatch *d, struct subscription *s, const struct lane_start *start) {
    return delivery_loop_put(d->loops[loop_of(d, s->no)], s, start);
}

int dispatch_release(struct dispatch *d, const struct partition_set *partitions) {
    int r = 0;
    for (unsigned i = 0; i < d->loops_n && r == 0; i++)
        r = delivery_loop_release(d->loops[i], 0, partitions);
    return r;
}

bool dispatch_released(struct dispatch *d, uint32_t *ret_leaving) {
    bool released = true;
    *ret_leaving = 0;
    for (unsigned i = 0; i < d->loops_n; i++)
        released &= delivery_loop_released(d->loops[i], ret_leaving);
    return released;
}

int dispatch_disinherit(struct dispatch *d, uint32_t subscription_no, uint32_t n) {
    return delivery_loop_disinherit(d->loops[loop_of(d, subscription_no)], subscription_no, n);
}

int dispatch_configure_tenant(struct dispatch *d, uint32_t tenant_no, const struct tenant_limits *limits) {
    return tenant_budgets_put(d->tenants, tenant_no, limits);
}

int dispatch_remove(struct dispatch *d, uint32_t subscription_no, void (*stopped)(void *arg), void *arg) {
    return delivery_loop_remove(d->loops[loop_of(d, subscription_no)], subscription_no, stopped, arg);
}

static int tell_loops(struct dispatch *d, const struct lane_notice *notices, size_t n, bool heard) {
    if (n == 0)
        return 0;
    if (d->loops_n == 1)
        return delivery_loop_notify(d->loops[0], notices, n, heard);
    struct lane_notice *sorted = malloc(n * sizeof *sorted);
    if (!sorted)
        return -ENOMEM;
    int r = 0;
    for (unsigned l = 0; l < d->loops_n && r == 0; l++) {
        size_t k = 0;
        for (size_t i = 0; i < n; i++)
            if (loop_of(d, notices[i].subscription_no) == l)
                sorted[k++] = notices[i];
        if (k)
            r = delivery_loop_notify(d->loops[l], sorted, k, heard);
    }
    free(sorted);
    return r;
}

/* Those of this node's lanes, or the others, go to `ret`; how many they are. */
static size_t sort_out(const struct dispatch *d, const struct lane_notice *notices, size_t n, bool ours,
                       struct lane_notice *ret) {
    size_t k = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t no = notices[i].subscription_no;
        enum tenant_tier tier = d->node.tier_of(d->node.arg, no);
        if ((ownership_of(d->node.ownership, tier, no) == PARTITION_OWN) == ours)
            ret[k++] = notices[i];
    }
    return k;
}

int dispatch_wake(struct dispatch *d, const struct lane_notice *notices, size_t n) {
    if (!d->node.ownership || n == 0)
        return tell_loops(d, notices, n, false);
    _cleanup_free_ struct lane_notice *ours = malloc(n * sizeof *ours);
    return ours ? tell_loops(d, ours, sort_out(d, notices, n, true, ours), false) : -ENOMEM;
}

int dispatch_hear(struct dispatch *d, const struct lane_notice *notices, size_t n) {
    return tell_loops(d, notices, n, true);
}

int dispatch_notify(struct dispatch *d, const struct lane_notice *notices, size_t n) {
    if (d->node.ownership && n > 0) {
        _cleanup_free_ struct lane_notice *others = malloc(n * sizeof *others);
        if (!others)
            return -ENOMEM;
        size_t k = sort_out(d, notices, n, false, others);
        if (k)
            d->node.elsewhere(d->node.arg, others, k);
    }
    return dispatch_wake(d, notices, n);
}

bool dispatch_begin(struct dispatch *d, const struct new_delivery *n, int64_t now, int64_t *ret_lease_until) {
    return !atomic_load_explicit(&d->stopping, memory_order_relaxed) &&
           delivery_loop_begin(d->loops[loop_of(d, n->subscription_no)], n, now, ret_lease_until);
}

void dispatch_made(struct dispatch *d, bool committed) {
    for (unsigned i = 0; i < d->loops_n; i++)
        delivery_loop_made(d->loops[i], committed);
}

int dispatch_stats(struct dispatch *d, uint32_t subscription_no, struct lane_stats *ret) {
    return delivery_loop_stats(d->loops[loop_of(d, subscription_no)], subscription_no, ret);
}
