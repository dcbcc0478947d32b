/* Claiming. One statement looks into all lanes, and claims from those where nothing but the due time counts;
 * where lane keys or closed windows are about, some more decide what becomes of each that is due. */
#include <errno.h>

#include "store/postgres/gather.h"
#include "store/postgres/order.h"

enum {
    ROUNDS_MAX = 8,
    WAIT_MS = 20, /* how soon is looked again at what waits for an earlier fan-out, or for another node */
};

enum fate { FATE_LEFT, FATE_CLAIM, FATE_EXPIRE, FATE_PUT_ASIDE, FATE_WAITS };

struct candidate {
    uint32_t lane, place; /* from 0, from 1 */
    bool claimed, plain_lane, replayed, test;
    uint32_t seen; /* how many of the lane's first are due */
    uint64_t event_key, lane_key;
    uint32_t attempts, base, uncounted;
    enum delivery_state state;
    int64_t due_at, order_at, window_at;
    /* Where it is not alone. */
    bool held, behind_fanout, blocked, busy;
    enum fate fate;
};

struct claiming {
    struct pg_store *s;
    int64_t now;
    struct lane_claim *lanes;
    struct task *tasks;
    size_t tasks_n, tasks_max;
    struct expired_task *expired;
    size_t expired_n, expired_max;
    /* Of this round. */
    uint32_t *looked_at; /* numbers of lanes */
    size_t looked_at_n;
    struct candidate *found; /* by lane and place */
    size_t found_n;
};

/* ---- the look ---- */

static void read_candidate(const struct claiming *k, const struct pg_rows *rows, struct candidate *ret) {
    *ret = (struct candidate){
        .lane = k->looked_at[pg_column_int(rows, 0) - 1],
        .place = (uint32_t)pg_column_int(rows, 1),
        .claimed = pg_column_int(rows, 2) != 0,
        .event_key = (uint64_t)pg_column_int(rows, 3),
        .state = (enum delivery_state)pg_column_int(rows, 4),
        .attempts = (uint32_t)pg_column_int(rows, 5),
        .base = (uint32_t)pg_column_int(rows, 6),
        .uncounted = (uint32_t)pg_column_int(rows, 7),
        .due_at = pg_column_int(rows, 8),
        .lane_key = (uint64_t)pg_column_int(rows, 9),
        .order_at = pg_column_int(rows, 10),
        .window_at = pg_column_int(rows, 11),
        .replayed = pg_column_int(rows, 12) != 0,
        .test = pg_column_int(rows, 13) != 0,
        .plain_lane = pg_column_int(rows, 14) != 0,
        .seen = (uint32_t)pg_column_int(rows, 15),
    };
}

static int by_place(const void *a, const void *b) {
    const struct candidate *x = a, *y = b;
    if (x->lane != y->lane)
        return x->lane < y->lane ? -1 : 1;
    return x->place != y->place ? (x->place < y->place ? -1 : 1) : (int)y->claimed - (int)x->claimed;
}

