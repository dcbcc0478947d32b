#include "store/postgres/order.h"

#include <errno.h>

#include "core/partition.h"
#include "store/postgres/gather.h"

enum {
    LANES_LOCK = 0x706c, /* class of the advisory locks on partitions */
    OWED_MAX = 65536,    /* more are found again (pg_find_owed) */
    OWED_A_LOOK = 4096,
    CLOSE_MAX = 1024, /* deliveries a statement */
};

struct pg_order {
    /* Of this transaction. */
    uint64_t held[PARTITIONS / 64];
    /* Keys whose first is to be released: in this transaction, and later. */
    struct pg_lane_key *owed;
    size_t paid_n, owed_n, owed_cap; /* owed[0…paid_n) are released with this transaction */
};

int pg_order_open(struct pg_store *s) {
    s->order = calloc(1, sizeof *s->order);
    return s->order ? 0 : -ENOMEM;
}

void pg_order_close(struct pg_store *s) {
    if (s->order)
        free(s->order->owed);
    free(s->order);
    s->order = NULL;
}

void pg_order_committed(struct pg_store *s) {
    struct pg_order *o = s->order;
    memset(o->held, 0, sizeof o->held);
    o->owed_n -= o->paid_n;
    if (o->owed_n > 0)
        memmove(o->owed, o->owed + o->paid_n, o->owed_n * sizeof *o->owed);
    o->paid_n = 0;
}

void pg_order_rolled_back(struct pg_store *s) {
    memset(s->order->held, 0, sizeof s->order->held);
    s->order->paid_n = 0;
}

/* ---- who may put aside and close ---- */

static bool is_held(const struct pg_order *o, unsigned partition) {
    return o->held[partition / 64] >> partition % 64 & 1;
}

static int hold_partitions(struct pg_store *s, const struct pg_column *wanted) {
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    struct pg_params *p = pg_params(&s->writer);
    pg_int(p, LANES_LOCK);
    pg_array(p, wanted);
    int r = pg_query(
        &s->writer,
        "SELECT p FROM (SELECT DISTINCT p FROM unnest($2) p) p WHERE pg_try_advisory_xact_lock($1, p)",
        &rows);
    while (r == 0 && pg_next(&rows)) {
        unsigned partition = (unsigned)pg_column_int(&rows, 0);
        s->order->held[partition / 64] |= UINT64_C(1) << partition % 64;
    }
    return r;
}

int pg_hold_lanes(struct pg_store *s, const struct pg_lane_key *keys, size_t n, bool *held) {
    struct pg_column wanted = PG_COLUMN(PG_INT);
    for (size_t i = 0; i < n; i++)
        if (!is_held(s->order, partition_of(keys[i].subscription_no)))
            pg_add_int(&wanted, (int32_t)partition_of(keys[i].subscription_no));
    int r = wanted.n ? hold_partitions(s, &wanted) : 0;
    pg_column_free(&wanted);
    for (size_t i = 0; r == 0 && i < n; i++)
        held[i] = is_held(s->order, partition_of(keys[i].subscription_no));
    return r;
}

/* ---- releasing ---- */

/* false: there is no room, or it is there already. */
static bool remember(struct pg_order *o, struct pg_lane_key key) {
    for (size_t i = o->paid_n; i < o->owed_n; i++)
        if (o->owed[i].subscription_no == key.subscription_no && o->owed[i].lane_key == key.lane_key)
            return false;
    if (o->owed_n == o->owed_cap) {
        size_t cap = o->owed_cap ? o->owed_cap * 2 : 64;
        struct pg_lane_key *owed = cap <= OWED_MAX ? realloc(o->owed, cap * sizeof *owed) : NULL;
        if (!owed)
            return false;
        o->owed = owed;
        o->owed_cap = cap;
    }
    o->owed[o->owed_n++] = key;
    return true;
}

/* It is written down too: this process may be gone before it comes to it. */
static int owe(struct pg_store *s, struct pg_lane_key key) {
    (void)remember(s->order, key);
    struct pg_column *c = pg_gather(s, PG_OWED);
    pg_add_int(&c[0], (int32_t)key.subscription_no);
    pg_add_bigint(&c[1], (int64_t)key.lane_key);
    return pg_gathered(s, PG_OWED);
}

int pg_find_owed(struct pg_store *s) {
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    pg_int(pg_params(&s->writer), OWED_A_LOOK);
    int r = pg_query(&s->writer, "SELECT subscription, lane_key FROM keys_to_release LIMIT $1", &rows);
    while (r == 0 && pg_next(&rows))
        (void)remember(s->order, (struct pg_lane_key){(uint32_t)pg_column_int(&rows, 0),
                                                      (uint64_t)pg_column_int(&rows, 1)});
    return r;
}

