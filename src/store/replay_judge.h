/* Whether a bulk replay takes what a walk has come to; the same for every kind of store. Pure but for memory.
 */
#pragma once

#include "store/replay.h"

/* What is judged: a delivery, or (state < 0) that a subscription has none of an event. */
struct replay_place {
    int state;
    enum delivery_reason reason;
    int64_t closed_at;
    struct slice type, ordering_key;
    bool out_of_bounds; /* of another lane, or it may yet come */
};

enum replay_verdict { REPLAY_PASS, REPLAY_TAKE, REPLAY_ASK_FILTER };
/* REPLAY_ASK_FILTER: `sub` has a filter, which must see the event. */
enum replay_verdict replay_judge(const struct replay_filter *f, const struct subscription *sub,
                                 const struct replay_place *place);
/* 1 when the subscription's filter lets the event through; *budget, which stays above 0, pays for it. */
int replay_ask_filter(const struct subscription *sub, const struct replay_place *place,
                      struct slice schema_version, struct slice body, uint32_t data_size,
                      unsigned *budget) MUST_USE;
