#include "core/event.h"

#include <errno.h>
#include <stdio.h>

#include "base/clock.h"

enum member {
    M_TYPE,
    M_SCHEMA_VERSION,
    M_ORDERING_KEY,
    M_IDEMPOTENCY_KEY,
    M_TEXTS,
    M_DELIVER_AT = M_TEXTS,
    M_DATA,
    M_MEMBERS
};

static const char *const member_names[M_MEMBERS] = {
    [M_TYPE] = "type",
    [M_SCHEMA_VERSION] = "schema_version",
    [M_ORDERING_KEY] = "ordering_key",
    [M_IDEMPOTENCY_KEY] = "idempotency_key",
    [M_DELIVER_AT] = "deliver_at",
    [M_DATA] = "data",
};

static const size_t text_max[M_TEXTS] = {
    [M_TYPE] = EVENT_TYPE_MAX,
    [M_SCHEMA_VERSION] = EVENT_SCHEMA_VERSION_MAX,
    [M_ORDERING_KEY] = EVENT_ORDERING_KEY_MAX,
    [M_IDEMPOTENCY_KEY] = IDEMPOTENCY_KEY_MAX,
};

enum {
    DELIVER_AT_TEXT_MAX = 64,
    ESCAPE_BYTES_MAX = 6, /* of one character: \u0041 */
};

struct parser {
    const struct publish_rules *rules;
    struct field_errors *errors;
    size_t errors_n, errors_dropped; /* before */
    bool bad;
    unsigned seen; /* a bit a member */
    bool data_too_large;
    struct slice text[M_TEXTS]; /* in the request, or in `decoded` when they had escapes */
    struct slice data;
    int64_t deliver_at;
    size_t decoded_n;
    char decoded[PUBLISH_STRINGS_SIZE];
};

bool event_type_valid(struct slice type) {
    if (type.n < 1 || type.n > EVENT_TYPE_MAX)
        return false;
    for (size_t i = 0; i < type.n; i++) {
        char c = type.p[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
              c == '.' || c == '-'))
            return false;
    }
    return true;
}

bool event_type_reserved(struct slice type) {
    return slice_starts_with(type, SLICE_LIT("posthorn."));
}

static void add_error(struct parser *p, struct slice name, const char *message) {
    char field[sizeof p->errors->at[0].field];
    int n = snprintf(field, sizeof field, "%s%.*s", p->rules->prefix, SLICE_ARG(name));
    /* "[3]." before nothing is "[3]". */
    if (name.n == 0 && n > 0 && field[n - 1] == '.')
        field[n - 1] = '\0';
    field_error_add(p->errors, field, "%s", message);
    p->bad = true;
}

static void member_error(struct parser *p, enum member m, const char *message) {
    add_error(p, slice_of(member_names[m]), message);
}

/* The name is shown with its escapes resolved, where that can be. */
static int unknown_member(struct parser *p, struct slice key) {
    _cleanup_buf_ struct buf name = {0};
    struct slice quoted = {key.p - 1, key.n + 2};
    int r = json_string_decode(quoted, &name);
    if (r == -ENOMEM)
        return r;
    bool idempotency = json_key_is(key, member_names[M_IDEMPOTENCY_KEY]);
    add_error(p, r == 0 ? buf_slice(&name) : key,
              idempotency ? "is for batches: use the header Idempotency-Key" : "is not known");
    return 0;
}

/* The characters of a string member of at most `max` bytes: 1 with them, 0 after an error was added, -ENOMEM.
 */
static int read_text(struct parser *p, enum member m, const struct json_member *member, size_t max,
                     struct slice *ret) {
    if (member->type != JSON_TYPE_STRING) {
        member_error(p, m, "must be a string");
        return 0;
    }
    struct slice inner = {member->value.p + 1, member->value.n - 2};
    _cleanup_buf_ struct buf plain = {0};
    if (inner.n <= max * ESCAPE_BYTES_MAX && inner.n && memchr(inner.p, '\\', inner.n)) {
        int r = json_string_decode(member->value, &plain);
        if (r == -ENOMEM)
            return r;
        if (r < 0) {
            member_error(p, m, "must not contain U+0000");
            return 0;
        }
        inner = buf_slice(&plain);
    }
    if (inner.n < 1 || inner.n > max) {
        char message[64];
        snprintf(message, sizeof message, "must have 1 to %zu bytes", max);
        member_error(p, m, message);
        return 0;
    }
    if (plain.p) {
        CHECK(inner.n <= sizeof p->decoded - p->decoded_n);
        char *to = p->decoded + p->decoded_n;
        memcpy(to, inner.p, inner.n);
        p->decoded_n += inner.n;
        inner.p = to;
    }
    *ret = inner;
    return 1;
}

