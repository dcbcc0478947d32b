/* What a lane may send: claiming, and the order within lane keys. */
#include <errno.h>

#include "store/sqlite/sqlite.h"

enum {
    CANDIDATES_A_ROUND = 64,
    EXPIRE_LOOK_MAX = 4096,
    BARRIER_POLL_MS = 20, /* how soon a lane that waits for an earlier fan-out looks again */
};

struct candidate {
    struct waiting_delivery waiting;
    uint32_t attempts, base, uncounted;
    int64_t due_at, order_at, window_at;
    bool replayed, test;
};

/* When one that nothing holds back any more is due. An id's time that the clock has fallen back behind is not
 * waited for, a deliver_at is. */
static int64_t released_due_at(int64_t event, int64_t order_at, int64_t now) {
    bool is_creation = order_at == event >> 12;
    return is_creation && order_at > now ? now : order_at;
}

int lane_key_release(struct connection *c, uint32_t subscription_no, uint64_t lane_key, int64_t now,
                     int64_t *ret_due_at) {
    sqlite3_stmt *st =
        connection_prepare(c, "SELECT event, state, due_at, order_at FROM deliveries WHERE subscription=? AND"
                              " lane_key=? ORDER BY order_at, event LIMIT 1");
    bind_int(st, 1, subscription_no);
    bind_int(st, 2, (int64_t)lane_key);
    int r = statement_next(c, st);
    if (r <= 0)
        return r;
    int64_t event = column_int(st, 0), due_at = column_int(st, 2), order_at = column_int(st, 3);
    bool attempting = column_int(st, 1) == DELIVERY_ATTEMPTING;
    statement_done(st);
    if (attempting)
        return 0;
    if (!due_at) {
        due_at = released_due_at(event, order_at, now);
        st = connection_prepare(c, "UPDATE deliveries SET due_at=? WHERE event=? AND subscription=?");
        bind_int(st, 1, due_at);
        bind_int(st, 2, event);
        bind_int(st, 3, subscription_no);
        r = statement_run(c, st);
        if (r < 0)
            return r;
    }
    *ret_due_at = due_at;
    return 0;
}

int close_waiting(struct connection *c, const struct waiting_delivery *d, enum delivery_reason reason,
                  int64_t now) {
    CHECK(delivery_transition_allowed(d->state, DELIVERY_DLQ, false, reason));
    sqlite3_stmt *st = connection_prepare(
        c, "UPDATE deliveries SET state=4, due_at=NULL, lane_key=NULL, closed_at=?, reason=?"
           " WHERE event=? AND subscription=?");
    bind_int(st, 1, now);
    bind_int(st, 2, reason);
    bind_int(st, 3, (int64_t)d->event_key);
    bind_int(st, 4, d->subscription_no);
    int r = statement_run(c, st);
    if (r < 0)
        return r;
    st = connection_prepare(
        c, "INSERT OR REPLACE INTO transitions (event, subscription, at, from_state, to_state, reason)"
           " VALUES (?,?,?,?,4,?)");
    bind_int(st, 1, (int64_t)d->event_key);
    bind_int(st, 2, d->subscription_no);
    bind_int(st, 3, now);
    bind_int(st, 4, d->state);
    bind_int(st, 5, reason);
    r = statement_run(c, st);
    if (r == 0)
        r = count_dead(c, d->subscription_no, reason, 1);
    if (r == 0)
        r = count_replayed_waiting(c, d, reason);
    int64_t ignored;
    return r < 0 || !d->lane_key ? r : lane_key_release(c, d->subscription_no, d->lane_key, now, &ignored);
}

/* Up to max of the lane's deliveries, the longest due first; those not due yet too, for next_due_at. */
static int find_candidates(struct connection *c, uint32_t subscription_no, struct candidate *ret, size_t max,
                           size_t *ret_n) {
    sqlite3_stmt *st = connection_prepare(
        c, "SELECT event, state, attempts, base, uncounted, due_at, lane_key, order_at, window_at, replay_by "
           "IS NOT NULL, test"
           " FROM deliveries WHERE subscription=? AND due_at IS NOT NULL ORDER BY due_at, event LIMIT ?");
    bind_int(st, 1, subscription_no);
    bind_int(st, 2, (int64_t)max);
    size_t n = 0;
    int r;
    while ((r = statement_next(c, st)) > 0) {
        ret[n++] = (struct candidate){
            .waiting = {.event_key = (uint64_t)column_int(st, 0),
                        .subscription_no = subscription_no,
                        .state = (enum delivery_state)column_int(st, 1),
                        .lane_key = (uint64_t)column_int(st, 6)},
            .attempts = (uint32_t)column_int(st, 2),
            .base = (uint32_t)column_int(st, 3),
            .uncounted = (uint32_t)column_int(st, 4),
            .due_at = column_int(st, 5),
            .order_at = column_int(st, 7),
            .window_at = column_int(st, 8),
            .replayed = column_int(st, 9) != 0,
            .test = column_int(st, 10) != 0,
        };
    }
    *ret_n = n;
    return r;
}