static int ask(struct claiming *k, struct pg_rows *ret) {
    struct pg_column c[5] = {PG_COLUMN(PG_INT), PG_COLUMN(PG_BIGINT), PG_COLUMN(PG_BIGINT),
                             PG_COLUMN(PG_BIGINT), PG_COLUMN(PG_BIGINT)};
    for (size_t i = 0; i < k->looked_at_n; i++) {
        const struct lane_claim *l = &k->lanes[k->looked_at[i]];
        pg_add_int(&c[0], (int32_t)l->subscription_no);
        pg_add_bigint(&c[1], (int64_t)l->limit - l->claimed);
        pg_add_bigint(&c[2], l->window_ms);
        pg_add_bigint(&c[3], l->resumed_at);
        pg_add_bigint(&c[4], l->lease_ms);
    }
    struct pg_params *p = pg_params(&k->s->writer);
    for (int i = 0; i < 5; i++) {
        pg_array(p, &c[i]);
        pg_column_free(&c[i]);
    }
    pg_bigint(p, k->now);
    pg_int(p, (int32_t)k->s->node.no);
    /* Of each lane one more than is wanted: when it is due is when the lane has work again. */
    return pg_query(
        &k->s->writer,
        "WITH lane AS MATERIALIZED (SELECT * FROM unnest($1,$2,$3,$4,$5) WITH ORDINALITY"
        "  AS l(subscription, most, window_ms, resumed_at, lease_ms, at)),"
        " seen AS MATERIALIZED (SELECT l.at, l.most, l.lease_ms, c.*,"
        "  row_number() OVER (PARTITION BY l.at ORDER BY c.due_at, c.event) AS place,"
        "  count(*) FILTER (WHERE c.due_at<=$6) OVER (PARTITION BY l.at) AS due_n,"
        "  bool_and(c.plain OR c.due_at>$6) OVER (PARTITION BY l.at) AS plain_lane"
        "  FROM lane l CROSS JOIN LATERAL (SELECT d.ctid AS tid, d.event, d.state, d.attempts, d.base,"
        "   d.uncounted, d.due_at, d.lane_key, d.order_at, d.window_at, d.replay_by IS NOT NULL AS replayed,"
        "   d.test, d.lane_key IS NULL AND (d.window_at+l.window_ms>=$6 OR d.due_at=d.window_at+l.window_ms"
        "   OR l.resumed_at>=d.window_at+l.window_ms) AS plain"
        "   FROM deliveries_open d WHERE d.subscription=l.subscription AND d.due_at IS NOT NULL"
        "   ORDER BY d.due_at, d.event LIMIT l.most+1) c),"
        " held AS MATERIALIZED (SELECT s.* FROM seen s JOIN deliveries_open d ON d.ctid=s.tid"
        "  WHERE s.plain_lane AND s.place<=s.most AND s.due_at<=$6 AND d.due_at IS NOT NULL"
        "  FOR UPDATE OF d SKIP LOCKED),"
        " claimed AS (UPDATE deliveries_open d SET state=1, attempts=d.attempts+1, due_at=NULL,"
        "  lease_until=$6+h.lease_ms, claimed_at=$6, node=$7 FROM held h WHERE d.ctid=h.tid RETURNING h.*)"
        " SELECT at, place, true, event, state, attempts, base, uncounted, due_at, lane_key, order_at,"
        "  window_at, replayed, test, plain_lane, due_n FROM claimed"
        " UNION ALL SELECT at, place, false, event, state, attempts, base, uncounted, due_at, lane_key,"
        "  order_at, window_at, replayed, test, plain_lane, due_n FROM seen"
        "  WHERE place=1 OR place>most OR due_at>$6 OR NOT plain_lane",
        ret);
}

static int look(struct claiming *k) {
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    int r = ask(k, &rows);
    if (r < 0)
        return r;
    free(k->found);
    k->found = calloc((size_t)rows.n + 1, sizeof *k->found);
    if (!k->found)
        return -ENOMEM;
    for (k->found_n = 0; pg_next(&rows);)
        read_candidate(k, &rows, &k->found[k->found_n++]);
    qsort(k->found, k->found_n, sizeof *k->found, by_place);
    return 0;
}

/* ---- what becomes of a candidate ---- */

static void give(struct claiming *k, const struct candidate *d) {
    struct lane_claim *lane = &k->lanes[d->lane];
    CHECK(delivery_transition_allowed(d->state, DELIVERY_ATTEMPTING, true, REASON_NONE));
    CHECK(k->tasks_n < k->tasks_max);
    k->tasks[k->tasks_n++] = (struct task){
        .event_key = d->event_key,
        .subscription_no = lane->subscription_no,
        .tenant_no = lane->tenant_no,
        .number = d->attempts + 1,
        .base = d->base,
        .uncounted = d->uncounted,
        .lane_key = d->lane_key,
        .window_at = d->window_at,
        .lease_until = k->now + lane->lease_ms,
        .trigger = d->replayed ? TRIGGER_REPLAY
                   : d->test   ? TRIGGER_TEST
                               : TRIGGER_SCHEDULE,
        .probe = lane->probe,
    };
    lane->claimed++;
}

/* A lane whose candidates the look itself has claimed. */
static void take_plain(struct claiming *k, const struct candidate *found, size_t n) {
    struct lane_claim *lane = &k->lanes[found->lane];
    uint32_t wanted = lane->limit - lane->claimed, got = 0;
    uint32_t expected = found->seen < wanted ? found->seen : wanted;
    for (size_t i = 0; i < n; i++) {
        if (found[i].claimed) {
            give(k, &found[i]);
            got++;
        } else if (found[i].place > expected && found[i].due_at < lane->next_due_at) {
            lane->next_due_at = found[i].due_at;
        }
    }
    if (got < expected && k->now + WAIT_MS < lane->next_due_at)
        lane->next_due_at = k->now + WAIT_MS;
}

