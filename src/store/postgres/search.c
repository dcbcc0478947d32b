/* Searching the deliveries (store/search.h): through what is open and what is closed at once, a round of rows
 * at a time. A span's bounds are bounds of the partitions' key, too: other days are not looked into. */
#include <errno.h>

#include "store/postgres/read.h"
#include "store/search.h"

enum {
    LEASED_MAX = 50000, /* so many that are under way, on all nodes together */
    ROUND_FIRST = 64,   /* rows of a page's first round; later ones have more */
    ROUND_MAX = 1024,
    TABLE_OPEN = 1,
    TABLE_CLOSED = 2,
};

/* Parameters: tenant, first event, last event, subscription before which it ends in that, limit, whether what
 * is open and what is closed is looked at, and what the walk asks for. */
#define SPAN         " d.event >= $2 AND d.event <= $3 AND (d.event, d.subscription) < ($3, $4) "
#define NEWEST_FIRST " ORDER BY d.event DESC, d.subscription DESC LIMIT $5"
#define COLUMNS      "d.event, d.subscription, d.state, d.last_status, d.last_error, "
#define OPEN(where)                                                                                          \
    "(SELECT " COLUMNS "NULL::smallint AS reason FROM deliveries_open d WHERE " where                        \
    " AND d.tenant=$1 AND $6 AND" SPAN NEWEST_FIRST ")"
#define CLOSED(where)                                                                                        \
    "(SELECT " COLUMNS "d.reason FROM deliveries_closed d WHERE " where                                      \
    " AND d.tenant=$1 AND $7 AND" SPAN NEWEST_FIRST ")"
#define BOTH(where) "SELECT * FROM (" OPEN(where) " UNION ALL " CLOSED(where) ") d" NEWEST_FIRST

/* An event without a delivery is a step, too. */
#define OF_EVENT                                                                                             \
    " WHERE d.tenant=$1 AND d.event=e.key AND d.subscription < CASE WHEN e.key=$3 THEN $4 ELSE 4294967296 "  \
    "END AND "
#define BY_EVENTS(where)                                                                                     \
    "SELECT e.key, d.subscription, d.state, d.last_status, d.last_error, d.reason FROM events e LEFT JOIN "  \
    "LATERAL (SELECT * FROM (SELECT d.subscription, d.state, d.last_status, d.last_error, NULL::smallint "   \
    "AS reason FROM deliveries_open d" OF_EVENT                                                              \
    "$6 UNION ALL SELECT d.subscription, d.state, d.last_status, d.last_error, d.reason FROM "               \
    "deliveries_closed d" OF_EVENT "$7) x ORDER BY subscription DESC LIMIT $5) d ON true WHERE e.tenant=$1 " \
    "AND e.key >= $2 AND e.key <= $3 AND " where " ORDER BY e.key DESC, d.subscription DESC LIMIT $5"

static const char by_key[] = BOTH("true");
static const char by_ordering_key[] = BY_EVENTS("e.ordering_key=$8");
static const char by_type[] = BY_EVENTS("e.type=$8");
static const char by_subscription[] = BOTH("d.subscription=$8");
static const char by_status[] = BOTH("d.last_status >= 300 AND d.last_status=$8");
static const char by_error[] = BOTH("d.last_error IS NOT NULL AND d.last_error=$8");
static const char dead[] = CLOSED("d.state=4");
static const char dead_of_subscription[] = CLOSED("d.state=4 AND d.subscription=$8");
static const char failing[] = OPEN("(d.state=2 OR d.state=5) AND d.state=$8");
/* Sorted: no more than SEARCH_SORTED_MAX. */
static const char failing_of_subscription[] =
    "WITH failing AS MATERIALIZED (SELECT d.* FROM deliveries_open d WHERE d.subscription=$8 AND (d.state=2 "
    "OR d.state=5) ORDER BY d.window_at LIMIT $9) SELECT " COLUMNS
    "NULL::smallint FROM failing d WHERE d.tenant=$1 AND $6 AND" SPAN NEWEST_FIRST;
/* At most as many as may be in flight: sorted. */
static const char by_lease[] =
    "WITH leased AS MATERIALIZED (SELECT d.* FROM deliveries_open d WHERE d.lease_until IS NOT NULL ORDER BY "
    "d.lease_until LIMIT $8) SELECT " COLUMNS
    "NULL::smallint FROM leased d WHERE d.tenant=$1 AND $6 AND" SPAN NEWEST_FIRST;

