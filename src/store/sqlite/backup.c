/* A store copied as a whole, and a copy put in its place. */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "store/schema/schema.h"
#include "store/sqlite/sqlite.h"

enum { PAGES_A_STEP = 1024 };

static int out_of_memory(const char **ret_message) {
    return store_explain(-ENOMEM, ret_message, "memory is out");
}

/* ---- files ---- */

static int add_suffix(struct buf *out, const char *path, const char *suffix, const char **ret_message) {
    buf_addf(out, "%s%s", path, suffix);
    return buf_ok(out) ? 0 : out_of_memory(ret_message);
}

static int sync_path(const char *path, int flags) {
    _cleanup_close_ int fd = open(path, flags | O_CLOEXEC);
    return fd < 0 || fsync(fd) < 0 ? -errno : 0;
}

static int sync_folder_of(const char *path) {
    _cleanup_free_ char *copy = strdup(path);
    return copy ? sync_path(dirname(copy), O_RDONLY | O_DIRECTORY) : -ENOMEM;
}

/* Durable under its final name: afterwards it is all there, before nothing is. */
static int put_in_place(const char *made, const char *path, const char **ret_message) {
    int r = sync_path(made, O_RDONLY);
    if (r == 0 && rename(made, path) < 0)
        r = -errno;
    if (r == 0)
        r = sync_folder_of(path);
    return r < 0 ? explain_errno(r, path, ret_message) : 0;
}

/* ---- copying ---- */

/* Opens a store to read it, in the state of this moment until the connection is closed. */
static int open_snapshot(struct connection *c, const char *path, const char **ret_message) {
    struct stat st;
    int64_t ignored;
    if (stat(path, &st) < 0)
        return store_explain(-errno, ret_message, "%s cannot be read: %s", path, strerror(errno));
    int r = connection_open(c, path, false);
    if (r == 0)
        r = statement_run(c, connection_prepare(c, "BEGIN"));
    if (r == 0)
        r = read_number(c, "SELECT count(*) FROM sqlite_schema", &ignored);
    if (r == 0)
        return 0;
    bool damaged =
        r == -EUCLEAN ||
        (c->db && (sqlite3_errcode(c->db) == SQLITE_CORRUPT || sqlite3_errcode(c->db) == SQLITE_NOTADB));
    connection_close(c);
    return explain_errno(damaged ? -EUCLEAN : r, path, ret_message);
}

static int copy_pages(sqlite3_backup *b, store_progress_fn progress, void *arg) {
    int rc = SQLITE_OK;
    while (rc == SQLITE_OK) {
        rc = sqlite3_backup_step(b, PAGES_A_STEP);
        int total = sqlite3_backup_pagecount(b);
        if (progress && (rc == SQLITE_OK || rc == SQLITE_DONE))
            progress(arg, (uint64_t)(total - sqlite3_backup_remaining(b)), (uint64_t)total);
    }
    return rc == SQLITE_DONE ? SQLITE_OK : rc;
}

/* One file, that needs no log beside it. */
static int make_self_contained(sqlite3 *to) {
    sqlite3_stmt *st = NULL;
    bool done = sqlite3_prepare_v2(to, "PRAGMA journal_mode=DELETE", -1, &st, NULL) == SQLITE_OK &&
                sqlite3_step(st) == SQLITE_ROW && slice_eq(column_slice(st, 0), SLICE_LIT("delete"));
    /* It is committed only now. */
    done = sqlite3_finalize(st) == SQLITE_OK && done;
    return done ? 0 : -EIO;
}

