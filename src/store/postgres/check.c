/* Whether a store is sound: its rows, its sealed secrets. Its pages are PostgreSQL's own business
 * (pg_amcheck). */
#include <errno.h>
#include <stdio.h>

#include "store/postgres/invariants.h"
#include "store/postgres/secrets.h"
#include "store/schema/schema.h"

enum { CHECK_MS = 6 * 3600 * 1000, ATTEMPTS_A_LOOK = 2000 };

struct checking {
    struct pg *c;
    const struct store_check *how;
};

static void look_at(const struct checking *k, const char *what) {
    if (k->how->looking)
        k->how->looking(k->how->arg, what);
}

static void report(struct checking *k, const char *what, uint64_t n, const char *example) {
    struct store_finding f = {what, n, example};
    k->how->found(k->how->arg, &f);
}

/* ---- rows ---- */

/* "event/subscription" becomes the delivery's id; any other text stays. */
static void name_example(struct slice found, char *out, size_t size) {
    unsigned long long event;
    unsigned subscription;
    char rest;
    snprintf(out, size, "%.*s", SLICE_ARG(found));
    if (sscanf(out, "%llu/%u%c", &event, &subscription, &rest) == 2 && event <= ID_KEY_MAX && subscription)
        id_format(ID_DELIVERY, id_of_delivery(event, subscription), out);
}

static int check_invariant(struct checking *k, const struct pg_invariant *i) {
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    char example[128];
    look_at(k, i->what);
    pg_bigint(pg_params(k->c), k->how->now);
    int r = pg_query_row(k->c, i->sql, &rows);
    if (r > 0 && pg_column_int(&rows, 0) > 0) {
        name_example(pg_column_slice(&rows, 1), example, sizeof example);
        report(k, i->what, (uint64_t)pg_column_int(&rows, 0), example);
    }
    return r < 0 ? r : 0;
}

/* ---- sealed secrets ---- */

static int open_secret(const struct sealing *by, const struct pg_rows *rows) {
    struct secret_record record;
    int r = pg_read_secret(by, rows, &record);
    explicit_bzero(&record, sizeof record);
    return r;
}

static int open_tls(const struct sealing *by, const struct pg_rows *rows) {
    struct buf text = {0};
    int r = pg_read_tls(by, rows, &text);
    buf_wipe(&text);
    return r;
}

static int open_server_key(const struct sealing *by, const struct pg_rows *rows) {
    uint8_t bytes[SERVER_KEY_SIZE];
    int r = pg_read_server_key(by, rows, bytes);
    explicit_bzero(bytes, sizeof bytes);
    return r;
}

static int open_headers(const struct sealing *by, const struct pg_rows *rows) {
    struct buf text = {0};
    struct id id = {.key = (uint64_t)pg_column_int(rows, 1), .tail = (uint64_t)pg_column_int(rows, 2)};
    int r = headers_open(by, pg_column_int(rows, 3), (uint32_t)pg_column_int(rows, 0), id,
                         pg_column_slice(rows, 4), &text);
    buf_wipe(&text);
    return r;
}

static const struct {
    const char *what, *sql;
    int (*open)(const struct sealing *by, const struct pg_rows *rows);
} sealed_rows[] = {
    {"secrets that their key does not open", "SELECT " PG_SECRET_COLUMNS " FROM secrets WHERE seal_key=$1",
     open_secret},
    {"client certificates that their key does not open",
     "SELECT " PG_TLS_COLUMNS " FROM subscription_tls WHERE seal_key=$1", open_tls},
    {"keys of the server's own that their key does not open",
     "SELECT " PG_SERVER_KEY_COLUMNS " FROM server_keys WHERE seal_key=$1", open_server_key},
    {"headers of subscriptions that their key does not open",
     "SELECT tenant, key, tail, headers_key, headers FROM subscriptions WHERE headers_key=$1", open_headers},
};

