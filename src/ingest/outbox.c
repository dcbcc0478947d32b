#include "ingest/outbox.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/log.h"
#include "ingest/outbox_text.h"
#include "ingest/source_sql.h"

enum {
    SHARE_MS = 1000,      /* between looks at who else works on this outbox */
    AWAKE_LOOK_MS = 5,    /* between looks while rows come now and then: nobody has to wake it */
    AWAKE_LOOKS = 10,     /* that find nothing, before it sleeps */
    EVICT_MS = 10000,     /* between looks for relays that hang */
    PASSED_OVER_MAX = 64, /* tenants whose quota is used up, at one time */
    LOCK_BASE_SIZE = 64,
};

/* A tenant whose rows stay where they are for a while. */
struct passed_over {
    char id[TENANT_ID_MAX + 1];
    int64_t until_ms; /* monotonic */
};

struct outbox {
    struct source *source;
    const struct source_settings *settings;
    const struct outbox_dialect *dialect;
    struct sql *sql;
    struct buf text, list, tenants, default_tenant;
    bool listens;
    /* which ranges are this relay's */
    char lock_base[LOCK_BASE_SIZE];
    int member; /* -1: none, it stands by */
    uint32_t ranges;
    int64_t share_at, evict_at;
    unsigned empty_looks; /* one after the other */
    bool asleep;          /* holds the locks that make producers notify */
    struct passed_over passed_over[PASSED_OVER_MAX];
    size_t passed_over_n;
    /* the round's rows */
    int64_t looked[SOURCE_ROWS_MAX];
    size_t looked_n, looked_bytes;
    int64_t seqs[SOURCE_ROWS_MAX];
    size_t n;
    struct source_row rows[SOURCE_ROWS_MAX];
};

static int64_t mono_ms(void) {
    return clock_mono_us() / 1000;
}

/* ---- statements ---- */

/* What went wrong with a statement, for people. */
static int complain(struct outbox *o, int error) {
    if (error == -ENOMEM || error == -ESHUTDOWN)
        return error;
    if (o->sql->lost)
        source_fault(o->source, "the database of the source does not answer any more", o->sql->problem,
                     "see that it runs; it is tried again");
    else
        source_fault(
            o->source, "the source's database refuses a statement of the relay", o->sql->problem,
            "make the tables with posthorn outbox ddl, and let the relay's user read, update and delete "
            "their rows");
    return error;
}

static int run(struct outbox *o, sql_row_fn *each, void *arg) {
    int r = sql_run(o->sql, &o->text, each, arg);
    return r < 0 ? complain(o, r) : 0;
}

static int state(struct outbox *o, enum outbox_statement which, const char *literal, sql_row_fn *each,
                 void *arg) {
    const struct outbox_blanks b = {.table = o->settings->table,
                                    .list = o->list.p ? o->list.p : "",
                                    .literal = literal,
                                    .row_bytes_max = SOURCE_ROW_BYTES_MAX};
    return outbox_statement(o->dialect, which, &b, &o->text) ? run(o, each, arg) : 0;
}

static int take_text(void *arg, const struct slice *cells, size_t n) {
    (void)n;
    snprintf(arg, LOCK_BASE_SIZE, "%.*s", SLICE_ARG(cells[0]));
    return 0;
}

static int64_t number(struct slice cell) {
    return cell.p ? strtoll(cell.p, NULL, 10) : 0;
}

static int take_number(void *arg, const struct slice *cells, size_t n) {
    (void)n;
    *(int64_t *)arg = number(cells[0]);
    return 0;
}

/* ---- which ranges are ours ---- */

struct tried {
    uint32_t asked, got;
};

static int take_locks(void *arg, const struct slice *cells, size_t n) {
    struct tried *t = arg;
    size_t column = 0;
    for (unsigned i = 0; i < 32; i++) {
        if (!(t->asked >> i & 1))
            continue;
        CHECK(column < n);
        struct slice c = cells[column++];
        if (c.p && (slice_eq(c, SLICE_LIT("t")) || slice_eq(c, SLICE_LIT("1"))))
            t->got |= UINT32_C(1) << i;
    }
    return 0;
}

static int try_locks(struct outbox *o, uint32_t locks, unsigned first, uint32_t *got) {
    struct tried t = {.asked = locks};
    outbox_try_locks(o->dialect, o->lock_base, locks, first, &o->text);
    int r = run(o, take_locks, &t);
    if (r == 0)
        *got |= t.got;
    return r;
}

static int become_member(struct outbox *o) {
    int r = 0;
    for (int i = 0; r == 0 && o->member < 0 && i < OUTBOX_MEMBERS_MAX; i++) {
        uint32_t got = 0;
        r = try_locks(o, UINT32_C(1) << i, OUTBOX_RANGES, &got);
        if (got)
            o->member = i;
    }
    return r;
}

