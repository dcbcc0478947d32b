/* A filter's document read into its program. */
#include <errno.h>
#include <stdio.h>

#include "core/doc.h"
#include "core/filter_program.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

enum { PLACE_MAX = 100 }; /* bytes of a place in a message */

/* Where in the document: a member or an element of what is above. */
struct place {
    const struct place *up;
    const char *name; /* NULL: an element */
    size_t index;
};

struct compiler {
    struct buf ops, pool;
    struct field_errors *errors;
    bool too_many;
};

/* ---- errors ---- */

static bool is_plain(const char *name) {
    for (const char *c = name; *c; c++)
        if (!((*c >= '0' && *c <= '9') || (*c >= 'A' && *c <= 'Z') || (*c >= 'a' && *c <= 'z') || *c == '_' ||
              *c == '-' || *c == '$'))
            return false;
    return name[0] != '\0';
}

static void write_place(const struct place *p, struct buf *out) {
    if (!p) {
        buf_add_str(out, "filter");
        return;
    }
    write_place(p->up, out);
    if (!p->name) {
        buf_addf(out, "[%zu]", p->index);
    } else if (is_plain(p->name)) {
        buf_addf(out, ".%s", p->name);
    } else {
        buf_add_char(out, '[');
        buf_add_json_string(out, slice_of(p->name));
        buf_add_char(out, ']');
    }
}

/* "filter.data.amount[0]: …". Of a long place its end is told, which says more. */
static int refuse(struct compiler *c, const struct place *p, const char *expected) {
    _cleanup_buf_ struct buf text = {0};
    write_place(p, &text);
    size_t skip = text.n > PLACE_MAX ? text.n - PLACE_MAX : 0;
    while (skip && skip < text.n && ((unsigned char)text.p[skip] & 0xC0) == 0x80)
        skip++;
    field_error_add(c->errors, "filter", "at %s%s: %s", skip ? "…" : "", text.p ? text.p + skip : "filter",
                    expected);
    return -EINVAL;
}

/* ---- the program ---- */

static struct filter_op *op_at(struct compiler *c, uint32_t at) {
    return (struct filter_op *)(void *)c->ops.p + at;
}

static uint32_t ops_n(const struct compiler *c) {
    return (uint32_t)(c->ops.n / sizeof(struct filter_op));
}

/* Adds an op with its text; without children until op_end. */
static uint32_t op_begin(struct compiler *c, enum filter_kind kind, struct slice text) {
    uint32_t at = ops_n(c);
    struct filter_op op = {
        .next = at + 1, .text = (uint32_t)c->pool.n, .text_n = (uint32_t)text.n, .kind = (uint8_t)kind};
    if (at == FILTER_VALUES_MAX)
        c->too_many = true;
    if (c->too_many)
        return 0;
    buf_add(&c->ops, &op, sizeof op);
    buf_add_slice(&c->pool, text);
    return at;
}

static void op_end(struct compiler *c, uint32_t at) {
    if (at < ops_n(c))
        op_at(c, at)->next = ops_n(c);
}

static void op_number(struct compiler *c, enum filter_comparison comparison, struct slice number) {
    struct decimal d = decimal_of(number);
    uint32_t at = op_begin(c, FILTER_COMPARE, d.digits);
    if (at >= ops_n(c))
        return;
    struct filter_op *op = op_at(c, at);
    op->exponent = (int32_t)d.exponent;
    op->negative = d.negative;
    op->comparison = (uint8_t)comparison;
}

/* ---- values and operators ---- */

static int read_number(struct compiler *c, const json_t *value, const struct place *p,
                       enum filter_comparison comparison) {
    char text[40];
    int n;
    if (json_is_integer(value)) {
        n = snprintf(text, sizeof text, "%lld", (long long)json_integer_value(value));
    } else {
        n = snprintf(text, sizeof text, "%.*g", FILTER_NUMBER_DIGITS, json_real_value(value));
        if (strtod(text, NULL) != json_real_value(value))
            return refuse(c, p, "a number of at most 15 digits, or a 64-bit integer, was expected");
    }
    op_number(c, comparison, (struct slice){text, (size_t)n});
    return 0;
}