static int begin_attempt(struct connection *c, const struct candidate *d, int64_t now, int64_t lease_until) {
    CHECK(delivery_transition_allowed(d->waiting.state, DELIVERY_ATTEMPTING, true, REASON_NONE));
    sqlite3_stmt *st = connection_prepare(
        c, "UPDATE deliveries SET state=1, attempts=attempts+1, due_at=NULL, lease_until=?,"
           " claimed_at=? WHERE event=? AND subscription=?");
    bind_int(st, 1, lease_until);
    bind_int(st, 2, now);
    bind_int(st, 3, (int64_t)d->waiting.event_key);
    bind_int(st, 4, d->waiting.subscription_no);
    return statement_run(c, st);
}

/* Puts a delivery behind the earlier one of its key, which releases it when it closes. */
static int block(struct connection *c, const struct candidate *d) {
    sqlite3_stmt *st =
        connection_prepare(c, "UPDATE deliveries SET due_at=NULL WHERE event=? AND subscription=?");
    bind_int(st, 1, (int64_t)d->waiting.event_key);
    bind_int(st, 2, d->waiting.subscription_no);
    return statement_run(c, st);
}

/* 1 while an event of this tenant that comes before the candidate is still being fanned out past this
 * subscription. */
static int behind_fanout(struct connection *c, uint32_t tenant_no, const struct candidate *d) {
    sqlite3_stmt *st = connection_prepare(
        c, "SELECT 1 FROM fanout_jobs WHERE state<>2 AND event<=? AND event<>? AND tenant=?"
           " AND cursor<? AND upper>=? LIMIT 1");
    bind_int(st, 1, (int64_t)(id_key_at(d->order_at) | 0xFFF));
    bind_int(st, 2, (int64_t)d->waiting.event_key);
    bind_int(st, 3, tenant_no);
    bind_int(st, 4, d->waiting.subscription_no);
    bind_int(st, 5, d->waiting.subscription_no);
    int r = statement_next(c, st);
    if (r > 0)
        statement_done(st);
    return r;
}

static bool window_closed(const struct lane_claim *lane, const struct candidate *d, int64_t now) {
    int64_t end = d->window_at + lane->window_ms;
    /* Due at the window's very end: backpressure asked for longer, this is its last attempt. Resumed after
     * the end: what a pause held back gets one more. */
    return now > end && d->due_at != end && lane->resumed_at < end;
}

struct claiming {
    struct connection *c;
    int64_t now;
    struct task *tasks;
    size_t tasks_n, tasks_max;
    struct expired_task *expired;
    size_t expired_n, expired_max;
};

enum progress { PROGRESS_CLAIMED, PROGRESS_MOVED, PROGRESS_WAITS };

/* 1 while another of this lane key is under way. That one was the first when it was claimed; what commits
 * late may stand before it now, but not much can. */
static int lane_key_busy(struct connection *c, uint32_t subscription_no, uint64_t lane_key) {
    sqlite3_stmt *st =
        connection_prepare(c, "SELECT state FROM deliveries WHERE subscription=? AND lane_key=?"
                              " ORDER BY order_at, event LIMIT ?");
    bind_int(st, 1, subscription_no);
    bind_int(st, 2, (int64_t)lane_key);
    bind_int(st, 3, CANDIDATES_A_ROUND);
    int r;
    while ((r = statement_next(c, st)) > 0) {
        if (column_int(st, 0) != DELIVERY_ATTEMPTING)
            continue;
        statement_done(st);
        return 1;
    }
    return r;
}

