#include "arena.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/check.h"
#include "world.h"

enum {
    ARENA_BYTES = 256 << 20, /* of address space; only what is touched is used */
    CLASSES = 24,            /* powers of two from 16 bytes */
    LEAST_SHIFT = 4,
};

/* Precedes each block. */
struct header {
    uint32_t class;
    uint32_t asked; /* bytes */
    struct header *next_free;
};

static struct {
    char *base;
    size_t used; /* handed out for the first time */
    size_t in_use;
    struct header *free[CLASSES];
    size_t failing_size;
    double failing;
    bool failing_allowed;
} arena;

void *__real_malloc(size_t n);
void *__real_realloc(void *p, size_t n);
void __real_free(void *p);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *p, size_t n);
void *__wrap_aligned_alloc(size_t alignment, size_t n);
void __wrap_free(void *p);

void *host_grow(void *p, size_t *cap, size_t needed, size_t size) {
    if (needed <= *cap)
        return p;
    size_t wanted = *cap ? *cap * 2 : 64;
    while (wanted < needed)
        wanted *= 2;
    p = __real_realloc(p, wanted * size);
    CHECK(p != NULL);
    *cap = wanted;
    return p;
}

void host_free(void *p) {
    __real_free(p);
}

void arena_reset(void) {
    if (!arena.base) {
        arena.base = mmap(NULL, ARENA_BYTES, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        CHECK(arena.base != MAP_FAILED);
    }
    arena.used = arena.in_use = 0;
    memset(arena.free, 0, sizeof arena.free);
}

size_t arena_in_use(void) {
    return arena.in_use;
}

void arena_fail(size_t size, double probability) {
    arena.failing_size = size;
    arena.failing = probability;
}

void arena_allow_failing(bool allowed) {
    arena.failing_allowed = allowed;
}

static unsigned class_of(size_t n) {
    unsigned class = 0;
    while (((size_t)1 << (class + LEAST_SHIFT)) < n)
        class ++;
    CHECK(class < CLASSES);
    return class;
}

/* A block that was not used before. */
static struct header *cut(unsigned class) {
    size_t bytes = sizeof(struct header) + ((size_t)1 << (class + LEAST_SHIFT));
    CHECK(arena.used + bytes <= ARENA_BYTES);
    struct header *h = (struct header *)(arena.base + arena.used);
    arena.used += bytes;
    return h;
}

void *__wrap_malloc(size_t n) {
    if (!arena.base)
        arena_reset();
    if (arena.failing_allowed && n == arena.failing_size && arena.failing > 0 && chance(arena.failing))
        return NULL;
    unsigned class = class_of(n);
    struct header *h = arena.free[class];
    if (h) {
        arena.free[class] = h->next_free;
    } else {
        h = cut(class);
    }
    *h = (struct header){.class = class, .asked = (uint32_t)n};
    arena.in_use += n;
    return h + 1;
}

/* Rare: always a new block. */
void *__wrap_aligned_alloc(size_t alignment, size_t n) {
    CHECK(arena.base && alignment >= sizeof(struct header));
    size_t at = arena.used + sizeof(struct header) + alignment - 1;
    arena.used = at / alignment * alignment - sizeof(struct header);
    struct header *h = cut(class_of(n));
    *h = (struct header){.class = class_of(n), .asked = (uint32_t)n};
    arena.in_use += n;
    return h + 1;
}

void *__wrap_calloc(size_t count, size_t size) {
    void *p = __wrap_malloc(count * size);
    return p ? memset(p, 0, count * size) : NULL;
}

static bool is_ours(const void *p) {
    return (const char *)p >= arena.base && (const char *)p < arena.base + ARENA_BYTES;
}

void __wrap_free(void *p) {
    if (!p)
        return;
    if (!is_ours(p)) { /* of a library's */
        __real_free(p);
        return;
    }
    struct header *h = (struct header *)p - 1;
    CHECK(arena.in_use >= h->asked);
    arena.in_use -= h->asked;
    h->next_free = arena.free[h->class];
    arena.free[h->class] = h;
}

void *__wrap_realloc(void *p, size_t n) {
    if (p && !is_ours(p))
        return __real_realloc(p, n);
    void *bigger = __wrap_malloc(n);
    if (!bigger || !p)
        return bigger;
    size_t before = ((struct header *)p - 1)->asked;
    memcpy(bigger, p, before < n ? before : n);
    __wrap_free(p);
    return bigger;
}
