/* Reading single deliveries, their attempts and their transitions. */
#include <errno.h>

#include "store/postgres/read.h"

#define DELIVERY_COLUMNS(d)                                                                                  \
    d ".event, " d ".subscription, " d ".tenant, " d ".state, " d ".attempts, " d ".created_at, " d          \
      ".order_at, " d ".last_status, " d ".last_error, " d ".replay_source, " d ".replay_by, " d             \
      ".window_at, "
#define OF_KEY(d) " WHERE " d ".tenant=$1 AND " d ".event=w.event AND " d ".subscription=w.subscription"

/* Put aside by a claim, or no claim has looked yet: the first of its lane key is another. (In the order of
 * the index of lane keys, so that no other is taken for it.) */
#define BLOCKED                                                                                              \
    "(o.due_at IS NULL OR (o.lane_key IS NOT NULL AND (SELECT b.event FROM deliveries_open b WHERE "         \
    "b.subscription=o.subscription AND b.lane_key=o.lane_key ORDER BY b.order_at, b.event LIMIT 1) <> "      \
    "o.event))"

/* A delivery is in one of the two tables. What belongs to it is looked up one by one: with LIMIT 1 no other
 * order of joining can be thought of, whatever the statistics say. */
static const char by_key[] =
    "SELECT d.event, d.subscription, d.tenant, s.key, s.tail, e.tail, e.type, e.ordering_key, d.state, "
    "d.reason, d.attempts, d.created_at, d.due_at, d.order_at, d.closed_at, d.claimed_at, d.last_status, "
    "d.last_error, d.replay_source, d.replay_by, d.window_at, rc.status, rc.note, rc.at, d.blocked"
    " FROM unnest($2, $3) WITH ORDINALITY w(event, subscription, place)"
    " CROSS JOIN LATERAL (SELECT " DELIVERY_COLUMNS(
        "o") "o.due_at, o.claimed_at, NULL::bigint AS closed_at, NULL::smallint AS reason, " BLOCKED
             " AS blocked FROM deliveries_open o" OF_KEY("o") //
    " UNION ALL SELECT " DELIVERY_COLUMNS(
        "c") "NULL, NULL, c.closed_at, c.reason, false FROM deliveries_closed c" OF_KEY("c") //
    ") d CROSS JOIN LATERAL (SELECT * FROM events WHERE tenant=$1 AND key=w.event LIMIT 1) e"
    " CROSS JOIN LATERAL (SELECT * FROM subscriptions WHERE tenant=$1 AND no=w.subscription LIMIT 1) s"
    " LEFT JOIN LATERAL (SELECT * FROM receipts r" OF_KEY("r") " LIMIT 1) rc ON true"
                                                               " ORDER BY w.place";

static void read_row(const struct pg_rows *rows, struct delivery_row *ret) {
    int64_t created_at = pg_column_int(rows, 11), due_at = pg_column_int(rows, 12);
    enum delivery_state state = (enum delivery_state)pg_column_int(rows, 8);
    bool waiting = delivery_is_open(state) && state != DELIVERY_ATTEMPTING;
    *ret = (struct delivery_row){
        .event_key = (uint64_t)pg_column_int(rows, 0),
        .subscription_no = (uint32_t)pg_column_int(rows, 1),
        .tenant_no = (uint32_t)pg_column_int(rows, 2),
        .subscription_id = {.key = (uint64_t)pg_column_int(rows, 3),
                            .tail = (uint64_t)pg_column_int(rows, 4)},
        .event_id = {.key = (uint64_t)pg_column_int(rows, 0), .tail = (uint64_t)pg_column_int(rows, 5)},
        .event_type = pg_column_slice(rows, 6),
        .ordering_key = pg_column_slice(rows, 7),
        .state = state,
        .reason = (enum delivery_reason)pg_column_int(rows, 9),
        .attempts = (uint32_t)pg_column_int(rows, 10),
        .closed_at = pg_column_int(rows, 14),
        .blocked = waiting && pg_column_int(rows, 24),
        .last_status = (int)pg_column_int(rows, 16),
        .last_error = (enum attempt_error)pg_column_int(rows, 17),
        .replay_source = pg_column_slice(rows, 18),
        .replay_requested_by = pg_column_slice(rows, 19),
        .receipt = (enum receipt_status)pg_column_int(rows, 21),
        .receipt_note = pg_column_slice(rows, 22),
        .receipt_at = pg_column_int(rows, 23),
    };
    ret->created_at = created_at ? created_at : id_ms(ret->event_id);
    if (waiting)
        ret->next_attempt_at = due_at ? due_at : pg_column_int(rows, 13);
    if (state == DELIVERY_ATTEMPTING)
        ret->claimed_at = pg_column_int(rows, 15);
    /* A replay begins its window afresh. */
    if (ret->replay_requested_by.p)
        ret->replay_at = pg_column_int(rows, 20);
}

