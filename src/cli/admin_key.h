/* The first admin key: POSTHORN_ADMIN_KEY, or made on the first start and kept in DATA/admin.key. */
#pragma once

#include "base/bytes.h"

enum { ADMIN_KEY_SIZE = 512 }; /* with NUL */

/* `given` is POSTHORN_ADMIN_KEY or NULL. Otherwise reads DATA/admin.key, or makes it (mode 0600) and sets
 * *ret_made. -EINVAL: the file holds no key of visible ASCII characters; another errno of open, read or
 * write. */
int admin_key_load(const char *data, const char *given, char ret[ADMIN_KEY_SIZE], bool *ret_made) MUST_USE;
