/* Partitions: how lanes are shared out over nodes. The lanes of each tier fall into PARTITIONS parts by their
 * subscription's number; one node at a time owns a part, and it alone sends from its lanes. */
#pragma once

#include "base/bytes.h"
#include "core/tenant.h"

enum { PARTITIONS = 1024 };

/* Stored nowhere, but all nodes of a cluster must agree. */
static inline unsigned partition_of(uint32_t subscription_no) {
    return (unsigned)(mix64(subscription_no) % PARTITIONS);
}
