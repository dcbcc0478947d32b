/* Searching the deliveries (store/search.h): along indexes, and the logs that are filled in behind the
 * events. */
#include <errno.h>

#include "store/search.h"
#include "store/sqlite/sqlite.h"

enum { BUDGET_NEWER = 20 }; /* times as much of what a log has not taken in, which lies together in memory */

/* What every walk yields of a row. */
enum {
    ROW_EVENT,
    ROW_SUBSCRIPTION,
    ROW_TENANT,
    ROW_STATE,
    ROW_STATUS,
    ROW_ERROR,
    ROW_REASON,
    ROW_IS_NONE, /* an event without a delivery */
};

#define COLUMNS      "d.subscription, d.tenant, d.state, d.last_status, d.last_error, d.reason, d.event IS NULL"
#define ROW          "SELECT d.event, " COLUMNS " FROM "
#define OF_EVENTS    "SELECT e.key, " COLUMNS " FROM "
#define SPAN         " d.event >= ?2 AND (d.event, d.subscription) < (?3, ?4) "
#define NEWEST_FIRST " ORDER BY d.event DESC, d.subscription DESC LIMIT ?5"
/* An event without a delivery is a step, too. */
#define DELIVERIES(event)                                                                                    \
    " LEFT JOIN deliveries d ON d.event = " event " AND d.subscription < CASE WHEN " event                   \
    " = ?3 THEN ?4 ELSE 4294967296 END"

static const char by_event[] = OF_EVENTS "events e INDEXED BY events_by_tenant" DELIVERIES(
    "e.key") " WHERE e.tenant = ?1 AND e.key >= ?2 AND e.key "
             "<= ?3 ORDER BY e.key DESC, d.subscription DESC LIMIT ?5";
static const char by_ordering_key[] = OF_EVENTS "events e INDEXED BY events_by_ordering_key" DELIVERIES(
    "e.key") " WHERE e.tenant = ?1 AND e.ordering_key = "
             "?6 AND e.key >= ?2 AND e.key <= ?3 ORDER BY e.key DESC, d.subscription DESC LIMIT ?5";
static const char by_hour_of_type[] = "SELECT l.event, " COLUMNS " FROM type_log l" DELIVERIES(
    "l.event") " WHERE l.hour = ?6 AND l.type = ?7 AND "
               "l.event >= ?2 AND l.event <= ?3 ORDER BY l.event DESC, d.subscription DESC LIMIT ?5";
static const char by_failed_state[] = ROW "deliveries d INDEXED BY deliveries_failed WHERE (d.state = 2 OR "
                                          "d.state = 4 OR d.state = 5) AND d.tenant = "
                                          "?1 AND d.state = ?6 AND" SPAN NEWEST_FIRST;
static const char by_status[] = ROW "deliveries d INDEXED BY deliveries_refused WHERE d.last_status >= 300 "
                                    "AND d.tenant = ?1 AND d.last_status = "
                                    "?6 AND" SPAN NEWEST_FIRST;
static const char by_error[] =
    ROW "deliveries d INDEXED BY deliveries_unanswered WHERE d.last_error IS NOT NULL AND d.tenant = ?1 AND "
        "d.last_error = ?6 AND" SPAN NEWEST_FIRST;
/* At most as many as may be in flight: sorted. */
static const char by_lease[] =
    ROW "deliveries d INDEXED BY deliveries_leased WHERE d.lease_until > 0 AND" SPAN NEWEST_FIRST;
static const char by_dead_of_subscription[] = ROW
    "deliveries d INDEXED BY deliveries_dead WHERE d.subscription = ?6 AND d.state = 4 AND" SPAN NEWEST_FIRST;
static const char by_retrying_of_subscription[] =
    ROW "deliveries d INDEXED BY deliveries_retrying WHERE d.subscription = ?6 AND (d.state = 2 OR d.state = "
        "5) AND" SPAN NEWEST_FIRST;
static const char by_hour_of_subscription[] =
    ROW "subscription_log l CROSS JOIN deliveries d ON d.event = l.event AND d.subscription = l.subscription "
        "WHERE "
        "l.hour = ?6 AND l.subscription = ?7 AND l.event <= ?3 AND l.event >= ?2 ORDER BY "
        "l.event DESC LIMIT ?5";
/* What a subscription's log has not taken in yet: of all subscriptions. */
static const char newer_than_log[] = ROW "deliveries d WHERE" SPAN NEWEST_FIRST;
/* What a type's log has not. */
static const char newer_of_type[] = OF_EVENTS
    "events e INDEXED BY events_by_tenant LEFT JOIN deliveries d ON d.event = e.key AND e.type = ?6 AND "
    "d.subscription < CASE WHEN e.key = ?3 THEN ?4 ELSE 4294967296 END WHERE e.tenant = ?1 AND e.key >= ?2 "
    "AND "
    "e.key <= ?3 ORDER BY e.key DESC, d.subscription DESC LIMIT ?5";

