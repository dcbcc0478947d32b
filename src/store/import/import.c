#include "store/import.h"

#include <errno.h>
#include <sys/stat.h>

#include "core/partition.h"
#include "store/import/rows.h"
#include "store/schema/schema.h"

enum {
    IMPORT_MS = 24 * 3600 * 1000,
    DAYS_MAX = 100, /* that get partitions of their own: each has locks until the end */
};

struct import {
    const struct store_import *how;
    const char **message;
    struct connection from;
    const char *path;
    int lock_fd;
    struct pg to;
    struct pg_source *source;
    uint64_t done, total;
    bool comparing;
};

static int explain(const struct import *k, int r, const char *what) {
    return store_explain(r, k->message, "%s (%s)", what, r == -EUCLEAN ? k->path : k->source->name);
}

static void tell(void *arg, uint64_t rows) {
    struct import *k = arg;
    k->done += rows;
    if (k->how->progress)
        k->how->progress(k->how->arg, k->comparing, k->done, k->total);
}

/* ---- the source ---- */

static void partition_of_sql(sqlite3_context *context, int n, sqlite3_value **values) {
    CHECK(n == 1);
    sqlite3_result_int(context, (int)partition_of((uint32_t)sqlite3_value_int64(values[0])));
}

/* What is from before it was sealed waits for the next start. */
static int check_sealed(struct import *k) {
    int64_t plain = 0;
    int r = read_number(&k->from,
                        "SELECT (SELECT count(*) FROM sqlite_schema WHERE name='secrets_plain')"
                        " + (SELECT count(*) FROM server_keys WHERE seal_key IS NULL)"
                        " + (SELECT count(*) FROM marks WHERE name='headers_in_clear')",
                        &plain);
    if (r < 0 || !plain)
        return r < 0 ? explain_errno(r, k->path, k->message) : 0;
    return store_explain(-EPROTONOSUPPORT, k->message,
                         "%s holds secrets that are not sealed yet: start posthorn on it once, then stop it",
                         k->path);
}

static int open_source(struct import *k, const char *url) {
    struct stat st;
    size_t schema = 0;
    int r = sqlite_path(url, &k->path, k->message);
    if (r < 0)
        return r;
    if (stat(k->path, &st) < 0)
        return store_explain(-ENOENT, k->message, "there is no store at %s", k->path);
    r = take_lock(k->path, &k->lock_fd, k->message);
    if (r < 0)
        return r;
    r = connection_open(&k->from, k->path, false);
    if (r < 0)
        return explain_errno(r, k->path, k->message);
    r = read_schema(&k->from, k->path, &schema, k->message);
    if (r < 0)
        return r;
    if (schema != sqlite_migrations_n)
        return store_explain(-EPROTONOSUPPORT, k->message,
                             "%s is of schema %zu, this posthorn's is %zu: bring it up to date first, with "
                             "posthorn migrate --store %s",
                             k->path, schema, sqlite_migrations_n, url);
    if (sqlite3_create_function(k->from.db, "partition_of", 1, SQLITE_UTF8 | SQLITE_DETERMINISTIC, NULL,
                                partition_of_sql, NULL, NULL) != SQLITE_OK)
        return store_explain(-ENOMEM, k->message, "memory is out");
    return check_sealed(k);
}

static int count_source(struct import *k) {
    for (size_t i = 0; i < import_tables_n; i++) {
        int64_t n = 0;
        int r = read_number(&k->from, import_tables[i].count, &n);
        if (r < 0)
            return explain_errno(r, k->path, k->message);
        k->total += (uint64_t)n;
    }
    return 0;
}

/* ---- the destination ---- */

static int send(struct pg *c, const char *sql) {
    pg_params_reset(pg_params(c));
    return pg_query(c, sql, NULL);
}

