#include "store/postgres/gather.h"

#include <errno.h>

#include "core/id.h"
#include "store/postgres/order.h"

enum {
    COLUMNS_MAX = 24,
    FLUSH_ROWS = 4096,
    FLUSH_BYTES = 4 << 20, /* of one column of a table; the server holds them twice */
};

/* `types` has a letter a column: b(ool), i(nt), l(ong), t(ext), y(tes). Ordered where another node may insert
 * the same keys: then they do not wait for one another in a circle. */
static const struct {
    const char *types, *sql;
} tables[PG_GATHERED] = {
    [PG_EVENTS] = {"illttyliibyt",
                   "INSERT INTO events (tenant, key, tail, type, schema_version, ordering_key, deliver_at,"
                   " data_size, deliveries, has_job, body, trace)"
                   " SELECT * FROM unnest($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12)"},
    [PG_DELIVERIES] = {"iliiilllbll", PG_INSERT_DELIVERIES},
    [PG_IDEMPOTENCY] = {"ityyl", "INSERT INTO idempotency (tenant, key, body_hash, events, created_at)"
                                 " SELECT * FROM unnest($1,$2,$3,$4,$5) AS i(tenant, key, body_hash, events,"
                                 " created_at) ORDER BY tenant, key"},
    [PG_ATTEMPTS] = {"iliilliiiiiiiiiiittytyyy",
                     "INSERT INTO attempts (tenant, event, subscription, number, started_at, settled_at,"
                     " to_state, reason, latency_ms, dns_ms, connect_ms, tls_ms, wait_ms, status, error,"
                     " trigger, worker, url, content_type, request_headers, signature, response_headers,"
                     " response_body, response_hash) SELECT * FROM unnest($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,"
                     "$12,$13,$14,$15,$16,$17,$18,$19,$20,$21,$22,$23,$24)"},
    [PG_TRANSITIONS] = {"ililiii",
                        "INSERT INTO transitions (tenant, event, subscription, at, from_state, to_state,"
                        " reason) SELECT DISTINCT ON (tenant, event, subscription, at, to_state)"
                        " tenant, event, subscription, at, from_state, to_state, reason"
                        " FROM unnest($1,$2,$3,$4,$5,$6,$7) WITH ORDINALITY"
                        " AS t(tenant, event, subscription, at, from_state, to_state, reason, place)"
                        " ORDER BY tenant, event, subscription, at, to_state, place DESC"
                        " ON CONFLICT (tenant, event, subscription, at, to_state) DO UPDATE SET"
                        " from_state=excluded.from_state, reason=excluded.reason"},
    [PG_DEAD] = {"iiil", "INSERT INTO dlq_counts (tenant, subscription, reason, n)"
                         " SELECT tenant, subscription, reason, sum(n) FROM unnest($1,$2,$3,$4)"
                         " AS d(tenant, subscription, reason, n) GROUP BY 1, 2, 3"},
    [PG_REPLAYS] = {"iliiii", "INSERT INTO replay_counts (tenant, replay, subscription, freed, done, failed)"
                              " SELECT tenant, replay, subscription, sum(freed), sum(done), sum(failed)"
                              " FROM unnest($1,$2,$3,$4,$5,$6)"
                              " AS r(tenant, replay, subscription, freed, done, failed) GROUP BY 1, 2, 3"},
    [PG_OWED] = {"il", "INSERT INTO keys_to_release (subscription, lane_key)"
                       " SELECT DISTINCT * FROM unnest($1,$2)"},
};

struct pg_buffers {
    struct pg_column columns[PG_GATHERED][COLUMNS_MAX];
};

static enum pg_type type_of(char letter) {
    switch (letter) {
    case 'b':
        return PG_BOOL;
    case 'i':
        return PG_INT;
    case 'l':
        return PG_BIGINT;
    case 't':
        return PG_TEXT;
    default:
        return PG_BYTEA;
    }
}

int pg_buffers_open(struct pg_store *s) {
    s->buffers = calloc(1, sizeof *s->buffers);
    if (!s->buffers)
        return -ENOMEM;
    for (int t = 0; t < PG_GATHERED; t++)
        for (size_t i = 0; tables[t].types[i]; i++)
            s->buffers->columns[t][i] = PG_COLUMN(type_of(tables[t].types[i]));
    int r = pg_order_open(s);
    return r < 0 ? r : pg_keys_open(s);
}

