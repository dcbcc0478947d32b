/* Reading deliveries, newest first, with their attempts and transitions.
 *
 * A page begins and ends within a span of (event, subscription); every filter on time, event and cursor only
 * narrows the span. Which index steps through it depends on the state and subscription asked for; the other
 * filters apply on top. */
#include <errno.h>

#include "store/sqlite/sqlite.h"

/* So many failing deliveries of one subscription are sorted for a page; more are found by walking its log. */
enum { SORTED_MAX = 10000 };

/* The first page's cursor: past every event and subscription. */
#define EVENT_END ((int64_t)ID_KEY_MAX + 1)

#define ROW                                                                                                  \
    "SELECT d.event, d.subscription, d.tenant, s.key, s.tail, e.tail, e.type, e.ordering_key, d.state, "     \
    "d.reason, d.attempts, d.created_at, d.due_at, d.order_at, d.closed_at, d.claimed_at, d.last_status, "   \
    "d.last_error, d.replay_source, d.replay_by, d.window_at, rc.status, rc.note, rc.at FROM "
/* CROSS JOIN: in this order, whatever the planner believes. */
#define JOINED " CROSS JOIN events e ON e.key = d.event" SUBSCRIBED
#define SUBSCRIBED                                                                                           \
    " CROSS JOIN subscriptions s ON s.no = d.subscription"                                                   \
    " LEFT JOIN receipts rc ON rc.event = d.event AND rc.subscription = d.subscription WHERE "

#define SPAN " d.event >= ?2 AND (d.event, d.subscription) < (?3, ?4) "
#define FILTERS                                                                                              \
    " AND d.tenant = ?1 AND (?5 < 0 OR d.state = ?5) AND (?6 = 0 OR d.subscription = ?6)"                    \
    " AND (?7 IS NULL OR e.type = ?7)"
#define NEWEST_FIRST " ORDER BY d.event DESC, d.subscription DESC LIMIT ?8"

/* The tenant's events, newest first, and the deliveries of each. */
static const char by_event[] =
    ROW "events e INDEXED BY events_by_tenant CROSS JOIN deliveries d ON d.event = e.key" SUBSCRIBED
        "e.tenant = ?1 AND e.key >= ?2 AND e.key <= ?3"
        " AND d.subscription < CASE WHEN e.key = ?3 THEN ?4 ELSE 4294967296 END" FILTERS
        " ORDER BY e.key DESC, d.subscription DESC LIMIT ?8";
static const char by_failed_state[] =
    ROW "deliveries d INDEXED BY deliveries_failed" JOINED
        "(d.state = 2 OR d.state = 4 OR d.state = 5) AND d.state = ?5 AND" SPAN FILTERS NEWEST_FIRST;
/* At most as many as may be in flight: sorted. */
static const char by_lease[] =
    ROW "deliveries d INDEXED BY deliveries_leased" JOINED "d.lease_until > 0 AND" SPAN FILTERS NEWEST_FIRST;
static const char by_dead_of_subscription[] =
    ROW "deliveries d INDEXED BY deliveries_dead" JOINED
        "d.subscription = ?6 AND d.state = 4 AND" SPAN FILTERS NEWEST_FIRST;
static const char by_retrying_of_subscription[] =
    ROW "deliveries d INDEXED BY deliveries_retrying" JOINED
        "d.subscription = ?6 AND (d.state = 2 OR d.state = 5) AND" SPAN FILTERS NEWEST_FIRST;
/* One hour of a subscription's log. */
static const char by_hour_of_subscription[] = ROW
    "subscription_log l CROSS JOIN deliveries d ON d.event = l.event AND d.subscription = "
    "l.subscription" JOINED "l.hour = ?9 AND l.subscription = ?6 AND l.event < ?3 AND l.event >= ?2" FILTERS
    " ORDER BY l.event DESC LIMIT ?8";
/* What the log has not taken in yet: some seconds' deliveries, of all subscriptions. */
static const char newer_than_log[] =
    ROW "deliveries d" JOINED "d.event > ?9 AND d.event < ?3 AND d.event >= ?2" FILTERS
        " ORDER BY d.event DESC LIMIT ?8";

