/* How relays share one outbox. The rows fall into ranges by the hash of their ordering key (the database
 * counts it, see outbox_text.c); of each range one relay at a time takes rows, so that rows of one key go out
 * in the order of their commits. Pure. */
#pragma once

#include <stdint.h>

enum {
    OUTBOX_RANGES = 16,
    OUTBOX_MEMBERS_MAX = 16, /* relays that work; more stand by */
};

#define OUTBOX_ALL_RANGES ((UINT32_C(1) << OUTBOX_RANGES) - 1)

/* The ranges, a bit each, that member `mine` (0…) is to hold when the bits of `members` say who is there;
 * `mine` is one of them. Each range is one member's, and no member has two more than another. */
uint32_t outbox_share(uint32_t members, unsigned mine);