static bool printable_ascii(struct slice s) {
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] < ' ' || s.p[i] > '~')
            return false;
    return true;
}

static const char *text_problem(const struct parser *p, enum member m, struct slice text) {
    switch (m) {
    case M_TYPE:
        if (!event_type_valid(text))
            return "must be of A-Z, a-z, 0-9, '_', '.' and '-'";
        if (!p->rules->allow_reserved && event_type_reserved(text))
            return "must not begin with \"posthorn.\", which is reserved";
        return NULL;
    case M_SCHEMA_VERSION:
    case M_IDEMPOTENCY_KEY:
        return printable_ascii(text) ? NULL : "must be of printable ASCII characters";
    default:
        return NULL;
    }
}

static int take_text(struct parser *p, enum member m, const struct json_member *member) {
    struct slice text;
    if (member->type == JSON_TYPE_NULL && m != M_TYPE)
        return 0;
    int r = read_text(p, m, member, text_max[m], &text);
    if (r <= 0)
        return r;
    const char *problem = text_problem(p, m, text);
    if (problem)
        member_error(p, m, problem);
    else
        p->text[m] = text;
    return 0;
}

static int take_deliver_at(struct parser *p, const struct json_member *member) {
    struct slice text;
    int64_t at;
    if (member->type == JSON_TYPE_NULL)
        return 0;
    int r = read_text(p, M_DELIVER_AT, member, DELIVER_AT_TEXT_MAX, &text);
    if (r <= 0)
        return r;
    if (rfc3339_parse(text, &at) < 0)
        member_error(p, M_DELIVER_AT, "must be a time as of RFC 3339, such as 2026-11-24T20:49:00Z");
    else if (at > p->rules->now + EVENT_DELIVER_AHEAD_MS_MAX)
        member_error(p, M_DELIVER_AT, "must be at most 30 days ahead");
    else
        p->deliver_at = at > p->rules->now ? at : 0;
    return 0;
}

static void take_data(struct parser *p, const struct json_member *member) {
    p->data = member->value;
    if (member->value.n <= p->rules->data_bytes_max)
        return;
    char message[64];
    snprintf(message, sizeof message, "must have at most %zu bytes", p->rules->data_bytes_max);
    member_error(p, M_DATA, message);
    p->data_too_large = true;
}

static int take_member(struct parser *p, const struct json_member *member) {
    enum member m = 0;
    while (m < M_MEMBERS && !json_key_is(member->key, member_names[m]))
        m++;
    if (m == M_MEMBERS || (m == M_IDEMPOTENCY_KEY && !p->rules->in_batch))
        return unknown_member(p, member->key);
    if (p->seen & 1U << m) {
        member_error(p, m, "is given twice");
        return 0;
    }
    p->seen |= 1U << m;
    if (m == M_DATA) {
        take_data(p, member);
        return 0;
    }
    return m == M_DELIVER_AT ? take_deliver_at(p, member) : take_text(p, m, member);
}

/* Says what is malformed and takes back what was said about fields: 400 tells only of the text. */
static int malformed(struct parser *p, const struct json_cursor *c, const char **ret_problem,
                     size_t *ret_offset) {
    p->errors->n = p->errors_n;
    p->errors->dropped = p->errors_dropped;
    *ret_problem = c->problem;
    *ret_offset = json_offset(c);
    return -EBADMSG;
}

static int parse_members(struct parser *p, struct json_cursor *c, const char **ret_problem,
                         size_t *ret_offset) {
    struct json_member member;
    bool first = true;
    int r;
    while ((r = json_next_member(c, &first, &member)) > 0) {
        r = take_member(p, &member);
        if (r < 0)
            return r;
    }
    if (r < 0 || json_finish(c) < 0)
        return malformed(p, c, ret_problem, ret_offset);
    if (!(p->seen & 1U << M_TYPE))
        member_error(p, M_TYPE, "is required");
    if (!(p->seen & 1U << M_DATA))
        member_error(p, M_DATA, "is required");
    return 0;
}

/* A body that is no object: malformed, or JSON of another kind. */
static int parse_other(struct parser *p, struct slice body, const char **ret_problem, size_t *ret_offset) {
    struct json_cursor c = json_open(body);
    struct slice value;
    enum json_type type;
    if (json_value(&c, &value, &type) < 0 || json_finish(&c) < 0)
        return malformed(p, &c, ret_problem, ret_offset);
    add_error(p, p->rules->prefix[0] ? SLICE_LIT("") : SLICE_LIT("body"), "must be an object");
    return 0;
}

