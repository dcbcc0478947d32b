#include "ingest/outbox_share.h"

#include "base/check.h"

uint32_t outbox_share(uint32_t members, unsigned mine) {
    CHECK(mine < OUTBOX_MEMBERS_MAX && (members >> mine & 1));
    unsigned count = (unsigned)__builtin_popcount(members);
    unsigned rank = (unsigned)__builtin_popcount(members & ((UINT32_C(1) << mine) - 1));
    uint32_t ranges = 0;
    for (unsigned r = 0; r < OUTBOX_RANGES; r++)
        if (r % count == rank)
            ranges |= UINT32_C(1) << r;
    return ranges;
}
