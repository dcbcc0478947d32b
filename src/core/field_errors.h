/* What is wrong with a document, field by field: every bad field is told, not only the first. */
#pragma once

#include "base/bytes.h"

enum { FIELD_ERRORS_MAX = 64 };

struct field_error {
    char field[80];
    char message[240];
};

struct field_errors {
    struct field_error at[FIELD_ERRORS_MAX];
    size_t n;
    size_t dropped; /* those past the maximum: the reader has enough to mend */
};

/* How many were added: more than before means that something was wrong, even when none was kept. */
static inline size_t field_errors_count(const struct field_errors *e) {
    return e->n + e->dropped;
}

/* No errors. (Cheaper than zeroing all of it, which matters where every publish does so.) */
static inline void field_errors_init(struct field_errors *e) {
    e->n = e->dropped = 0;
}

/* `field` is a path such as "policy.retry.jitter" or "[3].type". Both texts are cut to their room, at a whole
 * character when they are UTF-8. */
void field_error_add(struct field_errors *e, const char *field, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
