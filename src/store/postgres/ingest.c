/* Events, deliveries and fan-out jobs. */
#include <errno.h>

#include "core/partition.h"
#include "store/postgres/gather.h"

int postgres_insert_events(struct store *s, const struct event_record *events, size_t n) {
    for (size_t i = 0; i < n; i++) {
        const struct event_record *e = &events[i];
        struct pg_column *c = pg_gather(pg_of(s), PG_EVENTS);
        pg_add_int(&c[0], (int32_t)e->tenant_no);
        pg_add_bigint(&c[1], (int64_t)e->id.key);
        pg_add_bigint(&c[2], (int64_t)e->id.tail);
        pg_add_text(&c[3], e->type);
        pg_add_text(&c[4], e->schema_version);
        pg_add_bytea(&c[5], e->ordering_key);
        pg_add_time(&c[6], e->deliver_at);
        pg_add_int(&c[7], (int32_t)e->data_size);
        pg_add_int(&c[8], (int32_t)e->deliveries);
        pg_add_bool(&c[9], e->has_job);
        pg_add_bytea(&c[10], e->body);
        pg_add_text(&c[11], e->trace);
        int r = pg_gathered(pg_of(s), PG_EVENTS);
        if (r < 0)
            return r;
    }
    return 0;
}

int postgres_get_event(struct store *s, uint32_t tenant_no, uint64_t event_key, struct event_record *ret) {
    int r = pg_flush(pg_of(s));
    if (r < 0)
        return r;
    struct pg_params *p = pg_params(&pg_of(s)->writer);
    pg_int(p, (int32_t)tenant_no);
    pg_bigint(p, (int64_t)event_key);
    struct pg_rows *rows = pg_lend(pg_of(s));
    r = pg_query_row(&pg_of(s)->writer,
                     "SELECT key, tail, tenant, type, schema_version, ordering_key, deliver_at, data_size,"
                     " deliveries, has_job, body, trace FROM events WHERE tenant=$1 AND key=$2",
                     rows);
    if (r <= 0)
        return r < 0 ? r : -ENOENT;
    *ret = (struct event_record){
        .id = {.key = (uint64_t)pg_column_int(rows, 0), .tail = (uint64_t)pg_column_int(rows, 1)},
        .tenant_no = (uint32_t)pg_column_int(rows, 2),
        .type = pg_column_slice(rows, 3),
        .schema_version = pg_column_slice(rows, 4),
        .ordering_key = pg_column_slice(rows, 5),
        .deliver_at = pg_column_int(rows, 6),
        .data_size = (uint32_t)pg_column_int(rows, 7),
        .deliveries = (uint32_t)pg_column_int(rows, 8),
        .has_job = pg_column_int(rows, 9) != 0,
        .body = pg_column_slice(rows, 10),
        .trace = pg_column_slice(rows, 11),
    };
    return 0;
}

/* ---- deliveries ---- */

static void add_delivery(const struct pg_store *s, struct pg_column *c, const struct new_delivery *d) {
    CHECK(!d->begun_at || (!d->lane_key && DELIVERY_PENDING == 0 && DELIVERY_ATTEMPTING == 1));
    pg_add_int(&c[0], (int32_t)d->tenant_no);
    pg_add_bigint(&c[1], (int64_t)d->event_key);
    pg_add_int(&c[2], (int32_t)d->subscription_no);
    pg_add_int(&c[3], (int32_t)partition_of(d->subscription_no));
    if (d->begun_at)
        pg_add_int(&c[4], (int32_t)s->node.no);
    else
        pg_add_null(&c[4]);
    pg_add_time(&c[5], d->begun_at ? 0 : d->due_at ? d->due_at : d->order_at);
    pg_add_time(&c[6], (int64_t)d->lane_key);
    pg_add_bigint(&c[7], d->order_at);
    pg_add_bool(&c[8], d->test);
    pg_add_time(&c[9], d->begun_at);
    pg_add_time(&c[10], d->lease_until);
}

static int gather_deliveries(struct pg_store *s, const struct new_delivery *d, size_t n) {
    int r = 0;
    for (size_t i = 0; r == 0 && i < n; i++) {
        add_delivery(s, pg_gather(s, PG_DELIVERIES), &d[i]);
        r = pg_gathered(s, PG_DELIVERIES);
    }
    return r;
}

enum { DELIVERY_COLUMNS = 11 };

static int insert_new(struct pg *c, const struct pg_column columns[DELIVERY_COLUMNS], size_t *made) {
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    struct pg_params *p = pg_params(c);
    for (int i = 0; i < DELIVERY_COLUMNS; i++)
        pg_array(p, &columns[i]);
    int r = pg_query(c, PG_INSERT_DELIVERIES " ORDER BY tenant, event, subscription ON CONFLICT DO NOTHING",
                     &rows);
    if (r == 0)
        *made = pg_changed(&rows);
    return r;
}

/* What was there before and is closed by now. It is looked for when the new row stands already: another
 * node may have moved the old one away while the insert waited for it, and only a later look sees where to.
 */
static int delete_closed(struct pg *c, const struct pg_column columns[DELIVERY_COLUMNS], size_t *made) {
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    struct pg_params *p = pg_params(c);
    for (int i = 0; i < 3; i++)
        pg_array(p, &columns[i]);
    int r =
        pg_query(c,
                 "WITH k AS MATERIALIZED (SELECT k.* FROM unnest($1,$2,$3) AS k(tenant, event, subscription)"
                 " CROSS JOIN LATERAL (SELECT FROM deliveries_closed c WHERE c.tenant=k.tenant"
                 " AND c.event=k.event AND c.subscription=k.subscription LIMIT 1) c)"
                 " DELETE FROM deliveries_open d USING k WHERE d.tenant=k.tenant AND d.event=k.event"
                 " AND d.subscription=k.subscription",
                 &rows);
    if (r == 0)
        *made -= pg_changed(&rows);
    return r;
}

