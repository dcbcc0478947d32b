/* Which node is to own which partitions: a pure function of what all nodes read in the store, so that they
 * agree without talking. Each tier is shared out for itself, among the nodes that deliver it: balanced within
 * one, and nothing moves that need not. */
#pragma once

#include "core/partition.h"

enum { CLUSTER_NODES_MAX = 64 };

struct plan_node {
    uint32_t no;
    uint32_t tiers; /* set of 1 << enum tenant_tier that it delivers; 0: none, or it is about to leave */
};

struct partition_plan {
    uint16_t take[PARTITIONS], give[PARTITIONS]; /* partitions, ascending */
    size_t take_n, give_n;
};

/* `nodes`: those alive, ascending by number, at most CLUSTER_NODES_MAX. `owners`: the node of each partition
 * of the tier, 0: nobody's; one that is not alive counts as nobody. What `me` is to take is nobody's now,
 * what it is to give is its own: when both have been done by all, the plan has nothing more to say. A
 * partition that a live node still has to give is taken by nobody before. */
void plan_partitions(const struct plan_node *nodes, size_t n, enum tenant_tier tier,
                     const uint32_t owners[PARTITIONS], uint32_t me, struct partition_plan *ret);
