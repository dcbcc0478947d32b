#include "ingest/cdc_stream.h"

#include <errno.h>
#include <stdio.h>

#include "base/log.h"
#include "ingest/cdc_table.h"

enum {
    TABLES_MAX = 4 * CDC_RULES_MAX, /* that rules take changes of: partitions and renamed ones come on top */
    OPERATIONS = 3,
    EVENT_KEPT_MAX = 1 << 20, /* bytes of a large event's memory that are kept for the next */
};

static const enum cdc_operation operations[OPERATIONS] = {CDC_INSERT, CDC_UPDATE, CDC_DELETE};

/* A table that rules take changes of. */
struct bound {
    struct cdc_table *table;
    int rules[OPERATIONS]; /* by operation; -1: none */
};

/* What subscribers know of a rule's data. */
struct shape {
    struct buf known;   /* as of the last transaction that was taken; empty: nothing */
    struct buf pending; /* of the transaction under way; empty: as known */
    bool unsaved;
};

struct cdc_stream {
    struct cdc_stream_options o;
    size_t n;
    struct bound bound[TABLES_MAX];
    struct shape shapes[CDC_RULES_MAX];
    bool in_transaction;
    int64_t committed_at; /* of the transaction under way */
    uint64_t complete;
    uint64_t last_lsn; /* of the last change, and how many there were at it */
    unsigned at_lsn;
    struct cdc_event event;
};

/* ---- shapes ---- */

static void shape_item(const struct cdc_rule *rule, struct buf *out) {
    buf_addf(out, "shape %s", rule->name);
}

static int load_shapes(struct cdc_stream *s) {
    int r = 0;
    for (size_t i = 0; r >= 0 && i < s->o.mapping->n; i++) {
        _cleanup_buf_ struct buf item = {0};
        shape_item(&s->o.mapping->rules[i], &item);
        r = buf_ok(&item) ? source_load(s->o.source, item.p, &s->shapes[i].known) : -ENOMEM;
        r = r == -ENOENT ? 0 : r;
    }
    return r;
}

int cdc_stream_keep_shapes(struct cdc_stream *s) {
    int r = 0;
    for (size_t i = 0; r == 0 && i < s->o.mapping->n; i++) {
        _cleanup_buf_ struct buf item = {0};
        if (!s->shapes[i].unsaved)
            continue;
        shape_item(&s->o.mapping->rules[i], &item);
        r = buf_ok(&item) ? source_save(s->o.source, item.p, buf_slice(&s->shapes[i].known)) : -ENOMEM;
        s->shapes[i].unsaved = r < 0;
    }
    return r;
}

/* The transaction is whole: what it showed is known from now on. */
static void settle_shapes(struct cdc_stream *s) {
    for (size_t i = 0; i < s->o.mapping->n; i++) {
        struct shape *shape = &s->shapes[i];
        if (shape->pending.n == 0)
            continue;
        buf_free(&shape->known);
        shape->known = shape->pending;
        shape->pending = (struct buf){0};
        shape->unsaved = true;
    }
}

/* ---- the stream ---- */

int cdc_stream_new(const struct cdc_stream_options *o, struct cdc_stream **ret) {
    struct cdc_stream *s = calloc(1, sizeof *s);
    if (!s)
        return -ENOMEM;
    s->o = *o;
    s->complete = o->position;
    int r = load_shapes(s);
    if (r < 0) {
        cdc_stream_free(s);
        return r;
    }
    *ret = s;
    return 0;
}

void cdc_stream_free(struct cdc_stream *s) {
    if (!s)
        return;
    for (size_t i = 0; i < s->n; i++)
        cdc_table_free(s->bound[i].table);
    for (size_t i = 0; i < CDC_RULES_MAX; i++) {
        buf_free(&s->shapes[i].known);
        buf_free(&s->shapes[i].pending);
    }
    cdc_event_free(&s->event);
    free(s);
}

bool cdc_stream_in_transaction(const struct cdc_stream *s) {
    return s->in_transaction;
}

uint64_t cdc_stream_complete(const struct cdc_stream *s) {
    return s->complete;
}

void cdc_stream_idle(struct cdc_stream *s, uint64_t lsn) {
    if (!s->in_transaction && lsn > s->complete)
        s->complete = lsn;
}

/* ---- keys ---- */

enum { KEY_SIZE = SOURCE_KEY_MAX + 1 };

/* A place in the log of a cluster, of that timeline that wrote what stands there: it stays the same when a
 * standby takes over. Behind a gap that was accepted, places are others, for a database that was put back may
 * come to the same ones again. */
static void format_key(const struct cdc_stream *s, uint64_t begins, uint64_t lsn, const char *what,
                       unsigned number, char ret[KEY_SIZE]) {
    char text[LSN_TEXT_SIZE], gaps[16] = "";
    lsn_format(lsn, text);
    if (s->o.gaps)
        snprintf(gaps, sizeof gaps, ".%u", s->o.gaps);
    snprintf(ret, KEY_SIZE, "%s.%u%s:%s.%s%u", s->o.history->system, timeline_at(s->o.history, begins), gaps,
             text, what, number);
}

