/* The logs of deliveries by subscription and of events by type, filled in behind the events (see the schema).
 */
#include <errno.h>

#include "store/sqlite/sqlite.h"

static int read_mark(struct connection *c, const char *sql, int64_t *ret) {
    sqlite3_stmt *st = connection_prepare(c, sql);
    int r = statement_next(c, st);
    if (r <= 0)
        return r < 0 ? r : -EIO;
    *ret = column_int(st, 0);
    statement_done(st);
    return 0;
}

int log_watermark(struct connection *c, int64_t *ret) {
    return read_mark(c, "SELECT value FROM marks WHERE name='log_watermark'", ret);
}

int type_watermark(struct connection *c, int64_t *ret) {
    return read_mark(c, "SELECT value FROM marks WHERE name='type_watermark'", ret);
}

int log_find_hour(struct connection *c, const char *sql, int64_t *hour) {
    sqlite3_stmt *st = connection_prepare(c, sql);
    bind_int(st, 1, *hour);
    int r = statement_next(c, st);
    if (r > 0) {
        *hour = column_int(st, 0);
        statement_done(st);
    }
    return r;
}

/* What the log by subscription holds: all deliveries of events up to `watermark`; and of the next event,
 * `event`, when its number is not 0, those to subscriptions up to `subscription`. The latter is known to this
 * process alone: readers do not look there in the log, and after a restart it is done again. */
static int know_extents(struct store *s) {
    int r = 0;
    if (sqlite_of(s)->log.watermark < 0) {
        sqlite_of(s)->log = (struct log_extent){.watermark = -1};
        r = log_watermark(&sqlite_of(s)->writer, &sqlite_of(s)->log.watermark);
    }
    return r == 0 && sqlite_of(s)->type_watermark < 0
               ? type_watermark(&sqlite_of(s)->writer, &sqlite_of(s)->type_watermark)
               : r;
}

void log_forget(struct store *s) {
    sqlite_of(s)->log.watermark = sqlite_of(s)->type_watermark = -1;
}

static bool is_within(const struct log_extent *e, int64_t event, uint32_t subscription_no) {
    return event <= e->watermark || (event == e->event && subscription_no <= e->subscription);
}

int log_late_delivery(struct store *s, uint64_t event_key, uint32_t subscription_no) {
    int r = know_extents(s);
    if (r < 0 || !is_within(&sqlite_of(s)->log, (int64_t)event_key, subscription_no))
        return r;
    sqlite3_stmt *st = connection_prepare(
        &sqlite_of(s)->writer,
        "INSERT OR IGNORE INTO subscription_log (hour, subscription, event) VALUES (?1 >> 34, ?2, ?1)");
    bind_int(st, 1, (int64_t)event_key);
    bind_int(st, 2, subscription_no);
    return statement_run(&sqlite_of(s)->writer, st);
}

int log_late_event(struct store *s, const struct event_record *e) {
    int r = know_extents(s);
    if (r < 0 || (int64_t)e->id.key > sqlite_of(s)->type_watermark)
        return r;
    sqlite3_stmt *st =
        connection_prepare(&sqlite_of(s)->writer,
                           "INSERT OR IGNORE INTO type_log (hour, type, event) VALUES (?1 >> 34, ?2, ?1)");
    bind_int(st, 1, (int64_t)e->id.key);
    bind_int(st, 2, type_hash(e->tenant_no, e->type));
    return statement_run(&sqlite_of(s)->writer, st);
}

/* ---- the log by subscription ---- */

/* The last place of what is taken in. */
static void bind_extent(sqlite3_stmt *st, int at, const struct log_extent *e) {
    bind_int(st, at, e->event ? e->event : e->watermark);
    bind_int(st, at + 1, e->event ? e->subscription : UINT32_MAX);
}

/* How far a step of `limit` deliveries goes: an event may have more. *ret_more: others follow. */
static int find_extent(struct connection *c, const struct log_extent *from, int64_t upto, unsigned limit,
                       struct log_extent *ret_to, bool *ret_more) {
    sqlite3_stmt *st = connection_prepare(c, "SELECT event, subscription FROM deliveries"
                                             " WHERE (event, subscription) > (?, ?) AND event <= ?"
                                             " ORDER BY event, subscription LIMIT 1 OFFSET ?");
    bind_extent(st, 1, from);
    bind_int(st, 3, upto);
    bind_int(st, 4, limit - 1);
    int r = statement_next(c, st);
    if (r < 0)
        return r;
    *ret_more = r > 0;
    *ret_to = (struct log_extent){.watermark = upto};
    if (r > 0) {
        *ret_to = (struct log_extent){.watermark = column_int(st, 0) - 1,
                                      .event = column_int(st, 0),
                                      .subscription = (uint32_t)column_int(st, 1)};
        statement_done(st);
    }
    return 0;
}

