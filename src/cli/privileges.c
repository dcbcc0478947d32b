#include "cli/privileges.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>

int account_find(const char *name, struct account *ret) {
    char room[16384];
    struct passwd entry, *found = NULL;
    int r = getpwnam_r(name, &entry, room, sizeof room, &found);
    if (r != 0)
        return -r;
    if (!found)
        return -ENOENT;
    if (entry.pw_uid == 0 || entry.pw_gid == 0 || strlen(name) >= sizeof ret->name)
        return -EINVAL;
    *ret = (struct account){.uid = entry.pw_uid, .gid = entry.pw_gid};
    snprintf(ret->name, sizeof ret->name, "%s", name);
    return 0;
}

int privileges_drop(const struct account *a) {
    if (geteuid() != 0)
        return geteuid() == a->uid && getuid() == a->uid ? 0 : -EPERM;
    if (initgroups(a->name, a->gid) < 0 || setresgid(a->gid, a->gid, a->gid) < 0 ||
        setresuid(a->uid, a->uid, a->uid) < 0)
        return -errno;
    /* What was given up must be gone. */
    CHECK(setuid(0) < 0 && geteuid() == a->uid && getegid() == a->gid);
    return 0;
}
