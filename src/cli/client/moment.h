/* Times as people give them. */
#pragma once

#include "base/bytes.h"

/* "90s", "15m", "2h", "7d", "4w" before (future: after) now, or "now", as RFC 3339; any other text as it is,
 * for the server judges it. */
void moment_add(struct buf *out, const char *text, bool future, int64_t now);
