/* Retention, row by row: of tenants that keep less than others, and of days that could not be dropped whole
 * (days.c). Everything in steps of a bounded number of rows. */
#include <errno.h>

#include "store/postgres/gather.h"
#include "store/postgres/read.h"

enum { EVENT_FINISHED = -1 /* the cursor's delivery: go on with the event after it */ };

/* What a step comes upon, in this order within a delivery or an event. */
enum kind { KIND_JOB, KIND_OPEN, KIND_ATTEMPT, KIND_TRANSITION, KIND_RECEIPT, KIND_CLOSED, KIND_EVENT };

#define SPAN " tenant=$1 AND event >= $2 AND event < $3 AND (event, subscription) > ($2, $4) ORDER BY "
/* All rows of the tenant's events from the cursor on, as they lie: each table gives no more than the step has
 * room for. A job that is open stands before its event, an event behind its deliveries. */
static const char rows_from[] =
    "SELECT event, subscription, kind, n FROM ("
    "(SELECT event, 0::bigint AS subscription, 0 AS kind, 0::bigint AS n FROM fanout_jobs WHERE state <> 2 "
    "AND tenant=$1 AND event >= $2 AND event < $3 ORDER BY event LIMIT $5) UNION ALL "
    "(SELECT event, subscription, 1, 0 FROM deliveries_open WHERE" SPAN
    "event, subscription LIMIT $5) UNION ALL "
    "(SELECT event, subscription, 2, number FROM attempts WHERE" SPAN
    "event, subscription, number LIMIT $5) UNION ALL "
    "(SELECT event, subscription, 3, at FROM transitions WHERE" SPAN
    "event, subscription, at LIMIT $5) UNION ALL "
    "(SELECT event, subscription, 4, 0 FROM receipts WHERE" SPAN "event, subscription LIMIT $5) UNION ALL "
    "(SELECT event, subscription, 5, 0 FROM deliveries_closed WHERE" SPAN
    "event, subscription LIMIT $5) UNION ALL "
    "(SELECT key, 2147483648, 6, 0 FROM events WHERE tenant=$1 AND key >= $2 AND key < $3 ORDER BY key LIMIT "
    "$5)) r ORDER BY event, subscription, kind, n LIMIT $5";

/* What a step is to delete. */
struct doomed {
    struct pg_store *s;
    uint32_t tenant_no;
    struct pg_delivery_keys deliveries; /* closed, and seen to their end */
    struct pg_column events;
    int64_t first_event, last_event;
    /* A delivery that the step cuts short: what of it was seen. */
    bool cut;
    int64_t event, subscription_no, attempts_upto, transitions_upto;
};

static void see_part(struct doomed *d, int64_t event, int64_t subscription_no, enum kind kind, int64_t n) {
    if (!d->cut || d->event != event || d->subscription_no != subscription_no)
        d->attempts_upto = d->transitions_upto = -1;
    d->cut = true;
    d->event = event;
    d->subscription_no = subscription_no;
    if (kind == KIND_ATTEMPT)
        d->attempts_upto = n;
    if (kind == KIND_TRANSITION)
        d->transitions_upto = n;
}

/* Sorts out what leaves and what is passed over; the cursor moves behind what is done with. */
static void sort_out(struct pg_rows *rows, struct doomed *d, struct retain_cursor *at) {
    int64_t passed_event = -1, open_event = -1, open_subscription = -1;
    while (pg_next(rows)) {
        int64_t event = pg_column_int(rows, 0), subscription = pg_column_int(rows, 1);
        enum kind kind = (enum kind)pg_column_int(rows, 2);
        if (kind == KIND_JOB)
            passed_event = event;
        if (event == passed_event) {
            *at = (struct retain_cursor){(uint64_t)event, EVENT_FINISHED};
            d->cut = false;
            continue;
        }
        if (kind == KIND_OPEN) {
            open_event = event;
            open_subscription = subscription;
        }
        bool open = event == open_event && subscription == open_subscription;
        if (!open && kind < KIND_CLOSED) {
            see_part(d, event, subscription, kind, pg_column_int(rows, 3));
            continue;
        }
        d->cut = false;
        if (kind == KIND_CLOSED)
            pg_delivery_keys_add(&d->deliveries, (uint64_t)event, (uint32_t)subscription);
        if (kind == KIND_EVENT)
            pg_add_bigint(&d->events, event);
        *at = (struct retain_cursor){(uint64_t)event, kind == KIND_EVENT ? EVENT_FINISHED : subscription};
    }
}

