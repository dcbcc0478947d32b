/* Bulk replays: the jobs, their lanes, and what they count.
 *
 * A step locks the row of the replay it works on, so that no two nodes work on one. Who settles a started
 * delivery does not wait for that: it adds a row to replay_counts, in the transaction of the settle, and the
 * next step takes it in. Whoever reads meanwhile adds them up. */
#include <errno.h>

#include "store/postgres/replays.h"

#define REPLAY_COLUMNS                                                                                       \
    "r.key, r.tail, r.tenant, " PG_REPLAY_STATE                                                              \
    ", r.subscription, r.states, r.reasons, r.event_type, r.first_event, "                                   \
    "r.last_event, r.closed_after, r.include_missing, r.dry_run, r.per_second, r.most, r.requested_by, "     \
    "r.matched, r.started, r.done+c.done, r.failed+c.failed, r.opened, r.served, r.paid_until"

static void read_columns(const struct pg_rows *rows, struct replay_record *ret) {
    *ret = (struct replay_record){
        .id = {.key = (uint64_t)pg_column_int(rows, 0), .tail = (uint64_t)pg_column_int(rows, 1)},
        .filter = {.tenant_no = (uint32_t)pg_column_int(rows, 2),
                   .subscription_no = (uint32_t)pg_column_int(rows, 4),
                   .states = (uint32_t)pg_column_int(rows, 5),
                   .reasons = (uint32_t)pg_column_int(rows, 6),
                   .event_type = pg_column_slice(rows, 7),
                   .first_event = (uint64_t)pg_column_int(rows, 8),
                   .last_event = (uint64_t)pg_column_int(rows, 9),
                   .closed_after = pg_column_int(rows, 10),
                   .include_missing = pg_column_int(rows, 11) != 0},
        .state = (enum replay_state)pg_column_int(rows, 3),
        .dry_run = pg_column_int(rows, 12) != 0,
        .per_second = (uint32_t)pg_column_int(rows, 13),
        .most = (uint64_t)pg_column_int(rows, 14),
        .requested_by = pg_column_slice(rows, 15),
        .matched = (uint64_t)pg_column_int(rows, 16),
        .started = (uint64_t)pg_column_int(rows, 17),
        .done = (uint64_t)pg_column_int(rows, 18),
        .failed = (uint64_t)pg_column_int(rows, 19),
        .opened = (uint32_t)pg_column_int(rows, 20),
        .served = (uint32_t)pg_column_int(rows, 21),
        .paid_until = pg_column_int(rows, 22),
    };
}

struct pg_params *pg_replay_params(struct store *s, uint32_t tenant_no, uint64_t key) {
    struct pg_params *p = pg_params(&pg_of(s)->writer);
    pg_int(p, (int32_t)tenant_no);
    pg_bigint(p, (int64_t)key);
    return p;
}

/* Whose replay it is: of the one that is worked on it is known. */
static int tenant_of(struct store *s, uint64_t key, uint32_t *ret) {
    struct pg_replaying *w = &pg_of(s)->replaying;
    if (w->key != key) {
        _cleanup_pg_rows_ struct pg_rows rows = {0};
        pg_bigint(pg_params(&pg_of(s)->writer), (int64_t)key);
        int r = pg_query_row(&pg_of(s)->writer, "SELECT tenant FROM replays WHERE key=$1", &rows);
        if (r <= 0)
            return r < 0 ? r : -ENOENT;
        w->key = key;
        w->tenant_no = (uint32_t)pg_column_int(&rows, 0);
    }
    *ret = w->tenant_no;
    return 0;
}

/* ---- the jobs ---- */

