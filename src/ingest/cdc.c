#include "ingest/cdc.h"

#include <errno.h>
#include <poll.h>

#include "base/clock.h"
#include "ingest/cdc_position.h"
#include "ingest/cdc_stream.h"
#include "ingest/replication.h"

enum {
    MESSAGES_A_STEP = 20000,
    KEEP_MS = 1000,    /* how often the store is told how far it has come, and the database then */
    STATUS_MS = 10000, /* how often the database hears of us at the least */
    CHECK_MS = 10000,  /* how often publication and slot are looked at */
    STUCK_MS = 20000,  /* a slot that is behind and stands still for longer has a reader that does not read */
    SLOT_NAME_MAX = 63,
};

struct cdc {
    struct source *source;
    struct sql *database;
    struct replication *replication;
    struct timeline_history history;
    struct cdc_mapping mapping;
    struct cdc_batch *batch;
    struct cdc_stream *stream;            /* NULL: it does not have the slot yet */
    struct replication_message held;      /* one that waits for the batch to be published */
    bool holds, broken;                   /* the stream is of no more use */
    struct cdc_position position;         /* everything before it is durable */
    uint64_t kept;                        /* as the store has it; the database is never told more */
    int64_t kept_at, told_at, checked_at; /* monotonic ms */
    bool asked;                           /* the database waits for a status */
    /* while another node reads the slot: how far that is, and since when (Unix ms) */
    uint64_t seen;
    int64_t seen_at;
};

static int64_t mono_ms(void) {
    return clock_mono_us() / 1000;
}

/* ---- settings ---- */

/* As PostgreSQL has it: [a-z0-9_]{1,63}. */
static bool is_slot_name(const char *name) {
    size_t n = strlen(name);
    return n > 0 && n <= SLOT_NAME_MAX && strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_") == n;
}

static bool is_publication_name(const char *name) {
    size_t n = strlen(name);
    return n > 0 && n <= SLOT_NAME_MAX &&
           strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_") == n;
}

static int check(const struct source_settings *s, struct buf *complaint) {
    uint64_t lsn;
    const char *problem = NULL;
    if (sql_driver_of(s->url) != &sql_postgres)
        problem = "url must be of a PostgreSQL, for cdc: postgres://…";
    else if (!is_slot_name(s->slot))
        problem = "slot must be 1 to 63 of a-z 0-9 _";
    else if (!is_publication_name(s->publication))
        problem = "publication must be 1 to 63 of A-Z a-z 0-9 _";
    else if (!s->messages && !s->rules)
        problem = "without messages there must be a rule";
    else if (s->accept_gap && lsn_parse(slice_of(s->accept_gap), &lsn) < 0)
        problem =
            "accept-gap must be a position of the log, as the line of the log that tells of the gap names it";
    if (problem) {
        buf_add_str(complaint, problem);
        return -EINVAL;
    }
    struct cdc_mapping mapping;
    int r = cdc_mapping_parse(s->rules, &mapping, complaint);
    if (r == 0)
        cdc_mapping_clear(&mapping);
    return r == 0 ? sql_postgres.check(s, complaint) : r;
}

/* ---- opening ---- */

static void cdc_free(struct cdc *c) {
    cdc_stream_free(c->stream);
    cdc_batch_free(c->batch);
    replication_close(c->replication);
    sql_close(c->database);
    cdc_mapping_clear(&c->mapping);
    free(c);
}

static int prepare(struct cdc *c) {
    _cleanup_buf_ struct buf complaint = {0};
    int r = cdc_mapping_parse(source_settings(c->source)->rules, &c->mapping, &complaint);
    CHECK(r != -EINVAL); /* check was asked */
    if (r == 0)
        r = cdc_batch_new(c->source, &c->batch);
    if (r == -ENOMEM)
        source_fault(c->source, "memory is out", NULL, "it is tried again");
    return r;
}

