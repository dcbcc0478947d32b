#include "faulty_vfs.h"

#include <signal.h>
#include <sqlite3.h>
#include <string.h>

#include "base/check.h"

/* The system's VFS and what it needs of a file handle; ours holds one behind its own head. */
static sqlite3_vfs *below, shim;

struct file {
    sqlite3_file head;
    sqlite3_file *real; /* behind this struct */
};

static struct fault armed;
static unsigned counted;
static bool struck;

static sqlite3_file *real_of(sqlite3_file *f) {
    return ((struct file *)f)->real;
}

/* Whether this change is to fail. */
static bool strikes(bool is_sync) {
    if (armed.what == FAULT_NONE || (armed.what == FAULT_SYNC && !is_sync))
        return false;
    counted++;
    bool now = counted == armed.at || (armed.stays && counted > armed.at);
    if (now && armed.what == FAULT_DIE)
        raise(SIGKILL);
    struck |= now;
    return now;
}

static int error_of(int io_error) {
    return armed.what == FAULT_FULL ? SQLITE_FULL : io_error;
}

/* ---- files: what changes one may fail, the rest is handed down ---- */

static int file_close(sqlite3_file *f) {
    return real_of(f)->pMethods->xClose(real_of(f));
}

static int file_read(sqlite3_file *f, void *to, int n, sqlite3_int64 at) {
    return real_of(f)->pMethods->xRead(real_of(f), to, n, at);
}

static int file_write(sqlite3_file *f, const void *from, int n, sqlite3_int64 at) {
    if (strikes(false)) {
        /* A disk that fills up takes the first part. */
        if (armed.what == FAULT_FULL)
            (void)real_of(f)->pMethods->xWrite(real_of(f), from, n / 2, at);
        return error_of(SQLITE_IOERR_WRITE);
    }
    return real_of(f)->pMethods->xWrite(real_of(f), from, n, at);
}

static int file_truncate(sqlite3_file *f, sqlite3_int64 size) {
    if (strikes(false))
        return SQLITE_IOERR_TRUNCATE;
    return real_of(f)->pMethods->xTruncate(real_of(f), size);
}

static int file_sync(sqlite3_file *f, int flags) {
    /* The disk's being full or broken shows in a write; a sync that fails is a fault of its own. */
    if (armed.what != FAULT_FULL && armed.what != FAULT_IO_ERROR && strikes(true))
        return SQLITE_IOERR_FSYNC;
    return real_of(f)->pMethods->xSync(real_of(f), flags);
}

static int file_size(sqlite3_file *f, sqlite3_int64 *size) {
    return real_of(f)->pMethods->xFileSize(real_of(f), size);
}

static int file_lock(sqlite3_file *f, int level) {
    return real_of(f)->pMethods->xLock(real_of(f), level);
}

static int file_unlock(sqlite3_file *f, int level) {
    return real_of(f)->pMethods->xUnlock(real_of(f), level);
}

static int file_check_lock(sqlite3_file *f, int *result) {
    return real_of(f)->pMethods->xCheckReservedLock(real_of(f), result);
}

static int file_control(sqlite3_file *f, int op, void *arg) {
    return real_of(f)->pMethods->xFileControl(real_of(f), op, arg);
}

static int file_sector_size(sqlite3_file *f) {
    return real_of(f)->pMethods->xSectorSize(real_of(f));
}

static int file_characteristics(sqlite3_file *f) {
    return real_of(f)->pMethods->xDeviceCharacteristics(real_of(f));
}

static int file_shm_map(sqlite3_file *f, int page, int size, int extend, void volatile **to) {
    return real_of(f)->pMethods->xShmMap(real_of(f), page, size, extend, to);
}

static int file_shm_lock(sqlite3_file *f, int offset, int n, int flags) {
    return real_of(f)->pMethods->xShmLock(real_of(f), offset, n, flags);
}

static void file_shm_barrier(sqlite3_file *f) {
    real_of(f)->pMethods->xShmBarrier(real_of(f));
}

static int file_shm_unmap(sqlite3_file *f, int delete) {
    return real_of(f)->pMethods->xShmUnmap(real_of(f), delete);
}

/* Version 2: without memory-mapped reads and writes, which would pass the faults by. */
static const sqlite3_io_methods methods = {
    .iVersion = 2,
    .xClose = file_close,
    .xRead = file_read,
    .xWrite = file_write,
    .xTruncate = file_truncate,
    .xSync = file_sync,
    .xFileSize = file_size,
    .xLock = file_lock,
    .xUnlock = file_unlock,
    .xCheckReservedLock = file_check_lock,
    .xFileControl = file_control,
    .xSectorSize = file_sector_size,
    .xDeviceCharacteristics = file_characteristics,
    .xShmMap = file_shm_map,
    .xShmLock = file_shm_lock,
    .xShmBarrier = file_shm_barrier,
    .xShmUnmap = file_shm_unmap,
};

/* ---- the VFS ---- */

static int vfs_open(sqlite3_vfs *v, const char *name, sqlite3_file *f, int flags, int *ret_flags) {
    (void)v;
    struct file *mine = (struct file *)f;
    int exists = 1;
    mine->head.pMethods = NULL;
    mine->real = (sqlite3_file *)(mine + 1);
    if (name && flags & SQLITE_OPEN_CREATE)
        (void)below->xAccess(below, name, SQLITE_ACCESS_EXISTS, &exists);
    if (!exists && strikes(false))
        return error_of(SQLITE_CANTOPEN);
    int rc = below->xOpen(below, name, mine->real, flags, ret_flags);
    if (mine->real->pMethods)
        mine->head.pMethods = &methods;
    return rc;
}

static int vfs_delete(sqlite3_vfs *v, const char *name, int sync_folder) {
    (void)v;
    if (strikes(false))
        return SQLITE_IOERR_DELETE;
    return below->xDelete(below, name, sync_folder);
}

void faulty_vfs_install(void) {
    CHECK(!below);
    below = sqlite3_vfs_find(NULL);
    CHECK(below);
    /* Whatever else it offers works on names alone, or on itself, which pAppData and pVfs do not change. */
    shim = *below;
    shim.zName = "faulty";
    shim.szOsFile = (int)sizeof(struct file) + below->szOsFile;
    shim.pNext = NULL;
    shim.xOpen = vfs_open;
    shim.xDelete = vfs_delete;
    CHECK(sqlite3_vfs_register(&shim, 1) == SQLITE_OK);
}

void faulty_vfs_arm(struct fault f) {
    armed = f;
    counted = 0;
    struck = false;
}

bool faulty_vfs_struck(void) {
    return struck;
}

bool faulty_vfs_disarm(void) {
    armed.what = FAULT_NONE;
    return struck;
}