static int take_in_deliveries(struct connection *c, const struct log_extent *from,
                              const struct log_extent *to) {
    /* Sorted as the log is, so that each of its pages is written once a step. */
    sqlite3_stmt *st = connection_prepare(
        c, "INSERT OR IGNORE INTO subscription_log (hour, subscription, event)"
           " SELECT event >> 34, subscription, event FROM deliveries WHERE (event, subscription) > (?, ?)"
           " AND (event, subscription) <= (?, ?) ORDER BY 1, 2, 3");
    bind_extent(st, 1, from);
    bind_extent(st, 3, to);
    int r = statement_run(c, st);
    if (r < 0 || to->watermark == from->watermark)
        return r;
    st = connection_prepare(c, "UPDATE marks SET value=? WHERE name='log_watermark'");
    bind_int(st, 1, to->watermark);
    return statement_run(c, st);
}

static int extend_by_subscription(struct store *s, int64_t upto, unsigned limit, bool *ret_more) {
    struct log_extent to;
    *ret_more = false;
    if (upto <= sqlite_of(s)->log.watermark)
        return 0;
    int r = find_extent(&sqlite_of(s)->writer, &sqlite_of(s)->log, upto, limit, &to, ret_more);
    if (r == 0)
        r = take_in_deliveries(&sqlite_of(s)->writer, &sqlite_of(s)->log, &to);
    if (r == 0)
        sqlite_of(s)->log = to;
    return r;
}

/* ---- the log by type ---- */

/* The event at which a step of `limit` events ends. *ret_more: others follow. */
static int find_event(struct connection *c, int64_t watermark, int64_t upto, unsigned limit, int64_t *ret_cut,
                      bool *ret_more) {
    sqlite3_stmt *st =
        connection_prepare(c, "SELECT key FROM events WHERE key>? AND key<=? ORDER BY key LIMIT 1 OFFSET ?");
    bind_int(st, 1, watermark);
    bind_int(st, 2, upto);
    bind_int(st, 3, limit - 1);
    int r = statement_next(c, st);
    if (r < 0)
        return r;
    *ret_more = r > 0;
    *ret_cut = r > 0 ? column_int(st, 0) : upto;
    if (r > 0)
        statement_done(st);
    return 0;
}

static int take_in_events(struct connection *c, int64_t after, int64_t upto) {
    sqlite3_stmt *st = connection_prepare(
        c, "INSERT OR IGNORE INTO type_log (hour, type, event) SELECT key >> 34, type_hash(tenant, type), key"
           " FROM events WHERE key>? AND key<=? ORDER BY 1, 2, 3");
    bind_int(st, 1, after);
    bind_int(st, 2, upto);
    int r = statement_run(c, st);
    if (r < 0)
        return r;
    st = connection_prepare(c, "UPDATE marks SET value=? WHERE name='type_watermark'");
    bind_int(st, 1, upto);
    return statement_run(c, st);
}

static int extend_by_type(struct store *s, int64_t upto, unsigned limit, bool *ret_more) {
    int64_t cut = 0;
    *ret_more = false;
    if (upto <= sqlite_of(s)->type_watermark)
        return 0;
    int r = find_event(&sqlite_of(s)->writer, sqlite_of(s)->type_watermark, upto, limit, &cut, ret_more);
    if (r == 0)
        r = take_in_events(&sqlite_of(s)->writer, sqlite_of(s)->type_watermark, cut);
    if (r == 0)
        sqlite_of(s)->type_watermark = cut;
    return r;
}

int sqlite_extend_log(struct store *s, uint64_t upto_key, unsigned limit, bool *ret_more) {
    CHECK(limit > 0 && upto_key <= ID_KEY_MAX);
    bool more = false;
    int r = know_extents(s);
    if (r == 0)
        r = extend_by_subscription(s, (int64_t)upto_key, limit, ret_more);
    /* The other has its turn when this one has caught up, and is left behind by no more than a step. */
    if (r == 0 && !*ret_more)
        r = extend_by_type(s, (int64_t)upto_key, limit, &more);
    if (r == 0)
        *ret_more |= more;
    return r;
}
