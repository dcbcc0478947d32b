#include "store/directory.h"

#include <errno.h>
#include <pthread.h>

/* A failed allocation leaves the entry out of its table instead of ending the process. */
#define HASH_NONFATAL_OOM            1
#define uthash_nonfatal_oom(element) ((element)->left_out = true)
#include <uthash.h>

enum { TENANTS_A_PAGE = 1000, KEYS_MAX = 1000000 };
#define BURST_MIN 1000
#define WHOLE     1000000 /* of a share */

struct tenant_entry {
    struct tenant tenant;
    atomic_int_fast64_t busy_until_us; /* GCRA: when the bucket, left alone, is full again */
    atomic_uint share;                 /* of the quota, in parts of WHOLE */
    atomic_uint_fast64_t asked;
    bool left_out;
    UT_hash_handle by_id, by_no;
};

struct key_entry {
    uint8_t hash[32];
    struct api_key key;
    bool left_out;
    UT_hash_handle hh;
};

struct directory {
    pthread_rwlock_t lock;
    struct tenant_entry *tenants_by_id, *tenants_by_no;
    bool unsorted; /* tenants_by_no, as a list */
    struct key_entry *keys;
};

int directory_new(struct directory **ret) {
    struct directory *d = calloc(1, sizeof *d);
    if (!d)
        return -ENOMEM;
    int r = pthread_rwlock_init(&d->lock, NULL);
    if (r != 0) {
        free(d);
        return -r;
    }
    *ret = d;
    return 0;
}

static void drop_key(struct directory *d, struct key_entry *k) {
    HASH_DEL(d->keys, k);
    free(k);
}

static void drop_tenant(struct directory *d, struct tenant_entry *t) {
    HASH_DELETE(by_id, d->tenants_by_id, t);
    HASH_DELETE(by_no, d->tenants_by_no, t);
    free(t);
}

void directory_free(struct directory *d) {
    if (!d)
        return;
    struct tenant_entry *t, *next_t;
    HASH_ITER (by_id, d->tenants_by_id, t, next_t) {
        drop_tenant(d, t);
    }
    struct key_entry *k, *next_k;
    HASH_ITER (hh, d->keys, k, next_k) {
        drop_key(d, k);
    }
    pthread_rwlock_destroy(&d->lock);
    free(d);
}

/* ---- tenants ---- */

static struct tenant_entry *find_by_no(struct directory *d, uint32_t no) {
    struct tenant_entry *t;
    HASH_FIND(by_no, d->tenants_by_no, &no, sizeof no, t);
    return t;
}

static int insert_tenant(struct directory *d, const struct tenant *tenant) {
    struct tenant_entry *t = calloc(1, sizeof *t);
    if (!t)
        return -ENOMEM;
    t->tenant = *tenant;
    atomic_init(&t->share, WHOLE);
    HASH_ADD(by_no, d->tenants_by_no, tenant.no, sizeof t->tenant.no, t);
    if (t->left_out) {
        free(t);
        return -ENOMEM;
    }
    d->unsorted = true;
    HASH_ADD_KEYPTR(by_id, d->tenants_by_id, t->tenant.id, strlen(t->tenant.id), t);
    if (t->left_out) {
        HASH_DELETE(by_no, d->tenants_by_no, t);
        free(t);
        return -ENOMEM;
    }
    return 0;
}

int directory_put_tenant(struct directory *d, const struct tenant *tenant) {
    CHECK(tenant->no > 0 && tenant->id[0]);
    int r = 0;
    pthread_rwlock_wrlock(&d->lock);
    struct tenant_entry *t = find_by_no(d, tenant->no);
    if (t) {
        CHECK(strcmp(t->tenant.id, tenant->id) == 0); /* the name a number has never changes */
        t->tenant = *tenant;
    } else {
        r = insert_tenant(d, tenant);
    }
    pthread_rwlock_unlock(&d->lock);
    return r;
}

void directory_remove_tenant(struct directory *d, uint32_t no) {
    pthread_rwlock_wrlock(&d->lock);
    struct tenant_entry *t = find_by_no(d, no);
    if (t)
        drop_tenant(d, t);
    struct key_entry *k, *next;
    HASH_ITER (hh, d->keys, k, next) {
        if (k->key.tenant_no == no)
            drop_key(d, k);
    }
    pthread_rwlock_unlock(&d->lock);
}

