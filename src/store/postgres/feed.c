/* The node's own connection: what it reads of the others, what it hears, what it tells. */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <uthash.h>

#include "base/clock.h"
#include "base/log.h"
#include "store/postgres/cluster.h"

#define LANES_CHANNEL   "posthorn_lanes"
#define CHANGES_CHANNEL "posthorn_changes"

enum {
    CLOCK_LOOKS = 3,
    STEP_BACK = 100000, /* transactions that the primary may have begun, of which its standby has not heard */
};

/* A change that was told already and may come up again. */
struct known_change {
    struct change_key {
        int64_t xid;
        uint64_t no;
        int64_t kind;
    } key;
    bool again; /* it has */
    UT_hash_handle hh;
};

struct pg_feed {
    struct store_feed base;
    struct pg conn;
    uint32_t node;
    int listening_pid; /* of the session that listens */
    struct known_change *known;
    struct feed_position at;
};

static struct pg_feed *feed_of(struct store_feed *f) {
    return (struct pg_feed *)f;
}

int postgres_feed_open(struct store *store, struct store_feed **ret) {
    struct pg_feed *f = calloc(1, sizeof *f);
    if (!f)
        return -ENOMEM;
    f->base.backend = store->backend;
    f->node = pg_of(store)->node.no;
    pg_init(&f->conn, pg_of(store)->source, &pg_usual_limits);
    int r = pg_ensure(&f->conn);
    if (r < 0) {
        postgres_feed_close(&f->base);
        return r;
    }
    *ret = &f->base;
    return 0;
}

static void forget(struct pg_feed *f, bool all) {
    struct known_change *k, *next;
    HASH_ITER (hh, f->known, k, next) {
        if (all || (uint64_t)k->key.xid < f->at.from || !k->again) {
            HASH_DEL(f->known, k);
            free(k);
        }
    }
}

void postgres_feed_close(struct store_feed *feed) {
    struct pg_feed *f = feed_of(feed);
    forget(f, true);
    pg_close(&f->conn);
    free(f);
}

/* ---- who lives and who owns what ---- */

static int view_nodes(struct pg_feed *f, struct cluster_view *ret) {
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    int r = pg_query(&f->conn,
                     "SELECT no, roles, tiers, name, lease_until-" PG_NOW " FROM nodes ORDER BY no LIMIT 64",
                     &rows);
    for (ret->n = 0; r == 0 && ret->n < NODES_MAX && pg_next(&rows); ret->n++) {
        struct node_row *row = &ret->nodes[ret->n];
        struct slice name = pg_column_slice(&rows, 3);
        *row = (struct node_row){.no = (uint32_t)pg_column_int(&rows, 0),
                                 .roles = (uint32_t)pg_column_int(&rows, 1),
                                 .tiers = (uint32_t)pg_column_int(&rows, 2),
                                 .lease_left_ms = pg_column_int(&rows, 4)};
        memcpy(row->name, name.p, name.n < NODE_NAME_SIZE ? name.n : NODE_NAME_SIZE - 1);
    }
    return r;
}

static int view_partitions(struct pg_feed *f, struct cluster_view *ret) {
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    int r = pg_query(&f->conn,
                     "SELECT tier, string_agg(int4send(coalesce(node, 0)), '' ORDER BY no) FROM partitions"
                     " GROUP BY tier",
                     &rows);
    while (r == 0 && pg_next(&rows)) {
        int64_t tier = pg_column_int(&rows, 0);
        struct slice owners = pg_column_slice(&rows, 1);
        if (tier < 0 || tier >= TIERS || owners.n != PARTITIONS * sizeof(uint32_t))
            return -EIO;
        for (unsigned i = 0; i < PARTITIONS; i++) {
            uint32_t no;
            memcpy(&no, owners.p + i * sizeof no, sizeof no);
            ret->owners[tier][i] = ntohl(no);
        }
    }
    return r;
}

/* The quickest of some answers is the one that tells most. */
static int view_clock(struct pg_feed *f, struct cluster_view *ret) {
    ret->clock_error_us = INT64_MAX;
    for (int i = 0; i < CLOCK_LOOKS; i++) {
        _cleanup_pg_rows_ struct pg_rows rows = {0};
        int64_t began_us = clock_mono_us(), asked_us = clock_system_us();
        int r =
            pg_query_row(&f->conn, "SELECT (extract(epoch from clock_timestamp()) * 1000000)::bigint", &rows);
        if (r <= 0)
            return r < 0 ? r : -EIO;
        int64_t half_us = (clock_mono_us() - began_us + 1) / 2;
        if (half_us >= ret->clock_error_us)
            continue;
        ret->clock_error_us = half_us;
        ret->clock_offset_us = pg_column_int(&rows, 0) - (asked_us + half_us);
    }
    return 0;
}