void pg_delivery_keys_add(struct pg_delivery_keys *k, uint64_t event_key, uint32_t subscription_no) {
    pg_add_bigint(&k->events, (int64_t)event_key);
    pg_add_int(&k->subscriptions, (int32_t)subscription_no);
}

void pg_delivery_keys_reset(struct pg_delivery_keys *k) {
    pg_column_reset(&k->events);
    pg_column_reset(&k->subscriptions);
}

void pg_delivery_keys_free(struct pg_delivery_keys *k) {
    pg_column_free(&k->events);
    pg_column_free(&k->subscriptions);
}

int pg_read_deliveries(struct pg *c, uint32_t tenant_no, const struct pg_delivery_keys *keys,
                       delivery_row_fn fn, void *arg, size_t *ret_n) {
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    struct pg_params *p = pg_params(c);
    pg_int(p, (int32_t)tenant_no);
    pg_array(p, &keys->events);
    pg_array(p, &keys->subscriptions);
    int r = pg_query(c, by_key, &rows);
    for (*ret_n = 0; r == 0 && pg_next(&rows); ++*ret_n) {
        struct delivery_row row;
        read_row(&rows, &row);
        r = fn(arg, &row);
    }
    return r;
}

int postgres_read_delivery(struct store_reader *r, uint32_t tenant_no, uint64_t event_key,
                           uint32_t subscription_no, delivery_row_fn fn, void *arg) {
    _cleanup_pg_delivery_keys_ struct pg_delivery_keys key = PG_DELIVERY_KEYS;
    size_t n;
    pg_delivery_keys_add(&key, event_key, subscription_no);
    int e = pg_read_deliveries(&pg_reader_of(r)->conn, tenant_no, &key, fn, arg, &n);
    return e == 0 && n == 0 ? -ENOENT : e;
}

/* ---- what happened to one ---- */

static void key_params(struct pg *c, uint32_t tenant_no, uint64_t event_key, uint32_t subscription_no) {
    struct pg_params *p = pg_params(c);
    pg_int(p, (int32_t)tenant_no);
    pg_bigint(p, (int64_t)event_key);
    pg_int(p, (int32_t)subscription_no);
}

