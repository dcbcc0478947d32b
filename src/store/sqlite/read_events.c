/* Reading events, newest first. */
#include <errno.h>

#include "store/sqlite/sqlite.h"

/* Every query gives these; a job counts the deliveries it made itself. */
#define ROW_COLUMNS EVENT_COLUMNS ", coalesce(j.state, 2), events.deliveries + coalesce(j.deliveries, 0)"
#define ROW_FROM    " FROM events"
#define ROW_JOB     " LEFT JOIN fanout_jobs j ON events.has_job AND j.event = events.key"

static void read_row(sqlite3_stmt *st, struct event_row *ret) {
    read_event_columns(st, &ret->event);
    ret->fanout = (enum fanout_state)column_int(st, 11);
    ret->fanout_deliveries = (uint64_t)column_int(st, 12);
}

static int each_row(struct connection *c, sqlite3_stmt *st, event_row_fn fn, void *arg, size_t *ret_n) {
    int r;
    for (*ret_n = 0; (r = statement_next(c, st)) > 0; ++*ret_n) {
        struct event_row row;
        read_row(st, &row);
        r = fn(arg, &row);
        if (r != 0) {
            statement_done(st);
            return r;
        }
    }
    return r;
}

int store_read_event(struct store_reader *r, uint32_t tenant_no, struct id id, event_row_fn fn, void *arg) {
    sqlite3_stmt *st =
        connection_prepare(&r->conn, "SELECT " ROW_COLUMNS ROW_FROM ROW_JOB
                                     " WHERE events.key=? AND events.tail=? AND events.tenant=?");
    bind_int(st, 1, (int64_t)id.key);
    bind_int(st, 2, (int64_t)id.tail);
    bind_int(st, 3, tenant_no);
    size_t n;
    int e = each_row(&r->conn, st, fn, arg, &n);
    return e == 0 && n == 0 ? -ENOENT : e;
}

int store_list_events(struct store_reader *r, const struct event_query *q, event_row_fn fn, void *arg) {
    /* created_at is the key's time, so its bounds are bounds of the key. */
    static const char by_tenant[] = "SELECT " ROW_COLUMNS ROW_FROM " INDEXED BY events_by_tenant" ROW_JOB
                                    " WHERE events.tenant=?1 AND events.key>=?2 AND events.key<?3"
                                    " AND (?4 IS NULL OR events.type=?4)"
                                    " ORDER BY events.key DESC LIMIT ?5";
    static const char by_ordering_key[] =
        "SELECT " ROW_COLUMNS ROW_FROM " INDEXED BY events_by_ordering_key" ROW_JOB
        " WHERE events.tenant=?1 AND events.ordering_key=?6 AND events.key>=?2 AND events.key<?3"
        " AND (?4 IS NULL OR events.type=?4) ORDER BY events.key DESC LIMIT ?5";
    uint64_t before = q->before_key ? q->before_key : ID_KEY_MAX + 1;
    if (q->until && id_key_at(q->until) < before)
        before = id_key_at(q->until);
    sqlite3_stmt *st = connection_prepare(&r->conn, q->ordering_key.p ? by_ordering_key : by_tenant);
    bind_int(st, 1, q->tenant_no);
    bind_int(st, 2, (int64_t)id_key_at(q->since));
    bind_int(st, 3, (int64_t)before);
    bind_text(st, 4, q->type);
    bind_int(st, 5, q->limit > INT64_MAX ? INT64_MAX : (int64_t)q->limit);
    if (q->ordering_key.p)
        bind_text(st, 6, q->ordering_key);
    size_t n;
    return each_row(&r->conn, st, fn, arg, &n);
}

int store_read_body(struct store_reader *r, uint64_t event_key, event_row_fn fn, void *arg) {
    sqlite3_stmt *st = connection_prepare(&r->conn, "SELECT " EVENT_COLUMNS
                                                    ", 2, events.deliveries FROM events WHERE key=?");
    bind_int(st, 1, (int64_t)event_key);
    size_t n;
    int e = each_row(&r->conn, st, fn, arg, &n);
    return e == 0 && n == 0 ? -ENOENT : e;
}
