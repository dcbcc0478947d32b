/* From root to a user without privileges. */
#pragma once

#include "base/bytes.h"

struct account {
    unsigned uid, gid;
    char name[64];
};

/* The account of this name. -ENOENT; -EINVAL: it is root's, or the name is too long. */
int account_find(const char *name, struct account *ret) MUST_USE;

/* All threads become this account, with its groups and no way back. 0 also when the process is this account
 * already. -EPERM: it is neither root nor this account. */
int privileges_drop(const struct account *a) MUST_USE;