int postgres_insert_replay(struct store *s, const struct replay_record *r, unsigned open_max) {
    const struct replay_filter *f = &r->filter;
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    struct pg_params *p = pg_replay_params(s, f->tenant_no, r->id.key);
    pg_bigint(p, (int64_t)r->id.tail);
    pg_int(p, r->state);
    pg_int(p, (int32_t)f->subscription_no);
    pg_int(p, (int32_t)f->states);
    pg_int(p, (int32_t)f->reasons);
    pg_text(p, f->event_type);
    pg_bigint(p, (int64_t)f->first_event);
    pg_bigint(p, (int64_t)f->last_event);
    pg_bigint(p, f->closed_after);
    pg_bool(p, f->include_missing);
    pg_bool(p, r->dry_run);
    pg_int(p, (int32_t)r->per_second);
    pg_bigint(p, r->most > INT64_MAX ? INT64_MAX : (int64_t)r->most);
    pg_text(p, r->requested_by);
    pg_bigint(p, (int64_t)r->matched);
    pg_bigint(p, (int64_t)r->started);
    pg_int(p, (int32_t)open_max);
    int e =
        pg_query(&pg_of(s)->writer,
                 "INSERT INTO replays (tenant, key, tail, state, subscription, states, reasons, event_type,"
                 " first_event, last_event, closed_after, include_missing, dry_run, per_second, most,"
                 " requested_by, matched, started) SELECT $1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12,$13,$14,"
                 "$15,$16,$17,$18 WHERE (SELECT count(*) FROM (SELECT 1 FROM replays WHERE (state=0 OR"
                 " state=3) AND tenant=$1 LIMIT $19) o) < $19",
                 &rows);
    return e < 0 ? e : pg_changed(&rows) ? 0 : -EDQUOT;
}

static const char take_in[] =
    "WITH gone AS (DELETE FROM replay_counts WHERE tenant=$1 AND replay=$2 RETURNING subscription, freed, "
    "done, failed), lanes AS (UPDATE replay_lanes l SET outstanding=greatest(0, l.outstanding-g.freed), "
    "room=l.share-2*greatest(0, l.outstanding-g.freed) FROM (SELECT subscription, sum(freed)::integer AS "
    "freed FROM gone GROUP BY subscription) g WHERE l.tenant=$1 AND l.replay=$2 AND "
    "l.subscription=g.subscription) UPDATE replays r SET done=r.done+c.done, failed=r.failed+c.failed, "
    "state=" PG_REPLAY_STATE
    " FROM (SELECT sum(done)::bigint AS done, sum(failed)::bigint AS failed FROM gone) c "
    "WHERE r.tenant=$1 AND r.key=$2 AND c.done IS NOT NULL";

int pg_take_in_replayed(struct pg *c, uint32_t tenant_no, uint64_t replay_key) {
    struct pg_params *p = pg_params(c);
    pg_int(p, (int32_t)tenant_no);
    pg_bigint(p, (int64_t)replay_key);
    return pg_send(c, take_in);
}

int postgres_next_replay(struct store *s, uint64_t after_key, struct replay_record *ret) {
    struct pg *c = &pg_of(s)->writer;
    struct pg_replaying *w = &pg_of(s)->replaying;
    int r = pg_flush(pg_of(s));
    if (r < 0)
        return r;
    pg_bigint(pg_params(c), (int64_t)after_key);
    r = pg_query_row(c,
                     "SELECT key, tenant FROM replays WHERE (state=0 OR state=3) AND key>$1 ORDER BY key"
                     " LIMIT 1 FOR UPDATE SKIP LOCKED",
                     &w->row);
    if (r <= 0)
        return r < 0 ? r : -ENOENT;
    w->key = (uint64_t)pg_column_int(&w->row, 0);
    w->tenant_no = (uint32_t)pg_column_int(&w->row, 1);
    r = pg_take_in_replayed(c, w->tenant_no, w->key);
    if (r < 0)
        return r;
    (void)pg_replay_params(s, w->tenant_no, w->key);
    r = pg_query_row(
        c, "SELECT " REPLAY_COLUMNS " FROM replays" PG_REPLAY_COUNTS "WHERE r.tenant=$1 AND r.key=$2",
        &w->row);
    if (r <= 0)
        return r < 0 ? r : -ENOENT;
    read_columns(&w->row, ret);
    return 0;
}

int postgres_update_replay(struct store *s, const struct replay_record *r) {
    struct pg_params *p = pg_replay_params(s, r->filter.tenant_no, r->id.key);
    pg_int(p, r->state);
    pg_bigint(p, (int64_t)r->started);
    pg_bigint(p, r->opened);
    pg_bigint(p, r->served);
    pg_bigint(p, r->paid_until);
    return pg_send(&pg_of(s)->writer,
                   "UPDATE replays SET state=$3, started=$4, opened=$5, served=$6, paid_until=$7"
                   " WHERE tenant=$1 AND key=$2");
}