static int strike_out(struct pg_store *s, const struct pg_lane_key *keys, size_t n) {
    struct pg_column subscriptions = PG_COLUMN(PG_INT), lane_keys = PG_COLUMN(PG_BIGINT);
    for (size_t i = 0; i < n; i++) {
        pg_add_int(&subscriptions, (int32_t)keys[i].subscription_no);
        pg_add_bigint(&lane_keys, (int64_t)keys[i].lane_key);
    }
    struct pg_params *p = pg_params(&s->writer);
    pg_array(p, &subscriptions);
    pg_array(p, &lane_keys);
    pg_column_free(&subscriptions);
    pg_column_free(&lane_keys);
    return pg_send(&s->writer,
                   "WITH done AS MATERIALIZED (SELECT o.ctid AS tid FROM unnest($1,$2)"
                   " AS k(subscription, lane_key) JOIN keys_to_release o USING (subscription, lane_key)"
                   " FOR UPDATE OF o SKIP LOCKED)"
                   " DELETE FROM keys_to_release o USING done d WHERE o.ctid=d.tid");
}

/* An id's time that the clock has fallen back behind is not waited for, a deliver_at is. */
#define RELEASED_DUE_AT(row, now)                                                                            \
    "CASE WHEN " row ".order_at=" row ".event >> 12 AND " row ".order_at>" now " THEN " now " ELSE " row     \
    ".order_at END"

static int release_held(struct pg_store *s, const struct pg_lane_key *keys, size_t n, const bool *held,
                        int64_t now, int64_t *due_at) {
    struct pg_column subscriptions = PG_COLUMN(PG_INT), lane_keys = PG_COLUMN(PG_BIGINT),
                     places = PG_COLUMN(PG_INT);
    for (size_t i = 0; i < n; i++) {
        if (!held[i])
            continue;
        pg_add_int(&subscriptions, (int32_t)keys[i].subscription_no);
        pg_add_bigint(&lane_keys, (int64_t)keys[i].lane_key);
        pg_add_int(&places, (int32_t)i);
    }
    struct pg_params *p = pg_params(&s->writer);
    pg_array(p, &subscriptions);
    pg_array(p, &lane_keys);
    pg_array(p, &places);
    pg_bigint(p, now);
    bool any = places.n > 0;
    pg_column_free(&subscriptions);
    pg_column_free(&lane_keys);
    pg_column_free(&places);
    if (!any)
        return 0;
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    int r = pg_query(
        &s->writer,
        "WITH k AS MATERIALIZED (SELECT * FROM unnest($1,$2,$3) AS k(subscription, lane_key, place)),"
        " head AS MATERIALIZED (SELECT k.place, h.* FROM k CROSS JOIN LATERAL ("
        "  SELECT d.ctid AS tid, d.event, d.state, d.due_at, d.order_at FROM deliveries_open d"
        "  WHERE d.subscription=k.subscription AND d.lane_key=k.lane_key"
        "  ORDER BY d.order_at, d.event LIMIT 1) h),"
        " freed AS (UPDATE deliveries_open d SET due_at=" RELEASED_DUE_AT(
            "d", "$4") "  FROM head h WHERE d.ctid=h.tid AND h.state<>1 AND h.due_at IS NULL)"
                       " SELECT place, CASE WHEN state<>1 THEN coalesce(due_at, " RELEASED_DUE_AT(
                           "h", "$4") ") END FROM head h",
        &rows);
    while (r == 0 && pg_next(&rows))
        if (due_at)
            due_at[pg_column_int(&rows, 0)] = pg_column_int(&rows, 1);
    return r;
}

static int release(struct pg_store *s, const struct pg_lane_key *keys, size_t n, int64_t now, int64_t *due_at,
                   bool *held) {
    if (due_at)
        memset(due_at, 0, n * sizeof *due_at);
    int r = pg_hold_lanes(s, keys, n, held);
    return r < 0 ? r : release_held(s, keys, n, held, now, due_at);
}

int pg_release(struct pg_store *s, const struct pg_lane_key *keys, size_t n, int64_t now, int64_t *due_at) {
    if (n == 0)
        return 0;
    bool *held = calloc(n, sizeof *held);
    if (!held)
        return -ENOMEM;
    int r = release(s, keys, n, now, due_at, held);
    for (size_t i = 0; r == 0 && i < n; i++)
        if (!held[i])
            r = owe(s, keys[i]);
    free(held);
    return r;
}

int pg_release_owed(struct pg_store *s, int64_t now) {
    struct pg_order *o = s->order;
    size_t from = o->paid_n, n = o->owed_n - from;
    if (n == 0)
        return 0;
    bool *held = calloc(n, sizeof *held);
    if (!held)
        return -ENOMEM;
    int r = pg_flush(s);
    if (r == 0)
        r = release(s, o->owed + from, n, now, NULL, held);
    for (size_t i = 0; r == 0 && i < n; i++) {
        if (!held[i])
            continue;
        struct pg_lane_key done = o->owed[from + i];
        o->owed[from + i] = o->owed[o->paid_n];
        o->owed[o->paid_n++] = done;
    }
    free(held);
    return r == 0 && o->paid_n > from ? strike_out(s, o->owed + from, o->paid_n - from) : r;
}

