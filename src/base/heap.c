#include "base/heap.h"

#include <errno.h>
#include <stdlib.h>

static bool before(const struct heap_node *a, const struct heap_node *b) {
    return a->key != b->key ? a->key < b->key : a->order < b->order;
}

static void place(struct heap *h, struct heap_node *node, size_t slot) {
    h->nodes[slot - 1] = node;
    node->slot = slot;
}

static void sift_up(struct heap *h, struct heap_node *node, size_t slot) {
    while (slot > 1 && before(node, h->nodes[slot / 2 - 1])) {
        place(h, h->nodes[slot / 2 - 1], slot);
        slot /= 2;
    }
    place(h, node, slot);
}

static void sift_down(struct heap *h, struct heap_node *node, size_t slot) {
    for (;;) {
        size_t child = slot * 2;
        if (child > h->n)
            break;
        if (child < h->n && before(h->nodes[child], h->nodes[child - 1]))
            child++;
        if (!before(h->nodes[child - 1], node))
            break;
        place(h, h->nodes[child - 1], slot);
        slot = child;
    }
    place(h, node, slot);
}

int heap_set(struct heap *h, struct heap_node *node, int64_t key) {
    if (!node->slot) {
        if (h->n == h->cap) {
            size_t cap = h->cap ? h->cap * 2 : 64;
            struct heap_node **nodes = realloc(h->nodes, cap * sizeof *nodes);
            if (!nodes)
                return -ENOMEM;
            h->nodes = nodes;
            h->cap = cap;
        }
        node->slot = ++h->n;
    }
    CHECK(node->slot <= h->n);
    node->key = key;
    node->order = h->next_order++;
    sift_up(h, node, node->slot);
    sift_down(h, node, node->slot);
    return 0;
}

void heap_remove(struct heap *h, struct heap_node *node) {
    if (!node->slot)
        return;
    CHECK(node->slot <= h->n && h->nodes[node->slot - 1] == node);
    size_t slot = node->slot;
    struct heap_node *last = h->nodes[--h->n];
    node->slot = 0;
    if (last == node)
        return;
    sift_up(h, last, slot);
    sift_down(h, last, last->slot);
}

struct heap_node *heap_top(const struct heap *h) {
    return h->n ? h->nodes[0] : NULL;
}

void heap_free(struct heap *h) {
    free(h->nodes);
    *h = (struct heap){0};
}