/* -EEXIST when it is not, -EBUSY while a server runs on it. */
static int check_empty(struct import *k) {
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    int r = pg_query_row(&k->to, "SELECT 1 FROM nodes WHERE lease_until > " PG_NOW, &rows);
    if (r > 0)
        return explain(k, -EBUSY, "a posthorn runs on it: stop it first");
    for (size_t i = 0; r == 0 && i < import_tables_n; i++) {
        r = pg_query_row(&k->to, import_tables[i].is_used, &rows);
        if (r > 0)
            return store_explain(-EEXIST, k->message,
                                 "the store at %s is not empty (%s): name an empty database", k->source->name,
                                 import_tables[i].name);
    }
    return r < 0 ? explain(k, r, "it cannot be looked at") : 0;
}

static int open_destination(struct import *k, const char *url) {
    size_t from, to;
    int r = pg_open_url(url, &k->to, &k->source, k->message);
    if (r == 0)
        r = pg_migrate(&k->to, &from, &to, k->message);
    k->to.limits.statement_ms = IMPORT_MS;
    return r;
}

/* The days that there is anything of, each made by itself. */
static int make_days(struct import *k) {
    int64_t first = 0, last = 0;
    int r = read_number(&k->from, "SELECT coalesce(min(key), 0) FROM events", &first);
    if (r == 0)
        r = read_number(&k->from, "SELECT coalesce(max(key), 0) FROM events", &last);
    if (r < 0 || !first)
        return r < 0 ? explain_errno(r, k->path, k->message) : 0;
    const int64_t day_ms = INT64_C(86400) * 1000;
    int64_t day = (first >> 12) / day_ms, end = (last >> 12) / day_ms;
    if (end - day >= DAYS_MAX)
        day = end - DAYS_MAX + 1;
    for (; r == 0 && day <= end; day++) {
        pg_int(pg_params(&k->to), (int32_t)day);
        r = pg_query(&k->to,
                     "SELECT make_day(parent, $1) FROM unnest(ARRAY['events', 'deliveries_closed',"
                     " 'attempts', 'transitions', 'receipts']) parent",
                     NULL);
    }
    return r < 0 ? explain(k, r, "days could not be made") : 0;
}

/* Nobody else gets at it until all is there, or nothing. */
static int claim_destination(struct import *k) {
    static const char *const settings[] = {
        "SET LOCAL statement_timeout=0",         "SET LOCAL idle_in_transaction_session_timeout=0",
        "SET LOCAL lock_timeout='5s'",           "SET LOCAL enable_seqscan=on",
        "SET LOCAL maintenance_work_mem='64MB'",
    };
    int r = 0;
    for (size_t i = 0; r == 0 && i < sizeof settings / sizeof settings[0]; i++)
        r = send(&k->to, settings[i]);
    if (r == 0)
        r = send(&k->to, "LOCK TABLE nodes, tenants, subscriptions, seal_keys, secrets, api_keys IN ACCESS"
                         " EXCLUSIVE MODE");
    if (r < 0)
        return strcmp(k->to.sqlstate, "55P03") == 0
                   ? explain(k, -EBUSY, "a posthorn runs on it: stop it first")
                   : explain(k, r, "it cannot be written to");
    return check_empty(k);
}

/* ---- all the tables ---- */

static int copy_table(struct import *k, const struct import_table *t, struct import_sum *ret) {
    int64_t n = 0;
    int r = read_number(&k->from, t->count, &n);
    if (r == 0)
        r = import_copy(&k->from, &k->to, t, tell, k, ret);
    if (r < 0)
        return store_explain(r, k->message, "the table %s could not be copied: %s%s", t->name, strerror(-r),
                             k->to.error ? "; PostgreSQL's answer is in the log" : "");
    if (ret->rows != (uint64_t)n)
        return store_explain(-EUCLEAN, k->message,
                             "%lld rows of %s belong to nothing: look with posthorn check --store sqlite:%s",
                             (long long)n - (long long)ret->rows, t->name, k->path);
    return 0;
}