/* Producers notify while it sleeps, and only then. It holds the sleep locks of its ranges; transactions that
 * go on without a notice keep it from getting them. */
static int fall_asleep(struct outbox *o) {
    uint32_t got = 0;
    int r = try_locks(o, o->ranges, OUTBOX_SLEEP_LOCKS, &got);
    o->asleep = r == 0 && got == o->ranges;
    if (r == 0 && got && !o->asleep) {
        outbox_unlock(o->dialect, o->lock_base, got, OUTBOX_SLEEP_LOCKS, &o->text);
        r = run(o, NULL, NULL);
    }
    return r;
}

static int wake_up(struct outbox *o) {
    if (!o->asleep)
        return 0;
    o->asleep = false;
    outbox_unlock(o->dialect, o->lock_base, o->ranges, OUTBOX_SLEEP_LOCKS, &o->text);
    return run(o, NULL, NULL);
}

/* Lets go of what is another's now, and takes of its own what is free. */
static int move_ranges(struct outbox *o) {
    int64_t members = 0;
    outbox_members(o->dialect, o->lock_base, &o->text);
    int r = run(o, take_number, &members);
    if (r < 0)
        return r;
    uint32_t own = outbox_share((uint32_t)members | UINT32_C(1) << o->member, (unsigned)o->member);
    uint32_t surplus = o->ranges & ~own, missing = own & ~o->ranges;
    if (surplus || missing)
        r = wake_up(o);
    if (r == 0 && surplus) {
        outbox_unlock(o->dialect, o->lock_base, surplus, 0, &o->text);
        r = run(o, NULL, NULL);
        o->ranges &= own;
    }
    return r == 0 && missing ? try_locks(o, missing, 0, &o->ranges) : r;
}

static int evict(struct outbox *o, int64_t now) {
    if (now < o->evict_at)
        return 0;
    o->evict_at = now + EVICT_MS;
    return outbox_evict(o->dialect, o->lock_base, &o->text) ? run(o, NULL, NULL) : 0;
}

static int keep_share(struct outbox *o) {
    int64_t now = mono_ms();
    if (now < o->share_at)
        return 0;
    o->share_at = now + SHARE_MS;
    if (o->sql->driver->lock) {
        int got = o->sql->driver->lock(o->sql);
        o->ranges = got > 0 ? OUTBOX_ALL_RANGES : 0;
        return got < 0 ? complain(o, got) : 0;
    }
    int r = evict(o, now);
    if (r == 0 && o->member < 0)
        r = become_member(o);
    return r == 0 && o->member >= 0 ? move_ranges(o) : r;
}

/* ---- tenants whose quota is used up ---- */

static struct slice tenant_of(const struct outbox *o, const struct source_row *row) {
    return row->tenant.p ? row->tenant : slice_of(o->settings->tenant);
}

/* False when there are too many. */
static bool pass_over(struct outbox *o, struct slice tenant, int64_t until_ms) {
    size_t i = 0;
    while (i < o->passed_over_n && !slice_eq(slice_of(o->passed_over[i].id), tenant))
        i++;
    if (i == PASSED_OVER_MAX)
        return false;
    CHECK(tenant.n <= TENANT_ID_MAX);
    snprintf(o->passed_over[i].id, sizeof o->passed_over[i].id, "%.*s", SLICE_ARG(tenant));
    o->passed_over[i].until_ms = until_ms;
    o->passed_over_n += i == o->passed_over_n;
    return true;
}

static void forgive(struct outbox *o, int64_t now) {
    for (size_t i = 0; i < o->passed_over_n;)
        if (o->passed_over[i].until_ms <= now)
            o->passed_over[i] = o->passed_over[--o->passed_over_n];
        else
            i++;
}

/* ---- looking and claiming ---- */

/* As many as their data leave room for, at least one. */
static int take_looked(void *arg, const struct slice *cells, size_t n) {
    struct outbox *o = arg;
    size_t bytes = (size_t)number(cells[1]);
    CHECK(n == 2);
    if (bytes > SOURCE_ROW_BYTES_MAX)
        bytes = 0; /* is refused unread */
    bool fits = o->looked_n == 0 || o->looked_bytes + bytes <= SOURCE_BYTES_MAX;
    if (!fits)
        o->looked_bytes = SOURCE_BYTES_MAX + 1; /* nor those behind it: they keep their order */
    if (fits && o->looked_n < SOURCE_ROWS_MAX) {
        o->looked[o->looked_n++] = number(cells[0]);
        o->looked_bytes += bytes;
    }
    return 0;
}

