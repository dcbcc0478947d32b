#include "core/subscription.h"

#include <errno.h>
#include <openssl/crypto.h>

#include "core/event.h"
#include "core/subscription_doc.h"

static const char *const status_names[] = {"active", "paused", "disabled", "deleted"};
static const char *const ordering_names[] = {"none", "key", "strict"};
static const char *const format_names[] = {"envelope", "raw", "cloudevents"};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

const char *subscription_status_name(enum subscription_status s) {
    CHECK(s < COUNT(status_names));
    return status_names[s];
}

const char *subscription_ordering_name(enum subscription_ordering o) {
    CHECK(o < COUNT(ordering_names));
    return ordering_names[o];
}

const char *subscription_format_name(enum subscription_format f) {
    CHECK(f < COUNT(format_names));
    return format_names[f];
}

int subscription_status_parse(struct slice s, enum subscription_status *ret) {
    for (size_t i = 0; i < COUNT(status_names); i++) {
        if (slice_eq(s, slice_of(status_names[i]))) {
            *ret = (enum subscription_status)i;
            return 0;
        }
    }
    return -EINVAL;
}

struct subscription *subscription_ref(struct subscription *s) {
    unsigned before = atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
    CHECK(before > 0);
    return s;
}

static void subscription_free(struct subscription *s) {
    free(s->texts);
    filter_unref(s->filter);
    policy_unref(s->policy);
    tls_material_unref(s->tls);
    if (s->keys)
        OPENSSL_cleanse(s->keys, s->keys_n * sizeof *s->keys);
    free(s->keys);
    free(s);
}

void subscription_unref(struct subscription *s) {
    if (!s)
        return;
    unsigned before = atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel);
    CHECK(before > 0);
    if (before == 1)
        subscription_free(s);
}

/* ---- reading a stored document, not by way of jansson: a start reads a million of them ---- */

/* What is being read: texts are gathered in one buffer, 0 is where an absent one is. */
struct reading {
    struct subscription *s;
    struct policy_memo *memo;
    struct buf texts;
    size_t url_at, event_types_at, headers_at;
};

static void end_text(struct reading *r) {
    buf_add_char(&r->texts, '\0');
}

static int read_text(const struct json_member *m, struct reading *to) {
    if (m->type != JSON_TYPE_STRING)
        return -EINVAL;
    int r = json_string_decode(m->value, &to->texts);
    end_text(to);
    return r;
}

/* The position of a member's word in a list; 0, the default, when it is another. */
static unsigned read_word(const struct json_member *m, const char *const *words, unsigned n) {
    for (unsigned i = 0; i < n && m->type == JSON_TYPE_STRING; i++)
        if (json_string_compare(m->value, slice_of(words[i])) == 1)
            return i;
    return 0;
}

static int read_event_types(const struct json_member *m, struct reading *to) {
    struct json_cursor c = json_open(m->value);
    struct json_member entry;
    bool first = true;
    if (m->type != JSON_TYPE_ARRAY || to->s->event_types_n)
        return 0;
    to->event_types_at = to->texts.n;
    int r = json_enter_array(&c);
    while (r >= 0 && to->s->event_types_n < SUBSCRIPTION_EVENT_TYPES_MAX &&
           (r = json_next_element(&c, &first, &entry.value, &entry.type)) > 0) {
        r = read_text(&entry, to);
        if (r == 0)
            to->s->event_types_n++;
    }
    return r < 0 ? r : 0;
}

static int read_headers(const struct json_member *m, struct reading *to) {
    struct json_cursor c = json_open(m->value);
    struct json_member header;
    bool first = true;
    if (m->type != JSON_TYPE_OBJECT)
        return 0;
    size_t at = to->texts.n;
    int r = json_enter_object(&c);
    while (r >= 0 && (r = json_next_member(&c, &first, &header)) > 0) {
        if (header.type != JSON_TYPE_STRING)
            return -EINVAL;
        /* The name with its quotes around it is a string value, too. */
        r = json_string_decode((struct slice){header.key.p - 1, header.key.n + 2}, &to->texts);
        buf_add_str(&to->texts, ": ");
        if (r == 0)
            r = json_string_decode(header.value, &to->texts);
        buf_add_str(&to->texts, "\r\n");
    }
    if (r < 0)
        return r;
    if (to->texts.n > at) {
        to->headers_at = at;
        end_text(to);
    }
    return 0;
}

static int read_filter(const struct json_member *m, struct subscription *s) {
    struct field_errors errors;
    field_errors_init(&errors);
    if (m->type == JSON_TYPE_NULL || s->filter)
        return 0;
    json_t *doc = json_loadb(m->value.p, m->value.n, JSON_DECODE_ANY, NULL);
    if (!doc)
        return -EINVAL;
    s->filter = filter_compile(doc, &errors);
    json_decref(doc);
    return s->filter ? 0 : field_errors_count(&errors) ? -EINVAL : -ENOMEM;
}