static void read_row(sqlite3_stmt *st, struct delivery_row *ret) {
    int64_t created_at = column_int(st, 11), due_at = column_int(st, 12);
    enum delivery_state state = (enum delivery_state)column_int(st, 8);
    bool waiting = delivery_is_open(state) && state != DELIVERY_ATTEMPTING;
    *ret = (struct delivery_row){
        .event_key = (uint64_t)column_int(st, 0),
        .subscription_no = (uint32_t)column_int(st, 1),
        .tenant_no = (uint32_t)column_int(st, 2),
        .subscription_id = {.key = (uint64_t)column_int(st, 3), .tail = (uint64_t)column_int(st, 4)},
        .event_id = {.key = (uint64_t)column_int(st, 0), .tail = (uint64_t)column_int(st, 5)},
        .event_type = column_slice(st, 6),
        .ordering_key = column_slice(st, 7),
        .state = state,
        .reason = (enum delivery_reason)column_int(st, 9),
        .attempts = (uint32_t)column_int(st, 10),
        .closed_at = column_int(st, 14),
        .blocked = waiting && !due_at,
        .last_status = (int)column_int(st, 16),
        .last_error = (enum attempt_error)column_int(st, 17),
        .replay_source = column_slice(st, 18),
        .replay_requested_by = column_slice(st, 19),
        .receipt = (enum receipt_status)column_int(st, 21),
        .receipt_note = column_slice(st, 22),
        .receipt_at = column_int(st, 23),
    };
    ret->created_at = created_at ? created_at : id_ms(ret->event_id);
    if (waiting)
        ret->next_attempt_at = due_at ? due_at : column_int(st, 13);
    if (state == DELIVERY_ATTEMPTING)
        ret->claimed_at = column_int(st, 15);
    /* A replay begins its window afresh. */
    if (ret->replay_requested_by.p)
        ret->replay_at = column_int(st, 20);
}

static int each_row(struct connection *c, sqlite3_stmt *st, delivery_row_fn fn, void *arg, size_t *n) {
    int r;
    for (; (r = statement_next(c, st)) > 0; ++*n) {
        struct delivery_row row;
        read_row(st, &row);
        r = fn(arg, &row);
        if (r != 0) {
            statement_done(st);
            return r;
        }
    }
    return r;
}

int store_read_delivery(struct store_reader *r, uint32_t tenant_no, uint64_t event_key,
                        uint32_t subscription_no, delivery_row_fn fn, void *arg) {
    sqlite3_stmt *st = connection_prepare(
        &r->conn, ROW "deliveries d" JOINED "d.event = ?1 AND d.subscription = ?2 AND d.tenant = ?3");
    bind_int(st, 1, (int64_t)event_key);
    bind_int(st, 2, subscription_no);
    bind_int(st, 3, tenant_no);
    size_t n = 0;
    int e = each_row(&r->conn, st, fn, arg, &n);
    return e == 0 && n == 0 ? -ENOENT : e;
}

/* Deliveries from first_event on that come before (event, subscription). */
struct span {
    int64_t first_event, event, subscription;
};

static void span_end_at(struct span *s, uint64_t event) {
    if ((int64_t)event <= s->event) {
        s->event = (int64_t)event;
        s->subscription = 0;
    }
}

static struct span span_of(const struct delivery_query *q) {
    struct span s = {(int64_t)id_key_at(q->since), EVENT_END, 0};
    if (q->before_event_key) {
        s.event = (int64_t)q->before_event_key;
        s.subscription = q->before_subscription_no;
    }
    if (q->until)
        span_end_at(&s, id_key_at(q->until));
    if (q->event_key) {
        span_end_at(&s, q->event_key + 1);
        if ((int64_t)q->event_key > s.first_event)
            s.first_event = (int64_t)q->event_key;
    }
    return s;
}

static sqlite3_stmt *prepare_page(struct connection *c, const char *sql, const struct delivery_query *q,
                                  const struct span *s) {
    sqlite3_stmt *st = connection_prepare(c, sql);
    bind_int(st, 1, q->tenant_no);
    bind_int(st, 2, s->first_event);
    bind_int(st, 3, s->event);
    bind_int(st, 4, s->subscription);
    bind_int(st, 5, q->state);
    bind_int(st, 6, q->subscription_no);
    bind_text(st, 7, q->event_type);
    bind_int(st, 8, q->limit > INT64_MAX ? INT64_MAX : (int64_t)q->limit);
    return st;
}

