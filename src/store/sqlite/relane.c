/* A changed ordering: open deliveries move to the lane keys that it gives them.
 *
 * Three walks, each over an index: what stands under a lane key, what is due without one, and what a lost
 * attempt still holds. A delivery that is right already is passed over, so a walk that is begun again does no
 * harm; what is inserted meanwhile is right from the start. Of what has moved, and of each key, only the
 * first is due: that is kept with every move. */
#include <errno.h>

#include "store/sqlite/sqlite.h"

enum { MOVES_A_LOOK = 64 };
enum walk { WALK_KEYED, WALK_DUE, WALK_LEASED, WALK_ENDED };

struct moving {
    struct connection *c;
    uint32_t subscription_no;
    enum subscription_ordering ordering;
};

struct open_delivery {
    int64_t event, due_at, lane_key, order_at, lease_until;
    bool attempting;
    uint64_t wanted;
};

#define OPEN_COLUMNS                                                                                         \
    "SELECT d.event, d.due_at, d.lane_key, d.order_at, d.lease_until, d.state, e.ordering_key FROM "         \
    "deliveries d "
#define JOINED " CROSS JOIN events e ON e.key=d.event WHERE d.subscription=?1 AND "

/* Each goes on behind (?2, ?3, ?4). */
static const char *const walks[] = {
    [WALK_KEYED] = OPEN_COLUMNS "INDEXED BY deliveries_ordered" JOINED
                                "d.lane_key IS NOT NULL AND (d.lane_key, d.order_at, d.event)>(?2, ?3, ?4)"
                                " ORDER BY d.lane_key, d.order_at, d.event LIMIT ?5",
    [WALK_DUE] = OPEN_COLUMNS "INDEXED BY deliveries_due" JOINED
                              "d.due_at IS NOT NULL AND (d.due_at, d.event)>(?2, ?4) AND ?3 IS NOT NULL"
                              " ORDER BY d.due_at, d.event LIMIT ?5",
    /* At most as many as may be in flight. */
    [WALK_LEASED] = OPEN_COLUMNS "INDEXED BY deliveries_leased" JOINED
                                 "(d.lease_until, d.event)>(?2, ?4) AND ?3 IS NOT NULL AND d.lease_until>0"
                                 " ORDER BY d.lease_until, d.event LIMIT ?5",
};

static int look(const struct moving *m, const struct relane_cursor *at, struct open_delivery *ret, size_t max,
                size_t *ret_n) {
    sqlite3_stmt *st = connection_prepare(m->c, walks[at->walk]);
    bind_int(st, 1, m->subscription_no);
    bind_int(st, 2, at->first);
    bind_int(st, 3, at->second);
    bind_int(st, 4, at->event);
    bind_int(st, 5, (int64_t)max);
    int r;
    for (*ret_n = 0; (r = statement_next(m->c, st)) > 0; ++*ret_n)
        ret[*ret_n] = (struct open_delivery){
            .event = column_int(st, 0),
            .due_at = column_int(st, 1),
            .lane_key = column_int(st, 2),
            .order_at = column_int(st, 3),
            .lease_until = column_int(st, 4),
            .attempting = column_int(st, 5) == DELIVERY_ATTEMPTING,
            .wanted = subscription_lane_key(m->ordering, column_slice(st, 6)),
        };
    return r;
}

static int set_place(const struct moving *m, int64_t event, uint64_t lane_key, int64_t due_at) {
    sqlite3_stmt *st = connection_prepare(
        m->c, "UPDATE deliveries SET lane_key=?, due_at=? WHERE event=? AND subscription=?");
    bind_time(st, 1, (int64_t)lane_key);
    bind_time(st, 2, due_at);
    bind_int(st, 3, event);
    bind_int(st, 4, m->subscription_no);
    return statement_run(m->c, st);
}

/* The one after it is due no more: it was the first of its key until now. */
static int block_follower(const struct moving *m, const struct open_delivery *d) {
    sqlite3_stmt *st =
        connection_prepare(m->c, "SELECT event, due_at FROM deliveries WHERE subscription=? AND lane_key=?"
                                 " AND (order_at, event)>(?, ?) ORDER BY order_at, event LIMIT 1");
    bind_int(st, 1, m->subscription_no);
    bind_int(st, 2, (int64_t)d->wanted);
    bind_int(st, 3, d->order_at);
    bind_int(st, 4, d->event);
    int r = statement_next(m->c, st);
    if (r <= 0)
        return r;
    int64_t follower = column_int(st, 0);
    bool due = column_int(st, 1) != 0;
    statement_done(st);
    return due ? set_place(m, follower, d->wanted, 0) : 0;
}

static int move(const struct moving *m, const struct open_delivery *d) {
    if ((uint64_t)d->lane_key == d->wanted)
        return 0;
    int blocked = d->wanted
                      ? lane_key_blocked(m->c, m->subscription_no, d->wanted, d->order_at, (uint64_t)d->event)
                      : 0;
    if (blocked < 0)
        return blocked;
    int64_t due_at = blocked || d->attempting ? 0 : d->due_at ? d->due_at : d->order_at;
    int r = set_place(m, d->event, d->wanted, due_at);
    return r < 0 || !d->wanted || blocked ? r : block_follower(m, d);
}

static void go_behind(struct relane_cursor *at, const struct open_delivery *d) {
    at->first = at->walk == WALK_KEYED ? d->lane_key : at->walk == WALK_DUE ? d->due_at : d->lease_until;
    at->second = at->walk == WALK_KEYED ? d->order_at : 0;
    at->event = d->event;
}

int sqlite_relane(struct store *s, uint32_t subscription_no, enum subscription_ordering ordering,
                  struct relane_cursor *cursor, unsigned limit, bool *ret_done) {
    struct moving m = {&sqlite_of(s)->writer, subscription_no, ordering};
    struct open_delivery found[MOVES_A_LOOK];
    while (cursor->walk != WALK_ENDED && limit > 0) {
        size_t max = limit < MOVES_A_LOOK ? limit : MOVES_A_LOOK, n;
        int r = look(&m, cursor, found, max, &n);
        for (size_t i = 0; r == 0 && i < n; i++) {
            go_behind(cursor, &found[i]);
            r = move(&m, &found[i]);
        }
        if (r < 0)
            return r;
        limit -= (unsigned)n;
        if (n < max)
            *cursor = (struct relane_cursor){.walk = cursor->walk + 1};
    }
    *ret_done = cursor->walk == WALK_ENDED;
    return 0;
}

int sqlite_set_relaned(struct store *s, uint32_t subscription_no, uint64_t relane) {
    sqlite3_stmt *st = connection_prepare(&sqlite_of(s)->writer,
                                          "UPDATE subscriptions SET relane=NULL WHERE no=? AND relane=?");
    bind_int(st, 1, subscription_no);
    bind_int(st, 2, (int64_t)relane);
    int r = statement_run(&sqlite_of(s)->writer, st);
    return r < 0 ? r : sqlite3_changes(sqlite_of(s)->writer.db);
}
