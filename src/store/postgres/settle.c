/* The end of an attempt: outcome and transition in one transaction, guarded by state and fencing token. */
#include <errno.h>

#include "store/postgres/gather.h"
#include "store/postgres/order.h"

enum { SETTLE_MAX = 1024 /* a statement */ };

static bool valid_settlement(const struct settlement *i) {
    return delivery_transition_allowed(DELIVERY_ATTEMPTING, i->to, true, i->reason) &&
           (i->to == DELIVERY_RETRY) == (i->due_at != 0) &&
           (i->to == DELIVERY_DLQ) == (i->reason != REASON_NONE);
}

/* ---- which of them are to be looked for ---- */

static int by_delivery(const void *a, const void *b) {
    const struct settlement *x = *(const struct settlement *const *)a,
                            *y = *(const struct settlement *const *)b;
    if (x->tenant_no != y->tenant_no)
        return x->tenant_no < y->tenant_no ? -1 : 1;
    if (x->event_key != y->event_key)
        return x->event_key < y->event_key ? -1 : 1;
    if (x->subscription_no != y->subscription_no)
        return x->subscription_no < y->subscription_no ? -1 : 1;
    return x < y ? -1 : 1;
}

static bool same_attempt(const struct settlement *a, const struct settlement *b) {
    return a->event_key == b->event_key && a->subscription_no == b->subscription_no &&
           a->tenant_no == b->tenant_no && a->number == b->number;
}

/* In the order of their keys, in which rows are locked; a second settle of an attempt is stale already. */
static size_t sort_out(struct settlement *items, size_t n, struct settlement **sorted) {
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        CHECK(valid_settlement(&items[i]));
        items[i].stale = true;
        items[i].released_due_at = 0;
        sorted[i] = &items[i];
    }
    qsort(sorted, n, sizeof *sorted, by_delivery);
    for (size_t i = 0; i < n; i++) {
        bool again = false;
        for (size_t k = kept; k-- > 0 && sorted[k]->event_key == sorted[i]->event_key &&
                              sorted[k]->subscription_no == sorted[i]->subscription_no;)
            again |= same_attempt(sorted[k], sorted[i]);
        if (!again)
            sorted[kept++] = sorted[i];
    }
    return kept;
}

/* ---- the transitions ---- */

enum { SETTLE_COLUMNS = 11 };

static void add_settlement(struct pg_column c[SETTLE_COLUMNS], const struct settlement *i) {
    pg_add_int(&c[0], (int32_t)i->tenant_no);
    pg_add_bigint(&c[1], (int64_t)i->event_key);
    pg_add_int(&c[2], (int32_t)i->subscription_no);
    pg_add_int(&c[3], (int32_t)i->number);
    pg_add_int(&c[4], i->to);
    pg_add_time(&c[5], i->due_at);
    pg_add_int(&c[6], i->counted ? 0 : 1);
    pg_add_bigint(&c[7], i->settled_at);
    if (i->reason)
        pg_add_int(&c[8], i->reason);
    else
        pg_add_null(&c[8]);
    if (i->attempt.status)
        pg_add_int(&c[9], i->attempt.status);
    else
        pg_add_null(&c[9]);
    if (i->attempt.error)
        pg_add_int(&c[10], i->attempt.error);
    else
        pg_add_null(&c[10]);
}