/* ---- closing without an attempt ---- */

static void add_waiting(struct pg_column c[4], const struct pg_waiting *d, size_t place) {
    pg_add_int(&c[0], (int32_t)d->tenant_no);
    pg_add_bigint(&c[1], (int64_t)d->event_key);
    pg_add_int(&c[2], (int32_t)d->subscription_no);
    pg_add_int(&c[3], (int32_t)place);
}

static int move_to_dlq(struct pg_store *s, struct pg_column c[4], enum delivery_reason reason, int64_t now,
                       struct pg_rows *ret) {
    struct pg_params *p = pg_params(&s->writer);
    for (int i = 0; i < 4; i++)
        pg_array(p, &c[i]);
    pg_int(p, reason);
    pg_bigint(p, now);
    return pg_query(
        &s->writer,
        "WITH k AS MATERIALIZED (SELECT * FROM unnest($1,$2,$3,$4) AS k(tenant, event, subscription, place)),"
        " held AS MATERIALIZED (SELECT k.place, d.ctid AS tid FROM k JOIN deliveries_open d ON"
        "  d.tenant=k.tenant AND d.event=k.event AND d.subscription=k.subscription WHERE d.state<>1"
        "  FOR UPDATE OF d SKIP LOCKED),"
        " gone AS (DELETE FROM deliveries_open d USING held h WHERE d.ctid=h.tid RETURNING h.place, d.*),"
        " closed AS (INSERT INTO deliveries_closed (tenant, event, subscription, state, attempts, base,"
        "  uncounted, order_at, window_at, closed_at, last_status, last_error, reason, replay_source,"
        "  replay_by, test, created_at) SELECT tenant, event, subscription, 4, attempts, base, uncounted,"
        "  order_at, window_at, $6, last_status, last_error, $5, replay_source, replay_by, test, created_at"
        "  FROM gone)"
        " SELECT place, state, attempts-base, replay_source FROM gone",
        ret);
}

static int note_closed(struct pg_store *s, const struct pg_waiting *d, const struct pg_rows *row,
                       enum delivery_reason reason, int64_t now) {
    enum delivery_state from = (enum delivery_state)pg_column_int(row, 1);
    CHECK(delivery_transition_allowed(from, DELIVERY_DLQ, false, reason));
    struct pg_replayed replayed = {.tenant_no = d->tenant_no,
                                   .subscription_no = d->subscription_no,
                                   .source = pg_column_slice(row, 3),
                                   .attempts = (uint32_t)pg_column_int(row, 2),
                                   .to = DELIVERY_DLQ};
    int r =
        pg_add_transition(s, d->tenant_no, d->event_key, d->subscription_no, now, from, DELIVERY_DLQ, reason);
    if (r == 0)
        r = pg_count_dead(s, d->tenant_no, d->subscription_no, reason, 1);
    return r < 0 ? r : pg_count_replayed_waiting(s, &replayed, reason);
}

static int close_some(struct pg_store *s, const struct pg_waiting *d, size_t n, enum delivery_reason reason,
                      int64_t now, bool *closed) {
    CHECK(n <= CLOSE_MAX);
    struct pg_lane_key keys[CLOSE_MAX];
    bool held[CLOSE_MAX];
    size_t ordered = 0;
    for (size_t i = 0; i < n; i++)
        if (d[i].lane_key)
            keys[ordered++] = (struct pg_lane_key){d[i].subscription_no, d[i].lane_key};
    int r = pg_hold_lanes(s, keys, ordered, held);
    struct pg_column c[4] = {PG_COLUMN(PG_INT), PG_COLUMN(PG_BIGINT), PG_COLUMN(PG_INT), PG_COLUMN(PG_INT)};
    for (size_t i = 0, k = 0; r == 0 && i < n; i++) {
        closed[i] = false;
        if (!d[i].lane_key || held[k++])
            add_waiting(c, &d[i], i);
    }
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    if (r == 0 && c[0].n)
        r = move_to_dlq(s, c, reason, now, &rows);
    for (int i = 0; i < 4; i++)
        pg_column_free(&c[i]);
    ordered = 0;
    while (r == 0 && pg_next(&rows)) {
        size_t place = (size_t)pg_column_int(&rows, 0);
        closed[place] = true;
        if (d[place].lane_key)
            keys[ordered++] = (struct pg_lane_key){d[place].subscription_no, d[place].lane_key};
        r = note_closed(s, &d[place], &rows, reason, now);
    }
    return r < 0 ? r : pg_release(s, keys, ordered, now, NULL);
}

int pg_close_waiting(struct pg_store *s, const struct pg_waiting *d, size_t n, enum delivery_reason reason,
                     int64_t now, bool *closed) {
    int r = n ? pg_flush(s) : 0;
    for (size_t i = 0; r == 0 && i < n; i += CLOSE_MAX)
        r = close_some(s, d + i, n - i < CLOSE_MAX ? n - i : CLOSE_MAX, reason, now, closed + i);
    return r;
}