/* Copies the texts, each NUL-terminated, to where the result keeps them. */
static void keep(const struct parser *p, struct publish *ret) {
    struct slice *to[M_TEXTS] = {[M_TYPE] = &ret->type,
                                 [M_SCHEMA_VERSION] = &ret->schema_version,
                                 [M_ORDERING_KEY] = &ret->ordering_key,
                                 [M_IDEMPOTENCY_KEY] = &ret->idempotency_key};
    char *at = ret->strings;
    for (int m = 0; m < M_TEXTS; m++) {
        struct slice text = p->text[m];
        if (!text.p && m == M_SCHEMA_VERSION)
            text = SLICE_LIT("1");
        *to[m] = SLICE_NONE;
        if (!text.p)
            continue;
        memcpy(at, text.p, text.n);
        at[text.n] = '\0';
        *to[m] = (struct slice){at, text.n};
        at += text.n + 1;
    }
    CHECK(at <= ret->strings + sizeof ret->strings);
    ret->data = p->data;
    ret->deliver_at = p->deliver_at;
}

int publish_parse(struct slice body, const struct publish_rules *rules, struct publish *ret,
                  struct field_errors *errors, const char **ret_problem, size_t *ret_offset) {
    struct parser p; /* `decoded` is not worth zeroing */
    p.rules = rules;
    p.errors = errors;
    p.errors_n = errors->n;
    p.errors_dropped = errors->dropped;
    p.bad = false;
    p.seen = 0;
    p.data_too_large = false;
    p.data = SLICE_NONE;
    p.deliver_at = 0;
    p.decoded_n = 0;
    memset(p.text, 0, sizeof p.text);

    struct json_cursor c = json_open(body);
    int r = json_enter_object(&c) == 0 ? parse_members(&p, &c, ret_problem, ret_offset)
                                       : parse_other(&p, body, ret_problem, ret_offset);
    if (r < 0)
        return r;
    if (p.data_too_large)
        return -EMSGSIZE;
    if (p.bad)
        return -EINVAL;
    CHECK(p.text[M_TYPE].p && p.data.p);
    keep(&p, ret);
    return 0;
}

struct blob *event_envelope(struct id id, const char *tenant_id, const struct publish *p) {
    char id_text[ID_TEXT_SIZE], at[RFC3339_SIZE];
    _cleanup_buf_ struct buf head = {0};
    id_format(ID_EVENT, id, id_text);
    rfc3339_format(id_ms(id), at);
    buf_addf(&head, "{\"id\":\"%s\",\"type\":", id_text);
    buf_add_json_string(&head, p->type);
    buf_addf(&head, ",\"timestamp\":\"%s\",\"tenant_id\":", at);
    buf_add_json_string(&head, slice_of(tenant_id));
    buf_add_str(&head, ",\"schema_version\":");
    buf_add_json_string(&head, p->schema_version);
    buf_add_str(&head, ",\"data\":");
    struct blob *envelope = buf_ok(&head) ? blob_new(head.n + p->data.n + 1) : NULL;
    if (!envelope)
        return NULL;
    memcpy(envelope->p, head.p, head.n);
    memcpy(envelope->p + head.n, p->data.p, p->data.n);
    envelope->p[head.n + p->data.n] = '}';
    return envelope;
}

struct slice event_envelope_type(struct slice envelope) {
    enum { TYPE_AT = sizeof "{\"id\":\"" - 1 + ID_TEXT_SIZE - 1 + sizeof "\",\"type\":\"" - 1 };
    CHECK(envelope.n > TYPE_AT);
    const char *at = envelope.p + TYPE_AT, *end = memchr(at, '"', envelope.n - TYPE_AT);
    CHECK(end != NULL);
    return (struct slice){at, (size_t)(end - at)};
}

void event_cloudevents(const struct event_meta *m, struct slice data, struct buf *out) {
    char id_text[ID_TEXT_SIZE], at[RFC3339_SIZE];
    id_format(ID_EVENT, m->id, id_text);
    rfc3339_format(id_ms(m->id), at);
    CHECK(tenant_id_valid(slice_of(m->tenant_id)));
    buf_addf(out, "{\"specversion\":\"1.0\",\"id\":\"%s\",\"source\":\"/tenants/%s\",\"type\":", id_text,
             m->tenant_id);
    buf_add_json_string(out, m->type);
    buf_addf(out, ",\"time\":\"%s\"", at);
    if (m->ordering_key.n) {
        buf_add_str(out, ",\"subject\":");
        buf_add_json_string(out, m->ordering_key);
    }
    buf_add_str(out, ",\"datacontenttype\":\"application/json\",\"schemaversion\":");
    buf_add_json_string(out, m->schema_version);
    buf_add_str(out, ",\"data\":");
    buf_add_slice(out, data);
    buf_add_char(out, '}');
}