/* Of a change, and which of those at its place: one record holds many rows of a COPY. */
static void row_key(struct cdc_stream *s, uint64_t lsn, char ret[KEY_SIZE]) {
    s->at_lsn = lsn == s->last_lsn ? s->at_lsn + 1 : 0;
    s->last_lsn = lsn;
    format_key(s, lsn, lsn, "r", s->at_lsn, ret);
}

/* A message's place is behind its record, where a row's may begin. */
static void message_key(const struct cdc_stream *s, uint64_t lsn, char ret[KEY_SIZE]) {
    format_key(s, lsn - 1, lsn, "m", 0, ret);
}

/* ---- messages of producers ---- */

static int finish_event(struct cdc_stream *s, int r, const struct cdc_origin *origin,
                        const struct buf *reason, struct slice content) {
    if (r == -EINVAL)
        cdc_batch_reject(s->o.batch, origin, buf_slice(reason), content);
    else if (r == 0)
        r = cdc_batch_add(s->o.batch, &s->event, origin);
    if (s->event.data.cap > EVENT_KEPT_MAX)
        cdc_event_free(&s->event);
    return r == -EINVAL ? 0 : r;
}

static int take_message(struct cdc_stream *s, const struct pgoutput_message *m) {
    char key[KEY_SIZE];
    _cleanup_buf_ struct buf reason = {0};
    if (!source_settings(s->o.source)->messages ||
        !slice_eq(m->message.prefix, SLICE_LIT(CDC_MESSAGE_PREFIX)))
        return 0;
    message_key(s, m->message.lsn, key);
    struct cdc_origin origin = {.key = key, .what = "message", .committed_at = s->committed_at};
    int r = -EINVAL;
    if (m->message.transactional)
        r = cdc_event_of_message(m->message.content, &s->event, &reason);
    else
        buf_add_str(&reason,
                    "the message is not part of a transaction: give pg_logical_emit_message true first, so "
                    "that it exists exactly when the change is committed");
    return finish_event(s, r, &origin, &reason, m->message.content);
}

/* ---- tables ---- */

#define RULE_FAULT "a rule does not fit its table"

static int rule_fault(struct cdc_stream *s, const struct buf *reason) {
    source_fault(
        s->o.source, RULE_FAULT, reason->p,
        "nothing is lost meanwhile: the database keeps its log for the source, so do not wait for long");
    return -EINVAL;
}

static struct bound *find_bound(struct cdc_stream *s, uint32_t oid) {
    for (size_t i = 0; i < s->n; i++)
        if (s->bound[i].table->oid == oid)
            return &s->bound[i];
    return NULL;
}

/* *ret_renamed: only by what it is, not by how it is called. */
static bool rule_means(const struct cdc_mapping *m, size_t i, const struct cdc_table *t, bool *ret_renamed) {
    const struct cdc_rule *rule = &m->rules[i];
    bool called_so = strcmp(rule->schema, t->schema) == 0 && strcmp(rule->table, t->name) == 0;
    *ret_renamed = !called_so && m->oids[i] == t->oid;
    return called_so || *ret_renamed;
}

/* Whether any rule means the table. One that is called otherwise than its rule says had that name then, or
 * has it now: the database tells which. */
static int find_rules(struct cdc_stream *s, const struct cdc_table *t, struct bound *ret) {
    bool any = false, asked = false;
    *ret = (struct bound){.rules = {-1, -1, -1}};
    for (size_t i = 0; i < s->o.mapping->n; i++) {
        bool renamed;
        if (rule_means(s->o.mapping, i, t, &renamed) && renamed && !asked) {
            int r = cdc_database_check(s->o.database, s->o.mapping);
            if (r < 0)
                return r;
            asked = true;
        }
        if (!rule_means(s->o.mapping, i, t, &renamed))
            continue;
        any = true;
        for (int k = 0; k < OPERATIONS; k++)
            if (s->o.mapping->rules[i].operations & operations[k])
                ret->rules[k] = (int)i;
    }
    return any;
}

static int judge_rule(struct cdc_stream *s, const struct cdc_table *t, size_t i) {
    const struct cdc_rule *rule = &s->o.mapping->rules[i];
    struct shape *shape = &s->shapes[i];
    _cleanup_buf_ struct buf reason = {0}, now = {0};
    int r = cdc_table_fits(t, rule, &reason);
    if (r == 0 && shape->known.n)
        r = cdc_shape_keeps(t, rule, buf_slice(&shape->known), &reason);
    if (r == -EBADMSG) /* written by another version: it is written anew */
        r = 0;
    if (r < 0)
        return rule_fault(s, &reason);
    cdc_shape_write(t, rule, &now);
    if (!buf_ok(&now))
        return -ENOMEM;
    buf_reset(&shape->pending);
    if (!slice_eq(buf_slice(&now), buf_slice(&shape->known)))
        buf_add_slice(&shape->pending, buf_slice(&now));
    return buf_ok(&shape->pending) ? 0 : -ENOMEM;
}