/* Rows of place, attempts since the last replay, and its source: of those whose attempt it was to settle. */
static int move(struct pg_store *s, struct settlement *const *sorted, size_t n, struct pg_rows *ret) {
    struct pg_column c[SETTLE_COLUMNS] = {PG_COLUMN(PG_INT), PG_COLUMN(PG_BIGINT), PG_COLUMN(PG_INT),
                                          PG_COLUMN(PG_INT), PG_COLUMN(PG_INT),    PG_COLUMN(PG_BIGINT),
                                          PG_COLUMN(PG_INT), PG_COLUMN(PG_BIGINT), PG_COLUMN(PG_INT),
                                          PG_COLUMN(PG_INT), PG_COLUMN(PG_INT)};
    for (size_t i = 0; i < n; i++)
        add_settlement(c, sorted[i]);
    struct pg_params *p = pg_params(&s->writer);
    for (int i = 0; i < SETTLE_COLUMNS; i++) {
        pg_array(p, &c[i]);
        pg_column_free(&c[i]);
    }
    /* A replay that is to be tried again goes to the end of its lane key: its retries block nobody. */
    return pg_query(
        &s->writer,
        "WITH s AS MATERIALIZED (SELECT * FROM unnest($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11) WITH ORDINALITY"
        "  AS s(tenant, event, subscription, number, to_state, due_at, uncounted, settled_at, reason, status,"
        "  error, place)),"
        " ended AS (DELETE FROM deliveries_open d USING s WHERE s.to_state<>2 AND d.tenant=s.tenant"
        "  AND d.event=s.event AND d.subscription=s.subscription AND d.state=1 AND d.attempts=s.number"
        "  RETURNING s.place, s.to_state, s.settled_at, s.reason, s.status, s.error,"
        "  d.uncounted+s.uncounted AS uncounted, d.tenant, d.event, d.subscription, d.attempts, d.base,"
        "  d.order_at, d.window_at, d.replay_source, d.replay_by, d.test, d.created_at),"
        " closed AS (INSERT INTO deliveries_closed (tenant, event, subscription, state, attempts, base,"
        "  uncounted, order_at, window_at, closed_at, last_status, last_error, reason, replay_source,"
        "  replay_by, test, created_at) SELECT tenant, event, subscription, to_state, attempts, base,"
        "  uncounted, order_at, window_at, settled_at, status, error, reason, replay_source, replay_by, test,"
        "  created_at FROM ended),"
        " retried AS (UPDATE deliveries_open d SET state=2, due_at=s.due_at, lease_until=NULL, "
        "claimed_at=NULL,"
        "  node=NULL, last_status=s.status, last_error=s.error, uncounted=d.uncounted+s.uncounted,"
        "  order_at=CASE WHEN d.replay_by IS NULL THEN d.order_at ELSE s.due_at END FROM s"
        "  WHERE s.to_state=2 AND d.tenant=s.tenant AND d.event=s.event AND d.subscription=s.subscription"
        "  AND d.state=1 AND d.attempts=s.number"
        "  RETURNING s.place, d.attempts, d.base, d.replay_source)"
        " SELECT place, attempts-base, replay_source FROM ended"
        " UNION ALL SELECT place, attempts-base, replay_source FROM retried",
        ret);
}

/* ---- what goes with them ---- */

static int add_attempt(struct pg_store *s, const struct settlement *i) {
    const struct attempt_record *a = &i->attempt;
    _cleanup_buf_ struct buf headers = {0};
    int r = attempt_headers_seal(&s->sealing, i->event_key, i->subscription_no, i->number, a->request_headers,
                                 &headers);
    if (r < 0)
        return r;
    struct pg_column *c = pg_gather(s, PG_ATTEMPTS);
    pg_add_int(&c[0], (int32_t)i->tenant_no);
    pg_add_bigint(&c[1], (int64_t)i->event_key);
    pg_add_int(&c[2], (int32_t)i->subscription_no);
    pg_add_int(&c[3], (int32_t)i->number);
    pg_add_bigint(&c[4], a->started_at);
    pg_add_bigint(&c[5], i->settled_at);
    pg_add_int(&c[6], i->to);
    if (i->reason)
        pg_add_int(&c[7], i->reason);
    else
        pg_add_null(&c[7]);
    pg_add_int(&c[8], a->latency_ms);
    pg_add_int(&c[9], a->dns_ms);
    pg_add_int(&c[10], a->connect_ms);
    pg_add_int(&c[11], a->tls_ms);
    pg_add_int(&c[12], a->wait_ms);
    if (a->status)
        pg_add_int(&c[13], a->status);
    else
        pg_add_null(&c[13]);
    pg_add_int(&c[14], a->error);
    pg_add_int(&c[15], a->trigger);
    pg_add_int(&c[16], (int32_t)a->worker_no);
    pg_add_text(&c[17], a->url);
    pg_add_text(&c[18], a->content_type);
    pg_add_bytea(&c[19], headers.n ? buf_slice(&headers) : SLICE_NONE);
    pg_add_text(&c[20], a->signature);
    pg_add_bytea(&c[21], a->response_headers);
    pg_add_bytea(&c[22], a->response_body.n ? a->response_body : SLICE_NONE);
    pg_add_bytea(&c[23], a->has_hash ? (struct slice){(const char *)a->response_hash, sizeof a->response_hash}
                                     : SLICE_NONE);
    return pg_gathered(s, PG_ATTEMPTS);
}

static int note_settled(struct pg_store *s, struct settlement *i, const struct pg_rows *row) {
    struct pg_replayed replayed = {.tenant_no = i->tenant_no,
                                   .subscription_no = i->subscription_no,
                                   .source = pg_column_slice(row, 2),
                                   .attempts = (uint32_t)pg_column_int(row, 1),
                                   .to = i->to};
    i->stale = false;
    int r = add_attempt(s, i);
    if (r == 0 && i->to == DELIVERY_DLQ)
        r = pg_count_dead(s, i->tenant_no, i->subscription_no, i->reason, 1);
    if (r == 0 && i->attempt.trigger == TRIGGER_REPLAY)
        r = pg_count_replayed_attempt(s, &replayed);
    return r;
}

