#include "ingest/cdc_table.h"

#include <errno.h>

#include "base/json.h"

/* OIDs of pg_type.dat that are no strings in JSON; they never change. */
enum {
    OID_BOOL = 16,
    OID_INT8 = 20,
    OID_INT2 = 21,
    OID_INT4 = 23,
    OID_JSON = 114,
    OID_FLOAT4 = 700,
    OID_FLOAT8 = 701,
    OID_NUMERIC = 1700,
    OID_JSONB = 3802,
};

/* What a column's values are in JSON. */
enum kind { KIND_STRING, KIND_NUMBER, KIND_BOOLEAN, KIND_JSON, KINDS };
static const char *const kind_names[KINDS] = {"string", "number", "boolean", "json"};

static enum kind kind_of(uint32_t type) {
    switch (type) {
    case OID_BOOL:
        return KIND_BOOLEAN;
    case OID_INT2:
    case OID_INT4:
    case OID_INT8:
    case OID_FLOAT4:
    case OID_FLOAT8:
    case OID_NUMERIC:
        return KIND_NUMBER;
    case OID_JSON:
    case OID_JSONB:
        return KIND_JSON;
    default:
        return KIND_STRING;
    }
}

/* ---- the table ---- */

int cdc_table_new(const struct pgoutput_message *relation, struct cdc_table **ret) {
    CHECK(relation->kind == PGOUTPUT_RELATION);
    struct pgoutput_list columns = relation->relation.columns;
    struct pgoutput_column c;
    struct cdc_table *t = calloc(1, sizeof *t + columns.n * sizeof t->columns[0]);
    if (!t)
        return -ENOMEM;
    struct slice schema = relation->relation.schema;
    t->oid = relation->relation.oid;
    t->identity = relation->relation.identity;
    t->schema = slice_dup(schema.n ? schema : SLICE_LIT("pg_catalog"));
    t->name = slice_dup(relation->relation.name);
    bool complete = t->schema && t->name;
    for (; pgoutput_next_column(&columns, &c); t->n++) {
        t->columns[t->n] = (struct cdc_column){slice_dup(c.name), c.type, c.identity};
        complete &= t->columns[t->n].name != NULL;
    }
    if (!complete) {
        cdc_table_free(t);
        return -ENOMEM;
    }
    *ret = t;
    return 0;
}

void cdc_table_free(struct cdc_table *t) {
    if (!t)
        return;
    for (size_t i = 0; i < t->n; i++)
        free(t->columns[i].name);
    free(t->schema);
    free(t->name);
    free(t);
}

/* SIZE_MAX: there is none. */
static size_t column_index(const struct cdc_table *t, struct slice name) {
    for (size_t i = 0; i < t->n; i++)
        if (slice_eq(slice_of(t->columns[i].name), name))
            return i;
    return SIZE_MAX;
}

/* ---- does the rule fit ---- */

/* `where` is the option that names the column. */
static int check_column(const struct cdc_table *t, const struct cdc_rule *rule, struct slice name,
                        const char *where, struct buf *reason) {
    size_t i = column_index(t, name);
    if (i == SIZE_MAX) {
        buf_addf(
            reason,
            "the rule \"%s\" names the column %.*s in %s, which %s.%s does not have (any more): change the "
            "rule, or give the column back",
            rule->name, SLICE_ARG(name), where, t->schema, t->name);
        return -EINVAL;
    }
    if (rule->operations & CDC_DELETE && t->identity != 'f' && !t->columns[i].identity) {
        buf_addf(
            reason,
            "the rule \"%s\" names the column %.*s in %s, but a delete tells only the replica identity of "
            "%s.%s: leave the column out, or ALTER TABLE %s.%s REPLICA IDENTITY FULL",
            rule->name, SLICE_ARG(name), where, t->schema, t->name, t->schema, t->name);
        return -EINVAL;
    }
    return 0;
}