static bool window_closed(const struct lane_claim *lane, const struct candidate *d, int64_t now) {
    int64_t end = d->window_at + lane->window_ms;
    /* Due at the window's very end: backpressure asked for longer, this is its last attempt. Resumed after
     * the end: what a pause held back gets one more. */
    return now > end && d->due_at != end && lane->resumed_at < end;
}

static bool key_is_taken(const struct candidate *found, size_t i) {
    for (size_t j = 0; j < i; j++)
        if (found[j].fate == FATE_CLAIM && found[j].lane_key == found[i].lane_key &&
            found[j].lane == found[i].lane)
            return true;
    return false;
}

static enum fate fate_of(const struct claiming *k, const struct candidate *found, size_t i, size_t expiring) {
    const struct candidate *d = &found[i];
    if (d->lane_key && !d->held)
        return FATE_WAITS;
    if (window_closed(&k->lanes[d->lane], d, k->now))
        return k->expired_n + expiring < k->expired_max ? FATE_EXPIRE : FATE_WAITS;
    if (!d->lane_key)
        return FATE_CLAIM;
    if (d->behind_fanout)
        return FATE_WAITS;
    return d->blocked || d->busy || key_is_taken(found, i) ? FATE_PUT_ASIDE : FATE_CLAIM;
}

/* Of one lane, in order, as far as it may claim. */
static void decide(const struct claiming *k, struct candidate *found, size_t n, size_t *expiring) {
    const struct lane_claim *lane = &k->lanes[found->lane];
    uint32_t claims = lane->claimed;
    for (size_t i = 0; i < n && found[i].due_at <= k->now && claims < lane->limit; i++) {
        found[i].fate = fate_of(k, found, i, *expiring);
        claims += found[i].fate == FATE_CLAIM;
        *expiring += found[i].fate == FATE_EXPIRE;
    }
}

/* ---- what stands before ---- */

static bool is_ordered_due(const struct claiming *k, const struct candidate *d) {
    return !d->plain_lane && d->lane_key && d->due_at <= k->now;
}

static int hold(struct claiming *k, bool *ret_any) {
    struct pg_lane_key *keys = calloc(k->found_n + 1, sizeof *keys);
    bool *held = calloc(k->found_n + 1, sizeof *held);
    size_t n = 0;
    for (size_t i = 0; keys && i < k->found_n; i++)
        if (is_ordered_due(k, &k->found[i]))
            keys[n++] =
                (struct pg_lane_key){k->lanes[k->found[i].lane].subscription_no, k->found[i].lane_key};
    int r = keys && held ? pg_hold_lanes(k->s, keys, n, held) : -ENOMEM;
    n = 0;
    for (size_t i = 0; r == 0 && i < k->found_n; i++)
        if (is_ordered_due(k, &k->found[i]))
            *ret_any |= k->found[i].held = held[n++];
    free(keys);
    free(held);
    return r;
}

static void add_ordered(struct pg_column c[7], const struct claiming *k, size_t i) {
    const struct candidate *d = &k->found[i];
    pg_add_int(&c[0], (int32_t)i);
    pg_add_int(&c[1], (int32_t)k->lanes[d->lane].tenant_no);
    pg_add_bigint(&c[2], k->lanes[d->lane].subscription_no);
    pg_add_bigint(&c[3], (int64_t)d->lane_key);
    pg_add_bigint(&c[4], d->order_at);
    pg_add_bigint(&c[5], (int64_t)d->event_key);
    pg_add_bigint(&c[6], (int64_t)(id_key_at(d->order_at) | 0xFFF));
}

/* Blocked: an open one of its key stands before it. Busy: another of its key is under way; that one was the
 * first when it was claimed, what commits late may stand before it now, but not much can. */
