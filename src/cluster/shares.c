/* Tenants' caps hold over all their lanes. Each node goes by its share of them: as much as the tenant's lanes
 * are its own, at least one where it has any. */
#include <errno.h>

#include "base/log.h"
#include "cluster/node_state.h"

struct lanes_of {
    uint32_t all, own;
};

static uint32_t share_of(uint32_t cap, const struct lanes_of *l) {
    if (!l->all || !cap)
        return cap;
    uint64_t share = ((uint64_t)cap * l->own + l->all - 1) / l->all;
    return share ? (uint32_t)share : 1; /* it has no lanes here: nothing is sent */
}

static struct lanes_of *count_lanes(struct node *n, uint32_t *ret_upper) {
    struct tenant t = {0};
    uint32_t upper = 0;
    while (directory_tenant_after(n->parts.directory, t.no, &t))
        upper = t.no;
    struct lanes_of *lanes = calloc((size_t)upper + 1, sizeof *lanes);
    for (uint32_t no = 1; lanes && no <= fanout_upper(n->parts.fanout); no++) {
        const struct subscription *s = fanout_subscription(n->parts.fanout, no);
        if (!s || s->tenant_no > upper)
            continue;
        lanes[s->tenant_no].all++;
        lanes[s->tenant_no].own += ownership_of(&n->ownership, s->tier, no) == PARTITION_OWN;
    }
    *ret_upper = upper;
    return lanes;
}

void shares_set(struct node *n) {
    uint32_t upper;
    _cleanup_free_ struct lanes_of *lanes = count_lanes(n, &upper);
    struct tenant t = {0};
    int r = lanes ? 0 : -ENOMEM;
    while (r == 0 && directory_tenant_after(n->parts.directory, t.no, &t) && t.no <= upper) {
        struct tenant_limits limits = t.limits;
        limits.max_in_flight = share_of(limits.max_in_flight, &lanes[t.no]);
        limits.deliveries_per_minute = share_of(limits.deliveries_per_minute, &lanes[t.no]);
        r = dispatch_configure_tenant(n->parts.dispatch, t.no, &limits);
    }
    if (r < 0)
        log_error("no memory for tenants' shares of their caps; they are set with the next move");
}
