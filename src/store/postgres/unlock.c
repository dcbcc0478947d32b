/* The keys are given: secrets that the first one has not sealed are sealed anew, before anybody reads one. */
#include <errno.h>

#include "base/log.h"
#include "base/random.h"
#include "store/postgres/secrets.h"

static int read_known(struct pg *c, struct known_keys *ret) {
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    pg_bigint(pg_params(c), SEAL_KEYS_KNOWN_MAX);
    int r = pg_query(c, "SELECT no, fingerprint FROM seal_keys ORDER BY no LIMIT $1", &rows);
    ret->n = 0;
    while (r == 0 && pg_next(&rows))
        known_keys_add(ret, pg_column_int(&rows, 0), pg_column_slice(&rows, 1));
    return r;
}

int postgres_is_sealed(struct store *s, bool *ret) {
    struct known_keys known;
    int r = read_known(&pg_of(s)->writer, &known);
    if (r == 0)
        *ret = known.n > 0;
    return r;
}

/* ---- sealing anew ---- */

static int find_secrets(struct pg_store *s, const struct sealing *from, struct secret_record *found,
                        size_t *ret_n) {
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    struct pg_params *p = pg_params(&s->writer);
    pg_bigint(p, from->no);
    pg_bigint(p, STORE_SEAL_STEP);
    int r = pg_query(
        &s->writer, "SELECT " PG_SECRET_COLUMNS " FROM secrets WHERE seal_key=$1 LIMIT $2 FOR UPDATE", &rows);
    for (*ret_n = 0; r == 0 && pg_next(&rows); ++*ret_n)
        r = pg_read_secret(from, &rows, &found[*ret_n]);
    return r;
}

static int reseal_secret(struct pg_store *s, const struct secret_record *r) {
    uint8_t sealed[SEALED_SECRET_MAX];
    size_t n = 0;
    int e = secret_seal(&s->sealing, r, sealed, &n);
    if (e < 0)
        return e;
    struct pg_params *p = pg_params(&s->writer);
    pg_bigint(p, s->sealing.no);
    pg_bytea(p, (struct slice){(const char *)sealed, n});
    pg_int(p, (int32_t)r->tenant_no);
    pg_int(p, (int32_t)r->subscription_no);
    pg_bigint(p, (int64_t)r->id.key);
    pg_bigint(p, (int64_t)r->id.tail);
    return pg_send(&s->writer, "UPDATE secrets SET seal_key=$1, sealed=$2 WHERE tenant=$3 AND subscription=$4"
                               " AND key=$5 AND tail=$6");
}

static int reseal_secrets(struct pg_store *s, const struct sealing *from, size_t *ret_n) {
    struct secret_record *found = calloc(STORE_SEAL_STEP, sizeof *found);
    if (!found)
        return -ENOMEM;
    int r = find_secrets(s, from, found, ret_n);
    for (size_t i = 0; r == 0 && i < *ret_n; i++)
        r = reseal_secret(s, &found[i]);
    explicit_bzero(found, STORE_SEAL_STEP * sizeof *found);
    free(found);
    return r;
}

static int reseal_tls(struct pg_store *s, const struct sealing *from, size_t *ret_n) {
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    struct pg_params *p = pg_params(&s->writer);
    struct buf text = {0};
    pg_bigint(p, from->no);
    pg_bigint(p, STORE_SEAL_STEP);
    int r = pg_query(&s->writer,
                     "SELECT " PG_TLS_COLUMNS " FROM subscription_tls WHERE seal_key=$1 LIMIT $2 FOR UPDATE",
                     &rows);
    for (*ret_n = 0; r == 0 && pg_next(&rows); ++*ret_n) {
        buf_reset(&text);
        r = pg_read_tls(from, &rows, &text);
        if (r == 0)
            r = postgres_put_tls(&s->base, (uint32_t)pg_column_int(&rows, 0),
                                 (uint32_t)pg_column_int(&rows, 1), buf_slice(&text));
    }
    buf_wipe(&text);
    return r;
}

/* Step by step, each a transaction. */
static int reseal_all(struct pg_store *s, const struct sealing *from, uint64_t *total,
                      int (*step)(struct pg_store *s, const struct sealing *from, size_t *ret_n)) {
    size_t n = STORE_SEAL_STEP;
    int r = 0;
    while (r == 0 && n == STORE_SEAL_STEP) {
        r = postgres_begin(&s->base);
        if (r == 0)
            r = step(s, from, &n);
        if (r == 0)
            r = postgres_commit(&s->base);
        if (r < 0)
            postgres_rollback(&s->base);
        else
            *total += n;
    }
    return r;
}

/* Headers that lie in clear, a step a transaction; then they are known to be none. */
static int seal_headers(struct pg_store *s, uint64_t *total) {
    struct pg_attempt_key attempt = {-1, -1, -1, -1};
    int64_t subscription = 0;
    bool in_clear = false;
    int r = pg_headers_in_clear(&s->writer, &in_clear);
    if (r < 0 || !in_clear)
        return r;
    for (int walk = 0; r == 0 && walk < 2; walk++) {
        size_t n = STORE_SEAL_STEP;
        while (r == 0 && n == STORE_SEAL_STEP) {
            r = postgres_begin(&s->base);
            if (r == 0)
                r = walk ? pg_seal_attempts(s, &attempt, total, &n)
                         : pg_seal_docs(s, &subscription, total, &n);
            if (r == 0)
                r = postgres_commit(&s->base);
            if (r < 0)
                postgres_rollback(&s->base);
        }
    }
    return r == 0 ? pg_query(&s->writer, "DELETE FROM marks WHERE name='headers_in_clear'", NULL) : r;
}

