/* Answers as people read them: tables and records. Pure. */
#pragma once

#include "cli/client/verb.h"

enum { SHOW_COLUMNS_MAX = 12 };

/* Column widths, kept from page to page. Zero-initialise it. */
struct table {
    const struct column *columns;
    size_t columns_n;
    size_t widths[SHOW_COLUMNS_MAX];
    bool titled; /* the titles were written */
};

/* The objects of a JSON array, a line each, with titles before the first. -EINVAL: not such an array; nothing
 * was appended. */
int show_rows(struct table *t, struct slice array, bool colours, struct buf *out) MUST_USE;
/* One object as a line of an open table. */
void show_row(const struct table *t, struct slice object, bool colours, struct buf *out);
void show_titles(struct table *t, bool colours, struct buf *out);

/* A record: a line for each member, those of nested objects as "policy.timeout_ms"; then the sections of the
 * view. -EINVAL: not an object. */
int show_record(const struct view *v, struct slice object, bool colours, struct buf *out) MUST_USE;
