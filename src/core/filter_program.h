/* Internal to filter.c and filter_compile.c: the compiled form. A tree, flattened: each op is followed by its
 * children, and names the op behind the last of them. */
#pragma once

#include "core/decimal.h"
#include "core/filter.h"

enum filter_kind {
    /* patterns: judged over a value with members */
    FILTER_ALL, /* of its children */
    FILTER_ANY,
    FILTER_NOT,
    FILTER_MEMBER, /* `text` is its name, its one child a pattern or a FILTER_LIST */
    /* over the value of a member */
    FILTER_LIST, /* any of its children */
    FILTER_EXISTS,
    FILTER_ABSENT,
    FILTER_BUT, /* none of its children */
    /* over one value that is no array */
    FILTER_EQUAL, /* strings */
    FILTER_PREFIX,
    FILTER_SUFFIX,
    FILTER_NUMERIC, /* all of its children, which are FILTER_COMPARE */
    FILTER_COMPARE, /* numbers */
    FILTER_TRUE,
    FILTER_FALSE,
    FILTER_NULL,
};

enum filter_comparison { FILTER_LT = 1, FILTER_EQ = 2, FILTER_GT = 4 }; /* bits: ≤ is LT | EQ */

struct filter_op {
    uint32_t next;
    uint32_t text, text_n; /* in the pool: a name, a string, or a number's digits */
    int32_t exponent;      /* of a number */
    uint8_t kind;
    uint8_t comparison;
    bool negative; /* a number */
    uint8_t zero;
};

struct filter {
    atomic_uint refs;
    uint32_t ops_n, pool_n;
    struct filter_op ops[]; /* then the pool; ops[0] is the whole pattern */
};

static inline const char *filter_pool(const struct filter *f) {
    return (const char *)(f->ops + f->ops_n);
}

static inline struct slice filter_text(const struct filter *f, const struct filter_op *op) {
    return (struct slice){filter_pool(f) + op->text, op->text_n};
}
