/* What deliveries went through, derived from what is stored: their creation, their attempts, and the
 * transitions without one. */
#pragma once

#include "store/store.h"

enum { TIMELINE_REASON_SIZE = 32 };

struct timeline_step {
    struct id delivery_id, subscription_id;
    size_t order; /* in which it was added */
    int64_t at;
    int from; /* enum delivery_state, -1: none */
    enum delivery_state to;
    char reason[TIMELINE_REASON_SIZE]; /* "": none */
};

/* Zero-initialise; release with timeline_free. */
struct timeline {
    struct timeline_step *steps; /* owned */
    size_t n, cap;
};

/* What is stored of one delivery, ascending each. The texts of attempts are not looked at. */
struct timeline_source {
    const struct attempt_row *attempts;
    size_t attempts_n;
    const struct transition_row *transitions;
    size_t transitions_n;
};

/* Appends the steps of one delivery, as far as `row` knows: attempts that were settled after it was read are
 * left out. Pure. -ENOMEM. */
int timeline_derive(struct timeline *t, const struct delivery_row *row,
                    const struct timeline_source *source) MUST_USE;
/* The same with what the store has of it. */
int timeline_add(struct timeline *t, struct store_reader *reader, const struct delivery_row *row) MUST_USE;
/* By time; steps of one moment stay in their order. */
void timeline_sort(struct timeline *t);
/* Appends the array of steps {"at","from","to","reason"}, each preceded by "delivery_id" and
 * "subscription_id" when asked for. */
void timeline_render(const struct timeline *t, struct buf *out, bool with_ids);
void timeline_free(struct timeline *t);
