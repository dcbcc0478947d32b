#include "world.h"

#include <string.h>

#include "arena.h"
#include "base/check.h"
#include "timeline.h"

static const int64_t EPOCH_MS = INT64_C(1700000000000);

struct happening {
    int64_t at;
    uint64_t order;
    unsigned life; /* 0: whatever dies */
    void (*fn)(void *arg);
    void *arg;
};

struct world world;

static struct {
    struct happening *heap; /* the soonest first */
    size_t n, cap;
    uint64_t next_order;
} queue;

void world_begin(uint64_t seed) {
    queue.n = 0;
    queue.next_order = 0;
    world = (struct world){
        .seed = seed, .wall_offset = EPOCH_MS, .disturbed_at = -CALM_MS, .jumped_at = INT64_MIN / 2};
    rng_seed(&world.rng, seed);
}

void world_clear(void) {
    host_free(queue.heap);
    memset(&queue, 0, sizeof queue);
}

int64_t world_wall(void) {
    return world.true_ms + world.wall_offset;
}

void world_disturbed(const char *what) {
    world.disturbed_at = world.true_ms;
    note(0, 0, 0, what);
}

void world_jump(int64_t by_ms) {
    world.wall_offset += by_ms;
    world.jumped_at = world.true_ms;
    world.disturbed_at = world.true_ms;
    note_value(0, 0, 0, "the clock jumps by ms", by_ms);
}

bool world_is_calm_since(int64_t true_ms) {
    return world.disturbed_at + CALM_MS < true_ms;
}

bool chance(double p) {
    return rng_unit(&world.rng) < p;
}

int64_t between(int64_t from, int64_t to) {
    return from + (int64_t)rng_below(&world.rng, (uint64_t)(to - from + 1));
}

/* ---- what happens next ---- */

static bool sooner(const struct happening *a, const struct happening *b) {
    return a->at != b->at ? a->at < b->at : a->order < b->order;
}

static void push(struct happening h) {
    queue.heap = host_grow(queue.heap, &queue.cap, queue.n + 1, sizeof h);
    size_t i = queue.n++;
    for (; i > 0 && sooner(&h, &queue.heap[(i - 1) / 2]); i = (i - 1) / 2)
        queue.heap[i] = queue.heap[(i - 1) / 2];
    queue.heap[i] = h;
}

static struct happening pop(void) {
    struct happening top = queue.heap[0], last = queue.heap[--queue.n];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= queue.n)
            break;
        if (child + 1 < queue.n && sooner(&queue.heap[child + 1], &queue.heap[child]))
            child++;
        if (!sooner(&queue.heap[child], &last))
            break;
        queue.heap[i] = queue.heap[child];
        i = child;
    }
    if (queue.n)
        queue.heap[i] = last;
    return top;
}

static void put(int64_t in_ms, unsigned life, void (*fn)(void *arg), void *arg) {
    CHECK(in_ms >= 0);
    push((struct happening){world.true_ms + in_ms, queue.next_order++, life, fn, arg});
}

void world_after(int64_t in_ms, void (*fn)(void *arg), void *arg) {
    CHECK(world.life > 0);
    put(in_ms, world.life, fn, arg);
}

void world_later(int64_t in_ms, void (*fn)(void *arg), void *arg) {
    put(in_ms, 0, fn, arg);
}

bool world_step(int64_t until_ms) {
    while (queue.n && queue.heap[0].at <= until_ms) {
        struct happening h = pop();
        if (h.life && h.life != world.life)
            continue;
        world.true_ms = h.at;
        h.fn(h.arg);
        return true;
    }
    return false;
}