int postgres_feed_view(struct store_feed *feed, struct cluster_view *ret) {
    struct pg_feed *f = feed_of(feed);
    int r = view_nodes(f, ret);
    if (r == 0)
        r = view_partitions(f, ret);
    return r == 0 ? view_clock(f, ret) : r;
}

/* ---- what others have changed ---- */

/* 1: it was not known yet. */
static int note_change(struct pg_feed *f, const struct change_key *key) {
    struct known_change *k;
    HASH_FIND(hh, f->known, key, sizeof *key, k);
    if (k) {
        k->again = true;
        return 0;
    }
    if (!(k = calloc(1, sizeof *k)))
        return -ENOMEM;
    k->key = *key;
    k->again = true;
    HASH_ADD(hh, f->known, key, sizeof k->key, k);
    return 1;
}

static int first_position(struct pg_feed *f) {
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    int r = pg_query_row(&f->conn, "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint", &rows);
    if (r <= 0)
        return r < 0 ? r : -EIO;
    f->at.from = (uint64_t)pg_column_int(&rows, 0);
    f->at.timeline = f->conn.timeline;
    return 0;
}

/* After a failover the numbers of transactions that came to nothing are given out again: changes may come
 * with numbers that were passed already. What was told before is told once more. */
static int follow_failover(struct pg_feed *f) {
    uint64_t from = f->at.from;
    if (f->at.timeline == f->conn.timeline)
        return 0;
    int r = first_position(f);
    if (r < 0)
        return r;
    if (f->at.from > from)
        f->at.from = from;
    f->at.from -= f->at.from > STEP_BACK ? STEP_BACK : f->at.from - 1;
    f->at.known = 0;
    forget(f, true);
    log_warn("the database has failed over: changes are looked through again",
             log_int("timeline", f->at.timeline), log_int("from", (int64_t)f->at.from));
    return 0;
}

static void again_none(struct pg_feed *f) {
    for (struct known_change *k = f->known; k; k = k->hh.next)
        k->again = false;
}

int postgres_feed_changes(struct store_feed *feed, struct feed_change *ret, size_t *ret_n,
                          struct feed_position *p) {
    struct pg_feed *f = feed_of(feed);
    bool first = f->at.from == 0;
    int r = first ? first_position(f) : pg_ensure(&f->conn);
    if (r == 0)
        r = follow_failover(f);
    if (r < 0)
        return r;
    struct pg_params *params = pg_params(&f->conn);
    pg_bigint(params, (int64_t)f->at.from);
    pg_int(params, (int32_t)f->node);
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    /* One row at least, for the snapshot: what was committed before its oldest open transaction is final. */
    r = pg_query(&f->conn,
                 "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint, c.xid::text::bigint, c.kind,"
                 " c.tenant, c.no, (SELECT coalesce(max(tier_change), 0) FROM tenants WHERE tier_change>0)"
                 " FROM (SELECT 1) one LEFT JOIN changes c"
                 " ON c.xid>=($1::bigint)::text::xid8 AND c.node<>$2",
                 &rows);
    uint64_t xmin = f->at.from, above = 0, tiers = f->at.tier_changes;
    size_t n = 0;
    bool more = false;
    again_none(f);
    while (r == 0 && pg_next(&rows)) {
        xmin = (uint64_t)pg_column_int(&rows, 0);
        tiers = (uint64_t)pg_column_int(&rows, 5);
        if (pg_column_null(&rows, 1))
            break;
        struct change_key key = {pg_column_int(&rows, 1), (uint64_t)pg_column_int(&rows, 4),
                                 pg_column_int(&rows, 2)};
        if (n == FEED_CHANGES_MAX) {
            more = true;
            break;
        }
        int fresh = note_change(f, &key);
        if (fresh < 0)
            return fresh;
        above += (uint64_t)key.xid >= xmin;
        if (fresh && !first)
            ret[n++] = (struct feed_change){.kind = (enum feed_kind)key.kind,
                                            .tenant_no = (uint32_t)pg_column_int(&rows, 3),
                                            .no = key.no};
    }
    if (r == 0 && f->at.timeline != f->conn.timeline)
        r = -EIO; /* it failed over just now */
    if (r < 0)
        return r;
    if (!more) {
        f->at = (struct feed_position){
            .from = xmin, .known = above, .timeline = f->at.timeline, .tier_changes = tiers};
        forget(f, false);
    }
    *p = f->at;
    *ret_n = n;
    return 0;
}

