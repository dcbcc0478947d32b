/* What a command reads: a file, or standard input. */
#pragma once

#include "base/bytes.h"

/* Appends all of `path` to out; "-" or NULL is standard input. -EINVAL: a line is added to problems that says
 * why it cannot be read, or that it is longer than limit bytes. */
int input_read(const char *path, size_t limit, struct buf *out, struct buf *problems) MUST_USE;
