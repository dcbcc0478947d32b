#include "store/snapshot.h"

#include <errno.h>

#include "base/log.h"
#include "store/directory.h"

/* A document that the store holds was valid when it went in: another is damage. */
static int damaged(const char *what, uint32_t no) {
    log_error("the store holds a document that cannot be read", log_str("of", what), log_int("no", no));
    return -EIO;
}

/* All that a subscription's own row says. */
static int read_row(const struct subscription_record *r, const struct tenant *owner, struct policy_memo *memo,
                    struct subscription **ret) {
    struct subscription *s = NULL;
    int e = subscription_from_text(r->doc, slice_of(owner->id), memo, &s);
    if (e < 0)
        return e == -EINVAL ? damaged("subscription", r->no) : e;
    s->no = r->no;
    s->tenant_no = r->tenant_no;
    s->id = r->id;
    s->status = r->status;
    s->resumed_at = r->resumed_at;
    s->jobs_settled = r->jobs_settled;
    s->relane = r->relane;
    s->failing_since = r->failing_since;
    s->raised_since = r->raised_since;
    *ret = s;
    return 0;
}

static int read_owner(const struct tenant_record *r, struct tenant *ret) {
    int e = tenant_of_record(r, ret);
    return e == -EINVAL ? damaged("tenant", r->no) : e;
}

/* Takes over what was read, and wipes the text. */
static int take_tls(struct subscription *s, int result, struct buf *text) {
    if (result == 0)
        result = tls_material_of_text(buf_slice(text), &s->tls);
    buf_wipe(text);
    return result == -ENOENT || result == -EINVAL ? damaged("TLS material", s->no) : result;
}

/* Whom no row stands for. */
static const struct tenant operator_owner = {.no = TENANT_OPERATOR, .tier = TIER_STANDARD};

static int load_owner(struct store *store, uint32_t no, struct tenant *ret) {
    struct tenant_record tenant;
    *ret = operator_owner;
    int r = no == TENANT_OPERATOR ? 0 : store_get_tenant(store, no, &tenant);
    return r < 0 || no == TENANT_OPERATOR ? r : read_owner(&tenant, ret);
}

/* What its own row does not say. */
static int complete(struct subscription *s, const struct tenant *owner, const struct signing_key *keys,
                    size_t keys_n, bool server_allow_http) {
    s->tier = owner->tier;
    s->tier_change = owner->tier_change;
    s->allow_http = owner->allow_http || server_allow_http;
    if (keys_n == 0)
        return 0;
    CHECK(keys_n <= SUBSCRIPTION_SECRETS_MAX);
    s->keys = calloc(keys_n, sizeof *keys);
    if (!s->keys)
        return -ENOMEM;
    memcpy(s->keys, keys, keys_n * sizeof *keys);
    s->keys_n = (uint16_t)keys_n;
    return 0;
}

int snapshot_load(struct store *store, uint32_t subscription_no, int64_t now, bool server_allow_http,
                  struct policy_memo *memo, struct subscription **ret) {
    _cleanup_subscription_ struct subscription *s = NULL;
    struct subscription_record row;
    struct tenant owner;
    struct buf tls = {0};
    uint32_t tenant_no;
    int r = store_get_subscription_tenant(store, subscription_no, &tenant_no);
    if (r == 0)
        r = load_owner(store, tenant_no, &owner);
    if (r == 0)
        r = store_get_subscription(store, subscription_no, &row);
    if (r == 0)
        r = read_row(&row, &owner, memo, &s);
    if (r == 0 && s->has_tls)
        r = take_tls(s, store_get_tls(store, subscription_no, &tls), &tls);
    if (r < 0)
        return r;
    struct signing_key keys[SUBSCRIPTION_SECRETS_MAX];
    size_t keys_n;
    r = store_get_signing_keys(store, subscription_no, now, keys, &keys_n);
    if (r == 0)
        r = complete(s, &owner, keys, keys_n, server_allow_http);
    explicit_bzero(keys, sizeof keys);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(s);
    return 0;
}

/* ---- all of them ---- */

struct merge {
    struct store_reader *reader;
    struct buf owners; /* of struct tenant, descending by number */
    struct policy_memo memo;
    int64_t now;
    bool server_allow_http;
    int (*fn)(void *arg, struct subscription *s);
    void *arg;
};

static int add_owner(void *arg, const struct tenant_record *row) {
    struct merge *m = arg;
    struct tenant owner;
    int r = read_owner(row, &owner);
    if (r < 0)
        return r;
    buf_add(&m->owners, &owner, sizeof owner);
    return buf_ok(&m->owners) ? 0 : -ENOMEM;
}

static const struct tenant *find_owner(const struct merge *m, uint32_t no) {
    if (no == TENANT_OPERATOR)
        return &operator_owner;
    const struct tenant *owners = (const struct tenant *)m->owners.p;
    size_t low = 0, high = m->owners.n / sizeof *owners;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (owners[middle].no == no)
            return &owners[middle];
        if (owners[middle].no > no)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

struct keys {
    struct signing_key at[SUBSCRIPTION_SECRETS_MAX];
    size_t n;
};

static int add_key(void *arg, const struct secret_record *row) {
    struct keys *keys = arg;
    if (keys->n < SUBSCRIPTION_SECRETS_MAX)
        keys->at[keys->n++] = row->key;
    return 0;
}

static int hand_on(void *arg, const struct subscription_record *row) {
    struct merge *m = arg;
    struct keys keys = {.n = 0};
    const struct tenant *owner = find_owner(m, row->tenant_no);
    if (!owner)
        return damaged("a subscription whose tenant is gone", row->no);
    _cleanup_subscription_ struct subscription *s = NULL;
    struct buf tls = {0};
    int r = read_row(row, owner, &m->memo, &s);
    if (r == 0 && s->has_tls)
        r = take_tls(s, store_read_tls(m->reader, row->no, &tls), &tls);
    if (r == 0)
        r = store_list_secrets(m->reader, row->no, m->now, add_key, &keys);
    if (r == 0)
        r = complete(s, owner, keys.at, keys.n, m->server_allow_http);
    explicit_bzero(&keys, sizeof keys);
    return r < 0 ? r : m->fn(m->arg, TAKE_PTR(s));
}

int snapshot_each(struct store_reader *r, int64_t now, bool server_allow_http,
                  int (*fn)(void *arg, struct subscription *s), void *arg) {
    struct merge m = {.reader = r, .now = now, .server_allow_http = server_allow_http, .fn = fn, .arg = arg};
    int e = store_list_tenants(r, 0, SIZE_MAX, add_owner, &m);
    if (e == 0)
        e = store_each_subscription(r, hand_on, &m);
    buf_free(&m.owners);
    policy_memo_clear(&m.memo);
    return e;
}