static int look(struct outbox *o) {
    buf_reset(&o->tenants);
    for (size_t i = 0; i < o->passed_over_n; i++) {
        buf_add_str(&o->tenants, i ? ", " : "");
        o->sql->driver->literal(o->sql, slice_of(o->passed_over[i].id), &o->tenants);
    }
    if (!buf_ok(&o->tenants))
        return -ENOMEM;
    o->looked_n = o->looked_bytes = 0;
    outbox_look(o->dialect, o->settings->table, o->ranges, o->passed_over_n ? o->tenants.p : NULL,
                o->default_tenant.p, (size_t)o->settings->batch, &o->text);
    return run(o, take_looked, o);
}

static int take_claimed(void *arg, const struct slice *cells, size_t n) {
    struct outbox *o = arg;
    CHECK(n == OUTBOX_COLUMNS && o->n < SOURCE_ROWS_MAX);
    size_t size = (size_t)number(cells[OUTBOX_DATA_SIZE]);
    o->seqs[o->n] = number(cells[OUTBOX_SEQ]);
    struct source_row *row = &o->rows[o->n++];
    row->key = cells[OUTBOX_ID];
    row->tenant = cells[OUTBOX_TENANT];
    row->type = cells[OUTBOX_TYPE];
    row->data = size > SOURCE_ROW_BYTES_MAX ? (struct slice){"", size} : cells[OUTBOX_DATA];
    row->ordering_key = cells[OUTBOX_ORDERING_KEY];
    row->schema_version = cells[OUTBOX_SCHEMA_VERSION];
    row->deliver_at = number(cells[OUTBOX_DELIVER_AT]);
    row->committed_at = number(cells[OUTBOX_CREATED_AT]);
    return 0;
}

static void list_seqs(struct outbox *o, const int64_t *seqs, size_t n) {
    buf_reset(&o->list);
    for (size_t i = 0; i < n; i++)
        buf_addf(&o->list, "%s%lld", i ? "," : "", (long long)seqs[i]);
}

static int claim(struct outbox *o) {
    o->n = 0;
    list_seqs(o, o->looked, o->looked_n);
    int r = state(o, OUTBOX_BEGIN, NULL, NULL, NULL);
    return r == 0 ? state(o, OUTBOX_CLAIM, NULL, take_claimed, o) : r;
}

/* ---- settling ---- */

static int reject(struct outbox *o, size_t i) {
    _cleanup_buf_ struct buf reason = {0};
    o->sql->driver->literal(o->sql, slice_of(o->rows[i].reason), &reason);
    list_seqs(o, &o->seqs[i], 1);
    return buf_ok(&reason) ? state(o, OUTBOX_REJECT, reason.p, NULL, NULL) : -ENOMEM;
}

static void tell_of_rejected(const struct outbox *o) {
    for (size_t i = 0; i < o->n; i++)
        if (o->rows[i].outcome == SOURCE_REJECTED)
            log_warn("a row of the outbox cannot be an event: it goes to the table of rejected rows",
                     log_str("source", o->settings->name), log_slice("row", o->rows[i].key),
                     log_str("reason", o->rows[i].reason));
}

/* Takes away what is decided, all or nothing. */
static int settle(struct outbox *o) {
    int64_t decided[SOURCE_ROWS_MAX];
    size_t n = 0;
    int r = state(o, OUTBOX_BEGIN_SETTLE, NULL, NULL, NULL);
    for (size_t i = 0; r == 0 && i < o->n; i++) {
        if (o->rows[i].outcome == SOURCE_REJECTED)
            r = reject(o, i);
        if (source_row_is_decided(&o->rows[i]))
            decided[n++] = o->seqs[i];
    }
    list_seqs(o, decided, n);
    if (r == 0 && n > 0)
        r = state(o, OUTBOX_DELETE, NULL, NULL, NULL);
    return r == 0 ? state(o, OUTBOX_COMMIT, NULL, NULL, NULL) : r;
}

/* After ingest pushed back: 0 when only some tenants' quotas are used up, and others' rows may go on. */
static int make_way(struct outbox *o) {
    int64_t wanted = source_wanted_ms(o->source);
    int64_t until = mono_ms() + (wanted > 0 && wanted < SOURCE_PAUSE_MS_MAX ? wanted : SOURCE_PAUSE_MS_MAX);
    for (size_t i = 0; i < o->n; i++) {
        if (o->rows[i].outcome == SOURCE_WAITING)
            return -EAGAIN;
        if (o->rows[i].outcome == SOURCE_LATER && !pass_over(o, tenant_of(o, &o->rows[i]), until))
            return -EAGAIN;
    }
    return 0;
}

