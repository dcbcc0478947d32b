/* The query of a URL: decoding, the filters of lists, their pages and cursors. */
#pragma once

#include "core/field_errors.h"

enum { QUERY_LIMIT_DEFAULT = 50, QUERY_LIMIT_MAX = 250 };

/* One parameter that a route knows. */
struct query_param {
    const char *name;
    struct slice value; /* result: decoded, within the query's bytes; absent: p == NULL */
};

/* Decodes %XX in place and, when `form`, '+' as a space. *n shrinks. -EINVAL: a percent sign without two hex
 * digits. */
int percent_decode(char *p, size_t *n, bool form) MUST_USE;

/* Splits "a=b&c=d" and fills the values of params in, decoding in place. Unknown and repeated parameters add
 * to errors. -EINVAL when something cannot be decoded. */
int query_parse(char *query, size_t n, struct query_param *params, size_t params_n,
                struct field_errors *errors) MUST_USE;

/* The readers below take an absent parameter as "no wish", and add to errors for a bad one. */

/* 1…250. */
size_t query_limit(const struct query_param *p, struct field_errors *errors);
/* RFC 3339 as Unix ms; 0 when absent. An offset's plus sign may have come unescaped. */
int64_t query_time(const struct query_param *p, struct field_errors *errors);

/* A cursor is the position of a page's last row, opaque to its reader: the list's letter and up to two
 * numbers. */
enum { CURSOR_PARTS_MAX = 2, CURSOR_TEXT_SIZE = 24 };
void cursor_format(char list, const uint64_t *parts, size_t n, char out[CURSOR_TEXT_SIZE]);
/* Fills n parts in; true when there was a good one. */
bool query_cursor(const struct query_param *p, char list, uint64_t *parts, size_t n,
                  struct field_errors *errors);
