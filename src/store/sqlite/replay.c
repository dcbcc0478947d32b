/* Bulk replays: the jobs, their lanes, and what they count. */
#include "store/replay.h"

#include <errno.h>

#include "store/sqlite/sqlite.h"

#define REPLAY_COLUMNS                                                                                       \
    "key, tail, tenant, state, subscription, states, reasons, event_type, first_event, last_event, "         \
    "closed_after, include_missing, dry_run, per_second, most, requested_by, matched, started, done, "       \
    "failed, opened, served, paid_until"

static void read_columns(sqlite3_stmt *st, struct replay_record *ret) {
    *ret = (struct replay_record){
        .id = {.key = (uint64_t)column_int(st, 0), .tail = (uint64_t)column_int(st, 1)},
        .filter = {.tenant_no = (uint32_t)column_int(st, 2),
                   .subscription_no = (uint32_t)column_int(st, 4),
                   .states = (uint32_t)column_int(st, 5),
                   .reasons = (uint32_t)column_int(st, 6),
                   .event_type = column_slice(st, 7),
                   .first_event = (uint64_t)column_int(st, 8),
                   .last_event = (uint64_t)column_int(st, 9),
                   .closed_after = column_int(st, 10),
                   .include_missing = column_int(st, 11) != 0},
        .state = (enum replay_state)column_int(st, 3),
        .dry_run = column_int(st, 12) != 0,
        .per_second = (uint32_t)column_int(st, 13),
        .most = (uint64_t)column_int(st, 14),
        .requested_by = column_slice(st, 15),
        .matched = (uint64_t)column_int(st, 16),
        .started = (uint64_t)column_int(st, 17),
        .done = (uint64_t)column_int(st, 18),
        .failed = (uint64_t)column_int(st, 19),
        .opened = (uint32_t)column_int(st, 20),
        .served = (uint32_t)column_int(st, 21),
        .paid_until = column_int(st, 22),
    };
}

/* ---- the jobs ---- */

static int count_open(struct connection *c, uint32_t tenant_no, unsigned max, unsigned *ret) {
    sqlite3_stmt *st = connection_prepare(
        c, "SELECT count(*) FROM (SELECT 1 FROM replays INDEXED BY replays_open WHERE (state=0 OR state=3)"
           " AND tenant=? LIMIT ?)");
    bind_int(st, 1, tenant_no);
    bind_int(st, 2, max);
    int r = statement_next(c, st);
    if (r <= 0)
        return r < 0 ? r : -EIO;
    *ret = (unsigned)column_int(st, 0);
    statement_done(st);
    return 0;
}

int sqlite_insert_replay(struct store *s, const struct replay_record *r, unsigned open_max) {
    struct connection *c = &sqlite_of(s)->writer;
    const struct replay_filter *f = &r->filter;
    unsigned open = 0;
    int e = count_open(c, f->tenant_no, open_max, &open);
    if (e < 0)
        return e;
    if (open >= open_max)
        return -EDQUOT;
    sqlite3_stmt *st =
        connection_prepare(c, "INSERT INTO replays (key, tail, tenant, state, subscription, states, reasons, "
                              "event_type, first_event, last_event, closed_after, include_missing, dry_run, "
                              "per_second, most, requested_by, matched, started)"
                              " VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)");
    bind_int(st, 1, (int64_t)r->id.key);
    bind_int(st, 2, (int64_t)r->id.tail);
    bind_int(st, 3, f->tenant_no);
    bind_int(st, 4, r->state);
    bind_int(st, 5, f->subscription_no);
    bind_int(st, 6, f->states);
    bind_int(st, 7, f->reasons);
    bind_text(st, 8, f->event_type);
    bind_int(st, 9, (int64_t)f->first_event);
    bind_int(st, 10, (int64_t)f->last_event);
    bind_int(st, 11, f->closed_after);
    bind_int(st, 12, f->include_missing);
    bind_int(st, 13, r->dry_run);
    bind_int(st, 14, r->per_second);
    bind_int(st, 15, r->most > INT64_MAX ? INT64_MAX : (int64_t)r->most);
    bind_text(st, 16, r->requested_by);
    bind_int(st, 17, (int64_t)r->matched);
    bind_int(st, 18, (int64_t)r->started);
    return statement_run(c, st);
}

