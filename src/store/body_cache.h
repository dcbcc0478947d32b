/* The bodies of recent events, shared by all threads, so that what was just published is not read back from
 * the store. Bounded in bytes; the oldest leave first. */
#pragma once

#include "base/bytes.h"

struct body_cache;

struct body {
    struct blob *envelope; /* one reference, the caller's */
    struct blob *trace;    /* likewise, or NULL: core/trace.h */
    uint32_t data_size;
};

int body_cache_new(size_t bytes_max, struct body_cache **ret) MUST_USE;
void body_cache_free(struct body_cache *c);
/* Keeps references of its own, unless the body is larger than all the cache. An event that is known keeps its
 * place. */
void body_cache_put(struct body_cache *c, uint64_t event_key, const struct body *body);
/* true with references in ret. */
bool body_cache_get(struct body_cache *c, uint64_t event_key, struct body *ret);
