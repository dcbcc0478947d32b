/* Slices (borrowed bytes), growable buffers (owned bytes) and refcounted blobs (shared bytes). */
#pragma once

#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/check.h"
#include "base/cleanup.h"

/* Borrowed bytes: not owned, not NUL-terminated. An absent slice has p == NULL. */
struct slice {
    const char *p;
    size_t n;
};

#define SLICE_LIT(s) ((struct slice){(s), sizeof(s) - 1})
#define SLICE_NONE   ((struct slice){NULL, 0})
/* For "%.*s". */
#define SLICE_ARG(s) (int)(s).n, (s).p

static inline struct slice slice_of(const char *s) {
    return (struct slice){s, s ? strlen(s) : 0};
}

static inline bool slice_eq(struct slice a, struct slice b) {
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

bool slice_eq_nocase(struct slice a, struct slice b); /* of ASCII letters, whatever the locale */
bool slice_starts_with(struct slice s, struct slice prefix);

/* Owned NUL-terminated copy; NULL for an absent slice and when memory is out. */
char *slice_dup(struct slice s);

/* A growable buffer. Zero-initialise it; release with buf_free. When memory runs out, or the content would
 * pass `limit` (0: no limit), the buffer becomes `failed`, keeps what it had, and ignores further writes:
 * check buf_ok once at the end. `p` is always NUL-terminated once anything was written. */
struct buf {
    char *p;
    size_t n, cap, limit;
    bool failed;
};

void buf_add(struct buf *b, const void *p, size_t n);
void buf_add_slice(struct buf *b, struct slice s);
void buf_add_str(struct buf *b, const char *s);
void buf_add_char(struct buf *b, char c);
void buf_addf(struct buf *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* A JSON string literal with quotes, escaped as RFC 8259 asks. Invalid UTF-8 becomes U+FFFD. */
void buf_add_json_string(struct buf *b, struct slice s);
void buf_reset(struct buf *b); /* empties, keeps the memory */
void buf_free(struct buf *b);  /* frees and zeroes; NULL-safe through the cleanup */
/* The same for secrets: overwritten before. Grow it once at most, for growing leaves copies behind. */
void buf_wipe(struct buf *b);

static inline bool buf_ok(const struct buf *b) {
    return !b->failed;
}

static inline struct slice buf_slice(const struct buf *b) {
    return (struct slice){b->p ? b->p : "", b->n};
}

#define _cleanup_buf_ _cleanup_(buf_free)

/* free() for secrets: all that was allocated is overwritten before. NULL-safe. */
void wipe_free(void *p);

/* Immutable shared bytes with an atomic reference count. */
struct blob {
    atomic_uint refs;
    size_t n;
    char p[];
};

/* A blob of n uninitialised bytes and one reference, or NULL when memory is out. */
struct blob *blob_new(size_t n);
struct blob *blob_of(struct slice s);
struct blob *blob_ref(struct blob *b);
void blob_unref(struct blob *b); /* NULL-safe */

static inline struct slice blob_slice(const struct blob *b) {
    return (struct slice){b->p, b->n};
}

DEFINE_CLEANUP(cleanup_blob, struct blob, blob_unref)
#define _cleanup_blob_ _cleanup_(cleanup_blob)

/* Lower-case hex of n bytes into out, which holds 2n+1. */
void hex_encode(const void *p, size_t n, char *out);

/* A well-mixed 64-bit hash of bytes, stable across runs and machines (stored on disk). */
uint64_t hash64(const void *p, size_t n);
uint64_t mix64(uint64_t x);
