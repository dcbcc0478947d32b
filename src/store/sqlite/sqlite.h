/* What the files of the SQLite store share. */
#pragma once

#include <sqlite3.h>

#include "store/backend.h"
#include "store/sealing.h"

enum { STATEMENTS_MAX = 256, STORE_MAGIC = 0x706f7374 };

/* A connection with its prepared statements, found by the address of their text (a string literal each). */
struct connection {
    sqlite3 *db;
    struct {
        const char *sql;
        sqlite3_stmt *stmt;
    } cache[STATEMENTS_MAX * 2]; /* open addressing */
    size_t cached;
    int log_pages; /* of the write-ahead log, after the last commit */
};

/* The logs that are filled in behind the events (log.c). */
enum log_name {
    LOG_BY_SUBSCRIPTION,
    LOG_BY_TYPE,
    LOGS,
};

/* Everything of the events before `event`, and what that one has up to `which`. */
struct log_place {
    int64_t event, which;
};

struct log_progress {
    bool known;            /* otherwise the store's mark tells `done` */
    struct log_place done; /* all this is entered */
    /* The batch that is worked off: what lies between `done` and `gathered`, which is to come to `upto`. */
    struct log_place gathered;
    int64_t upto;
    enum { LOG_GATHERING, LOG_GATHERED, LOG_SORTED } phase;
    size_t n, at;         /* entries; the first that is to be entered */
    unsigned arrangement; /* changes when the entries' order does */
};

struct log {
    struct log_progress now, committed; /* as this transaction sees it, and without it */
    struct log_entry *entries;
};

struct sqlite_store {
    struct store base;
    uint32_t magic;
    struct sealing sealing;
    struct connection writer;
    char *path;
    int lock_fd;
    struct log logs[LOGS];
    bool replay_progress;
    struct buf doc; /* of the last store_get_subscription, when it has headers */
};

struct sqlite_reader {
    struct store_reader base;
    struct connection conn;
    const struct sealing *sealing; /* the store's */
};

static inline struct sqlite_store *sqlite_of(struct store *s) {
    return (struct sqlite_store *)s;
}

static inline struct sqlite_reader *sqlite_reader_of(struct store_reader *r) {
    return (struct sqlite_reader *)r;
}

/* The calls of this backend, each as store.h has it. */
#define X(name) typeof(store_##name) sqlite_##name;
STORE_URL_CALLS(X)
STORE_CALLS(X)
STORE_READER_CALLS(X)
#undef X

/* The same of a failure with this database file. */
int explain_errno(int r, const char *path, const char **ret_message);

/* Beside the store's file while a copy is being restored. */
#define RESTORING_SUFFIX ".restoring"

/* The file of a URL, within it. -EINVAL. */
int sqlite_path(const char *url, const char **ret, const char **ret_message) MUST_USE;
/* Keeps every other process off the store behind db_path until *ret_fd is closed. -EBUSY. */
int take_lock(const char *db_path, int *ret_fd, const char **ret_message) MUST_USE;
/* What root makes in a data folder must not shut out the server, which is the folder's owner. */
int give_to_folders_owner(int fd, const char *path) MUST_USE;
/* The schema's version, of a store that is ours or empty. -EUCLEAN, -EPROTONOSUPPORT. */
int read_schema(struct connection *c, const char *path, size_t *ret, const char **ret_message) MUST_USE;
int read_number(struct connection *c, const char *sql, int64_t *ret) MUST_USE;

/* type_hash for SQL. */
int add_functions(sqlite3 *db) MUST_USE;

/* -EUCLEAN: the file is damaged, or no database. */
int connection_open(struct connection *c, const char *path, bool writer) MUST_USE;
void connection_close(struct connection *c);
/* Takes the log into the database when it has grown long; the less load there is, the sooner. */
void connection_checkpoint(struct connection *c, enum store_load load);

/* The prepared statement of a string literal, reset; NULL when it cannot be prepared (logged). Its bindings
 * are those of last time: bind them all. */
sqlite3_stmt *connection_prepare(struct connection *c, const char *sql);

/* Steps a statement that gives no rows, and resets it. 0, or the negative errno of what SQLite says. */
int statement_run(struct connection *c, sqlite3_stmt *st) MUST_USE;
/* 1 with a row, 0 at the end (then reset), or a negative errno (then reset). */
int statement_next(struct connection *c, sqlite3_stmt *st) MUST_USE;
void statement_done(sqlite3_stmt *st); /* resets early */

/* -ENOSPC for a full disk, -ENOMEM, otherwise -EIO; logs it once with SQLite's words. A failed fsync ends the
 * process. */
int sqlite_errno(sqlite3 *db, int rc);

/* Binding: absent slices and zero times become NULL. Slices must outlive the step (SQLITE_STATIC). */
void bind_int(sqlite3_stmt *st, int at, int64_t v);
void bind_time(sqlite3_stmt *st, int at, int64_t ms);
void bind_text(sqlite3_stmt *st, int at, struct slice s);
void bind_blob(sqlite3_stmt *st, int at, struct slice s);

static inline int64_t column_int(sqlite3_stmt *st, int at) {
    return sqlite3_column_int64(st, at); /* NULL reads as 0 */
}