static int cdc_open(struct source *s, void **ret) {
    struct cdc *c = calloc(1, sizeof *c);
    if (!c)
        return -ENOMEM;
    c->source = s;
    int r = prepare(c);
    if (r == 0)
        r = sql_open(s, &c->database);
    /* At once, so that one that stands by has shown that it could take over. */
    if (r == 0)
        r = replication_open(s, &c->replication, &c->history);
    if (r < 0) {
        cdc_free(c);
        return r;
    }
    *ret = c;
    return 0;
}

/* ---- the slot ---- */

static int start(struct cdc *c) {
    const struct source_settings *from = source_settings(c->source);
    struct cdc_stream_options o = {.source = c->source,
                                   .database = c->database,
                                   .mapping = &c->mapping,
                                   .batch = c->batch,
                                   .history = &c->history,
                                   .gaps = c->position.gaps,
                                   .position = c->position.lsn};
    int r = cdc_stream_new(&o, &c->stream);
    if (r == 0)
        r = replication_start(c->replication, from->slot, from->publication, c->position.lsn);
    c->kept = c->position.lsn;
    c->kept_at = c->told_at = c->checked_at = mono_ms();
    return r;
}

static int stand_by(struct cdc *c, const struct cdc_slot *slot) {
    int64_t now = clock_now_ms();
    if (slot->confirmed != c->seen || !c->seen_at) {
        c->seen = slot->confirmed;
        c->seen_at = now;
    }
    cdc_stream_free(c->stream);
    c->stream = NULL;
    /* The database has few of them to give. */
    replication_close(c->replication);
    c->replication = NULL;
    bool stuck = slot->lag_bytes > 0 && now - c->seen_at > STUCK_MS;
    return source_stands_by(c->source, stuck ? c->seen_at : 0);
}

static int leave_to_reader(struct cdc *c, const struct cdc_slot *slot) {
    int r = cdc_position_is_shared(c->source, slot);
    if (r != 0)
        return r < 0 ? r : stand_by(c, slot);
    source_fault(
        c->source, "the replication slot is in use by somebody else", NULL,
        "a slot feeds one server, and the nodes on its store: name another slot in this section, or end "
        "what reads this one (active_pid in pg_replication_slots)");
    return -EBUSY;
}

/* SOURCE_STANDS_BY: another node has it. */
static int take_slot(struct cdc *c) {
    struct cdc_slot slot;
    int r = cdc_database_slot(c->database, &slot);
    /* Before a slot is made: what the log held then would not know of a publication that comes later. */
    if (r == 0)
        r = cdc_database_check(c->database, &c->mapping);
    if (r == 0 && slot.active && slot.usable)
        return leave_to_reader(c, &slot);
    if (r == 0 && !c->replication)
        r = replication_open(c->source, &c->replication, &c->history);
    if (r == 0)
        r = cdc_position_find(c->database, &c->history, &slot, &c->position);
    if (r == 0)
        r = start(c);
    return r == -EEXIST || r == -EBUSY ? stand_by(c, &slot) : r;
}

/* ---- how far it has come ---- */

/* The store knows before the database may forget. */
static int keep_position(struct cdc *c) {
    int r = cdc_stream_keep_shapes(c->stream);
    if (r == 0)
        r = cdc_position_keep(c->source, &c->position);
    if (r == 0)
        c->kept = c->position.lsn;
    c->kept_at = mono_ms();
    return r;
}

static int tell_database(struct cdc *c) {
    c->asked = false;
    c->told_at = mono_ms();
    int r = replication_confirm(c->replication, cdc_stream_complete(c->stream), c->kept, clock_now_ms());
    c->broken |= r < 0;
    return r;
}

static int look_at_database(struct cdc *c) {
    struct cdc_slot slot;
    c->checked_at = mono_ms();
    int r = cdc_database_slot(c->database, &slot);
    return r == 0 ? cdc_database_check(c->database, &c->mapping) : r;
}

