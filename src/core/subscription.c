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
    for (uint16_t i = 0; i < s->event_types_n; i++)
        free(s->event_types[i]);
    free(s->event_types);
    free(s->url);
    free(s->headers);
    filter_unref(s->filter);
    policy_clear(&s->policy);
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

/* The position of a member's word in a list; 0, the default, when it is another. */
static unsigned read_word(const json_t *doc, const char *name, const char *const *words, unsigned n) {
    struct slice word = doc_string(json_object_get(doc, name));
    for (unsigned i = 0; i < n; i++)
        if (slice_eq(word, slice_of(words[i])))
            return i;
    return 0;
}

static int read_event_types(const json_t *list, struct subscription *s) {
    size_t n = json_array_size(list);
    if (n > SUBSCRIPTION_EVENT_TYPES_MAX)
        n = SUBSCRIPTION_EVENT_TYPES_MAX;
    if (n == 0)
        return 0;
    s->event_types = calloc(n, sizeof *s->event_types);
    if (!s->event_types)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++) {
        s->event_types[i] = slice_dup(doc_string(json_array_get(list, i)));
        if (!s->event_types[i])
            return -ENOMEM;
        s->event_types_n++;
    }
    return 0;
}

static int read_headers(const json_t *object, struct subscription *s) {
    _cleanup_buf_ struct buf text = {0};
    const char *name;
    json_t *value, *from = (json_t *)(uintptr_t)object;
    json_object_foreach (from, name, value) {
        buf_add_str(&text, name);
        buf_add_str(&text, ": ");
        buf_add_slice(&text, doc_string(value));
        buf_add_str(&text, "\r\n");
    }
    if (!buf_ok(&text))
        return -ENOMEM;
    s->headers = TAKE_PTR(text.p);
    return 0;
}

/* A stored filter was valid when it went in. */
static int read_filter(const json_t *doc, struct subscription *s) {
    struct field_errors errors;
    field_errors_init(&errors);
    if (!doc || json_is_null(doc))
        return 0;
    s->filter = filter_compile(doc, &errors);
    return s->filter ? 0 : -ENOMEM;
}

struct subscription *subscription_from_doc(const json_t *doc) {
    _cleanup_subscription_ struct subscription *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    atomic_init(&s->refs, 1);
    struct slice url = doc_string(json_object_get(doc, "url"));
    s->url = slice_dup(url.p ? url : SLICE_LIT(""));
    s->status =
        (enum subscription_status)read_word(doc, "status", status_names, (unsigned)COUNT(status_names));
    s->ordering = (enum subscription_ordering)read_word(doc, "ordering", ordering_names,
                                                        (unsigned)COUNT(ordering_names));
    s->format =
        (enum subscription_format)read_word(doc, "format", format_names, (unsigned)COUNT(format_names));
    s->receipts = json_is_true(json_object_get(doc, "receipts"));
    if (!s->url || read_event_types(json_object_get(doc, "event_types"), s) < 0 ||
        read_headers(json_object_get(doc, "headers"), s) < 0 ||
        read_filter(json_object_get(doc, "filter"), s) < 0 ||
        policy_from_doc(json_object_get(doc, "policy"), &s->policy) < 0)
        return NULL;
    return TAKE_PTR(s);
}

bool event_type_covered(struct slice pattern, struct slice event_type) {
    if (pattern.n < 2 || memcmp(pattern.p + pattern.n - 2, ".*", 2) != 0)
        return slice_eq(pattern, event_type);
    return slice_starts_with(event_type, (struct slice){pattern.p, pattern.n - 1});
}

bool subscription_matches(const struct subscription *s, struct slice event_type) {
    if (s->event_types_n == 0)
        return !event_type_reserved(event_type);
    for (uint16_t i = 0; i < s->event_types_n; i++)
        if (event_type_covered(slice_of(s->event_types[i]), event_type))
            return true;
    return false;
}

bool subscription_wants(const struct subscription *s, const struct filter_subject *event, uint64_t *steps) {
    return subscription_matches(s, event->type) && (!s->filter || filter_matches(s->filter, event, steps));
}
