/* What happened in a seed, line by line, and what of it went wrong. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* A line of the timeline. 0 for what it is not about: a line without a subscription concerns them all. `what`
 * is a static text. */
void note(uint32_t subscription_no, uint64_t event_key, uint32_t number, const char *what);
/* The same with a number that belongs to it, such as a due time or a status. */
void note_value(uint32_t subscription_no, uint64_t event_key, uint32_t number, const char *what,
                int64_t value);

/* An invariant is broken: the first one of a seed is kept, and ends it. */
void violate(uint32_t subscription_no, uint64_t event_key, const char *what);
const char *timeline_violation(void); /* NULL: none was broken */

void timeline_begin(void);
void timeline_clear(void);
/* Prints what concerns the broken thing, or everything, on stderr. */
void timeline_print(bool everything);
