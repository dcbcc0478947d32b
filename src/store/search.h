/* Searching the deliveries, newest first: what every store does alike.
 *
 * A page begins and ends within a span of (event, subscription); every filter on time, event and cursor only
 * narrows the span. A store walks through it along the index that the filters choose, looking at a delivery's
 * own columns alone; only what is wanted is read whole. Each step costs of a budget, and a page that has used
 * it up ends where it is: nobody's question makes a store look at more. */
#pragma once

#include "store/store.h"

enum {
    SEARCH_BUDGET = 5000,      /* of a page: rows that lie together cost 1 each */
    SEARCH_SCATTERED = 5,      /* what a row costs that lies on a page of its own */
    SEARCH_SORTED_MAX = 10000, /* so many failing deliveries of one subscription are sorted for a page */
};

/* Past every subscription. */
#define SPAN_ALL_OF_EVENT (INT64_C(1) << 32)

/* Deliveries from first_event on that come before (event, subscription); subscription is at least 2, for of
 * an event nothing comes before the first. */
struct span {
    int64_t first_event, event, subscription;
};

/* What the query's times, event and cursor leave. */
struct span span_of(const struct delivery_query *q);
/* The span's part before (event, subscription); a subscription of 0 or 1: before all of the event. */
struct span span_before(const struct span *s, int64_t event, int64_t subscription);
/* Cuts off what is of this event, or of a later one. */
void span_end_at(struct span *s, uint64_t event);
bool span_has(const struct span *s, uint64_t event_key, uint32_t subscription_no);

/* How much a page may cost. */
int search_budget(const struct delivery_query *q);

/* What filters ask of a delivery's own columns. */
struct search_columns {
    int64_t subscription, state, status, error, reason;
};
bool search_matches(const struct delivery_query *q, const struct search_columns *d);
/* What they ask of its event. */
bool search_matches_event(const struct delivery_query *q, const struct delivery_row *row);

/* Whether deliveries of this state (-1: of any) are those of which an attempt has failed. */
bool search_is_failed_state(int state);
/* Where the next page begins: behind what was looked at last; subscription 0: an event without deliveries. */
struct delivery_stop search_stop(int64_t event, int64_t subscription);