static int judge_rules(struct cdc_stream *s, const struct bound *b) {
    int r = 0;
    for (int k = 0; r == 0 && k < OPERATIONS; k++) {
        bool judged = false;
        for (int before = 0; before < k; before++)
            judged |= b->rules[before] == b->rules[k];
        if (b->rules[k] >= 0 && !judged)
            r = judge_rule(s, b->table, (size_t)b->rules[k]);
    }
    return r;
}

/* Forgets a table, as it was described before. */
static void unbind(struct cdc_stream *s, uint32_t oid) {
    struct bound *b = find_bound(s, oid);
    if (!b)
        return;
    cdc_table_free(b->table);
    *b = s->bound[--s->n];
}

static int bind(struct cdc_stream *s, struct bound *b) {
    if (s->n == TABLES_MAX) {
        source_fault(s->o.source, "too many tables go by the rules of the source", NULL,
                     "publish partitioned tables via their root");
        return -E2BIG;
    }
    int r = judge_rules(s, b);
    if (r == 0)
        s->bound[s->n++] = *b;
    return r;
}

static int take_relation(struct cdc_stream *s, const struct pgoutput_message *m) {
    struct bound b;
    struct cdc_table *t = NULL;
    if (s->o.mapping->n == 0)
        return 0;
    if (!cdc_batch_is_empty(s->o.batch))
        return -EAGAIN;
    unbind(s, m->relation.oid);
    int r = cdc_table_new(m, &t);
    if (r == 0)
        r = find_rules(s, t, &b);
    if (r > 0) {
        b.table = t;
        r = bind(s, &b);
        if (r == 0)
            return 0;
    }
    cdc_table_free(t);
    return r;
}

/* ---- changes of tables ---- */

static int operation_index(enum cdc_operation o) {
    return o == CDC_INSERT ? 0 : o == CDC_UPDATE ? 1 : 2;
}

static int take_row(struct cdc_stream *s, uint64_t lsn, const struct pgoutput_message *m) {
    char key[KEY_SIZE];
    _cleanup_buf_ struct buf reason = {0};
    row_key(s, lsn, key); /* also of rows that nobody asks for: their neighbours' keys depend on it */
    const struct bound *b = find_bound(s, m->row.oid);
    int index = b ? b->rules[operation_index(cdc_operation_of(m))] : -1;
    if (index < 0)
        return 0;
    const struct cdc_rule *rule = &s->o.mapping->rules[index];
    struct cdc_origin origin = {.key = key, .what = rule->name, .committed_at = s->committed_at};
    return finish_event(s, cdc_event_of(b->table, rule, m, &s->event, &reason), &origin, &reason, SLICE_NONE);
}

/* The rows that it removes are not told one by one: a rule for deletes gets none of them, and says so. */
static int take_truncate(struct cdc_stream *s, uint64_t lsn, const struct pgoutput_message *m) {
    for (uint32_t i = 0; i < m->truncate.n; i++) {
        const struct bound *b = find_bound(s, pgoutput_truncated(m, i));
        int index = b ? b->rules[operation_index(CDC_DELETE)] : -1;
        char key[KEY_SIZE];
        row_key(s, lsn, key);
        if (index < 0)
            continue;
        struct cdc_origin origin = {
            .key = key, .what = s->o.mapping->rules[index].name, .committed_at = s->committed_at};
        cdc_batch_reject(s->o.batch, &origin, SLICE_LIT("TRUNCATE does not tell which rows it removed"),
                         SLICE_NONE);
    }
    return 0;
}

/* ---- all of them ---- */

static int misread(struct cdc_stream *s, uint64_t lsn) {
    char text[LSN_TEXT_SIZE];
    lsn_format(lsn, text);
    source_fault(s->o.source, "the database's stream cannot be read", text,
                 "tell posthorn's makers, with the version of the database");
    return -EBADMSG;
}

static int take(struct cdc_stream *s, uint64_t lsn, const struct pgoutput_message *m) {
    switch (m->kind) {
    case PGOUTPUT_BEGIN:
        s->in_transaction = true;
        s->committed_at = m->begin.committed_at;
        return 0;
    case PGOUTPUT_COMMIT:
        s->in_transaction = false;
        s->committed_at = 0;
        s->complete = m->commit.end_lsn;
        settle_shapes(s);
        return 0;
    case PGOUTPUT_RELATION:
        return take_relation(s, m);
    case PGOUTPUT_INSERT:
    case PGOUTPUT_UPDATE:
    case PGOUTPUT_DELETE:
        return take_row(s, lsn, m);
    case PGOUTPUT_TRUNCATE:
        return take_truncate(s, lsn, m);
    case PGOUTPUT_MESSAGE:
        return take_message(s, m);
    case PGOUTPUT_ORIGIN:
    case PGOUTPUT_TYPE:
        return 0;
    }
    UNREACHABLE();
}

int cdc_stream_take(struct cdc_stream *s, uint64_t lsn, struct slice bytes) {
    struct pgoutput_message m;
    int r = pgoutput_read(bytes, &m);
    if (r == 0)
        r = take(s, lsn, &m);
    if (r == -ENOMEM)
        source_fault(s->o.source, "memory is out", NULL, "the source goes on from where it was");
    return r == -EBADMSG ? misread(s, lsn) : r;
}