bool directory_tenant(struct directory *d, struct slice id, struct tenant *ret) {
    struct tenant_entry *t;
    if (!tenant_id_valid(id))
        return false;
    pthread_rwlock_rdlock(&d->lock);
    HASH_FIND(by_id, d->tenants_by_id, id.p, id.n, t);
    if (t)
        *ret = t->tenant;
    pthread_rwlock_unlock(&d->lock);
    return t != NULL;
}

bool directory_tenant_by_no(struct directory *d, uint32_t no, struct tenant *ret) {
    pthread_rwlock_rdlock(&d->lock);
    struct tenant_entry *t = find_by_no(d, no);
    if (t)
        *ret = t->tenant;
    pthread_rwlock_unlock(&d->lock);
    return t != NULL;
}

static int by_number(const struct tenant_entry *a, const struct tenant_entry *b) {
    return (a->tenant.no > b->tenant.no) - (a->tenant.no < b->tenant.no);
}

/* The walk goes along the table's own list, put in order when tenants have come since. */
bool directory_tenant_after(struct directory *d, uint32_t after_no, struct tenant *ret) {
    pthread_rwlock_wrlock(&d->lock);
    if (d->unsorted)
        HASH_SRT(by_no, d->tenants_by_no, by_number);
    d->unsorted = false;
    struct tenant_entry *t = after_no ? find_by_no(d, after_no) : NULL;
    t = t ? t->by_no.next : d->tenants_by_no;
    while (t && t->tenant.no <= after_no) /* the one it stood at is gone */
        t = t->by_no.next;
    if (t)
        *ret = t->tenant;
    pthread_rwlock_unlock(&d->lock);
    return t != NULL;
}

/* The generic cell rate algorithm: one number, moved without a lock. */
static bool take(struct tenant_entry *t, unsigned n, int64_t now_us, unsigned *ret_wait_seconds) {
    double share = (double)atomic_load_explicit(&t->share, memory_order_relaxed) / WHOLE;
    double rate = t->tenant.limits.events_per_second * share;
    double burst =
        (t->tenant.limits.events_per_second > BURST_MIN ? t->tenant.limits.events_per_second : BURST_MIN) *
        share;
    double cost_us = 1e6 / rate;
    int64_t full_us = (int64_t)(burst * cost_us), need_us = (int64_t)((n < burst ? n : burst) * cost_us);
    int64_t until = atomic_load_explicit(&t->busy_until_us, memory_order_relaxed), after, wait_us;
    do {
        int64_t from = until > now_us ? until : now_us;
        if (from > now_us + full_us) /* the rate was raised meanwhile: it holds from now on */
            from = now_us + full_us;
        wait_us = from + need_us - (now_us + full_us);
        after = wait_us > 0 ? from : from + need_us;
    } while (!atomic_compare_exchange_weak_explicit(&t->busy_until_us, &until, after, memory_order_relaxed,
                                                    memory_order_relaxed));
    if (wait_us > 0)
        *ret_wait_seconds = (unsigned)((wait_us + 999999) / 1000000);
    return wait_us <= 0;
}

bool directory_take_events(struct directory *d, uint32_t tenant_no, unsigned n, int64_t now_us,
                           unsigned *ret_wait_seconds) {
    pthread_rwlock_rdlock(&d->lock);
    struct tenant_entry *t = find_by_no(d, tenant_no);
    bool limited = t && t->tenant.limits.events_per_second;
    if (limited)
        atomic_fetch_add_explicit(&t->asked, n, memory_order_relaxed);
    bool taken = !limited || take(t, n, now_us, ret_wait_seconds);
    pthread_rwlock_unlock(&d->lock);
    return taken;
}

void directory_take_asked(struct directory *d,
                          void (*fn)(void *arg, uint32_t tenant_no, uint32_t quota, uint64_t asked),
                          void *arg) {
    pthread_rwlock_rdlock(&d->lock);
    for (struct tenant_entry *t = d->tenants_by_no; t; t = t->by_no.next) {
        uint64_t asked = atomic_load_explicit(&t->asked, memory_order_relaxed);
        if (!asked)
            continue;
        atomic_fetch_sub_explicit(&t->asked, asked, memory_order_relaxed);
        if (t->tenant.limits.events_per_second)
            fn(arg, t->tenant.no, t->tenant.limits.events_per_second, asked);
    }
    pthread_rwlock_unlock(&d->lock);
}