static void read_attempt(const struct pg_rows *rows, uint64_t event_key, uint32_t subscription_no,
                         struct attempt_row *ret) {
    *ret = (struct attempt_row){
        .number = (uint32_t)pg_column_int(rows, 0),
        .worker = pg_column_slice(rows, 1),
        .user_agent = pg_column_slice(rows, 2),
        .to = (enum delivery_state)pg_column_int(rows, 3),
        .reason = (enum delivery_reason)pg_column_int(rows, 4),
        .settled_at = pg_column_int(rows, 5),
        .attempt = {.started_at = pg_column_int(rows, 6),
                    .latency_ms = (int32_t)pg_column_int(rows, 7),
                    .dns_ms = (int32_t)pg_column_int(rows, 8),
                    .connect_ms = (int32_t)pg_column_int(rows, 9),
                    .tls_ms = (int32_t)pg_column_int(rows, 10),
                    .wait_ms = (int32_t)pg_column_int(rows, 11),
                    .status = (int)pg_column_int(rows, 12),
                    .error = (enum attempt_error)pg_column_int(rows, 13),
                    .trigger = (enum attempt_trigger)pg_column_int(rows, 14),
                    .worker_no = (uint32_t)pg_column_int(rows, 15),
                    .url = pg_column_slice(rows, 16),
                    .content_type = pg_column_slice(rows, 17),
                    .request_headers = pg_column_slice(rows, 18),
                    .signature = pg_column_slice(rows, 19),
                    .response_headers = pg_column_slice(rows, 20),
                    .response_body = pg_column_slice(rows, 21)},
    };
    struct slice hash = pg_column_slice(rows, 22);
    ret->attempt.has_hash = hash.n == sizeof ret->attempt.response_hash;
    if (ret->attempt.has_hash)
        memcpy(ret->attempt.response_hash, hash.p, hash.n);
    ret->id = id_of_attempt(event_key, subscription_no, ret->number, ret->attempt.started_at);
}

int postgres_list_attempts(struct store_reader *r, uint32_t tenant_no, uint64_t event_key,
                           uint32_t subscription_no, attempt_row_fn fn, void *arg) {
    enum { ATTEMPTS_A_ROUND = 256 };
    struct pg *c = &pg_reader_of(r)->conn;
    _cleanup_(buf_wipe) struct buf headers = {0};
    struct attempt_row row = {0};
    for (size_t n = ATTEMPTS_A_ROUND; n == ATTEMPTS_A_ROUND;) {
        _cleanup_pg_rows_ struct pg_rows rows = {0};
        key_params(c, tenant_no, event_key, subscription_no);
        pg_int(&c->params, (int32_t)row.number);
        pg_int(&c->params, ATTEMPTS_A_ROUND);
        int e = pg_query(
            c,
            "SELECT a.number, w.name, w.user_agent, a.to_state, a.reason, a.settled_at, a.started_at,"
            " a.latency_ms, a.dns_ms, a.connect_ms, a.tls_ms, a.wait_ms, a.status, a.error, a.trigger,"
            " a.worker, a.url, a.content_type, a.request_headers, a.signature, a.response_headers,"
            " a.response_body, a.response_hash FROM attempts a LEFT JOIN workers w ON w.no=a.worker"
            " WHERE a.tenant=$1 AND a.event=$2 AND a.subscription=$3 AND a.number>$4"
            " ORDER BY a.number LIMIT $5",
            &rows);
        for (n = 0; e == 0 && pg_next(&rows); n++) {
            read_attempt(&rows, event_key, subscription_no, &row);
            e = attempt_headers_read(pg_reader_of(r)->sealing, event_key, subscription_no, &headers, &row);
            if (e == 0)
                e = fn(arg, &row);
        }
        if (e != 0)
            return e;
    }
    return 0;
}

int postgres_list_transitions(struct store_reader *r, uint32_t tenant_no, uint64_t event_key,
                              uint32_t subscription_no, transition_row_fn fn, void *arg) {
    struct pg *c = &pg_reader_of(r)->conn;
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    key_params(c, tenant_no, event_key, subscription_no);
    int e = pg_query(c,
                     "SELECT at, from_state, to_state, reason FROM transitions"
                     " WHERE tenant=$1 AND event=$2 AND subscription=$3 ORDER BY at, to_state",
                     &rows);
    while (e == 0 && pg_next(&rows)) {
        struct transition_row row = {
            .at = pg_column_int(&rows, 0),
            .from = (enum delivery_state)pg_column_int(&rows, 1),
            .to = (enum delivery_state)pg_column_int(&rows, 2),
            .reason = (enum delivery_reason)pg_column_int(&rows, 3),
        };
        e = fn(arg, &row);
    }
    return e;
}
