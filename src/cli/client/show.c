#include "cli/client/show.h"

#include <errno.h>

#include "cli/client/field.h"
#include "cli/client/tone.h"

enum { COLUMN_GAP = 2, RECORD_DEPTH_MAX = 4, MEMBER_NAME_MAX = 256 };

/* ---- tables ---- */

static void measure(struct table *t, struct slice object) {
    _cleanup_buf_ struct buf text = {0};
    for (size_t i = 0; i < t->columns_n; i++) {
        buf_reset(&text);
        field_show(field_find(object, t->columns[i].field), &text);
        size_t width = text_width(buf_slice(&text));
        if (width > t->widths[i])
            t->widths[i] = width;
    }
}

static size_t cell_width(const struct table *t, size_t i) {
    return i + 1 < t->columns_n ? t->widths[i] + COLUMN_GAP : 0; /* nothing pads the end of a line */
}

void show_titles(struct table *t, bool colours, struct buf *out) {
    CHECK(t->columns_n <= SHOW_COLUMNS_MAX);
    for (size_t i = 0; i < t->columns_n; i++) {
        struct slice title = slice_of(t->columns[i].title);
        if (title.n > t->widths[i])
            t->widths[i] = title.n;
        tone_add(out, TONE_TITLE, colours, title, cell_width(t, i));
    }
    buf_add_char(out, '\n');
    t->titled = true;
}

void show_row(const struct table *t, struct slice object, bool colours, struct buf *out) {
    _cleanup_buf_ struct buf text = {0};
    for (size_t i = 0; i < t->columns_n; i++) {
        buf_reset(&text);
        field_show(field_find(object, t->columns[i].field), &text);
        struct slice shown = buf_slice(&text);
        enum tone tone = t->columns[i].state || slice_eq(shown, SLICE_LIT("-")) ? tone_of(shown) : TONE_PLAIN;
        tone_add(out, tone, colours, shown, cell_width(t, i));
    }
    buf_add_char(out, '\n');
}

/* 1 with the next object of the array, 0 at its end, -EINVAL. */
static int next_object(struct json_cursor *c, bool *first, struct slice *ret) {
    enum json_type type;
    int r = json_next_element(c, first, ret, &type);
    return r > 0 && type != JSON_TYPE_OBJECT ? -EINVAL : r;
}

int show_rows(struct table *t, struct slice array, bool colours, struct buf *out) {
    struct json_cursor c = json_open_around(array, ANSWER_AROUND);
    struct slice object;
    bool first = true;
    int r = json_enter_array(&c);
    while (r >= 0 && (r = next_object(&c, &first, &object)) > 0)
        measure(t, object);
    if (r < 0)
        return -EINVAL;
    if (!t->titled)
        show_titles(t, colours, out);
    c = json_open_around(array, ANSWER_AROUND);
    first = true;
    r = json_enter_array(&c);
    while (r >= 0 && (r = next_object(&c, &first, &object)) > 0)
        show_row(t, object, colours, out);
    return 0;
}

/* ---- records ---- */

struct record {
    const struct view *view;
    bool colours;
    size_t width; /* of the names */
    struct buf *out;
    void (*visit)(struct record *r, const char *name, struct field value);
};

static bool has_section(const struct view *v, const char *name) {
    for (size_t i = 0; i < VIEW_SECTIONS_MAX; i++)
        if (v->sections[i].columns && strcmp(v->sections[i].field, name) == 0)
            return true;
    return false;
}

static void measure_name(struct record *r, const char *name, struct field value) {
    (void)value;
    size_t width = text_width(slice_of(name));
    if (width > r->width)
        r->width = width;
}

static void show_member(struct record *r, const char *name, struct field value) {
    _cleanup_buf_ struct buf text = {0};
    field_show(value, &text);
    tone_add(r->out, TONE_TITLE, r->colours, slice_of(name), r->width + COLUMN_GAP);
    tone_add(r->out, tone_of(buf_slice(&text)), r->colours, buf_slice(&text), 0);
    buf_add_char(r->out, '\n');
}

static bool is_empty_object(struct field f) {
    struct json_cursor c = json_open(f.text);
    struct json_member m;
    bool first = true;
    return json_enter_object(&c) == 0 && json_next_member(&c, &first, &m) == 0;
}

/* An event's data is the producer's: it is shown whole, not taken apart. */
static bool is_nested(const char *name, struct field f, int depth) {
    return f.type == JSON_TYPE_OBJECT && depth < RECORD_DEPTH_MAX && strcmp(name, "data") != 0 &&
           strcmp(name, "filter") != 0 && !is_empty_object(f);
}

static int walk(struct record *r, const char *prefix, struct slice object, int depth) {
    struct json_cursor c = json_open(object);
    struct json_member m;
    bool first = true;
    if (json_enter_object(&c) < 0)
        return -EINVAL;
    int found;
    while ((found = json_next_member(&c, &first, &m)) > 0) {
        _cleanup_buf_ struct buf name = {0};
        struct field value = {m.value, m.type};
        buf_addf(&name, "%s%s", prefix, prefix[0] ? "." : "");
        field_show_text((struct slice){m.key.p, m.key.n < MEMBER_NAME_MAX ? m.key.n : MEMBER_NAME_MAX},
                        &name);
        if (!buf_ok(&name) || (depth == 0 && has_section(r->view, name.p)))
            continue;
        if (!is_nested(name.p, value, depth))
            r->visit(r, name.p, value);
        else if (walk(r, name.p, m.value, depth + 1) < 0)
            return -EINVAL;
    }
    return found;
}

static void show_section(const struct section *s, struct slice object, bool colours, struct buf *out) {
    struct field rows = field_find(object, s->field);
    struct table t = {.columns = s->columns, .columns_n = s->columns_n};
    _cleanup_buf_ struct buf text = {0};
    if (rows.type != JSON_TYPE_ARRAY || !rows.text.p || show_rows(&t, rows.text, colours, &text) < 0)
        return;
    buf_add_char(out, '\n');
    tone_add(out, TONE_TITLE, colours, slice_of(s->title), 0);
    buf_add_char(out, '\n');
    buf_add_slice(out, buf_slice(&text));
}

int show_record(const struct view *v, struct slice object, bool colours, struct buf *out) {
    struct record r = {.view = v, .colours = colours, .out = out, .visit = measure_name};
    if (walk(&r, "", object, 0) < 0)
        return -EINVAL;
    r.visit = show_member;
    int result = walk(&r, "", object, 0);
    for (size_t i = 0; i < VIEW_SECTIONS_MAX && result == 0; i++)
        if (v->sections[i].columns)
            show_section(&v->sections[i], object, colours, out);
    return result;
}