/* In an ordered lane too they are due at once: another node's earlier ones may not be seen yet. The lane's
 * owner puts what is behind another aside when it comes to it. */
int postgres_insert_deliveries(struct store *s, const struct new_delivery *d, size_t n, size_t *ret_made) {
    bool fresh = true;
    for (size_t i = 0; i < n; i++)
        fresh &= d[i].fresh;
    *ret_made = n;
    if (fresh)
        return gather_deliveries(pg_of(s), d, n);
    int r = pg_flush(pg_of(s));
    struct pg_column columns[DELIVERY_COLUMNS] = {
        PG_COLUMN(PG_INT),  PG_COLUMN(PG_BIGINT), PG_COLUMN(PG_INT),    PG_COLUMN(PG_INT),
        PG_COLUMN(PG_INT),  PG_COLUMN(PG_BIGINT), PG_COLUMN(PG_BIGINT), PG_COLUMN(PG_BIGINT),
        PG_COLUMN(PG_BOOL), PG_COLUMN(PG_BIGINT), PG_COLUMN(PG_BIGINT)};
    for (size_t i = 0; i < n; i++)
        add_delivery(pg_of(s), columns, &d[i]);
    if (r == 0)
        r = insert_new(&pg_of(s)->writer, columns, ret_made);
    if (r == 0)
        r = delete_closed(&pg_of(s)->writer, columns, ret_made);
    for (int i = 0; i < DELIVERY_COLUMNS; i++)
        pg_column_free(&columns[i]);
    return r;
}

/* Indexes list by subscription here. */
int postgres_extend_log(struct store *s, uint64_t upto_key, unsigned work, bool *ret_more) {
    (void)s, (void)upto_key, (void)work;
    *ret_more = false;
    return 0;
}

/* ---- fan-out jobs ---- */

/* Numbered while nobody asks for the last number: see postgres_last_job. */
int postgres_insert_job(struct store *s, const struct fanout_job *j) {
    int r = pg_send(&pg_of(s)->writer, "SELECT pg_advisory_xact_lock_shared(" PG_LOCK_CLASS ", 4)");
    if (r < 0)
        return r;
    struct pg_params *p = pg_params(&pg_of(s)->writer);
    pg_int(p, (int32_t)j->tenant_no);
    pg_bigint(p, (int64_t)j->event_key);
    pg_bigint(p, j->cursor);
    pg_bigint(p, j->upper);
    pg_bigint(p, j->deliveries);
    pg_int(p, j->state);
    pg_bigint(p, (int64_t)j->seq);
    return pg_send(&pg_of(s)->writer,
                   "INSERT INTO fanout_jobs (tenant, event, cursor, upper, deliveries, state, seq)"
                   " VALUES ($1,$2,$3,$4,$5,$6,coalesce(nullif($7::bigint, 0), nextval('fanout_seq')))");
}

/* Another node may have gone on with it since it was read: nothing of it goes back. */
int postgres_update_job(struct store *s, const struct fanout_job *j) {
    struct pg_params *p = pg_params(&pg_of(s)->writer);
    pg_bigint(p, j->cursor);
    pg_bigint(p, j->deliveries);
    pg_int(p, j->state);
    pg_int(p, (int32_t)j->tenant_no);
    pg_bigint(p, (int64_t)j->event_key);
    return pg_send(&pg_of(s)->writer,
                   "UPDATE fanout_jobs SET cursor=greatest(cursor, $1), deliveries=greatest(deliveries, $2),"
                   " state=greatest(state, $3) WHERE tenant=$4 AND event=$5");
}

/* A job with a number below may still be under way at another node: its transaction is waited for, and then
 * the caller's next look sees it. */
int postgres_last_job(struct store *s, uint64_t *ret) {
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    int r = pg_send(&pg_of(s)->writer, "SELECT pg_advisory_xact_lock(" PG_LOCK_CLASS ", 4)");
    if (r == 0)
        r = pg_query_row(&pg_of(s)->writer, "SELECT nextval('fanout_seq')", &rows);
    if (r <= 0)
        return r < 0 ? r : -EIO;
    *ret = (uint64_t)pg_column_int(&rows, 0);
    return 0;
}

int postgres_list_jobs(struct store *s, uint64_t after_key, struct fanout_job *ret, size_t max,
                       size_t *ret_n) {
    struct pg_params *p = pg_params(&pg_of(s)->writer);
    pg_bigint(p, (int64_t)after_key);
    pg_bigint(p, (int64_t)max);
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    int r = pg_query(&pg_of(s)->writer,
                     "SELECT event, tenant, cursor, upper, deliveries, state, seq FROM fanout_jobs"
                     " WHERE state<>2 AND event>$1 ORDER BY event LIMIT $2",
                     &rows);
    if (r < 0)
        return r;
    size_t n = 0;
    while (pg_next(&rows))
        ret[n++] = (struct fanout_job){
            .event_key = (uint64_t)pg_column_int(&rows, 0),
            .tenant_no = (uint32_t)pg_column_int(&rows, 1),
            .cursor = (uint32_t)pg_column_int(&rows, 2),
            .upper = (uint32_t)pg_column_int(&rows, 3),
            .deliveries = (uint32_t)pg_column_int(&rows, 4),
            .state = (enum fanout_state)pg_column_int(&rows, 5),
            .seq = (uint64_t)pg_column_int(&rows, 6),
        };
    *ret_n = n;
    return 0;
}