static int read_text(struct compiler *c, const json_t *value, const struct place *p, enum filter_kind kind) {
    struct slice text = doc_string(value);
    if (json_is_string(value) && !text.p)
        return refuse(c, p, "a string must not contain U+0000");
    if (!text.p || (kind != FILTER_EQUAL && text.n == 0))
        return refuse(c, p, "a string that is not empty was expected");
    op_begin(c, kind, text);
    return 0;
}

static int read_scalar(struct compiler *c, const json_t *value, const struct place *p) {
    switch (json_typeof(value)) {
    case JSON_STRING:
        return read_text(c, value, p, FILTER_EQUAL);
    case JSON_INTEGER:
    case JSON_REAL:
        return read_number(c, value, p, FILTER_EQ);
    case JSON_TRUE:
        op_begin(c, FILTER_TRUE, SLICE_NONE);
        return 0;
    case JSON_FALSE:
        op_begin(c, FILTER_FALSE, SLICE_NONE);
        return 0;
    case JSON_NULL:
        op_begin(c, FILTER_NULL, SLICE_NONE);
        return 0;
    default:
        return refuse(
            c, p,
            "a string, number, true, false, null or an operator such as {\"prefix\":\"a\"} was expected");
    }
}

/* 0 when it is none. */
static int comparison_of(struct slice word) {
    static const struct {
        const char *word;
        int comparison;
    } known[] = {{"<", FILTER_LT},
                 {"<=", FILTER_LT | FILTER_EQ},
                 {"=", FILTER_EQ},
                 {">=", FILTER_GT | FILTER_EQ},
                 {">", FILTER_GT}};
    for (size_t i = 0; i < COUNT(known); i++)
        if (slice_eq(word, slice_of(known[i].word)))
            return known[i].comparison;
    return 0;
}

static int read_comparison(struct compiler *c, const json_t *list, size_t i, const struct place *p) {
    struct place operator_at = {p, NULL, i}, number_at = {p, NULL, i + 1};
    const json_t *number = json_array_get(list, i + 1);
    int comparison = comparison_of(doc_string(json_array_get(list, i)));
    if (!comparison)
        return refuse(c, &operator_at, "one of \"<\", \"<=\", \"=\", \">=\" and \">\" was expected");
    if (!number || !json_is_number(number))
        return refuse(c, &number_at, "a number was expected");
    return read_number(c, number, &number_at, (enum filter_comparison)comparison);
}

static int read_numeric(struct compiler *c, const json_t *list, const struct place *p) {
    size_t n = json_array_size(list);
    if (n == 0 || n > 4)
        return refuse(c, p,
                      "one or two comparisons were expected, such as [\">=\",1] or [\">\",0,\"<=\",500]");
    uint32_t at = op_begin(c, FILTER_NUMERIC, SLICE_NONE);
    int r = 0;
    for (size_t i = 0; i < n && r == 0; i += 2)
        r = read_comparison(c, list, i, p);
    op_end(c, at);
    return r;
}

static int read_value(struct compiler *c, const json_t *value, const struct place *p, bool negated);

static int read_but(struct compiler *c, const json_t *value, const struct place *p) {
    uint32_t at = op_begin(c, FILTER_BUT, SLICE_NONE);
    int r = 0;
    if (!json_is_array(value))
        r = read_value(c, value, p, true);
    else if (json_array_size(value) == 0)
        r = refuse(c, p, "an empty list excludes nothing");
    for (size_t i = 0; i < json_array_size(value); i++) {
        struct place element = {p, NULL, i};
        r |= read_value(c, json_array_get(value, i), &element, true);
    }
    op_end(c, at);
    return r;
}