int sqlite_next_replay(struct store *s, uint64_t after_key, struct replay_record *ret) {
    sqlite3_stmt *st = connection_prepare(&sqlite_of(s)->writer,
                                          "SELECT " REPLAY_COLUMNS " FROM replays INDEXED BY replays_open"
                                          " WHERE (state=0 OR state=3) AND key>? ORDER BY key LIMIT 1");
    bind_int(st, 1, (int64_t)after_key);
    int r = statement_next(&sqlite_of(s)->writer, st);
    if (r <= 0)
        return r < 0 ? r : -ENOENT;
    /* Not reset: the slices point into the row. */
    read_columns(st, ret);
    return 0;
}

int sqlite_update_replay(struct store *s, const struct replay_record *r) {
    sqlite3_stmt *st = connection_prepare(
        &sqlite_of(s)->writer,
        "UPDATE replays SET state=?, started=?, opened=?, served=?, paid_until=? WHERE key=?");
    bind_int(st, 1, r->state);
    bind_int(st, 2, (int64_t)r->started);
    bind_int(st, 3, r->opened);
    bind_int(st, 4, r->served);
    bind_int(st, 5, r->paid_until);
    bind_int(st, 6, (int64_t)r->id.key);
    return statement_run(&sqlite_of(s)->writer, st);
}

int sqlite_delete_replay(struct store *s, uint64_t key) {
    sqlite3_stmt *st = connection_prepare(&sqlite_of(s)->writer, "DELETE FROM replays WHERE key=?");
    bind_int(st, 1, (int64_t)key);
    return statement_run(&sqlite_of(s)->writer, st);
}

int sqlite_last_recovery(struct store *s, uint32_t subscription_no, int64_t *ret_at, bool *ret_waiting) {
    sqlite3_stmt *st = connection_prepare(
        &sqlite_of(s)->writer, "SELECT key, state=0 AND started=0 FROM replays INDEXED BY replays_recovery"
                               " WHERE requested_by='system' AND subscription=? ORDER BY key DESC LIMIT 1");
    bind_int(st, 1, subscription_no);
    int r = statement_next(&sqlite_of(s)->writer, st);
    if (r < 0)
        return r;
    *ret_at = r ? column_int(st, 0) >> 12 : 0;
    *ret_waiting = r && column_int(st, 1);
    statement_done(st);
    return 0;
}

int sqlite_retain_replays(struct store *s, uint32_t tenant_no, int64_t before, unsigned limit,
                          unsigned *ret_n) {
    sqlite3_stmt *st = connection_prepare(
        &sqlite_of(s)->writer, "DELETE FROM replays WHERE key IN (SELECT key FROM replays WHERE"
                               " tenant=? AND key<? AND (state=2 OR state=4) ORDER BY key LIMIT ?)");
    bind_int(st, 1, tenant_no);
    bind_int(st, 2, (int64_t)id_key_at(before));
    bind_int(st, 3, limit);
    int r = statement_run(&sqlite_of(s)->writer, st);
    if (r == 0)
        *ret_n = (unsigned)sqlite3_changes(sqlite_of(s)->writer.db);
    return r;
}

/* ---- cancelling ---- */

static int delete_lanes(struct connection *c, uint64_t replay_key) {
    sqlite3_stmt *st = connection_prepare(c, "DELETE FROM replay_lanes WHERE replay=?");
    bind_int(st, 1, (int64_t)replay_key);
    return statement_run(c, st);
}

int sqlite_cancel_replay(struct store *s, uint32_t tenant_no, struct id id) {
    struct connection *c = &sqlite_of(s)->writer;
    sqlite3_stmt *st = connection_prepare(c, "SELECT state FROM replays WHERE key=? AND tail=? AND tenant=?");
    bind_int(st, 1, (int64_t)id.key);
    bind_int(st, 2, (int64_t)id.tail);
    bind_int(st, 3, tenant_no);
    int r = statement_next(c, st);
    if (r <= 0)
        return r < 0 ? r : -ENOENT;
    enum replay_state state = (enum replay_state)column_int(st, 0);
    statement_done(st);
    if (state != REPLAY_RUNNING && state != REPLAY_SENDING)
        return -EALREADY;
    st = connection_prepare(c, "UPDATE replays SET state=3 WHERE key=?");
    bind_int(st, 1, (int64_t)id.key);
    r = statement_run(c, st);
    return r < 0 ? r : delete_lanes(c, id.key);
}

enum { CANCEL_LOOKED_AT_MAX = 1000 };

