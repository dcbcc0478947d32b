/* Reading events, newest first. */
#include <errno.h>

#include "store/postgres/postgres.h"

enum {
    EVENTS_A_ROUND = 50,   /* held in memory at a time, with their bodies */
    LOOKED_AT_MAX = 20000, /* events of an ordering key that a round looks at for those of a type */
};

#define ROW_COLUMNS                                                                                          \
    "e.key, e.tail, e.tenant, e.type, e.schema_version, e.ordering_key, e.deliver_at, e.data_size, "         \
    "e.deliveries, e.has_job, e.body, e.trace"
/* A job counts the deliveries it made itself. */
#define ROW                                                                                                  \
    "SELECT " ROW_COLUMNS ", coalesce(j.state, 2::smallint), e.deliveries + coalesce(j.deliveries, 0) FROM "
#define JOB  " LEFT JOIN fanout_jobs j ON e.has_job AND j.tenant=e.tenant AND j.event=e.key "
#define SPAN " AND e.key>=$2 AND e.key<$3 "

static void read_row(const struct pg_rows *rows, struct event_row *ret) {
    *ret = (struct event_row){
        .event = {.id = {.key = (uint64_t)pg_column_int(rows, 0), .tail = (uint64_t)pg_column_int(rows, 1)},
                  .tenant_no = (uint32_t)pg_column_int(rows, 2),
                  .type = pg_column_slice(rows, 3),
                  .schema_version = pg_column_slice(rows, 4),
                  .ordering_key = pg_column_slice(rows, 5),
                  .deliver_at = pg_column_int(rows, 6),
                  .data_size = (uint32_t)pg_column_int(rows, 7),
                  .deliveries = (uint32_t)pg_column_int(rows, 8),
                  .has_job = pg_column_int(rows, 9) != 0,
                  .body = pg_column_slice(rows, 10),
                  .trace = pg_column_slice(rows, 11)},
        .fanout = (enum fanout_state)pg_column_int(rows, 12),
        .fanout_deliveries = (uint64_t)pg_column_int(rows, 13),
    };
}

static int read_one(struct pg *c, const char *sql, event_row_fn fn, void *arg) {
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    int r = pg_query_row(c, sql, &rows);
    if (r <= 0)
        return r < 0 ? r : -ENOENT;
    struct event_row row;
    read_row(&rows, &row);
    return fn(arg, &row);
}

int postgres_read_event(struct store_reader *r, uint32_t tenant_no, struct id id, event_row_fn fn,
                        void *arg) {
    struct pg *c = &pg_reader_of(r)->conn;
    struct pg_params *p = pg_params(c);
    pg_int(p, (int32_t)tenant_no);
    pg_bigint(p, (int64_t)id.key);
    pg_bigint(p, (int64_t)id.tail);
    return read_one(c, ROW "events e" JOB "WHERE e.tenant=$1 AND e.key=$2 AND e.tail=$3", fn, arg);
}

int postgres_read_body(struct store_reader *r, uint32_t tenant_no, uint64_t event_key, event_row_fn fn,
                       void *arg) {
    struct pg *c = &pg_reader_of(r)->conn;
    struct pg_params *p = pg_params(c);
    pg_int(p, (int32_t)tenant_no);
    pg_bigint(p, (int64_t)event_key);
    return read_one(
        c, "SELECT " ROW_COLUMNS ", 2::smallint, e.deliveries FROM events e WHERE e.tenant=$1 AND e.key=$2",
        fn, arg);
}

/* ---- lists ---- */

/* Events from first on and before `before`. */
struct key_span {
    int64_t first, before;
};

static struct key_span span_of(const struct event_query *q) {
    /* created_at is the key's time, so its bounds are bounds of the key. */
    uint64_t before = q->before_key ? q->before_key : ID_KEY_MAX + 1;
    if (q->until && id_key_at(q->until) < before)
        before = id_key_at(q->until);
    return (struct key_span){(int64_t)id_key_at(q->since), (int64_t)before};
}