static int check_template(const struct cdc_table *t, const struct cdc_rule *rule, const char *template,
                          const char *where, struct buf *reason) {
    struct slice rest = slice_of(template);
    struct cdc_piece piece;
    int r = 0;
    while (r == 0 && cdc_template_next(&rest, &piece) > 0)
        if (piece.column)
            r = check_column(t, rule, piece.text, where, reason);
    return r;
}

int cdc_table_fits(const struct cdc_table *t, const struct cdc_rule *rule, struct buf *reason) {
    if (rule->before && rule->operations & (CDC_UPDATE | CDC_DELETE) && t->identity != 'f') {
        buf_addf(
            reason,
            "the rule \"%s\" asks for values before a change, which PostgreSQL tells only after ALTER TABLE "
            "%s.%s REPLICA IDENTITY FULL",
            rule->name, t->schema, t->name);
        return -EINVAL;
    }
    int r = check_template(t, rule, rule->type, "type", reason);
    if (r == 0 && rule->tenant)
        r = check_template(t, rule, rule->tenant, "tenant", reason);
    if (r == 0 && rule->ordering_key)
        r = check_template(t, rule, rule->ordering_key, "ordering-key", reason);
    for (size_t i = 0; r == 0 && i < rule->columns_n; i++)
        r = check_column(t, rule, slice_of(rule->columns[i]), "data", reason);
    return r;
}

/* ---- shapes ---- */

static bool in_data(const struct cdc_rule *rule, const char *column) {
    for (size_t i = 0; i < rule->columns_n; i++)
        if (strcmp(rule->columns[i], column) == 0)
            return true;
    return rule->columns_n == 0;
}

void cdc_shape_write(const struct cdc_table *t, const struct cdc_rule *rule, struct buf *out) {
    bool first = true;
    buf_add_str(out, "{\"schema_version\":");
    buf_add_json_string(out, slice_of(rule->schema_version));
    buf_add_str(out, ",\"columns\":{");
    for (size_t i = 0; i < t->n; i++) {
        if (!in_data(rule, t->columns[i].name))
            continue;
        if (!first)
            buf_add_char(out, ',');
        first = false;
        buf_add_json_string(out, slice_of(t->columns[i].name));
        buf_addf(out, ":\"%s\"", kind_names[kind_of(t->columns[i].type)]);
    }
    buf_add_str(out, "}}");
}

/* One column of a known shape. */
static int keeps_column(const struct cdc_table *t, const struct cdc_rule *rule, const struct json_member *m,
                        struct buf *reason) {
    _cleanup_buf_ struct buf name = {0};
    struct slice quoted = {m->key.p - 1, m->key.n + 2};
    if (m->type != JSON_TYPE_STRING || json_string_decode(quoted, &name) < 0 || !buf_ok(&name))
        return -EBADMSG;
    if (!in_data(rule, name.p ? name.p : ""))
        return 0;
    size_t i = column_index(t, buf_slice(&name));
    const char *now = i == SIZE_MAX ? NULL : kind_names[kind_of(t->columns[i].type)];
    if (now && json_string_compare(m->value, slice_of(now)) == 1)
        return 0;
    buf_addf(reason, "the column %.*s of %s.%s was a %.*s and ", SLICE_ARG(buf_slice(&name)), t->schema,
             t->name, SLICE_ARG(m->value));
    buf_addf(reason, now ? "is now a \"%s\"" : "is gone%s", now ? now : "");
    buf_addf(
        reason,
        ": subscribers do not expect that. Give the rule \"%s\" another schema-version than %s to send the "
        "new shape, or name in data= the columns that are to be sent",
        rule->name, rule->schema_version);
    return -EINVAL;
}

static int keeps_columns(const struct cdc_table *t, const struct cdc_rule *rule, struct slice columns,
                         struct buf *reason) {
    struct json_cursor c = json_open(columns);
    struct json_member m;
    bool first = true;
    if (json_enter_object(&c) < 0)
        return -EBADMSG;
    int r;
    while ((r = json_next_member(&c, &first, &m)) > 0) {
        r = keeps_column(t, rule, &m, reason);
        if (r < 0)
            return r;
    }
    return r < 0 ? -EBADMSG : 0;
}