static int look_before(struct claiming *k) {
    struct pg_column c[7] = {PG_COLUMN(PG_INT),    PG_COLUMN(PG_INT),    PG_COLUMN(PG_BIGINT),
                             PG_COLUMN(PG_BIGINT), PG_COLUMN(PG_BIGINT), PG_COLUMN(PG_BIGINT),
                             PG_COLUMN(PG_BIGINT)};
    for (size_t i = 0; i < k->found_n; i++)
        if (k->found[i].held)
            add_ordered(c, k, i);
    struct pg_params *p = pg_params(&k->s->writer);
    for (int i = 0; i < 7; i++) {
        pg_array(p, &c[i]);
        pg_column_free(&c[i]);
    }
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    int r = pg_query(&k->s->writer,
                     "SELECT place, EXISTS (SELECT FROM fanout_jobs j WHERE j.state<>2 AND j.event<=k.upto"
                     "  AND j.event<>k.event AND j.tenant=k.tenant AND j.cursor<k.subscription"
                     "  AND j.upper>=k.subscription),"
                     " EXISTS (SELECT FROM deliveries_open o WHERE o.subscription=k.subscription::int"
                     "  AND o.lane_key=k.lane_key AND (o.order_at, o.event)<(k.order_at, k.event)),"
                     " EXISTS (SELECT FROM (SELECT state FROM deliveries_open o"
                     "  WHERE o.subscription=k.subscription::int AND o.lane_key=k.lane_key"
                     "  ORDER BY o.order_at, o.event LIMIT 64) o WHERE state=1)"
                     " FROM unnest($1,$2,$3,$4,$5,$6,$7)"
                     " AS k(place, tenant, subscription, lane_key, order_at, event, upto)",
                     &rows);
    while (r == 0 && pg_next(&rows)) {
        struct candidate *d = &k->found[pg_column_int(&rows, 0)];
        d->behind_fanout = pg_column_int(&rows, 1) != 0;
        d->blocked = pg_column_int(&rows, 2) != 0;
        d->busy = pg_column_int(&rows, 3) != 0;
    }
    return r;
}

/* ---- doing it ---- */

static int claim_chosen(struct claiming *k) {
    struct pg_column c[5] = {PG_COLUMN(PG_INT), PG_COLUMN(PG_INT), PG_COLUMN(PG_BIGINT), PG_COLUMN(PG_INT),
                             PG_COLUMN(PG_BIGINT)};
    for (size_t i = 0; i < k->found_n; i++) {
        struct candidate *d = &k->found[i];
        if (d->fate != FATE_CLAIM)
            continue;
        pg_add_int(&c[0], (int32_t)i);
        pg_add_int(&c[1], (int32_t)k->lanes[d->lane].tenant_no);
        pg_add_bigint(&c[2], (int64_t)d->event_key);
        pg_add_int(&c[3], (int32_t)k->lanes[d->lane].subscription_no);
        pg_add_bigint(&c[4], k->now + k->lanes[d->lane].lease_ms);
        d->fate = FATE_WAITS; /* unless it is still there */
    }
    bool any = c[0].n > 0;
    struct pg_params *p = pg_params(&k->s->writer);
    for (int i = 0; i < 5; i++) {
        pg_array(p, &c[i]);
        pg_column_free(&c[i]);
    }
    pg_bigint(p, k->now);
    pg_int(p, (int32_t)k->s->node.no);
    if (!any)
        return 0;
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    int r = pg_query(&k->s->writer,
                     "WITH k AS MATERIALIZED (SELECT * FROM unnest($1,$2,$3,$4,$5)"
                     "  AS k(place, tenant, event, subscription, lease_until)),"
                     " held AS MATERIALIZED (SELECT k.place, k.lease_until, d.ctid AS tid FROM k"
                     "  JOIN deliveries_open d ON d.tenant=k.tenant AND d.event=k.event"
                     "  AND d.subscription=k.subscription WHERE d.due_at IS NOT NULL"
                     "  FOR UPDATE OF d SKIP LOCKED)"
                     " UPDATE deliveries_open d SET state=1, attempts=d.attempts+1, due_at=NULL,"
                     "  lease_until=h.lease_until, claimed_at=$6, node=$7 FROM held h WHERE d.ctid=h.tid"
                     " RETURNING h.place",
                     &rows);
    while (r == 0 && pg_next(&rows))
        k->found[pg_column_int(&rows, 0)].fate = FATE_CLAIM;
    for (size_t i = 0; r == 0 && i < k->found_n; i++)
        if (k->found[i].fate == FATE_CLAIM)
            give(k, &k->found[i]);
    return r;
}

/* With what is put aside, or claimed, the next of its key are put aside too: they would only be looked at one
 * by one. */
