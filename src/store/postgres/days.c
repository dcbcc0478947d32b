/* Work of the store's own that nobody waits for, on one node at a time: the days of the large tables are made
 * ahead and dropped whole, and counts that are kept by deltas are summed up. On a reader's connection, so
 * that no writer stands still meanwhile. */
#include <errno.h>

#include "base/clock.h"
#include "base/log.h"
#include "store/postgres/postgres.h"

enum {
    DAYS_AHEAD = 4,
    DAYS_DROPPED_MAX = 8, /* a time */
    DAYS_LOOKED_AT_MAX = 64,
    DAYS_EVERY_MS = 60000,
    FOLDED_MAX = 1000,          /* counts a time */
    CHANGES_DROPPED_MAX = 1000, /* a time */
    CHANGES_KEPT_MS = 3600000,  /* every node reads them within a second, or ends */
};

static const int64_t DAY_MS = INT64_C(86400) * 1000;

int64_t postgres_retain_floor(struct store *s, int64_t before) {
    (void)s;
    return before - before % DAY_MS;
}

/* A transaction that may write, and that one node at a time has. 1; 0 when another has it. */
static int begin(struct pg *c) {
    int r = pg_ensure(c);
    if (r < 0)
        return r;
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    pg_begin(c);
    r = pg_send(c, "SET TRANSACTION READ WRITE");
    if (r == 0)
        r = pg_query_row(c, "SELECT pg_try_advisory_xact_lock(" PG_LOCK_CLASS ", 3)", &rows);
    bool mine = r > 0 && pg_column_int(&rows, 0);
    if (!mine)
        pg_rollback(c);
    return r < 0 ? r : mine;
}

static int end(struct pg *c, int r) {
    if (r == 0)
        r = pg_commit(c, NULL, NULL);
    if (r < 0 && c->in_transaction)
        pg_rollback(c);
    return r;
}

/* ---- days ---- */

/* One table's day, in a transaction of its own: its lock is held for some milliseconds. */
static int make_day(struct pg *c, const char *table, int64_t day) {
    int r = begin(c);
    if (r <= 0)
        return r;
    struct pg_params *p = pg_params(c);
    pg_text(p, slice_of(table));
    pg_int(p, (int32_t)day);
    return end(c, pg_query(c, "SELECT make_day($1, $2)", NULL));
}

static int make_days(struct pg *c, int64_t now) {
    static const char *const tables[] = {"events", "deliveries_closed", "attempts", "transitions",
                                         "receipts"};
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    struct pg_params *p = pg_params(c);
    pg_bigint(p, now / DAY_MS);
    pg_int(p, DAYS_AHEAD);
    int r = pg_query(c,
                     "SELECT day FROM generate_series($1::integer, $1::integer+$2) day WHERE"
                     " to_regclass(day_name('events', day)) IS NULL OR"
                     " to_regclass(day_name('receipts', day)) IS NULL",
                     &rows);
    while (r == 0 && pg_next(&rows))
        for (size_t i = 0; r == 0 && i < sizeof tables / sizeof tables[0]; i++)
            r = make_day(c, tables[i], pg_column_int(&rows, 0));
    return r;
}

/* 1 when it was dropped. */
static int drop_day(struct pg *c, int64_t day) {
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    int r = begin(c);
    if (r <= 0)
        return r;
    pg_int(pg_params(c), (int32_t)day);
    r = pg_query_row(c, "SELECT CASE WHEN is_day_open($1) THEN false ELSE drop_day($1) END", &rows);
    bool dropped = r > 0 && pg_column_int(&rows, 0);
    r = end(c, r < 0 ? r : 0);
    if (r == 0 && dropped)
        log_info("a day has left the store", log_int("day", day));
    return r < 0 ? r : dropped;
}