int cdc_shape_keeps(const struct cdc_table *t, const struct cdc_rule *rule, struct slice known,
                    struct buf *reason) {
    struct json_cursor c = json_open(known);
    struct json_member version, columns;
    bool first = true;
    if (json_enter_object(&c) < 0 || json_next_member(&c, &first, &version) <= 0 ||
        json_next_member(&c, &first, &columns) <= 0 || version.type != JSON_TYPE_STRING)
        return -EBADMSG;
    if (json_string_compare(version.value, slice_of(rule->schema_version)) != 1)
        return 0;
    return keeps_columns(t, rule, columns.value, reason);
}

/* ---- events ---- */

enum cdc_operation cdc_operation_of(const struct pgoutput_message *row) {
    CHECK(row->kind == PGOUTPUT_INSERT || row->kind == PGOUTPUT_UPDATE || row->kind == PGOUTPUT_DELETE);
    return row->kind == PGOUTPUT_INSERT ? CDC_INSERT : row->kind == PGOUTPUT_UPDATE ? CDC_UPDATE : CDC_DELETE;
}

/* A row as it stood after the change, or before. */
struct row {
    const struct cdc_table *table;
    bool told; /* there is one */
    struct pgoutput_list values;
    struct pgoutput_list untold; /* where values that an update left unchanged are found; n 0: nowhere */
    bool key_only;               /* the others are not told, though they look like null */
};

static bool next_value(struct row *at, size_t i, struct pgoutput_value *ret) {
    struct pgoutput_value other = {.kind = PGOUTPUT_UNCHANGED};
    if (!pgoutput_next_value(&at->values, ret))
        return false;
    bool more = pgoutput_next_value(&at->untold, &other);
    if (at->key_only && !at->table->columns[i].identity)
        *ret = (struct pgoutput_value){.kind = PGOUTPUT_UNCHANGED};
    if (ret->kind == PGOUTPUT_UNCHANGED && more)
        *ret = other;
    return true;
}

static struct pgoutput_value value_at(struct row row, size_t index) {
    struct pgoutput_value v = {.kind = PGOUTPUT_UNCHANGED};
    for (size_t i = 0; i <= index; i++)
        CHECK(next_value(&row, i, &v));
    return v;
}

static bool is_json_number(struct slice text) {
    struct json_cursor c = json_open(text);
    struct slice value;
    enum json_type type;
    return json_value(&c, &value, &type) == 0 && type == JSON_TYPE_NUMBER && value.n == text.n;
}

static void add_value(struct buf *out, uint32_t type, const struct pgoutput_value *v) {
    if (v->kind == PGOUTPUT_NULL) {
        buf_add_str(out, "null");
        return;
    }
    struct slice text = v->text;
    switch (kind_of(type)) {
    case KIND_BOOLEAN:
        buf_add_str(out, slice_eq(text, SLICE_LIT("t")) ? "true" : "false");
        return;
    case KIND_NUMBER:
        if (is_json_number(text))
            buf_add_slice(out, text);
        else /* NaN, Infinity */
            buf_add_json_string(out, text);
        return;
    case KIND_JSON:
        buf_add_slice(out, text);
        return;
    default:
        buf_add_json_string(out, text);
    }
}

/* A member, unless its value is not told. */
static void add_member(struct buf *out, const struct cdc_column *c, const struct pgoutput_value *v) {
    if (v->kind == PGOUTPUT_UNCHANGED)
        return;
    if (out->n && out->p[out->n - 1] != '{')
        buf_add_char(out, ',');
    buf_add_json_string(out, slice_of(c->name));
    buf_add_char(out, ':');
    add_value(out, c->type, v);
}