/* Made at the first start. */
static int open_attempts_key(struct pg_store *s) {
    uint8_t fresh[SERVER_KEY_SIZE];
    random_bytes(fresh, sizeof fresh);
    int r = postgres_begin(&s->base);
    if (r < 0)
        return r;
    r = postgres_server_key(&s->base, ATTEMPTS_KEY_NAME, fresh, s->sealing.attempts_key);
    if (r == 0)
        r = postgres_commit(&s->base);
    if (r < 0)
        postgres_rollback(&s->base);
    explicit_bzero(fresh, sizeof fresh);
    return r;
}

/* ---- unlocking ---- */

/* A node that runs knows one key alone: it could neither read what is sealed with another, nor be kept from
 * sealing with its own. */
static int check_alone(struct pg_store *s, const char **ret_message) {
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    int r = pg_query_row(&s->writer, "SELECT count(*) FROM nodes WHERE lease_until>" PG_NOW, &rows);
    if (r <= 0)
        return r < 0 ? r : -EIO;
    int64_t n = pg_column_int(&rows, 0);
    return n == 0 ? 0
                  : store_explain(
                        -EBUSY, ret_message,
                        "the secret key is another than that of the %lld nodes that run: stop them all, "
                        "then start them with the new key, and the previous one beside it",
                        (long long)n);
}

static int number_of_key(struct pg *c, const struct seal_key *key, int64_t *ret) {
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    struct slice fingerprint = {(const char *)key->fingerprint, SEAL_FINGERPRINT_SIZE};
    pg_bytea(pg_params(c), fingerprint);
    int r = pg_query(c, "INSERT INTO seal_keys (fingerprint) VALUES ($1) ON CONFLICT DO NOTHING", NULL);
    if (r < 0)
        return r;
    pg_bytea(pg_params(c), fingerprint);
    r = pg_query_row(c, "SELECT no FROM seal_keys WHERE fingerprint=$1", &rows);
    if (r > 0)
        *ret = pg_column_int(&rows, 0);
    return r > 0 ? 0 : r < 0 ? r : -EIO;
}

static int reseal_from(struct pg_store *s, struct sealing *from, uint64_t *total) {
    int r = reseal_all(s, from, total, reseal_secrets);
    if (r == 0)
        r = reseal_all(s, from, total, reseal_tls);
    if (r == 0)
        r = reseal_all(s, from, total, pg_reseal_server_keys);
    if (r == 0)
        r = reseal_all(s, from, total, pg_reseal_headers);
    if (r < 0)
        return r;
    pg_bigint(pg_params(&s->writer), from->no);
    return pg_query(&s->writer, "DELETE FROM seal_keys WHERE no=$1", NULL);
}

/* Under a lock: of several nodes that start with a new key one seals, and the others find it done. */
static int unlock_locked(struct pg_store *s, const struct seal_keyring *keys, uint64_t *total,
                         const char **ret_message) {
    struct known_keys known;
    struct sealing from[SEAL_KEYS_KNOWN_MAX];
    int r = read_known(&s->writer, &known);
    for (size_t i = 0; r == 0 && i < known.n; i++)
        r = known_keys_find(&known, i, keys, &from[i], ret_message);
    bool others = r == 0 && known.n > 0 &&
                  (known.n > 1 ||
                   memcmp(from[0].key.fingerprint, keys->keys[0].fingerprint, SEAL_FINGERPRINT_SIZE) != 0);
    if (others)
        r = check_alone(s, ret_message);
    int64_t no = 0;
    if (r == 0)
        r = number_of_key(&s->writer, &keys->keys[0], &no);
    if (r == 0)
        s->sealing = (struct sealing){.no = no, .key = keys->keys[0]};
    if (r == 0)
        r = reseal_all(s, NULL, total, pg_reseal_server_keys);
    for (size_t i = 0; r == 0 && i < known.n; i++)
        if (from[i].no != no)
            r = reseal_from(s, &from[i], total);
    explicit_bzero(from, sizeof from);
    if (r == 0)
        r = open_attempts_key(s);
    return r == 0 ? seal_headers(s, total) : r;
}

int postgres_unlock(struct store *store, const struct seal_keyring *keys, uint64_t *ret_resealed,
                    const char **ret_message) {
    struct pg_store *s = pg_of(store);
    uint64_t total = 0;
    CHECK(keys->n > 0 && !s->sealing.no);
    int r = pg_query(&s->writer, "SELECT pg_advisory_lock(" PG_LOCK_CLASS ", 2)", NULL);
    if (r == 0)
        r = unlock_locked(s, keys, &total, ret_message);
    int unlocked = pg_query(&s->writer, "SELECT pg_advisory_unlock(" PG_LOCK_CLASS ", 2)", NULL);
    if (r == -EKEYREJECTED || r == -EBUSY)
        return r;
    if (r == 0)
        r = unlocked;
    if (r < 0)
        return store_explain(r, ret_message, "the signing secrets cannot be sealed with this key: %s",
                             strerror(-r));
    *ret_resealed = total;
    return 0;
}
