/* Opening and closing: the lock, the migrations, the transactions. */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "store/schema/schema.h"
#include "store/sqlite/sqlite.h"

enum {
    APPLICATION_ID = 0x706f7374, /* marks the file as ours, in its header */
    PID_DIGITS_MAX = 20,
};

const struct store_backend sqlite_backend = {.scheme = "sqlite:",
#define X(name) .name = sqlite_##name,
                                             STORE_URL_CALLS(X) STORE_CALLS(X) STORE_READER_CALLS(X)
#undef X
};

/* What a failure with the database file means to whoever starts the program. */
int explain_errno(int r, const char *path, const char **ret_message) {
    if (r == -EUCLEAN)
        return store_explain(
            r, ret_message,
            "%s is damaged, or no database: put a backup in its place, or choose another --data", path);
    return store_explain(r, ret_message, "%s cannot be opened: %s", path, strerror(-r));
}

/* ---- the lock ---- */

static long lock_holder(int fd) {
    char text[PID_DIGITS_MAX + 1] = {0};
    ssize_t n = pread(fd, text, PID_DIGITS_MAX, 0);
    return n > 0 ? strtol(text, NULL, 10) : 0;
}

static int note_pid(int fd) {
    char text[PID_DIGITS_MAX + 1];
    int n = snprintf(text, sizeof text, "%ld\n", (long)getpid());
    if (ftruncate(fd, 0) < 0 || pwrite(fd, text, (size_t)n, 0) != n)
        return errno ? -errno : -EIO;
    return 0;
}

int give_to_folders_owner(int fd, const char *path) {
    struct stat st;
    if (geteuid() != 0)
        return 0;
    _cleanup_free_ char *copy = strdup(path);
    if (!copy)
        return -ENOMEM;
    return stat(dirname(copy), &st) < 0 || fchown(fd, st.st_uid, st.st_gid) < 0 ? -errno : 0;
}

/* The lock is the kernel's and ends with the process; the file stays, so that nobody locks one that another
 * has just removed. */
int take_lock(const char *db_path, int *ret_fd, const char **ret_message) {
    _cleanup_buf_ struct buf path = {0};
    buf_addf(&path, "%s.lock", db_path);
    if (!buf_ok(&path))
        return store_explain(-ENOMEM, ret_message, "memory is out");
    _cleanup_close_ int fd = open(path.p, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return explain_errno(-errno, path.p, ret_message);
    if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        if (errno != EWOULDBLOCK)
            return explain_errno(-errno, path.p, ret_message);
        return store_explain(
            -EBUSY, ret_message,
            "another posthorn runs on this data folder (pid %ld); stop it or choose another --data",
            lock_holder(fd));
    }
    int r = give_to_folders_owner(fd, path.p);
    if (r == 0)
        r = note_pid(fd);
    if (r < 0)
        return explain_errno(r, path.p, ret_message);
    *ret_fd = fd;
    fd = -1;
    return 0;
}

/* ---- migrations ---- */

static int run_sql(struct connection *c, const char *sql) {
    int rc = sqlite3_exec(c->db, sql, NULL, NULL, NULL);
    return rc == SQLITE_OK ? 0 : sqlite_errno(c->db, rc);
}

/* -EUCLEAN when what the file holds is the reason. */
static int blame_file(struct connection *c, int r) {
    int rc = sqlite3_errcode(c->db) & 0xff;
    return r < 0 && (rc == SQLITE_CORRUPT || rc == SQLITE_NOTADB) ? -EUCLEAN : r;
}

int read_number(struct connection *c, const char *sql, int64_t *ret) {
    sqlite3_stmt *st = connection_prepare(c, sql);
    int r = statement_next(c, st);
    if (r <= 0)
        return r < 0 ? r : -EIO;
    *ret = column_int(st, 0);
    statement_done(st);
    return 0;
}