static struct pg_params *span_params(struct pg *c, const struct event_query *q, const struct key_span *s,
                                     size_t limit) {
    struct pg_params *p = pg_params(c);
    pg_int(p, (int32_t)q->tenant_no);
    pg_bigint(p, s->first);
    pg_bigint(p, s->before);
    pg_bigint(p, (int64_t)limit);
    return p;
}

#define NEWEST_FIRST " ORDER BY e.key DESC LIMIT $4"
/* Those of an ordering key that are looked at for a type. */
#define LOOKED_AT                                                                                            \
    "SELECT e.key, e.type FROM events e WHERE e.tenant=$1 AND e.ordering_key=$5" SPAN                        \
    "ORDER BY e.key DESC LIMIT $6"

static int query_round(struct pg *c, const struct event_query *q, const struct key_span *s, size_t limit,
                       struct pg_rows *ret) {
    static const char of_tenant[] = ROW "events e" JOB "WHERE e.tenant=$1" SPAN NEWEST_FIRST;
    static const char of_type[] = ROW "events e" JOB "WHERE e.tenant=$1 AND e.type=$5" SPAN NEWEST_FIRST;
    static const char of_ordering_key[] =
        ROW "events e" JOB "WHERE e.tenant=$1 AND e.ordering_key=$5" SPAN NEWEST_FIRST;
    static const char of_both[] =
        "WITH looked_at AS MATERIALIZED (" LOOKED_AT ") " ROW
        "looked_at l CROSS JOIN LATERAL (SELECT * FROM events WHERE tenant=$1 AND key=l.key LIMIT 1) e" JOB
        "WHERE l.type=$7 ORDER BY l.key DESC LIMIT $4";
    struct pg_params *p = span_params(c, q, s, limit);
    if (!q->ordering_key.p && !q->type.p)
        return pg_query(c, of_tenant, ret);
    if (q->ordering_key.p)
        pg_bytea(p, q->ordering_key);
    else
        pg_text(p, q->type);
    if (!q->ordering_key.p || !q->type.p)
        return pg_query(c, q->type.p ? of_type : of_ordering_key, ret);
    pg_bigint(p, LOOKED_AT_MAX);
    pg_text(p, q->type);
    return pg_query(c, of_both, ret);
}

/* Where the look for a type ended when it did not come to the end of the ordering key's events; else 0. */
static int find_stop(struct pg *c, const struct event_query *q, const struct key_span *s, uint64_t *ret) {
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    struct pg_params *p = span_params(c, q, s, 0);
    pg_bytea(p, q->ordering_key);
    pg_bigint(p, LOOKED_AT_MAX);
    int r = pg_query_row(c, "SELECT count(*), min(l.key) FROM (" LOOKED_AT ") l", &rows);
    if (r <= 0)
        return r < 0 ? r : -EIO;
    *ret = pg_column_int(&rows, 0) == LOOKED_AT_MAX ? (uint64_t)pg_column_int(&rows, 1) : 0;
    return 0;
}

int postgres_list_events(struct store_reader *r, const struct event_query *q, event_row_fn fn, void *arg,
                         uint64_t *ret_stop) {
    struct pg *c = &pg_reader_of(r)->conn;
    struct key_span s = span_of(q);
    size_t left = q->limit, wanted = 0, n = 0;
    *ret_stop = 0;
    for (; left > 0 && n == wanted; left -= n) {
        _cleanup_pg_rows_ struct pg_rows rows = {0};
        wanted = left < EVENTS_A_ROUND ? left : EVENTS_A_ROUND;
        int e = query_round(c, q, &s, wanted, &rows);
        if (e < 0)
            return e;
        for (n = 0; pg_next(&rows); n++) {
            struct event_row row;
            read_row(&rows, &row);
            s.before = (int64_t)row.event.id.key;
            e = fn(arg, &row);
            if (e != 0)
                return e;
        }
    }
    return left > 0 && q->ordering_key.p && q->type.p ? find_stop(c, q, &s, ret_stop) : 0;
}