/* The newest hour up to *hour in which anybody has deliveries: 1, or 0 when there is none. */
static int find_hour(struct connection *c, int64_t *hour) {
    sqlite3_stmt *st =
        connection_prepare(c, "SELECT hour FROM subscription_log WHERE hour <= ? ORDER BY hour DESC LIMIT 1");
    bind_int(st, 1, *hour);
    int r = statement_next(c, st);
    if (r > 0) {
        *hour = column_int(st, 0);
        statement_done(st);
    }
    return r;
}

/* Steps through a subscription's log hour by hour. There are no more hours than retention keeps. */
static int walk_log(struct connection *c, const struct delivery_query *q, const struct span *s, size_t n,
                    delivery_row_fn fn, void *arg) {
    int r;
    for (int64_t hour = (s->event - 1) >> 34; n < q->limit && (r = find_hour(c, &hour)) != 0; hour--) {
        if (r < 0)
            return r;
        if (hour < s->first_event >> 34)
            break;
        sqlite3_stmt *st = prepare_page(c, by_hour_of_subscription, q, s);
        bind_int(st, 8, (int64_t)(q->limit - n));
        bind_int(st, 9, hour);
        r = each_row(c, st, fn, arg, &n);
        if (r != 0)
            return r;
    }
    return 0;
}

/* First what is newer than the log, then the log up to where it stood then: it may move on meanwhile. */
static int walk_subscription(struct connection *c, const struct delivery_query *q, struct span s,
                             delivery_row_fn fn, void *arg) {
    int64_t watermark = 0;
    size_t n = 0;
    int r = log_watermark(c, &watermark);
    if (r < 0)
        return r;
    /* Of this subscription, the cursor's own event belongs to the page only when its number comes before. */
    if (q->subscription_no < s.subscription)
        s.event++;
    if (s.event > watermark + 1) {
        sqlite3_stmt *st = prepare_page(c, newer_than_log, q, &s);
        bind_int(st, 9, watermark);
        r = each_row(c, st, fn, arg, &n);
        if (r != 0)
            return r;
        s.event = watermark + 1;
    }
    return walk_log(c, q, &s, n, fn, arg);
}

/* 1 when so few deliveries of a subscription are retrying that sorting them is cheap. */
static int few_retrying(struct connection *c, uint32_t subscription_no) {
    sqlite3_stmt *st = connection_prepare(c, "SELECT 1 FROM deliveries INDEXED BY deliveries_retrying WHERE "
                                             "subscription=? AND (state = 2 OR state = 5)"
                                             " LIMIT 1 OFFSET ?");
    bind_int(st, 1, subscription_no);
    bind_int(st, 2, SORTED_MAX);
    int r = statement_next(c, st);
    if (r > 0)
        statement_done(st);
    return r < 0 ? r : !r;
}

static bool is_failed_state(int state) {
    return state == DELIVERY_RETRY || state == DELIVERY_DLQ || state == DELIVERY_REPLAYING;
}

/* The statement that finds the page; NULL in *ret when the subscription's hours are to be walked. */
static int choose(struct connection *c, const struct delivery_query *q, const char **ret) {
    *ret = NULL;
    if (q->event_key && q->subscription_no)
        return 0;
    if (q->state == DELIVERY_ATTEMPTING) {
        *ret = by_lease;
    } else if (!q->subscription_no) {
        *ret = is_failed_state(q->state) ? by_failed_state : by_event;
    } else if (q->state == DELIVERY_DLQ) {
        *ret = by_dead_of_subscription;
    } else {
        int few = is_failed_state(q->state) ? few_retrying(c, q->subscription_no) : 0;
        if (few < 0)
            return few;
        if (few)
            *ret = by_retrying_of_subscription;
    }
    return 0;
}

