#include "core/subscription_doc.h"

#include <stdio.h>

#include "core/event.h"
#include "core/merge_patch.h"
#include "core/subscription.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

enum {
    METADATA_MEMBERS_MAX = 50,
    FIELD_MAX = sizeof((struct field_error *)NULL)->field,
};

static void parse_url(struct doc *d) {
    const char *url = doc_text(d, "url", SUBSCRIPTION_URL_MAX, NULL);
    if (d->from && !doc_get(d, "url"))
        doc_error(d, "url", "is required");
    else if (url && !url[0])
        doc_error(d, "url", "must not be empty");
}

/* What is wrong with an entry of event_types, or NULL. */
static const char *event_pattern_problem(struct slice pattern) {
    static const char syntax[] =
        "must be an event type (1 to 128 of A-Z, a-z, 0-9, '_', '.' and '-') or one that ends in \".*\"";
    if (slice_eq(pattern, SLICE_LIT("*")) || slice_eq(pattern, SLICE_LIT(".*")))
        return "names no type: an empty list stands for all types";
    bool is_prefix = pattern.n > 2 && memcmp(pattern.p + pattern.n - 2, ".*", 2) == 0;
    if (pattern.n > EVENT_TYPE_MAX)
        return syntax;
    if (is_prefix)
        pattern.n -= 2;
    return event_type_valid(pattern) ? NULL : syntax;
}

static bool listed_before(const json_t *list, size_t n, const json_t *entry) {
    for (size_t i = 0; i < n; i++)
        if (json_equal(json_array_get(list, i), entry))
            return true;
    return false;
}

static void parse_event_types(struct doc *d) {
    const json_t *given = doc_get(d, "event_types");
    size_t n = json_array_size(given);
    if (given && (!json_is_array(given) || n > SUBSCRIPTION_EVENT_TYPES_MAX)) {
        doc_error(d, "event_types", "must be a list of up to %d event types", SUBSCRIPTION_EVENT_TYPES_MAX);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        const json_t *entry = json_array_get(given, i);
        struct slice pattern = doc_string(entry);
        const char *problem = pattern.p ? event_pattern_problem(pattern) : "must be a string";
        char name[40];
        snprintf(name, sizeof name, "event_types[%zu]", i);
        if (problem)
            doc_error(d, name, "%s", problem);
        else if (listed_before(given, i, entry))
            doc_error(d, name, "is listed twice");
    }
    doc_put(d, "event_types", given ? json_deep_copy(given) : json_array());
}

static void parse_filter(struct doc *d) {
    const json_t *given = doc_get(d, "filter");
    if (given)
        filter_unref(filter_compile(given, d->errors));
    doc_put(d, "filter", given ? json_deep_copy(given) : json_null());
}

/* An object of strings: its members in turn, or an error of the field and false. */
static bool is_object_of(struct doc *d, const char *name, size_t members_max, const char *of_what) {
    const json_t *given = doc_get(d, name);
    if (given && (!json_is_object(given) || json_object_size(given) > members_max)) {
        doc_error(d, name, "must be an object of up to %zu %s", members_max, of_what);
        return false;
    }
    return true;
}

static void parse_metadata(struct doc *d) {
    json_t *given = (json_t *)(uintptr_t)doc_get(d, "metadata"), *value;
    const char *name;
    size_t bytes = 0;
    if (!is_object_of(d, "metadata", METADATA_MEMBERS_MAX, "strings"))
        return;
    json_object_foreach (given, name, value) {
        struct slice text = doc_string(value);
        char field[FIELD_MAX];
        snprintf(field, sizeof field, "metadata.%s", name);
        if (!text.p)
            doc_error(d, field, "must be a string without U+0000");
        bytes += strlen(name) + text.n;
    }
    if (bytes > SUBSCRIPTION_METADATA_BYTES_MAX)
        doc_error(d, "metadata", "must have at most %d bytes in all", SUBSCRIPTION_METADATA_BYTES_MAX);
    doc_put(d, "metadata", given ? json_deep_copy(given) : json_object());
}