/* What is due beside the stream. */
static int keep_up(struct cdc *c) {
    int64_t now = mono_ms();
    int r = 0;
    if (cdc_batch_is_empty(c->batch))
        c->position.lsn = cdc_stream_complete(c->stream);
    bool moved = c->position.lsn > c->kept;
    if (moved && now - c->kept_at >= KEEP_MS)
        r = keep_position(c);
    if (r == 0 && ((moved && c->kept == c->position.lsn) || c->asked || now - c->told_at >= STATUS_MS))
        r = tell_database(c);
    if (r == 0 && now - c->checked_at >= CHECK_MS)
        r = look_at_database(c);
    return r;
}

/* How long nothing of it is due. */
static int64_t idle_ms(const struct cdc *c) {
    int64_t now = mono_ms();
    int64_t due =
        c->told_at + STATUS_MS < c->checked_at + CHECK_MS ? c->told_at + STATUS_MS : c->checked_at + CHECK_MS;
    if (c->position.lsn > c->kept && c->kept_at + KEEP_MS < due)
        due = c->kept_at + KEEP_MS;
    return due > now ? due - now : 0;
}

/* ---- the stream ---- */

/* Into the batch; a message that must wait for it to be published is held. */
static int take(struct cdc *c, const struct replication_message *m) {
    if (m->keepalive) {
        cdc_stream_idle(c->stream, m->lsn);
        c->asked |= m->reply;
        return 0;
    }
    int r = cdc_stream_take(c->stream, m->lsn, m->bytes);
    c->holds = r == -EAGAIN;
    c->held = *m;
    return c->holds ? 0 : r;
}

/* Reads until the batch is full or nothing more is there. */
static int read_stream(struct cdc *c, bool *ret_idle) {
    int r = 0;
    *ret_idle = false;
    if (c->holds) {
        c->holds = false;
        r = take(c, &c->held);
    }
    for (unsigned i = 0; r == 0 && i < MESSAGES_A_STEP && !c->holds && !cdc_batch_is_full(c->batch); i++) {
        struct replication_message m;
        r = replication_read(c->replication, &m);
        if (r == 0) {
            *ret_idle = true;
            return 0;
        }
        c->broken |= r < 0;
        r = r > 0 ? take(c, &m) : r;
    }
    return r;
}

/* With all that was in the log when it began: a server that has not sent anything yet is still reading. */
static bool has_caught_up(const struct cdc *c) {
    return !cdc_stream_in_transaction(c->stream) && cdc_stream_complete(c->stream) >= c->history.flushed;
}

static int cdc_step(struct source *s, void *state) {
    struct cdc *c = state;
    bool idle = false;
    if (!c->stream) {
        int taken = take_slot(c);
        if (taken != 0)
            return taken;
    }
    /* What was left over comes first; the database hears of us meanwhile. */
    int r = cdc_batch_is_empty(c->batch) ? 0 : cdc_batch_publish(c->batch);
    if (r == 0)
        r = read_stream(c, &idle);
    if (r == 0 && !cdc_batch_is_empty(c->batch))
        r = cdc_batch_publish(c->batch);
    if (r == 0 && idle && has_caught_up(c))
        source_caught_up(s);
    int kept = r == 0 || r == -EAGAIN ? keep_up(c) : 0;
    if (kept < 0)
        return kept;
    if (r == 0 && idle) {
        r = source_wait(s, replication_fd(c->replication), POLLIN, idle_ms(c));
        r = r > 0 ? 0 : r;
    }
    return r;
}

static void cdc_close(void *state) {
    struct cdc *c = state;
    /* So that less is repeated; whether it succeeds does not matter. */
    if (c->stream && !c->broken && c->position.lsn > c->kept && keep_position(c) == 0)
        (void)tell_database(c);
    cdc_free(c);
}

const struct source_kind cdc_source = {
    .name = "cdc",
    .check = check,
    .open = cdc_open,
    .step = cdc_step,
    .close = cdc_close,
};
