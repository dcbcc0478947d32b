/* Ids: a prefix and 26 characters of Crockford base32 holding a UUIDv7 (RFC 9562).
 *
 * The first 60 bits that a UUIDv7 leaves free of version bits (48 of Unix milliseconds, 12 of counter) form
 * the `key`: unique and ascending within a store, so it serves as primary key and as publish sequence; the
 * `tail` are the other 62 bits. A delivery's id is computed from its event and subscription: one value per
 * pair by construction, whatever crashes or runs twice. */
#pragma once

#include "base/bytes.h"

struct id {
    uint64_t key;  /* 60 bits: milliseconds << 12 | counter */
    uint64_t tail; /* 62 bits */
};

/* The order is part of no format; prefixes are in id.c. */
enum id_kind { ID_EVENT, ID_SUBSCRIPTION, ID_DELIVERY, ID_ATTEMPT, ID_SECRET, ID_REPLAY, ID_KEY };

enum { ID_TEXT_SIZE = 31 }; /* "evt_" + 26 characters + NUL */

#define ID_KEY_MAX  ((UINT64_C(1) << 60) - 1)
#define ID_TAIL_MAX ((UINT64_C(1) << 62) - 1)

void id_format(enum id_kind kind, struct id id, char out[ID_TEXT_SIZE]);
/* Accepts lower case and Crockford's look-alikes. -EINVAL for another prefix, length, character, version or
 * variant. */
int id_parse(enum id_kind kind, struct slice s, struct id *ret) MUST_USE;

static inline bool id_eq(struct id a, struct id b) {
    return a.key == b.key && a.tail == b.tail;
}

static inline int64_t id_ms(struct id id) {
    return (int64_t)(id.key >> 12);
}

static inline uint64_t id_key_at(int64_t ms) {
    return ms <= 0 ? 0 : (uint64_t)ms << 12;
}

/* Hands out ascending keys; shared by all threads. When the clock stands or goes back, the counter runs on.
 * Zero-initialised it is a store's only source. Of the nodes on a shared store each has a slot, the low bits
 * of the keys it hands out, so that no two of them hand out the same. */
struct id_source {
    atomic_uint_fast64_t last;
    uint32_t slot;
    uint32_t slots; /* a power of two up to ID_SLOTS_MAX; 0: one */
};

enum { ID_SLOTS_MAX = 64 };

/* Before the source is used. */
void id_source_set_slot(struct id_source *s, uint32_t slot, uint32_t slots);
/* Makes every later key greater than `key`: call at start with the greatest key stored. */
void id_source_raise(struct id_source *s, uint64_t key);
/* From one key of a source to the next of those taken together. */
static inline uint32_t id_source_step(const struct id_source *s) {
    return s->slots ? s->slots : 1;
}
/* n keys, id_source_step apart, all greater than any handed out before; returns the first. `now_ms` is Unix
 * milliseconds. */
uint64_t id_source_take(struct id_source *s, int64_t now_ms, unsigned n);
/* One new id; `random` becomes its tail. */
struct id id_source_next(struct id_source *s, int64_t now_ms, uint64_t random);

/* The delivery of an event to the subscription with this number (unique in the store, 1…2^32-1), and back.
 * The remaining 30 bits are a check over both, so that a guessed id does not parse: -EINVAL. */
struct id id_of_delivery(uint64_t event_key, uint32_t subscription_no);
int id_delivery_parts(struct id id, uint64_t *ret_event_key, uint32_t *ret_subscription_no) MUST_USE;

/* An attempt's id: computed from what its row is named by and when it began, so that it needs no column. */
struct id id_of_attempt(uint64_t event_key, uint32_t subscription_no, uint32_t number, int64_t started_at);

/* As stores keep them: key and tail, 8 bytes each, big-endian. Stored. */
enum { ID_PACKED_SIZE = 16 };
void ids_pack(const struct id *ids, size_t n, struct buf *out);
/* Up to max of them; how many. */
size_t ids_unpack(struct slice packed, struct id *ret, size_t max);
