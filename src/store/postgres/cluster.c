/* Nodes and partitions, as their own writer sees to them (store/cluster.h). */
#include <errno.h>

#include "base/clock.h"
#include "store/postgres/cluster.h"

enum { SEND_MARGIN_PART = 10 /* of the lease: what a send that was decided on may take to begin */ };

int postgres_join(struct store *store, const struct node_entry *e, uint32_t *ret_no, uint32_t *ret_slot) {
    struct pg_store *s = pg_of(store);
    struct pg_params *p = pg_params(&s->writer);
    CHECK(s->node.no != 0);
    pg_int(p, (int32_t)s->node.no);
    pg_text(p, slice_of(e->name));
    pg_int(p, (int32_t)e->roles);
    pg_int(p, (int32_t)e->tiers);
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    int r = pg_query_row(
        &s->writer,
        "UPDATE nodes SET name=$2, roles=$3, tiers=$4, tier_changes=(SELECT coalesce(max(tier_change), 0)"
        " FROM tenants WHERE tier_change>0) WHERE no=$1 RETURNING slot",
        &rows);
    if (r <= 0)
        return r < 0 ? r : -EIO;
    *ret_no = s->node.no;
    *ret_slot = (uint32_t)pg_column_int(&rows, 0);
    return pg_set_lease(s, e->lease_ms);
}

int postgres_heartbeat(struct store *store, uint64_t applied) {
    struct pg_store *s = pg_of(store);
    if (s->applied_told == applied)
        return 0; /* the commit renews the lease */
    struct pg_params *p = pg_params(&s->writer);
    pg_int(p, (int32_t)s->node.no);
    pg_bigint(p, (int64_t)applied);
    s->applied_told = applied;
    return pg_send(&s->writer, "UPDATE nodes SET applied=$2 WHERE no=$1");
}

int postgres_set_node_tiers(struct store *store, uint32_t tiers) {
    struct pg_store *s = pg_of(store);
    struct pg_params *p = pg_params(&s->writer);
    pg_int(p, (int32_t)s->node.no);
    pg_int(p, (int32_t)tiers);
    return pg_send(&s->writer, "UPDATE nodes SET tiers=$2 WHERE no=$1");
}

/* Numbers are given and committed by one transaction at a time: whoever sees one sees all before it. */
int postgres_change_tier(struct store *store, uint32_t tenant_no, uint64_t *ret) {
    struct pg_store *s = pg_of(store);
    int r = pg_send(&s->writer,
                    "SELECT pg_advisory_xact_lock(" PG_LOCK_CLASS ", hashtext(current_schema() || 'tiers'))");
    if (r < 0)
        return r;
    pg_int(pg_params(&s->writer), (int32_t)tenant_no);
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    r = pg_query_row(&s->writer,
                     "UPDATE tenants SET tier_change=(SELECT coalesce(max(tier_change), 0) + 1 FROM tenants"
                     " WHERE tier_change>0) WHERE no=$1 RETURNING tier_change",
                     &rows);
    if (r <= 0)
        return r < 0 ? r : -ENOENT;
    *ret = (uint64_t)pg_column_int(&rows, 0);
    return 0;
}

int postgres_set_tier_changes(struct store *store, uint64_t change) {
    struct pg_store *s = pg_of(store);
    struct pg_params *p = pg_params(&s->writer);
    pg_int(p, (int32_t)s->node.no);
    pg_bigint(p, (int64_t)change);
    return pg_send(&s->writer, "UPDATE nodes SET tier_changes=$2 WHERE no=$1");
}

void pg_node_renewed(struct pg_store *s, int64_t sent_us) {
    int64_t margin_ms = s->lease_ms / SEND_MARGIN_PART;
    atomic_store(&s->send_until_us, sent_us + (s->lease_ms - margin_ms) * 1000);
}

const atomic_int_fast64_t *postgres_send_until(struct store *store) {
    return &pg_of(store)->send_until_us;
}

/* The row goes: without it no transaction of that node is committed. One that is being committed now holds
 * the row, and is waited for: then the lease is renewed, and the node lives. */
int postgres_bury_node(struct store *store, uint32_t no) {
    struct pg_store *s = pg_of(store);
    struct pg_params *p = pg_params(&s->writer);
    pg_int(p, (int32_t)no);
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    int r = pg_query_row(&s->writer,
                         "WITH dead AS (DELETE FROM nodes WHERE no=$1 AND lease_until<" PG_NOW
                         " RETURNING no), freed AS (UPDATE partitions SET node=NULL FROM dead"
                         " WHERE node=dead.no) SELECT count(*) FROM dead",
                         &rows);
    return r < 0 ? r : (int)pg_column_int(&rows, 0);
}

static void add_numbers(struct pg_params *p, const uint16_t *nos, size_t n) {
    struct pg_column column = PG_COLUMN(PG_INT);
    for (size_t i = 0; i < n; i++)
        pg_add_int(&column, nos[i]);
    pg_array(p, &column);
    pg_column_free(&column);
}

