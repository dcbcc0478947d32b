/* Problem documents (RFC 9457) as api.md §1 has them. */
#pragma once

#include "core/field_errors.h"

/* Appends {"type","title","status","detail"} and, when `errors` has entries, "errors". `status` is one that
 * the API answers: another counts as 500. `errors` may be NULL. */
void problem_render(struct buf *out, int status, const char *detail, const struct field_errors *errors);
