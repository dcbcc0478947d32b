/* A subscription's secrets; how it fares; and its test. */
#include <errno.h>

#include "api/routes.h"
#include "api/subscription_json.h"
#include "core/doc.h"

enum {
    OVERLAP_SECONDS_DEFAULT = 86400,
    OVERLAP_SECONDS_MAX = 30 * 86400,
    STATS_COUNT_MAX = 1000000, /* what /stats counts up to */
};

/* ---- what signs ---- */

static int list_secret(void *arg, const struct secret_record *row) {
    struct page *page = arg;
    char id[ID_TEXT_SIZE];
    if (page->before && row->id.key >= page->before)
        return 0;
    id_format(ID_SECRET, row->id, id);
    return page_add(page, row->id.key,
                    json_pack("{s:s, s:s, s:o, s:o, s:o}", "id", id, "scheme",
                              secret_scheme_name(row->key.scheme), "created_at",
                              control_time(row->created_at), "expires_at", control_time(row->key.expires_at),
                              "public_key", secret_public_json(&row->key)));
}

void route_list_secrets(struct request *r) {
    struct field_errors errors = {0};
    struct page page;
    struct found_subscription found;
    if (!page_begin(r, 'c', NULL, 0, &errors, &page))
        return;
    if (!control_subscription(r, &found)) {
        page_drop(&page);
        return;
    }
    json_decref(found.json);
    struct store_reader *reader = page_reader(r, &page, &errors);
    if (!reader)
        return;
    page_answer(r, &page, store_list_secrets(reader, found.no, r->now, list_secret, &page));
}

/* ---- rotating ---- */

struct rotation {
    uint32_t no;
    char id[ID_TEXT_SIZE];
    struct signing_key key;
    int64_t overlap_seconds;
};

static void free_rotation(void *data) {
    struct rotation *n = data;
    explicit_bzero(&n->key, sizeof n->key);
    free(n);
}

static json_t *rotated_json(const struct secret_record *secret, int64_t overlap_seconds) {
    char id[ID_TEXT_SIZE];
    id_format(ID_SECRET, secret->id, id);
    _cleanup_json_ json_t *to =
        json_pack("{s:s, s:s}", "id", id, "scheme", secret_scheme_name(secret->key.scheme));
    if (!to || secret_show(to, &secret->key) < 0 ||
        json_object_set_new(to, "public_key", secret_public_json(&secret->key)) < 0 ||
        json_object_set_new(to, "created_at", control_time(secret->created_at)) < 0 ||
        json_object_set_new(to, "overlap_seconds", json_integer(overlap_seconds)) < 0)
        return NULL;
    return TAKE_PTR(to);
}

/* Within the transaction: the subscription is there, and another secret has room beside those in force. */
static int check_rotation(struct request *r, struct store *s) {
    const struct rotation *n = r->data;
    struct subscription_record record;
    struct signing_key keys[SUBSCRIPTION_SECRETS_MAX];
    size_t in_force = 0;
    int e = store_get_subscription(s, n->no, &record);
    if (e == -ENOENT)
        control_no_subscription(r);
    if (e == 0)
        e = store_get_signing_keys(s, n->no, r->now, keys, &in_force);
    explicit_bzero(keys, sizeof keys);
    if (e == 0 && n->overlap_seconds && in_force >= SUBSCRIPTION_SECRETS_MAX) {
        request_problem(r, 409,
                        "%d secrets sign at this time, which is the most there may be: wait until an overlap "
                        "ends, or rotate with an overlap_seconds of 0.",
                        SUBSCRIPTION_SECRETS_MAX);
        return -EBUSY;
    }
    return e;
}

static int rotate(struct request *r, struct store *s) {
    const struct rotation *n = r->data;
    struct secret_record secret;
    int e = check_rotation(r, s);
    if (e == 0)
        e = store_expire_secrets(s, n->no, r->now + n->overlap_seconds * 1000);
    if (e == 0)
        e = secret_insert(r, s, n->no, &n->key, &secret);
    if (e < 0)
        return e;
    char id[ID_TEXT_SIZE];
    id_format(ID_SECRET, secret.id, id);
    _cleanup_json_ json_t *detail =
        json_pack("{s:s, s:I}", "secret_id", id, "overlap_seconds", (json_int_t)n->overlap_seconds);
    e = detail ? request_audit(r, s, "subscription.rotate_secret", n->id, detail) : -ENOMEM;
    if (e == 0)
        e = control_answer(r, 200, rotated_json(&secret, n->overlap_seconds));
    explicit_bzero(&secret, sizeof secret);
    return e;
}

static void rotated(struct request *r) {
    const struct rotation *n = r->data;
    apply_subscription(r->o->apply, n->no, r->now);
}

/* Reads the body, which may be absent; false after having answered. */
static bool read_rotation(struct request *r, int scheme, struct rotation *n) {
    static const char *const names[] = {"overlap_seconds", "secret"};
    struct field_errors errors = {0};
    struct doc d;
    int given = 0;
    n->overlap_seconds = OVERLAP_SECONDS_DEFAULT;
    if (r->body.n) {
        _cleanup_json_ json_t *body = request_object(r);
        if (!body)
            return false;
        doc_begin(&d, body, true, &errors);
        n->overlap_seconds = doc_int(&d, "overlap_seconds", 0, OVERLAP_SECONDS_MAX, OVERLAP_SECONDS_DEFAULT);
        given = secret_given(body, scheme, &n->key, &errors);
        doc_refuse_unknown(&d, names, sizeof names / sizeof names[0]);
        json_decref(doc_end(&d));
    }
    if (given >= 0 && field_errors_count(&errors)) {
        request_invalid(r, &errors);
        return false;
    }
    int e = given == 0 ? signing_key_generate((enum signing_scheme)scheme, &n->key) : given;
    if (e < 0)
        request_unavailable(r, e);
    return e >= 0;
}