/* ---- deleting ---- */

static struct pg_params *span_params(struct doomed *d) {
    struct pg_params *p = pg_params(&d->s->writer);
    pg_int(p, (int32_t)d->tenant_no);
    pg_bigint(p, d->first_event);
    pg_bigint(p, d->last_event);
    return p;
}

#define OF_DELIVERIES(t)                                                                                     \
    " USING unnest($4, $5) w(event, subscription) WHERE " t ".tenant=$1 AND " t ".event >= $2 AND " t        \
    ".event <= $3 AND " t ".event=w.event AND " t ".subscription=w.subscription"

/* What is replayed meanwhile stays, and whoever wants to replay it from now on waits, and finds it gone. */
static int delete_closed(struct doomed *d, struct pg_delivery_keys *ret_gone) {
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    struct pg_params *p = span_params(d);
    pg_array(p, &d->deliveries.events);
    pg_array(p, &d->deliveries.subscriptions);
    int r =
        pg_query(&d->s->writer,
                 "DELETE FROM deliveries_closed d" OF_DELIVERIES("d") " RETURNING d.event, d.subscription,"
                                                                      " d.state, d.reason",
                 &rows);
    while (r == 0 && pg_next(&rows)) {
        uint32_t subscription_no = (uint32_t)pg_column_int(&rows, 1);
        pg_delivery_keys_add(ret_gone, (uint64_t)pg_column_int(&rows, 0), subscription_no);
        if (pg_column_int(&rows, 2) == DELIVERY_DLQ)
            r = pg_count_dead(d->s, d->tenant_no, subscription_no,
                              (enum delivery_reason)pg_column_int(&rows, 3), -1);
    }
    return r;
}

static int delete_deliveries(struct doomed *d) {
    static const char *const rest[] = {
        "DELETE FROM attempts t" OF_DELIVERIES("t"),
        "DELETE FROM transitions t" OF_DELIVERIES("t"),
        "DELETE FROM receipts t" OF_DELIVERIES("t"),
    };
    _cleanup_pg_delivery_keys_ struct pg_delivery_keys gone = PG_DELIVERY_KEYS;
    int r = d->deliveries.events.n ? delete_closed(d, &gone) : 0;
    for (size_t i = 0; r == 0 && gone.events.n && i < sizeof rest / sizeof rest[0]; i++) {
        struct pg_params *p = span_params(d);
        pg_array(p, &gone.events);
        pg_array(p, &gone.subscriptions);
        r = pg_send(&d->s->writer, rest[i]);
    }
    return r;
}

/* A part of a delivery, which is held meanwhile. */
static int delete_part(struct doomed *d) {
    static const char *const parts[] = {
        "DELETE FROM attempts WHERE tenant=$1 AND event=$2 AND subscription=$3 AND number <= $4",
        "DELETE FROM transitions WHERE tenant=$1 AND event=$2 AND subscription=$3 AND at <= $4"};
    const int64_t upto[] = {d->attempts_upto, d->transitions_upto};
    for (size_t i = 0; i <= sizeof parts / sizeof parts[0]; i++) {
        struct pg_params *p = pg_params(&d->s->writer);
        pg_int(p, (int32_t)d->tenant_no);
        pg_bigint(p, d->event);
        pg_int(p, (int32_t)d->subscription_no);
        if (i == 0) {
            _cleanup_pg_rows_ struct pg_rows rows = {0};
            int r = pg_query_row(&d->s->writer,
                                 "SELECT 1 FROM deliveries_closed WHERE tenant=$1 AND event=$2 AND"
                                 " subscription=$3 FOR UPDATE",
                                 &rows);
            if (r <= 0)
                return r;
            continue;
        }
        pg_bigint(p, upto[i - 1]);
        int r = pg_send(&d->s->writer, parts[i - 1]);
        if (r < 0)
            return r;
    }
    return 0;
}

