/* The order within lane keys, and what leaves a lane without an attempt.
 *
 * Of a key's open deliveries one at least is due or under way; the others may be put aside (due_at NULL)
 * until what stands before them closes. Whoever puts aside or closes has to know what is left, while other
 * nodes do the same: so it holds the lane's partition until its transaction ends. Nobody waits for that: the
 * lane's owner comes back to what it could not do, another node leaves the delivery as it is. */
#pragma once

#include "store/postgres/postgres.h"

struct pg_order;
int pg_order_open(struct pg_store *s) MUST_USE;
void pg_order_close(struct pg_store *s);
/* The last transaction was committed, or (part of) it was rolled back. */
void pg_order_committed(struct pg_store *s);
void pg_order_rolled_back(struct pg_store *s);

struct pg_lane_key {
    uint32_t subscription_no;
    uint64_t lane_key;
};

/* held[i]: the lane of keys[i] is held till the end of the transaction. */
int pg_hold_lanes(struct pg_store *s, const struct pg_lane_key *keys, size_t n, bool *held) MUST_USE;
/* Makes the first open delivery of each key claimable, when it is not so already; due_at[i] (NULL: not
 * wanted) is when it is due, 0 when there is none or it is under way. What cannot be done now is done before
 * the next claim. */
int pg_release(struct pg_store *s, const struct pg_lane_key *keys, size_t n, int64_t now,
               int64_t *due_at) MUST_USE;
/* Takes up what nodes that are gone have left to do, or have not come to yet. */
int pg_find_owed(struct pg_store *s) MUST_USE;
/* What is left to do from before. */
int pg_release_owed(struct pg_store *s, int64_t now) MUST_USE;

struct pg_waiting {
    uint64_t event_key;
    uint32_t subscription_no, tenant_no;
    uint64_t lane_key; /* 0: unordered, or the next of its key is not to be released */
};
/* Moves waiting deliveries to the DLQ without an attempt, with all that belongs to it; closed[i] tells
 * whether it is done. What another node holds, or what waits no more, is left alone. */
int pg_close_waiting(struct pg_store *s, const struct pg_waiting *d, size_t n, enum delivery_reason reason,
                     int64_t now, bool *closed) MUST_USE;