static int consider_ordered(struct claiming *k, const struct lane_claim *lane, const struct candidate *d,
                            enum progress *ret) {
    const struct waiting_delivery *w = &d->waiting;
    int r = behind_fanout(k->c, lane->tenant_no, d);
    if (r != 0) {
        *ret = PROGRESS_WAITS;
        return r < 0 ? r : 1;
    }
    r = lane_key_blocked(k->c, w->subscription_no, w->lane_key, d->order_at, w->event_key);
    if (r == 0)
        r = lane_key_busy(k->c, w->subscription_no, w->lane_key);
    if (r <= 0)
        return r;
    *ret = PROGRESS_MOVED;
    r = block(k->c, d);
    return r < 0 ? r : 1;
}

/* Claims, closes, blocks or leaves one due candidate. */
static int consider(struct claiming *k, struct lane_claim *lane, const struct candidate *d,
                    enum progress *ret) {
    const struct waiting_delivery *w = &d->waiting;
    if (window_closed(lane, d, k->now)) {
        if (k->expired_n == k->expired_max) {
            *ret = PROGRESS_WAITS;
            return 0;
        }
        k->expired[k->expired_n++] = (struct expired_task){w->event_key, w->subscription_no, lane->tenant_no};
        lane->expired++;
        *ret = PROGRESS_MOVED;
        return close_waiting(k->c, w, REASON_WINDOW_EXPIRED, k->now);
    }
    if (w->lane_key) {
        int r = consider_ordered(k, lane, d, ret);
        if (r != 0)
            return r < 0 ? r : 0;
    }
    CHECK(k->tasks_n < k->tasks_max);
    int64_t lease_until = k->now + lane->lease_ms;
    k->tasks[k->tasks_n++] = (struct task){
        .event_key = w->event_key,
        .subscription_no = w->subscription_no,
        .tenant_no = lane->tenant_no,
        .number = d->attempts + 1,
        .base = d->base,
        .uncounted = d->uncounted,
        .lane_key = w->lane_key,
        .window_at = d->window_at,
        .lease_until = lease_until,
        .trigger = d->replayed ? TRIGGER_REPLAY
                   : d->test   ? TRIGGER_TEST
                               : TRIGGER_SCHEDULE,
        .probe = lane->probe,
    };
    lane->claimed++;
    *ret = PROGRESS_CLAIMED;
    return begin_attempt(k->c, d, k->now, lease_until);
}

/* One look at the lane: up to a round's candidates. *ret_again: what it moved may have brought others
 * forward, or there may be more. */
static int claim_round(struct claiming *k, struct lane_claim *lane, bool *ret_again) {
    struct candidate found[CANDIDATES_A_ROUND];
    size_t wanted = lane->limit - lane->claimed + 1, n;
    if (wanted > CANDIDATES_A_ROUND)
        wanted = CANDIDATES_A_ROUND;
    int r = find_candidates(k->c, lane->subscription_no, found, wanted, &n);
    if (r < 0)
        return r;
    bool moved = false, released = false;
    int64_t next_due_at = INT64_MAX;
    size_t i;
    for (i = 0; i < n && found[i].due_at <= k->now && lane->claimed < lane->limit; i++) {
        enum progress progress = PROGRESS_WAITS;
        uint32_t expired = lane->expired;
        r = consider(k, lane, &found[i], &progress);
        if (r < 0)
            return r;
        if (progress == PROGRESS_WAITS)
            next_due_at = k->now + BARRIER_POLL_MS;
        moved |= progress != PROGRESS_WAITS;
        released |= found[i].waiting.lane_key && lane->expired > expired;
    }
    if (i < n && found[i].due_at < next_due_at)
        next_due_at = found[i].due_at;
    lane->next_due_at = next_due_at;
    /* When everything found waits for an earlier fan-out, what lies behind it is looked at again with it. */
    *ret_again = released || (moved && i == wanted);
    return 0;
}

static int claim_lane(struct claiming *k, struct lane_claim *lane) {
    lane->claimed = lane->expired = 0;
    lane->next_due_at = k->now;
    for (bool again = !lane->held; again;) {
        int r = claim_round(k, lane, &again);
        if (r < 0)
            return r;
    }
    return 0;
}

int sqlite_claim(struct store *s, struct lane_claim *lanes, size_t n, int64_t now, struct task *tasks,
                 size_t tasks_max, size_t *ret_tasks, struct expired_task *expired, size_t expired_max,
                 size_t *ret_expired) {
    struct claiming k = {.c = &sqlite_of(s)->writer,
                         .now = now,
                         .tasks = tasks,
                         .tasks_max = tasks_max,
                         .expired = expired,
                         .expired_max = expired_max};
    for (size_t i = 0; i < n; i++) {
        int r = claim_lane(&k, &lanes[i]);
        if (r < 0)
            return r;
    }
    *ret_tasks = k.tasks_n;
    *ret_expired = k.expired_n;
    return 0;
}

