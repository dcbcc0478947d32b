/* Finding what a bulk replay takes: on from a cursor, in the order of events, a bounded number of rows at a
 * time. Each walk yields event, state (NULL: no delivery), reason, closed_at, type, ordering_key, and whether
 * the row is out of bounds. */
#include <errno.h>

#include "store/replay_judge.h"
#include "store/sqlite/sqlite.h"

enum { LOG_WORK_A_STEP = 1000 };

#define ROW "SELECT d.event, d.state, d.reason, d.closed_at, e.type, e.ordering_key, "
#define DLQ (1U << DELIVERY_DLQ)

/* The dead-letter queue of one subscription. */
static const char dead[] = ROW
    "0 FROM deliveries d INDEXED BY deliveries_dead CROSS JOIN events e ON e.key = d.event"
    " WHERE d.subscription = ?1 AND d.state = 4 AND d.event > ?2 AND d.event <= ?3 ORDER BY d.event LIMIT ?4";
/* One hour of its log. */
static const char hour_of_log[] =
    ROW "0 FROM subscription_log l CROSS JOIN deliveries d ON d.event = l.event AND d.subscription = "
        "l.subscription"
        " CROSS JOIN events e ON e.key = d.event WHERE l.hour = ?5 AND l.subscription = ?1 AND l.event > ?2"
        " AND l.event <= ?3 ORDER BY l.event LIMIT ?4";
/* What the log has not taken in: of all subscriptions. */
static const char newer_than_log[] =
    ROW "d.subscription <> ?1 FROM deliveries d CROSS JOIN events e ON e.key = d.event"
        " WHERE d.event > ?2 AND d.event <= ?3 ORDER BY d.event LIMIT ?4";
/* The tenant's events, with the subscription's delivery where there is one. An event whose fan-out goes on is
 * not missing: it may yet come. */
static const char events[] =
    "SELECT e.key, d.state, d.reason, d.closed_at, e.type, e.ordering_key,"
    " d.state IS NULL AND e.has_job AND EXISTS (SELECT 1 FROM fanout_jobs j WHERE j.event = e.key AND "
    "j.state <> 2), e.schema_version, e.body, e.data_size"
    " FROM events e INDEXED BY events_by_tenant LEFT JOIN deliveries d ON d.event = e.key AND d.subscription "
    "= ?1"
    " WHERE e.tenant = ?5 AND e.key > ?2 AND e.key <= ?3 ORDER BY e.key LIMIT ?4";
/* For counting over all live subscriptions of a tenant. */
#define OF_TENANT ROW "(SELECT s.status = 3 FROM subscriptions s WHERE s.no = d.subscription) FROM "
static const char dead_of_tenant[] = OF_TENANT
    "deliveries d INDEXED BY deliveries_failed CROSS JOIN events e ON e.key = d.event"
    " WHERE (d.state = 2 OR d.state = 4 OR d.state = 5) AND d.tenant = ?5 AND d.state = 4 AND d.event > ?2"
    " AND d.event <= ?3 AND ?1 = 0 LIMIT ?4";
static const char all_of_tenant[] =
    OF_TENANT "events e INDEXED BY events_by_tenant CROSS JOIN deliveries d ON d.event = e.key"
              " WHERE e.tenant = ?5 AND e.key > ?2 AND e.key <= ?3 AND ?1 = 0 LIMIT ?4";

static int is_wanted(sqlite3_stmt *st, const struct replay_filter *f, const struct subscription *sub,
                     unsigned *budget) {
    struct replay_place place = {
        .state = sqlite3_column_type(st, 1) == SQLITE_NULL ? -1 : (int)column_int(st, 1),
        .reason = (enum delivery_reason)column_int(st, 2),
        .closed_at = column_int(st, 3),
        .type = column_slice(st, 4),
        .ordering_key = column_slice(st, 5),
        .out_of_bounds = column_int(st, 6) != 0,
    };
    enum replay_verdict verdict = replay_judge(f, sub, &place);
    if (verdict != REPLAY_ASK_FILTER)
        return verdict == REPLAY_TAKE;
    return replay_ask_filter(sub, &place, column_slice(st, 7), column_slice(st, 8),
                             (uint32_t)column_int(st, 9), budget);
}

/* Looks at the statement's rows; 1 when it stopped for the budget or because enough were found. */
static int look_at(struct connection *c, sqlite3_stmt *st, const struct replay_filter *f,
                   const struct subscription *sub, struct replay_look *look) {
    int r;
    while ((r = statement_next(c, st)) > 0) {
        int wanted = is_wanted(st, f, sub, &look->budget);
        if (wanted < 0) {
            statement_done(st);
            return wanted;
        }
        look->cursor = (uint64_t)column_int(st, 0);
        look->budget--;
        if (wanted) {
            if (look->found)
                look->found[look->n] = (struct replay_candidate){
                    .event_key = look->cursor,
                    .missing = sqlite3_column_type(st, 1) == SQLITE_NULL,
                    .lane_key = subscription_lane_key(sub->ordering, column_slice(st, 5))};
            look->n++;
        }
        if (look->budget == 0 || look->n == look->max) {
            statement_done(st);
            return 1;
        }
    }
    return r;
}

static sqlite3_stmt *prepare(struct connection *c, const char *sql, uint32_t subscription_no, uint64_t upto,
                             const struct replay_look *look) {
    sqlite3_stmt *st = connection_prepare(c, sql);
    bind_int(st, 1, subscription_no);
    bind_int(st, 2, (int64_t)look->cursor);
    bind_int(st, 3, (int64_t)upto);
    bind_int(st, 4, look->budget);
    return st;
}