int postgres_take_partitions(struct store *store, enum tenant_tier tier, uint16_t *nos, size_t n,
                             size_t *ret_n) {
    struct pg_store *s = pg_of(store);
    struct pg_params *p = pg_params(&s->writer);
    pg_int(p, (int32_t)s->node.no);
    pg_int(p, (int32_t)tier);
    add_numbers(p, nos, n);
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    /* What another takes in this moment is left to it: nobody waits. */
    int r = pg_query(&s->writer,
                     "UPDATE partitions SET node=$1 WHERE tier=$2 AND no IN (SELECT no FROM partitions p"
                     " WHERE tier=$2 AND no=ANY($3) AND (node IS NULL OR NOT EXISTS (SELECT 1 FROM nodes"
                     " WHERE nodes.no=p.node)) FOR UPDATE SKIP LOCKED) RETURNING no",
                     &rows);
    size_t taken = 0;
    while (r == 0 && pg_next(&rows))
        nos[taken++] = (uint16_t)pg_column_int(&rows, 0);
    *ret_n = taken;
    return r;
}

int postgres_give_partitions(struct store *store, enum tenant_tier tier, const uint16_t *nos, size_t n) {
    struct pg_store *s = pg_of(store);
    struct pg_params *p = pg_params(&s->writer);
    pg_int(p, (int32_t)s->node.no);
    pg_int(p, (int32_t)tier);
    add_numbers(p, nos, n);
    return pg_send(&s->writer, "UPDATE partitions SET node=NULL WHERE tier=$2 AND node=$1 AND no=ANY($3)");
}

void postgres_feed_applied(struct store *store, const struct feed_position *p) {
    pg_of(store)->applied = *p;
}

/* Changes that this node does not know yet may have been committed before the job: then it is left alone.
 * Every transaction that sees the job sees them too. */
int postgres_take_job(struct store *store, uint64_t after_key, struct fanout_job *ret) {
    struct pg_store *s = pg_of(store);
    struct pg_params *p = pg_params(&s->writer);
    int r = pg_flush(s);
    if (r < 0)
        return r;
    if (s->applied.from && s->applied.timeline != s->writer.timeline)
        return -ENOENT; /* after a failover: the feed steps back first */
    pg_bigint(p, (int64_t)after_key);
    pg_bigint(p, (int64_t)s->applied.from);
    pg_int(p, (int32_t)s->node.no);
    pg_bigint(p, (int64_t)s->applied.known);
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    r = pg_query_row(&s->writer,
                     "SELECT event, tenant, cursor, upper, deliveries, state, seq FROM fanout_jobs"
                     " WHERE state<>2 AND event>$1 AND ($2::bigint=0 OR (SELECT count(*) FROM changes"
                     " WHERE xid>=($2::bigint)::text::xid8 AND node<>$3)=$4)"
                     " ORDER BY event LIMIT 1 FOR UPDATE SKIP LOCKED",
                     &rows);
    if (r <= 0)
        return r < 0 ? r : -ENOENT;
    *ret = (struct fanout_job){
        .event_key = (uint64_t)pg_column_int(&rows, 0),
        .tenant_no = (uint32_t)pg_column_int(&rows, 1),
        .cursor = (uint32_t)pg_column_int(&rows, 2),
        .upper = (uint32_t)pg_column_int(&rows, 3),
        .deliveries = (uint32_t)pg_column_int(&rows, 4),
        .state = (enum fanout_state)pg_column_int(&rows, 5),
        .seq = (uint64_t)pg_column_int(&rows, 6),
    };
    return 0;
}

bool postgres_clashed(struct store *store) {
    return strcmp(pg_of(store)->writer.sqlstate, "23505") == 0;
}

int postgres_be_alone(struct store *store) {
    return pg_query(&pg_of(store)->writer,
                    "SELECT pg_advisory_xact_lock(" PG_LOCK_CLASS ", hashtext(current_schema() || 'alone'))",
                    NULL);
}

/* A lock of the session: it lasts until the connection ends. */
int postgres_try_duty(struct store *store, enum store_duty duty, bool *ret) {
    struct pg_store *s = pg_of(store);
    int pid = PQbackendPID(s->writer.conn);
    *ret = s->duty_pid[duty] == pid;
    if (*ret)
        return 0;
    struct pg_params *p = pg_params(&s->writer);
    pg_int(p, (int32_t)duty);
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    int r = pg_query_row(
        &s->writer, "SELECT pg_try_advisory_lock(" PG_LOCK_CLASS ", hashtext(current_schema() || $1::text))",
        &rows);
    if (r <= 0)
        return r < 0 ? r : -EIO;
    *ret = pg_column_int(&rows, 0) != 0;
    if (*ret)
        s->duty_pid[duty] = pid;
    return 0;
}

#define X(name) .name = postgres_##name,
const struct store_cluster postgres_cluster = {STORE_CLUSTER_CALLS(X) STORE_FEED_CALLS(X)};
