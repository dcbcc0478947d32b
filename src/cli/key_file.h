/* Small files that hold keys, of mode 0600. */
#pragma once

#include "base/bytes.h"

enum { KEY_FILE_BYTES_MAX = 4096 };

/* The whole file, added to `ret`, which is wiped on failure; the caller wipes it otherwise. A negative errno
 * of open or read; -EFBIG. *ret_open_to_others: its mode lets others read it. */
int key_file_read(const char *path, struct buf *ret, bool *ret_open_to_others) MUST_USE;

/* Makes path with one line, durable and whole or not at all. -EEXIST when it is there. */
int key_file_make(const char *path, const char *line) MUST_USE;