/* 1 when it stopped on the way; otherwise the cursor is at `upto`. */
static int walk_log(struct connection *c, const struct replay_filter *f, const struct subscription *sub,
                    uint64_t upto, struct replay_look *look) {
    int64_t hour = (int64_t)((look->cursor + 1) >> 34);
    int r = 0;
    while (look->cursor < upto && (r = log_find_hour(c, LOG_HOUR_FROM("subscription_log"), &hour)) > 0 &&
           hour <= (int64_t)(upto >> 34)) {
        sqlite3_stmt *st = prepare(c, hour_of_log, sub->no, upto, look);
        bind_int(st, 5, hour);
        r = look_at(c, st, f, sub, look);
        if (r != 0)
            return r;
        hour++;
        /* An empty hour is work, too. */
        if (--look->budget == 0) {
            look->cursor = ((uint64_t)hour << 34) - 1 < upto ? ((uint64_t)hour << 34) - 1 : upto;
            return 1;
        }
    }
    if (r < 0)
        return r;
    look->cursor = upto;
    return 0;
}

static int finish(struct replay_look *look, int r, uint64_t last) {
    if (r == 0) {
        look->ended = true;
        look->cursor = last;
    }
    return r < 0 ? r : 0;
}

static int walk_events(struct connection *c, const struct replay_filter *f, const struct subscription *sub,
                       struct replay_look *look) {
    sqlite3_stmt *st = prepare(c, events, sub->no, f->last_event, look);
    bind_int(st, 5, f->tenant_no);
    return look_at(c, st, f, sub, look);
}

int sqlite_find_replayable(struct store *s, const struct replay_filter *f, const struct subscription *sub,
                           struct replay_look *look) {
    struct connection *c = &sqlite_of(s)->writer;
    CHECK(look->budget > 0 && look->max > 0 && look->found);
    look->n = 0;
    look->ended = false;
    if (f->include_missing)
        return finish(look, walk_events(c, f, sub, look), f->last_event);
    if (f->states == DLQ)
        return finish(look, look_at(c, prepare(c, dead, sub->no, f->last_event, look), f, sub, look),
                      f->last_event);
    /* The log must have come as far as the replay goes. */
    bool more = false;
    int r = sqlite_extend_log(s, f->last_event, LOG_WORK_A_STEP, &more);
    if (r < 0)
        return r;
    if (more) {
        look->budget = 0;
        return 0;
    }
    return finish(look, walk_log(c, f, sub, f->last_event, look), f->last_event);
}

/* ---- counting, from a reader ---- */

static int count_subscription(struct connection *c, const struct replay_filter *f,
                              const struct subscription *sub, struct replay_look *look) {
    if (f->include_missing)
        return walk_events(c, f, sub, look);
    if (f->states == DLQ)
        return look_at(c, prepare(c, dead, sub->no, f->last_event, look), f, sub, look);
    int64_t watermark = 0;
    int r = log_watermark(c, &watermark);
    uint64_t upto = (uint64_t)watermark < f->last_event ? (uint64_t)watermark : f->last_event;
    if (r == 0 && look->cursor < upto)
        r = walk_log(c, f, sub, upto, look);
    if (r == 0 && upto < f->last_event)
        r = look_at(c, prepare(c, newer_than_log, sub->no, f->last_event, look), f, sub, look);
    return r;
}

int sqlite_count_replayable(struct store_reader *r, const struct replay_filter *f,
                            const struct subscription *sub, unsigned budget, uint64_t *ret, bool *ret_exact) {
    struct connection *c = &sqlite_reader_of(r)->conn;
    struct replay_look look = {
        .cursor = f->first_event ? f->first_event - 1 : 0, .budget = budget, .max = SIZE_MAX};
    int e;
    CHECK((sub != NULL) == (f->subscription_no != 0) && budget > 0);
    if (sub) {
        e = count_subscription(c, f, sub, &look);
    } else {
        sqlite3_stmt *st =
            prepare(c, f->states == DLQ ? dead_of_tenant : all_of_tenant, 0, f->last_event, &look);
        bind_int(st, 5, f->tenant_no);
        e = look_at(c, st, f, NULL, &look);
    }
    if (e < 0)
        return e;
    *ret = look.n;
    *ret_exact = e == 0;
    return 0;
}

/* ---- what was missing ---- */

int sqlite_replay_missing(struct store *s, uint64_t event_key, uint32_t subscription_no, uint32_t tenant_no,
                          uint64_t lane_key, int64_t now, struct slice source, struct slice requested_by) {
    struct connection *c = &sqlite_of(s)->writer;
    int blocked = lane_key ? lane_key_blocked(c, subscription_no, lane_key, now, event_key) : 0;
    if (blocked < 0)
        return blocked;
    sqlite3_stmt *st = connection_prepare(
        c, "INSERT OR IGNORE INTO deliveries (event, subscription, tenant, state, due_at, lane_key, order_at,"
           " window_at, created_at, replay_source, replay_by)"
           " SELECT key, ?2, ?3, 0, ?4, ?5, ?6, ?6, ?6, ?7, ?8 FROM events WHERE key=?1");
    bind_int(st, 1, (int64_t)event_key);
    bind_int(st, 2, subscription_no);
    bind_int(st, 3, tenant_no);
    bind_time(st, 4, blocked ? 0 : now);
    bind_time(st, 5, (int64_t)lane_key);
    bind_int(st, 6, now);
    bind_text(st, 7, source);
    bind_text(st, 8, requested_by);
    int r = statement_run(c, st);
    if (r < 0)
        return r;
    return sqlite3_changes(c->db) ? log_late_delivery(s, event_key, subscription_no) : -EEXIST;
}
