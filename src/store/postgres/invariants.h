/* What must not be in a store on PostgreSQL. */
#pragma once

#include <stddef.h>

/* One such thing: a query that counts the rows that break it, and names one of them: by a text, or as
 * "event/subscription" of a delivery. $1 is the time of the check. */
struct pg_invariant {
    const char *what, *sql;
};
extern const struct pg_invariant pg_invariants[];
extern const size_t pg_invariants_n;