/* Schema, version and mark commit together: a process killed in the middle leaves the version before. */
static int migrate_to(struct connection *c, size_t version) {
    char stamp[96];
    snprintf(stamp, sizeof stamp, "PRAGMA user_version=%zu; PRAGMA application_id=%d", version,
             APPLICATION_ID);
    int r = run_sql(c, "BEGIN IMMEDIATE");
    if (r == 0)
        r = run_sql(c, sqlite_migrations[version - 1]);
    if (r == 0)
        r = run_sql(c, stamp);
    if (r == 0)
        r = run_sql(c, "COMMIT");
    if (r < 0 && !sqlite3_get_autocommit(c->db))
        (void)sqlite3_exec(c->db, "ROLLBACK", NULL, NULL, NULL);
    return r;
}

int read_schema(struct connection *c, const char *path, size_t *ret, const char **ret_message) {
    int64_t version = 0, mark = 0, tables = 0;
    int r = read_number(c, "PRAGMA user_version", &version);
    if (r == 0)
        r = read_number(c, "PRAGMA application_id", &mark);
    if (r == 0)
        r = read_number(c, "SELECT count(*) FROM sqlite_schema", &tables);
    if (r < 0)
        return explain_errno(blame_file(c, r), path, ret_message);
    if (version != 0 || tables != 0) {
        if (mark != APPLICATION_ID)
            return store_explain(-EUCLEAN, ret_message,
                                 "%s belongs to another program: choose another --data", path);
        if (version < 0 || (uint64_t)version > sqlite_migrations_n)
            return store_explain(
                -EPROTONOSUPPORT, ret_message,
                "%s was written by a newer posthorn (schema %lld, this one knows %zu): start the "
                "newer one, or choose another --data",
                path, (long long)version, sqlite_migrations_n);
    }
    *ret = (size_t)version;
    return 0;
}

static int migrate(struct connection *c, const char *path, const char **ret_message) {
    size_t version;
    int r = read_schema(c, path, &version, ret_message);
    if (r < 0)
        return r;
    store_say_upgrade(version, sqlite_migrations_n);
    for (size_t to = version + 1; to <= sqlite_migrations_n; to++) {
        r = migrate_to(c, to);
        if (r < 0)
            return store_explain(r, ret_message, "%s could not be brought to schema %zu: %s", path, to,
                                 strerror(-r));
    }
    return 0;
}

/* ---- open and close ---- */

/* The file holds signing secrets; its companions (-wal, -shm) take over its mode. */
static int make_private_file(const char *path) {
    if (access(path, F_OK) == 0)
        return 0;
    _cleanup_close_ int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    return fd < 0 ? -errno : give_to_folders_owner(fd, path);
}

/* SQLite opens what it may not write for reading, and says so at its first write, whatever that is for. */
static int check_writable(const char *path, const char **ret_message) {
    _cleanup_free_ char *copy = strdup(path);
    if (!copy)
        return store_explain(-ENOMEM, ret_message, "memory is out");
    const char *const needed[] = {path, dirname(copy)};
    for (size_t i = 0; i < 2; i++) {
        int r = faccessat(AT_FDCWD, needed[i], W_OK, AT_EACCESS) < 0 ? -errno : 0;
        if (r < 0)
            return store_explain(r, ret_message,
                                 "%s cannot be written: %s; it must belong to the user that runs posthorn",
                                 needed[i], strerror(-r));
    }
    return 0;
}

/* A new store would be taken for the one that was to come back. */
static int check_no_half_restore(const char *path, const char **ret_message) {
    _cleanup_buf_ struct buf half = {0};
    buf_addf(&half, "%s" RESTORING_SUFFIX, path);
    if (!buf_ok(&half))
        return store_explain(-ENOMEM, ret_message, "memory is out");
    if (access(path, F_OK) == 0 || access(half.p, F_OK) < 0)
        return 0;
    return store_explain(-EBUSY, ret_message,
                         "a restore did not come to its end: run it again, or remove %s to start afresh",
                         half.p);
}

