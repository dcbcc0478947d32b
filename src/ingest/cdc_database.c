#include "ingest/cdc_database.h"

#include <errno.h>

/* ---- rules ---- */

static int add_rule(struct cdc_mapping *m, struct slice line, struct buf *complaint) {
    struct cdc_rule *rule = &m->rules[m->n];
    if (m->n == CDC_RULES_MAX) {
        buf_addf(complaint, "there may be %d rules", CDC_RULES_MAX);
        return -EINVAL;
    }
    int r = cdc_rule_parse(line, rule, complaint);
    if (r < 0)
        return r;
    for (size_t i = 0; i < m->n; i++) {
        if (!cdc_rules_overlap(&m->rules[i], rule))
            continue;
        buf_addf(complaint, "two rules take the same changes: \"%s\" and \"%s\"", m->rules[i].name,
                 rule->name);
        cdc_rule_clear(rule);
        return -EINVAL;
    }
    m->n++;
    return 0;
}

int cdc_mapping_parse(const char *lines, struct cdc_mapping *ret, struct buf *complaint) {
    *ret = (struct cdc_mapping){0};
    int r = 0;
    for (const char *at = lines; at && r == 0;) {
        size_t n = strcspn(at, "\n");
        r = add_rule(ret, (struct slice){at, n}, complaint);
        at = at[n] ? at + n + 1 : NULL;
    }
    if (r < 0)
        cdc_mapping_clear(ret);
    return r;
}

void cdc_mapping_clear(struct cdc_mapping *m) {
    for (size_t i = 0; i < m->n; i++)
        cdc_rule_clear(&m->rules[i]);
    *m = (struct cdc_mapping){0};
}

/* ---- statements ---- */

static int failed(struct sql *c, int r) {
    if (r == -EPIPE)
        source_fault(c->source, "the database of the source does not answer any more", c->problem,
                     "see that it runs; it is tried again");
    if (r != -ENOMEM && r != -EPROTO)
        return r;
    source_fault(c->source, "the database refuses what change data capture asks of it", c->problem,
                 "see docs/producers.md, CDC: what its user must be allowed");
    return r;
}

static void add_literal(struct sql *c, const char *text, struct buf *out) {
    c->driver->literal(c, slice_of(text), out);
}

static bool is_true(struct slice cell) {
    return slice_eq(cell, SLICE_LIT("t"));
}

static int64_t number_of(struct slice cell) {
    _cleanup_free_ char *text = slice_dup(cell);
    return text ? strtoll(text, NULL, 10) : 0;
}

/* ---- the slot ---- */

static int take_slot(void *arg, const struct slice *cells, size_t n) {
    struct cdc_slot *s = arg;
    CHECK(n == 6);
    *s = (struct cdc_slot){.there = true,
                           .usable = is_true(cells[0]),
                           .lost = is_true(cells[1]),
                           .active = is_true(cells[5]),
                           .lag_bytes = number_of(cells[3]),
                           .kept_bytes = number_of(cells[4])};
    return cells[2].p ? lsn_parse(cells[2], &s->confirmed) : 0;
}

int cdc_database_slot(struct sql *c, struct cdc_slot *ret) {
    _cleanup_buf_ struct buf text = {0};
    *ret = (struct cdc_slot){0};
    buf_add_str(&text,
                "select coalesce(s.plugin = 'pgoutput' and s.database = current_database(), false), "
                "coalesce(s.wal_status = 'lost', false) or s.restart_lsn is null, s.confirmed_flush_lsn, "
                "trunc(pg_wal_lsn_diff(w.at, s.confirmed_flush_lsn)), trunc(pg_wal_lsn_diff(w.at, "
                "s.restart_lsn)), s.active "
                "from pg_replication_slots s, (select case when pg_is_in_recovery() then "
                "pg_last_wal_replay_lsn() else pg_current_wal_lsn() end) w (at) where s.slot_name = ");
    add_literal(c, source_settings(c->source)->slot, &text);
    int r = sql_run(c, &text, take_slot, ret);
    if (r == 0 && ret->there)
        source_log_bytes(c->source, ret->lag_bytes, ret->kept_bytes);
    return r < 0 ? failed(c, r) : 0;
}

static int take_lsn(void *arg, const struct slice *cells, size_t n) {
    CHECK(n == 1);
    return lsn_parse(cells[0], arg);
}

static int slot_not_made(struct sql *c) {
    struct cdc_slot now;
    char problem[SQL_PROBLEM_SIZE];
    memcpy(problem, c->problem, sizeof problem); /* the next statement has its own */
    int r = cdc_database_slot(c, &now);
    if (r < 0 || now.there)
        return r < 0 ? r : -EEXIST;
    source_fault(
        c->source, "the replication slot cannot be made", problem,
        "it takes wal_level = logical, a free slot (max_replication_slots), a user with REPLICATION, and "
        "that transactions which run now end");
    return -EPROTO;
}

int cdc_database_make_slot(struct sql *c, uint64_t *ret_from) {
    _cleanup_buf_ struct buf text = {0};
    buf_add_str(&text, "select lsn from pg_create_logical_replication_slot(");
    add_literal(c, source_settings(c->source)->slot, &text);
    buf_add_str(&text, ", 'pgoutput')");
    int r = sql_run(c, &text, take_lsn, ret_from);
    if (r == -EPROTO)
        return slot_not_made(c);
    return r < 0 ? failed(c, r) : 0;
}

