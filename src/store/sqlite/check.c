/* Whether a store is sound: its pages, its schema, its rows, its sealed secrets. */
#include <errno.h>
#include <sys/stat.h>

#include "store/schema/schema.h"
#include "store/sqlite/secrets.h"

enum { DAMAGES_TOLD_MAX = 20 };

struct checking {
    struct connection *c;
    const struct store_check *how;
    uint64_t found;
};

static void look_at(const struct checking *k, const char *what) {
    if (k->how->looking)
        k->how->looking(k->how->arg, what);
}

static void report(struct checking *k, const char *what, uint64_t n, const char *example) {
    struct store_finding f = {what, n, example ? example : ""};
    k->found += n;
    k->how->found(k->how->arg, &f);
}

/* ---- what SQL needs ---- */

static void delivery_id_sql(sqlite3_context *context, int n, sqlite3_value **values) {
    CHECK(n == 2);
    char text[ID_TEXT_SIZE];
    uint64_t event = (uint64_t)sqlite3_value_int64(values[0]);
    int64_t subscription = sqlite3_value_int64(values[1]);
    if (event > ID_KEY_MAX || subscription < 1 || subscription > UINT32_MAX) {
        sqlite3_result_text(context, "a delivery with an impossible key", -1, SQLITE_STATIC);
        return;
    }
    id_format(ID_DELIVERY, id_of_delivery(event, (uint32_t)subscription), text);
    sqlite3_result_text(context, text, -1, SQLITE_TRANSIENT);
}

/* The 8 bytes of a blob, big-endian, from an offset on; NULL beyond its end. */
static void u64_at_sql(sqlite3_context *context, int n, sqlite3_value **values) {
    CHECK(n == 2);
    const unsigned char *p = sqlite3_value_blob(values[0]);
    int64_t size = sqlite3_value_bytes(values[0]), at = sqlite3_value_int64(values[1]);
    if (!p || at < 0 || at + 8 > size)
        return;
    uint64_t v = 0;
    for (int i = 0; i < 8; i++)
        v = v << 8 | p[at + i];
    sqlite3_result_int64(context, (int64_t)v);
}

