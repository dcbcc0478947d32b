#include "core/doc.h"

#include <stdio.h>

void doc_begin(struct doc *d, const json_t *from, bool sparse, struct field_errors *errors) {
    *d = (struct doc){.from = json_is_object(from) ? from : NULL,
                      .to = json_object(),
                      .errors = errors,
                      .errors_before = field_errors_count(errors),
                      .sparse = sparse};
    if (!d->from)
        field_error_add(errors, "body", "must be an object");
}

bool doc_failed(const struct doc *d) {
    return field_errors_count(d->errors) > d->errors_before;
}

json_t *doc_end(struct doc *d) {
    if (doc_failed(d)) {
        json_decref(d->to);
        d->to = NULL;
    }
    return TAKE_PTR(d->to);
}

void doc_enter(struct doc *d, struct doc *parent, const char *name) {
    const json_t *from = doc_get(parent, name);
    *d = (struct doc){.from = json_is_object(from) ? from : NULL,
                      .to = json_object(),
                      .errors = parent->errors,
                      .errors_before = field_errors_count(parent->errors),
                      .sparse = parent->sparse};
    int n = snprintf(d->path, sizeof d->path, "%s%s.", parent->path, name);
    CHECK(n > 0 && (size_t)n < sizeof d->path); /* names come from the code, not from the document */
    if (from && !d->from)
        doc_error(parent, name, "must be an object");
}

void doc_leave(struct doc *d, struct doc *parent, const char *name) {
    if (parent->sparse && d->to && json_object_size(d->to) == 0)
        json_decref(TAKE_PTR(d->to));
    else
        doc_put(parent, name, TAKE_PTR(d->to));
}

const json_t *doc_get(const struct doc *d, const char *name) {
    const json_t *value = json_object_get(d->from, name);
    return json_is_null(value) ? NULL : value;
}

void doc_error(struct doc *d, const char *name, const char *format, ...) {
    char field[sizeof d->errors->at[0].field], message[sizeof d->errors->at[0].message];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    snprintf(field, sizeof field, "%s%s", d->path, name);
    field_error_add(d->errors, field, "%s", message);
}

void doc_refuse_unknown(struct doc *d, const char *const *names, size_t n) {
    /* jansson's iterators want an object that may change. */
    json_t *from = (json_t *)(uintptr_t)d->from;
    for (void *at = json_object_iter(from); at; at = json_object_iter_next(from, at)) {
        const char *name = json_object_iter_key(at);
        size_t i = 0;
        while (i < n && strcmp(name, names[i]) != 0)
            i++;
        if (i == n)
            doc_error(d, name, "is not known");
    }
}

void doc_put(struct doc *d, const char *name, json_t *value) {
    /* A normal form that lost a member is none. */
    if (json_object_set_new(d->to, name, value) < 0 && d->to) {
        json_decref(d->to);
        d->to = NULL;
    }
}

/* Whether the default is to be put, too. */
static bool fills(const struct doc *d) {
    return !d->sparse;
}

int64_t doc_int(struct doc *d, const char *name, int64_t least, int64_t most, int64_t fallback) {
    const json_t *value = doc_get(d, name);
    if (value && json_is_integer(value) && json_integer_value(value) >= least &&
        json_integer_value(value) <= most) {
        doc_put(d, name, json_integer(json_integer_value(value)));
        return json_integer_value(value);
    }
    if (value)
        doc_error(d, name, "must be an integer from %lld to %lld", (long long)least, (long long)most);
    else if (fills(d))
        doc_put(d, name, json_integer(fallback));
    return fallback;
}

double doc_real(struct doc *d, const char *name, double least, double most, double fallback) {
    const json_t *value = doc_get(d, name);
    if (value && json_is_number(value) && json_number_value(value) >= least &&
        json_number_value(value) <= most) {
        doc_put(d, name, json_deep_copy(value));
        return json_number_value(value);
    }
    if (value)
        doc_error(d, name, "must be a number from %g to %g", least, most);
    else if (fills(d))
        doc_put(d, name,
                fallback == (double)(int64_t)fallback ? json_integer((json_int_t)fallback)
                                                      : json_real(fallback));
    return fallback;
}

bool doc_bool(struct doc *d, const char *name, bool fallback) {
    const json_t *value = doc_get(d, name);
    if (value && json_is_boolean(value)) {
        doc_put(d, name, json_boolean(json_is_true(value)));
        return json_is_true(value);
    }
    if (value)
        doc_error(d, name, "must be true or false");
    else if (fills(d))
        doc_put(d, name, json_boolean(fallback));
    return fallback;
}

const char *doc_text(struct doc *d, const char *name, size_t most, const char *fallback) {
    const json_t *value = doc_get(d, name);
    struct slice text = doc_string(value);
    if (text.p && text.n <= most) {
        doc_put(d, name, json_stringn(text.p, text.n));
        return text.p;
    }
    if (value && !json_is_string(value))
        doc_error(d, name, "must be a string");
    else if (value && !text.p)
        doc_error(d, name, "must not contain U+0000");
    else if (value)
        doc_error(d, name, "must have at most %zu bytes", most);
    else if (fills(d))
        doc_put(d, name, json_string(fallback));
    return fallback;
}

/* "a", "b" or "c" */
static void list_words(const char *const *words, size_t n, struct buf *out) {
    for (size_t i = 0; i < n; i++)
        buf_addf(out, "%s\"%s\"", i == 0 ? "" : i + 1 == n ? " or " : ", ", words[i]);
}

size_t doc_word(struct doc *d, const char *name, const char *const *words, size_t n, size_t fallback) {
    const json_t *value = doc_get(d, name);
    struct slice text = doc_string(value);
    size_t i = 0;
    CHECK(fallback < n);
    while (text.p && i < n && !slice_eq(text, slice_of(words[i])))
        i++;
    if (text.p && i < n) {
        doc_put(d, name, json_string(words[i]));
        return i;
    }
    if (value) {
        _cleanup_buf_ struct buf list = {0};
        list_words(words, n, &list);
        doc_error(d, name, "must be %s", list.p ? list.p : "another word");
    } else if (fills(d)) {
        doc_put(d, name, json_string(words[fallback]));
    }
    return fallback;
}

struct slice doc_string(const json_t *value) {
    const char *p = json_string_value(value);
    size_t n = json_string_length(value);
    return p && strlen(p) == n ? (struct slice){p, n} : SLICE_NONE;
}