/* The server's key for the headers of attempts, when this key has sealed it: 1; else 0. */
static int find_attempts_key(struct pg *c, struct sealing *by) {
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    struct pg_params *p = pg_params(c);
    pg_text(p, SLICE_LIT(ATTEMPTS_KEY_NAME));
    pg_bigint(p, by->no);
    int r = pg_query_row(c, "SELECT " PG_SERVER_KEY_COLUMNS " FROM server_keys WHERE name=$1 AND seal_key=$2",
                         &rows);
    return r > 0 ? pg_read_server_key(by, &rows, by->attempts_key) == 0 : r;
}

/* Some of the attempts after *at. *ret_n below ATTEMPTS_A_LOOK: there are no more. */
static int open_attempts(struct checking *k, const struct sealing *by, struct pg_attempt_key *at,
                         uint64_t *closed, size_t *ret_n) {
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    _cleanup_(buf_wipe) struct buf text = {0};
    struct pg_params *p = pg_params(k->c);
    pg_int(p, at->tenant);
    pg_bigint(p, at->event);
    pg_int(p, at->subscription);
    pg_int(p, at->number);
    pg_int(p, ATTEMPTS_A_LOOK);
    int r = pg_query(k->c,
                     "SELECT tenant, event, subscription, number, request_headers FROM attempts WHERE"
                     " (tenant, event, subscription, number)>($1, $2, $3, $4) AND request_headers IS NOT NULL"
                     " ORDER BY tenant, event, subscription, number LIMIT $5",
                     &rows);
    for (*ret_n = 0; r == 0 && pg_next(&rows); ++*ret_n) {
        *at = (struct pg_attempt_key){(int32_t)pg_column_int(&rows, 0), pg_column_int(&rows, 1),
                                      (int32_t)pg_column_int(&rows, 2), (int32_t)pg_column_int(&rows, 3)};
        buf_reset(&text);
        *closed += attempt_headers_open(by, (uint64_t)at->event, (uint32_t)at->subscription,
                                        (uint32_t)at->number, pg_column_slice(&rows, 4), &text) < 0;
    }
    return r;
}

static int check_attempts(struct checking *k, struct sealing *by) {
    struct pg_attempt_key at = {-1, -1, -1, -1};
    uint64_t closed = 0;
    size_t n = ATTEMPTS_A_LOOK;
    int found = find_attempts_key(k->c, by), r = found < 0 ? found : 0;
    while (found > 0 && r == 0 && n == ATTEMPTS_A_LOOK)
        r = open_attempts(k, by, &at, &closed, &n);
    if (closed)
        report(k, "headers of attempts that their key does not open", closed, "see the log");
    return r;
}

static int check_sealed_by(struct checking *k, struct sealing *by) {
    int r = 0;
    for (size_t i = 0; r == 0 && i < sizeof sealed_rows / sizeof sealed_rows[0]; i++) {
        _cleanup_pg_rows_ struct pg_rows rows = {0};
        uint64_t closed = 0;
        pg_bigint(pg_params(k->c), by->no);
        r = pg_query(k->c, sealed_rows[i].sql, &rows);
        while (r == 0 && pg_next(&rows))
            closed += sealed_rows[i].open(by, &rows) < 0;
        if (closed)
            report(k, sealed_rows[i].what, closed, "see the log");
    }
    return r == 0 ? check_attempts(k, by) : r;
}

static int check_sealed(struct checking *k) {
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    look_at(k, "sealed secrets");
    int r = pg_query(k->c, "SELECT no, fingerprint FROM seal_keys ORDER BY no", &rows);
    while (r == 0 && pg_next(&rows)) {
        struct slice fingerprint = pg_column_slice(&rows, 1);
        char text[2 * SEAL_FINGERPRINT_SIZE + 1] = "";
        int at = seal_keyring_find(k->how->keys, fingerprint);
        if (at < 0) {
            if (fingerprint.n == SEAL_FINGERPRINT_SIZE)
                hex_encode((const uint8_t *)fingerprint.p, fingerprint.n, text);
            report(k, "the secret key at hand is not the one that sealed the secrets", 1, text);
            continue;
        }
        struct sealing by = {.no = pg_column_int(&rows, 0), .key = k->how->keys->keys[at]};
        r = check_sealed_by(k, &by);
        explicit_bzero(&by, sizeof by);
    }
    return r;
}