static void add_row(struct buf *out, const struct cdc_rule *rule, struct row row) {
    const struct cdc_table *t = row.table;
    struct pgoutput_value v;
    buf_add_char(out, '{');
    for (size_t i = 0; i < rule->columns_n; i++) {
        size_t index = column_index(t, slice_of(rule->columns[i]));
        v = value_at(row, index);
        add_member(out, &t->columns[index], &v);
    }
    for (size_t i = 0; rule->columns_n == 0 && next_value(&row, i, &v); i++)
        add_member(out, &t->columns[i], &v);
    buf_add_char(out, '}');
}

/* A text with the values of columns. *ret_null: one of them was null. */
static int expand(const char *template, const struct row *row, const char *where, struct buf *out,
                  bool *ret_null, struct buf *reason) {
    struct slice rest = slice_of(template);
    struct cdc_piece piece;
    *ret_null = false;
    while (cdc_template_next(&rest, &piece) > 0) {
        if (!piece.column) {
            buf_add_slice(out, piece.text);
            continue;
        }
        struct pgoutput_value v = value_at(*row, column_index(row->table, piece.text));
        if (v.kind == PGOUTPUT_UNCHANGED) {
            buf_addf(reason,
                     "the value of %.*s, which %s names, is stored apart (TOAST) and was not changed, so it "
                     "is not "
                     "told: ALTER TABLE %s.%s REPLICA IDENTITY FULL",
                     SLICE_ARG(piece.text), where, row->table->schema, row->table->name);
            return -EINVAL;
        }
        *ret_null |= v.kind == PGOUTPUT_NULL;
        buf_add_slice(out, v.text);
    }
    return 0;
}

static int expand_all(const struct cdc_rule *rule, const struct row *row, struct cdc_event *out,
                      struct buf *reason) {
    bool null = false;
    int r = expand(rule->type, row, "type", &out->type, &null, reason);
    if (r == 0 && null) {
        buf_add_str(reason, "a column that type names is null");
        return -EINVAL;
    }
    if (r == 0 && rule->tenant)
        r = expand(rule->tenant, row, "tenant", &out->tenant, &null, reason);
    if (r == 0 && null) {
        buf_add_str(reason, "a column that tenant names is null");
        return -EINVAL;
    }
    if (r == 0 && rule->ordering_key)
        r = expand(rule->ordering_key, row, "ordering-key", &out->ordering_key, &null, reason);
    if (r == 0 && null)
        buf_reset(&out->ordering_key);
    return r;
}

static void add_data(const struct cdc_rule *rule, const struct row *old, const struct row *new,
                     struct buf *out) {
    if (!rule->before) {
        add_row(out, rule, new->told ? *new : *old);
        return;
    }
    buf_add_str(out, "{\"before\":");
    if (old->told)
        add_row(out, rule, *old);
    else
        buf_add_str(out, "null");
    buf_add_str(out, ",\"after\":");
    if (new->told)
        add_row(out, rule, *new);
    else
        buf_add_str(out, "null");
    buf_add_char(out, '}');
}

int cdc_event_of(const struct cdc_table *t, const struct cdc_rule *rule, const struct pgoutput_message *m,
                 struct cdc_event *out, struct buf *reason) {
    struct row old = {.table = t,
                      .told = m->row.has_old != PGOUTPUT_OLD_NONE,
                      .values = m->row.old,
                      .key_only = m->row.has_old == PGOUTPUT_OLD_KEY};
    struct row new = {.table = t, .told = m->kind != PGOUTPUT_DELETE, .values = m->row.new};
    if (m->row.has_old == PGOUTPUT_OLD_ROW)
        new.untold = m->row.old;
    CHECK(rule->operations & cdc_operation_of(m));
    if ((new.told &&new.values.n != t->n) || (old.told && old.values.n != t->n))
        return -EBADMSG;
    cdc_event_clear(out);
    buf_add_str(&out->schema_version, rule->schema_version);
    int r = expand_all(rule, new.told ? &new : &old, out, reason);
    if (r < 0)
        return r;
    add_data(rule, &old, &new, &out->data);
    return cdc_event_ok(out) ? 0 : -ENOMEM;
}
