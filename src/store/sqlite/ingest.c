/* Events, idempotency keys, deliveries and fan-out jobs. */
#include <errno.h>

#include "store/sqlite/sqlite.h"

static int insert_event(struct connection *c, const struct event_record *e) {
    sqlite3_stmt *st = connection_prepare(c, "INSERT INTO events (key, tail, tenant, type, schema_version, "
                                             "ordering_key, deliver_at, data_size, deliveries,"
                                             " has_job, body, trace) VALUES (?,?,?,?,?,?,?,?,?,?,?,?)");
    bind_int(st, 1, (int64_t)e->id.key);
    bind_int(st, 2, (int64_t)e->id.tail);
    bind_int(st, 3, e->tenant_no);
    bind_text(st, 4, e->type);
    bind_text(st, 5, e->schema_version);
    bind_text(st, 6, e->ordering_key);
    bind_time(st, 7, e->deliver_at);
    bind_int(st, 8, e->data_size);
    bind_int(st, 9, e->deliveries);
    bind_int(st, 10, e->has_job);
    bind_blob(st, 11, e->body);
    bind_text(st, 12, e->trace);
    return statement_run(c, st);
}

int sqlite_insert_events(struct store *s, const struct event_record *events, size_t n) {
    for (size_t i = 0; i < n; i++) {
        int r = insert_event(&sqlite_of(s)->writer, &events[i]);
        if (r == 0)
            r = log_late_event(s, &events[i]);
        if (r < 0)
            return r;
    }
    return 0;
}

int sqlite_insert_idempotency(struct store *s, const struct idempotency_record *r) {
    _cleanup_buf_ struct buf ids = {0};
    ids_pack(r->ids, r->ids_n, &ids);
    if (!buf_ok(&ids))
        return -ENOMEM;
    sqlite3_stmt *st = connection_prepare(
        &sqlite_of(s)->writer,
        "INSERT INTO idempotency (tenant, key, body_hash, events, created_at) VALUES (?,?,?,?,?)");
    bind_int(st, 1, r->tenant_no);
    bind_text(st, 2, r->key);
    bind_blob(st, 3, (struct slice){(const char *)r->body_hash, sizeof r->body_hash});
    bind_blob(st, 4, buf_slice(&ids));
    bind_int(st, 5, r->created_at);
    return statement_run(&sqlite_of(s)->writer, st);
}

/* A look costs nothing but itself here. */
void sqlite_expect_idempotency(struct store *s, uint32_t tenant_no, struct slice key) {
    (void)s, (void)tenant_no, (void)key;
}

int sqlite_find_idempotency(struct store *s, uint32_t tenant_no, struct slice key, uint8_t ret_hash[32],
                            struct id *ret_ids, size_t ids_max, size_t *ret_n) {
    sqlite3_stmt *st = connection_prepare(
        &sqlite_of(s)->writer, "SELECT body_hash, events FROM idempotency WHERE tenant=? AND key=?");
    bind_int(st, 1, tenant_no);
    bind_text(st, 2, key);
    int r = statement_next(&sqlite_of(s)->writer, st);
    if (r <= 0)
        return r < 0 ? r : -ENOENT;
    struct slice hash = column_slice(st, 0), ids = column_slice(st, 1);
    if (hash.n != 32 || ids.n % ID_PACKED_SIZE) {
        statement_done(st);
        return -EIO;
    }
    memcpy(ret_hash, hash.p, 32);
    *ret_n = ids_unpack(ids, ret_ids, ids_max);
    statement_done(st);
    return 0;
}

int lane_key_blocked(struct connection *c, uint32_t subscription_no, uint64_t lane_key, int64_t order_at,
                     uint64_t event_key) {
    sqlite3_stmt *st =
        connection_prepare(c, "SELECT 1 FROM deliveries WHERE subscription=? AND lane_key=? AND"
                              " (order_at, event) < (?, ?) LIMIT 1");
    bind_int(st, 1, subscription_no);
    bind_int(st, 2, (int64_t)lane_key);
    bind_int(st, 3, order_at);
    bind_int(st, 4, (int64_t)event_key);
    int r = statement_next(c, st);
    if (r > 0)
        statement_done(st);
    return r;
}

