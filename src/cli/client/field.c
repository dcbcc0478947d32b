#include "cli/client/field.h"

#include <errno.h>

static struct field member_of(struct slice object, struct slice name) {
    struct json_cursor c = json_open_around(object, ANSWER_AROUND);
    struct json_member m;
    bool first = true;
    char key[128];
    if (name.n >= sizeof key || json_enter_object(&c) < 0)
        return (struct field){0};
    memcpy(key, name.p, name.n);
    key[name.n] = '\0';
    while (json_next_member(&c, &first, &m) > 0)
        if (json_key_is(m.key, key))
            return (struct field){m.value, m.type};
    return (struct field){0};
}

struct field field_find(struct slice object, const char *path) {
    struct field f = {.text = object, .type = JSON_TYPE_OBJECT};
    while (*path && f.text.p) {
        size_t n = strcspn(path, ".");
        f = f.type == JSON_TYPE_OBJECT ? member_of(f.text, (struct slice){path, n}) : (struct field){0};
        path += n + (path[n] == '.');
    }
    return f;
}

int field_parse(struct slice text, struct field *ret, const char **ret_problem) {
    struct json_cursor c = json_open(text);
    if (json_value(&c, &ret->text, &ret->type) == 0 && json_finish(&c) == 0)
        return 0;
    *ret_problem = c.problem ? c.problem : "more follows after its end";
    return -EINVAL;
}

void field_show_text(struct slice text, struct buf *out) {
    for (size_t i = 0; i < text.n; i++) {
        unsigned char c = (unsigned char)text.p[i], next = i + 1 < text.n ? (unsigned char)text.p[i + 1] : 0;
        if (c == '\n') {
            buf_add_str(out, "\\n");
        } else if (c < 0x20 || c == 0x7f) {
            buf_addf(out, "\\x%02x", c);
        } else if (c == 0xc2 && next >= 0x80 && next < 0xa0) { /* a control character of two bytes */
            buf_addf(out, "\\x%02x", next);
            i++;
        } else {
            buf_add_char(out, (char)c);
        }
    }
}

void field_plain(struct field f, struct buf *out) {
    if (!f.text.p || f.type == JSON_TYPE_NULL)
        return;
    if (f.type != JSON_TYPE_STRING || json_string_decode(f.text, out) < 0)
        buf_add_slice(out, f.text);
}

static bool is_plain(enum json_type type) {
    return type != JSON_TYPE_OBJECT && type != JSON_TYPE_ARRAY;
}

static bool is_plain_array(struct field f) {
    struct json_cursor c = json_open(f.text);
    bool first = true;
    struct field element;
    if (f.type != JSON_TYPE_ARRAY || json_enter_array(&c) < 0)
        return false;
    while (json_next_element(&c, &first, &element.text, &element.type) > 0)
        if (!is_plain(element.type))
            return false;
    return true;
}

static void show_array(struct field f, struct buf *out) {
    struct json_cursor c = json_open(f.text);
    bool first = true, any = false;
    struct field element;
    if (json_enter_array(&c) < 0)
        return;
    while (json_next_element(&c, &first, &element.text, &element.type) > 0) {
        buf_add_str(out, any ? ", " : "");
        field_show(element, out);
        any = true;
    }
    if (!any)
        buf_add_char(out, '-');
}

void field_show(struct field f, struct buf *out) {
    _cleanup_buf_ struct buf text = {0};
    if (is_plain_array(f)) {
        show_array(f, out);
        return;
    }
    field_plain(f, &text);
    if (text.n == 0)
        buf_add_char(out, '-');
    field_show_text(buf_slice(&text), out);
}

int64_t field_int(struct field f, int64_t otherwise) {
    int64_t value;
    return f.text.p && f.type == JSON_TYPE_NUMBER && json_int(f.text, &value) == 0 ? value : otherwise;
}
