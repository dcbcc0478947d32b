/* The end of an attempt: outcome and transition in one transaction, guarded by state and fencing token. */
#include <errno.h>

#include "store/sqlite/sqlite.h"

static bool valid_settlement(const struct settlement *i) {
    return delivery_transition_allowed(DELIVERY_ATTEMPTING, i->to, true, i->reason) &&
           (i->to == DELIVERY_RETRY) == (i->due_at != 0) &&
           (i->to == DELIVERY_DLQ) == (i->reason != REASON_NONE);
}

/* 1 when it was this attempt's to settle. */
static int update_delivery(struct connection *c, const struct settlement *i) {
    /* A replay that is to be tried again goes to the end of its lane key: its retries block nobody. */
    sqlite3_stmt *st = connection_prepare(
        c, "UPDATE deliveries SET state=?1, due_at=?2, lease_until=NULL, claimed_at=NULL, closed_at=?3, "
           "last_status=?4,"
           " last_error=?5, reason=?6, uncounted=uncounted+?7,"
           " lane_key=CASE WHEN ?2 IS NULL THEN NULL ELSE lane_key END,"
           " order_at=CASE WHEN ?2 IS NOT NULL AND replay_by IS NOT NULL THEN ?2 ELSE order_at END"
           " WHERE event=?8 AND subscription=?9 AND state=1 AND attempts=?10");
    bind_int(st, 1, i->to);
    bind_time(st, 2, i->due_at);
    bind_time(st, 3, i->to == DELIVERY_RETRY ? 0 : i->settled_at);
    bind_time(st, 4, i->attempt.status);
    bind_time(st, 5, i->attempt.error);
    bind_time(st, 6, i->reason);
    bind_int(st, 7, i->counted ? 0 : 1);
    bind_int(st, 8, (int64_t)i->event_key);
    bind_int(st, 9, i->subscription_no);
    bind_int(st, 10, i->number);
    int r = statement_run(c, st);
    return r < 0 ? r : sqlite3_changes(c->db) == 1;
}

static int insert_attempt(struct store *s, const struct settlement *i) {
    struct connection *c = &sqlite_of(s)->writer;
    const struct attempt_record *a = &i->attempt;
    _cleanup_buf_ struct buf headers = {0};
    int r = attempt_headers_seal(&sqlite_of(s)->sealing, i->event_key, i->subscription_no, i->number,
                                 a->request_headers, &headers);
    if (r < 0)
        return r;
    sqlite3_stmt *st = connection_prepare(c, "INSERT INTO attempts (event, subscription, number, started_at, "
                                             "settled_at, to_state, reason, latency_ms, dns_ms,"
                                             " connect_ms, tls_ms, wait_ms, status, error, trigger, worker, "
                                             "url, content_type, request_headers, signature,"
                                             " response_headers, response_body, response_hash) VALUES "
                                             "(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)");
    bind_int(st, 1, (int64_t)i->event_key);
    bind_int(st, 2, i->subscription_no);
    bind_int(st, 3, i->number);
    bind_int(st, 4, a->started_at);
    bind_int(st, 5, i->settled_at);
    bind_int(st, 6, i->to);
    bind_time(st, 7, i->reason);
    bind_int(st, 8, a->latency_ms);
    bind_int(st, 9, a->dns_ms);
    bind_int(st, 10, a->connect_ms);
    bind_int(st, 11, a->tls_ms);
    bind_int(st, 12, a->wait_ms);
    bind_time(st, 13, a->status);
    bind_int(st, 14, a->error);
    bind_int(st, 15, a->trigger);
    bind_int(st, 16, a->worker_no);
    bind_text(st, 17, a->url);
    bind_text(st, 18, a->content_type);
    bind_blob(st, 19, headers.n ? buf_slice(&headers) : SLICE_NONE);
    bind_text(st, 20, a->signature);
    bind_text(st, 21, a->response_headers);
    bind_blob(st, 22, a->response_body.n ? a->response_body : SLICE_NONE);
    bind_blob(st, 23,
              a->has_hash ? (struct slice){(const char *)a->response_hash, sizeof a->response_hash}
                          : SLICE_NONE);
    return statement_run(c, st);
}

