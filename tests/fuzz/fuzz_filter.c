/* Filters: any bytes are compiled and matched, and a slow second opinion over jansson says the same of every
 * event. The input is a filter, a line feed and a payload; or, when it does not begin with a brace, the
 * choices that make both, from a few names and values so that they often meet. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>

#include "core/filter.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* ---- the second opinion: docs/filters.md word for word, as slow as it comes ---- */

/* The payload as jansson has it, but with "#" before the text of a number and "$" before a string. */
static void tag_value(struct json_cursor *c, struct slice value, enum json_type type, struct buf *out) {
    struct json_cursor in = json_open(value);
    struct json_member m;
    bool first = true, comma = false;
    if (type == JSON_TYPE_OBJECT) {
        CHECK(json_enter_object(&in) == 0);
        for (buf_add_char(out, '{'); json_next_member(&in, &first, &m) == 1; comma = true) {
            buf_addf(out, "%s\"%.*s\":", comma ? "," : "", SLICE_ARG(m.key));
            tag_value(c, m.value, m.type, out);
        }
        buf_add_char(out, '}');
    } else if (type == JSON_TYPE_ARRAY) {
        CHECK(json_enter_array(&in) == 0);
        for (buf_add_char(out, '['); json_next_element(&in, &first, &value, &type) == 1; comma = true) {
            buf_add_str(out, comma ? "," : "");
            tag_value(c, value, type, out);
        }
        buf_add_char(out, ']');
    } else if (type == JSON_TYPE_STRING) {
        buf_addf(out, "\"$%.*s\"", (int)value.n - 2, value.p + 1);
    } else if (type == JSON_TYPE_NUMBER) {
        buf_addf(out, "\"#%.*s\"", SLICE_ARG(value));
    } else {
        buf_add_slice(out, value);
    }
}

enum { PLACES = 400, POINT = 200 };

static bool too_wide; /* a number that the second opinion has no room for */

/* A number written out, a digit a place. */
static void write_out(const char *text, char places[PLACES], bool *negative) {
    const char *e = strpbrk(text, "eE");
    long exponent = e ? strtol(e + 1, NULL, 10) : 0;
    size_t n = e ? (size_t)(e - text) : strlen(text);
    const char *point = memchr(text, '.', n);
    long at = POINT - exponent - (long)((point ? (size_t)(point - text) : n) - (text[0] == '-'));
    memset(places, '0', PLACES);
    *negative = text[0] == '-';
    bool zero = true;
    for (size_t i = *negative; i < n; i++) {
        if (text[i] == '.')
            continue;
        if (text[i] != '0' && (at < 0 || at >= PLACES))
            too_wide = true;
        else if (text[i] != '0')
            zero = false, places[at] = text[i];
        at++;
    }
    if (zero)
        *negative = false;
}

static int order(const char *a, const char *b) {
    char pa[PLACES], pb[PLACES];
    bool na, nb;
    write_out(a, pa, &na);
    write_out(b, pb, &nb);
    if (na != nb)
        return na ? -1 : 1;
    int r = memcmp(pa, pb, PLACES);
    return na ? -r : r;
}

static int order_to(const char *number, const json_t *limit) {
    char text[40];
    if (json_is_integer(limit))
        snprintf(text, sizeof text, "%lld", (long long)json_integer_value(limit));
    else
        snprintf(text, sizeof text, "%.15g", json_real_value(limit));
    return order(number, text);
}

static bool tagged(const json_t *value, char tag, const char **ret, size_t *ret_n) {
    const char *text = json_string_value(value);
    if (!text || text[0] != tag)
        return false;
    *ret = text + 1;
    *ret_n = json_string_length(value) - 1;
    return true;
}

static bool numeric(const json_t *list, const char *number) {
    for (size_t i = 0; i < json_array_size(list); i += 2) {
        const char *op = json_string_value(json_array_get(list, i));
        int r = order_to(number, json_array_get(list, i + 1));
        if (!((strchr(op, '<') && r < 0) || (strchr(op, '>') && r > 0) || (strchr(op, '=') && r == 0)))
            return false;
    }
    return true;
}

static bool one_matches(const json_t *matcher, const json_t *value) {
    const char *text, *wanted;
    size_t n, wanted_n;
    if (json_is_array(value)) {
        for (size_t i = 0; i < json_array_size(value); i++)
            if (one_matches(matcher, json_array_get(value, i)))
                return true;
        return false;
    }
    if (json_is_string(matcher))
        return tagged(value, '$', &text, &n) && n == json_string_length(matcher) &&
               memcmp(text, json_string_value(matcher), n) == 0;
    if (json_is_number(matcher))
        return tagged(value, '#', &text, &n) && order_to(text, matcher) == 0;
    if (!json_is_object(matcher))
        return json_typeof(matcher) == json_typeof(value);
    if (json_object_get(matcher, "numeric"))
        return tagged(value, '#', &text, &n) && numeric(json_object_get(matcher, "numeric"), text);
    const json_t *prefix = json_object_get(matcher, "prefix");
    const json_t *end = prefix ? prefix : json_object_get(matcher, "suffix");
    wanted = json_string_value(end);
    wanted_n = json_string_length(end);
    return tagged(value, '$', &text, &n) && n >= wanted_n &&
           memcmp(prefix ? text : text + n - wanted_n, wanted, wanted_n) == 0;
}

