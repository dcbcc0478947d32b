/* A strict scanner for JSON texts (RFC 8259) that finds where values stand without rewriting them: what a
 * payload's bytes were, they stay. For documents that are to be changed or built, use jansson. */
#pragma once

#include "base/bytes.h"

enum json_type {
    JSON_TYPE_OBJECT,
    JSON_TYPE_ARRAY,
    JSON_TYPE_STRING,
    JSON_TYPE_NUMBER,
    JSON_TYPE_TRUE,
    JSON_TYPE_FALSE,
    JSON_TYPE_NULL
};

enum { JSON_DEPTH_MAX = 64 };

/* Where a scan stands. On an error, `problem` says in words what is wrong and json_offset where. */
struct json_cursor {
    const char *begin, *at, *end;
    const char *problem;
    struct json_tape *tape; /* private: json_tape_read */
    int around;             /* private: json_open_around */
};

struct json_member {
    struct slice key;   /* between the quotes, still escaped */
    struct slice value; /* the bytes of the value, without white space around it */
    enum json_type type;
};

struct json_cursor json_open(struct slice text);
/* The same for a document in which others stand, each of up to JSON_DEPTH_MAX levels, with `around` levels
 * around them. */
struct json_cursor json_open_around(struct slice text, int around);

static inline size_t json_offset(const struct json_cursor *c) {
    return (size_t)(c->at - c->begin);
}

/* Validates the next value and steps over it. -EINVAL: not JSON, or nested deeper than JSON_DEPTH_MAX and
 * what the cursor lets be around. */
int json_value(struct json_cursor *c, struct slice *ret_value, enum json_type *ret_type) MUST_USE;

/* Steps over '{' (or '['); -EINVAL when the next value is another. */
int json_enter_object(struct json_cursor *c) MUST_USE;
int json_enter_array(struct json_cursor *c) MUST_USE;
/* 1 with the next member or element, 0 when the object or array has ended, -EINVAL. `first` starts true. */
int json_next_member(struct json_cursor *c, bool *first, struct json_member *ret) MUST_USE;
int json_next_element(struct json_cursor *c, bool *first, struct slice *ret_value,
                      enum json_type *ret_type) MUST_USE;
/* 0 when only white space is left, else -EINVAL. */
int json_finish(struct json_cursor *c) MUST_USE;

/* Whether a member's key, escapes resolved, is `name`. */
bool json_key_is(struct slice key, const char *name);

/* Appends the characters a string value stands for, in UTF-8; `value` includes its quotes and was validated.
 * Unpaired surrogates become U+FFFD. A string with U+0000 in it is refused with -EINVAL: nothing here holds
 * one. */
int json_string_decode(struct slice value, struct buf *out) MUST_USE;

/* How far a string value (in quotes, validated) begins with the plain UTF-8 bytes of `prefix`: 1 when it is
 * `prefix` and no more, 0 when more follows, -1 when it differs. Builds nothing. */
int json_string_compare(struct slice value, struct slice prefix);
bool json_string_ends_with(struct slice value, struct slice suffix);

/* Integer value of a number without fraction or exponent; -EINVAL for others, -ERANGE past 64 bits. */
int json_int(struct slice value, int64_t *ret) MUST_USE;
