/* A JSON text read once, to be looked into many times: a flat list of where its values stand, in the order of
 * the text. Nothing is decoded, and nothing points into the text: with the same bytes elsewhere it still
 * holds. */
#pragma once

#include "base/json.h"

/* A value, or the name of a member, which its value follows. */
struct json_node {
    uint32_t start, n; /* its bytes in the text, quotes and brackets included */
    uint32_t next;     /* the node behind it and all that is in it */
    uint8_t type;      /* enum json_type; a name is a string */
    bool escaped;      /* a string with a backslash in it */
};

/* Zero-initialise it; node 0 is the whole value. */
struct json_tape {
    struct json_node *nodes;
    size_t n, cap;
};

/* Reads one whole JSON value; the memory of an earlier one is used again. -EINVAL: it is none, or nested
 * deeper than JSON_DEPTH_MAX; -E2BIG: 4 GiB or more; -ENOMEM. The tape is empty then. */
int json_tape_read(struct json_tape *t, struct slice text) MUST_USE;
void json_tape_free(struct json_tape *t); /* frees and zeroes */

/* The bytes of a node. `text` begins where the text begins that was read. */
static inline struct slice json_node_text(const struct json_node *node, const char *text) {
    return (struct slice){text + node->start, node->n};
}

/* -1, 0 or 1 as json_string_compare; without the walk when nothing is escaped. */
int json_node_compare(const struct json_node *node, const char *text, struct slice prefix);