struct slice column_slice(sqlite3_stmt *st, int at); /* text or blob; NULL reads as absent */

/* Columns: no, tenant, key, tail, status, disabled_reason, doc, created_at, updated_at, resumed_at,
 * failing_since, raised_since, jobs_settled, relane, headers, headers_key */
#define SUBSCRIPTION_COLUMNS                                                                                 \
    "no, tenant, key, tail, status, disabled_reason, doc, created_at, updated_at, resumed_at, "              \
    "failing_since, raised_since, jobs_settled, relane, headers, headers_key"
enum { SUBSCRIPTION_HEADERS = 14 };
/* The document without its headers: subscription_read (secrets.h) puts them back. */
void read_subscription_columns(sqlite3_stmt *st, struct subscription_record *ret);

#define TENANT_COLUMNS "no, id, doc, created_at, updated_at"
void read_tenant_columns(sqlite3_stmt *st, struct tenant_record *ret);

/* Columns: key, tail, tenant, type, schema_version, ordering_key, deliver_at, data_size, deliveries, has_job,
 * body, trace */
#define EVENT_COLUMNS                                                                                        \
    "events.key, events.tail, events.tenant, events.type, events.schema_version, events.ordering_key, "      \
    "events.deliver_at, events.data_size, events.deliveries, events.has_job, events.body, "                  \
    "events.trace"
void read_event_columns(sqlite3_stmt *st, struct event_record *ret);

/* 1 when an open delivery of this lane key stands before (order_at, event_key), 0 when none does. */
int lane_key_blocked(struct connection *c, uint32_t subscription_no, uint64_t lane_key, int64_t order_at,
                     uint64_t event_key) MUST_USE;

/* The greatest event key that the subscriptions' log has taken in, and the types' log. */
int log_watermark(struct connection *c, int64_t *ret) MUST_USE;
int type_watermark(struct connection *c, int64_t *ret) MUST_USE;
int log_open(struct store *s) MUST_USE;
void log_close(struct store *s);
/* What this transaction has done of them stays; or it does not, all or only a part. */
void log_committed(struct store *s);
void log_rolled_back(struct store *s);
/* Before an event or deliveries of it are deleted: they may be in a batch. */
void log_deleting(struct store *s, uint64_t event_key);
/* The next hour from *hour on, by one of these queries, in which a log has anything: 1, or 0 when there is
 * none. */
#define LOG_HOUR_BEFORE(log) "SELECT hour FROM " log " WHERE hour <= ? ORDER BY hour DESC LIMIT 1"
#define LOG_HOUR_FROM(log)   "SELECT hour FROM " log " WHERE hour >= ? ORDER BY hour LIMIT 1"
int log_find_hour(struct connection *c, const char *sql, int64_t *hour) MUST_USE;
/* What stands for a tenant's event type in type_log. Stored. */
int64_t type_hash(uint32_t tenant_no, struct slice type);
/* Enters an event that came later than the log of types passed its key. */
int log_late_event(struct store *s, const struct event_record *e) MUST_USE;

/* The row of a delivery that a walk has found; its slices live until fn returns. -ENOENT. */
int read_listed_delivery(struct connection *c, uint32_t tenant_no, uint64_t event_key,
                         uint32_t subscription_no, delivery_row_fn fn, void *arg) MUST_USE;
/* Enters a delivery that came later than the log passed its event. */
int log_late_delivery(struct store *s, uint64_t event_key, uint32_t subscription_no) MUST_USE;

/* Makes the first open delivery of a lane key claimable, when it is not so already; *ret_due_at is when it is
 * due, untouched when there is none. */
int lane_key_release(struct connection *c, uint32_t subscription_no, uint64_t lane_key, int64_t now,
                     int64_t *ret_due_at) MUST_USE;

/* Closes a waiting delivery into the DLQ without an attempt, with its transition record, and releases the
 * next of its key. */
struct waiting_delivery {
    uint64_t event_key;
    uint32_t subscription_no;
    enum delivery_state state;
    uint64_t lane_key;
};
int close_waiting(struct connection *c, const struct waiting_delivery *d, enum delivery_reason reason,
                  int64_t now) MUST_USE;

/* One thing that must not be in a store: the rows of this, with one column that names each. */
struct invariant {
    const char *what, *sql;
};
extern const struct invariant invariants[];
extern const size_t invariants_n;
/* Everything store_check does, of an open reader at one moment's state. *ret_found: how much. */
int check_connection(struct connection *c, const char *path, const struct store_check *check,
                     struct store_summary *ret, uint64_t *ret_found, const char **ret_message) MUST_USE;
/* Counts and keys. */
int summarize(struct connection *c, const char *path, struct store_summary *ret,
              const char **ret_message) MUST_USE;

/* Goes with every transition into the DLQ (1) or out of it (-1). */
int count_dead(struct connection *c, uint32_t subscription_no, enum delivery_reason reason,
               int delta) MUST_USE;

/* A delivery that a bulk replay has started ended an attempt, or went to the DLQ without one: the replay
 * counts it. Of one that was replayed by itself or not at all it does nothing. */
int count_replayed_attempt(struct store *s, const struct settlement *i) MUST_USE;
int count_replayed_waiting(struct connection *c, const struct waiting_delivery *d,
                           enum delivery_reason reason) MUST_USE;