/* A token of RFC 9110 §5.6.2. */
static bool is_token(const char *s) {
    static const char others[] = "!#$%&'*+-.^_`|~";
    for (const char *c = s; *c; c++)
        if (!((*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || (*c >= '0' && *c <= '9') ||
              strchr(others, *c)))
            return false;
    return s[0] != '\0';
}

/* What the sender sets itself, and what would change how the message is framed. */
static bool is_reserved_header(struct slice name) {
    static const char *const names[] = {"host",       "content-length",    "content-type", "user-agent",
                                        "connection", "transfer-encoding", "keep-alive",   "te",
                                        "trailer",    "upgrade",           "expect",       "traceparent",
                                        "tracestate"};
    static const char *const prefixes[] = {"proxy-", "webhook-", "posthorn-"};
    for (size_t i = 0; i < COUNT(names); i++)
        if (slice_eq_nocase(name, slice_of(names[i])))
            return true;
    for (size_t i = 0; i < COUNT(prefixes); i++) {
        struct slice prefix = slice_of(prefixes[i]);
        if (name.n >= prefix.n && slice_eq_nocase((struct slice){name.p, prefix.n}, prefix))
            return true;
    }
    return false;
}

static bool has_control_character(struct slice s) {
    for (size_t i = 0; i < s.n; i++)
        if ((unsigned char)s.p[i] < 0x20 || s.p[i] == 0x7f)
            return true;
    return false;
}

/* Whether an earlier member of the object has this name but for its case. */
static bool has_twin_before(json_t *headers, const char *name) {
    for (void *at = json_object_iter(headers); at; at = json_object_iter_next(headers, at)) {
        const char *other = json_object_iter_key(at);
        if (other == name)
            return false;
        if (slice_eq_nocase(slice_of(other), slice_of(name)))
            return true;
    }
    return false;
}

static void parse_header(struct doc *d, json_t *headers, const char *name, const json_t *value) {
    struct slice text = doc_string(value);
    char field[FIELD_MAX];
    snprintf(field, sizeof field, "headers.%s", name);
    if (!is_token(name))
        doc_error(d, field, "is not the name of an HTTP header");
    else if (is_reserved_header(slice_of(name)))
        doc_error(d, field, "is reserved");
    else if (has_twin_before(headers, name))
        doc_error(d, field, "is given twice: case does not matter");
    if (!json_is_string(value))
        doc_error(d, field, "must be a string");
    else if (!text.p || has_control_character(text))
        doc_error(d, field, "must not contain control characters");
    else if (strlen(name) + text.n > SUBSCRIPTION_HEADER_BYTES_MAX)
        doc_error(d, field, "must have at most %d bytes, name and value", SUBSCRIPTION_HEADER_BYTES_MAX);
}

static void parse_headers(struct doc *d) {
    json_t *given = (json_t *)(uintptr_t)doc_get(d, "headers"), *value;
    const char *name;
    if (!is_object_of(d, "headers", SUBSCRIPTION_HEADERS_MAX, "headers"))
        return;
    json_object_foreach (given, name, value)
        parse_header(d, given, name, value);
    doc_put(d, "headers", given ? json_deep_copy(given) : json_object());
}

json_t *subscription_parse_for(const json_t *doc, enum tenant_tier tier, struct field_errors *errors) {
    static const char *const names[] = {"url",      "event_types", "filter", "description", "metadata",
                                        "status",   "ordering",    "format", "signature",   "headers",
                                        "receipts", "policy",      "tls"};
    static const char *const statuses[] = {"active", "paused", "disabled"};
    static const char *const orderings[] = {"none", "key", "strict"};
    static const char *const formats[] = {"envelope", "raw", "cloudevents"};
    static const char *const signatures[] = {"hmac", "ed25519"};
    struct doc d;
    doc_begin(&d, doc, false, errors);
    parse_url(&d);
    parse_event_types(&d);
    parse_filter(&d);
    (void)doc_text(&d, "description", SUBSCRIPTION_DESCRIPTION_MAX, "");
    parse_metadata(&d);
    (void)doc_word(&d, "status", statuses, COUNT(statuses), 0);
    (void)doc_word(&d, "ordering", orderings, COUNT(orderings), 0);
    (void)doc_word(&d, "format", formats, COUNT(formats), 0);
    (void)doc_word(&d, "signature", signatures, COUNT(signatures), 0);
    parse_headers(&d);
    (void)doc_bool(&d, "receipts", false);
    policy_doc_parse(&d, tenant_tier_window_seconds(tier));
    tls_material_parse(&d);
    doc_refuse_unknown(&d, names, COUNT(names));
    return doc_end(&d);
}

json_t *subscription_parse(const json_t *doc, struct field_errors *errors) {
    return subscription_parse_for(doc, TIER_STANDARD, errors);
}

json_t *subscription_take_tls(json_t *doc) {
    json_t *tls = json_object_get(doc, "tls");
    if (!json_is_object(tls))
        return json_null();
    json_incref(tls);
    if (json_object_set_new(doc, "tls", json_true()) == 0)
        return tls;
    json_decref(tls);
    return NULL;
}

static const json_t *member_within(const json_t *doc, const char *name) {
    const json_t *value = json_object_get(json_object_get(doc, "policy"), name);
    return json_is_object(value) ? value : NULL;
}

static bool sets(const json_t *object, const char *name) {
    const json_t *value = json_object_get(object, name);
    return value && !json_is_null(value);
}

/* Whether a patch of "retry" turns the stored schedule into the other form: then nothing of the stored one is
 * left, its jitter neither. */
static bool changes_form(const json_t *stored, const json_t *patch) {
    bool was_explicit = sets(stored, "schedule_seconds");
    bool explicit = sets(patch, "schedule_seconds");
    bool exponential =
        sets(patch, "initial_seconds") || sets(patch, "multiplier") || sets(patch, "max_seconds");
    if (was_explicit)
        return !explicit && (exponential || json_is_null(json_object_get(patch, "schedule_seconds")));
    return explicit;
}

static int merge_retry(json_t *merged, const json_t *doc, const json_t *patch) {
    const json_t *stored = member_within(doc, "retry"), *change = member_within(patch, "retry");
    if (!stored || !change || !changes_form(stored, change))
        return 0;
    json_t *retry = json_merge_patch(NULL, change);
    return json_object_set_new(json_object_get(merged, "policy"), "retry", retry);
}

/* Where each member has a meaning, which is not so in metadata, headers and filter. */
static int keep_nulls(json_t *merged, const json_t *patch) {
    static const char *const answered[] = {"id",         "tenant_id", "secret", "disabled_reason",
                                           "created_at", "updated_at"};
    static const char *const objects[] = {"policy", "tls"}, *const within_policy[] = {"retry", "rate_limit"};
    int r = json_keep_nulls(merged, patch, answered, COUNT(answered));
    for (size_t i = 0; i < COUNT(objects) && r == 0; i++)
        r = json_keep_nulls(json_object_get(merged, objects[i]), json_object_get(patch, objects[i]), NULL, 0);
    for (size_t i = 0; i < COUNT(within_policy) && r == 0; i++)
        r = json_keep_nulls(json_object_get(json_object_get(merged, "policy"), within_policy[i]),
                            member_within(patch, within_policy[i]), NULL, 0);
    return r;
}

json_t *subscription_merge(const json_t *doc, const json_t *patch) {
    json_t *merged = json_merge_patch(doc, patch);
    if (merged && merge_retry(merged, doc, patch) == 0 && keep_nulls(merged, patch) == 0)
        return merged;
    json_decref(merged);
    return NULL;
}
