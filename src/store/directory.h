/* What every thread needs to know of tenants and API keys, in memory: who a key belongs to, and what holds
 * for a tenant. Loaded at start, kept current by whoever commits a change; safe from all threads. */
#pragma once

#include "store/store.h"

struct directory;

struct api_key {
    struct id id;
    uint32_t tenant_no; /* 0: every tenant */
    uint32_t scopes;
    int64_t expires_at; /* Unix ms; 0: never */
};

int directory_new(struct directory **ret) MUST_USE;
void directory_free(struct directory *d); /* NULL-safe */

/* Reads all tenants, and all keys that are not revoked. */
int directory_load(struct directory *d, struct store_reader *r) MUST_USE;

/* Adds or replaces. The quota of a tenant that was known goes on from where it stood. */
int directory_put_tenant(struct directory *d, const struct tenant *t) MUST_USE;
void directory_remove_tenant(struct directory *d, uint32_t no); /* its keys too; idempotent */
/* true with a copy in ret. */
bool directory_tenant(struct directory *d, struct slice id, struct tenant *ret);
bool directory_tenant_by_no(struct directory *d, uint32_t no, struct tenant *ret);
/* The tenant with the least number above after_no: for a walk over all of them. */
bool directory_tenant_after(struct directory *d, uint32_t after_no, struct tenant *ret);

/* By SHA-256 of the key's text. A hash that is known already keeps its key. */
int directory_put_key(struct directory *d, const uint8_t hash[32], const struct api_key *k) MUST_USE;
void directory_remove_key(struct directory *d, struct id id); /* idempotent */
/* true with a copy in ret; expiry is the caller's to judge. */
bool directory_key(struct directory *d, const uint8_t hash[32], struct api_key *ret);

/* Takes n events out of the tenant's token bucket (events_per_second, burst the greater of 1,000 and that; of
 * both this process's share),
 * or none and false with the seconds (≥ 1) after which they will be there. `now_us` is of the monotonic
 * clock. An n above the burst waits for a full bucket. */
bool directory_take_events(struct directory *d, uint32_t tenant_no, unsigned n, int64_t now_us,
                           unsigned *ret_wait_seconds);

/* Calls fn for each tenant with a quota, and events asked for since the last call, those refused too. The
 * directory is locked. */
void directory_take_asked(struct directory *d,
                          void (*fn)(void *arg, uint32_t tenant_no, uint32_t quota, uint64_t asked),
                          void *arg);
/* The part of the tenant's quota that is this process's, 0…1; all of it unless said. */
void directory_share_quota(struct directory *d, uint32_t tenant_no, double share);

/* What a stored tenant's document says. -EINVAL when it does not parse, -ENOMEM. */
int tenant_of_record(const struct tenant_record *record, struct tenant *ret) MUST_USE;
