/* Opening and closing, transactions, readers. */
#include <errno.h>
#include <openssl/crypto.h>

#include "base/log.h"
#include "store/postgres/postgres.h"

/* ---- what is at the other end ---- */

/* A pooler that hands one session to several connections would lose prepared statements, settings and locks.
 * It gives itself away: two connections that are open at once are one and the same session. */
static int check_pooler(struct pg *c, const char **ret_message) {
    if (c->session == PQbackendPID(c->conn))
        return 0;
    struct pg second;
    pg_init(&second, c->source, &pg_usual_limits);
    int r = pg_connect(&second, ret_message);
    bool shared = second.session == c->session;
    pg_close(&second);
    if (r < 0 || !shared)
        return r;
    return store_explain(-EINVAL, ret_message,
                         "a connection pooler in transaction mode stands before %s: let it pool by session "
                         "(pool_mode = session), or name the server itself",
                         c->source->name);
}

static int check_server(struct pg *c, const char **ret_message) {
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    int r = check_pooler(c, ret_message);
    if (r < 0)
        return r;
    r = pg_query_row(c,
                     "SELECT current_setting('server_encoding'), current_setting('fsync'),"
                     " current_setting('full_page_writes'), pg_is_in_recovery()",
                     &rows);
    if (r <= 0)
        return store_explain(r < 0 ? r : -EIO, ret_message, "PostgreSQL at %s does not answer",
                             c->source->name);
    if (pg_column_int(&rows, 3))
        return store_explain(-EINVAL, ret_message,
                             "PostgreSQL at %s is a standby: let the URL name the primary", c->source->name);
    if (!slice_eq(pg_column_slice(&rows, 0), SLICE_LIT("UTF8")))
        return store_explain(-EINVAL, ret_message,
                             "the database at %s is not in UTF-8: make one with ENCODING 'UTF8'",
                             c->source->name);
    if (slice_eq(pg_column_slice(&rows, 1), SLICE_LIT("off")) ||
        slice_eq(pg_column_slice(&rows, 2), SLICE_LIT("off")))
        log_warn(
            "fsync or full_page_writes is off in PostgreSQL: a power failure may take acknowledged events, "
            "or all of the database");
    return 0;
}

int pg_open_url(const char *url, struct pg *c, struct pg_source **ret_source, const char **ret_message) {
    _cleanup_pg_source_ struct pg_source *source = NULL;
    int r = pg_source_parse(url, &source, ret_message);
    if (r < 0)
        return r;
    pg_init(c, source, &pg_usual_limits);
    r = pg_connect(c, ret_message);
    if (r == 0)
        r = check_server(c, ret_message);
    if (r < 0) {
        pg_close(c);
        return r;
    }
    /* Once confined, the process does not read ~/.pgpass again. */
    r = pg_source_keep_password(source, PQpass(c->conn));
    if (r < 0) {
        pg_close(c);
        return store_explain(r, ret_message, "memory is out");
    }
    *ret_source = TAKE_PTR(source);
    return 0;
}

/* ---- open and close ---- */

int postgres_open(const char *url, struct store **ret, const char **ret_message) {
    struct pg_store *s = calloc(1, sizeof *s);
    if (!s)
        return store_explain(-ENOMEM, ret_message, "memory is out");
    s->base.backend = &postgres_backend;
    s->lease_ms = PG_LEASE_MS;
    int r = pg_open_url(url, &s->writer, &s->source, ret_message);
    size_t from, to;
    if (r == 0)
        r = pg_migrate(&s->writer, &from, &to, ret_message);
    if (r == 0 && (r = pg_buffers_open(s)) < 0)
        r = store_explain(r, ret_message, "memory is out");
    if (r < 0) {
        postgres_close(&s->base);
        return r;
    }
    *ret = &s->base;
    return 0;
}

void postgres_close(struct store *store) {
    struct pg_store *s = pg_of(store);
    if (s->writer.in_transaction)
        postgres_rollback(store);
    pg_node_leave(s);
    pg_rows_free(&s->lent);
    buf_wipe(&s->doc);
    pg_rows_free(&s->replaying.row);
    pg_buffers_close(s);
    pg_close(&s->writer);
    pg_source_free(s->source);
    OPENSSL_cleanse(&s->sealing, sizeof s->sealing);
    free(s);
}

/* ---- transactions ---- */

int postgres_begin(struct store *store) {
    struct pg_store *s = pg_of(store);
    int r = pg_ensure(&s->writer);
    if (r < 0)
        return r;
    s->changed = false;
    pg_buffers_begin(s);
    pg_begin(&s->writer);
    return 0;
}

