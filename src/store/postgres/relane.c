/* A changed ordering: open deliveries move to the lane keys that it gives them.
 *
 * Three walks, each over an index: what stands under a lane key, what is due without one, and what a lost
 * attempt still holds. A delivery that is right already is passed over, so a walk that is begun again does no
 * harm; what is inserted meanwhile is right from the start. What has moved is due: the next claim puts aside
 * what is behind another. */
#include <errno.h>

#include "core/subscription.h"
#include "store/postgres/order.h"

enum { MOVES_A_LOOK = 512 };
enum walk { WALK_KEYED, WALK_DUE, WALK_LEASED, WALK_ENDED };

#define OPEN_COLUMNS                                                                                         \
    "SELECT d.event, d.due_at, d.lane_key, d.order_at, d.lease_until, d.tenant, e.ordering_key FROM ("       \
    "SELECT * FROM deliveries_open WHERE subscription=$1 AND "
#define JOINED " LIMIT $5) d LEFT JOIN events e ON e.tenant=d.tenant AND e.key=d.event ORDER BY "

/* Each goes on behind ($2, $3, $4). */
static const char *const walks[] = {
    [WALK_KEYED] =
        OPEN_COLUMNS "lane_key IS NOT NULL AND (lane_key, order_at, event)>($2, $3, $4)"
                     " ORDER BY lane_key, order_at, event" JOINED "d.lane_key, d.order_at, d.event",
    [WALK_DUE] = OPEN_COLUMNS "due_at IS NOT NULL AND (due_at, event)>($2, $4) AND $3 IS NOT NULL"
                              " ORDER BY due_at, event" JOINED "d.due_at, d.event",
    /* At most as many as may be in flight. */
    [WALK_LEASED] =
        OPEN_COLUMNS "lease_until IS NOT NULL AND (lease_until, event)>($2, $4) AND $3 IS NOT NULL"
                     " ORDER BY lease_until, event" JOINED "d.lease_until, d.event",
};

struct moving {
    struct pg_column tenants, events, wanted;
    struct pg_lane_key keys[MOVES_A_LOOK]; /* that something has left */
    size_t n;
};

static void go_behind(struct relane_cursor *at, const struct pg_rows *row) {
    at->first = pg_column_int(row, at->walk == WALK_KEYED ? 2 : at->walk == WALK_DUE ? 1 : 4);
    at->second = at->walk == WALK_KEYED ? pg_column_int(row, 3) : 0;
    at->event = pg_column_int(row, 0);
}

static void consider(struct moving *m, uint32_t subscription_no, enum subscription_ordering ordering,
                     const struct pg_rows *row) {
    uint64_t had = (uint64_t)pg_column_int(row, 2);
    uint64_t wanted = subscription_lane_key(ordering, pg_column_slice(row, 6));
    if (had == wanted)
        return;
    pg_add_int(&m->tenants, (int32_t)pg_column_int(row, 5));
    pg_add_bigint(&m->events, pg_column_int(row, 0));
    pg_add_time(&m->wanted, (int64_t)wanted);
    if (had)
        m->keys[m->n++] = (struct pg_lane_key){subscription_no, had};
}

static int apply(struct pg_store *s, struct moving *m, uint32_t subscription_no, int64_t now) {
    if (!m->events.n)
        return 0;
    struct pg_params *p = pg_params(&s->writer);
    pg_array(p, &m->tenants);
    pg_array(p, &m->events);
    pg_array(p, &m->wanted);
    pg_int(p, (int32_t)subscription_no);
    int r = pg_send(&s->writer,
                    "WITH k AS MATERIALIZED (SELECT * FROM unnest($1,$2,$3) AS k(tenant, event, lane_key))"
                    " UPDATE deliveries_open d SET lane_key=k.lane_key,"
                    " due_at=CASE WHEN d.state=1 THEN NULL ELSE coalesce(d.due_at, d.order_at) END"
                    " FROM k WHERE d.tenant=k.tenant AND d.event=k.event AND d.subscription=$4");
    return r < 0 ? r : pg_release(s, m->keys, m->n, now, NULL);
}

/* *ret_n were looked at. */
static int look_and_move(struct pg_store *s, uint32_t subscription_no, enum subscription_ordering ordering,
                         struct relane_cursor *cursor, size_t max, size_t *ret_n) {
    struct moving m = {
        .tenants = PG_COLUMN(PG_INT), .events = PG_COLUMN(PG_BIGINT), .wanted = PG_COLUMN(PG_BIGINT)};
    struct pg_params *p = pg_params(&s->writer);
    pg_int(p, (int32_t)subscription_no);
    pg_bigint(p, cursor->first);
    pg_bigint(p, cursor->second);
    pg_bigint(p, cursor->event);
    pg_bigint(p, (int64_t)max);
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    int r = pg_query(&s->writer, walks[cursor->walk], &rows);
    *ret_n = r == 0 ? (size_t)rows.n : 0;
    while (r == 0 && pg_next(&rows)) {
        go_behind(cursor, &rows);
        consider(&m, subscription_no, ordering, &rows);
    }
    if (r == 0)
        r = apply(s, &m, subscription_no, INT64_MAX);
    pg_column_free(&m.tenants);
    pg_column_free(&m.events);
    pg_column_free(&m.wanted);
    return r;
}

int postgres_relane(struct store *s, uint32_t subscription_no, enum subscription_ordering ordering,
                    struct relane_cursor *cursor, unsigned limit, bool *ret_done) {
    int r = pg_flush(pg_of(s));
    while (r == 0 && cursor->walk != WALK_ENDED && limit > 0) {
        size_t max = limit < MOVES_A_LOOK ? limit : MOVES_A_LOOK, n;
        r = look_and_move(pg_of(s), subscription_no, ordering, cursor, max, &n);
        if (r < 0)
            return r;
        limit -= (unsigned)n;
        if (n < max)
            *cursor = (struct relane_cursor){.walk = cursor->walk + 1};
    }
    *ret_done = cursor->walk == WALK_ENDED;
    return r;
}

int postgres_set_relaned(struct store *s, uint32_t subscription_no, uint64_t relane) {
    struct pg_params *p = pg_params(&pg_of(s)->writer);
    pg_int(p, (int32_t)subscription_no);
    pg_bigint(p, (int64_t)relane);
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    int r =
        pg_query(&pg_of(s)->writer, "UPDATE subscriptions SET relane=NULL WHERE no=$1 AND relane=$2", &rows);
    return r < 0 ? r : (int)pg_changed(&rows);
}
