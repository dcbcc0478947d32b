#include "cli/operator.h"

#include <errno.h>

#include "base/random.h"
#include "core/url.h"
#include "store/cluster.h"

int operator_judge(const char *url, const struct address_policy *addresses, bool allow_http,
                   const char **ret_reason) {
    _cleanup_url_ struct url parsed = {0};
    *ret_reason = "memory is out";
    int r = url_parse(slice_of(url), &parsed, ret_reason);
    return r < 0 ? r : address_judge_url(addresses, allow_http, &parsed, ret_reason);
}

static struct id new_id(const struct operator_options *o, int64_t now) {
    uint64_t random;
    random_bytes(&random, sizeof random);
    return id_source_next(o->ids, now, random);
}

/* The subscription's document as text, which the caller frees. Only 410 disables it: the setting stands. */
static int make_doc(const char *url, char **ret) {
    struct field_errors errors;
    field_errors_init(&errors);
    json_t *wanted = json_pack("{s:s, s:[s], s:{s:i}}", "url", url, "event_types", "posthorn.*", "policy",
                               "disable_after_seconds", POLICY_DISABLE_AFTER_SECONDS_MAX);
    json_t *doc = wanted ? subscription_parse(wanted, &errors) : NULL;
    *ret = doc ? json_dumps(doc, JSON_COMPACT) : NULL;
    json_decref(wanted);
    json_decref(doc);
    if (field_errors_count(&errors))
        return -EINVAL;
    return *ret ? 0 : -ENOMEM;
}

/* One secret signs, the setting's: another is out of force at once. */
static int put_secret(const struct operator_options *o, uint32_t no, int64_t now) {
    struct signing_key wanted, keys[SUBSCRIPTION_SECRETS_MAX];
    size_t n = 0;
    int r = signing_key_parse(slice_of(o->secret), &wanted);
    if (r == 0)
        r = store_get_signing_keys(o->store, no, now, keys, &n);
    bool same = r == 0 && n == 1 && keys[0].size == wanted.size &&
                memcmp(keys[0].bytes, wanted.bytes, wanted.size) == 0;
    if (r == 0 && !same)
        r = store_expire_secrets(o->store, no, now);
    struct secret_record record = {.id = new_id(o, now),
                                   .subscription_no = no,
                                   .tenant_no = TENANT_OPERATOR,
                                   .key = wanted,
                                   .created_at = now};
    if (r == 0 && !same)
        r = store_insert_secret(o->store, &record);
    explicit_bzero(&wanted, sizeof wanted);
    explicit_bzero(&record, sizeof record);
    explicit_bzero(keys, sizeof keys);
    return r;
}

struct found {
    uint32_t no;
    struct id id;
};

static int take_found(void *arg, const struct subscription_record *row) {
    *(struct found *)arg = (struct found){row->no, row->id};
    return 0;
}

static int put(const struct operator_options *o, struct found found, int64_t now) {
    _cleanup_free_ char *doc = NULL;
    int r = make_doc(o->url, &doc);
    if (r < 0)
        return r;
    struct subscription_record record = {.no = found.no,
                                         .tenant_no = TENANT_OPERATOR,
                                         .id = found.id,
                                         .status = SUBSCRIPTION_ACTIVE,
                                         .doc = slice_of(doc),
                                         .created_at = now,
                                         .updated_at = now};
    if (found.no) {
        r = store_update_subscription(o->store, &record);
    } else {
        record.id = new_id(o, now);
        r = store_insert_subscription(o->store, &record, &record.no);
    }
    return r < 0 ? r : put_secret(o, record.no, now);
}

int operator_prepare(const struct operator_options *o, int64_t now) {
    struct found found = {0};
    int r = store_begin(o->store);
    if (r < 0)
        return r;
    r = store_be_alone(o->store); /* nodes that start at one time make one */
    if (r == 0)
        r = store_list_subscriptions(o->reader, TENANT_OPERATOR, -1, 0, 1, take_found, &found);
    if (r == 0 && o->url)
        r = put(o, found, now);
    else if (r == 0 && found.no)
        r = store_delete_subscription(o->store, found.no, now);
    if (r == 0)
        return store_commit(o->store);
    store_rollback(o->store);
    return r;
}
