/* JSON Merge Patch (RFC 7396). */
#pragma once

#include <jansson.h>

/* What `patch` makes of `target` (NULL: of nothing): a new value that the caller owns and that shares nothing
 * with either. NULL when memory is out. Recurses as deep as the patch is nested, which the parser bounds. */
json_t *json_merge_patch(const json_t *target, const json_t *patch);
