/* A page of a list, newest first, while it is filled: of the control plane, whose rows are documents. Pages
 * of events and deliveries, which may be large, are written by list.h. */
#pragma once

#include "api/request.h"

/* Ask the store for limit + 1 rows before `before`. */
struct page {
    char list; /* the cursor's letter */
    size_t limit;
    uint64_t before; /* position of the last row of the page before; 0: from the newest */
    uint64_t last;
    bool more;
    json_t *data;
};

/* Reads ?limit, ?cursor and the filters. Adds what is wrong to errors; false: the query cannot be decoded
 * (answered 400), or memory is out. End with page_answer or page_drop. */
enum { PAGE_FILTERS_MAX = 4 };
bool page_begin(struct request *r, char list, struct query_param *filters, size_t n,
                struct field_errors *errors, struct page *ret);
/* Once the filters were judged, too: this thread's reader of the store. NULL after having answered (422 when
 * there are errors, 503) and dropped the page. */
struct store_reader *page_reader(struct request *r, struct page *p, const struct field_errors *errors);
/* Takes the row over. 0; 1: the page is full, stop; -ENOMEM, also for a row that is NULL. */
int page_add(struct page *p, uint64_t position, json_t *row);
/* Answers 200 with the page, or 503 when `result` is negative. */
void page_answer(struct request *r, struct page *p, int result);
void page_drop(struct page *p);