/* With its job, when nothing of it is left. First the lock, then the look: a delivery that is made of it
 * meanwhile is seen, or finds it gone. */
static int delete_events(struct doomed *d) {
    static const char *const steps[] = {
        "SELECT 1 FROM events e JOIN unnest($4) w(event) ON e.key=w.event WHERE e.tenant=$1 AND e.key >= $2"
        " AND e.key <= $3 FOR UPDATE OF e",
        "DELETE FROM events e USING unnest($4) w(event) WHERE e.tenant=$1 AND e.key >= $2 AND e.key <= $3 AND"
        " e.key=w.event AND NOT EXISTS (SELECT 1 FROM deliveries_open o WHERE o.tenant=$1 AND o.event=e.key)"
        " AND NOT EXISTS (SELECT 1 FROM deliveries_closed c WHERE c.tenant=$1 AND c.event=e.key)",
        "DELETE FROM fanout_jobs j USING unnest($4) w(event) WHERE j.tenant=$1 AND j.event=w.event AND NOT"
        " EXISTS (SELECT 1 FROM events e WHERE e.tenant=$1 AND e.key=j.event)",
    };
    int r = 0;
    for (size_t i = 0; r == 0 && d->events.n && i < sizeof steps / sizeof steps[0]; i++) {
        pg_array(span_params(d), &d->events);
        r = pg_send(&d->s->writer, steps[i]);
    }
    return r;
}

int postgres_retain(struct store *s, uint32_t tenant_no, int64_t before, unsigned limit,
                    struct retain_cursor *cursor, unsigned *ret_n) {
    struct doomed d = {.s = pg_of(s),
                       .tenant_no = tenant_no,
                       .deliveries = PG_DELIVERY_KEYS,
                       .events = PG_COLUMN(PG_BIGINT)};
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    bool finished = cursor->subscription_no == EVENT_FINISHED;
    d.first_event = (int64_t)cursor->event_key + finished;
    int r = pg_flush(d.s);
    if (r < 0)
        return r;
    struct pg_params *p = pg_params(&d.s->writer);
    pg_int(p, (int32_t)tenant_no);
    pg_bigint(p, d.first_event);
    pg_bigint(p, (int64_t)id_key_at(before));
    pg_bigint(p, finished ? 0 : cursor->subscription_no);
    pg_int(p, (int32_t)limit);
    r = pg_query(&d.s->writer, rows_from, &rows);
    if (r < 0)
        return r;
    *ret_n = (unsigned)rows.n;
    sort_out(&rows, &d, cursor);
    d.last_event = (int64_t)cursor->event_key;
    r = delete_deliveries(&d);
    if (r == 0 && d.cut)
        r = delete_part(&d);
    if (r == 0)
        r = delete_events(&d);
    pg_delivery_keys_free(&d.deliveries);
    pg_column_free(&d.events);
    return r;
}

int postgres_retain_idempotency(struct store *s, int64_t before, unsigned limit, unsigned *ret_n) {
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    int r = pg_flush(pg_of(s));
    if (r < 0)
        return r;
    struct pg_params *p = pg_params(&pg_of(s)->writer);
    pg_bigint(p, before);
    pg_int(p, (int32_t)limit);
    r = pg_query(&pg_of(s)->writer,
                 "DELETE FROM idempotency WHERE (tenant, key) IN (SELECT tenant, key FROM idempotency WHERE"
                 " created_at<$1 ORDER BY created_at LIMIT $2)",
                 &rows);
    if (r == 0)
        *ret_n = (unsigned)pg_changed(&rows);
    return r;
}