static int settle_one(struct store *s, struct settlement *i) {
    struct connection *c = &sqlite_of(s)->writer;
    CHECK(valid_settlement(i));
    i->stale = false;
    i->released_due_at = 0;
    int r = update_delivery(c, i);
    if (r < 0)
        return r;
    if (r == 0) {
        i->stale = true;
        return 0;
    }
    r = insert_attempt(s, i);
    if (r == 0 && i->to == DELIVERY_DLQ)
        r = count_dead(c, i->subscription_no, i->reason, 1);
    if (r == 0 && i->attempt.trigger == TRIGGER_REPLAY)
        r = count_replayed_attempt(s, i);
    if (r < 0 || !i->lane_key)
        return r;
    /* An ordered lane's next may go when this one has closed, or has moved behind it (a replay's retry). */
    return lane_key_release(c, i->subscription_no, i->lane_key, i->settled_at, &i->released_due_at);
}

int sqlite_settle(struct store *s, struct settlement *items, size_t n) {
    for (size_t i = 0; i < n; i++) {
        int r = settle_one(s, &items[i]);
        if (r < 0)
            return r;
    }
    return 0;
}

int sqlite_get_exhausted(struct store *s, uint32_t tenant_no, uint64_t event_key, uint32_t subscription_no,
                         struct exhausted_delivery *ret) {
    sqlite3_stmt *st = connection_prepare(
        &sqlite_of(s)->writer,
        "SELECT e.tail, e.type, d.attempts, d.reason, d.last_status, d.last_error, d.closed_at"
        " FROM deliveries d CROSS JOIN events e ON e.key=d.event"
        " WHERE d.event=? AND d.subscription=? AND d.tenant=? AND d.state=4");
    bind_int(st, 1, (int64_t)event_key);
    bind_int(st, 2, subscription_no);
    bind_int(st, 3, tenant_no);
    int r = statement_next(&sqlite_of(s)->writer, st);
    if (r <= 0)
        return r < 0 ? r : -ENOENT;
    /* Not reset here: the type points into the row, until the next call resets it. */
    *ret = (struct exhausted_delivery){
        .event_id = {.key = event_key, .tail = (uint64_t)column_int(st, 0)},
        .event_type = column_slice(st, 1),
        .attempts = (uint32_t)column_int(st, 2),
        .reason = (enum delivery_reason)column_int(st, 3),
        .last_status = (int)column_int(st, 4),
        .last_error = (enum attempt_error)column_int(st, 5),
        .closed_at = column_int(st, 6),
    };
    return 0;
}

int sqlite_list_expired_leases(struct store *s, int64_t before, struct leased_task *ret, size_t max,
                               size_t *ret_n) {
    sqlite3_stmt *st = connection_prepare(
        &sqlite_of(s)->writer,
        "SELECT event, subscription, attempts, base, uncounted, lane_key, window_at, lease_until,"
        " replay_by IS NOT NULL, test, claimed_at, tenant FROM deliveries WHERE lease_until<? ORDER BY "
        "lease_until LIMIT ?");
    bind_int(st, 1, before);
    bind_int(st, 2, (int64_t)max);
    size_t n = 0;
    int r;
    while ((r = statement_next(&sqlite_of(s)->writer, st)) > 0) {
        ret[n++] = (struct leased_task){
            .task = {.event_key = (uint64_t)column_int(st, 0),
                     .subscription_no = (uint32_t)column_int(st, 1),
                     .tenant_no = (uint32_t)column_int(st, 11),
                     .number = (uint32_t)column_int(st, 2),
                     .base = (uint32_t)column_int(st, 3),
                     .uncounted = (uint32_t)column_int(st, 4),
                     .lane_key = (uint64_t)column_int(st, 5),
                     .window_at = column_int(st, 6),
                     .lease_until = column_int(st, 7),
                     .trigger = column_int(st, 8)   ? TRIGGER_REPLAY
                                : column_int(st, 9) ? TRIGGER_TEST
                                                    : TRIGGER_SCHEDULE},
            .started_at = column_int(st, 10),
        };
    }
    if (r < 0)
        return r;
    *ret_n = n;
    return 0;
}

