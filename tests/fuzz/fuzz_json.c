/* The JSON scanner: any bytes. jansson is the second opinion on what is JSON and on what it means. */
#include <errno.h>
#include <jansson.h>
#include <math.h>

#include "base/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Something in it that jansson reads in another way: U+0000, a half of a surrogate pair. */
static bool odd_text;

static json_t *value_of(struct slice text, enum json_type type);

static json_t *string_of(struct slice quoted) {
    _cleanup_buf_ struct buf plain = {0};
    int r = json_string_decode(quoted, &plain);
    CHECK(r == 0 || r == -EINVAL);
    if (r < 0 || (plain.n && memmem(plain.p, plain.n, "\xEF\xBF\xBD", 3)))
        odd_text = true;
    return r < 0 ? json_null() : json_stringn(plain.n ? plain.p : "", plain.n);
}

static json_t *number_of(struct slice text) {
    int64_t whole;
    _cleanup_free_ char *copy = slice_dup(text);
    int r = json_int(text, &whole);
    CHECK(r == 0 || r == -EINVAL || r == -ERANGE);
    CHECK((r == -EINVAL) == (strpbrk(copy, ".eE") != NULL));
    double real = strtod(copy, NULL);
    return r == 0 ? json_integer(whole)
                  : json_real(isfinite(real) ? real : 0); /* jansson refuses the others */
}

static json_t *object_of(struct slice text) {
    struct json_cursor c = json_open(text);
    struct json_member m;
    bool first = true;
    json_t *object = json_object();
    CHECK(json_enter_object(&c) == 0);
    int r;
    while ((r = json_next_member(&c, &first, &m)) > 0) {
        struct slice quoted = {m.key.p - 1, m.key.n + 2};
        json_t *key = string_of(quoted), *value = value_of(m.value, m.type);
        if (json_is_string(key)) {
            CHECK(json_key_is(m.key, json_string_value(key)));
            (void)json_object_set(object, json_string_value(key), value);
        }
        json_decref(key);
        json_decref(value);
    }
    CHECK(r == 0 && json_finish(&c) == 0);
    return object;
}

static json_t *array_of(struct slice text) {
    struct json_cursor c = json_open(text);
    struct slice element;
    enum json_type type;
    bool first = true;
    json_t *array = json_array();
    CHECK(json_enter_array(&c) == 0);
    int r;
    while ((r = json_next_element(&c, &first, &element, &type)) > 0)
        CHECK(json_array_append_new(array, value_of(element, type)) == 0);
    CHECK(r == 0 && json_finish(&c) == 0);
    return array;
}

static json_t *value_of(struct slice text, enum json_type type) {
    switch (type) {
    case JSON_TYPE_OBJECT:
        return object_of(text);
    case JSON_TYPE_ARRAY:
        return array_of(text);
    case JSON_TYPE_STRING:
        return string_of(text);
    case JSON_TYPE_NUMBER:
        return number_of(text);
    case JSON_TYPE_TRUE:
        return json_true();
    case JSON_TYPE_FALSE:
        return json_false();
    case JSON_TYPE_NULL:
        return json_null();
    }
    UNREACHABLE();
}

static void compare(struct slice text, struct slice value, enum json_type type) {
    json_error_t error;
    odd_text = false;
    json_t *ours = value_of(value, type);
    json_t *theirs = json_loadb(text.p, text.n, JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
    CHECK(ours);
    if (theirs)
        CHECK(odd_text || json_equal(ours, theirs));
    else
        CHECK(odd_text || json_error_code(&error) == json_error_numeric_overflow);
    json_decref(ours);
    json_decref(theirs);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct slice text = {(const char *)data, size}, value;
    struct json_cursor c = json_open(text);
    enum json_type type;
    if (json_value(&c, &value, &type) == 0 && json_finish(&c) == 0) {
        CHECK(value.p >= text.p && value.p + value.n <= text.p + text.n && value.n > 0);
        compare(text, value, type);
        return 0;
    }
    CHECK(c.problem && json_offset(&c) <= size);
    /* What jansson takes is refused only for its depth. (jansson steps over a NUL that follows a number.) */
    if (size == 0 || memchr(data, '\0', size))
        return 0;
    json_t *theirs = json_loadb(text.p, text.n, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    CHECK(!theirs || strcmp(c.problem, "nested deeper than 64 levels") == 0);
    json_decref(theirs);
    return 0;
}