/* ---- what is under way, and due ---- */

int postgres_feed_attempts(struct store_feed *feed, const struct partition_set *partitions,
                           feed_attempt_fn fn, void *arg) {
    struct pg_feed *f = feed_of(feed);
    struct pg_params *p = pg_params(&f->conn);
    pg_int(p, (int32_t)f->node);
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    int r = pg_query(&f->conn,
                     "SELECT event, subscription, tenant, attempts FROM deliveries_open"
                     " WHERE lease_until IS NOT NULL AND node IS DISTINCT FROM $1",
                     &rows);
    while (r == 0 && pg_next(&rows)) {
        struct feed_attempt a = {.event_key = (uint64_t)pg_column_int(&rows, 0),
                                 .subscription_no = (uint32_t)pg_column_int(&rows, 1),
                                 .tenant_no = (uint32_t)pg_column_int(&rows, 2),
                                 .number = (uint32_t)pg_column_int(&rows, 3)};
        if (partition_in_any(partitions, partition_of(a.subscription_no)))
            r = fn(arg, &a);
    }
    return r;
}

int postgres_feed_under_way(struct store_feed *feed, struct feed_attempt *attempts, size_t n, size_t *ret_n) {
    struct pg_feed *f = feed_of(feed);
    struct pg_column c[] = {PG_COLUMN(PG_INT), PG_COLUMN(PG_BIGINT), PG_COLUMN(PG_INT), PG_COLUMN(PG_INT)};
    for (size_t i = 0; i < n; i++) {
        pg_add_int(&c[0], (int32_t)attempts[i].tenant_no);
        pg_add_bigint(&c[1], (int64_t)attempts[i].event_key);
        pg_add_int(&c[2], (int32_t)attempts[i].subscription_no);
        pg_add_int(&c[3], (int32_t)attempts[i].number);
    }
    struct pg_params *p = pg_params(&f->conn);
    for (size_t i = 0; i < sizeof c / sizeof c[0]; i++) {
        pg_array(p, &c[i]);
        pg_column_free(&c[i]);
    }
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    int r =
        pg_query(&f->conn,
                 "SELECT a.i FROM unnest($1, $2, $3, $4) WITH ORDINALITY a(tenant, event, subscription,"
                 " number, i) JOIN deliveries_open d ON d.tenant=a.tenant AND d.event=a.event"
                 " AND d.subscription=a.subscription WHERE d.state=1 AND d.attempts=a.number ORDER BY a.i",
                 &rows);
    size_t left = 0;
    while (r == 0 && pg_next(&rows))
        attempts[left++] = attempts[pg_column_int(&rows, 0) - 1];
    *ret_n = left;
    return r;
}

int postgres_feed_sending(struct store_feed *feed, uint32_t subscription_no, bool *ret) {
    struct pg_feed *f = feed_of(feed);
    pg_int(pg_params(&f->conn), (int32_t)subscription_no);
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    int r = pg_query_row(
        &f->conn, "SELECT 1 FROM deliveries_open WHERE lease_until IS NOT NULL AND subscription=$1 LIMIT 1",
        &rows);
    *ret = r > 0;
    return r < 0 ? r : 0;
}

int postgres_feed_tiers(struct store_feed *feed, struct tier_view *ret) {
    struct pg_feed *f = feed_of(feed);
    struct pg_params *p = pg_params(&f->conn);
    pg_int(p, ROLE_DELIVER);
    pg_int(p, TIERS_OPEN_MAX + 1);
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    int r = pg_query(&f->conn,
                     "WITH known AS (SELECT coalesce(min(tier_changes), 0) AS change FROM nodes"
                     " WHERE roles & $1 <> 0) SELECT change, no FROM known LEFT JOIN tenants"
                     " ON tier_change>0 AND tier_change>change ORDER BY no LIMIT $2",
                     &rows);
    size_t n = 0;
    while (r == 0 && pg_next(&rows)) {
        ret->in_force = (uint64_t)pg_column_int(&rows, 0);
        if (pg_column_null(&rows, 1))
            break;
        if (n == TIERS_OPEN_MAX)
            return -E2BIG;
        ret->open[n++] = (uint32_t)pg_column_int(&rows, 1);
    }
    ret->n = n;
    return r;
}