/* Days that ended before `before`, the oldest first. */
static int drop_days(struct pg *c, int64_t before) {
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    struct pg_params *p = pg_params(c);
    pg_int(p, (int32_t)(before / DAY_MS));
    pg_int(p, DAYS_LOOKED_AT_MAX);
    int r = pg_query(c,
                     "SELECT day FROM (SELECT to_date(right(c.relname, 8), 'YYYYMMDD') - date '1970-01-01' AS"
                     " day FROM pg_inherits i JOIN pg_class c ON c.oid=i.inhrelid WHERE"
                     " i.inhparent='events'::regclass AND c.relname ~ '^events_[0-9]{8}$') d WHERE day < $1"
                     " ORDER BY day LIMIT $2",
                     &rows);
    for (int dropped = 0; r >= 0 && dropped < DAYS_DROPPED_MAX && pg_next(&rows); dropped += r > 0)
        r = drop_day(c, pg_column_int(&rows, 0));
    return r < 0 ? r : 0;
}

/* ---- counts ---- */

static int fold_dlq_counts(struct pg *c) {
    int r = begin(c);
    if (r <= 0)
        return r;
    pg_int(pg_params(c), FOLDED_MAX);
    return end(c,
               pg_query(c,
                        "WITH many AS (SELECT tenant, subscription, reason FROM dlq_counts GROUP BY tenant,"
                        " subscription, reason HAVING count(*) > 1 OR sum(n)=0 LIMIT $1), gone AS (DELETE"
                        " FROM dlq_counts d USING many m WHERE d.tenant=m.tenant AND"
                        " d.subscription=m.subscription AND d.reason=m.reason RETURNING d.*) INSERT INTO"
                        " dlq_counts (tenant, subscription, reason, n) SELECT tenant, subscription, reason,"
                        " sum(n) FROM gone GROUP BY tenant, subscription, reason HAVING sum(n) <> 0",
                        NULL));
}

/* Of replays that no step will come to any more. One that is worked on just now is left to who does. */
static int fold_replay_counts(struct pg *c) {
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    int r = begin(c);
    if (r <= 0)
        return r;
    pg_int(pg_params(c), FOLDED_MAX);
    r = pg_query(c,
                 "SELECT r.tenant, r.key FROM (SELECT DISTINCT tenant, replay FROM replay_counts ORDER BY"
                 " tenant, replay LIMIT $1) c JOIN replays r ON r.tenant=c.tenant AND r.key=c.replay"
                 " FOR UPDATE OF r SKIP LOCKED",
                 &rows);
    while (r == 0 && pg_next(&rows))
        r = pg_take_in_replayed(c, (uint32_t)pg_column_int(&rows, 0), (uint64_t)pg_column_int(&rows, 1));
    if (r == 0)
        r = pg_send(c, "DELETE FROM replay_counts c WHERE NOT EXISTS (SELECT 1 FROM replays r WHERE"
                       " r.tenant=c.tenant AND r.key=c.replay)");
    return end(c, r);
}

/* ---- the change feed ---- */

static int drop_changes(struct pg *c, int64_t now) {
    int r = begin(c);
    if (r <= 0)
        return r;
    struct pg_params *p = pg_params(c);
    pg_int(p, CHANGES_DROPPED_MAX);
    pg_bigint(p, now - CHANGES_KEPT_MS);
    return end(c, pg_query(c,
                           "DELETE FROM changes WHERE ctid=ANY(ARRAY(SELECT ctid FROM changes ORDER BY xid"
                           " LIMIT $1)) AND at<$2",
                           NULL));
}

int postgres_keep_house(struct store_reader *reader, int64_t now, int64_t before) {
    struct pg_reader *r = pg_reader_of(reader);
    int e = fold_replay_counts(&r->conn);
    if (e == 0)
        e = fold_dlq_counts(&r->conn);
    if (e == 0)
        e = drop_changes(&r->conn, now);
    if (e < 0 || now < r->days_due_at)
        return e;
    r->days_due_at = now + DAYS_EVERY_MS;
    e = make_days(&r->conn, now);
    return e == 0 && before ? drop_days(&r->conn, before) : e;
}