static int put_aside(struct claiming *k) {
    struct pg_column c[4] = {PG_COLUMN(PG_INT), PG_COLUMN(PG_BIGINT), PG_COLUMN(PG_BIGINT),
                             PG_COLUMN(PG_BIGINT)};
    for (size_t i = 0; i < k->found_n; i++) {
        const struct candidate *d = &k->found[i];
        if (d->fate != FATE_PUT_ASIDE && (d->fate != FATE_CLAIM || !d->lane_key))
            continue;
        pg_add_int(&c[0], (int32_t)k->lanes[d->lane].subscription_no);
        pg_add_bigint(&c[1], (int64_t)d->lane_key);
        pg_add_bigint(&c[2], d->order_at);
        pg_add_bigint(&c[3], (int64_t)d->event_key);
    }
    bool any = c[0].n > 0;
    struct pg_params *p = pg_params(&k->s->writer);
    for (int i = 0; i < 4; i++) {
        pg_array(p, &c[i]);
        pg_column_free(&c[i]);
    }
    pg_bigint(p, k->now);
    return any ? pg_send(
                     &k->s->writer,
                     "WITH k AS MATERIALIZED (SELECT DISTINCT ON (subscription, lane_key) * FROM"
                     "  unnest($1,$2,$3,$4) AS k(subscription, lane_key, order_at, event)"
                     "  ORDER BY subscription, lane_key, order_at, event),"
                     " held AS MATERIALIZED (SELECT f.tid FROM k CROSS JOIN LATERAL (SELECT d.ctid AS tid"
                     "  FROM deliveries_open d WHERE d.subscription=k.subscription AND d.lane_key=k.lane_key"
                     "  AND (d.order_at, d.event)>=(k.order_at, k.event) AND d.due_at<=$5 AND d.state<>1"
                     "  ORDER BY d.order_at, d.event LIMIT 256 FOR UPDATE OF d SKIP LOCKED) f)"
                     " UPDATE deliveries_open d SET due_at=NULL FROM held h WHERE d.ctid=h.tid")
               : 0;
}

static int expire_chosen(struct claiming *k) {
    struct pg_waiting *d = calloc(k->found_n + 1, sizeof *d);
    bool *closed = calloc(k->found_n + 1, sizeof *closed);
    size_t n = 0;
    for (size_t i = 0; d && i < k->found_n; i++) {
        const struct lane_claim *lane = &k->lanes[k->found[i].lane];
        if (k->found[i].fate == FATE_EXPIRE)
            d[n++] = (struct pg_waiting){k->found[i].event_key, lane->subscription_no, lane->tenant_no,
                                         k->found[i].lane_key};
    }
    int r = d && closed ? pg_close_waiting(k->s, d, n, REASON_WINDOW_EXPIRED, k->now, closed) : -ENOMEM;
    n = 0;
    for (size_t i = 0; r == 0 && i < k->found_n; i++) {
        if (k->found[i].fate != FATE_EXPIRE)
            continue;
        if (!closed[n++]) {
            k->found[i].fate = FATE_WAITS;
            continue;
        }
        struct lane_claim *lane = &k->lanes[k->found[i].lane];
        k->expired[k->expired_n++] =
            (struct expired_task){k->found[i].event_key, lane->subscription_no, lane->tenant_no};
        lane->expired++;
    }
    free(d);
    free(closed);
    return r;
}

/* What something was put aside for must be due or under way itself. */
static int release_heads(struct claiming *k) {
    struct pg_lane_key *keys = calloc(k->found_n + 1, sizeof *keys);
    if (!keys)
        return -ENOMEM;
    size_t n = 0;
    for (size_t i = 0; i < k->found_n; i++) {
        const struct candidate *d = &k->found[i];
        if (d->fate == FATE_PUT_ASIDE && d->blocked && !d->busy && !key_is_taken(k->found, i))
            keys[n++] = (struct pg_lane_key){k->lanes[d->lane].subscription_no, d->lane_key};
    }
    int r = pg_release(k->s, keys, n, k->now, NULL);
    free(keys);
    return r;
}

/* When the lane has work again; *ret_again: what was moved may have brought others forward, or there may be
 * more. */
static void conclude(struct claiming *k, const struct candidate *found, size_t n, uint32_t wanted,
                     bool *ret_again) {
    struct lane_claim *lane = &k->lanes[found->lane];
    bool moved = false, released = false;
    size_t i;
    for (i = 0; i < n && found[i].fate != FATE_LEFT; i++) {
        if (found[i].fate == FATE_WAITS)
            lane->next_due_at = k->now + WAIT_MS;
        moved |= found[i].fate != FATE_WAITS;
        released |= found[i].fate == FATE_EXPIRE && found[i].lane_key;
    }
    if (i < n && found[i].due_at < lane->next_due_at)
        lane->next_due_at = found[i].due_at;
    /* When everything found waits for an earlier fan-out, what lies behind it is looked at again with it. */
    *ret_again = released || (moved && i > wanted);
}

