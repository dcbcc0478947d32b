/* The log of deliveries by subscription, filled in behind the events (see the schema). */
#include <errno.h>

#include "store/sqlite/sqlite.h"

int log_watermark(struct connection *c, int64_t *ret) {
    sqlite3_stmt *st = connection_prepare(c, "SELECT value FROM marks WHERE name='log_watermark'");
    int r = statement_next(c, st);
    if (r <= 0)
        return r < 0 ? r : -EIO;
    *ret = column_int(st, 0);
    statement_done(st);
    return 0;
}

static int known_watermark(struct store *s, int64_t *ret) {
    int r = s->log_watermark < 0 ? log_watermark(&s->writer, &s->log_watermark) : 0;
    if (r == 0)
        *ret = s->log_watermark;
    return r;
}

int log_late_delivery(struct store *s, uint64_t event_key, uint32_t subscription_no) {
    int64_t watermark = 0;
    int r = known_watermark(s, &watermark);
    if (r < 0 || (int64_t)event_key > watermark)
        return r;
    sqlite3_stmt *st = connection_prepare(
        &s->writer,
        "INSERT OR IGNORE INTO subscription_log (hour, subscription, event) VALUES (?1 >> 34, ?2, ?1)");
    bind_int(st, 1, (int64_t)event_key);
    bind_int(st, 2, subscription_no);
    return statement_run(&s->writer, st);
}

/* The event at which a step of about `limit` deliveries ends: whole events, at least one. *ret_more: others
 * follow. */
static int find_cut(struct connection *c, int64_t watermark, int64_t upto, unsigned limit, int64_t *ret_cut,
                    bool *ret_more) {
    sqlite3_stmt *st =
        connection_prepare(c, "SELECT event FROM deliveries WHERE event>? AND event<=? ORDER BY event"
                              " LIMIT 1 OFFSET ?");
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

static int take_in(struct connection *c, int64_t after, int64_t upto) {
    /* Sorted as the log is, so that each of its pages is written once a step. */
    sqlite3_stmt *st = connection_prepare(c, "INSERT OR IGNORE INTO subscription_log (hour, subscription, "
                                             "event) SELECT event >> 34, subscription, event"
                                             " FROM deliveries WHERE event>? AND event<=? ORDER BY 1, 2, 3");
    bind_int(st, 1, after);
    bind_int(st, 2, upto);
    int r = statement_run(c, st);
    if (r < 0)
        return r;
    st = connection_prepare(c, "UPDATE marks SET value=? WHERE name='log_watermark'");
    bind_int(st, 1, upto);
    return statement_run(c, st);
}

int store_extend_log(struct store *s, uint64_t upto_key, unsigned limit, bool *ret_more) {
    CHECK(limit > 0 && upto_key <= ID_KEY_MAX);
    int64_t watermark = 0, cut = 0;
    bool more;
    int r = known_watermark(s, &watermark);
    if (r < 0)
        return r;
    if ((int64_t)upto_key <= watermark) {
        *ret_more = false;
        return 0;
    }
    r = find_cut(&s->writer, watermark, (int64_t)upto_key, limit, &cut, &more);
    if (r == 0)
        r = take_in(&s->writer, watermark, cut);
    if (r < 0)
        return r;
    s->log_watermark = cut;
    *ret_more = more;
    return 0;
}