struct walk {
    struct connection *c;
    const struct delivery_query *q;
    struct span span;
    int budget;
    size_t n; /* rows given */
    delivery_row_fn fn;
    void *arg;
    struct delivery_stop *stop;
    bool counts; /* whether the row that was read last was given */
    bool ended;  /* the page is full, or its budget used up */
};

/* ---- one row ---- */

/* By what the walk itself yields. */
static bool may_match(const struct delivery_query *q, sqlite3_stmt *st) {
    if (column_int(st, ROW_IS_NONE) || column_int(st, ROW_TENANT) != q->tenant_no)
        return false;
    struct search_columns d = {.subscription = column_int(st, ROW_SUBSCRIPTION),
                               .state = column_int(st, ROW_STATE),
                               .status = column_int(st, ROW_STATUS),
                               .error = column_int(st, ROW_ERROR),
                               .reason = column_int(st, ROW_REASON)};
    return search_matches(q, &d);
}

/* By its event. */
static int give_if_wanted(void *arg, const struct delivery_row *row) {
    struct walk *w = arg;
    w->counts = search_matches_event(w->q, row);
    return w->counts ? w->fn(w->arg, row) : 0;
}

/* 0, or what the callback returned. */
static int give(struct walk *w, uint64_t event_key, uint32_t subscription_no) {
    w->counts = false;
    int r = read_listed_delivery(w->c, w->q->tenant_no, event_key, subscription_no, give_if_wanted, w);
    if (w->counts)
        w->n++;
    /* Its event was read, too. */
    else
        w->budget -= SEARCH_SCATTERED;
    return r == -ENOENT ? 0 : r;
}

/* 0 when the statement is at its end; 1 when the page is. */
static int walk_rows(struct walk *w, sqlite3_stmt *st, int cost) {
    int r;
    while ((r = statement_next(w->c, st)) > 0) {
        int64_t event = column_int(st, ROW_EVENT), subscription = column_int(st, ROW_SUBSCRIPTION);
        w->budget -= cost;
        r = may_match(w->q, st) ? give(w, (uint64_t)event, (uint32_t)subscription) : 0;
        bool full = w->n >= w->q->limit;
        if (r == 0 && !full && w->budget > 0)
            continue;
        statement_done(st);
        if (r != 0)
            return r;
        if (!full)
            *w->stop = search_stop(event, subscription);
        w->ended = true;
        return 1;
    }
    return r;
}

/* ---- spans ---- */

/* The span's part after `event`; false when it is empty. */
static bool part_after(const struct span *s, int64_t event, struct span *ret) {
    *ret = *s;
    if (event >= ret->first_event)
        ret->first_event = event + 1;
    return ret->first_event <= s->event;
}

static sqlite3_stmt *prepare(struct walk *w, const char *sql, const struct span *s, int cost) {
    sqlite3_stmt *st = connection_prepare(w->c, sql);
    bind_int(st, 1, w->q->tenant_no);
    bind_int(st, 2, s->first_event);
    bind_int(st, 3, s->event);
    bind_int(st, 4, s->subscription);
    bind_int(st, 5, w->budget / cost + 1);
    return st;
}

/* ---- walks ---- */

static int walk_simple(struct walk *w, const char *sql, int64_t which, int cost) {
    sqlite3_stmt *st = prepare(w, sql, &w->span, cost);
    bind_int(st, 6, which);
    return walk_rows(w, st, cost);
}

/* What a log has not taken in is looked through whole: it lies together, and some seconds bring no more. */
static int walk_newer(struct walk *w, const char *sql, const struct span *s) {
    int before = w->budget;
    w->budget *= BUDGET_NEWER;
    sqlite3_stmt *st = prepare(w, sql, s, 1);
    if (sql == newer_of_type)
        bind_text(st, 6, w->q->event_type);
    int r = walk_rows(w, st, 1);
    w->budget = before;
    return r;
}

/* One of the two logs that go by hour. */
struct hours {
    const char *find, *rows, *newer;
    int64_t which; /* subscription, or type's hash */
};

/* Steps through a log hour by hour; an empty hour is a step, too. */
static int walk_hours(struct walk *w, const struct hours *h, const struct span *s) {
    int r = 0;
    for (int64_t hour = s->event >> 34;
         (r = log_find_hour(w->c, h->find, &hour)) > 0 && hour >= s->first_event >> 34; hour--) {
        sqlite3_stmt *st = prepare(w, h->rows, s, SEARCH_SCATTERED);
        bind_int(st, 6, hour);
        bind_int(st, 7, h->which);
        r = walk_rows(w, st, SEARCH_SCATTERED);
        if (r != 0)
            return r;
        w->budget -= SEARCH_SCATTERED;
        if (w->budget <= 0) {
            *w->stop = search_stop(hour << 34, 1);
            w->ended = true;
            return 1;
        }
    }
    return r < 0 ? r : 0;
}