/* The next of the tenant's REPLAYING deliveries after the cursor; those of other replays are passed over, a
 * bounded number in all. */
static int find_unattempted(struct connection *c, const struct replay_record *r, unsigned limit,
                            int64_t cursor[2], struct waiting_delivery *ret, size_t *ret_n, bool *ret_ended) {
    char source[ID_TEXT_SIZE];
    id_format(ID_REPLAY, r->id, source);
    sqlite3_stmt *st = connection_prepare(
        c, "SELECT event, subscription, lane_key, replay_source FROM deliveries INDEXED BY deliveries_failed"
           " WHERE (state=2 OR state=4 OR state=5) AND tenant=? AND state=5"
           " AND (event, subscription) > (?, ?) ORDER BY event, subscription LIMIT ?");
    bind_int(st, 1, r->filter.tenant_no);
    bind_int(st, 2, cursor[0]);
    bind_int(st, 3, cursor[1]);
    bind_int(st, 4, CANCEL_LOOKED_AT_MAX);
    size_t looked = 0, n = 0;
    int e = 0;
    while (n < limit && (e = statement_next(c, st)) > 0) {
        looked++;
        cursor[0] = column_int(st, 0);
        cursor[1] = column_int(st, 1);
        if (slice_eq(column_slice(st, 3), slice_of(source)))
            ret[n++] = (struct waiting_delivery){.event_key = (uint64_t)cursor[0],
                                                 .subscription_no = (uint32_t)cursor[1],
                                                 .state = DELIVERY_REPLAYING,
                                                 .lane_key = (uint64_t)column_int(st, 2)};
    }
    statement_done(st);
    *ret_n = n;
    *ret_ended = n < limit && looked < CANCEL_LOOKED_AT_MAX;
    return e < 0 ? e : 0;
}

static int read_cancel_cursor(struct connection *c, uint64_t key, int64_t ret[2]) {
    sqlite3_stmt *st = connection_prepare(c, "SELECT cancel_event, cancel_lane FROM replays WHERE key=?");
    bind_int(st, 1, (int64_t)key);
    int r = statement_next(c, st);
    if (r <= 0)
        return r < 0 ? r : -EIO;
    ret[0] = column_int(st, 0);
    ret[1] = column_int(st, 1);
    statement_done(st);
    return 0;
}

int sqlite_cancel_replay_step(struct store *s, const struct replay_record *r, int64_t now, unsigned limit,
                              struct expired_task *moved, size_t *ret_n, bool *ret_ended) {
    struct connection *c = &sqlite_of(s)->writer;
    struct waiting_delivery found[CANCEL_LOOKED_AT_MAX];
    int64_t cursor[2];
    size_t n = 0;
    CHECK(limit > 0 && limit <= CANCEL_LOOKED_AT_MAX);
    int e = read_cancel_cursor(c, r->id.key, cursor);
    if (e == 0)
        e = find_unattempted(c, r, limit, cursor, found, &n, ret_ended);
    for (size_t i = 0; e == 0 && i < n; i++) {
        e = close_waiting(c, &found[i], REASON_REPLAY_CANCELLED, now);
        moved[i] = (struct expired_task){found[i].event_key, found[i].subscription_no, r->filter.tenant_no};
    }
    if (e < 0)
        return e;
    *ret_n = n;
    sqlite3_stmt *st =
        connection_prepare(c, "UPDATE replays SET state=?, cancel_event=?, cancel_lane=? WHERE key=?");
    bind_int(st, 1, *ret_ended ? REPLAY_CANCELLED : REPLAY_CANCELLING);
    bind_int(st, 2, cursor[0]);
    bind_int(st, 3, cursor[1]);
    bind_int(st, 4, (int64_t)r->id.key);
    return statement_run(c, st);
}

/* ---- lanes ---- */

