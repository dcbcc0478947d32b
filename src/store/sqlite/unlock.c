/* The keys are given: secrets that the first one has not sealed are sealed anew, before anybody reads one. */
#include <errno.h>
#include <stdio.h>

#include "base/log.h"
#include "base/random.h"
#include "store/sqlite/secrets.h"

static int read_known(struct connection *c, struct known_keys *ret) {
    sqlite3_stmt *st = connection_prepare(c, "SELECT no, fingerprint FROM seal_keys ORDER BY no LIMIT ?");
    bind_int(st, 1, SEAL_KEYS_KNOWN_MAX);
    int r;
    ret->n = 0;
    while ((r = statement_next(c, st)) > 0)
        known_keys_add(ret, column_int(st, 0), column_slice(st, 1));
    return r;
}

int sqlite_is_sealed(struct store *s, bool *ret) {
    struct known_keys known;
    int r = read_known(&sqlite_of(s)->writer, &known);
    if (r == 0)
        *ret = known.n > 0;
    return r;
}

/* ---- what is to be sealed anew ---- */

static int run_once(struct connection *c, const char *sql) {
    int rc = sqlite3_exec(c->db, sql, NULL, NULL, NULL);
    return rc == SQLITE_OK ? 0 : sqlite_errno(c->db, rc);
}

static int find_sealed_by(struct store *s, const struct sealing *from, struct secret_record *found,
                          size_t *ret_n) {
    struct connection *c = &sqlite_of(s)->writer;
    sqlite3_stmt *st =
        connection_prepare(c, "SELECT " SECRET_COLUMNS " FROM secrets WHERE seal_key=? LIMIT ?");
    bind_int(st, 1, from->no);
    bind_int(st, 2, STORE_SEAL_STEP);
    int r;
    for (*ret_n = 0; (r = statement_next(c, st)) > 0; ++*ret_n) {
        r = secret_read(from, st, &found[*ret_n]);
        if (r < 0) {
            statement_done(st);
            return r;
        }
    }
    return r;
}

static int forget_sealed(struct store *s, const struct secret_record *r) {
    sqlite3_stmt *st = connection_prepare(&sqlite_of(s)->writer,
                                          "DELETE FROM secrets WHERE subscription=? AND key=? AND tail=?");
    bind_int(st, 1, r->subscription_no);
    bind_int(st, 2, (int64_t)r->id.key);
    bind_int(st, 3, (int64_t)r->id.tail);
    return statement_run(&sqlite_of(s)->writer, st);
}

/* ---- secrets of a store from before they were sealed ---- */

static int has_plain(struct connection *c) {
    sqlite3_stmt *st = connection_prepare(c, "SELECT 1 FROM sqlite_schema WHERE name='secrets_plain'");
    int r = statement_next(c, st);
    if (r > 0)
        statement_done(st);
    return r;
}

/* Statements on this table are not kept: it is dropped. */
static int prepare_once(struct connection *c, const char *sql, sqlite3_stmt **ret) {
    int rc = sqlite3_prepare_v2(c->db, sql, -1, ret, NULL);
    return rc == SQLITE_OK ? 0 : sqlite_errno(c->db, rc);
}

static int read_plain(sqlite3_stmt *st, struct secret_record *ret) {
    *ret = (struct secret_record){
        .id = {.key = (uint64_t)column_int(st, 0), .tail = (uint64_t)column_int(st, 1)},
        .subscription_no = (uint32_t)column_int(st, 2),
        .tenant_no = (uint32_t)column_int(st, 3),
        .key = {.scheme = (enum signing_scheme)column_int(st, 4), .expires_at = column_int(st, 7)},
        .created_at = column_int(st, 6),
    };
    struct slice bytes = column_slice(st, 5);
    if (bytes.n == 0 || bytes.n > SECRET_BYTES_MAX)
        return -EIO;
    ret->key.size = (uint8_t)bytes.n;
    memcpy(ret->key.bytes, bytes.p, bytes.n);
    return 0;
}

static int find_plain(struct store *s, const struct sealing *from, struct secret_record *found,
                      size_t *ret_n) {
    (void)from;
    sqlite3_stmt *st = NULL;
    int r =
        prepare_once(&sqlite_of(s)->writer,
                     "SELECT p.key, p.tail, p.subscription, s.tenant, p.scheme, p.bytes, p.created_at,"
                     " p.expires_at FROM secrets_plain p JOIN subscriptions s ON s.no=p.subscription LIMIT ?",
                     &st);
    if (r < 0)
        return r;
    bind_int(st, 1, STORE_SEAL_STEP);
    for (*ret_n = 0; r == 0 && (r = statement_next(&sqlite_of(s)->writer, st)) > 0; ++*ret_n)
        r = read_plain(st, &found[*ret_n]);
    sqlite3_finalize(st);
    return r;
}