/* First what is newer than the log, then the log up to where it stood then: it may move on meanwhile. */
static int walk_log(struct walk *w, const struct hours *h, int64_t watermark) {
    struct span newer, logged = w->span;
    if (part_after(&w->span, watermark, &newer)) {
        int r = walk_newer(w, h->newer, &newer);
        if (r != 0)
            return r;
    }
    span_end_at(&logged, (uint64_t)watermark + 1);
    return walk_hours(w, h, &logged);
}

static int walk_subscription(struct walk *w) {
    struct hours h = {LOG_HOUR_BEFORE("subscription_log"), by_hour_of_subscription, newer_than_log,
                      w->q->subscription_no};
    int64_t watermark = 0;
    int r = log_watermark(w->c, &watermark);
    /* Of this subscription, the cursor's own event belongs to the page only when its number comes before. */
    w->span = span_before(&w->span, w->span.event,
                          w->q->subscription_no < w->span.subscription ? SPAN_ALL_OF_EVENT : 0);
    return r < 0 ? r : walk_log(w, &h, watermark);
}

static int walk_type(struct walk *w) {
    struct hours h = {LOG_HOUR_BEFORE("type_log"), by_hour_of_type, newer_of_type,
                      type_hash(w->q->tenant_no, w->q->event_type)};
    int64_t watermark = 0;
    int r = type_watermark(w->c, &watermark);
    return r < 0 ? r : walk_log(w, &h, watermark);
}

static int walk_ordering_key(struct walk *w) {
    sqlite3_stmt *st = prepare(w, by_ordering_key, &w->span, SEARCH_SCATTERED);
    bind_text(st, 6, w->q->ordering_key);
    return walk_rows(w, st, SEARCH_SCATTERED);
}

/* The one delivery of an event to a subscription. */
static int look_up(struct walk *w) {
    const struct delivery_query *q = w->q;
    if (!span_has(&w->span, q->event_key, q->subscription_no))
        return 0;
    struct span one = {(int64_t)q->event_key, (int64_t)q->event_key, (int64_t)q->subscription_no + 1};
    w->budget = 1; /* it is the first row */
    int r = walk_rows(w, prepare(w, newer_than_log, &one, 1), 1);
    w->stop->stopped = false;
    return r;
}

/* ---- which walk ---- */

/* 1 when so few deliveries of a subscription are retrying that sorting them is cheap. */
static int few_retrying(struct connection *c, uint32_t subscription_no) {
    sqlite3_stmt *st = connection_prepare(c, "SELECT 1 FROM deliveries INDEXED BY deliveries_retrying WHERE "
                                             "subscription=? AND (state = 2 OR state = 5)"
                                             " LIMIT 1 OFFSET ?");
    bind_int(st, 1, subscription_no);
    bind_int(st, 2, SEARCH_SORTED_MAX);
    int r = statement_next(c, st);
    if (r > 0)
        statement_done(st);
    return r < 0 ? r : !r;
}

static int walk_of_subscription(struct walk *w) {
    const struct delivery_query *q = w->q;
    if (q->state == DELIVERY_DLQ || (q->reason && q->state < 0))
        return walk_simple(w, by_dead_of_subscription, q->subscription_no, SEARCH_SCATTERED);
    int few = search_is_failed_state(q->state) ? few_retrying(w->c, q->subscription_no) : 0;
    if (few < 0)
        return few;
    return few ? walk_simple(w, by_retrying_of_subscription, q->subscription_no, 1) : walk_subscription(w);
}

/* The rarer what a filter lets through, the earlier it chooses. */
static int choose(struct walk *w) {
    const struct delivery_query *q = w->q;
    if (q->event_key)
        return q->subscription_no ? look_up(w) : walk_simple(w, by_event, 0, 1);
    if (q->ordering_key.p)
        return walk_ordering_key(w);
    if (q->state == DELIVERY_ATTEMPTING)
        return walk_simple(w, by_lease, 0, 1);
    if (q->error)
        return walk_simple(w, by_error, q->error, SEARCH_SCATTERED);
    if (q->status >= 300)
        return walk_simple(w, by_status, q->status, SEARCH_SCATTERED);
    if (q->subscription_no)
        return walk_of_subscription(w);
    if (search_is_failed_state(q->state) || q->reason)
        return walk_simple(w, by_failed_state, q->reason ? DELIVERY_DLQ : q->state, SEARCH_SCATTERED);
    return q->event_type.p ? walk_type(w) : walk_simple(w, by_event, 0, 1);
}

int sqlite_list_deliveries(struct store_reader *r, const struct delivery_query *q, delivery_row_fn fn,
                           void *arg, struct delivery_stop *ret_stop) {
    *ret_stop = (struct delivery_stop){0};
    struct walk w = {.c = &sqlite_reader_of(r)->conn,
                     .q = q,
                     .span = span_of(q),
                     .budget = search_budget(q),
                     .fn = fn,
                     .arg = arg,
                     .stop = ret_stop};
    if (q->limit == 0)
        return 0;
    int e = choose(&w);
    return w.ended ? 0 : e;
}