/* Into a file that is there and empty. Not durable yet. */
static int copy_store(struct connection *from, const char *path, store_progress_fn progress, void *arg,
                      const char **ret_message) {
    sqlite3 *to = NULL;
    int rc = sqlite3_open_v2(path, &to, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_exec(to, "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA mmap_size=0", NULL,
                          NULL, NULL);
    sqlite3_backup *b = rc == SQLITE_OK ? sqlite3_backup_init(to, "main", from->db, "main") : NULL;
    if (b) {
        rc = copy_pages(b, progress, arg);
        int end = sqlite3_backup_finish(b);
        rc = rc == SQLITE_OK ? end : rc;
    } else if (rc == SQLITE_OK) {
        rc = sqlite3_errcode(to);
    }
    int r = rc == SQLITE_OK ? make_self_contained(to) : sqlite_errno(to, rc);
    sqlite3_close(to);
    return r < 0 ? explain_errno(r, path, ret_message) : 0;
}

/* ---- backup ---- */

/* Where the copy is made. Two at once would write into one file: the second is refused. */
static int open_partial(const char *path, int *ret_fd, const char **ret_message) {
    struct stat opened, named;
    _cleanup_close_ int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return store_explain(-errno, ret_message, "%s cannot be made: %s", path, strerror(errno));
    if (flock(fd, LOCK_EX | LOCK_NB) < 0 || fstat(fd, &opened) < 0 || stat(path, &named) < 0 ||
        opened.st_ino != named.st_ino)
        return store_explain(-EBUSY, ret_message, "another backup is writing %s", path);
    if (fchmod(fd, 0600) < 0 || ftruncate(fd, 0) < 0)
        return explain_errno(-errno, path, ret_message);
    *ret_fd = fd;
    fd = -1;
    return 0;
}

static int backup_into(const char *from, const char *partial, const char *file, store_progress_fn progress,
                       void *arg, struct store_summary *ret, const char **ret_message) {
    struct connection source;
    struct stat st;
    int r = open_snapshot(&source, from, ret_message);
    if (r < 0)
        return r;
    r = summarize(&source, from, ret, ret_message);
    if (r == 0 && ret->schema == 0)
        r = store_explain(-ENOENT, ret_message, "%s is empty: there is no store in it", from);
    if (r == 0)
        r = copy_store(&source, partial, progress, arg, ret_message);
    connection_close(&source);
    if (r == 0)
        r = put_in_place(partial, file, ret_message);
    if (r == 0 && stat(file, &st) == 0)
        ret->bytes = (uint64_t)st.st_size;
    return r;
}

int sqlite_backup(const char *url, const char *file, store_progress_fn progress, void *arg,
                  struct store_summary *ret, const char **ret_message) {
    _cleanup_buf_ struct buf partial = {0};
    _cleanup_close_ int fd = -1;
    const char *path;
    int r = sqlite_path(url, &path, ret_message);
    if (r == 0 && access(path, F_OK) < 0)
        return store_explain(-errno, ret_message, "there is no store %s: %s", path, strerror(errno));
    if (r == 0 && access(file, F_OK) == 0)
        return store_explain(-EEXIST, ret_message, "%s is there already: name a new file", file);
    if (r == 0)
        r = add_suffix(&partial, file, ".partial", ret_message);
    if (r == 0)
        r = open_partial(partial.p, &fd, ret_message);
    if (r < 0)
        return r;
    r = backup_into(path, partial.p, file, progress, arg, ret, ret_message);
    if (r < 0)
        (void)unlink(partial.p);
    return r;
}

/* ---- check ---- */

int sqlite_check(const char *url, const struct store_check *check, struct store_summary *ret,
                 const char **ret_message) {
    struct connection c;
    const char *path;
    uint64_t found;
    int r = sqlite_path(url, &path, ret_message);
    if (r == 0)
        r = open_snapshot(&c, path, ret_message);
    if (r < 0)
        return r;
    *ret = (struct store_summary){.schema_known = sqlite_migrations_n};
    r = check_connection(&c, path, check, ret, &found, ret_message);
    connection_close(&c);
    return r;
}

/* ---- restore ---- */

/* The log of the store that is to go belongs to its file: beside another it would be read as that one's. So
 * it is written home first, and while anybody else has the store open nothing is replaced. -EUCLEAN: it is
 * damaged. */
static int settle_log(const char *path) {
    static const char *const companions[] = {"-wal", "-shm"};
    struct connection c;
    int64_t busy = 1;
    int r = connection_open(&c, path, true);
    if (r < 0)
        return r == -ENOMEM || r == -EBUSY ? r : -EUCLEAN;
    r = read_number(&c, "PRAGMA wal_checkpoint(TRUNCATE)", &busy);
    connection_close(&c);
    if (r < 0)
        return r == -ENOMEM || r == -EBUSY || r == -ENOSPC ? r : -EUCLEAN;
    for (size_t i = 0; i < 2; i++) {
        _cleanup_buf_ struct buf companion = {0};
        buf_addf(&companion, "%s%s", path, companions[i]);
        if (!buf_ok(&companion))
            return -ENOMEM;
        busy |= access(companion.p, F_OK) == 0;
    }
    return busy ? -EBUSY : 0;
}

/* Out of the way, log first: what is left without it was damaged before. */
static int set_aside(const char *path) {
    static const char *const parts[] = {"-wal", "-shm", ""};
    for (size_t i = 0; i < 3; i++) {
        _cleanup_buf_ struct buf from = {0}, to = {0};
        buf_addf(&from, "%s%s", path, parts[i]);
        buf_addf(&to, "%s.damaged%s", path, parts[i]);
        if (!buf_ok(&from) || !buf_ok(&to))
            return -ENOMEM;
        if (rename(from.p, to.p) < 0 && errno != ENOENT)
            return -errno;
    }
    return 0;
}

static int make_room(const char *path, const char **ret_message) {
    int r = access(path, F_OK) == 0 ? settle_log(path) : set_aside(path);
    if (r == -EUCLEAN)
        r = set_aside(path);
    if (r == -EBUSY)
        return store_explain(r, ret_message, "another program has %s open (a backup or a check): let it end",
                             path);
    return r < 0 ? explain_errno(r, path, ret_message) : 0;
}

static int verify_copy(const char *path, const struct store_check *check, struct store_summary *ret,
                       const char **ret_message) {
    struct connection c;
    uint64_t found = 0;
    int r = open_snapshot(&c, path, ret_message);
    if (r < 0)
        return r;
    if (check)
        r = check_connection(&c, path, check, ret, &found, ret_message);
    else
        r = summarize(&c, path, ret, ret_message);
    connection_close(&c);
    return r == 0 && found
               ? store_explain(-EUCLEAN, ret_message, "the copy is not sound: nothing was changed")
               : r;
}

static int copy_back(const char *file, const char *restoring, const struct store_restore *how,
                     struct store_summary *ret, const char **ret_message) {
    struct connection source;
    _cleanup_close_ int fd = open(restoring, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    int r = fd < 0 ? -errno : give_to_folders_owner(fd, restoring);
    if (r < 0)
        return explain_errno(r, restoring, ret_message);
    r = open_snapshot(&source, file, ret_message);
    if (r < 0)
        return r;
    r = read_schema(&source, file, &ret->schema, ret_message);
    if (r == 0 && ret->schema == 0)
        r = store_explain(-EUCLEAN, ret_message, "%s is empty: there is no store in it", file);
    if (r == 0)
        r = copy_store(&source, restoring, how->progress, how->arg, ret_message);
    connection_close(&source);
    return r == 0 ? verify_copy(restoring, how->check, ret, ret_message) : r;
}

int sqlite_restore(const char *file, const char *url, const struct store_restore *how,
                   struct store_summary *ret, const char **ret_message) {
    _cleanup_buf_ struct buf restoring = {0};
    _cleanup_close_ int lock = -1;
    const char *path;
    int r = sqlite_path(url, &path, ret_message);
    if (r == 0 && access(file, R_OK) < 0)
        return store_explain(-errno, ret_message, "%s cannot be read: %s", file, strerror(errno));
    if (r == 0)
        r = add_suffix(&restoring, path, RESTORING_SUFFIX, ret_message);
    if (r == 0)
        r = take_lock(path, &lock, ret_message);
    if (r < 0)
        return r;
    if (access(path, F_OK) == 0 && !how->replace)
        return store_explain(-EEXIST, ret_message, "there is a store already: %s", path);
    *ret = (struct store_summary){.schema_known = sqlite_migrations_n};
    r = copy_back(file, restoring.p, how, ret, ret_message);
    if (r == 0)
        r = make_room(path, ret_message);
    if (r == 0)
        return put_in_place(restoring.p, path, ret_message);
    (void)unlink(restoring.p);
    return r;
}

/* ---- migrate ---- */

int sqlite_migrate(const char *url, size_t *ret_from, size_t *ret_to, const char **ret_message) {
    struct connection c;
    struct store *s;
    struct stat st;
    const char *path;
    size_t from = 0;
    int r = sqlite_path(url, &path, ret_message);
    if (r == 0 && stat(path, &st) == 0 && st.st_size > 0) {
        r = open_snapshot(&c, path, ret_message);
        if (r == 0) {
            r = read_schema(&c, path, &from, ret_message);
            connection_close(&c);
        }
    }
    if (r == 0)
        r = sqlite_open(url, &s, ret_message);
    if (r < 0)
        return r;
    sqlite_close(s);
    *ret_from = from;
    *ret_to = sqlite_migrations_n;
    return 0;
}