static int read_operator(struct compiler *c, const json_t *object, const struct place *p, bool negated) {
    json_t *from = (json_t *)(uintptr_t)object; /* jansson's iterators want an object that may change */
    void *at = json_object_iter(from);
    if (json_object_size(object) != 1)
        return refuse(c, p, "an operator is an object of one member, such as {\"prefix\":\"a\"}");
    struct slice name = slice_of(json_object_iter_key(at));
    const json_t *value = json_object_iter_value(at);
    struct place inner = {p, name.p, 0};
    if (slice_eq(name, SLICE_LIT("prefix")))
        return read_text(c, value, &inner, FILTER_PREFIX);
    if (slice_eq(name, SLICE_LIT("suffix")))
        return read_text(c, value, &inner, FILTER_SUFFIX);
    if (slice_eq(name, SLICE_LIT("numeric")))
        return read_numeric(c, value, &inner);
    if (negated)
        return refuse(c, &inner, "\"anything-but\" takes values, \"prefix\", \"suffix\" and \"numeric\"");
    if (slice_eq(name, SLICE_LIT("anything-but")))
        return read_but(c, value, &inner);
    if (!slice_eq(name, SLICE_LIT("exists")))
        return refuse(c, &inner,
                      "no such operator: there are prefix, suffix, numeric, exists and anything-but");
    if (!json_is_boolean(value))
        return refuse(c, &inner, "true or false was expected");
    op_begin(c, json_is_true(value) ? FILTER_EXISTS : FILTER_ABSENT, SLICE_NONE);
    return 0;
}

/* An entry of a list. `negated`: within anything-but. */
static int read_value(struct compiler *c, const json_t *value, const struct place *p, bool negated) {
    return json_is_object(value) ? read_operator(c, value, p, negated) : read_scalar(c, value, p);
}

static int read_list(struct compiler *c, const json_t *list, const struct place *p) {
    if (json_array_size(list) == 0)
        return refuse(c, p, "an empty list matches nothing");
    uint32_t at = op_begin(c, FILTER_LIST, SLICE_NONE);
    int r = 0;
    for (size_t i = 0; i < json_array_size(list); i++) {
        struct place element = {p, NULL, i};
        r |= read_value(c, json_array_get(list, i), &element, false);
    }
    op_end(c, at);
    return r;
}

/* ---- patterns ---- */

static int read_pattern(struct compiler *c, const json_t *pattern, const struct place *p, int depth,
                        bool root);

static int read_patterns(struct compiler *c, enum filter_kind kind, const json_t *list, const struct place *p,
                         int depth, bool root) {
    if (json_array_size(list) == 0)
        return refuse(c, p, "a list of patterns (objects) was expected");
    uint32_t at = op_begin(c, kind, SLICE_NONE);
    int r = 0;
    for (size_t i = 0; i < json_array_size(list); i++) {
        struct place element = {p, NULL, i};
        r |= read_pattern(c, json_array_get(list, i), &element, depth, root);
    }
    op_end(c, at);
    return r;
}

static int read_combination(struct compiler *c, const char *name, const json_t *value, const struct place *p,
                            int depth, bool root) {
    if (strcmp(name, "$or") == 0)
        return read_patterns(c, FILTER_ANY, value, p, depth, root);
    if (strcmp(name, "$and") == 0)
        return read_patterns(c, FILTER_ALL, value, p, depth, root);
    if (strcmp(name, "$not") != 0)
        return refuse(c, p, "there are $or, $and and $not; a field that begins with $ is written with $$");
    uint32_t at = op_begin(c, FILTER_NOT, SLICE_NONE);
    int r = read_pattern(c, value, p, depth, root);
    op_end(c, at);
    return r;
}

/* What an event has beside its payload is text: no pattern goes into it. */
static bool is_text_of_event(const char *name) {
    return strcmp(name, "type") == 0 || strcmp(name, "schema_version") == 0 ||
           strcmp(name, "ordering_key") == 0;
}