static int add_check_functions(sqlite3 *db) {
    int rc = sqlite3_create_function(db, "delivery_id", 2, SQLITE_UTF8 | SQLITE_DETERMINISTIC, NULL,
                                     delivery_id_sql, NULL, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_create_function(db, "u64_at", 2, SQLITE_UTF8 | SQLITE_DETERMINISTIC, NULL, u64_at_sql,
                                     NULL, NULL);
    return rc == SQLITE_OK ? add_functions(db) : sqlite_errno(db, rc);
}

/* ---- pages ---- */

static int check_pages(struct checking *k) {
    sqlite3_stmt *st = connection_prepare(k->c, "PRAGMA integrity_check(20)");
    int r;
    look_at(k, "pages and indexes");
    for (int i = 0; i < DAMAGES_TOLD_MAX && (r = statement_next(k->c, st)) > 0; i++) {
        const char *text = (const char *)sqlite3_column_text(st, 0);
        if (!text || strcmp(text, "ok") != 0)
            report(k, "the file is damaged", 1, text);
    }
    if (st)
        statement_done(st);
    /* The pragma itself may stumble over what is damaged. */
    if (r < 0 && r != -ENOMEM) {
        report(k, "the file is damaged", 1, sqlite3_errmsg(k->c->db));
        r = 0;
    }
    return r < 0 ? r : 0;
}

/* ---- schema ---- */

static int make_reference(sqlite3 **ret) {
    int rc = sqlite3_open_v2(":memory:", ret, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL);
    int r = rc == SQLITE_OK ? add_functions(*ret) : sqlite_errno(*ret, rc);
    for (size_t i = 0; r == 0 && i < sqlite_migrations_n; i++) {
        rc = sqlite3_exec(*ret, sqlite_migrations[i], NULL, NULL, NULL);
        r = rc == SQLITE_OK ? 0 : sqlite_errno(*ret, rc);
    }
    return r;
}

static int check_object(struct checking *k, const char *name, const char *sql) {
    sqlite3_stmt *st = connection_prepare(k->c, "SELECT sql FROM sqlite_schema WHERE name=?");
    bind_text(st, 1, slice_of(name));
    int r = statement_next(k->c, st);
    if (r < 0)
        return r;
    if (r == 0)
        report(k, "the schema lacks a table, index or trigger", 1, name);
    else if (!slice_eq(column_slice(st, 0), slice_of(sql)))
        report(k, "the schema has another table, index or trigger of this name", 1, name);
    statement_done(st);
    return 0;
}

/* secrets_plain is dropped once the store was unlocked. */
static int check_schema(struct checking *k) {
    sqlite3 *reference = NULL;
    sqlite3_stmt *st = NULL;
    look_at(k, "the schema");
    int r = make_reference(&reference);
    if (r == 0 && sqlite3_prepare_v2(reference,
                                     "SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT "
                                     "LIKE 'sqlite\\_%' ESCAPE '\\' AND name<>'secrets_plain'",
                                     -1, &st, NULL) != SQLITE_OK)
        r = -EIO;
    while (r == 0 && sqlite3_step(st) == SQLITE_ROW)
        r = check_object(k, (const char *)sqlite3_column_text(st, 0),
                         (const char *)sqlite3_column_text(st, 1));
    sqlite3_finalize(st);
    sqlite3_close(reference);
    return r;
}

/* ---- rows ---- */

static int check_invariant(struct checking *k, const struct invariant *i) {
    _cleanup_buf_ struct buf sql = {0};
    sqlite3_stmt *st = NULL;
    look_at(k, i->what);
    buf_addf(&sql, "SELECT count(*), min(x), ?1 FROM (%s)", i->sql);
    if (!buf_ok(&sql))
        return -ENOMEM;
    int rc = sqlite3_prepare_v2(k->c->db, sql.p, -1, &st, NULL);
    if (rc != SQLITE_OK)
        return sqlite_errno(k->c->db, rc);
    bind_int(st, 1, k->how->now);
    int r = statement_next(k->c, st);
    if (r > 0 && column_int(st, 0) > 0)
        report(k, i->what, (uint64_t)column_int(st, 0), (const char *)sqlite3_column_text(st, 1));
    sqlite3_finalize(st);
    return r < 0 ? r : 0;
}

/* ---- sealed secrets ---- */

static int open_secret(const struct sealing *by, sqlite3_stmt *st) {
    struct secret_record record;
    int r = secret_read(by, st, &record);
    explicit_bzero(&record, sizeof record);
    return r;
}

static int open_tls(const struct sealing *by, sqlite3_stmt *st) {
    struct buf text = {0};
    int r = tls_read(by, st, &text);
    buf_wipe(&text);
    return r;
}

static int open_server_key(const struct sealing *by, sqlite3_stmt *st) {
    uint8_t bytes[SERVER_KEY_SIZE];
    int r = server_key_read(by, st, bytes);
    explicit_bzero(bytes, sizeof bytes);
    return r;
}

static int open_headers(const struct sealing *by, sqlite3_stmt *st) {
    struct buf text = {0};
    struct id id = {.key = (uint64_t)column_int(st, 1), .tail = (uint64_t)column_int(st, 2)};
    int r = headers_open(by, column_int(st, 3), (uint32_t)column_int(st, 0), id, column_slice(st, 4), &text);
    buf_wipe(&text);
    return r;
}

static int open_attempt(const struct sealing *by, sqlite3_stmt *st) {
    struct buf text = {0};
    int r = attempt_headers_open(by, (uint64_t)column_int(st, 0), (uint32_t)column_int(st, 1),
                                 (uint32_t)column_int(st, 2), column_slice(st, 3), &text);
    buf_wipe(&text);
    return r;
}

/* The server's key for the headers of attempts, when this key has sealed it: 1; else 0. */
static int find_attempts_key(struct connection *c, struct sealing *by) {
    sqlite3_stmt *st =
        connection_prepare(c, "SELECT " SERVER_KEY_COLUMNS " FROM server_keys WHERE name=? AND seal_key=?");
    bind_text(st, 1, SLICE_LIT(ATTEMPTS_KEY_NAME));
    bind_int(st, 2, by->no);
    int r = statement_next(c, st);
    if (r > 0) {
        r = server_key_read(by, st, by->attempts_key) == 0;
        statement_done(st);
    }
    return r;
}

/* Those of attempts last: they are looked at with a key that was found. */
static const struct {
    const char *what, *sql;
    int (*open)(const struct sealing *by, sqlite3_stmt *st);
} sealed_rows[] = {
    {"secrets that their key does not open", "SELECT " SECRET_COLUMNS " FROM secrets WHERE seal_key=?",
     open_secret},
    {"client certificates that their key does not open",
     "SELECT " TLS_COLUMNS " FROM subscription_tls WHERE seal_key=?", open_tls},
    {"keys of the server's own that their key does not open",
     "SELECT " SERVER_KEY_COLUMNS " FROM server_keys WHERE seal_key=?", open_server_key},
    {"headers of subscriptions that their key does not open",
     "SELECT tenant, key, tail, headers_key, headers FROM subscriptions WHERE headers_key=?", open_headers},
    {"headers of attempts that their key does not open",
     "SELECT event, subscription, number, request_headers FROM attempts WHERE typeof(request_headers)='blob'"
     " AND ?>0",
     open_attempt},
};

static int check_sealed_by(struct checking *k, struct sealing *by) {
    int r = find_attempts_key(k->c, by);
    size_t n = sizeof sealed_rows / sizeof sealed_rows[0] - (r == 0);
    if (r > 0)
        r = 0;
    for (size_t i = 0; r == 0 && i < n; i++) {
        sqlite3_stmt *st = connection_prepare(k->c, sealed_rows[i].sql);
        uint64_t closed = 0;
        bind_int(st, 1, by->no);
        while ((r = statement_next(k->c, st)) > 0)
            closed += sealed_rows[i].open(by, st) < 0;
        if (closed)
            report(k, sealed_rows[i].what, closed, "see the log");
    }
    return r;
}

static int check_sealed(struct checking *k, const struct store_summary *s) {
    look_at(k, "sealed secrets");
    for (size_t i = 0; i < s->keys_n; i++) {
        char text[2 * SEAL_FINGERPRINT_SIZE + 1];
        struct slice fingerprint = {(const char *)s->keys[i], SEAL_FINGERPRINT_SIZE};
        int at = seal_keyring_find(k->how->keys, fingerprint);
        hex_encode(s->keys[i], SEAL_FINGERPRINT_SIZE, text);
        if (at < 0) {
            report(k, "the secret key at hand is not the one that sealed the secrets", 1, text);
            continue;
        }
        sqlite3_stmt *st = connection_prepare(k->c, "SELECT no FROM seal_keys WHERE fingerprint=?");
        bind_blob(st, 1, fingerprint);
        int r = statement_next(k->c, st);
        if (r <= 0)
            return r < 0 ? r : -EIO;
        struct sealing by = {.no = column_int(st, 0), .key = k->how->keys->keys[at]};
        statement_done(st);
        r = check_sealed_by(k, &by);
        explicit_bzero(&by, sizeof by);
        if (r < 0)
            return r;
    }
    return 0;
}

/* ---- all of it ---- */

static int read_keys(struct connection *c, struct store_summary *ret) {
    sqlite3_stmt *st = connection_prepare(c, "SELECT fingerprint FROM seal_keys ORDER BY no LIMIT ?");
    bind_int(st, 1, STORE_KEYS_TOLD_MAX);
    int r;
    for (ret->keys_n = 0; (r = statement_next(c, st)) > 0;) {
        struct slice fingerprint = column_slice(st, 0);
        if (fingerprint.n == SEAL_FINGERPRINT_SIZE)
            memcpy(ret->keys[ret->keys_n++], fingerprint.p, SEAL_FINGERPRINT_SIZE);
    }
    return r;
}

int summarize(struct connection *c, const char *path, struct store_summary *ret, const char **ret_message) {
    static const char *const counts[] = {
        "SELECT count(*) FROM tenants WHERE deleted_at IS NULL",
        "SELECT count(*) FROM subscriptions WHERE status<>3",
        "SELECT count(*) FROM events",
        "SELECT count(*) FROM deliveries",
    };
    uint64_t *const into[] = {&ret->tenants, &ret->subscriptions, &ret->events, &ret->deliveries};
    struct stat st;
    *ret = (struct store_summary){.schema_known = sqlite_migrations_n};
    ret->bytes = stat(path, &st) == 0 ? (uint64_t)st.st_size : 0;
    int r = read_schema(c, path, &ret->schema, ret_message);
    if (r < 0)
        return r;
    for (size_t i = 0; ret->schema > 0 && i < sizeof counts / sizeof counts[0]; i++) {
        int64_t n = 0;
        if ((r = read_number(c, counts[i], &n)) < 0)
            return explain_errno(r, path, ret_message);
        *into[i] = (uint64_t)n;
    }
    r = ret->schema >= 2 ? read_keys(c, ret) : 0; /* before, nothing was sealed */
    return r < 0 ? explain_errno(r, path, ret_message) : 0;
}

int check_connection(struct connection *c, const char *path, const struct store_check *check,
                     struct store_summary *ret, uint64_t *ret_found, const char **ret_message) {
    struct checking k = {.c = c, .how = check};
    int r = read_schema(c, path, &ret->schema, ret_message);
    if (r < 0)
        return r;
    if (ret->schema == 0)
        return store_explain(-EUCLEAN, ret_message, "%s is empty: there is no store in it", path);
    r = add_check_functions(c->db);
    if (r == 0)
        r = check_pages(&k);
    *ret_found = k.found;
    if (r == 0 && k.found)
        return 0; /* what else it says cannot be relied on */
    if (r == 0 && (r = summarize(c, path, ret, ret_message)) < 0)
        return r;
    if (r == 0 && ret->schema == sqlite_migrations_n)
        r = check_schema(&k);
    bool readable = r == 0 && ret->schema == sqlite_migrations_n && !k.found;
    for (size_t i = 0; readable && r == 0 && i < invariants_n; i++)
        r = check_invariant(&k, &invariants[i]);
    if (readable && r == 0 && check->keys)
        r = check_sealed(&k, ret);
    *ret_found = k.found;
    return r < 0 ? explain_errno(r, path, ret_message) : 0;
}