static int event_exists(struct connection *c, uint64_t event_key) {
    sqlite3_stmt *st = connection_prepare(c, "SELECT 1 FROM events WHERE key=?");
    bind_int(st, 1, (int64_t)event_key);
    int r = statement_next(c, st);
    if (r > 0)
        statement_done(st);
    return r;
}

static int closed_state(struct connection *c, uint32_t tenant_no, uint64_t event_key,
                        uint32_t subscription_no, enum delivery_state *ret,
                        enum delivery_reason *ret_reason) {
    sqlite3_stmt *st = connection_prepare(
        c, "SELECT state, reason FROM deliveries WHERE event=? AND subscription=? AND tenant=?");
    bind_int(st, 1, (int64_t)event_key);
    bind_int(st, 2, subscription_no);
    bind_int(st, 3, tenant_no);
    int r = statement_next(c, st);
    if (r <= 0)
        return r < 0 ? r : -ENOENT;
    *ret = (enum delivery_state)column_int(st, 0);
    *ret_reason = (enum delivery_reason)column_int(st, 1);
    statement_done(st);
    return delivery_is_open(*ret) ? -EBUSY : 0;
}

int sqlite_replay(struct store *s, uint64_t event_key, uint32_t subscription_no, uint32_t tenant_no,
                  uint64_t lane_key, int64_t now, struct slice source, struct slice requested_by) {
    struct connection *c = &sqlite_of(s)->writer;
    enum delivery_state from;
    enum delivery_reason reason;
    int r = closed_state(c, tenant_no, event_key, subscription_no, &from, &reason);
    if (r < 0)
        return r;
    r = event_exists(c, event_key);
    if (r <= 0)
        return r < 0 ? r : -ESTALE;
    int blocked = lane_key ? lane_key_blocked(c, subscription_no, lane_key, now, event_key) : 0;
    if (blocked < 0)
        return blocked;
    CHECK(delivery_transition_allowed(from, DELIVERY_REPLAYING, false, REASON_REPLAY_REQUESTED));
    sqlite3_stmt *st = connection_prepare(
        c, "UPDATE deliveries SET state=5, due_at=?1, lane_key=?2, order_at=?3, window_at=?3, base=attempts, "
           "uncounted=0,"
           " closed_at=NULL, reason=NULL, replay_source=?4, replay_by=?5 WHERE event=?6 AND subscription=?7");
    bind_time(st, 1, blocked ? 0 : now);
    bind_time(st, 2, (int64_t)lane_key);
    bind_int(st, 3, now);
    bind_text(st, 4, source);
    bind_text(st, 5, requested_by);
    bind_int(st, 6, (int64_t)event_key);
    bind_int(st, 7, subscription_no);
    r = statement_run(c, st);
    if (r == 0 && from == DELIVERY_DLQ)
        r = count_dead(c, subscription_no, reason, -1);
    if (r < 0)
        return r;
    st = connection_prepare(
        c, "INSERT OR REPLACE INTO transitions (event, subscription, at, from_state, to_state, reason)"
           " VALUES (?,?,?,?,5,?)");
    bind_int(st, 1, (int64_t)event_key);
    bind_int(st, 2, subscription_no);
    bind_int(st, 3, now);
    bind_int(st, 4, from);
    bind_int(st, 5, REASON_REPLAY_REQUESTED);
    return statement_run(c, st);
}