/* What a walk goes along. */
struct route {
    const char *sql;
    int tables;               /* set of TABLE_… */
    int cost;                 /* of a row */
    struct slice text, bytes; /* what it asks for: a text, bytes, */
    int64_t number;           /* or a number */
};

struct walk {
    struct pg *c;
    const struct delivery_query *q;
    struct span span;
    int budget;
    size_t n; /* rows given */
    delivery_row_fn fn;
    void *arg;
    struct delivery_stop *stop;
    struct pg_delivery_keys chosen; /* to be read whole */
    size_t chosen_n;
    bool ended; /* the page is full, or its budget used up */
};

/* ---- one row ---- */

/* By its event as well; and once more by the rest, which may have moved on since it was chosen. */
static int give_if_wanted(void *arg, const struct delivery_row *row) {
    struct walk *w = arg;
    struct search_columns d = {.subscription = row->subscription_no,
                               .state = row->state,
                               .status = row->last_status,
                               .error = row->last_error,
                               .reason = row->reason};
    bool wanted = w->n < w->q->limit && search_matches(w->q, &d) && search_matches_event(w->q, row);
    /* Its event was read, too. */
    if (!wanted) {
        w->budget -= SEARCH_SCATTERED;
        return 0;
    }
    w->n++;
    return w->fn(w->arg, row);
}

/* Gives what was chosen: 0, or what the callback returned. */
static int give_chosen(struct walk *w) {
    if (!w->chosen_n)
        return 0;
    size_t found = 0;
    int r = pg_read_deliveries(w->c, w->q->tenant_no, &w->chosen, give_if_wanted, w, &found);
    pg_delivery_keys_reset(&w->chosen);
    w->chosen_n = 0;
    return r;
}

/* Looks at a round's rows. 0 when the walk goes on; 1 when the page has ended; else what went wrong. */
static int look_at(struct walk *w, struct pg_rows *rows, int cost) {
    while (pg_next(rows)) {
        int64_t event = pg_column_int(rows, 0), subscription = pg_column_int(rows, 1);
        struct search_columns d = {.subscription = subscription,
                                   .state = pg_column_int(rows, 2),
                                   .status = pg_column_int(rows, 3),
                                   .error = pg_column_int(rows, 4),
                                   .reason = pg_column_int(rows, 5)};
        w->budget -= cost;
        w->span.event = event;
        w->span.subscription = subscription;
        if (!pg_column_null(rows, 1) && search_matches(w->q, &d)) {
            pg_delivery_keys_add(&w->chosen, (uint64_t)event, (uint32_t)subscription);
            w->chosen_n++;
        }
        bool last = rows->at == rows->n;
        if (w->n + w->chosen_n < w->q->limit && w->budget > 0 && !last)
            continue;
        int r = give_chosen(w);
        if (r != 0)
            return r;
        bool full = w->n >= w->q->limit;
        if (!full && w->budget > 0)
            continue;
        if (!full)
            *w->stop = search_stop(event, subscription);
        w->ended = true;
        return 1;
    }
    return 0;
}

/* ---- walks ---- */

static int query_round(struct walk *w, const struct route *r, size_t limit, struct pg_rows *ret) {
    struct pg_params *p = pg_params(w->c);
    pg_int(p, (int32_t)w->q->tenant_no);
    pg_bigint(p, w->span.first_event);
    pg_bigint(p, w->span.event);
    pg_bigint(p, w->span.subscription);
    pg_bigint(p, (int64_t)limit);
    pg_bool(p, r->tables & TABLE_OPEN);
    pg_bool(p, (r->tables & TABLE_CLOSED) != 0);
    if (r->text.p)
        pg_text(p, r->text);
    else if (r->bytes.p)
        pg_bytea(p, r->bytes);
    else
        pg_bigint(p, r->number);
    pg_bigint(p, SEARCH_SORTED_MAX);
    return pg_query(w->c, r->sql, ret);
}

/* The first round has about what the page needs when all is wanted. */
static size_t first_round(const struct delivery_query *q) {
    return q->limit < ROUND_FIRST ? ROUND_FIRST : q->limit < ROUND_MAX ? q->limit : ROUND_MAX;
}

static int walk(struct walk *w, struct route r) {
    size_t size = first_round(w->q);
    for (bool more = true; more && w->span.first_event <= w->span.event;) {
        _cleanup_pg_rows_ struct pg_rows rows = {0};
        size_t affordable = (size_t)(w->budget / r.cost) + 1;
        size_t limit = size < affordable ? size : affordable;
        int e = query_round(w, &r, limit, &rows);
        if (e < 0)
            return e;
        more = (size_t)rows.n == limit;
        e = look_at(w, &rows, r.cost);
        if (e != 0)
            return e;
        w->span = span_before(&w->span, w->span.event, w->span.subscription);
        size = size * 4 < ROUND_MAX ? size * 4 : ROUND_MAX;
    }
    return 0;
}