int postgres_feed_lanes_due(struct store_feed *feed, const struct partition_set *partitions,
                            uint32_t *after_no, struct lane_due *ret, size_t max, size_t *ret_n,
                            bool *ret_more) {
    struct pg_feed *f = feed_of(feed);
    struct pg_params *p = pg_params(&f->conn);
    pg_int(p, (int32_t)*after_no);
    pg_bigint(p, (int64_t)max);
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    /* From lane to lane by the index: what waits in one costs nothing. */
    int r =
        pg_query(&f->conn,
                 "WITH RECURSIVE lane AS ((SELECT subscription, due_at FROM deliveries_open"
                 " WHERE due_at IS NOT NULL AND subscription>$1 ORDER BY subscription, due_at LIMIT 1)"
                 " UNION ALL SELECT n.subscription, n.due_at FROM lane, LATERAL (SELECT subscription, due_at"
                 " FROM deliveries_open WHERE due_at IS NOT NULL AND subscription>lane.subscription"
                 " ORDER BY subscription, due_at LIMIT 1) n)"
                 " SELECT subscription, due_at FROM lane LIMIT $2",
                 &rows);
    size_t n = 0, looked_at = 0;
    for (; r == 0 && pg_next(&rows); looked_at++) {
        *after_no = (uint32_t)pg_column_int(&rows, 0);
        if (partition_in_any(partitions, partition_of(*after_no)))
            ret[n++] = (struct lane_due){*after_no, pg_column_int(&rows, 1)};
    }
    *ret_n = n;
    *ret_more = looked_at == max;
    return r;
}

/* ---- hearing and telling ---- */

int postgres_feed_tell(struct store_feed *feed, const char *text) {
    struct pg_feed *f = feed_of(feed);
    pg_text(pg_params(&f->conn), slice_of(text));
    return pg_query(&f->conn, "SELECT pg_notify('" LANES_CHANNEL "', $1)", NULL);
}

/* Listens, after a new connection anew: what was told meanwhile was missed, *ret_changed says to look. */
static int listen_on(struct pg_feed *f, bool *ret_changed) {
    int r = pg_ensure(&f->conn);
    if (r < 0 || f->listening_pid == PQbackendPID(f->conn.conn))
        return r;
    r = pg_query(&f->conn, "LISTEN " LANES_CHANNEL, NULL);
    if (r == 0)
        r = pg_query(&f->conn, "LISTEN " CHANGES_CHANNEL, NULL);
    if (r == 0)
        f->listening_pid = PQbackendPID(f->conn.conn);
    *ret_changed = true;
    return r;
}

/* How many there were. */
static unsigned take_notices(struct pg_feed *f, feed_text_fn heard, void *arg, bool *ret_changed) {
    unsigned n = 0;
    PGnotify *notice;
    while ((notice = PQnotifies(f->conn.conn))) {
        bool own = notice->be_pid == PQbackendPID(f->conn.conn);
        n += !own;
        if (!own && strcmp(notice->relname, CHANGES_CHANNEL) == 0)
            *ret_changed = true;
        else if (!own)
            heard(arg, notice->extra);
        PQfreemem(notice);
    }
    return n;
}

int postgres_feed_wait(struct store_feed *feed, int wake_fd, int timeout_ms, feed_text_fn heard, void *arg,
                       bool *ret_changed) {
    struct pg_feed *f = feed_of(feed);
    *ret_changed = false;
    int r = listen_on(f, ret_changed);
    if (r == 0 && take_notices(f, heard, arg, ret_changed) > 0)
        timeout_ms = 0;
    struct pollfd fds[] = {{.fd = wake_fd, .events = POLLIN},
                           {.fd = r == 0 ? PQsocket(f->conn.conn) : -1, .events = POLLIN}};
    if (poll(fds, 2, *ret_changed ? 0 : timeout_ms) < 0 && errno != EINTR)
        return -errno;
    if (r < 0 || !(fds[1].revents & (POLLIN | POLLHUP | POLLERR)))
        return r;
    if (!PQconsumeInput(f->conn.conn)) {
        f->conn.broken = true; /* made anew when it is asked next */
        return -EIO;
    }
    take_notices(f, heard, arg, ret_changed);
    return 0;
}
