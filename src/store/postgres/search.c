/* Searching the deliveries, newest first.
 *
 * A page begins and ends within a span of (event, subscription); every filter on time, event and cursor only
 * narrows the span, and with it the days that are looked into. A walk steps through it along the index that
 * the filters choose, through what is open and what is closed at once, a round of rows at a time, looking at
 * a delivery's own columns alone; only what is wanted is read whole. Each step costs of a budget, and a page
 * that has used it up ends where it is: nobody's question makes the store look at more. */
#include <errno.h>

#include "store/postgres/read.h"

enum {
    BUDGET = 5000,      /* of a page: rows that lie together */
    COST_SCATTERED = 5, /* of a row that lies on a page of its own */
    SORTED_MAX = 10000, /* so many failing deliveries of one subscription are sorted for a page */
    LEASED_MAX = 50000, /* so many that are under way, on all nodes together */
    ROUND_FIRST = 64,   /* rows of a page's first round; later ones have more */
    ROUND_MAX = 1024,
    TABLE_OPEN = 1,
    TABLE_CLOSED = 2,
};

/* Past every subscription. */
#define ALL_OF_EVENT (INT64_C(1) << 32)

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
/* Sorted: no more than SORTED_MAX. */
static const char failing_of_subscription[] =
    "WITH failing AS MATERIALIZED (SELECT d.* FROM deliveries_open d WHERE d.subscription=$8 AND (d.state=2 "
    "OR d.state=5) ORDER BY d.window_at LIMIT $9) SELECT " COLUMNS
    "NULL::smallint FROM failing d WHERE d.tenant=$1 AND $6 AND" SPAN NEWEST_FIRST;
/* At most as many as may be in flight: sorted. */
static const char by_lease[] =
    "WITH leased AS MATERIALIZED (SELECT d.* FROM deliveries_open d WHERE d.lease_until IS NOT NULL ORDER BY "
    "d.lease_until LIMIT $8) SELECT " COLUMNS
    "NULL::smallint FROM leased d WHERE d.tenant=$1 AND $6 AND" SPAN NEWEST_FIRST;

/* Deliveries from first_event on that come before (event, subscription); subscription is at least 2, for of
 * an event nothing comes before the first. */
struct span {
    int64_t first_event, event, subscription;
};

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

static bool same_or_any(int64_t wanted, int64_t value) {
    return !wanted || wanted == value;
}

static bool may_match(const struct delivery_query *q, int64_t subscription, int64_t state, int64_t status,
                      int64_t error, int64_t reason) {
    return same_or_any(q->subscription_no, subscription) && (q->state < 0 || q->state == state) &&
           same_or_any(q->status, status) && same_or_any(q->error, error) &&
           (!q->reason || (q->reason == reason && state == DELIVERY_DLQ));
}