/* The one delivery of an event to a subscription. */
static int look_up(struct walk *w) {
    const struct delivery_query *q = w->q;
    if (!span_has(&w->span, q->event_key, q->subscription_no))
        return 0;
    pg_delivery_keys_add(&w->chosen, q->event_key, q->subscription_no);
    w->chosen_n = 1;
    return give_chosen(w);
}

/* ---- which walk ---- */

/* 1 when so few deliveries of a subscription are retrying that sorting them is cheap. */
static int few_retrying(struct pg *c, uint32_t subscription_no) {
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    struct pg_params *p = pg_params(c);
    pg_int(p, (int32_t)subscription_no);
    pg_int(p, SEARCH_SORTED_MAX);
    int r = pg_query_row(c,
                         "SELECT 1 FROM deliveries_open WHERE subscription=$1 AND (state=2 OR state=5)"
                         " ORDER BY window_at LIMIT 1 OFFSET $2",
                         &rows);
    return r < 0 ? r : !r;
}

/* Where deliveries of this state are, or those that a reason is asked of. */
static int tables_of(const struct delivery_query *q) {
    int tables = q->state < 0                                      ? TABLE_OPEN | TABLE_CLOSED
                 : delivery_is_open((enum delivery_state)q->state) ? TABLE_OPEN
                                                                   : TABLE_CLOSED;
    return q->reason ? tables & TABLE_CLOSED : tables;
}

/* Along an index whose rows lie apart. */
static int walk_along(struct walk *w, const char *sql, int64_t which) {
    return walk(
        w, (struct route){.sql = sql, .tables = tables_of(w->q), .cost = SEARCH_SCATTERED, .number = which});
}

static int walk_of_subscription(struct walk *w) {
    const struct delivery_query *q = w->q;
    if (q->state == DELIVERY_DLQ || q->reason)
        return walk_along(w, dead_of_subscription, q->subscription_no);
    int few = search_is_failed_state(q->state) ? few_retrying(w->c, q->subscription_no) : 0;
    if (few < 0)
        return few;
    return walk_along(w, few ? failing_of_subscription : by_subscription, q->subscription_no);
}

/* The rarer what a filter lets through, the earlier it chooses. */
static int choose(struct walk *w) {
    const struct delivery_query *q = w->q;
    struct route together = {.sql = by_key, .tables = tables_of(q), .cost = 1};
    struct route apart = {.tables = tables_of(q), .cost = SEARCH_SCATTERED};
    if (q->event_key)
        return q->subscription_no ? look_up(w) : walk(w, together);
    if (q->ordering_key.p) {
        apart.sql = by_ordering_key;
        apart.bytes = q->ordering_key;
        return walk(w, apart);
    }
    if (q->state == DELIVERY_ATTEMPTING) {
        together.sql = by_lease;
        together.number = LEASED_MAX;
        return walk(w, together);
    }
    if (q->error)
        return walk_along(w, by_error, q->error);
    if (q->status >= 300)
        return walk_along(w, by_status, q->status);
    if (q->subscription_no)
        return walk_of_subscription(w);
    if (q->state == DELIVERY_DLQ || q->reason)
        return walk_along(w, dead, 0);
    if (search_is_failed_state(q->state))
        return walk_along(w, failing, q->state);
    if (q->event_type.p) {
        apart.sql = by_type;
        apart.text = q->event_type;
        return walk(w, apart);
    }
    return walk(w, together);
}

int postgres_list_deliveries(struct store_reader *r, const struct delivery_query *q, delivery_row_fn fn,
                             void *arg, struct delivery_stop *ret_stop) {
    *ret_stop = (struct delivery_stop){0};
    struct walk w = {.c = &pg_reader_of(r)->conn,
                     .q = q,
                     .span = span_of(q),
                     .budget = search_budget(q),
                     .fn = fn,
                     .arg = arg,
                     .stop = ret_stop,
                     .chosen = PG_DELIVERY_KEYS};
    if (q->limit == 0)
        return 0;
    /* Nothing in both is asked for, or no state of what has a reason. */
    int e = tables_of(q) ? choose(&w) : 0;
    pg_delivery_keys_free(&w.chosen);
    return w.ended ? 0 : e;
}