void route_rotate_secret(struct request *r) {
    struct found_subscription found;
    if (!(r->body.n ? control_takes_json(r, false) : request_no_query(r)) || !control_subscription(r, &found))
        return;
    int scheme = subscription_scheme(found.json);
    json_decref(found.json);
    CHECK(scheme >= 0); /* a normal form has one */
    struct rotation *n = request_keep(r, sizeof *n, free_rotation);
    if (!n)
        return;
    n->no = found.no;
    memcpy(n->id, found.id, sizeof n->id);
    if (read_rotation(r, scheme, n))
        request_change(r, rotate, rotated);
}

/* ---- how it fares ---- */

static json_t *percentile(int32_t ms) {
    return ms < 0 ? json_null() : json_integer(ms);
}

static json_t *stats_json(const struct lane_stats *s, json_int_t max_in_flight, uint64_t pending,
                          uint64_t dlq) {
    uint64_t attempts = s->successes + s->failures;
    json_t *rate = attempts ? json_real((double)s->successes / (double)attempts) : json_null();
    json_t *latency = json_pack("{s:o, s:o, s:o}", "p50", percentile(s->latency_p50_ms), "p95",
                                percentile(s->latency_p95_ms), "p99", percentile(s->latency_p99_ms));
    /* A lane that its loop has not heard of yet has not been held back either. */
    json_int_t concurrency = s->known ? (json_int_t)s->concurrency : max_in_flight;
    return json_pack("{s:o, s:o, s:I, s:I, s:I, s:I, s:s, s:s?}", "success_rate", rate, "latency_ms", latency,
                     "pending", (json_int_t)pending, "dlq", (json_int_t)dlq, "in_flight",
                     (json_int_t)s->in_flight, "concurrency", concurrency, "breaker", s->breaker,
                     "waiting_on", lane_wait_name(s->waiting_on));
}

void route_subscription_stats(struct request *r) {
    struct found_subscription found;
    struct lane_stats stats;
    uint64_t pending = 0, dlq = 0;
    struct store_reader *reader;
    if (!request_no_query(r) || !control_subscription(r, &found))
        return;
    const json_t *policy = json_object_get(found.json, "policy");
    json_int_t max_in_flight = json_integer_value(json_object_get(policy, "max_in_flight"));
    json_decref(found.json);
    if (!(reader = request_reader(r)))
        return;
    int e = store_count_lane(reader, found.no, r->tenant.no, STATS_COUNT_MAX, &pending, &dlq);
    if (e == 0)
        e = request_lane_stats(r, found.no, &stats);
    if (e < 0)
        request_unavailable(r, e);
    else
        request_json(r, 200, stats_json(&stats, max_in_flight, pending, dlq));
}

/* ---- the test ---- */

#define TEST_EVENT "{\"type\":\"posthorn.test\",\"data\":{\"message\":\"This is a test of your webhook.\"}}"

struct test {
    struct ingest_request ingest;
    struct ingest_event event;
    struct request *r;
};

static void tested(struct ingest_request *q, int result) {
    struct test *t = (struct test *)q;
    struct request *r = t->r;
    char event_id[ID_TEXT_SIZE], delivery_id[ID_TEXT_SIZE];
    ingest_request_clear(q);
    id_format(ID_EVENT, t->event.id, event_id);
    id_format(ID_DELIVERY, id_of_delivery(t->event.id.key, q->only_subscription), delivery_id);
    if (result == -ENOENT)
        control_no_subscription(r);
    else if (result < 0)
        request_unavailable(r, result);
    else
        request_json(r, 202, json_pack("{s:s, s:s}", "delivery_id", delivery_id, "event_id", event_id));
    request_resume(r);
}

static int make_test_event(int64_t now, struct publish *ret) {
    struct publish_rules rules = {
        .prefix = "", .allow_reserved = true, .data_bytes_max = sizeof TEST_EVENT, .now = now};
    struct field_errors errors = {0};
    const char *problem;
    size_t offset;
    return publish_parse(SLICE_LIT(TEST_EVENT), &rules, ret, &errors, &problem, &offset);
}

void route_test_subscription(struct request *r) {
    struct found_subscription found;
    if (!request_no_query(r) || !control_subscription(r, &found))
        return;
    json_decref(found.json);
    struct test *t = request_keep(r, sizeof *t, free);
    if (!t)
        return;
    int e = make_test_event(r->now, &t->event.publish);
    if (e < 0) {
        CHECK(e == -ENOMEM); /* the event is ours */
        request_unavailable(r, e);
        return;
    }
    t->r = r;
    t->ingest = (struct ingest_request){.tenant_no = r->tenant.no,
                                        .only_subscription = found.no,
                                        .n = 1,
                                        .events = &t->event,
                                        .done = tested};
    memcpy(t->ingest.tenant_id, r->tenant.id, sizeof t->ingest.tenant_id);
    request_suspend(r);
    e = ingest_submit(r->o->ingest, &t->ingest, r->now);
    if (e < 0) {
        request_unavailable(r, e);
        request_resume(r);
    }
}