/* ---- all of it ---- */

static int read_keys(struct pg *c, struct store_summary *ret) {
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    pg_int(pg_params(c), STORE_KEYS_TOLD_MAX);
    int r = pg_query(c, "SELECT fingerprint FROM seal_keys ORDER BY no LIMIT $1", &rows);
    for (ret->keys_n = 0; r == 0 && pg_next(&rows);) {
        struct slice fingerprint = pg_column_slice(&rows, 0);
        if (fingerprint.n == SEAL_FINGERPRINT_SIZE)
            memcpy(ret->keys[ret->keys_n++], fingerprint.p, SEAL_FINGERPRINT_SIZE);
    }
    return r;
}

static int summarize(struct pg *c, struct store_summary *ret) {
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    int r = pg_query_row(
        c,
        "SELECT (SELECT count(*) FROM tenants WHERE deleted_at IS NULL), (SELECT count(*) FROM subscriptions"
        " WHERE status<>3), (SELECT count(*) FROM events), (SELECT count(*) FROM deliveries_open)+(SELECT"
        " count(*) FROM deliveries_closed), pg_database_size(current_database())",
        &rows);
    if (r <= 0)
        return r < 0 ? r : -EIO;
    ret->tenants = (uint64_t)pg_column_int(&rows, 0);
    ret->subscriptions = (uint64_t)pg_column_int(&rows, 1);
    ret->events = (uint64_t)pg_column_int(&rows, 2);
    ret->deliveries = (uint64_t)pg_column_int(&rows, 3);
    ret->bytes = (uint64_t)pg_column_int(&rows, 4);
    return read_keys(c, ret);
}

static int look_at_all(struct checking *k, struct store_summary *ret) {
    int r = summarize(k->c, ret);
    for (size_t i = 0; r == 0 && i < pg_invariants_n; i++)
        r = check_invariant(k, &pg_invariants[i]);
    return r == 0 && k->how->keys ? check_sealed(k) : r;
}

/* One moment's state, and plans for reading everything. */
static int begin(struct pg *c) {
    static const char *const settings[] = {
        "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY",
        "SET LOCAL statement_timeout=0",
        "SET LOCAL plan_cache_mode=force_custom_plan",
        "SET LOCAL enable_seqscan=on",
        "SET LOCAL enable_bitmapscan=on",
        "SET LOCAL enable_hashjoin=on",
        "SET LOCAL enable_mergejoin=on",
        "SET LOCAL enable_material=on",
        "SET LOCAL join_collapse_limit=8",
        "SET LOCAL enable_partitionwise_join=on",
        "SET LOCAL enable_partitionwise_aggregate=on",
        "SET LOCAL work_mem='64MB'",
    };
    int r = 0;
    pg_begin(c);
    for (size_t i = 0; r == 0 && i < sizeof settings / sizeof settings[0]; i++) {
        pg_params_reset(pg_params(c));
        r = pg_send(c, settings[i]);
    }
    return r;
}

int postgres_check(const char *url, const struct store_check *check, struct store_summary *ret,
                   const char **ret_message) {
    _cleanup_pg_source_ struct pg_source *source = NULL;
    struct pg c;
    struct checking k = {.c = &c, .how = check};
    *ret = (struct store_summary){.schema_known = postgres_migrations_n};
    int r = pg_open_url(url, &c, &source, ret_message);
    if (r < 0)
        return r;
    c.limits.statement_ms = CHECK_MS;
    r = pg_schema_version(&c, &ret->schema);
    if (r < 0)
        r = store_explain(r, ret_message, "PostgreSQL at %s does not answer", source->name);
    if (r == 0 && ret->schema == 0)
        r = store_explain(-ENOENT, ret_message, "there is no store in the database at %s", source->name);
    else if (r == 0 && ret->schema == postgres_migrations_n) {
        r = begin(&c);
        if (r == 0)
            r = look_at_all(&k, ret);
        pg_rollback(&c);
        if (r < 0)
            r = store_explain(r, ret_message, "the store at %s could not be looked at: see the log",
                              source->name);
    }
    pg_close(&c);
    return r;
}