static int open_locked(struct sqlite_store *s, const char **ret_message) {
    int r = take_lock(s->path, &s->lock_fd, ret_message);
    if (r < 0)
        return r;
    r = check_no_half_restore(s->path, ret_message);
    if (r < 0)
        return r;
    r = make_private_file(s->path);
    if (r < 0)
        return explain_errno(r, s->path, ret_message);
    r = check_writable(s->path, ret_message);
    if (r < 0)
        return r;
    r = connection_open(&s->writer, s->path, true);
    if (r < 0)
        return explain_errno(r, s->path, ret_message);
    return migrate(&s->writer, s->path, ret_message);
}

int sqlite_path(const char *url, const char **ret, const char **ret_message) {
    size_t scheme = strlen(sqlite_backend.scheme);
    CHECK(slice_starts_with(slice_of(url), slice_of(sqlite_backend.scheme)));
    if (!url[scheme])
        return store_explain(-EINVAL, ret_message, "\"%s\" is no store: sqlite:FILE was expected", url);
    *ret = url + scheme;
    return 0;
}

int sqlite_open(const char *url, struct store **ret, const char **ret_message) {
    const char *path;
    int r = sqlite_path(url, &path, ret_message);
    if (r < 0)
        return r;
    struct sqlite_store *s = calloc(1, sizeof *s);
    if (!s)
        return store_explain(-ENOMEM, ret_message, "memory is out");
    *s = (struct sqlite_store){
        .base = {&sqlite_backend}, .magic = STORE_MAGIC, .lock_fd = -1, .path = strdup(path)};
    /* The statistics would cost every allocation a lock. Only the first store of a process can say so. */
    (void)sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
    r = s->path ? log_open(&s->base) : -ENOMEM;
    r = r == 0 ? open_locked(s, ret_message) : store_explain(r, ret_message, "memory is out");
    if (r < 0) {
        sqlite_close(&s->base);
        return r;
    }
    *ret = &s->base;
    return 0;
}

void sqlite_close(struct store *store) {
    struct sqlite_store *s = sqlite_of(store);
    CHECK(s->magic == STORE_MAGIC);
    connection_close(&s->writer);
    /* Last, for it lets the next process in. */
    if (s->lock_fd >= 0)
        close(s->lock_fd);
    free(s->path);
    buf_wipe(&s->doc);
    log_close(store);
    OPENSSL_cleanse(&s->sealing, sizeof s->sealing);
    *s = (struct sqlite_store){0};
    free(s);
}

/* ---- transactions ---- */

/* A row lent to a caller (store_get_…) would hold its snapshot open and keep checkpoints from working. */
static void take_rows_back(struct connection *c) {
    for (sqlite3_stmt *st = sqlite3_next_stmt(c->db, NULL); st; st = sqlite3_next_stmt(c->db, st))
        if (sqlite3_stmt_busy(st))
            sqlite3_reset(st);
}

int sqlite_begin(struct store *s) {
    CHECK(sqlite_of(s)->magic == STORE_MAGIC);
    CHECK(sqlite3_get_autocommit(sqlite_of(s)->writer.db));
    return statement_run(&sqlite_of(s)->writer, connection_prepare(&sqlite_of(s)->writer, "BEGIN IMMEDIATE"));
}

int sqlite_commit(struct store *s) {
    CHECK(sqlite_of(s)->magic == STORE_MAGIC);
    /* After some errors SQLite has rolled back by itself; then nothing may seem to be committed. */
    if (sqlite3_get_autocommit(sqlite_of(s)->writer.db))
        return -EIO;
    take_rows_back(&sqlite_of(s)->writer);
    int r = statement_run(&sqlite_of(s)->writer, connection_prepare(&sqlite_of(s)->writer, "COMMIT"));
    if (r == 0)
        log_committed(s);
    return r;
}