static size_t lane_end(const struct claiming *k, size_t from) {
    size_t to = from;
    while (to < k->found_n && k->found[to].lane == k->found[from].lane)
        to++;
    return to;
}

/* Lanes in which something stands in the way of simply taking the first ones. */
static int take_others(struct claiming *k) {
    bool any = false, ordered = false;
    for (size_t i = 0; i < k->found_n; i++)
        any |= !k->found[i].plain_lane;
    if (!any)
        return 0;
    int r = hold(k, &ordered);
    if (r == 0 && ordered)
        r = look_before(k);
    size_t expiring = 0;
    for (size_t i = 0; r == 0 && i < k->found_n; i = lane_end(k, i))
        if (!k->found[i].plain_lane)
            decide(k, &k->found[i], lane_end(k, i) - i, &expiring);
    if (r == 0)
        r = claim_chosen(k);
    if (r == 0)
        r = put_aside(k);
    if (r == 0)
        r = expire_chosen(k);
    return r < 0 ? r : release_heads(k);
}

/* Leaves in looked_at the lanes that are to be looked at once more. */
static int claim_round(struct claiming *k) {
    uint32_t again_n = 0;
    for (size_t i = 0; i < k->looked_at_n; i++)
        k->lanes[k->looked_at[i]].next_due_at = INT64_MAX;
    int r = look(k);
    for (size_t i = 0; r == 0 && i < k->found_n; i = lane_end(k, i))
        if (k->found[i].plain_lane)
            take_plain(k, &k->found[i], lane_end(k, i) - i);
    uint32_t *wanted = calloc(k->looked_at_n + 1, sizeof *wanted);
    if (r == 0 && !wanted)
        r = -ENOMEM;
    for (size_t i = 0; r == 0 && i < k->looked_at_n; i++)
        wanted[i] = k->lanes[k->looked_at[i]].limit - k->lanes[k->looked_at[i]].claimed;
    if (r == 0)
        r = take_others(k);
    for (size_t i = 0, at = 0; r == 0 && i < k->found_n; i = lane_end(k, i)) {
        bool again = false;
        while (k->looked_at[at] != k->found[i].lane)
            at++;
        if (!k->found[i].plain_lane)
            conclude(k, &k->found[i], lane_end(k, i) - i, wanted[at], &again);
        if (again)
            k->looked_at[again_n++] = k->found[i].lane;
    }
    free(wanted);
    k->looked_at_n = again_n;
    return r;
}

static int claim(struct claiming *k, size_t n) {
    for (size_t i = 0; i < n; i++) {
        k->lanes[i].claimed = k->lanes[i].expired = 0;
        k->lanes[i].next_due_at = k->now;
        if (!k->lanes[i].held)
            k->looked_at[k->looked_at_n++] = (uint32_t)i;
    }
    int r = k->looked_at_n ? pg_flush(k->s) : 0;
    if (r == 0)
        r = pg_release_owed(k->s, k->now);
    for (int round = 0; r == 0 && k->looked_at_n && round < ROUNDS_MAX; round++)
        r = claim_round(k);
    for (size_t i = 0; i < k->looked_at_n; i++)
        k->lanes[k->looked_at[i]].next_due_at = k->now;
    return r;
}

int postgres_claim(struct store *s, struct lane_claim *lanes, size_t n, int64_t now, struct task *tasks,
                   size_t tasks_max, size_t *ret_tasks, struct expired_task *expired, size_t expired_max,
                   size_t *ret_expired) {
    struct claiming k = {.s = pg_of(s),
                         .now = now,
                         .lanes = lanes,
                         .tasks = tasks,
                         .tasks_max = tasks_max,
                         .expired = expired,
                         .expired_max = expired_max};
    k.looked_at = calloc(n + 1, sizeof *k.looked_at);
    int r = k.looked_at ? claim(&k, n) : -ENOMEM;
    free(k.looked_at);
    free(k.found);
    *ret_tasks = k.tasks_n;
    *ret_expired = k.expired_n;
    return r;
}
