#include "core/filter.h"

#include "core/filter_program.h"

struct filter *filter_ref(struct filter *f) {
    unsigned before = atomic_fetch_add_explicit(&f->refs, 1, memory_order_relaxed);
    CHECK(before > 0);
    return f;
}

void filter_unref(struct filter *f) {
    if (!f)
        return;
    unsigned before = atomic_fetch_sub_explicit(&f->refs, 1, memory_order_acq_rel);
    CHECK(before > 0);
    if (before == 1)
        free(f);
}

struct slice filter_program(const struct filter *f) {
    return (struct slice){(const char *)f->ops, f->ops_n * sizeof f->ops[0] + f->pool_n};
}

/* ---- matching ---- */

struct match {
    const struct filter *f;
    const struct filter_subject *subject;
    uint64_t steps;
};

/* Something to be judged: nothing, the event itself, a plain text of it, or a value of its payload. */
struct value {
    enum { VALUE_NONE, VALUE_EVENT, VALUE_TEXT, VALUE_NODE } kind;
    uint32_t at; /* VALUE_NODE */
    struct slice text;
};

static const struct json_node *node_of(const struct match *m, struct value v) {
    return v.kind == VALUE_NODE ? &m->subject->tape->nodes[v.at] : NULL;
}

static bool spent(struct match *m) {
    return ++m->steps > FILTER_STEPS_MAX;
}

/* ---- one value that is no array ---- */

static bool compare_matches(const struct filter *f, const struct filter_op *op, struct slice number) {
    struct decimal limit = {filter_text(f, op), op->exponent, op->negative};
    int r = decimal_compare(decimal_of(number), limit);
    return op->comparison & (r < 0 ? FILTER_LT : r > 0 ? FILTER_GT : FILTER_EQ);
}

static bool numeric_matches(const struct filter *f, uint32_t at, struct slice number) {
    for (uint32_t i = at + 1; i < f->ops[at].next; i = f->ops[i].next)
        if (!compare_matches(f, &f->ops[i], number))
            return false;
    return true;
}

static bool text_matches(const struct filter_op *op, struct slice wanted, struct slice text) {
    if (text.n < wanted.n || (op->kind == FILTER_EQUAL && text.n != wanted.n))
        return false;
    size_t skip = op->kind == FILTER_SUFFIX ? text.n - wanted.n : 0;
    return memcmp(text.p + skip, wanted.p, wanted.n) == 0;
}

static bool string_matches(struct match *m, const struct filter_op *op, const struct json_node *node) {
    struct slice wanted = filter_text(m->f, op), raw = json_node_text(node, m->subject->data.p);
    if (!node->escaped)
        return text_matches(op, wanted, (struct slice){raw.p + 1, raw.n - 2});
    if (op->kind == FILTER_SUFFIX) {
        m->steps += raw.n / 16;
        return json_string_ends_with(raw, wanted);
    }
    int r = json_string_compare(raw, wanted);
    return r == 1 || (r == 0 && op->kind == FILTER_PREFIX);
}

static bool scalar_matches(struct match *m, uint32_t at, struct value v) {
    const struct filter_op *op = &m->f->ops[at];
    const struct json_node *node = node_of(m, v);
    switch ((enum filter_kind)op->kind) {
    case FILTER_EQUAL:
    case FILTER_PREFIX:
    case FILTER_SUFFIX:
        if (!node)
            return text_matches(op, filter_text(m->f, op), v.text);
        return node->type == JSON_TYPE_STRING && string_matches(m, op, node);
    case FILTER_NUMERIC:
    case FILTER_COMPARE:
        if (!node || node->type != JSON_TYPE_NUMBER)
            return false;
        m->steps += node->n / 16;
        struct slice number = json_node_text(node, m->subject->data.p);
        return op->kind == FILTER_NUMERIC ? numeric_matches(m->f, at, number)
                                          : compare_matches(m->f, op, number);
    case FILTER_TRUE:
        return node && node->type == JSON_TYPE_TRUE;
    case FILTER_FALSE:
        return node && node->type == JSON_TYPE_FALSE;
    default:
        CHECK(op->kind == FILTER_NULL);
        return node && node->type == JSON_TYPE_NULL;
    }
}

/* ---- the value of a member ---- */

/* An array matches when one of its elements does. */
static bool value_matches(struct match *m, uint32_t at, struct value v) {
    const struct json_node *node = node_of(m, v);
    if (spent(m) || v.kind == VALUE_NONE)
        return false;
    if (!node || node->type != JSON_TYPE_ARRAY)
        return scalar_matches(m, at, v);
    for (uint32_t i = v.at + 1; i < node->next; i = m->subject->tape->nodes[i].next)
        if (value_matches(m, at, (struct value){.kind = VALUE_NODE, .at = i}))
            return true;
    return false;
}