static int publish_claimed(struct outbox *o) {
    int pushed = o->n > 0 ? source_publish(o->source, o->rows, o->n) : 0;
    if (pushed < 0 && pushed != -EAGAIN)
        return pushed;
    /* The next statement takes the rows' bytes. */
    tell_of_rejected(o);
    if (pushed == -EAGAIN)
        pushed = make_way(o);
    int r = settle(o);
    if (r < 0 || o->n > 0)
        return r < 0 ? r : pushed;
    /* Somebody else holds the rows that were seen. */
    r = source_wait(o->source, -1, 0, o->settings->poll_ms);
    return r < 0 ? r : 0;
}

/* ---- a round ---- */

/* Until there is a notice, or it is time to look again. */
static int await_rows(struct outbox *o, int64_t ms) {
    int came = o->listens ? o->sql->driver->take_notices(o->sql) : 0;
    if (came < 0)
        return complain(o, came);
    if (came > 0)
        return 0;
    int r = source_wait(o->source, o->listens ? o->sql->driver->notice_fd(o->sql) : -1, POLLIN, ms);
    return r < 0 ? r : 0;
}

static int idle(struct outbox *o) {
    int64_t awake_ms = AWAKE_LOOK_MS < o->settings->poll_ms ? AWAKE_LOOK_MS : o->settings->poll_ms;
    if (o->passed_over_n == 0)
        source_caught_up(o->source);
    if (o->empty_looks < AWAKE_LOOKS) {
        o->empty_looks++;
        return await_rows(o, awake_ms);
    }
    if (!o->listens || o->asleep)
        return await_rows(o, o->settings->poll_ms);
    int r = fall_asleep(o);
    /* Asleep, it looks once more: what was committed before has told nobody. */
    return r < 0 || o->asleep ? r : await_rows(o, awake_ms);
}

static int step(struct source *s, void *arg) {
    struct outbox *o = arg;
    int r = keep_share(o);
    if (r < 0)
        return r;
    if (!o->ranges) /* others work on it */
        return source_stands_by(s, 0);
    forgive(o, mono_ms());
    r = look(o);
    if (r < 0)
        return r;
    if (o->looked_n == 0)
        return idle(o);
    o->empty_looks = 0;
    r = wake_up(o);
    if (r == 0)
        r = claim(o);
    if (r == 0)
        r = publish_claimed(o);
    if (r < 0 && r != -EAGAIN && !o->sql->lost)
        (void)state(o, OUTBOX_ROLLBACK, NULL, NULL, NULL);
    return r;
}

/* ---- opening ---- */

static int check(const struct source_settings *s, struct buf *complaint) {
    const struct sql_driver *driver = sql_driver_of(s->url);
    if (!driver)
        buf_add_str(complaint, "url must begin with postgres://, mysql:// or sqlite:");
    else if (s->rules || s->create_slot || s->accept_gap)
        buf_add_str(complaint,
                    "rule, create-slot and accept-gap are of cdc: say kind = cdc, or take them away");
    else if (!outbox_table_valid(s->table))
        buf_add_str(complaint, "table must be NAME or SCHEMA.NAME, each 1 to 40 of A-Z a-z 0-9 _");
    else
        return driver->check(s, complaint);
    return -EINVAL;
}

static void outbox_close(void *arg) {
    struct outbox *o = arg;
    sql_close(o->sql);
    buf_free(&o->text);
    buf_free(&o->list);
    buf_free(&o->tenants);
    buf_free(&o->default_tenant);
    free(o);
}

static int prepare(struct outbox *o) {
    o->dialect = outbox_dialect_find(o->sql->driver->name);
    o->sql->driver->literal(o->sql, slice_of(o->settings->tenant ? o->settings->tenant : ""),
                            &o->default_tenant);
    int r = state(o, OUTBOX_CHECK, NULL, NULL, NULL);
    if (r == 0)
        r = state(o, OUTBOX_CHECK_REJECTED, NULL, NULL, NULL);
    if (r == 0)
        r = state(o, OUTBOX_LOCK_BASE, NULL, take_text, o->lock_base);
    if (r == 0)
        r = state(o, OUTBOX_LISTEN, NULL, NULL, NULL);
    o->listens = o->sql->driver->notice_fd(o->sql) >= 0;
    return r;
}

static int outbox_open(struct source *s, void **ret) {
    struct outbox *o = calloc(1, sizeof *o);
    if (!o)
        return -ENOMEM;
    o->source = s;
    o->settings = source_settings(s);
    o->member = -1;
    int r = sql_open(s, &o->sql);
    if (r == 0)
        r = prepare(o);
    if (r < 0)
        outbox_close(o);
    else
        *ret = o;
    return r;
}

const struct source_kind outbox_source = {
    .name = "outbox",
    .check = check,
    .open = outbox_open,
    .step = step,
    .close = outbox_close,
};