static int compare_table(struct import *k, const struct import_table *t, const struct import_sum *copied) {
    struct import_sum there;
    int r = import_read_back(&k->to, t, tell, k, &there);
    if (r < 0)
        return store_explain(r, k->message, "the table %s could not be read back", t->name);
    if (there.rows != copied->rows || there.sum != copied->sum)
        return store_explain(-EUCLEAN, k->message, "the table %s is not what was copied: %llu rows of %llu",
                             t->name, (unsigned long long)there.rows, (unsigned long long)copied->rows);
    if (k->how->copied)
        k->how->copied(k->how->arg, t->name, there.rows);
    return 0;
}

/* New numbers go on where the old ones ended. */
static int move_sequences_on(struct import *k) {
    static const struct {
        const char *last, *set;
    } sequences[] = {
#define LAST_OF(table) "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name='" table "'), 0)"
#define SET_OF(table)  "SELECT setval(pg_get_serial_sequence('" table "', 'no'), greatest($1, 1), $1 > 0)"
        {LAST_OF("tenants"), SET_OF("tenants")},
        {LAST_OF("audit"), SET_OF("audit")},
        {LAST_OF("seal_keys"), SET_OF("seal_keys")},
        {"SELECT coalesce(max(no), 0) FROM workers", SET_OF("workers")},
        {LAST_OF("subscriptions"), "SELECT setval('subscription_no', greatest($1, 1), $1 > 0)"},
        {"SELECT max(coalesce((SELECT max(seq) FROM fanout_jobs), 0),"
         " coalesce((SELECT max(jobs_settled) FROM subscriptions), 0))",
         "SELECT setval('fanout_seq', greatest($1, 1), $1 > 0)"},
    };
    for (size_t i = 0; i < sizeof sequences / sizeof sequences[0]; i++) {
        int64_t last = 0;
        int r = read_number(&k->from, sequences[i].last, &last);
        if (r < 0)
            return explain_errno(r, k->path, k->message);
        pg_bigint(pg_params(&k->to), last);
        r = pg_query(&k->to, sequences[i].set, NULL);
        if (r < 0)
            return explain(k, r, "numbers could not be moved on");
    }
    return 0;
}

static int move_all(struct import *k) {
    _cleanup_free_ struct import_sum *sums = calloc(import_tables_n, sizeof *sums);
    if (!sums)
        return store_explain(-ENOMEM, k->message, "memory is out");
    int r = claim_destination(k);
    for (size_t i = 0; r == 0 && i < import_tables_n; i++)
        r = copy_table(k, &import_tables[i], &sums[i]);
    k->comparing = true;
    k->done = 0;
    for (size_t i = 0; r == 0 && i < import_tables_n; i++)
        r = compare_table(k, &import_tables[i], &sums[i]);
    return r < 0 ? r : move_sequences_on(k);
}

static int move_in_one_transaction(struct import *k) {
    pg_begin(&k->to);
    int r = move_all(k);
    if (r < 0) {
        pg_rollback(&k->to);
        return r;
    }
    r = pg_commit(&k->to, NULL, NULL);
    if (r == -EAGAIN)
        return explain(k, -EIO,
                       "the connection was lost at the very end: posthorn check --store … tells whether all "
                       "is there, or nothing");
    if (r < 0) {
        pg_rollback(&k->to);
        return explain(k, r, "it could not be committed: nothing is there");
    }
    /* It is there; the server would find out by itself. */
    (void)!pg_script(&k->to, "ANALYZE");
    return 0;
}

int store_import(const char *from, const char *to, const struct store_import *how, uint64_t *ret_rows,
                 const char **ret_message) {
    struct import k = {.how = how, .message = ret_message, .lock_fd = -1};
    int r = open_source(&k, from);
    if (r == 0)
        r = count_source(&k);
    if (r == 0)
        r = open_destination(&k, to);
    if (r == 0)
        r = check_empty(&k);
    if (r == 0)
        r = make_days(&k);
    if (r == 0)
        r = move_in_one_transaction(&k);
    *ret_rows = k.total;
    if (k.from.db)
        connection_close(&k.from);
    pg_close(&k.to);
    pg_source_free(k.source);
    if (k.lock_fd >= 0)
        close(k.lock_fd);
    return r;
}