static int read_member(struct compiler *c, const char *name, const json_t *value, const struct place *p,
                       int depth, bool root) {
    if (root && strcmp(name, "data") != 0 && !is_text_of_event(name))
        return refuse(c, p,
                      "there are data, type, schema_version and ordering_key; fields of the payload stand "
                      "under data");
    uint32_t at = op_begin(c, FILTER_MEMBER, slice_of(name));
    int r;
    if (json_is_array(value))
        r = read_list(c, value, p);
    else if (json_is_object(value) && !(root && is_text_of_event(name)))
        r = read_pattern(c, value, p, depth, false);
    else
        r = refuse(c, p, "a list of what may stand there was expected, such as [\"paid\"]");
    op_end(c, at);
    return r;
}

static int by_name(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The members in the order of their names, so that the program does not depend on theirs. */
static int read_members(struct compiler *c, const json_t *pattern, const struct place *p, int depth,
                        bool root) {
    json_t *from = (json_t *)(uintptr_t)pattern;
    size_t n = 0;
    _cleanup_free_ const char **names = calloc(json_object_size(pattern), sizeof *names);
    if (!names)
        return -ENOMEM;
    for (void *at = json_object_iter(from); at; at = json_object_iter_next(from, at))
        names[n++] = json_object_iter_key(at);
    qsort(names, n, sizeof *names, by_name);
    int r = 0;
    for (size_t i = 0; i < n; i++) {
        const json_t *value = json_object_get(pattern, names[i]);
        struct place member = {p, names[i], 0};
        bool combination = names[i][0] == '$' && names[i][1] != '$';
        r |= combination ? read_combination(c, names[i], value, &member, depth + 1, root)
                         : read_member(c, names[i] + (names[i][0] == '$'), value, &member, depth + 1, root);
    }
    return r;
}

static int read_pattern(struct compiler *c, const json_t *pattern, const struct place *p, int depth,
                        bool root) {
    if (depth >= FILTER_DEPTH_MAX)
        return refuse(c, p, "nested too deeply");
    if (!json_is_object(pattern))
        return refuse(c, p, "a pattern (an object) was expected");
    if (json_object_size(pattern) == 0)
        return refuse(c, p, root && !p ? "names no field; null stands for no filter" : "names no field");
    uint32_t at = op_begin(c, FILTER_ALL, SLICE_NONE);
    int r = read_members(c, pattern, p, depth, root);
    op_end(c, at);
    return r;
}

static struct filter *link_program(const struct compiler *c) {
    struct filter *f = malloc(sizeof *f + c->ops.n + c->pool.n);
    if (!f || !buf_ok(&c->ops) || !buf_ok(&c->pool)) {
        free(f);
        return NULL;
    }
    atomic_init(&f->refs, 1);
    f->ops_n = ops_n(c);
    f->pool_n = (uint32_t)c->pool.n;
    memcpy(f->ops, c->ops.p, c->ops.n);
    if (c->pool.n)
        memcpy((char *)(f->ops + f->ops_n), c->pool.p, c->pool.n);
    return f;
}

struct filter *filter_compile(const json_t *doc, struct field_errors *errors) {
    struct compiler c = {.errors = errors};
    struct filter *f = NULL;
    int r = 0;
    if (json_dumpb(doc, NULL, 0, JSON_COMPACT | JSON_ENCODE_ANY) > FILTER_BYTES_MAX) {
        field_error_add(errors, "filter", "must have at most %d bytes", FILTER_BYTES_MAX);
        r = -EINVAL;
    }
    if (r == 0)
        r = read_pattern(&c, doc, NULL, 0, true);
    if (r == 0 && c.too_many) {
        field_error_add(errors, "filter", "must have at most %d fields, values and operators",
                        FILTER_VALUES_MAX);
        r = -EINVAL;
    }
    if (r == 0)
        f = link_program(&c);
    buf_free(&c.ops);
    buf_free(&c.pool);
    return f;
}