/* By its event as well; and once more by the rest, which may have moved on since it was chosen. */
static int give_if_wanted(void *arg, const struct delivery_row *row) {
    struct walk *w = arg;
    bool wanted =
        w->n < w->q->limit &&
        may_match(w->q, row->subscription_no, row->state, row->last_status, row->last_error, row->reason) &&
        (!w->q->event_type.p || slice_eq(w->q->event_type, row->event_type)) &&
        (!w->q->ordering_key.p || slice_eq(w->q->ordering_key, row->ordering_key));
    /* Its event was read, too. */
    if (!wanted) {
        w->budget -= COST_SCATTERED;
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

static void stop_at(struct walk *w, int64_t event, int64_t subscription) {
    *w->stop = (struct delivery_stop){true, (uint64_t)event,
                                      subscription ? (uint32_t)subscription : 1 /* all of it */};
}

/* Looks at a round's rows. 0 when the walk goes on; 1 when the page has ended; else what went wrong. */
static int look_at(struct walk *w, struct pg_rows *rows, int cost) {
    while (pg_next(rows)) {
        int64_t event = pg_column_int(rows, 0), subscription = pg_column_int(rows, 1);
        w->budget -= cost;
        w->span.event = event;
        w->span.subscription = subscription;
        if (!pg_column_null(rows, 1) &&
            may_match(w->q, subscription, pg_column_int(rows, 2), pg_column_int(rows, 3),
                      pg_column_int(rows, 4), pg_column_int(rows, 5))) {
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
            stop_at(w, event, subscription);
        w->ended = true;
        return 1;
    }
    return 0;
}

/* ---- spans ---- */

static struct span up_to(const struct span *s, int64_t event, int64_t subscription) {
    return subscription > 1 ? (struct span){s->first_event, event, subscription}
                            : (struct span){s->first_event, event - 1, ALL_OF_EVENT};
}

static void span_end_at(struct span *s, uint64_t event) {
    if ((int64_t)event <= s->event)
        *s = up_to(s, (int64_t)event, 0);
}

static struct span span_of(const struct delivery_query *q) {
    struct span s = {(int64_t)id_key_at(q->since), (int64_t)ID_KEY_MAX, ALL_OF_EVENT};
    if (q->before_event_key)
        s = up_to(&s, (int64_t)q->before_event_key, q->before_subscription_no);
    if (q->until)
        span_end_at(&s, id_key_at(q->until));
    if (q->event_key) {
        span_end_at(&s, q->event_key + 1);
        if ((int64_t)q->event_key > s.first_event)
            s.first_event = (int64_t)q->event_key;
    }
    return s;
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
    pg_bigint(p, SORTED_MAX);
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
        w->span = up_to(&w->span, w->span.event, w->span.subscription);
        size = size * 4 < ROUND_MAX ? size * 4 : ROUND_MAX;
    }
    return 0;
}

/* The one delivery of an event to a subscription. */
static int look_up(struct walk *w) {
    const struct delivery_query *q = w->q;
    const struct span *s = &w->span;
    bool within = (int64_t)q->event_key >= s->first_event &&
                  ((int64_t)q->event_key < s->event ||
                   ((int64_t)q->event_key == s->event && q->subscription_no < s->subscription));
    if (!within)
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
    pg_int(p, SORTED_MAX);
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

static int walk_of_subscription(struct walk *w, int tables) {
    const struct delivery_query *q = w->q;
    struct route r = {
        .sql = by_subscription, .tables = tables, .cost = COST_SCATTERED, .number = q->subscription_no};
    if (q->state == DELIVERY_DLQ || q->reason) {
        r.sql = dead_of_subscription;
    } else if (q->state == DELIVERY_RETRY || q->state == DELIVERY_REPLAYING) {
        int few = few_retrying(w->c, q->subscription_no);
        if (few < 0)
            return few;
        r.sql = few ? failing_of_subscription : by_subscription;
    }
    return walk(w, r);
}

/* The rarer what a filter lets through, the earlier it chooses. */
static int choose(struct walk *w) {
    const struct delivery_query *q = w->q;
    int tables = tables_of(q);
    if (q->event_key)
        return q->subscription_no ? look_up(w)
                                  : walk(w, (struct route){.sql = by_key, .tables = tables, .cost = 1});
    if (q->ordering_key.p)
        return walk(w, (struct route){.sql = by_ordering_key,
                                      .tables = tables,
                                      .cost = COST_SCATTERED,
                                      .bytes = q->ordering_key});
    if (q->state == DELIVERY_ATTEMPTING)
        return walk(w, (struct route){.sql = by_lease, .tables = tables, .cost = 1, .number = LEASED_MAX});
    if (q->error)
        return walk(
            w, (struct route){.sql = by_error, .tables = tables, .cost = COST_SCATTERED, .number = q->error});
    if (q->status >= 300)
        return walk(w, (struct route){
                           .sql = by_status, .tables = tables, .cost = COST_SCATTERED, .number = q->status});
    if (q->subscription_no)
        return walk_of_subscription(w, tables);
    if (q->state == DELIVERY_DLQ || q->reason)
        return walk(w, (struct route){.sql = dead, .tables = tables, .cost = COST_SCATTERED});
    if (q->state == DELIVERY_RETRY || q->state == DELIVERY_REPLAYING)
        return walk(
            w, (struct route){.sql = failing, .tables = tables, .cost = COST_SCATTERED, .number = q->state});
    if (q->event_type.p)
        return walk(w, (struct route){
                           .sql = by_type, .tables = tables, .cost = COST_SCATTERED, .text = q->event_type});
    return walk(w, (struct route){.sql = by_key, .tables = tables, .cost = 1});
}

int postgres_list_deliveries(struct store_reader *r, const struct delivery_query *q, delivery_row_fn fn,
                             void *arg, struct delivery_stop *ret_stop) {
    *ret_stop = (struct delivery_stop){0};
    struct walk w = {.c = &pg_reader_of(r)->conn,
                     .q = q,
                     .span = span_of(q),
                     .budget = q->budget ? (int)q->budget : BUDGET,
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
