/* JSON Merge Patch (RFC 7396). */
#pragma once

#include <jansson.h>

/* What `patch` makes of `target` (NULL: of nothing): a new value that the caller owns and that shares nothing
 * with either. NULL when memory is out. Recurses as deep as the patch is nested, which the parser bounds. */
json_t *json_merge_patch(const json_t *target, const json_t *patch);

/* Puts the members that `patch` sets to null back into `merged` as null, but for those of the n names `but`:
 * what reads `merged` then sees the names that it does not know, which the merge drops in silence. Of what is
 * no object nothing is done. -ENOMEM. */
int json_keep_nulls(json_t *merged, const json_t *patch, const char *const *but, size_t n);
