#include "api/subscription_json.h"

#include <errno.h>

#include "base/clock.h"
#include "base/random.h"
#include "core/doc.h"

/* ---- what came ---- */

bool control_takes_json(struct request *r, bool patch) {
    static const char *const types[] = {"application/json", "application/merge-patch+json"};
    return request_no_query(r) && request_content_type(r, types, patch ? 2 : 1);
}

/* ---- rendering ---- */

json_t *control_time(int64_t at) {
    char text[RFC3339_SIZE];
    if (!at)
        return json_null();
    rfc3339_format(at, text);
    return json_string(text);
}

json_t *subscription_json(const struct subscription_record *row, const json_t *doc, const char *tenant_id) {
    static const char *const before_reason[] = {"url",         "event_types", "filter",
                                                "description", "metadata",    "status"};
    static const char *const after_reason[] = {"ordering", "format",   "signature",
                                               "headers",  "receipts", "policy"};
    char id[ID_TEXT_SIZE];
    id_format(ID_SUBSCRIPTION, row->id, id);
    _cleanup_json_ json_t *to = json_pack("{s:s, s:s}", "id", id, "tenant_id", tenant_id);
    struct slice reason = row->disabled_reason;
    int r = 0;
    for (size_t i = 0; i < sizeof before_reason / sizeof before_reason[0]; i++)
        r |= json_object_set(to, before_reason[i], json_object_get(doc, before_reason[i]));
    r |=
        json_object_set_new(to, "disabled_reason", reason.p ? json_stringn(reason.p, reason.n) : json_null());
    for (size_t i = 0; i < sizeof after_reason / sizeof after_reason[0]; i++)
        r |= json_object_set(to, after_reason[i], json_object_get(doc, after_reason[i]));
    r |= json_object_set_new(to, "created_at", control_time(row->created_at));
    r |= json_object_set_new(to, "updated_at", control_time(row->updated_at));
    return r == 0 ? TAKE_PTR(to) : NULL;
}

json_t *secret_public_json(const struct signing_key *key) {
    char text[SECRET_TEXT_SIZE];
    if (key->scheme != SIGNING_ED25519)
        return json_null();
    signing_key_public_text(key, text);
    return json_string(text);
}

const char *secret_scheme_name(enum signing_scheme scheme) {
    return scheme == SIGNING_ED25519 ? "ed25519" : "hmac";
}

int control_answer(struct request *r, int status, json_t *doc) {
    if (!doc)
        return -ENOMEM;
    request_json(r, status, doc);
    return 0;
}

/* ---- subscriptions and secrets ---- */

struct finding {
    struct found_subscription *found;
    const char *tenant_id;
};

static int take_found(void *arg, const struct subscription_record *row) {
    struct finding *f = arg;
    _cleanup_json_ json_t *doc = json_loadb(row->doc.p, row->doc.n, 0, NULL);
    f->found->no = row->no;
    id_format(ID_SUBSCRIPTION, row->id, f->found->id);
    f->found->json = subscription_json(row, doc, f->tenant_id);
    return f->found->json ? 0 : -ENOMEM;
}

bool control_subscription(struct request *r, struct found_subscription *ret) {
    struct id id;
    struct store_reader *reader;
    struct finding f = {ret, r->tenant.id};
    if (!request_id(r, ID_SUBSCRIPTION, &id) || !(reader = request_reader(r)))
        return false;
    int e = store_read_subscription(reader, r->tenant.no, id, take_found, &f);
    if (e == -ENOENT)
        control_no_subscription(r);
    else if (e < 0)
        request_unavailable(r, e);
    return e == 0;
}

void control_no_subscription(struct request *r) {
    request_problem(r, 404, "There is no such subscription.");
}

int subscription_scheme(const json_t *doc) {
    const json_t *word = json_object_get(doc, "signature");
    if (!word || json_is_null(word) || slice_eq(doc_string(word), SLICE_LIT("hmac")))
        return SIGNING_HMAC;
    return slice_eq(doc_string(word), SLICE_LIT("ed25519")) ? SIGNING_ED25519 : -1;
}

int secret_given(const json_t *body, int scheme, struct signing_key *ret, struct field_errors *errors) {
    const json_t *given = json_object_get(body, "secret");
    struct slice text = doc_string(given);
    if (!given || json_is_null(given))
        return 0;
    int r = text.p ? signing_key_parse(text, ret) : -EINVAL;
    bool is_public = r == 0 && slice_starts_with(text, SLICE_LIT("whpk_"));
    if (r == -EIO)
        return r;
    if (r < 0 || is_public)
        field_error_add(errors, "secret",
                        "must be whsec_ and base64 of %d to %d bytes, or whsk_ and base64 of an ed25519 seed "
                        "and its public key",
                        SECRET_BYTES_MIN, SECRET_BYTES_MAX);
    else if (scheme >= 0 && scheme != (int)ret->scheme)
        field_error_add(errors, "secret", "must fit the subscription's signature: %s",
                        scheme == SIGNING_ED25519 ? "ed25519 (whsk_)" : "hmac (whsec_)");
    else
        return 1;
    return 0;
}

struct id control_new_id(struct request *r) {
    uint64_t random;
    random_bytes(&random, sizeof random);
    return id_source_next(r->o->ids, r->now, random);
}

int secret_insert(struct request *r, struct store *s, uint32_t subscription_no, const struct signing_key *key,
                  struct secret_record *ret) {
    *ret = (struct secret_record){
        .id = control_new_id(r),
        .subscription_no = subscription_no,
        .tenant_no = r->tenant.no,
        .key = *key,
        .created_at = r->now,
    };
    return store_insert_secret(s, ret);
}

int secret_show(json_t *answer, const struct signing_key *key) {
    char text[SECRET_TEXT_SIZE];
    signing_key_text(key, text);
    int r = json_object_set_new(answer, "secret", json_string(text));
    explicit_bzero(text, sizeof text);
    return r == 0 ? 0 : -ENOMEM;
}