int postgres_delete_replay(struct store *s, uint64_t key) {
    uint32_t tenant_no;
    int r = tenant_of(s, key, &tenant_no);
    if (r < 0)
        return r == -ENOENT ? 0 : r;
    (void)pg_replay_params(s, tenant_no, key);
    return pg_send(&pg_of(s)->writer, "DELETE FROM replays WHERE tenant=$1 AND key=$2");
}

int postgres_last_recovery(struct store *s, uint32_t subscription_no, int64_t *ret_at, bool *ret_waiting) {
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    pg_int(pg_params(&pg_of(s)->writer), (int32_t)subscription_no);
    int r = pg_query_row(&pg_of(s)->writer,
                         "SELECT key, state=0 AND started=0 FROM replays WHERE requested_by='system'"
                         " AND subscription=$1 ORDER BY key DESC LIMIT 1",
                         &rows);
    if (r < 0)
        return r;
    *ret_at = r ? pg_column_int(&rows, 0) >> 12 : 0;
    *ret_waiting = r && pg_column_int(&rows, 1);
    return 0;
}

int postgres_retain_replays(struct store *s, uint32_t tenant_no, int64_t before, unsigned limit,
                            unsigned *ret_n) {
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    struct pg_params *p = pg_replay_params(s, tenant_no, id_key_at(before));
    pg_int(p, (int32_t)limit);
    int r = pg_query(&pg_of(s)->writer,
                     "DELETE FROM replays WHERE tenant=$1 AND key IN (SELECT key FROM replays WHERE tenant=$1"
                     " AND key<$2 AND (state=2 OR state=4) ORDER BY key LIMIT $3)",
                     &rows);
    if (r == 0)
        *ret_n = (unsigned)pg_changed(&rows);
    return r;
}

/* ---- lanes ---- */

int postgres_open_replay_lanes(struct store *s, struct replay_record *r, unsigned limit) {
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    struct pg_params *p = pg_replay_params(s, r->filter.tenant_no, r->id.key);
    pg_bigint(p, r->opened);
    pg_int(p, (int32_t)r->filter.subscription_no);
    pg_bigint(p, r->filter.first_event ? (int64_t)r->filter.first_event - 1 : 0);
    pg_int(p, (int32_t)limit);
    int e = pg_query_row(&pg_of(s)->writer,
                         "WITH s AS (SELECT no FROM subscriptions WHERE tenant=$1 AND no>$3 AND ($4=0 OR"
                         " no=$4) ORDER BY no LIMIT $6), i AS (INSERT INTO replay_lanes (tenant, replay,"
                         " subscription, cursor, share, room) SELECT $1, $2, no, $5, 1, 1 FROM s ON CONFLICT"
                         " (tenant, replay, subscription) DO NOTHING) SELECT count(*), max(no) FROM s",
                         &rows);
    if (e <= 0)
        return e < 0 ? e : -EIO;
    r->opened = pg_column_int(&rows, 0) < limit ? UINT32_MAX : (uint32_t)pg_column_int(&rows, 1);
    return 0;
}

int postgres_list_replay_lanes(struct store *s, uint64_t replay_key, uint32_t after_no,
                               struct replay_lane *ret, size_t max, size_t *ret_n) {
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    uint32_t tenant_no;
    *ret_n = 0;
    int r = tenant_of(s, replay_key, &tenant_no);
    if (r < 0)
        return r == -ENOENT ? 0 : r;
    r = pg_flush(pg_of(s));
    if (r < 0)
        return r;
    r = pg_take_in_replayed(&pg_of(s)->writer, tenant_no, replay_key);
    if (r < 0)
        return r;
    struct pg_params *p = pg_replay_params(s, tenant_no, replay_key);
    pg_bigint(p, after_no);
    pg_bigint(p, (int64_t)max);
    r = pg_query(&pg_of(s)->writer,
                 "SELECT subscription, cursor, share, outstanding FROM replay_lanes WHERE tenant=$1 AND"
                 " replay=$2 AND subscription>$3 AND room >= 0 ORDER BY subscription LIMIT $4",
                 &rows);
    for (; r == 0 && pg_next(&rows); ++*ret_n)
        ret[*ret_n] = (struct replay_lane){.subscription_no = (uint32_t)pg_column_int(&rows, 0),
                                           .cursor = (uint64_t)pg_column_int(&rows, 1),
                                           .share = (uint32_t)pg_column_int(&rows, 2),
                                           .outstanding = (uint32_t)pg_column_int(&rows, 3)};
    return r;
}

