/* Reading a user's JSON document member by member into its normal form: bounds are checked, defaults filled
 * in, and everything that is wrong is told by its path. Absent and null members are the same: they ask for
 * the default. Every function goes on after an error, so that all of them are found. */
#pragma once

#include <jansson.h>

#include "core/field_errors.h"

struct doc {
    const json_t *from; /* the object read; NULL when there is none, or no object */
    json_t *to;         /* the normal form, in the order of the calls */
    struct field_errors *errors;
    size_t errors_before;
    bool sparse;   /* absent members stay absent in `to` */
    char path[64]; /* what precedes a member's name in an error: "policy.retry." */
};

/* Begins a document; one that is no object is an error of the field "body". End with doc_end. */
void doc_begin(struct doc *d, const json_t *from, bool sparse, struct field_errors *errors);
/* The normal form (the caller owns it), or NULL when there were errors; without entries in `errors` NULL
 * means that memory is out. */
json_t *doc_end(struct doc *d);

/* The same for an object within: what it holds becomes the member `name` of `parent`. */
void doc_enter(struct doc *d, struct doc *parent, const char *name);
void doc_leave(struct doc *d, struct doc *parent, const char *name);

/* Whether an error was added since it began. */
bool doc_failed(const struct doc *d);

/* The member, or NULL when it is absent or null. */
const json_t *doc_get(const struct doc *d, const char *name);
/* `name` may be a path within: "retry_on[3]". */
void doc_error(struct doc *d, const char *name, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Every member whose name is not among these n is an error. */
void doc_refuse_unknown(struct doc *d, const char *const *names, size_t n);
/* Adds a member to the normal form, taking `value` over. NULL: memory was out. */
void doc_put(struct doc *d, const char *name, json_t *value);

/* Each reads one member, puts it, and returns its value, or the default when it is absent or wrong. */
int64_t doc_int(struct doc *d, const char *name, int64_t least, int64_t most, int64_t fallback);
double doc_real(struct doc *d, const char *name, double least, double most, double fallback);
bool doc_bool(struct doc *d, const char *name, bool fallback);
/* A string of up to `most` bytes; borrowed from the document. */
const char *doc_text(struct doc *d, const char *name, size_t most, const char *fallback);
/* One of n words; returns its position. */
size_t doc_word(struct doc *d, const char *name, const char *const *words, size_t n, size_t fallback);

/* The bytes of a JSON string; absent when `value` is none, or holds a NUL. */
struct slice doc_string(const json_t *value);
