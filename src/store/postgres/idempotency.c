/* Idempotency keys. Those that a transaction will be asked for are known ahead (store_expect_idempotency) and
 * looked up with one statement, when the first is asked for; those that it takes itself are noted. */
#include <errno.h>

#include "store/postgres/gather.h"

enum { EXPECTED_MAX = 8192 };

struct expected {
    uint32_t tenant_no;
    struct slice key;
    uint64_t hash;
    int row; /* of what was found, -1: it is not there */
};

struct pg_keys {
    struct expected *expected; /* by hash, once they are looked up */
    size_t expected_n, expected_cap;
    bool looked_up;
    struct pg_rows found;
    uint64_t *taken; /* hashes of the keys that this transaction has taken */
    size_t taken_n, taken_cap;
};

int pg_keys_open(struct pg_store *s) {
    s->keys = calloc(1, sizeof *s->keys);
    return s->keys ? 0 : -ENOMEM;
}

void pg_keys_close(struct pg_store *s) {
    if (!s->keys)
        return;
    pg_rows_free(&s->keys->found);
    free(s->keys->expected);
    free(s->keys->taken);
    free(s->keys);
    s->keys = NULL;
}

void pg_keys_forget(struct pg_store *s) {
    s->keys->expected_n = s->keys->taken_n = 0;
    s->keys->looked_up = false;
    pg_rows_free(&s->keys->found);
}

static uint64_t hash_of(uint32_t tenant_no, struct slice key) {
    return mix64(hash64(key.p, key.n) ^ tenant_no);
}

/* Room for one more of these, NULL when memory is out. */
static void *grow(void *items, size_t n, size_t *cap, size_t size) {
    if (n < *cap)
        return items;
    size_t wanted = *cap ? *cap * 2 : 64;
    void *more = realloc(items, wanted * size);
    if (more)
        *cap = wanted;
    return more;
}

/* ---- what is expected ---- */

void postgres_expect_idempotency(struct store *s, uint32_t tenant_no, struct slice key) {
    struct pg_keys *k = pg_of(s)->keys;
    if (k->looked_up || k->expected_n == EXPECTED_MAX)
        return;
    struct expected *e = grow(k->expected, k->expected_n, &k->expected_cap, sizeof *e);
    if (!e)
        return; /* it is looked up by itself */
    k->expected = e;
    e[k->expected_n++] =
        (struct expected){.tenant_no = tenant_no, .key = key, .hash = hash_of(tenant_no, key), .row = -1};
}

static int by_hash(const void *a, const void *b) {
    const struct expected *x = a, *y = b;
    return x->hash < y->hash ? -1 : x->hash > y->hash;
}

static int look_up(struct pg_store *s) {
    struct pg_keys *k = s->keys;
    struct pg_column tenants = PG_COLUMN(PG_INT), keys = PG_COLUMN(PG_TEXT);
    qsort(k->expected, k->expected_n, sizeof *k->expected, by_hash);
    for (size_t i = 0; i < k->expected_n; i++) {
        pg_add_int(&tenants, (int32_t)k->expected[i].tenant_no);
        pg_add_text(&keys, k->expected[i].key);
    }
    struct pg_params *p = pg_params(&s->writer);
    pg_array(p, &tenants);
    pg_array(p, &keys);
    pg_column_free(&tenants);
    pg_column_free(&keys);
    int r = pg_query(&s->writer,
                     "SELECT i.body_hash, i.events, k.place FROM unnest($1,$2) WITH ORDINALITY"
                     " AS k(tenant, key, place) JOIN idempotency i ON i.tenant=k.tenant AND i.key=k.key",
                     &k->found);
    while (r == 0 && pg_next(&k->found))
        k->expected[pg_column_int(&k->found, 2) - 1].row = k->found.at;
    k->looked_up = r == 0;
    return r;
}