static int forget_plain(struct store *s, const struct secret_record *r) {
    sqlite3_stmt *st = NULL;
    int e = prepare_once(&sqlite_of(s)->writer,
                         "DELETE FROM secrets_plain WHERE subscription=? AND key=? AND tail=?", &st);
    if (e < 0)
        return e;
    bind_int(st, 1, r->subscription_no);
    bind_int(st, 2, (int64_t)r->id.key);
    bind_int(st, 3, (int64_t)r->id.tail);
    e = statement_run(&sqlite_of(s)->writer, st);
    sqlite3_finalize(st);
    return e;
}

/* ---- steps, each a transaction ---- */

struct source {
    int (*find)(struct store *s, const struct sealing *from, struct secret_record *found, size_t *ret_n);
    int (*forget)(struct store *s, const struct secret_record *r);
};
static const struct source plain = {find_plain, forget_plain},
                           sealed_before = {find_sealed_by, forget_sealed};

/* What else is sealed, step by step likewise. */
static int seal_others(struct store *s, const struct sealing *from, uint64_t *total,
                       int (*step)(struct store *s, const struct sealing *from, size_t *ret_n)) {
    size_t n = STORE_SEAL_STEP;
    int r = 0;
    while (r == 0 && n == STORE_SEAL_STEP) {
        r = sqlite_begin(s);
        if (r == 0)
            r = step(s, from, &n);
        if (r == 0)
            r = sqlite_commit(s);
        if (r < 0)
            sqlite_rollback(s);
        else
            *total += n;
    }
    return r;
}

static int seal_some(struct store *s, const struct source *source, const struct sealing *from,
                     struct secret_record *found, size_t *ret_n) {
    int r = source->find(s, from, found, ret_n);
    for (size_t i = 0; r == 0 && i < *ret_n; i++) {
        r = source->forget(s, &found[i]);
        if (r == 0)
            r = sqlite_insert_secret(s, &found[i]);
    }
    return r;
}

static int seal_all(struct store *s, const struct source *source, const struct sealing *from,
                    uint64_t *total) {
    _cleanup_free_ struct secret_record *found = calloc(STORE_SEAL_STEP, sizeof *found);
    size_t n = STORE_SEAL_STEP;
    int r = found ? 0 : -ENOMEM;
    while (r == 0 && n == STORE_SEAL_STEP) {
        r = sqlite_begin(s);
        if (r == 0)
            r = seal_some(s, source, from, found, &n);
        if (r == 0)
            r = sqlite_commit(s);
        if (r < 0)
            sqlite_rollback(s);
        else
            *total += n;
    }
    if (found)
        explicit_bzero(found, STORE_SEAL_STEP * sizeof *found);
    return r;
}

/* ---- unlocking ---- */

/* Every key that sealed something must be at hand. */
static int check_known(const struct seal_keyring *keys, const struct known_keys *known,
                       const char **ret_message) {
    for (size_t i = 0; i < known->n; i++) {
        struct sealing found;
        int r = known_keys_find(known, i, keys, &found, ret_message);
        explicit_bzero(&found, sizeof found);
        if (r < 0)
            return r;
    }
    return 0;
}

static int number_of_key(struct store *s, const struct seal_key *key, int64_t *ret) {
    struct connection *c = &sqlite_of(s)->writer;
    sqlite3_stmt *st =
        connection_prepare(c, "INSERT INTO seal_keys (fingerprint) VALUES (?) ON CONFLICT DO NOTHING");
    bind_blob(st, 1, (struct slice){(const char *)key->fingerprint, SEAL_FINGERPRINT_SIZE});
    int r = statement_run(c, st);
    if (r < 0)
        return r;
    st = connection_prepare(c, "SELECT no FROM seal_keys WHERE fingerprint=?");
    bind_blob(st, 1, (struct slice){(const char *)key->fingerprint, SEAL_FINGERPRINT_SIZE});
    r = statement_next(c, st);
    if (r <= 0)
        return r < 0 ? r : -EIO;
    *ret = column_int(st, 0);
    statement_done(st);
    return 0;
}

/* What was replaced is gone from the database file, and so from its log. */
static int empty_log(struct store *s) {
    return run_once(&sqlite_of(s)->writer, "PRAGMA wal_checkpoint(TRUNCATE)");
}

