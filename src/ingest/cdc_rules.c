#include "ingest/cdc_rules.h"

#include <errno.h>

#include "core/event.h"
#include "core/tenant.h"

static const struct {
    const char *name;
    enum cdc_operation operation;
} operations[] = {{"insert", CDC_INSERT}, {"update", CDC_UPDATE}, {"delete", CDC_DELETE}};

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

const char *cdc_operation_name(enum cdc_operation o) {
    for (size_t i = 0; i < COUNT(operations); i++)
        if (operations[i].operation == o)
            return operations[i].name;
    UNREACHABLE();
}

/* Says what is wrong with a part of the rule; SLICE_NONE: with all of it. */
static int complain(struct buf *complaint, struct slice what, const char *problem) {
    if (what.p)
        buf_addf(complaint, "\"%.*s\" ", SLICE_ARG(what));
    buf_add_str(complaint, problem);
    return -EINVAL;
}

/* ---- words ---- */

/* The text up to one of `stops` outside of quotes, which is stepped over; absent at the end. */
static struct slice next_part(struct slice *rest, const char *stops) {
    if (!rest->p)
        return SLICE_NONE;
    size_t n = 0;
    for (bool quoted = false; n < rest->n && (quoted || !strchr(stops, rest->p[n]) || !rest->p[n]); n++)
        if (rest->p[n] == '"')
            quoted = !quoted;
    struct slice part = {rest->p, n};
    *rest = n < rest->n ? (struct slice){rest->p + n + 1, rest->n - n - 1} : SLICE_NONE;
    return part;
}

static struct slice next_word(struct slice *rest) {
    struct slice word;
    do
        word = next_part(rest, " \t");
    while (word.p && word.n == 0);
    return word;
}

/* A name, taken out of its quotes, where a doubled quote stands for one. */
static int read_name(struct slice written, struct buf *out) {
    bool quoted = written.n > 0 && written.p[0] == '"';
    if (quoted && (written.n < 2 || written.p[written.n - 1] != '"'))
        return -EINVAL;
    if (quoted)
        written = (struct slice){written.p + 1, written.n - 2};
    for (size_t i = 0; i < written.n; i++) {
        if (written.p[i] == '"' && (!quoted || ++i == written.n || written.p[i] != '"'))
            return -EINVAL;
        buf_add_char(out, written.p[i]);
    }
    return out->n ? 0 : -EINVAL;
}

static int keep_name(struct slice written, char **ret) {
    _cleanup_buf_ struct buf name = {0};
    int r = read_name(written, &name);
    if (!buf_ok(&name))
        return -ENOMEM;
    if (r == 0 && !(*ret = slice_dup(buf_slice(&name))))
        r = -ENOMEM;
    return r;
}

static int take_table(struct cdc_rule *rule, struct slice word, struct buf *complaint) {
    struct slice rest = word;
    struct slice schema = next_part(&rest, "."), table = next_part(&rest, ".");
    int r = table.p && !rest.p ? keep_name(schema, &rule->schema) : -EINVAL;
    if (r == 0)
        r = keep_name(table, &rule->table);
    return r == -EINVAL ? complain(complaint, word, "must be a table with its schema, such as public.orders")
                        : r;
}

static int take_operations(struct cdc_rule *rule, struct slice word, struct buf *complaint) {
    struct slice rest = word, name;
    while ((name = next_part(&rest, ",")).p) {
        unsigned found = 0;
        for (size_t i = 0; i < COUNT(operations); i++)
            if (slice_eq(name, slice_of(operations[i].name)))
                found = operations[i].operation;
        if (!found || rule->operations & found)
            return complain(complaint, word,
                            "must be operations: insert, update and delete, with commas between");
        rule->operations |= found;
    }
    return 0;
}

/* ---- options ---- */

int cdc_template_next(struct slice *rest, struct cdc_piece *ret) {
    if (rest->n == 0)
        return 0;
    bool column = rest->p[0] == '{';
    size_t n = column ? 1 : 0;
    while (n < rest->n && rest->p[n] != '{' && rest->p[n] != '}')
        n++;
    bool closed = n < rest->n && rest->p[n] == '}';
    if (closed != column || (column && n == 1))
        return -EINVAL;
    ret->column = column;
    ret->text = column ? (struct slice){rest->p + 1, n - 1} : (struct slice){rest->p, n};
    if (column && ret->text.n > 2 && ret->text.p[0] == '"' && ret->text.p[ret->text.n - 1] == '"')
        ret->text = (struct slice){ret->text.p + 1, ret->text.n - 2};
    n += column;
    *rest = (struct slice){rest->p + n, rest->n - n};
    return 1;
}

/* *ret_fixed: no column is in it. */
static int check_template(struct slice text, bool *ret_fixed) {
    struct cdc_piece piece;
    *ret_fixed = true;
    int r;
    if (text.n == 0)
        return -EINVAL;
    while ((r = cdc_template_next(&text, &piece)) > 0)
        *ret_fixed &= !piece.column;
    return r;
}

static int keep_text(char **field, struct slice value) {
    return (*field = slice_dup(value)) ? 0 : -ENOMEM;
}

static int take_type(struct cdc_rule *rule, struct slice value, struct buf *complaint) {
    bool fixed;
    if (check_template(value, &fixed) < 0 || (fixed && !event_type_valid(value)))
        return complain(complaint, value, "is no event type");
    if (event_type_reserved(value))
        return complain(complaint, value, "is a type of the server's own");
    return keep_text(&rule->type, value);
}

