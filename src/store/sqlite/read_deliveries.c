/* Reading one delivery, its attempts and its transitions. */
#include <errno.h>

#include "store/sqlite/sqlite.h"

#define ROW                                                                                                  \
    "SELECT d.event, d.subscription, d.tenant, s.key, s.tail, e.tail, e.type, e.ordering_key, d.state, "     \
    "d.reason, d.attempts, d.created_at, d.due_at, d.order_at, d.closed_at, d.claimed_at, d.last_status, "   \
    "d.last_error, d.replay_source, d.replay_by, d.window_at, rc.status, rc.note, rc.at"
#define ONE                                                                                                  \
    ROW " FROM deliveries d CROSS JOIN events e ON e.key = d.event CROSS JOIN subscriptions s ON s.no = "    \
        "d.subscription LEFT JOIN receipts rc ON rc.event = d.event AND rc.subscription = d.subscription"    \
        " WHERE d.event = ?1 AND d.subscription = ?2 AND d.tenant = ?3"

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

static int read_one(struct connection *c, const char *sql, uint32_t tenant_no, uint64_t event_key,
                    uint32_t subscription_no, delivery_row_fn fn, void *arg) {
    sqlite3_stmt *st = connection_prepare(c, sql);
    bind_int(st, 1, (int64_t)event_key);
    bind_int(st, 2, subscription_no);
    bind_int(st, 3, tenant_no);
    int r = statement_next(c, st);
    if (r <= 0)
        return r < 0 ? r : -ENOENT;
    struct delivery_row row;
    read_row(st, &row);
    r = fn(arg, &row);
    statement_done(st);
    return r;
}

int sqlite_read_delivery(struct store_reader *r, uint32_t tenant_no, uint64_t event_key,
                         uint32_t subscription_no, delivery_row_fn fn, void *arg) {
    return read_one(&sqlite_reader_of(r)->conn, ONE, tenant_no, event_key, subscription_no, fn, arg);
}

int read_listed_delivery(struct connection *c, uint32_t tenant_no, uint64_t event_key,
                         uint32_t subscription_no, delivery_row_fn fn, void *arg) {
    /* Another text, so another statement: a list's callback may ask for a single delivery. */
    return read_one(c, ONE " LIMIT 1", tenant_no, event_key, subscription_no, fn, arg);
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

int sqlite_list_attempts(struct store_reader *r, uint32_t tenant_no, uint64_t event_key,
                         uint32_t subscription_no, attempt_row_fn fn, void *arg) {
    (void)tenant_no; /* the delivery's key is enough here */
    struct connection *c = &sqlite_reader_of(r)->conn;
    sqlite3_stmt *st = connection_prepare(
        c,
        "SELECT a.number, w.name, w.user_agent, a.to_state, a.reason, a.settled_at, a.started_at,"
        " a.latency_ms, a.dns_ms, a.connect_ms, a.tls_ms, a.wait_ms, a.status, a.error, a.trigger, a.worker,"
        " a.url, a.content_type, a.request_headers, a.signature, a.response_headers, a.response_body,"
        " a.response_hash FROM attempts a LEFT JOIN workers w ON w.no = a.worker"
        " WHERE a.event=? AND a.subscription=? ORDER BY a.number");
    bind_int(st, 1, (int64_t)event_key);
    bind_int(st, 2, subscription_no);
    _cleanup_(buf_wipe) struct buf headers = {0};
    int e;
    while ((e = statement_next(c, st)) > 0) {
        struct attempt_row row;
        read_attempt(st, event_key, subscription_no, &row);
        e = attempt_headers_read(sqlite_reader_of(r)->sealing, event_key, subscription_no, &headers, &row);
        if (e == 0)
            e = fn(arg, &row);
        if (e != 0) {
            statement_done(st);
            return e;
        }
    }
    return e;
}

int sqlite_list_transitions(struct store_reader *r, uint32_t tenant_no, uint64_t event_key,
                            uint32_t subscription_no, transition_row_fn fn, void *arg) {
    (void)tenant_no;
    struct connection *c = &sqlite_reader_of(r)->conn;
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
