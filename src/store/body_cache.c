#include "store/body_cache.h"

#include <errno.h>
#include <pthread.h>

enum {
    ENTRIES_LEAST = 64,
    BYTES_AN_ENTRY = 512 /* what the table is laid out for; smaller bodies fill it sooner */
};

struct entry {
    uint64_t event_key; /* 0: none */
    struct body body;
};

/* A ring of entries in the order they came, over slots that lead to them (open addressing, linear probing).
 * An allocation an event would cost more than the look-up that it spares. */
struct body_cache {
    pthread_mutex_t lock;
    struct entry *ring;
    uint32_t *slots; /* position in the ring and 1, 0: empty; twice as many as entries */
    size_t entries, slots_mask;
    size_t oldest, n;
    size_t bytes, bytes_max;
};

int body_cache_new(size_t bytes_max, struct body_cache **ret) {
    struct body_cache *c = calloc(1, sizeof *c);
    if (!c)
        return -ENOMEM;
    pthread_mutex_init(&c->lock, NULL);
    c->bytes_max = bytes_max;
    c->entries = ENTRIES_LEAST;
    while (c->entries < bytes_max / BYTES_AN_ENTRY && c->entries < UINT32_MAX / 4)
        c->entries *= 2;
    c->slots_mask = 2 * c->entries - 1;
    c->ring = calloc(c->entries, sizeof *c->ring);
    c->slots = calloc(c->slots_mask + 1, sizeof *c->slots);
    if (!c->ring || !c->slots) {
        body_cache_free(c);
        return -ENOMEM;
    }
    *ret = c;
    return 0;
}

static size_t cost(const struct entry *e) {
    /* A trace is shared by a batch, which is counted as if it were not. */
    return sizeof *e->body.envelope + e->body.envelope->n + (e->body.trace ? e->body.trace->n : 0);
}

static size_t home_of(const struct body_cache *c, uint64_t event_key) {
    return (size_t)mix64(event_key) & c->slots_mask;
}

/* The slot of this event, or the empty one where it would stand. */
static size_t find_slot(const struct body_cache *c, uint64_t event_key) {
    size_t at = home_of(c, event_key);
    while (c->slots[at] && c->ring[c->slots[at] - 1].event_key != event_key)
        at = (at + 1) & c->slots_mask;
    return at;
}

/* Empties a slot and moves up what had to pass it. */
static void empty_slot(struct body_cache *c, size_t gap) {
    for (size_t at = (gap + 1) & c->slots_mask; c->slots[at]; at = (at + 1) & c->slots_mask) {
        size_t home = home_of(c, c->ring[c->slots[at] - 1].event_key);
        if (((at - home) & c->slots_mask) < ((at - gap) & c->slots_mask))
            continue;
        c->slots[gap] = c->slots[at];
        gap = at;
    }
    c->slots[gap] = 0;
}

static void drop_oldest(struct body_cache *c) {
    struct entry *e = &c->ring[c->oldest];
    CHECK(c->n > 0);
    if (e->body.envelope) {
        empty_slot(c, find_slot(c, e->event_key));
        c->bytes -= cost(e);
        blob_unref(e->body.envelope);
        blob_unref(e->body.trace);
    }
    *e = (struct entry){0};
    c->oldest = (c->oldest + 1) & (c->entries - 1);
    c->n--;
}

void body_cache_free(struct body_cache *c) {
    if (!c)
        return;
    while (c->n > 0)
        drop_oldest(c);
    free(c->ring);
    free(c->slots);
    pthread_mutex_destroy(&c->lock);
    free(c);
}

static struct body ref(const struct body *b) {
    return (struct body){.envelope = blob_ref(b->envelope),
                         .trace = b->trace ? blob_ref(b->trace) : NULL,
                         .data_size = b->data_size};
}

void body_cache_put(struct body_cache *c, uint64_t event_key, const struct body *body) {
    struct entry e = {.event_key = event_key, .body = *body};
    CHECK(event_key != 0);
    pthread_mutex_lock(&c->lock);
    size_t slot = find_slot(c, event_key);
    if (c->slots[slot] || cost(&e) > c->bytes_max) {
        /* Known already, with the same bytes; or too large for the cache. */
        pthread_mutex_unlock(&c->lock);
        return;
    }
    while (c->n == c->entries || c->bytes + cost(&e) > c->bytes_max)
        drop_oldest(c);
    size_t at = (c->oldest + c->n) & (c->entries - 1);
    c->ring[at] = (struct entry){.event_key = event_key, .body = ref(body)};
    c->n++;
    c->bytes += cost(&e);
    c->slots[find_slot(c, event_key)] = (uint32_t)at + 1;
    pthread_mutex_unlock(&c->lock);
}

bool body_cache_get(struct body_cache *c, uint64_t event_key, struct body *ret) {
    pthread_mutex_lock(&c->lock);
    size_t slot = find_slot(c, event_key);
    const struct entry *e = c->slots[slot] ? &c->ring[c->slots[slot] - 1] : NULL;
    if (e)
        *ret = ref(&e->body);
    pthread_mutex_unlock(&c->lock);
    return e != NULL;
}