void pg_buffers_close(struct pg_store *s) {
    if (!s->buffers)
        return;
    for (int t = 0; t < PG_GATHERED; t++)
        for (size_t i = 0; tables[t].types[i]; i++)
            pg_column_free(&s->buffers->columns[t][i]);
    pg_order_close(s);
    pg_keys_close(s);
    free(s->buffers);
    s->buffers = NULL;
}

static void drop(struct pg_buffers *b, enum pg_gathered table) {
    for (size_t i = 0; tables[table].types[i]; i++)
        pg_column_reset(&b->columns[table][i]);
}

void pg_buffers_begin(struct pg_store *s) {
    pg_order_committed(s);
    pg_keys_forget(s);
}

void pg_buffers_drop(struct pg_store *s) {
    for (int t = 0; t < PG_GATHERED; t++)
        drop(s->buffers, t);
    pg_order_rolled_back(s);
    pg_keys_forget(s);
}

static int flush(struct pg_store *s, enum pg_gathered table) {
    struct pg_column *columns = s->buffers->columns[table];
    if (!columns[0].n)
        return 0;
    struct pg_params *p = pg_params(&s->writer);
    for (size_t i = 0; tables[table].types[i]; i++) {
        CHECK(columns[i].n == columns[0].n);
        pg_array(p, &columns[i]);
    }
    drop(s->buffers, table);
    return pg_send(&s->writer, tables[table].sql);
}

int pg_flush(struct pg_store *s) {
    int r = 0;
    for (int t = 0; r == 0 && t < PG_GATHERED; t++)
        r = flush(s, t);
    return r;
}

struct pg_column *pg_gather(struct pg_store *s, enum pg_gathered table) {
    return s->buffers->columns[table];
}

int pg_gathered(struct pg_store *s, enum pg_gathered table) {
    const struct pg_column *columns = s->buffers->columns[table];
    bool much = columns[0].n >= FLUSH_ROWS;
    for (size_t i = 0; tables[table].types[i]; i++)
        much |= columns[i].data.n >= FLUSH_BYTES;
    return much ? flush(s, table) : 0;
}

/* ---- counts and transitions ---- */

int pg_count_dead(struct pg_store *s, uint32_t tenant_no, uint32_t subscription_no,
                  enum delivery_reason reason, int64_t delta) {
    struct pg_column *c = pg_gather(s, PG_DEAD);
    pg_add_int(&c[0], (int32_t)tenant_no);
    pg_add_int(&c[1], (int32_t)subscription_no);
    pg_add_int(&c[2], reason);
    pg_add_bigint(&c[3], delta);
    return pg_gathered(s, PG_DEAD);
}

int pg_add_transition(struct pg_store *s, uint32_t tenant_no, uint64_t event_key, uint32_t subscription_no,
                      int64_t at, enum delivery_state from, enum delivery_state to,
                      enum delivery_reason reason) {
    struct pg_column *c = pg_gather(s, PG_TRANSITIONS);
    pg_add_int(&c[0], (int32_t)tenant_no);
    pg_add_bigint(&c[1], (int64_t)event_key);
    pg_add_int(&c[2], (int32_t)subscription_no);
    pg_add_bigint(&c[3], at);
    pg_add_int(&c[4], from);
    pg_add_int(&c[5], to);
    pg_add_int(&c[6], reason);
    return pg_gathered(s, PG_TRANSITIONS);
}

static int count_replayed(struct pg_store *s, const struct pg_replayed *d, bool freed, bool done,
                          bool failed) {
    struct id replay;
    if (!d->source.p || id_parse(ID_REPLAY, d->source, &replay) < 0)
        return 0;
    if (freed)
        s->replay_progress = true;
    if (!freed && !done && !failed)
        return 0;
    struct pg_column *c = pg_gather(s, PG_REPLAYS);
    pg_add_int(&c[0], (int32_t)d->tenant_no);
    pg_add_bigint(&c[1], (int64_t)replay.key);
    pg_add_int(&c[2], (int32_t)d->subscription_no);
    pg_add_int(&c[3], freed);
    pg_add_int(&c[4], done);
    pg_add_int(&c[5], failed);
    return pg_gathered(s, PG_REPLAYS);
}

int pg_count_replayed_attempt(struct pg_store *s, const struct pg_replayed *d) {
    return count_replayed(s, d, d->attempts == 1, d->to == DELIVERY_DELIVERED, d->to == DELIVERY_DLQ);
}

int pg_count_replayed_waiting(struct pg_store *s, const struct pg_replayed *d, enum delivery_reason reason) {
    return reason == REASON_REPLAY_CANCELLED ? 0 : count_replayed(s, d, d->attempts == 0, false, true);
}
