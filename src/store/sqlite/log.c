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

/* As the writer's transaction sees them. */
static int known_watermarks(struct store *s) {
    int r = s->log_watermark < 0 ? log_watermark(&s->writer, &s->log_watermark) : 0;
    return r == 0 && s->type_watermark < 0 ? type_watermark(&s->writer, &s->type_watermark) : r;
}

int log_late_delivery(struct store *s, uint64_t event_key, uint32_t subscription_no) {
    int r = known_watermarks(s);
    if (r < 0 || (int64_t)event_key > s->log_watermark)
        return r;
    sqlite3_stmt *st = connection_prepare(
        &s->writer,
        "INSERT OR IGNORE INTO subscription_log (hour, subscription, event) VALUES (?1 >> 34, ?2, ?1)");
    bind_int(st, 1, (int64_t)event_key);
    bind_int(st, 2, subscription_no);
    return statement_run(&s->writer, st);
}

int log_late_event(struct store *s, const struct event_record *e) {
    int r = known_watermarks(s);
    if (r < 0 || (int64_t)e->id.key > s->type_watermark)
        return r;
    sqlite3_stmt *st = connection_prepare(
        &s->writer, "INSERT OR IGNORE INTO type_log (hour, type, event) VALUES (?1 >> 34, ?2, ?1)");
    bind_int(st, 1, (int64_t)e->id.key);
    bind_int(st, 2, type_hash(e->tenant_no, e->type));
    return statement_run(&s->writer, st);
}

/* One of the two logs. */
struct log {
    const char *cut;     /* the key `limit` rows on */
    const char *take_in; /* sorted as the log is, so that each of its pages is written once a step */
    const char *mark;
};

static const struct log by_subscription = {
    "SELECT event FROM deliveries WHERE event>? AND event<=? ORDER BY event LIMIT 1 OFFSET ?",
    "INSERT OR IGNORE INTO subscription_log (hour, subscription, event) SELECT event >> 34, subscription,"
    " event FROM deliveries WHERE event>? AND event<=? ORDER BY 1, 2, 3",
    "UPDATE marks SET value=? WHERE name='log_watermark'"};
static const struct log by_type = {
    "SELECT key FROM events WHERE key>? AND key<=? ORDER BY key LIMIT 1 OFFSET ?",
    "INSERT OR IGNORE INTO type_log (hour, type, event) SELECT key >> 34, type_hash(tenant, type), key"
    " FROM events WHERE key>? AND key<=? ORDER BY 1, 2, 3",
    "UPDATE marks SET value=? WHERE name='type_watermark'"};

/* The event at which a step of about `limit` rows ends: whole events, at least one. *ret_more: others follow.
 */
static int find_cut(struct connection *c, const struct log *log, int64_t watermark, int64_t upto,
                    unsigned limit, int64_t *ret_cut, bool *ret_more) {
    sqlite3_stmt *st = connection_prepare(c, log->cut);
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

static int take_in(struct connection *c, const struct log *log, int64_t after, int64_t upto) {
    sqlite3_stmt *st = connection_prepare(c, log->take_in);
    bind_int(st, 1, after);
    bind_int(st, 2, upto);
    int r = statement_run(c, st);
    if (r < 0)
        return r;
    st = connection_prepare(c, log->mark);
    bind_int(st, 1, upto);
    return statement_run(c, st);
}

static int extend(struct store *s, const struct log *log, int64_t *watermark, int64_t upto, unsigned limit,
                  bool *ret_more) {
    int64_t cut = 0;
    *ret_more = false;
    if (upto <= *watermark)
        return 0;
    int r = find_cut(&s->writer, log, *watermark, upto, limit, &cut, ret_more);
    if (r == 0)
        r = take_in(&s->writer, log, *watermark, cut);
    if (r == 0)
        *watermark = cut;
    return r;
}

int store_extend_log(struct store *s, uint64_t upto_key, unsigned limit, bool *ret_more) {
    CHECK(limit > 0 && upto_key <= ID_KEY_MAX);
    bool more = false;
    int r = known_watermarks(s);
    if (r == 0)
        r = extend(s, &by_subscription, &s->log_watermark, (int64_t)upto_key, limit, ret_more);
    /* The other has its turn when this one has caught up, and is left behind by no more than a step. */
    if (r == 0 && !*ret_more)
        r = extend(s, &by_type, &s->type_watermark, (int64_t)upto_key, limit, &more);
    if (r == 0)
        *ret_more |= more;
    return r;
}