static struct expected *find_expected(const struct pg_keys *k, uint32_t tenant_no, struct slice key) {
    struct expected wanted = {.hash = hash_of(tenant_no, key)};
    struct expected *e =
        k->expected_n ? bsearch(&wanted, k->expected, k->expected_n, sizeof *e, by_hash) : NULL;
    while (e && e > k->expected && e[-1].hash == wanted.hash)
        e--;
    for (; e && e < k->expected + k->expected_n && e->hash == wanted.hash; e++)
        if (e->tenant_no == tenant_no && slice_eq(e->key, key))
            return e;
    return NULL;
}

/* ---- taking one ---- */

static bool may_be_taken(const struct pg_keys *k, uint64_t hash) {
    for (size_t i = 0; i < k->taken_n; i++)
        if (k->taken[i] == hash)
            return true;
    return false;
}

static int note_taken(struct pg_keys *k, uint64_t hash) {
    uint64_t *taken = grow(k->taken, k->taken_n, &k->taken_cap, sizeof *taken);
    if (!taken)
        return -ENOMEM;
    k->taken = taken;
    taken[k->taken_n++] = hash;
    return 0;
}

/* Two nodes that take the same new key at the same time: the later commit fails as a whole (store_clashed),
 * and what is tried again finds the key. */
int postgres_insert_idempotency(struct store *s, const struct idempotency_record *r) {
    _cleanup_buf_ struct buf ids = {0};
    ids_pack(r->ids, r->ids_n, &ids);
    int e = buf_ok(&ids) ? note_taken(pg_of(s)->keys, hash_of(r->tenant_no, r->key)) : -ENOMEM;
    if (e < 0)
        return e;
    struct pg_column *c = pg_gather(pg_of(s), PG_IDEMPOTENCY);
    pg_add_int(&c[0], (int32_t)r->tenant_no);
    pg_add_text(&c[1], r->key);
    pg_add_bytea(&c[2], (struct slice){(const char *)r->body_hash, sizeof r->body_hash});
    pg_add_bytea(&c[3], buf_slice(&ids));
    pg_add_bigint(&c[4], r->created_at);
    return pg_gathered(pg_of(s), PG_IDEMPOTENCY);
}

/* ---- finding one ---- */

/* Of the row that it stands on. */
static int read_key(const struct pg_rows *row, uint8_t ret_hash[32], struct id *ret_ids, size_t ids_max,
                    size_t *ret_n) {
    struct slice hash = pg_column_slice(row, 0), ids = pg_column_slice(row, 1);
    if (hash.n != 32 || ids.n % ID_PACKED_SIZE)
        return -EIO;
    memcpy(ret_hash, hash.p, 32);
    *ret_n = ids_unpack(ids, ret_ids, ids_max);
    return 0;
}

static int find_alone(struct pg_store *s, uint32_t tenant_no, struct slice key, struct pg_rows *ret) {
    struct pg_params *p = pg_params(&s->writer);
    pg_int(p, (int32_t)tenant_no);
    pg_text(p, key);
    return pg_query_row(&s->writer, "SELECT body_hash, events FROM idempotency WHERE tenant=$1 AND key=$2",
                        ret);
}

int postgres_find_idempotency(struct store *s, uint32_t tenant_no, struct slice key, uint8_t ret_hash[32],
                              struct id *ret_ids, size_t ids_max, size_t *ret_n) {
    struct pg_keys *k = pg_of(s)->keys;
    bool taken = may_be_taken(k, hash_of(tenant_no, key));
    int r = taken ? pg_flush(pg_of(s)) : k->expected_n && !k->looked_up ? look_up(pg_of(s)) : 0;
    if (r < 0)
        return r;
    struct expected *e = taken || !k->looked_up ? NULL : find_expected(k, tenant_no, key);
    if (e && e->row < 0)
        return -ENOENT;
    if (e) {
        k->found.at = e->row;
        return read_key(&k->found, ret_hash, ret_ids, ids_max, ret_n);
    }
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    r = find_alone(pg_of(s), tenant_no, key, &rows);
    if (r <= 0)
        return r < 0 ? r : -ENOENT;
    return read_key(&rows, ret_hash, ret_ids, ids_max, ret_n);
}