/* Windows that closed before now, but for those that the lane spares. So many are looked at: what is due at
 * its window's very end is rare, for backpressure rests the lane. */
static int find_expired(struct connection *c, const char *sql, const struct lane_expiry *lane, int64_t now,
                        struct waiting_delivery *ret, size_t max, size_t *ret_n) {
    sqlite3_stmt *st = connection_prepare(c, sql);
    bind_int(st, 1, lane->subscription_no);
    bool resumed = lane->resumed_at && now < lane->resumed_at + lane->spare_ms;
    bind_int(st, 2, resumed ? lane->resumed_at - lane->window_ms : 0);
    bind_int(st, 3, now - lane->window_ms);
    bind_int(st, 4, lane->window_ms);
    bind_int(st, 5, lane->spare_ms);
    bind_int(st, 6, (int64_t)max);
    bind_int(st, 7, EXPIRE_LOOK_MAX);
    size_t n = 0;
    int r;
    while ((r = statement_next(c, st)) > 0)
        ret[n++] = (struct waiting_delivery){.event_key = (uint64_t)column_int(st, 0),
                                             .subscription_no = lane->subscription_no,
                                             .state = (enum delivery_state)column_int(st, 1),
                                             .lane_key = (uint64_t)column_int(st, 2)};
    *ret_n = n;
    return r;
}

int sqlite_expire(struct store *s, const struct lane_expiry *lane, int64_t now, struct expired_task *ret,
                  size_t limit, size_t *ret_n) {
    /* A delivery that was never attempted is due when its window begins, or a little before, so the due index
     * finds it; the others have an index of their own. */
    static const char *const queries[] = {
        "SELECT event, state, lane_key FROM (SELECT event, state, lane_key, due_at, window_at"
        " FROM deliveries WHERE subscription=?1 AND (state=2 OR state=5) AND window_at>?2 AND window_at<?3"
        " ORDER BY window_at LIMIT ?7) WHERE due_at IS NULL OR due_at<window_at+?4 OR window_at<?3-?5"
        " LIMIT ?6",
        "SELECT event, state, lane_key FROM (SELECT event, state, lane_key, window_at"
        " FROM deliveries WHERE subscription=?1 AND due_at IS NOT NULL AND due_at<?3"
        " ORDER BY due_at LIMIT ?7) WHERE state=0 AND window_at>?2 AND window_at<?3 LIMIT ?6",
    };
    struct waiting_delivery found[CANDIDATES_A_ROUND];
    size_t total = 0;
    for (int q = 0; q < 2; q++) {
        size_t n = 1;
        while (n > 0 && total < limit) {
            size_t max = limit - total < CANDIDATES_A_ROUND ? limit - total : CANDIDATES_A_ROUND;
            int r = find_expired(&sqlite_of(s)->writer, queries[q], lane, now, found, max, &n);
            for (size_t i = 0; r == 0 && i < n; i++) {
                r = close_waiting(&sqlite_of(s)->writer, &found[i], REASON_WINDOW_EXPIRED, now);
                ret[total++] =
                    (struct expired_task){found[i].event_key, lane->subscription_no, lane->tenant_no};
            }
            if (r < 0)
                return r;
        }
    }
    *ret_n = total;
    return 0;
}

int sqlite_list_lanes_due(struct store *s, uint32_t after_no, struct lane_due *ret, size_t max,
                          size_t *ret_n) {
    size_t n = 0;
    while (n < max) {
        /* One step over the index a lane, however many deliveries wait in it. */
        sqlite3_stmt *st = connection_prepare(
            &sqlite_of(s)->writer, "SELECT subscription, due_at FROM deliveries WHERE due_at IS NOT NULL"
                                   " AND subscription>? ORDER BY subscription, due_at LIMIT 1");
        bind_int(st, 1, after_no);
        int r = statement_next(&sqlite_of(s)->writer, st);
        if (r < 0)
            return r;
        if (r == 0)
            break;
        after_no = (uint32_t)column_int(st, 0);
        ret[n++] = (struct lane_due){after_no, column_int(st, 1)};
        statement_done(st);
    }
    *ret_n = n;
    return 0;
}