int sqlite_open_replay_lanes(struct store *s, struct replay_record *r, unsigned limit) {
    struct connection *c = &sqlite_of(s)->writer;
    uint32_t nos[256];
    size_t n = 0, max = limit < 256 ? limit : 256;
    sqlite3_stmt *st = connection_prepare(c, "SELECT no FROM subscriptions WHERE tenant=?1 AND no>?2"
                                             " AND (?3=0 OR no=?3) ORDER BY no LIMIT ?4");
    bind_int(st, 1, r->filter.tenant_no);
    bind_int(st, 2, r->opened);
    bind_int(st, 3, r->filter.subscription_no);
    bind_int(st, 4, (int64_t)max);
    int e;
    while ((e = statement_next(c, st)) > 0)
        nos[n++] = (uint32_t)column_int(st, 0);
    for (size_t i = 0; e == 0 && i < n; i++) {
        st = connection_prepare(c, "INSERT OR IGNORE INTO replay_lanes (replay, subscription, cursor, share,"
                                   " room) VALUES (?,?,?,1,1)");
        bind_int(st, 1, (int64_t)r->id.key);
        bind_int(st, 2, nos[i]);
        bind_int(st, 3, r->filter.first_event ? (int64_t)r->filter.first_event - 1 : 0);
        e = statement_run(c, st);
    }
    if (e == 0)
        r->opened = n < max ? UINT32_MAX : nos[n - 1];
    return e;
}

int sqlite_list_replay_lanes(struct store *s, uint64_t replay_key, uint32_t after_no, struct replay_lane *ret,
                             size_t max, size_t *ret_n) {
    sqlite3_stmt *st = connection_prepare(
        &sqlite_of(s)->writer, "SELECT subscription, cursor, share, outstanding FROM replay_lanes INDEXED BY"
                               " replay_lanes_ready WHERE replay=? AND subscription>? AND room >= 0"
                               " ORDER BY subscription LIMIT ?");
    bind_int(st, 1, (int64_t)replay_key);
    bind_int(st, 2, after_no);
    bind_int(st, 3, (int64_t)max);
    size_t n = 0;
    int r;
    while ((r = statement_next(&sqlite_of(s)->writer, st)) > 0)
        ret[n++] = (struct replay_lane){.subscription_no = (uint32_t)column_int(st, 0),
                                        .cursor = (uint64_t)column_int(st, 1),
                                        .share = (uint32_t)column_int(st, 2),
                                        .outstanding = (uint32_t)column_int(st, 3)};
    *ret_n = n;
    return r;
}

int sqlite_has_replay_lanes(struct store *s, uint64_t replay_key, bool *ret) {
    sqlite3_stmt *st =
        connection_prepare(&sqlite_of(s)->writer, "SELECT 1 FROM replay_lanes WHERE replay=? LIMIT 1");
    bind_int(st, 1, (int64_t)replay_key);
    int r = statement_next(&sqlite_of(s)->writer, st);
    if (r > 0)
        statement_done(st);
    if (r >= 0)
        *ret = r > 0;
    return r < 0 ? r : 0;
}

int sqlite_update_replay_lane(struct store *s, uint64_t replay_key, const struct replay_lane *l) {
    sqlite3_stmt *st = connection_prepare(&sqlite_of(s)->writer,
                                          "UPDATE replay_lanes SET cursor=?1, share=?2, outstanding=?3,"
                                          " room=?2-2*?3 WHERE replay=?4 AND subscription=?5");
    bind_int(st, 1, (int64_t)l->cursor);
    bind_int(st, 2, l->share);
    bind_int(st, 3, l->outstanding);
    bind_int(st, 4, (int64_t)replay_key);
    bind_int(st, 5, l->subscription_no);
    return statement_run(&sqlite_of(s)->writer, st);
}

int sqlite_delete_replay_lane(struct store *s, uint64_t replay_key, uint32_t subscription_no) {
    sqlite3_stmt *st = connection_prepare(&sqlite_of(s)->writer,
                                          "DELETE FROM replay_lanes WHERE replay=? AND subscription=?");
    bind_int(st, 1, (int64_t)replay_key);
    bind_int(st, 2, subscription_no);
    return statement_run(&sqlite_of(s)->writer, st);
}

/* ---- counting what was started ---- */

/* 1 when a bulk replay stands behind the delivery. *ret_first: it has begun no more than one attempt since.
 */
static int replay_of(struct connection *c, uint64_t event_key, uint32_t subscription_no, struct id *ret,
                     uint32_t *ret_attempts) {
    sqlite3_stmt *st = connection_prepare(
        c, "SELECT replay_source, attempts - base FROM deliveries WHERE event=? AND subscription=?");
    bind_int(st, 1, (int64_t)event_key);
    bind_int(st, 2, subscription_no);
    int r = statement_next(c, st);
    if (r <= 0)
        return r;
    *ret_attempts = (uint32_t)column_int(st, 1);
    int parsed = id_parse(ID_REPLAY, column_slice(st, 0), ret);
    statement_done(st);
    return parsed == 0;
}