int postgres_commit(struct store *store) {
    struct pg_store *s = pg_of(store);
    pg_rows_free(&s->lent);
    int r = pg_flush(s);
    if (r == 0 && s->changed)
        r = pg_send(&s->writer, "NOTIFY posthorn_changes");
    return r < 0 ? r : pg_node_commit(s);
}

void postgres_rollback(struct store *store) {
    struct pg_store *s = pg_of(store);
    pg_rows_free(&s->lent);
    pg_buffers_drop(s);
    pg_rollback(&s->writer);
    if (s->node.fresh)
        s->node = (struct pg_node){0};
}

void postgres_tidy(struct store *store, enum store_load load) {
    (void)load;
    pg_rows_free(&pg_of(store)->lent);
}

int postgres_savepoint(struct store *store) {
    struct pg_store *s = pg_of(store);
    int r = pg_flush(s);
    if (r < 0)
        return r;
    pg_savepoint(&s->writer);
    return 0;
}

int postgres_savepoint_release(struct store *store) {
    return pg_savepoint_release(&pg_of(store)->writer);
}

int postgres_savepoint_rollback(struct store *store) {
    struct pg_store *s = pg_of(store);
    pg_buffers_drop(s);
    return pg_savepoint_rollback(&s->writer);
}

/* ---- at start ---- */

/* The greatest of the events from this key on, 0: there is none. They lie in their tenants' order, the
 * operator's (0) among them; days before are not looked into. */
static int last_event(struct pg *c, int64_t from_key, int64_t *ret) {
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    pg_bigint(pg_params(c), from_key);
    int r = pg_query_row(c,
                         "SELECT coalesce(max(e.key), 0) FROM (SELECT no FROM tenants UNION ALL SELECT 0) t,"
                         " LATERAL (SELECT key FROM events WHERE tenant=t.no AND key>=$1 ORDER BY key DESC"
                         " LIMIT 1) e",
                         &rows);
    if (r <= 0)
        return r < 0 ? r : -EIO;
    *ret = pg_column_int(&rows, 0);
    return 0;
}

int postgres_last_key(struct store *store, uint64_t *ret) {
    struct pg_store *s = pg_of(store);
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    int64_t event = 0;
    int r = pg_flush(s);
    if (r == 0)
        r = pg_query_row(&s->writer,
                         "SELECT greatest(0, (SELECT max(key) FROM subscriptions), (SELECT max(key) FROM"
                         " secrets), (SELECT max(key) FROM api_keys), (SELECT max(key) FROM replays)),"
                         " (" PG_NOW "-86400000)<<12",
                         &rows);
    if (r <= 0)
        return r < 0 ? r : -EIO;
    /* Seldom is there none of the past day. */
    r = last_event(&s->writer, pg_column_int(&rows, 1), &event);
    if (r == 0 && event == 0)
        r = last_event(&s->writer, 0, &event);
    int64_t other = pg_column_int(&rows, 0);
    if (r == 0)
        *ret = (uint64_t)(event > other ? event : other);
    return r;
}

int postgres_register_worker(struct store *store, const char *name, const char *user_agent, int64_t now,
                             uint32_t *ret_no) {
    struct pg_store *s = pg_of(store);
    struct pg_params *p = pg_params(&s->writer);
    pg_text(p, slice_of(name));
    pg_text(p, slice_of(user_agent));
    pg_bigint(p, now);
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    int r = pg_query_row(&s->writer,
                         "INSERT INTO workers (name, user_agent, started_at, seen_at)"
                         " VALUES ($1, $2, $3, $3) RETURNING no",
                         &rows);
    if (r <= 0)
        return r < 0 ? r : -EIO;
    *ret_no = (uint32_t)pg_column_int(&rows, 0);
    return pg_node_register(s, name, now);
}

/* ---- readers ---- */

int postgres_reader_open(struct store *store, struct store_reader **ret) {
    struct pg_reader *r = calloc(1, sizeof *r);
    if (!r)
        return -ENOMEM;
    r->base.backend = &postgres_backend;
    r->sealing = &pg_of(store)->sealing;
    struct pg_limits limits = pg_usual_limits;
    limits.read_only = true;
    pg_init(&r->conn, pg_of(store)->source, &limits);
    int e = pg_ensure(&r->conn);
    if (e < 0) {
        postgres_reader_close(&r->base);
        return e;
    }
    *ret = &r->base;
    return 0;
}

void postgres_reader_close(struct store_reader *r) {
    pg_close(&pg_reader_of(r)->conn);
    free(r);
}

int postgres_reader_ping(struct store_reader *r) {
    return pg_query(&pg_reader_of(r)->conn, "SELECT 1 FROM tenants LIMIT 1", NULL);
}