static bool entry_matches(const json_t *entry, const json_t *value) {
    const json_t *but = json_object_get(entry, "anything-but");
    if (json_object_get(entry, "exists"))
        return json_is_true(json_object_get(entry, "exists")) == (value != NULL);
    if (!value)
        return false;
    if (!but)
        return one_matches(entry, value);
    for (size_t i = 0; i < json_array_size(but); i++)
        if (one_matches(json_array_get(but, i), value))
            return false;
    return json_is_array(but) || !one_matches(but, value);
}

static bool pattern_holds(const json_t *pattern, const json_t *scope);

static bool holds_within(const json_t *pattern, const json_t *value) {
    if (!json_is_array(value) || json_array_size(value) == 0)
        return pattern_holds(pattern, value);
    for (size_t i = 0; i < json_array_size(value); i++)
        if (holds_within(pattern, json_array_get(value, i)))
            return true;
    return false;
}

static bool member_holds(const char *name, const json_t *wanted, const json_t *scope) {
    const json_t *value = json_object_get(scope, name);
    if (json_is_object(wanted))
        return holds_within(wanted, value);
    for (size_t i = 0; i < json_array_size(wanted); i++)
        if (entry_matches(json_array_get(wanted, i), value))
            return true;
    return false;
}

static bool combination_holds(const char *name, const json_t *value, const json_t *scope) {
    size_t held = 0;
    for (size_t i = 0; i < json_array_size(value); i++)
        held += pattern_holds(json_array_get(value, i), scope);
    if (strcmp(name, "$not") == 0)
        return !pattern_holds(value, scope);
    return strcmp(name, "$or") == 0 ? held > 0 : held == json_array_size(value);
}

static bool pattern_holds(const json_t *pattern, const json_t *scope) {
    json_t *from = (json_t *)(uintptr_t)pattern, *value;
    const char *name;
    bool all = true;
    json_object_foreach (from, name, value)
        all &= name[0] == '$' && name[1] != '$' ? combination_holds(name, value, scope)
                                                : member_holds(name + (name[0] == '$'), value, scope);
    return all;
}

/* ---- one filter on one payload ---- */

static void check(struct slice filter, const json_t *doc, const struct filter *f, struct slice payload) {
    static struct json_tape tape;
    struct json_cursor c = json_open(payload);
    struct slice value;
    enum json_type type;
    bool is_json = json_value(&c, &value, &type) == 0 && json_finish(&c) == 0;
    CHECK((json_tape_read(&tape, payload) == 0) == is_json);
    if (!is_json)
        return;
    struct filter_subject s = {
        .type = SLICE_LIT("a.b"), .schema_version = SLICE_LIT("1"), .data = payload, .tape = &tape};
    uint64_t steps = 0;
    bool matches = filter_matches(f, &s, &steps);
    _cleanup_buf_ struct buf text = {0};
    buf_add_str(&text, "{\"type\":\"$a.b\",\"schema_version\":\"$1\",\"data\":");
    tag_value(&c, value, type, &text);
    buf_add_char(&text, '}');
    json_t *event = json_loadb(text.p, text.n, JSON_ALLOW_NUL, NULL);
    if (!event || steps > FILTER_STEPS_MAX) { /* an unpaired surrogate, U+0000 in a name, … */
        json_decref(event);
        return;
    }
    too_wide = false;
    bool expected = pattern_holds(doc, event);
    if (!too_wide && matches != expected)
        fprintf(stderr, "filter and payload:\n%.*s\n%.*s\n", SLICE_ARG(filter), SLICE_ARG(payload));
    CHECK(too_wide || matches == expected);
    json_decref(event);
}

