/* Reading events, newest first. */
#include <errno.h>

#include "store/sqlite/sqlite.h"

enum { LOOKED_AT_MAX = 20000 }; /* events that a page looks at for those of a type */

/* Every query gives these; a job counts the deliveries it made itself. */
#define ROW_COLUMNS EVENT_COLUMNS ", coalesce(j.state, 2), events.deliveries + coalesce(j.deliveries, 0)"
#define ROW_FROM    " FROM events"
#define ROW_JOB     " LEFT JOIN fanout_jobs j ON events.has_job AND j.event = events.key"

static void read_row(sqlite3_stmt *st, struct event_row *ret) {
    read_event_columns(st, &ret->event);
    ret->fanout = (enum fanout_state)column_int(st, 12);
    ret->fanout_deliveries = (uint64_t)column_int(st, 13);
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

int sqlite_read_event(struct store_reader *r, uint32_t tenant_no, struct id id, event_row_fn fn, void *arg) {
    sqlite3_stmt *st = connection_prepare(&sqlite_reader_of(r)->conn,
                                          "SELECT " ROW_COLUMNS ROW_FROM ROW_JOB
                                          " WHERE events.key=? AND events.tail=? AND events.tenant=?");
    bind_int(st, 1, (int64_t)id.key);
    bind_int(st, 2, (int64_t)id.tail);
    bind_int(st, 3, tenant_no);
    size_t n;
    int e = each_row(&sqlite_reader_of(r)->conn, st, fn, arg, &n);
    return e == 0 && n == 0 ? -ENOENT : e;
}

/* Events from first on and before `before`. */
struct key_span {
    int64_t first, before;
};

static struct key_span span_of(const struct event_query *q) {
    /* created_at is the key's time, so its bounds are bounds of the key. */
    uint64_t before = q->before_key ? q->before_key : ID_KEY_MAX + 1;
    if (q->until && id_key_at(q->until) < before)
        before = id_key_at(q->until);
    return (struct key_span){(int64_t)id_key_at(q->since), (int64_t)before};
}

static sqlite3_stmt *prepare_span(struct connection *c, const char *sql, const struct event_query *q,
                                  const struct key_span *s, size_t limit) {
    sqlite3_stmt *st = connection_prepare(c, sql);
    bind_int(st, 1, q->tenant_no);
    bind_int(st, 2, s->first);
    bind_int(st, 3, s->before);
    bind_int(st, 4, limit > INT64_MAX ? INT64_MAX : (int64_t)limit);
    return st;
}

#define BY_TENANT                                                                                            \
    "SELECT " ROW_COLUMNS ROW_FROM " INDEXED BY events_by_tenant" ROW_JOB                                    \
    " WHERE events.tenant=?1 AND events.key>=?2 AND events.key<?3 ORDER BY events.key DESC LIMIT ?4"

/* A page of events of one type, while it is filled. */
struct type_page {
    const struct event_query *q;
    event_row_fn fn;
    void *arg;
    size_t n;
    bool full;     /* or ended early, at */
    uint64_t stop; /* when not 0 */
};

/* Passes over what is of another type; looks at no more than LOOKED_AT_MAX. */
static int each_of_type(struct connection *c, sqlite3_stmt *st, struct type_page *p) {
    int r;
    for (size_t looked = 1; (r = statement_next(c, st)) > 0; looked++) {
        uint64_t key = (uint64_t)column_int(st, 0);
        if (slice_eq(column_slice(st, 3), p->q->type)) {
            struct event_row row;
            read_row(st, &row);
            r = p->fn(p->arg, &row);
            p->full = ++p->n >= p->q->limit;
        } else {
            r = 0;
        }
        if (r == 0 && !p->full && looked == LOOKED_AT_MAX) {
            p->stop = key;
            p->full = true;
        }
        if (r != 0 || p->full) {
            statement_done(st);
            return r;
        }
    }
    return r;
}

/* Hour by hour; there are no more hours than retention keeps. */
static int walk_type_log(struct connection *c, const struct key_span *s, struct type_page *p) {
    static const char of_hour[] =
        "SELECT " ROW_COLUMNS " FROM type_log l CROSS JOIN events ON events.key=l.event" ROW_JOB
        " WHERE events.tenant=?1 AND l.event>=?2 AND l.event<?3 AND l.hour=?5 AND l.type=?6"
        " ORDER BY l.event DESC LIMIT ?4";
    int r = 0;
    for (int64_t hour = (s->before - 1) >> 34;
         (r = log_find_hour(c, LOG_HOUR_BEFORE("type_log"), &hour)) > 0 && hour >= s->first >> 34; hour--) {
        sqlite3_stmt *st = prepare_span(c, of_hour, p->q, s, p->q->limit - p->n);
        bind_int(st, 5, hour);
        bind_int(st, 6, type_hash(p->q->tenant_no, p->q->type));
        r = each_of_type(c, st, p);
        if (r != 0 || p->full)
            return r;
    }
    return r < 0 ? r : 0;
}

/* First what the log of types has not taken in yet, then the log. */
static int list_of_type(struct connection *c, struct type_page *p) {
    static const char newer_than_log[] = BY_TENANT " -- and of any type";
    struct key_span logged = span_of(p->q), newer = logged;
    int64_t watermark = 0;
    int r = type_watermark(c, &watermark);
    if (newer.first <= watermark)
        newer.first = watermark + 1;
    if (r == 0 && newer.first < newer.before)
        r = each_of_type(c, prepare_span(c, newer_than_log, p->q, &newer, LOOKED_AT_MAX), p);
    if (r != 0 || p->full)
        return r;
    if (logged.before > watermark + 1)
        logged.before = watermark + 1;
    return walk_type_log(c, &logged, p);
}

int sqlite_list_events(struct store_reader *r, const struct event_query *q, event_row_fn fn, void *arg,
                       uint64_t *ret_stop) {
    static const char by_ordering_key[] =
        "SELECT " ROW_COLUMNS ROW_FROM " INDEXED BY events_by_ordering_key" ROW_JOB
        " WHERE events.tenant=?1 AND events.ordering_key=?5 AND events.key>=?2 AND events.key<?3"
        " ORDER BY events.key DESC LIMIT ?4";
    struct connection *c = &sqlite_reader_of(r)->conn;
    struct key_span s = span_of(q);
    struct type_page page = {.q = q, .fn = fn, .arg = arg};
    size_t n;
    int e;
    if (q->ordering_key.p) {
        sqlite3_stmt *st = prepare_span(c, by_ordering_key, q, &s, q->type.p ? LOOKED_AT_MAX : q->limit);
        bind_text(st, 5, q->ordering_key);
        e = q->type.p ? each_of_type(c, st, &page) : each_row(c, st, fn, arg, &n);
    } else if (q->type.p) {
        e = list_of_type(c, &page);
    } else {
        e = each_row(c, prepare_span(c, BY_TENANT, q, &s, q->limit), fn, arg, &n);
    }
    *ret_stop = page.stop;
    return e;
}

int sqlite_read_body(struct store_reader *r, uint32_t tenant_no, uint64_t event_key, event_row_fn fn,
                     void *arg) {
    sqlite3_stmt *st = connection_prepare(&sqlite_reader_of(r)->conn,
                                          "SELECT " EVENT_COLUMNS
                                          ", 2, events.deliveries FROM events WHERE key=? AND tenant=?");
    bind_int(st, 1, (int64_t)event_key);
    bind_int(st, 2, tenant_no);
    size_t n;
    int e = each_row(&sqlite_reader_of(r)->conn, st, fn, arg, &n);
    return e == 0 && n == 0 ? -ENOENT : e;
}
