/* Publish bodies: any bytes are parsed; what is accepted makes bodies that are JSON and keep the data's
 * bytes. jansson is the second opinion on what JSON is. */
#include <errno.h>
#include <jansson.h>

#include "core/event.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct id ID = {.key = UINT64_C(1795553340123) << 12, .tail = 5};
static const int64_t NOW = 1795553340123;

static void check_json(struct slice text) {
    struct json_cursor c = json_open(text);
    struct slice value;
    enum json_type type;
    CHECK(json_value(&c, &value, &type) == 0 && json_finish(&c) == 0 && type == JSON_TYPE_OBJECT);
}

static void check_text(struct slice s, size_t most) {
    CHECK(!s.p || (s.n >= 1 && s.n <= most && strlen(s.p) == s.n));
}

static void check_bodies(const struct publish *p) {
    _cleanup_blob_ struct blob *envelope = event_envelope(ID, "acme", p);
    CHECK(envelope);
    check_json(blob_slice(envelope));
    CHECK(slice_eq(event_data(blob_slice(envelope), p->data.n), p->data));
    struct event_meta m = {.id = ID,
                           .type = p->type,
                           .schema_version = p->schema_version,
                           .ordering_key = p->ordering_key,
                           .tenant_id = "acme"};
    _cleanup_buf_ struct buf cloudevent = {0};
    event_cloudevents(&m, p->data, &cloudevent);
    CHECK(buf_ok(&cloudevent));
    check_json(buf_slice(&cloudevent));
}

static void check_accepted(const struct publish *p, struct slice body, const struct publish_rules *rules) {
    check_text(p->type, EVENT_TYPE_MAX);
    check_text(p->schema_version, EVENT_SCHEMA_VERSION_MAX);
    check_text(p->ordering_key, EVENT_ORDERING_KEY_MAX);
    check_text(p->idempotency_key, IDEMPOTENCY_KEY_MAX);
    CHECK(event_type_valid(p->type) && p->schema_version.p);
    CHECK(rules->in_batch || !p->idempotency_key.p);
    CHECK(rules->allow_reserved || !slice_starts_with(p->type, SLICE_LIT("posthorn.")));
    CHECK(p->data.n >= 1 && p->data.n <= rules->data_bytes_max);
    CHECK(p->data.p > body.p && p->data.p + p->data.n < body.p + body.n);
    CHECK(p->deliver_at == 0 || (p->deliver_at > NOW && p->deliver_at <= NOW + EVENT_DELIVER_AHEAD_MS_MAX));
    check_bodies(p);
}

/* What jansson takes for JSON is none to us only when it is nested deeper than 64 levels. (jansson steps over
 * a NUL that follows a number.) */
static void check_malformed(struct slice body, const char *problem, size_t offset) {
    CHECK(problem && offset <= body.n);
    if (body.n == 0 || memchr(body.p, '\0', body.n))
        return;
    json_t *other = json_loadb(body.p, body.n, JSON_DECODE_ANY, NULL);
    CHECK(!other || strcmp(problem, "nested deeper than 64 levels") == 0);
    json_decref(other);
}

static void parse(struct slice body, const struct publish_rules *rules) {
    static struct field_errors errors;
    struct publish p;
    const char *problem = NULL;
    size_t offset = 0;
    errors.n = errors.dropped = 0;
    int r = publish_parse(body, rules, &p, &errors, &problem, &offset);
    CHECK(r == 0 || r == -EBADMSG || r == -EINVAL || r == -EMSGSIZE);
    CHECK((errors.n > 0) == (r == -EINVAL || r == -EMSGSIZE));
    if (r == 0)
        check_accepted(&p, body, rules);
    if (r == -EBADMSG)
        check_malformed(body, problem, offset);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const struct publish_rules one = {.prefix = "", .data_bytes_max = SIZE_MAX, .now = NOW};
    static const struct publish_rules batch = {
        .prefix = "[3].", .in_batch = true, .allow_reserved = true, .data_bytes_max = 64, .now = NOW};
    struct slice body = {(const char *)data, size};
    parse(body, &one);
    parse(body, &batch);
    return 0;
}
