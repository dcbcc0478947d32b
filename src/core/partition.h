/* Partitions: how lanes are shared out over nodes. The lanes of each tier fall into PARTITIONS parts by their
 * subscription's number; one node at a time owns a part, and it alone sends from its lanes. */
#pragma once

#include "base/bytes.h"
#include "core/tenant.h"

enum { PARTITIONS = 1024 };

struct partition_set {
    uint64_t bits[TIERS][PARTITIONS / 64];
};

static inline void partition_add(struct partition_set *s, enum tenant_tier tier, unsigned partition) {
    s->bits[tier][partition / 64] |= UINT64_C(1) << partition % 64;
}

static inline bool partition_in(const struct partition_set *s, enum tenant_tier tier, unsigned partition) {
    return s->bits[tier][partition / 64] >> partition % 64 & 1;
}

/* In that of some tier. */
static inline bool partition_in_any(const struct partition_set *s, unsigned partition) {
    for (int tier = 0; tier < TIERS; tier++)
        if (partition_in(s, (enum tenant_tier)tier, partition))
            return true;
    return false;
}

/* Stored with open deliveries of a shared store, and all nodes of a cluster must agree. */
static inline unsigned partition_of(uint32_t subscription_no) {
    return (unsigned)(mix64(subscription_no) % PARTITIONS);
}
