/* Lanes by number: open addressing with linear probing, for a handle in each lane would cost five times as
 * much. */
#include <errno.h>

#include "base/bytes.h"
#include "lanes/lane.h"

enum { CAP_MIN = 16 };

/* Which lanes a loop has is chosen by the lower bits of the same hash (dispatch.c): the upper ones spread. */
static size_t home_of(const struct lane_table *t, uint32_t no) {
    return (size_t)(mix64(no) >> 32) & (t->cap - 1);
}

static size_t slot_of(const struct lane_table *t, uint32_t no) {
    size_t at = home_of(t, no);
    while (t->slots[at] && t->slots[at]->no != no)
        at = (at + 1) & (t->cap - 1);
    return at;
}

static int grow(struct lane_table *t) {
    struct lane_table wider = {.cap = t->cap ? t->cap * 2 : CAP_MIN, .n = t->n};
    wider.slots = calloc(wider.cap, sizeof(struct lane *));
    if (!wider.slots)
        return -ENOMEM;
    for (size_t i = 0; i < t->cap; i++)
        if (t->slots[i])
            wider.slots[slot_of(&wider, t->slots[i]->no)] = t->slots[i];
    free(t->slots);
    *t = wider;
    return 0;
}

struct lane *lane_table_find(const struct lane_table *t, uint32_t no) {
    return t->cap ? t->slots[slot_of(t, no)] : NULL;
}

int lane_table_add(struct lane_table *t, struct lane *l) {
    /* At least a quarter is free, so that runs stay short. */
    if ((t->n + 1) * 4 > t->cap * 3 && grow(t) < 0)
        return -ENOMEM;
    size_t at = slot_of(t, l->no);
    CHECK(!t->slots[at]);
    t->slots[at] = l;
    t->n++;
    return 0;
}

void lane_table_remove(struct lane_table *t, const struct lane *l) {
    size_t mask = t->cap - 1, hole = slot_of(t, l->no);
    CHECK(t->slots[hole] == l);
    t->n--;
    /* What was displaced past the hole moves up, so that no walk ends too early. */
    for (size_t at = (hole + 1) & mask; t->slots[at]; at = (at + 1) & mask) {
        size_t home = home_of(t, t->slots[at]->no);
        if (((at - home) & mask) < ((at - hole) & mask))
            continue;
        t->slots[hole] = t->slots[at];
        hole = at;
    }
    t->slots[hole] = NULL;
}

void lane_table_free(struct lane_table *t) {
    CHECK(t->n == 0);
    free(t->slots);
}
