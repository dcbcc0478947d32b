/* A table and a change of it: any relation message and any row, the first two bytes telling how long the
 * relation is. Whatever they hold, the event's data are JSON, where columns that are JSON themselves are. */
#include <errno.h>

#include "base/json.h"
#include "ingest/cdc_table.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct cdc_rule rules[2];

static void parse_rules(void) {
    static const char *const texts[] = {
        "public.t insert,update,delete type=a.{id} tenant={id} ordering-key=x{id} data=id,note before=true",
        "public.t insert,update,delete type=a"};
    _cleanup_buf_ struct buf complaint = {0};
    for (size_t i = 0; i < 2; i++)
        CHECK(cdc_rule_parse(slice_of(texts[i]), &rules[i], &complaint) == 0);
}

static bool is_json(struct slice text) {
    struct json_cursor c = json_open(text);
    struct slice value;
    enum json_type type;
    return json_value(&c, &value, &type) == 0 && json_finish(&c) == 0;
}

static bool has_json_column(const struct cdc_table *t) {
    for (size_t i = 0; i < t->n; i++)
        if (t->columns[i].type == 114 || t->columns[i].type == 3802)
            return true;
    return false;
}

static bool names_repeat(const struct cdc_table *t) {
    for (size_t i = 0; i < t->n; i++)
        for (size_t k = 0; k < i; k++)
            if (strcmp(t->columns[i].name, t->columns[k].name) == 0)
                return true;
    return false;
}

static void try_rule(const struct cdc_table *t, const struct cdc_rule *rule,
                     const struct pgoutput_message *row) {
    _cleanup_buf_ struct buf reason = {0}, shape = {0};
    struct cdc_event e = {0};
    if (cdc_table_fits(t, rule, &reason) < 0) {
        CHECK(reason.n);
        return;
    }
    cdc_shape_write(t, rule, &shape);
    int kept = cdc_shape_keeps(t, rule, buf_slice(&shape), &reason);
    /* But for names that PostgreSQL does not have: of bytes that are no UTF-8, or given twice. */
    CHECK(kept == 0 || memmem(shape.p, shape.n, "\xEF\xBF\xBD", 3) || names_repeat(t));
    int r = cdc_event_of(t, rule, row, &e, &reason);
    CHECK(r == 0 || r == -EBADMSG || (r == -EINVAL && reason.n));
    if (r == 0 && !has_json_column(t))
        CHECK(is_json(buf_slice(&e.data)));
    cdc_event_free(&e);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct pgoutput_message relation, row;
    struct cdc_table *t = NULL;
    if (!rules[0].name)
        parse_rules();
    size_t n = size < 2 ? SIZE_MAX : (size_t)data[0] << 8 | data[1];
    if (size < 2 || n > size - 2 || pgoutput_read((struct slice){(const char *)data + 2, n}, &relation) < 0 ||
        relation.kind != PGOUTPUT_RELATION ||
        pgoutput_read((struct slice){(const char *)data + 2 + n, size - 2 - n}, &row) < 0 ||
        (row.kind != PGOUTPUT_INSERT && row.kind != PGOUTPUT_UPDATE && row.kind != PGOUTPUT_DELETE))
        return 0;
    CHECK(cdc_table_new(&relation, &t) == 0);
    for (size_t i = 0; i < 2; i++)
        try_rule(t, &rules[i], &row);
    cdc_table_free(t);
    return 0;
}