static int insert_delivery(struct store *s, const struct new_delivery *d, size_t *made) {
    struct connection *c = &sqlite_of(s)->writer;
    int blocked = 0, begun = d->begun_at != 0;
    CHECK(!begun || (!d->lane_key && DELIVERY_PENDING == 0 && DELIVERY_ATTEMPTING == 1));
    if (d->lane_key) {
        blocked = lane_key_blocked(c, d->subscription_no, d->lane_key, d->order_at, d->event_key);
        if (blocked < 0)
            return blocked;
    }
    sqlite3_stmt *st = connection_prepare(
        c,
        "INSERT OR IGNORE INTO deliveries (event, subscription, tenant, state, attempts, due_at, lane_key,"
        " order_at, window_at, test, claimed_at, lease_until) VALUES (?1,?2,?3,?4,?4,?5,?6,?7,?7,?8,?9,?10)");
    bind_int(st, 1, (int64_t)d->event_key);
    bind_int(st, 2, d->subscription_no);
    bind_int(st, 3, d->tenant_no);
    bind_int(st, 4, begun); /* the state, and how many attempts */
    bind_time(st, 5, blocked || begun ? 0 : d->due_at ? d->due_at : d->order_at);
    bind_time(st, 6, (int64_t)d->lane_key);
    bind_int(st, 7, d->order_at);
    bind_int(st, 8, d->test);
    bind_time(st, 9, d->begun_at);
    bind_time(st, 10, d->lease_until);
    int r = statement_run(c, st);
    if (r < 0 || sqlite3_changes(c->db) == 0)
        return r;
    *made += 1;
    return log_late_delivery(s, d->event_key, d->subscription_no);
}

int sqlite_insert_deliveries(struct store *s, const struct new_delivery *d, size_t n, size_t *ret_made) {
    size_t made = 0;
    for (size_t i = 0; i < n; i++) {
        int r = insert_delivery(s, &d[i], &made);
        if (r < 0)
            return r;
    }
    *ret_made = made;
    return 0;
}

int sqlite_insert_job(struct store *s, const struct fanout_job *j) {
    sqlite3_stmt *st = connection_prepare(&sqlite_of(s)->writer,
                                          "INSERT INTO fanout_jobs (event, tenant, cursor, upper, deliveries,"
                                          " state, seq) VALUES (?,?,?,?,?,?,?)");
    bind_int(st, 1, (int64_t)j->event_key);
    bind_int(st, 2, j->tenant_no);
    bind_int(st, 3, j->cursor);
    bind_int(st, 4, j->upper);
    bind_int(st, 5, j->deliveries);
    bind_int(st, 6, j->state);
    bind_int(st, 7, (int64_t)j->seq);
    return statement_run(&sqlite_of(s)->writer, st);
}

int sqlite_last_job(struct store *s, uint64_t *ret) {
    sqlite3_stmt *st = connection_prepare(&sqlite_of(s)->writer,
                                          "SELECT coalesce(max(seq), 0) FROM fanout_jobs WHERE state<>2");
    int r = statement_next(&sqlite_of(s)->writer, st);
    if (r <= 0)
        return r < 0 ? r : -EIO;
    *ret = (uint64_t)column_int(st, 0);
    statement_done(st);
    return 0;
}

int sqlite_update_job(struct store *s, const struct fanout_job *j) {
    sqlite3_stmt *st = connection_prepare(
        &sqlite_of(s)->writer, "UPDATE fanout_jobs SET cursor=?, deliveries=?, state=? WHERE event=?");
    bind_int(st, 1, j->cursor);
    bind_int(st, 2, j->deliveries);
    bind_int(st, 3, j->state);
    bind_int(st, 4, (int64_t)j->event_key);
    return statement_run(&sqlite_of(s)->writer, st);
}

int sqlite_list_jobs(struct store *s, uint64_t after_key, struct fanout_job *ret, size_t max, size_t *ret_n) {
    sqlite3_stmt *st = connection_prepare(
        &sqlite_of(s)->writer, "SELECT event, tenant, cursor, upper, deliveries, state, seq FROM fanout_jobs"
                               " WHERE state<>2 AND event>? ORDER BY event LIMIT ?");
    bind_int(st, 1, (int64_t)after_key);
    bind_int(st, 2, (int64_t)max);
    size_t n = 0;
    int r;
    while ((r = statement_next(&sqlite_of(s)->writer, st)) > 0) {
        ret[n++] = (struct fanout_job){
            .event_key = (uint64_t)column_int(st, 0),
            .tenant_no = (uint32_t)column_int(st, 1),
            .cursor = (uint32_t)column_int(st, 2),
            .upper = (uint32_t)column_int(st, 3),
            .deliveries = (uint32_t)column_int(st, 4),
            .state = (enum fanout_state)column_int(st, 5),
            .seq = (uint64_t)column_int(st, 6),
        };
    }
    if (r < 0)
        return r;
    *ret_n = n;
    return 0;
}

int sqlite_get_event(struct store *s, uint32_t tenant_no, uint64_t event_key, struct event_record *ret) {
    sqlite3_stmt *st = connection_prepare(&sqlite_of(s)->writer,
                                          "SELECT " EVENT_COLUMNS " FROM events WHERE key=? AND tenant=?");
    bind_int(st, 1, (int64_t)event_key);
    bind_int(st, 2, tenant_no);
    int r = statement_next(&sqlite_of(s)->writer, st);
    if (r <= 0)
        return r < 0 ? r : -ENOENT;
    /* Not reset here: the slices point into the row, until the next call resets it. */
    read_event_columns(st, ret);
    return 0;
}