int postgres_has_replay_lanes(struct store *s, uint64_t replay_key, bool *ret) {
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    uint32_t tenant_no;
    *ret = false;
    int r = tenant_of(s, replay_key, &tenant_no);
    if (r < 0)
        return r == -ENOENT ? 0 : r;
    (void)pg_replay_params(s, tenant_no, replay_key);
    r = pg_query_row(&pg_of(s)->writer, "SELECT 1 FROM replay_lanes WHERE tenant=$1 AND replay=$2 LIMIT 1",
                     &rows);
    *ret = r > 0;
    return r < 0 ? r : 0;
}

int postgres_update_replay_lane(struct store *s, uint64_t replay_key, const struct replay_lane *l) {
    uint32_t tenant_no;
    int r = tenant_of(s, replay_key, &tenant_no);
    if (r < 0)
        return r == -ENOENT ? 0 : r;
    struct pg_params *p = pg_replay_params(s, tenant_no, replay_key);
    pg_int(p, (int32_t)l->subscription_no);
    pg_bigint(p, (int64_t)l->cursor);
    pg_int(p, (int32_t)l->share);
    pg_int(p, (int32_t)l->outstanding);
    return pg_send(&pg_of(s)->writer,
                   "UPDATE replay_lanes SET cursor=$4, share=$5, outstanding=$6, room=$5-2*$6"
                   " WHERE tenant=$1 AND replay=$2 AND subscription=$3");
}

int postgres_delete_replay_lane(struct store *s, uint64_t replay_key, uint32_t subscription_no) {
    uint32_t tenant_no;
    int r = tenant_of(s, replay_key, &tenant_no);
    if (r < 0)
        return r == -ENOENT ? 0 : r;
    pg_int(pg_replay_params(s, tenant_no, replay_key), (int32_t)subscription_no);
    return pg_send(&pg_of(s)->writer,
                   "DELETE FROM replay_lanes WHERE tenant=$1 AND replay=$2 AND subscription=$3");
}

bool postgres_take_replay_progress(struct store *s) {
    bool progress = pg_of(s)->replay_progress;
    pg_of(s)->replay_progress = false;
    return progress;
}

/* ---- reading ---- */

int postgres_read_replay(struct store_reader *r, uint32_t tenant_no, struct id id, replay_row_fn fn,
                         void *arg) {
    struct pg *c = &pg_reader_of(r)->conn;
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    struct pg_params *p = pg_params(c);
    pg_int(p, (int32_t)tenant_no);
    pg_bigint(p, (int64_t)id.key);
    pg_bigint(p, (int64_t)id.tail);
    int e = pg_query_row(c,
                         "SELECT " REPLAY_COLUMNS " FROM replays" PG_REPLAY_COUNTS
                         "WHERE r.tenant=$1 AND r.key=$2 AND r.tail=$3",
                         &rows);
    if (e <= 0)
        return e < 0 ? e : -ENOENT;
    struct replay_record row;
    read_columns(&rows, &row);
    return fn(arg, &row);
}

int postgres_list_replays(struct store_reader *r, uint32_t tenant_no, uint64_t before_key, size_t limit,
                          replay_row_fn fn, void *arg) {
    enum { REPLAYS_A_ROUND = 250 };
    struct pg *c = &pg_reader_of(r)->conn;
    struct replay_record row = {.id = {.key = before_key ? before_key : ID_KEY_MAX + 1}};
    for (size_t n = 0, wanted = 0; limit > 0 && n == wanted; limit -= n) {
        _cleanup_pg_rows_ struct pg_rows rows = {0};
        struct pg_params *p = pg_params(c);
        wanted = limit < REPLAYS_A_ROUND ? limit : REPLAYS_A_ROUND;
        pg_int(p, (int32_t)tenant_no);
        pg_bigint(p, (int64_t)row.id.key);
        pg_bigint(p, (int64_t)wanted);
        int e = pg_query(c,
                         "SELECT " REPLAY_COLUMNS " FROM replays" PG_REPLAY_COUNTS
                         "WHERE r.tenant=$1 AND r.key<$2 ORDER BY r.key DESC LIMIT $3",
                         &rows);
        for (n = 0; e == 0 && pg_next(&rows); n++) {
            read_columns(&rows, &row);
            e = fn(arg, &row);
        }
        if (e != 0)
            return e;
    }
    return 0;
}