/* An ordered lane's next may go when one has closed, or has moved behind it (a replay's retry). */
static int release_next(struct pg_store *s, struct settlement **sorted, size_t n) {
    struct pg_lane_key keys[SETTLE_MAX];
    int64_t due_at[SETTLE_MAX], now = 0;
    size_t ordered = 0;
    for (size_t i = 0; i < n; i++) {
        if (sorted[i]->stale || !sorted[i]->lane_key)
            continue;
        keys[ordered++] = (struct pg_lane_key){sorted[i]->subscription_no, sorted[i]->lane_key};
        now = sorted[i]->settled_at > now ? sorted[i]->settled_at : now;
    }
    int r = pg_release(s, keys, ordered, now, due_at);
    ordered = 0;
    for (size_t i = 0; r == 0 && i < n; i++)
        if (!sorted[i]->stale && sorted[i]->lane_key)
            sorted[i]->released_due_at = due_at[ordered++];
    return r;
}

static int settle_some(struct pg_store *s, struct settlement *items, size_t n) {
    struct settlement *sorted[SETTLE_MAX];
    CHECK(n <= SETTLE_MAX);
    n = sort_out(items, n, sorted);
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    int r = move(s, sorted, n, &rows);
    while (r == 0 && pg_next(&rows))
        r = note_settled(s, sorted[pg_column_int(&rows, 0) - 1], &rows);
    return r < 0 ? r : release_next(s, sorted, n);
}

int postgres_settle(struct store *s, struct settlement *items, size_t n) {
    int r = 0;
    for (size_t i = 0; r == 0 && i < n; i += SETTLE_MAX)
        r = settle_some(pg_of(s), items + i, n - i < SETTLE_MAX ? n - i : SETTLE_MAX);
    return r;
}

/* ---- reading ---- */

int postgres_get_exhausted(struct store *s, uint32_t tenant_no, uint64_t event_key, uint32_t subscription_no,
                           struct exhausted_delivery *ret) {
    struct pg_rows *rows = pg_lend(pg_of(s));
    struct pg_params *p = pg_params(&pg_of(s)->writer);
    pg_int(p, (int32_t)tenant_no);
    pg_bigint(p, (int64_t)event_key);
    pg_int(p, (int32_t)subscription_no);
    int r =
        pg_query_row(&pg_of(s)->writer,
                     "SELECT e.tail, e.type, d.attempts, d.reason, d.last_status, d.last_error, d.closed_at"
                     " FROM deliveries_closed d JOIN events e ON e.tenant=d.tenant AND e.key=d.event"
                     " WHERE d.tenant=$1 AND d.event=$2 AND d.subscription=$3 AND d.state=4",
                     rows);
    if (r <= 0)
        return r < 0 ? r : -ENOENT;
    *ret = (struct exhausted_delivery){
        .event_id = {.key = event_key, .tail = (uint64_t)pg_column_int(rows, 0)},
        .event_type = pg_column_slice(rows, 1),
        .attempts = (uint32_t)pg_column_int(rows, 2),
        .reason = (enum delivery_reason)pg_column_int(rows, 3),
        .last_status = (int)pg_column_int(rows, 4),
        .last_error = (enum attempt_error)pg_column_int(rows, 5),
        .closed_at = pg_column_int(rows, 6),
    };
    return 0;
}

int postgres_list_expired_leases(struct store *s, int64_t before, struct leased_task *ret, size_t max,
                                 size_t *ret_n) {
    struct pg_params *p = pg_params(&pg_of(s)->writer);
    pg_bigint(p, before);
    pg_bigint(p, (int64_t)max);
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    int r = pg_query(&pg_of(s)->writer,
                     "SELECT event, subscription, tenant, attempts, base, uncounted, lane_key, window_at,"
                     " lease_until, replay_by IS NOT NULL, test, claimed_at FROM deliveries_open"
                     " WHERE lease_until<$1 ORDER BY lease_until LIMIT $2",
                     &rows);
    size_t n = 0;
    while (r == 0 && pg_next(&rows))
        ret[n++] = (struct leased_task){
            .task = {.event_key = (uint64_t)pg_column_int(&rows, 0),
                     .subscription_no = (uint32_t)pg_column_int(&rows, 1),
                     .tenant_no = (uint32_t)pg_column_int(&rows, 2),
                     .number = (uint32_t)pg_column_int(&rows, 3),
                     .base = (uint32_t)pg_column_int(&rows, 4),
                     .uncounted = (uint32_t)pg_column_int(&rows, 5),
                     .lane_key = (uint64_t)pg_column_int(&rows, 6),
                     .window_at = pg_column_int(&rows, 7),
                     .lease_until = pg_column_int(&rows, 8),
                     .trigger = pg_column_int(&rows, 9)    ? TRIGGER_REPLAY
                                : pg_column_int(&rows, 10) ? TRIGGER_TEST
                                                           : TRIGGER_SCHEDULE},
            .started_at = pg_column_int(&rows, 11),
        };
    *ret_n = n;
    return r;
}
