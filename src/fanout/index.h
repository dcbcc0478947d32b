/* Which subscriptions an event type goes to: for each tenant and listed name or prefix, the ascending numbers
 * of the subscriptions that name it. In memory, on the writer's thread alone. */
#pragma once

#include "core/subscription.h"

struct index;

int index_new(struct index **ret) MUST_USE;
void index_free(struct index *x);

/* Adds or replaces; takes its own reference. Those that match nothing (disabled) are kept for index_get. */
int index_put(struct index *x, struct subscription *s) MUST_USE;
void index_remove(struct index *x, uint32_t no);
struct subscription *index_get(const struct index *x, uint32_t no); /* borrowed; NULL when unknown */
/* The greatest number ever put. */
uint32_t index_upper(const struct index *x);

/* A walk over the subscriptions that match an event, ascending, each once. */
enum { INDEX_LISTS_MAX = 66 }; /* exact name, all, and a prefix for each dot of a type of at most 128 */
enum { INDEX_DOTS_MAX = 64 };
struct index_walk {
    const struct index *index;
    const struct number_list *lists[INDEX_LISTS_MAX];
    size_t at[INDEX_LISTS_MAX];
    size_t n;
};

/* Starts after `cursor`. Any change of the index ends the walk. */
void index_match(const struct index *x, uint32_t tenant_no, struct slice type, uint32_t cursor,
                 struct index_walk *ret);
/* At least as many as will come; costs nothing. */
size_t index_walk_bound(const struct index_walk *w);
struct subscription *index_walk_next(struct index_walk *w); /* borrowed; NULL at the end */