void directory_share_quota(struct directory *d, uint32_t tenant_no, double share) {
    CHECK(share > 0 && share <= 1);
    pthread_rwlock_rdlock(&d->lock);
    struct tenant_entry *t = find_by_no(d, tenant_no);
    if (t)
        atomic_store_explicit(&t->share, (unsigned)(share * (WHOLE - 1)) + 1, memory_order_relaxed);
    pthread_rwlock_unlock(&d->lock);
}

/* ---- keys ---- */

static int insert_key(struct directory *d, const uint8_t hash[32], const struct api_key *key) {
    struct key_entry *k = calloc(1, sizeof *k);
    if (!k)
        return -ENOMEM;
    memcpy(k->hash, hash, sizeof k->hash);
    k->key = *key;
    HASH_ADD(hh, d->keys, hash, sizeof k->hash, k);
    if (k->left_out) {
        free(k);
        return -ENOMEM;
    }
    return 0;
}

int directory_put_key(struct directory *d, const uint8_t hash[32], const struct api_key *key) {
    struct key_entry *k;
    pthread_rwlock_wrlock(&d->lock);
    HASH_FIND(hh, d->keys, hash, sizeof k->hash, k);
    int r = k ? 0 : insert_key(d, hash, key);
    pthread_rwlock_unlock(&d->lock);
    return r;
}

void directory_remove_key(struct directory *d, struct id id) {
    struct key_entry *k, *next;
    pthread_rwlock_wrlock(&d->lock);
    HASH_ITER (hh, d->keys, k, next) {
        if (id_eq(k->key.id, id))
            drop_key(d, k);
    }
    pthread_rwlock_unlock(&d->lock);
}

bool directory_key(struct directory *d, const uint8_t hash[32], struct api_key *ret) {
    struct key_entry *k;
    pthread_rwlock_rdlock(&d->lock);
    HASH_FIND(hh, d->keys, hash, sizeof k->hash, k);
    if (k)
        *ret = k->key;
    pthread_rwlock_unlock(&d->lock);
    return k != NULL;
}

/* ---- loading ---- */

int tenant_of_record(const struct tenant_record *record, struct tenant *ret) {
    struct field_errors errors;
    errors.n = errors.dropped = 0;
    struct tenant tenant = {.no = record->no, .tier_change = record->tier_change};
    if (record->id.n > TENANT_ID_MAX)
        return -EINVAL;
    memcpy(tenant.id, record->id.p, record->id.n);
    json_t *doc = json_loadb(record->doc.p, record->doc.n, 0, NULL);
    json_t *normal = doc ? tenant_parse(doc, &tenant, &errors) : NULL;
    json_decref(doc);
    if (!normal)
        return -EINVAL;
    json_decref(normal);
    *ret = tenant;
    return 0;
}

struct load {
    struct directory *directory;
    uint32_t before_no;
    size_t n;
};

static int load_tenant(void *arg, const struct tenant_record *row) {
    struct load *l = arg;
    struct tenant tenant;
    l->before_no = row->no;
    l->n++;
    int r = tenant_of_record(row, &tenant);
    return r < 0 ? r : directory_put_tenant(l->directory, &tenant);
}

static int load_key(void *arg, const struct key_record *row) {
    struct load *l = arg;
    struct api_key key = {
        .id = row->id, .tenant_no = row->tenant_no, .scopes = row->scopes, .expires_at = row->expires_at};
    return row->revoked_at ? 0 : directory_put_key(l->directory, row->hash, &key);
}

int directory_load(struct directory *d, struct store_reader *r) {
    struct load l = {.directory = d, .n = TENANTS_A_PAGE};
    while (l.n == TENANTS_A_PAGE) {
        l.n = 0;
        int e = store_list_tenants(r, l.before_no, TENANTS_A_PAGE, load_tenant, &l);
        if (e < 0)
            return e;
    }
    return store_list_keys(r, KEYS_MAX, load_key, &l);
}