static int read_policy(struct slice text, struct policy_memo *memo, struct policy **ret) {
    if (!memo->policy || !slice_eq(buf_slice(&memo->text), text)) {
        json_t *doc = json_loadb(text.p, text.n, JSON_DECODE_ANY, NULL);
        if (!doc)
            return -EINVAL;
        policy_memo_clear(memo);
        buf_add_slice(&memo->text, text);
        memo->policy = buf_ok(&memo->text) ? policy_from_doc(doc) : NULL;
        json_decref(doc);
        if (!memo->policy)
            return -ENOMEM;
    }
    policy_unref(*ret);
    *ret = policy_ref(memo->policy);
    return 0;
}

static int read_member(const struct json_member *m, struct reading *to) {
    struct subscription *s = to->s;
    if (json_key_is(m->key, "url")) {
        to->url_at = to->texts.n;
        return read_text(m, to);
    }
    if (json_key_is(m->key, "event_types"))
        return read_event_types(m, to);
    if (json_key_is(m->key, "headers"))
        return read_headers(m, to);
    if (json_key_is(m->key, "filter"))
        return read_filter(m, s);
    if (json_key_is(m->key, "policy"))
        return read_policy(m->value, to->memo, &s->policy);
    if (json_key_is(m->key, "status"))
        s->status = (enum subscription_status)read_word(m, status_names, COUNT(status_names));
    else if (json_key_is(m->key, "ordering"))
        s->ordering = (enum subscription_ordering)read_word(m, ordering_names, COUNT(ordering_names));
    else if (json_key_is(m->key, "format"))
        s->format = (enum subscription_format)read_word(m, format_names, COUNT(format_names));
    else if (json_key_is(m->key, "receipts"))
        s->receipts = m->type == JSON_TYPE_TRUE;
    else if (json_key_is(m->key, "tls"))
        s->has_tls = m->type == JSON_TYPE_TRUE;
    return 0;
}

static int read_doc(struct slice doc, struct reading *to) {
    struct json_cursor c = json_open(doc);
    struct json_member m;
    bool first = true;
    int r = json_enter_object(&c);
    while (r >= 0 && (r = json_next_member(&c, &first, &m)) > 0)
        r = read_member(&m, to);
    return r < 0 ? r : json_finish(&c);
}

/* The tenant's id stands first, and what is absent but must be there is the empty text at its end. */
static int take_texts(const struct reading *from, size_t tenant_id_n) {
    struct subscription *s = from->s;
    /* As long as they are: a growing buffer's room to spare adds up. */
    if (!buf_ok(&from->texts) || !(s->texts = malloc(from->texts.n)))
        return -ENOMEM;
    memcpy(s->texts, from->texts.p, from->texts.n);
    s->tenant_id = s->texts;
    s->url = s->texts + (from->url_at ? from->url_at : tenant_id_n);
    s->event_types = s->texts + (s->event_types_n ? from->event_types_at : tenant_id_n);
    s->headers = from->headers_at ? s->texts + from->headers_at : NULL;
    return 0;
}

int subscription_from_text(struct slice doc, struct slice tenant_id, struct policy_memo *memo,
                           struct subscription **ret) {
    _cleanup_subscription_ struct subscription *s = calloc(1, sizeof *s);
    struct reading reading = {.s = s, .memo = memo};
    if (!s)
        return -ENOMEM;
    atomic_init(&s->refs, 1);
    buf_add_slice(&reading.texts, tenant_id);
    end_text(&reading);
    int r = read_doc(doc, &reading);
    if (r == 0 && !s->policy && !(s->policy = policy_new()))
        r = -ENOMEM;
    if (r == 0)
        r = take_texts(&reading, tenant_id.n);
    buf_free(&reading.texts);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(s);
    return 0;
}

struct subscription *subscription_from_doc(const json_t *doc, struct slice tenant_id) {
    struct policy_memo memo = {0};
    struct subscription *s = NULL;
    _cleanup_free_ char *text = json_dumps(doc, JSON_COMPACT);
    int r = text ? subscription_from_text(slice_of(text), tenant_id, &memo, &s) : -ENOMEM;
    policy_memo_clear(&memo);
    return r < 0 ? NULL : s;
}

bool event_type_covered(struct slice pattern, struct slice event_type) {
    if (pattern.n < 2 || memcmp(pattern.p + pattern.n - 2, ".*", 2) != 0)
        return slice_eq(pattern, event_type);
    return slice_starts_with(event_type, (struct slice){pattern.p, pattern.n - 1});
}

bool subscription_matches(const struct subscription *s, struct slice event_type) {
    if (s->event_types_n == 0)
        return !event_type_reserved(event_type);
    const char *listed = s->event_types;
    for (uint16_t i = 0; i < s->event_types_n; i++, listed = event_type_after(listed))
        if (event_type_covered(slice_of(listed), event_type))
            return true;
    return false;
}

bool subscription_wants(const struct subscription *s, const struct filter_subject *event, uint64_t *steps) {
    return subscription_matches(s, event->type) && (!s->filter || filter_matches(s->filter, event, steps));
}
