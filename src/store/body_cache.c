#include "store/body_cache.h"

#include <errno.h>
#include <pthread.h>
#include <uthash.h>
#include <utlist.h>

struct entry {
    uint64_t event_key;
    uint32_t data_size;
    struct blob *envelope;
    struct entry *prev, *next; /* by age */
    UT_hash_handle hh;
};

struct body_cache {
    pthread_mutex_t lock;
    struct entry *by_key, *oldest;
    size_t bytes, bytes_max;
};

int body_cache_new(size_t bytes_max, struct body_cache **ret) {
    struct body_cache *c = calloc(1, sizeof *c);
    if (!c)
        return -ENOMEM;
    pthread_mutex_init(&c->lock, NULL);
    c->bytes_max = bytes_max;
    *ret = c;
    return 0;
}

static size_t cost(const struct entry *e) {
    return sizeof *e + sizeof *e->envelope + e->envelope->n;
}

static void drop(struct body_cache *c, struct entry *e) {
    HASH_DEL(c->by_key, e);
    DL_DELETE(c->oldest, e);
    c->bytes -= cost(e);
    blob_unref(e->envelope);
    free(e);
}

void body_cache_free(struct body_cache *c) {
    if (!c)
        return;
    while (c->oldest)
        drop(c, c->oldest);
    pthread_mutex_destroy(&c->lock);
    free(c);
}

void body_cache_put(struct body_cache *c, uint64_t event_key, struct blob *envelope, uint32_t data_size) {
    struct entry *e = malloc(sizeof *e);
    if (!e)
        return;
    *e = (struct entry){.event_key = event_key, .data_size = data_size, .envelope = blob_ref(envelope)};
    pthread_mutex_lock(&c->lock);
    struct entry *known;
    HASH_FIND(hh, c->by_key, &event_key, sizeof event_key, known);
    if (known)
        drop(c, known);
    HASH_ADD(hh, c->by_key, event_key, sizeof e->event_key, e);
    DL_APPEND(c->oldest, e);
    c->bytes += cost(e);
    while (c->bytes > c->bytes_max)
        drop(c, c->oldest);
    pthread_mutex_unlock(&c->lock);
}

bool body_cache_get(struct body_cache *c, uint64_t event_key, struct body *ret) {
    pthread_mutex_lock(&c->lock);
    struct entry *e;
    HASH_FIND(hh, c->by_key, &event_key, sizeof event_key, e);
    if (e)
        *ret = (struct body){.envelope = blob_ref(e->envelope), .data_size = e->data_size};
    pthread_mutex_unlock(&c->lock);
    return e != NULL;
}
