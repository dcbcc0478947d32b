#include "ingest/cdc_event.h"

#include <errno.h>

#include "base/clock.h"
#include "base/json.h"

void cdc_event_clear(struct cdc_event *e) {
    struct buf *const texts[] = {&e->type, &e->tenant, &e->ordering_key, &e->schema_version, &e->data};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        buf_reset(texts[i]);
    e->deliver_at = 0;
}

void cdc_event_free(struct cdc_event *e) {
    struct buf *const texts[] = {&e->type, &e->tenant, &e->ordering_key, &e->schema_version, &e->data};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        buf_free(texts[i]);
}

bool cdc_event_ok(const struct cdc_event *e) {
    return buf_ok(&e->type) && buf_ok(&e->tenant) && buf_ok(&e->ordering_key) && buf_ok(&e->schema_version) &&
           buf_ok(&e->data);
}

static int refuse(struct buf *reason, const char *member, const char *problem) {
    buf_addf(reason, "%s%s%s", member, member[0] ? ": " : "", problem);
    return -EINVAL;
}

static int take_text(const char *name, const struct json_member *m, struct buf *out, struct buf *reason) {
    if (m->type == JSON_TYPE_NULL)
        return 0;
    if (m->type != JSON_TYPE_STRING)
        return refuse(reason, name, "must be a string");
    int r = json_string_decode(m->value, out);
    if (r == 0 && out->n == 0)
        return refuse(reason, name, "must not be empty");
    return r == -EINVAL ? refuse(reason, name, "must not contain U+0000") : r;
}

static int take_deliver_at(const struct json_member *m, struct cdc_event *out, struct buf *reason) {
    struct slice quoted = m->value;
    if (m->type == JSON_TYPE_NULL)
        return 0;
    if (m->type != JSON_TYPE_STRING ||
        rfc3339_parse((struct slice){quoted.p + 1, quoted.n - 2}, &out->deliver_at) < 0)
        return refuse(reason, "deliver_at", "must be a time as of RFC 3339, such as 2026-11-24T20:49:00Z");
    return 0;
}

enum member {
    M_TYPE,
    M_TENANT,
    M_ORDERING_KEY,
    M_SCHEMA_VERSION,
    M_TEXTS,
    M_DELIVER_AT = M_TEXTS,
    M_DATA,
    M_MEMBERS
};

static int take_member(const struct json_member *m, unsigned *seen, struct cdc_event *out,
                       struct buf *reason) {
    static const char *const names[M_MEMBERS] = {"type",           "tenant",     "ordering_key",
                                                 "schema_version", "deliver_at", "data"};
    struct buf *const texts[M_TEXTS] = {&out->type, &out->tenant, &out->ordering_key, &out->schema_version};
    enum member which = 0;
    while (which < M_MEMBERS && !json_key_is(m->key, names[which]))
        which++;
    if (which == M_MEMBERS)
        return refuse(
            reason, "",
            "a member is not known: there are type, data, tenant, ordering_key, schema_version, deliver_at");
    if (*seen & 1U << which)
        return refuse(reason, names[which], "is given twice");
    *seen |= 1U << which;
    if (which == M_DELIVER_AT)
        return take_deliver_at(m, out, reason);
    if (which < M_TEXTS)
        return take_text(names[which], m, texts[which], reason);
    buf_add_slice(&out->data, m->value);
    return 0;
}

static int not_json(const struct json_cursor *c, struct buf *reason) {
    buf_addf(reason, "the message is not a JSON object: %s at byte %zu",
             c->problem ? c->problem : "something else", json_offset(c));
    return -EINVAL;
}

int cdc_event_of_message(struct slice content, struct cdc_event *out, struct buf *reason) {
    struct json_cursor c = json_open(content);
    struct json_member m;
    bool first = true;
    unsigned seen = 0;
    cdc_event_clear(out);
    if (json_enter_object(&c) < 0)
        return not_json(&c, reason);
    int r;
    while ((r = json_next_member(&c, &first, &m)) > 0) {
        r = take_member(&m, &seen, out, reason);
        if (r < 0)
            return r;
    }
    if (r < 0 || json_finish(&c) < 0)
        return not_json(&c, reason);
    if (out->type.n == 0)
        return refuse(reason, "type", "is required");
    if (!(seen & 1U << M_DATA))
        return refuse(reason, "data", "is required");
    return cdc_event_ok(out) ? 0 : -ENOMEM;
}