static int take_tenant(struct cdc_rule *rule, struct slice value, struct buf *complaint) {
    bool fixed;
    if (check_template(value, &fixed) < 0 || (fixed && !tenant_id_valid(value)))
        return complain(complaint, value, "is no tenant");
    return keep_text(&rule->tenant, value);
}

static int take_ordering_key(struct cdc_rule *rule, struct slice value, struct buf *complaint) {
    bool fixed;
    if (check_template(value, &fixed) < 0)
        return complain(complaint, value, "is no ordering key: name a column, such as {id}");
    return keep_text(&rule->ordering_key, value);
}

static int take_schema_version(struct cdc_rule *rule, struct slice value, struct buf *complaint) {
    if (value.n < 1 || value.n > EVENT_SCHEMA_VERSION_MAX)
        return complain(complaint, value, "is no schema version");
    return keep_text(&rule->schema_version, value);
}

static int take_data(struct cdc_rule *rule, struct slice value, struct buf *complaint) {
    struct slice rest = value, name;
    if (slice_eq(value, SLICE_LIT("*")))
        return 0;
    while ((name = next_part(&rest, ",")).p) {
        if (rule->columns_n == CDC_RULE_COLUMNS_MAX)
            return complain(complaint, value, "names more than 64 columns");
        int r = keep_name(name, &rule->columns[rule->columns_n]);
        if (r < 0)
            return r == -EINVAL ? complain(complaint, value, "must be columns with commas between, or *") : r;
        rule->columns_n++;
    }
    return 0;
}

static int take_before(struct cdc_rule *rule, struct slice value, struct buf *complaint) {
    rule->before = slice_eq(value, SLICE_LIT("true"));
    if (!rule->before && !slice_eq(value, SLICE_LIT("false")))
        return complain(complaint, value, "must be true or false");
    return 0;
}

static const struct option {
    const char *name;
    int (*take)(struct cdc_rule *rule, struct slice value, struct buf *complaint);
} options[] = {
    {"type", take_type},
    {"tenant", take_tenant},
    {"ordering-key", take_ordering_key},
    {"schema-version", take_schema_version},
    {"data", take_data},
    {"before", take_before},
};

static int take_option(struct cdc_rule *rule, struct slice word, unsigned *seen, struct buf *complaint) {
    const char *equals = memchr(word.p, '=', word.n);
    struct slice name = {word.p, equals ? (size_t)(equals - word.p) : word.n};
    for (unsigned i = 0; equals && i < COUNT(options); i++) {
        if (!slice_eq(name, slice_of(options[i].name)))
            continue;
        if (*seen & 1U << i)
            return complain(complaint, name, "is set twice");
        *seen |= 1U << i;
        return options[i].take(rule, (struct slice){equals + 1, word.n - name.n - 1}, complaint);
    }
    return complain(complaint, word,
                    "is not known: there are type=, tenant=, ordering-key=, schema-version=, data=, before=");
}

/* ---- the whole ---- */

static int name_rule(struct cdc_rule *rule) {
    _cleanup_buf_ struct buf name = {0};
    buf_addf(&name, "%s.%s", rule->schema, rule->table);
    char separator = ' ';
    for (size_t i = 0; i < COUNT(operations); i++) {
        if (!(rule->operations & operations[i].operation))
            continue;
        buf_addf(&name, "%c%s", separator, operations[i].name);
        separator = ',';
    }
    if (!rule->schema_version && !(rule->schema_version = strdup("1")))
        return -ENOMEM;
    return buf_ok(&name) && (rule->name = strdup(name.p)) ? 0 : -ENOMEM;
}

static int parse(struct slice text, struct cdc_rule *rule, struct buf *complaint) {
    struct slice rest = text, word;
    unsigned seen = 0;
    if (text.n > CDC_RULE_TEXT_MAX || (text.n && memchr(text.p, '\0', text.n)))
        return complain(complaint, SLICE_NONE, "a rule must be a text of at most 8192 bytes");
    struct slice table = next_word(&rest), what = next_word(&rest);
    if (!what.p)
        return complain(complaint, text, "must be a table, operations and type=…");
    int r = take_table(rule, table, complaint);
    if (r == 0)
        r = take_operations(rule, what, complaint);
    while (r == 0 && (word = next_word(&rest)).p)
        r = take_option(rule, word, &seen, complaint);
    if (r == 0 && !rule->type)
        return complain(complaint, SLICE_NONE, "type=… is missing");
    return r == 0 ? name_rule(rule) : r;
}

int cdc_rule_parse(struct slice text, struct cdc_rule *ret, struct buf *complaint) {
    *ret = (struct cdc_rule){0};
    int r = parse(text, ret, complaint);
    if (r < 0)
        cdc_rule_clear(ret);
    return r;
}

void cdc_rule_clear(struct cdc_rule *r) {
    char *texts[] = {r->name, r->schema, r->table, r->type, r->tenant, r->ordering_key, r->schema_version};
    for (size_t i = 0; i < COUNT(texts); i++)
        free(texts[i]);
    for (size_t i = 0; i < r->columns_n; i++)
        free(r->columns[i]);
    *r = (struct cdc_rule){0};
}

bool cdc_rules_overlap(const struct cdc_rule *a, const struct cdc_rule *b) {
    return (a->operations & b->operations) != 0 && strcmp(a->schema, b->schema) == 0 &&
           strcmp(a->table, b->table) == 0;
}
