#include "store/sqlite/sqlite.h"

#include <errno.h>

#include "base/clock.h"
#include "base/log.h"

/* How long the log grows before it is taken into the database: some milliseconds for each thousand pages, in
 * which nobody is served. */
enum {
    BUSY_TIMEOUT_MS = 5000,
    LOG_PAGES_MAX = 16000, /* then within the commit, for whoever does not tidy */
};

enum { EXIT_DISK_FAILED = 74 }; /* EX_IOERR: an fsync failed */

static int exec(sqlite3 *db, const char *sql) {
    int rc = sqlite3_exec(db, sql, NULL, NULL, NULL);
    if (rc == SQLITE_OK)
        return 0;
    int r = sqlite_errno(db, rc);
    return rc == SQLITE_NOTADB || rc == SQLITE_CORRUPT ? -EUCLEAN : r;
}

static int checkpoint(struct connection *c, const char *name) {
    /* A checkpoint that failed otherwise than at fsync is tried again after a later commit; the log is
     * complete without it. */
    int rc = sqlite3_wal_checkpoint_v2(c->db, name, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
    if (rc != SQLITE_OK && rc != SQLITE_BUSY && rc != SQLITE_LOCKED)
        (void)sqlite_errno(c->db, rc);
    return SQLITE_OK;
}

/* In place of SQLite's own after a commit (wal_autocheckpoint), which overlooks a failed fsync, and comes
 * before anybody is answered. */
static int note_log(void *arg, sqlite3 *db, const char *name, int pages) {
    struct connection *c = arg;
    (void)db;
    c->log_pages = pages;
    return pages < LOG_PAGES_MAX ? SQLITE_OK : checkpoint(c, name);
}

void connection_checkpoint(struct connection *c, enum store_load load) {
    static const int most[] = {[STORE_QUIET] = 100, [STORE_IDLE] = 1000, [STORE_BUSY] = 4000};
    if (c->log_pages < most[load])
        return;
    c->log_pages = 0; /* until the next commit tells */
    (void)checkpoint(c, NULL);
}

int64_t type_hash(uint32_t tenant_no, struct slice type) {
    return (int64_t)((hash64(type.p, type.n) ^ mix64(tenant_no)) >> 1);
}

static void type_hash_sql(sqlite3_context *context, int n, sqlite3_value **values) {
    CHECK(n == 2);
    const char *type = (const char *)sqlite3_value_text(values[1]);
    struct slice text = {type ? type : "", (size_t)sqlite3_value_bytes(values[1])};
    sqlite3_result_int64(context, type_hash((uint32_t)sqlite3_value_int64(values[0]), text));
}

int add_functions(sqlite3 *db) {
    int rc = sqlite3_create_function(db, "type_hash", 2, SQLITE_UTF8 | SQLITE_DETERMINISTIC, NULL,
                                     type_hash_sql, NULL, NULL);
    return rc == SQLITE_OK ? 0 : sqlite_errno(db, rc);
}

int connection_open(struct connection *c, const char *path, bool writer) {
    *c = (struct connection){0};
    int flags = writer ? SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE : SQLITE_OPEN_READONLY;
    int rc = sqlite3_open_v2(path, &c->db, flags | SQLITE_OPEN_NOMUTEX, NULL);
    if (rc != SQLITE_OK) {
        int r = sqlite_errno(c->db, rc);
        connection_close(c);
        return r;
    }
    sqlite3_busy_timeout(c->db, BUSY_TIMEOUT_MS);
    /* Debian builds with SECURE_DELETE, which would write every freed byte once more. All checkpoints are the
     * writer's: SQLite 3.40 has a race when two connections reset the log. */
    int r = exec(c->db, "PRAGMA secure_delete=OFF; PRAGMA temp_store=MEMORY; PRAGMA mmap_size=0;");
    /* What memory holds of the store is bounded here, not by its size: a mapped file would grow with the
     * backlog. Pages that are not in these caches come from the system's. The writer's is small, for SQLite
     * 3.40 walks over all of it after a commit that has split a page (the numbers of pages are swapped by way
     * of one far behind the file's end, and what may lie there is looked for). */
    if (r == 0 && writer)
        r = exec(c->db, "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA cache_size=-8192;"
                        "PRAGMA foreign_keys=OFF; PRAGMA journal_size_limit=67108864;");
    if (r == 0 && writer)
        r = add_functions(c->db);
    if (r == 0 && !writer)
        r = exec(c->db, "PRAGMA cache_size=-2048; PRAGMA query_only=ON");
    if (r < 0) {
        connection_close(c);
        return r;
    }
    if (writer)
        sqlite3_wal_hook(c->db, note_log, c);
    else
        sqlite3_db_config(c->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    return 0;
}

void connection_close(struct connection *c) {
    for (size_t i = 0; i < STATEMENTS_MAX * 2; i++)
        sqlite3_finalize(c->cache[i].stmt);
    sqlite3_close(c->db);
    *c = (struct connection){0};
}

sqlite3_stmt *connection_prepare(struct connection *c, const char *sql) {
    size_t at = mix64((uint64_t)(uintptr_t)sql) % (STATEMENTS_MAX * 2);
    while (c->cache[at].sql && c->cache[at].sql != sql)
        at = (at + 1) % (STATEMENTS_MAX * 2);
    if (c->cache[at].sql) {
        sqlite3_reset(c->cache[at].stmt);
        return c->cache[at].stmt;
    }
    CHECK(c->cached < STATEMENTS_MAX);
    sqlite3_stmt *st = NULL;
    int rc = sqlite3_prepare_v3(c->db, sql, -1, SQLITE_PREPARE_PERSISTENT, &st, NULL);
    if (rc != SQLITE_OK) {
        log_error("the store refuses a statement", log_str("sql", sql),
                  log_str("error", sqlite3_errmsg(c->db)));
        return NULL;
    }
    c->cache[at].sql = sql;
    c->cache[at].stmt = st;
    c->cached++;
    return st;
}

int sqlite_errno(sqlite3 *db, int rc) {
    static struct log_again again;
    int extended = db ? sqlite3_extended_errcode(db) : rc;
    int64_t left_out;
    if (log_again(&again, extended, clock_mono_us(), &left_out))
        log_error("the store cannot do its work",
                  log_str("error", db ? sqlite3_errmsg(db) : sqlite3_errstr(rc)), log_int("code", extended),
                  log_int("left_out", left_out));
    if (extended == SQLITE_IOERR_FSYNC || extended == SQLITE_IOERR_DIR_FSYNC) {
        /* After a failed fsync the kernel may have dropped the pages: only a restart, which reads what is
         * really there, can tell. Nothing of this transaction was acknowledged. */
        log_error("fsync failed: the process ends. Check the disk, then start again",
                  log_int("code", extended));
        _exit(EXIT_DISK_FAILED);
    }
    switch (rc & 0xff) {
    case SQLITE_NOMEM:
        return -ENOMEM;
    case SQLITE_FULL:
        return -ENOSPC;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return -EBUSY;
    default:
        return -EIO;
    }
}

int statement_next(struct connection *c, sqlite3_stmt *st) {
    if (!st)
        return -EIO;
    int rc = sqlite3_step(st);
    if (rc == SQLITE_ROW)
        return 1;
    int r = rc == SQLITE_DONE ? 0 : sqlite_errno(c->db, rc);
    statement_done(st);
    return r;
}

int statement_run(struct connection *c, sqlite3_stmt *st) {
    int r = statement_next(c, st);
    CHECK(r <= 0);
    return r;
}

void statement_done(sqlite3_stmt *st) {
    sqlite3_reset(st);
}

void bind_int(sqlite3_stmt *st, int at, int64_t v) {
    sqlite3_bind_int64(st, at, v);
}

void bind_time(sqlite3_stmt *st, int at, int64_t ms) {
    if (ms)
        sqlite3_bind_int64(st, at, ms);
    else
        sqlite3_bind_null(st, at);
}

void bind_text(sqlite3_stmt *st, int at, struct slice s) {
    if (s.p)
        sqlite3_bind_text64(st, at, s.p, s.n, SQLITE_STATIC, SQLITE_UTF8);
    else
        sqlite3_bind_null(st, at);
}

void bind_blob(sqlite3_stmt *st, int at, struct slice s) {
    if (s.p)
        sqlite3_bind_blob64(st, at, s.p, s.n, SQLITE_STATIC);
    else
        sqlite3_bind_null(st, at);
}

struct slice column_slice(sqlite3_stmt *st, int at) {
    if (sqlite3_column_type(st, at) == SQLITE_NULL)
        return SLICE_NONE;
    const char *p = sqlite3_column_blob(st, at);
    return (struct slice){p ? p : "", (size_t)sqlite3_column_bytes(st, at)};
}

void read_tenant_columns(sqlite3_stmt *st, struct tenant_record *ret) {
    *ret = (struct tenant_record){
        .no = (uint32_t)column_int(st, 0),
        .id = column_slice(st, 1),
        .doc = column_slice(st, 2),
        .created_at = column_int(st, 3),
        .updated_at = column_int(st, 4),
    };
}

void read_subscription_columns(sqlite3_stmt *st, struct subscription_record *ret) {
    *ret = (struct subscription_record){
        .no = (uint32_t)column_int(st, 0),
        .tenant_no = (uint32_t)column_int(st, 1),
        .id = {.key = (uint64_t)column_int(st, 2), .tail = (uint64_t)column_int(st, 3)},
        .status = (enum subscription_status)column_int(st, 4),
        .disabled_reason = column_slice(st, 5),
        .doc = column_slice(st, 6),
        .created_at = column_int(st, 7),
        .updated_at = column_int(st, 8),
        .resumed_at = column_int(st, 9),
        .failing_since = column_int(st, 10),
        .raised_since = column_int(st, 11),
        .jobs_settled = (uint64_t)column_int(st, 12),
        .relane = (uint64_t)column_int(st, 13),
    };
}

void read_event_columns(sqlite3_stmt *st, struct event_record *ret) {
    *ret = (struct event_record){
        .id = {.key = (uint64_t)column_int(st, 0), .tail = (uint64_t)column_int(st, 1)},
        .tenant_no = (uint32_t)column_int(st, 2),
        .type = column_slice(st, 3),
        .schema_version = column_slice(st, 4),
        .ordering_key = column_slice(st, 5),
        .deliver_at = column_int(st, 6),
        .data_size = (uint32_t)column_int(st, 7),
        .deliveries = (uint32_t)column_int(st, 8),
        .has_job = column_int(st, 9) != 0,
        .body = column_slice(st, 10),
        .trace = column_slice(st, 11),
    };
}