static bool any_value_matches(struct match *m, uint32_t at, struct value v) {
    for (uint32_t i = at + 1; i < m->f->ops[at].next; i = m->f->ops[i].next)
        if (value_matches(m, i, v))
            return true;
    return false;
}

static bool list_matches(struct match *m, uint32_t at, struct value v) {
    bool found = false;
    for (uint32_t i = at + 1; i < m->f->ops[at].next && !found; i = m->f->ops[i].next) {
        switch ((enum filter_kind)m->f->ops[i].kind) {
        case FILTER_EXISTS:
            found = v.kind != VALUE_NONE;
            break;
        case FILTER_ABSENT:
            found = v.kind == VALUE_NONE;
            break;
        case FILTER_BUT:
            found = v.kind != VALUE_NONE && !any_value_matches(m, i, v);
            break;
        default:
            found = value_matches(m, i, v);
        }
    }
    return found;
}

/* ---- patterns ---- */

static bool pattern_matches(struct match *m, uint32_t at, struct value scope);

static struct value text_value(struct slice text) {
    return text.p ? (struct value){.kind = VALUE_TEXT, .text = text} : (struct value){.kind = VALUE_NONE};
}

/* What the event itself calls so. */
static struct value event_member(const struct match *m, struct slice name) {
    const struct filter_subject *s = m->subject;
    if (slice_eq(name, SLICE_LIT("data")))
        return (struct value){.kind = s->tape->n ? VALUE_NODE : VALUE_NONE};
    if (slice_eq(name, SLICE_LIT("type")))
        return text_value(s->type);
    return text_value(slice_eq(name, SLICE_LIT("ordering_key")) ? s->ordering_key : s->schema_version);
}

static struct value find_member(struct match *m, struct value scope, struct slice name) {
    struct value found = {.kind = VALUE_NONE};
    if (scope.kind == VALUE_EVENT)
        return event_member(m, name);
    const struct json_node *object = node_of(m, scope), *nodes = m->subject->tape->nodes;
    if (!object || object->type != JSON_TYPE_OBJECT)
        return found;
    for (uint32_t i = scope.at + 1; i < object->next && !spent(m); i = nodes[i + 1].next)
        if (json_node_compare(&nodes[i], m->subject->data.p, name) == 1)
            found = (struct value){.kind = VALUE_NODE, .at = i + 1};
    return found;
}

/* A pattern over the value of a member: of an array, one element has to fulfil all of it. What is no object,
 * and an empty array, has no members. */
static bool nested_matches(struct match *m, uint32_t at, struct value v) {
    const struct json_node *node = node_of(m, v);
    if (spent(m))
        return false;
    if (!node || node->type != JSON_TYPE_ARRAY || node->next == v.at + 1)
        return pattern_matches(m, at, v);
    for (uint32_t i = v.at + 1; i < node->next; i = m->subject->tape->nodes[i].next)
        if (nested_matches(m, at, (struct value){.kind = VALUE_NODE, .at = i}))
            return true;
    return false;
}

static bool member_matches(struct match *m, uint32_t at, struct value scope) {
    struct value v = find_member(m, scope, filter_text(m->f, &m->f->ops[at]));
    uint32_t child = at + 1;
    return m->f->ops[child].kind == FILTER_LIST ? list_matches(m, child, v) : nested_matches(m, child, v);
}

static bool pattern_matches(struct match *m, uint32_t at, struct value scope) {
    const struct filter_op *op = &m->f->ops[at];
    if (spent(m))
        return false;
    if (op->kind == FILTER_MEMBER)
        return member_matches(m, at, scope);
    if (op->kind == FILTER_NOT)
        return !pattern_matches(m, at + 1, scope);
    bool any = op->kind == FILTER_ANY;
    for (uint32_t i = at + 1; i < op->next; i = m->f->ops[i].next)
        if (pattern_matches(m, i, scope) == any)
            return any;
    return !any;
}

bool filter_matches(const struct filter *f, const struct filter_subject *subject, uint64_t *steps) {
    struct match m = {.f = f, .subject = subject};
    bool matches = pattern_matches(&m, 0, (struct value){.kind = VALUE_EVENT});
    *steps += m.steps;
    return matches || m.steps > FILTER_STEPS_MAX;
}
