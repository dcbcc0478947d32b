/* An intrusive binary heap ordered by a 64-bit key, ties broken by a 64-bit sequence the heap hands out, so
 * that equal keys leave in the order they came. The caller embeds heap_node and owns it; the heap owns only
 * its array. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/check.h"

struct heap_node {
    int64_t key;
    uint64_t order; /* private */
    size_t slot;    /* private: 1-based position, 0 when not in a heap */
};

struct heap {
    struct heap_node **nodes; /* private */
    size_t n, cap;
    uint64_t next_order;
};

static inline bool heap_contains(const struct heap_node *node) {
    return node->slot != 0;
}

/* Inserts node, or moves it when it is in the heap already. -ENOMEM leaves both as they were. */
int heap_set(struct heap *h, struct heap_node *node, int64_t key) MUST_USE;
void heap_remove(struct heap *h, struct heap_node *node); /* idempotent */
struct heap_node *heap_top(const struct heap *h);         /* smallest key, or NULL */
void heap_free(struct heap *h);                           /* frees the array, not the nodes */
