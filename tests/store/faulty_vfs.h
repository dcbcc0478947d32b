/* A VFS of SQLite that stands before the system's and makes one chosen change of a file fail: the at-th
 * write, truncation, sync, deletion or creation since it was armed. */
#pragma once

#include <stdbool.h>

enum fault_kind {
    FAULT_NONE,
    FAULT_FULL,     /* writes give SQLITE_FULL; a write leaves half of its bytes */
    FAULT_IO_ERROR, /* SQLITE_IOERR_… */
    FAULT_SYNC,     /* only syncs are counted, and fail with SQLITE_IOERR_FSYNC */
    FAULT_DIE,      /* the process is killed before it */
};

struct fault {
    enum fault_kind what;
    unsigned at; /* counted from 1 */
    bool stays;  /* everything after it fails too, as on a disk that stays full */
};

/* Becomes the default VFS. Once, before the first store is opened. */
void faulty_vfs_install(void);
void faulty_vfs_arm(struct fault f);
bool faulty_vfs_struck(void);
/* Ends the faults; whether one struck. */
bool faulty_vfs_disarm(void);
