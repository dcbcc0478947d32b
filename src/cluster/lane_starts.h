/* How the lanes begin that were served before, by this process's predecessor or on another node: what the
 * store keeps of them, and the attempts that are still under way. Gathered, then asked lane by lane. */
#pragma once

#include "lanes/lanes.h"

struct lane_starts {
    struct known_lane *known;
    bool taken_over; /* as in struct lane_start, of all */
};

/* 0, -ENOMEM, -EIO. */
int lane_starts_read(struct lane_starts *l, struct store_reader *r) MUST_USE;
/* One more attempt of this lane is under way elsewhere. */
int lane_starts_inherit(struct lane_starts *l, uint32_t subscription_no) MUST_USE;
struct lane_start lane_starts_of(const struct lane_starts *l, uint32_t subscription_no);
void lane_starts_clear(struct lane_starts *l);

#define _cleanup_lane_starts_ _cleanup_(lane_starts_clear)