static void try_both(struct slice filter, struct slice payload, bool valid) {
    static struct field_errors errors;
    json_t *doc =
        json_loadb(filter.p, filter.n, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    CHECK(doc || !valid);
    if (!doc)
        return;
    field_errors_init(&errors);
    _cleanup_filter_ struct filter *f = filter_compile(doc, &errors);
    CHECK((f == NULL) == (errors.n > 0));
    for (size_t i = 0; i < errors.n; i++)
        CHECK(strcmp(errors.at[i].field, "filter") == 0 && errors.at[i].message[0]);
    if (f)
        check(filter, doc, f, payload);
    json_decref(doc);
}

/* ---- making both ---- */

struct choices {
    const uint8_t *p, *end;
};

static unsigned choose(struct choices *c, unsigned n) {
    return c->p < c->end ? *c->p++ % n : 0;
}

#define PICK(c, list) ((list)[choose((c), sizeof(list) / sizeof((list)[0]))])

static const char *const names[] = {"a", "b", "c"};
static const char *const common[] = {
    "\"\"", "\"x\"", "\"xy\"", "\"yx\"", "\"\\u00e9\"", "null", "true", "false",           "0",
    "1",    "-1",    "0.5",    "5e-1",   "10",          "1e1",  "100",  "9007199254740993"};
static const char *const odd[] = {"\"\\u0078\"", "\"x\\u0000\"",       "\"\\ud83d\\ude00\"",   "0.50", "-0.0",
                                  "1E+1",        "9007199254740992.0", "123456789012345678901"};

static void make_payload(struct choices *c, struct buf *out, int depth) {
    unsigned kind = choose(c, depth > 0 ? 8 : 3), n = kind >= 3 ? choose(c, 4) : 0;
    if (kind < 3) {
        buf_add_str(out, kind ? PICK(c, common) : PICK(c, odd));
        return;
    }
    bool object = kind < 6;
    buf_add_char(out, object ? '{' : '[');
    for (unsigned i = 0; i < n; i++) {
        buf_add_str(out, i ? "," : "");
        if (object)
            buf_addf(out, "\"%s\":", PICK(c, names));
        make_payload(c, out, depth - 1);
    }
    buf_add_char(out, object ? '}' : ']');
}

static void make_operator(struct choices *c, struct buf *out, bool negated) {
    static const char *const texts[] = {"\"x\"", "\"xy\"", "\"\xc3\xa9\""};
    static const char *const numbers[] = {"-1", "0", "0.5", "1", "10", "9007199254740993"};
    static const char *const comparisons[] = {"<", "<=", "=", ">=", ">"};
    switch (choose(c, negated ? 4 : 6)) {
    case 0:
        buf_addf(out, "{\"prefix\":%s}", PICK(c, texts));
        break;
    case 1:
        buf_addf(out, "{\"suffix\":%s}", PICK(c, texts));
        break;
    case 2:
        buf_addf(out, "{\"numeric\":[\"%s\",%s]}", PICK(c, comparisons), PICK(c, numbers));
        break;
    case 3:
        buf_add_str(out, PICK(c, common));
        break;
    case 4:
        buf_addf(out, "{\"exists\":%s}", choose(c, 2) ? "true" : "false");
        break;
    default:
        buf_add_str(out, "{\"anything-but\":[");
        make_operator(c, out, true);
        buf_add_char(out, ',');
        make_operator(c, out, true);
        buf_add_str(out, "]}");
    }
}

static void make_pattern(struct choices *c, struct buf *out, int depth) {
    static const char *const combinations[] = {"$or", "$and"};
    unsigned kind = choose(c, depth > 0 ? 6 : 3), n = 1 + choose(c, 2);
    buf_add_char(out, '{');
    if (kind == 4) {
        buf_add_str(out, "\"$not\":");
        make_pattern(c, out, depth - 1);
    } else if (kind == 5) {
        buf_addf(out, "\"%s\":[", PICK(c, combinations));
        make_pattern(c, out, depth - 1);
        buf_add_char(out, ',');
        make_pattern(c, out, depth - 1);
        buf_add_char(out, ']');
    }
    for (unsigned i = 0; kind < 4 && i < n; i++) {
        buf_addf(out, "%s\"%s\":", i ? "," : "", names[(i + kind) % 3]);
        if (kind == 3) {
            make_pattern(c, out, depth - 1);
            continue;
        }
        buf_add_char(out, '[');
        make_operator(c, out, false);
        if (kind == 2) {
            buf_add_char(out, ',');
            make_operator(c, out, false);
        }
        buf_add_char(out, ']');
    }
    buf_add_char(out, '}');
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const char *text = (const char *)data;
    if (size && data[0] == '{') {
        const char *line = memchr(text, '\n', size);
        size_t n = line ? (size_t)(line - text) : size;
        try_both((struct slice){text, n}, line ? (struct slice){line + 1, size - n - 1} : SLICE_LIT("null"),
                 false);
        return 0;
    }
    struct choices c = {data, data + size};
    _cleanup_buf_ struct buf filter = {0}, payload = {0};
    buf_add_str(&filter, "{\"data\":");
    make_pattern(&c, &filter, 3);
    buf_add_char(&filter, '}');
    make_payload(&c, &payload, 4);
    try_both(buf_slice(&filter), buf_slice(&payload), true);
    return 0;
}
