/* A page of a list whose rows are written straight into the answer, so that no row is held twice. */
#pragma once

#include "api/request.h"

enum { LIST_BYTES_MAX = 8 * 1024 * 1024 }; /* a page ends early past this; its next_cursor goes on */

struct list {
    struct request *r;
    char letter;  /* the cursor's */
    size_t parts; /* of a position: 1 or 2 */
    size_t limit, n;
    bool more;
    uint64_t last[CURSOR_PARTS_MAX]; /* position of the last row */
};

/* Begins the answer {"data":[. Ask the store for limit + 1 rows, to learn whether there are more. */
void list_begin(struct list *l, struct request *r, char letter, size_t limit, size_t parts);
/* Before the row with this position is written to r->out. false: the page is full; stop. */
bool list_next(struct list *l, uint64_t first, uint64_t second);
/* The page ends early, after what stands at this position, which was looked at and need not be on it. */
void list_stop(struct list *l, uint64_t first, uint64_t second);
/* Ends the answer with its next_cursor. */
void list_end(struct list *l);