void sqlite_rollback(struct store *s) {
    CHECK(sqlite_of(s)->magic == STORE_MAGIC);
    log_rolled_back(s);
    take_rows_back(&sqlite_of(s)->writer);
    if (!sqlite3_get_autocommit(sqlite_of(s)->writer.db))
        (void)sqlite3_exec(sqlite_of(s)->writer.db, "ROLLBACK", NULL, NULL, NULL);
    CHECK(sqlite3_get_autocommit(sqlite_of(s)->writer.db));
}

void sqlite_tidy(struct store *s, enum store_load load) {
    CHECK(sqlite_of(s)->magic == STORE_MAGIC && sqlite3_get_autocommit(sqlite_of(s)->writer.db));
    /* A row lent to a caller would hold its snapshot open and keep the checkpoint from finishing. */
    take_rows_back(&sqlite_of(s)->writer);
    connection_checkpoint(&sqlite_of(s)->writer, load);
}

int sqlite_savepoint(struct store *s) {
    if (sqlite3_get_autocommit(sqlite_of(s)->writer.db))
        return -EIO;
    return statement_run(&sqlite_of(s)->writer, connection_prepare(&sqlite_of(s)->writer, "SAVEPOINT job"));
}

int sqlite_savepoint_release(struct store *s) {
    return statement_run(&sqlite_of(s)->writer, connection_prepare(&sqlite_of(s)->writer, "RELEASE job"));
}

int sqlite_savepoint_rollback(struct store *s) {
    log_rolled_back(s);
    int r =
        statement_run(&sqlite_of(s)->writer, connection_prepare(&sqlite_of(s)->writer, "ROLLBACK TO job"));
    return r < 0 ? r : sqlite_savepoint_release(s);
}

/* ---- at start ---- */

int sqlite_last_key(struct store *s, uint64_t *ret) {
    int64_t key;
    int r = read_number(&sqlite_of(s)->writer,
                        "SELECT max(coalesce((SELECT max(key) FROM events), 0),"
                        " coalesce((SELECT max(key) FROM subscriptions), 0),"
                        " coalesce((SELECT max(key) FROM secrets), 0),"
                        " coalesce((SELECT max(key) FROM api_keys), 0),"
                        " coalesce((SELECT max(key) FROM replays), 0))",
                        &key);
    if (r < 0)
        return r;
    *ret = (uint64_t)key;
    return 0;
}

int sqlite_register_worker(struct store *s, const char *name, const char *user_agent, int64_t now,
                           uint32_t *ret_no) {
    struct connection *c = &sqlite_of(s)->writer;
    sqlite3_stmt *st = connection_prepare(
        c, "INSERT INTO workers (name, user_agent, started_at, seen_at) VALUES (?,?,?3,?3)");
    bind_text(st, 1, slice_of(name));
    bind_text(st, 2, slice_of(user_agent));
    bind_int(st, 3, now);
    int r = statement_run(c, st);
    if (r < 0)
        return r;
    *ret_no = (uint32_t)sqlite3_last_insert_rowid(c->db);
    return 0;
}

/* ---- readers ---- */

int sqlite_reader_open(struct store *s, struct store_reader **ret) {
    CHECK(sqlite_of(s)->magic == STORE_MAGIC);
    struct sqlite_reader *r = calloc(1, sizeof *r);
    if (!r)
        return -ENOMEM;
    r->base.backend = &sqlite_backend;
    r->sealing = &sqlite_of(s)->sealing;
    int e = connection_open(&r->conn, sqlite_of(s)->path, false);
    if (e < 0) {
        free(r);
        return e;
    }
    *ret = &r->base;
    return 0;
}

void sqlite_reader_close(struct store_reader *r) {
    connection_close(&sqlite_reader_of(r)->conn);
    free(r);
}

int sqlite_reader_ping(struct store_reader *r) {
    int64_t ignored;
    return read_number(&sqlite_reader_of(r)->conn, "SELECT count(*) FROM (SELECT 1 FROM tenants LIMIT 1)",
                       &ignored);
}