static int free_place(struct connection *c, uint64_t replay_key, uint32_t subscription_no) {
    sqlite3_stmt *st = connection_prepare(
        c, "UPDATE replay_lanes SET outstanding=outstanding-1, room=room+2 WHERE replay=? AND"
           " subscription=? AND outstanding>0");
    bind_int(st, 1, (int64_t)replay_key);
    bind_int(st, 2, subscription_no);
    return statement_run(c, st);
}

static int count_closed(struct connection *c, uint64_t replay_key, bool delivered) {
    sqlite3_stmt *st = connection_prepare(
        c, "UPDATE replays SET done=done+?1, failed=failed+1-?1,"
           " state=CASE WHEN state=1 AND done+failed+1>=started THEN 2 ELSE state END WHERE key=?2");
    bind_int(st, 1, delivered);
    bind_int(st, 2, (int64_t)replay_key);
    return statement_run(c, st);
}

int count_replayed_attempt(struct store *s, const struct settlement *i) {
    struct connection *c = &sqlite_of(s)->writer;
    struct id replay;
    uint32_t attempts = 0;
    int r = replay_of(c, i->event_key, i->subscription_no, &replay, &attempts);
    if (r <= 0)
        return r;
    r = 0;
    if (attempts == 1) {
        sqlite_of(s)->replay_progress = true;
        r = free_place(c, replay.key, i->subscription_no);
    }
    if (r == 0 && i->to != DELIVERY_RETRY)
        r = count_closed(c, replay.key, i->to == DELIVERY_DELIVERED);
    return r;
}

int count_replayed_waiting(struct connection *c, const struct waiting_delivery *d,
                           enum delivery_reason reason) {
    struct id replay;
    uint32_t attempts = 0;
    int r = replay_of(c, d->event_key, d->subscription_no, &replay, &attempts);
    if (r <= 0 || reason == REASON_REPLAY_CANCELLED)
        return r < 0 ? r : 0;
    r = attempts == 0 ? free_place(c, replay.key, d->subscription_no) : 0;
    return r < 0 ? r : count_closed(c, replay.key, false);
}

bool sqlite_take_replay_progress(struct store *s) {
    bool progress = sqlite_of(s)->replay_progress;
    sqlite_of(s)->replay_progress = false;
    return progress;
}

/* ---- reading ---- */

static int each_row(struct connection *c, sqlite3_stmt *st, replay_row_fn fn, void *arg, size_t *ret_n) {
    int r;
    for (*ret_n = 0; (r = statement_next(c, st)) > 0; ++*ret_n) {
        struct replay_record row;
        read_columns(st, &row);
        r = fn(arg, &row);
        if (r != 0) {
            statement_done(st);
            return r;
        }
    }
    return r;
}

int sqlite_read_replay(struct store_reader *r, uint32_t tenant_no, struct id id, replay_row_fn fn,
                       void *arg) {
    sqlite3_stmt *st =
        connection_prepare(&sqlite_reader_of(r)->conn,
                           "SELECT " REPLAY_COLUMNS " FROM replays WHERE key=? AND tail=? AND tenant=?");
    bind_int(st, 1, (int64_t)id.key);
    bind_int(st, 2, (int64_t)id.tail);
    bind_int(st, 3, tenant_no);
    size_t n;
    int e = each_row(&sqlite_reader_of(r)->conn, st, fn, arg, &n);
    return e == 0 && n == 0 ? -ENOENT : e;
}

int sqlite_list_replays(struct store_reader *r, uint32_t tenant_no, uint64_t before_key, size_t limit,
                        replay_row_fn fn, void *arg) {
    sqlite3_stmt *st = connection_prepare(
        &sqlite_reader_of(r)->conn, "SELECT " REPLAY_COLUMNS " FROM replays INDEXED BY replays_by_tenant"
                                    " WHERE tenant=? AND key<? ORDER BY key DESC LIMIT ?");
    bind_int(st, 1, tenant_no);
    bind_int(st, 2, before_key ? (int64_t)before_key : (int64_t)ID_KEY_MAX + 1);
    bind_int(st, 3, limit > INT64_MAX ? INT64_MAX : (int64_t)limit);
    size_t n;
    return each_row(&sqlite_reader_of(r)->conn, st, fn, arg, &n);
}