int store_list_deliveries(struct store_reader *r, const struct delivery_query *q, delivery_row_fn fn,
                          void *arg) {
    struct connection *c = &r->conn;
    struct span span = span_of(q);
    const char *sql;
    int e = choose(c, q, &sql);
    if (e < 0)
        return e;
    if (!sql)
        return walk_subscription(c, q, span, fn, arg);
    size_t n = 0;
    return each_row(c, prepare_page(c, sql, q, &span), fn, arg, &n);
}

/* ---- what happened to one ---- */

static void read_attempt(sqlite3_stmt *st, uint64_t event_key, uint32_t subscription_no,
                         struct attempt_row *ret) {
    *ret = (struct attempt_row){
        .number = (uint32_t)column_int(st, 0),
        .worker = column_slice(st, 1),
        .user_agent = column_slice(st, 2),
        .to = (enum delivery_state)column_int(st, 3),
        .reason = (enum delivery_reason)column_int(st, 4),
        .settled_at = column_int(st, 5),
        .attempt = {.started_at = column_int(st, 6),
                    .latency_ms = (int32_t)column_int(st, 7),
                    .dns_ms = (int32_t)column_int(st, 8),
                    .connect_ms = (int32_t)column_int(st, 9),
                    .tls_ms = (int32_t)column_int(st, 10),
                    .wait_ms = (int32_t)column_int(st, 11),
                    .status = (int)column_int(st, 12),
                    .error = (enum attempt_error)column_int(st, 13),
                    .trigger = (enum attempt_trigger)column_int(st, 14),
                    .worker_no = (uint32_t)column_int(st, 15),
                    .url = column_slice(st, 16),
                    .content_type = column_slice(st, 17),
                    .request_headers = column_slice(st, 18),
                    .signature = column_slice(st, 19),
                    .response_headers = column_slice(st, 20),
                    .response_body = column_slice(st, 21)},
    };
    struct slice hash = column_slice(st, 22);
    ret->attempt.has_hash = hash.n == sizeof ret->attempt.response_hash;
    if (ret->attempt.has_hash)
        memcpy(ret->attempt.response_hash, hash.p, hash.n);
    ret->id = id_of_attempt(event_key, subscription_no, ret->number, ret->attempt.started_at);
}

int store_list_attempts(struct store_reader *r, uint64_t event_key, uint32_t subscription_no,
                        attempt_row_fn fn, void *arg) {
    struct connection *c = &r->conn;
    sqlite3_stmt *st = connection_prepare(
        c,
        "SELECT a.number, w.name, w.user_agent, a.to_state, a.reason, a.settled_at, a.started_at,"
        " a.latency_ms, a.dns_ms, a.connect_ms, a.tls_ms, a.wait_ms, a.status, a.error, a.trigger, a.worker,"
        " a.url, a.content_type, a.request_headers, a.signature, a.response_headers, a.response_body,"
        " a.response_hash FROM attempts a LEFT JOIN workers w ON w.no = a.worker"
        " WHERE a.event=? AND a.subscription=? ORDER BY a.number");
    bind_int(st, 1, (int64_t)event_key);
    bind_int(st, 2, subscription_no);
    int e;
    while ((e = statement_next(c, st)) > 0) {
        struct attempt_row row;
        read_attempt(st, event_key, subscription_no, &row);
        e = fn(arg, &row);
        if (e != 0) {
            statement_done(st);
            return e;
        }
    }
    return e;
}

int store_list_transitions(struct store_reader *r, uint64_t event_key, uint32_t subscription_no,
                           transition_row_fn fn, void *arg) {
    struct connection *c = &r->conn;
    sqlite3_stmt *st = connection_prepare(c, "SELECT at, from_state, to_state, reason FROM transitions"
                                             " WHERE event=? AND subscription=? ORDER BY at, to_state");
    bind_int(st, 1, (int64_t)event_key);
    bind_int(st, 2, subscription_no);
    int e;
    while ((e = statement_next(c, st)) > 0) {
        struct transition_row row = {
            .at = column_int(st, 0),
            .from = (enum delivery_state)column_int(st, 1),
            .to = (enum delivery_state)column_int(st, 2),
            .reason = (enum delivery_reason)column_int(st, 3),
        };
        e = fn(arg, &row);
        if (e != 0) {
            statement_done(st);
            return e;
        }
    }
    return e;
}