int cdc_database_drop_slot(struct sql *c) {
    _cleanup_buf_ struct buf text = {0};
    buf_add_str(&text, "select pg_drop_replication_slot(");
    add_literal(c, source_settings(c->source)->slot, &text);
    buf_add_char(&text, ')');
    int r = sql_run(c, &text, NULL, NULL);
    return r < 0 ? failed(c, r) : 0;
}

/* ---- publication and tables ---- */

#define PUBLICATION_FAULT "the publication does not publish what the source needs"

struct publication {
    bool there;
    unsigned operations;
};

static int take_publication(void *arg, const struct slice *cells, size_t n) {
    struct publication *p = arg;
    CHECK(n == 3);
    p->there = true;
    p->operations = (is_true(cells[0]) ? CDC_INSERT : 0U) | (is_true(cells[1]) ? CDC_UPDATE : 0U) |
                    (is_true(cells[2]) ? CDC_DELETE : 0U);
    return 0;
}

static int check_publication(struct sql *c, struct publication *ret) {
    _cleanup_buf_ struct buf text = {0}, advice = {0};
    const char *name = source_settings(c->source)->publication;
    *ret = (struct publication){0};
    buf_add_str(&text, "select pubinsert, pubupdate, pubdelete from pg_publication where pubname = ");
    add_literal(c, name, &text);
    int r = sql_run(c, &text, take_publication, ret);
    if (r < 0 || ret->there)
        return r < 0 ? failed(c, r) : 0;
    buf_addf(&advice,
             "CREATE PUBLICATION \"%s\" (empty, for messages alone) or … FOR TABLE …, in this database",
             name);
    source_fault(c->source, "the publication is not there", NULL, advice.p);
    return -ENOENT;
}

/* What is known of each rule's table. */
struct tables {
    struct cdc_mapping *mapping;
    bool published[CDC_RULES_MAX];
    bool in_parts[CDC_RULES_MAX]; /* published as its partitions, each under its own name */
};

static int take_table(void *arg, const struct slice *cells, size_t n) {
    struct tables *t = arg;
    CHECK(n == 4);
    size_t i = (size_t)number_of(cells[0]);
    CHECK(i < t->mapping->n);
    t->mapping->oids[i] = (uint32_t)number_of(cells[1]);
    t->published[i] = is_true(cells[2]);
    t->in_parts[i] = is_true(cells[3]);
    return 0;
}

static int find_tables(struct sql *c, struct tables *t) {
    _cleanup_buf_ struct buf text = {0};
    buf_add_str(
        &text,
        "with p as materialized (select schemaname, tablename from pg_publication_tables where pubname = ");
    add_literal(c, source_settings(c->source)->publication, &text);
    buf_add_str(&text,
                ") select v.i, c.oid, exists (select from p where schemaname = v.s and tablename = v.t), "
                "c.relkind = 'p' and exists (select from pg_partition_tree(c.oid) t "
                "join pg_class k on k.oid = t.relid join pg_namespace m on m.oid = k.relnamespace "
                "join p on schemaname = m.nspname and tablename = k.relname) from (values ");
    for (size_t i = 0; i < t->mapping->n; i++) {
        buf_addf(&text, "%s(%zu, ", i ? ", " : "", i);
        add_literal(c, t->mapping->rules[i].schema, &text);
        buf_add_str(&text, ", ");
        add_literal(c, t->mapping->rules[i].table, &text);
        buf_add_char(&text, ')');
    }
    buf_add_str(&text, ") v (i, s, t) left join pg_namespace n on n.nspname = v.s "
                       "left join pg_class c on c.relnamespace = n.oid and c.relname = v.t");
    int r = sql_run(c, &text, take_table, t);
    return r < 0 ? failed(c, r) : 0;
}

static int check_rule(struct sql *c, const struct tables *t, size_t i, unsigned operations) {
    const struct cdc_rule *rule = &t->mapping->rules[i];
    _cleanup_buf_ struct buf detail = {0}, advice = {0};
    const char *publication = source_settings(c->source)->publication;
    if (!t->mapping->oids[i]) {
        buf_addf(&detail, "there is no table %s.%s (any more)", rule->schema, rule->table);
        buf_add_str(&advice, "name the table in the rule as it is called now, or take the rule away");
    } else if (!t->published[i] && t->in_parts[i]) {
        buf_addf(&detail, "%s.%s is published as its partitions, not under its own name", rule->schema,
                 rule->table);
        buf_addf(&advice,
                 "ALTER PUBLICATION \"%s\" SET (publish_via_partition_root = true); its changes until then "
                 "do not come",
                 publication);
    } else if (!t->published[i]) {
        buf_addf(&detail, "%s.%s is not in the publication", rule->schema, rule->table);
        buf_addf(&advice,
                 "ALTER PUBLICATION \"%s\" ADD TABLE \"%s\".\"%s\"; its changes until then do not come",
                 publication, rule->schema, rule->table);
    } else if (rule->operations & ~operations) {
        buf_addf(&detail, "it does not publish all operations of the rule \"%s\"", rule->name);
        buf_addf(&advice, "ALTER PUBLICATION \"%s\" SET (publish = 'insert, update, delete, truncate')",
                 publication);
    }
    if (!detail.n)
        return 0;
    source_fault(c->source, PUBLICATION_FAULT, detail.p, advice.p);
    return -EINVAL;
}

int cdc_database_check(struct sql *c, struct cdc_mapping *m) {
    struct publication publication;
    struct tables t = {.mapping = m};
    memset(m->oids, 0, sizeof m->oids);
    int r = check_publication(c, &publication);
    if (r == 0 && m->n > 0)
        r = find_tables(c, &t);
    for (size_t i = 0; r == 0 && i < m->n; i++)
        r = check_rule(c, &t, i, publication.operations);
    return r;
}
