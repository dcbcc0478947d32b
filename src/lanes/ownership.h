/* Which partitions' lanes this process serves, when it is a node among several (cluster/node.h): written by
 * the node on the writer's thread, read by every thread. */
#pragma once

#include "core/partition.h"

enum partition_state {
    PARTITION_AWAY,
    PARTITION_COMING, /* it is ours, its lanes are being put in place one after another */
    PARTITION_OWN,
    PARTITION_GOING, /* it is to be given away: nothing is claimed, attempts under way may end */
};

struct ownership {
    atomic_uchar state[TIERS][PARTITIONS];
};

static inline enum partition_state ownership_of(const struct ownership *o, enum tenant_tier tier,
                                                uint32_t subscription_no) {
    return (enum partition_state)atomic_load_explicit(&o->state[tier][partition_of(subscription_no)],
                                                      memory_order_acquire);
}

static inline void ownership_set(struct ownership *o, enum tenant_tier tier, unsigned partition,
                                 enum partition_state state) {
    atomic_store_explicit(&o->state[tier][partition], (unsigned char)state, memory_order_release);
}
