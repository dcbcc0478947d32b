/* "Did you mean …": the known word nearest to one that is not known. */
#pragma once

#include "base/bytes.h"

enum { NEAREST_LENGTH_MAX = 127 }; /* bytes compared of a word; the rest is ignored */

/* How many letters must be inserted, deleted, changed or swapped with their neighbour to make one word the
 * other (optimal string alignment distance). */
size_t edit_distance(struct slice a, struct slice b);

/* The first of the nearest; n must be at least 1. */
const char *nearest_word(struct slice word, const char *const *known, size_t n);