/* Headers that lie in clear, a step a transaction; then they are known to be none. */
static int seal_headers(struct store *s, uint64_t *total) {
    struct attempt_key attempt = {-1, -1, -1};
    int64_t subscription = 0;
    bool in_clear = false;
    int r = headers_in_clear(&sqlite_of(s)->writer, &in_clear);
    if (r < 0 || !in_clear)
        return r;
    for (int walk = 0; r == 0 && walk < 2; walk++) {
        size_t n = STORE_SEAL_STEP;
        while (r == 0 && n == STORE_SEAL_STEP) {
            r = sqlite_begin(s);
            if (r == 0)
                r = walk ? headers_seal_attempts(s, &attempt, total, &n)
                         : headers_seal_docs(s, &subscription, total, &n);
            if (r == 0)
                r = sqlite_commit(s);
            if (r < 0)
                sqlite_rollback(s);
        }
    }
    return r == 0 ? run_once(&sqlite_of(s)->writer, "DELETE FROM marks WHERE name='headers_in_clear'") : r;
}

/* Made at the first start. */
static int open_attempts_key(struct store *s) {
    uint8_t fresh[SERVER_KEY_SIZE];
    random_bytes(fresh, sizeof fresh);
    int r = sqlite_begin(s);
    if (r < 0)
        return r;
    r = sqlite_server_key(s, ATTEMPTS_KEY_NAME, fresh, sqlite_of(s)->sealing.attempts_key);
    if (r == 0)
        r = sqlite_commit(s);
    if (r < 0)
        sqlite_rollback(s);
    explicit_bzero(fresh, sizeof fresh);
    return r;
}

/* Secrets and keys that lie there in clear. */
static int seal_plain(struct store *s, uint64_t *total) {
    uint64_t before = *total;
    int r = has_plain(&sqlite_of(s)->writer);
    if (r > 0) {
        r = seal_all(s, &plain, NULL, total);
        if (r == 0)
            r = run_once(&sqlite_of(s)->writer, "DROP TABLE secrets_plain");
    }
    if (r == 0)
        r = seal_others(s, NULL, total, server_keys_reseal);
    return r == 0 && *total > before ? empty_log(s) : r;
}

static int reseal(struct store *s, const struct seal_keyring *keys, const struct known_keys *known,
                  uint64_t *total) {
    int r = seal_plain(s, total);
    for (size_t i = 0; r == 0 && i < known->n; i++) {
        if (known->at[i].no == sqlite_of(s)->sealing.no)
            continue;
        struct sealing from;
        const char *ignored;
        if ((r = known_keys_find(known, i, keys, &from, &ignored)) < 0)
            return r;
        char sql[64];
        snprintf(sql, sizeof sql, "DELETE FROM seal_keys WHERE no=%lld", (long long)from.no);
        r = seal_all(s, &sealed_before, &from, total);
        if (r == 0)
            r = seal_others(s, &from, total, tls_reseal);
        if (r == 0)
            r = seal_others(s, &from, total, server_keys_reseal);
        if (r == 0)
            r = seal_others(s, &from, total, headers_reseal);
        explicit_bzero(&from, sizeof from);
        if (r == 0)
            r = run_once(&sqlite_of(s)->writer, sql);
        if (r == 0)
            r = empty_log(s);
    }
    if (r == 0)
        r = open_attempts_key(s);
    uint64_t before = *total;
    if (r == 0)
        r = seal_headers(s, total);
    return r == 0 && *total > before ? empty_log(s) : r;
}

int sqlite_unlock(struct store *s, const struct seal_keyring *keys, uint64_t *ret_resealed,
                  const char **ret_message) {
    struct known_keys known;
    uint64_t total = 0;
    CHECK(sqlite_of(s)->magic == STORE_MAGIC && keys->n > 0 && !sqlite_of(s)->sealing.no);
    int r = read_known(&sqlite_of(s)->writer, &known);
    if (r == 0)
        r = check_known(keys, &known, ret_message);
    if (r == -EKEYREJECTED)
        return r;
    int64_t no = 0;
    if (r == 0)
        r = number_of_key(s, &keys->keys[0], &no);
    sqlite_of(s)->sealing = (struct sealing){.no = no, .key = keys->keys[0]};
    /* What is replaced is overwritten: it may have been readable, or sealed with a key that leaked. */
    if (r == 0)
        r = run_once(&sqlite_of(s)->writer, "PRAGMA secure_delete=ON");
    if (r == 0)
        r = reseal(s, keys, &known, &total);
    if (r == 0)
        r = run_once(&sqlite_of(s)->writer, "PRAGMA secure_delete=OFF");
    if (r < 0)
        return store_explain(r, ret_message, "the signing secrets cannot be sealed with this key: %s",
                             strerror(-r));
    *ret_resealed = total;
    return 0;
}
