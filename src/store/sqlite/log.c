/* The logs of deliveries by subscription and of events by type, filled in behind the events (see the schema).
 *
 * A batch is gathered in the order of events, sorted as the log is, so that each of its pages is written once
 * a batch, and entered in slices, for the writer serves nobody during one. The mark that readers go by moves
 * with the last slice; what it has entered before that is not looked at. Whatever comes late, below what is
 * gathered, is entered at once. Batches are known to this process alone: after a restart one is done again.
 */
#include <errno.h>
#include <stdlib.h>

#include "store/sqlite/sqlite.h"

enum {
    LOG_BATCH_MAX = 16384, /* entries */
    /* Of a step's work an entry costs 1, ... */
    WORK_OF_A_PAGE = 8,    /* the first of a subscription or type so much more, for it dirties a page */
    SORTED_AT_A_WORK = 16, /* and sorting so many 1 */
};

/* Past everything that an event may have in a log. */
#define ALL_OF_EVENT INT64_MAX

struct log_entry {
    int64_t event, which; /* subscription, or type's hash */
};

static const struct log_kind {
    const char *mark, *gather, *enter;
    bool one_an_event;
} kinds[LOGS] = {
    [LOG_BY_SUBSCRIPTION] = {.mark = "log_watermark",
                             .gather = "SELECT event, subscription FROM deliveries WHERE"
                                       " (event, subscription) > (?1, ?2) AND event <= ?3"
                                       " ORDER BY event, subscription LIMIT ?4",
                             .enter = "INSERT OR IGNORE INTO subscription_log (hour, subscription, event)"
                                      " VALUES (?1 >> 34, ?2, ?1)"},
    [LOG_BY_TYPE] = {.mark = "type_watermark",
                     .gather = "SELECT key, type_hash(tenant, type) FROM events WHERE key > ?1 AND key <= ?3"
                               " ORDER BY key LIMIT ?4",
                     .enter = "INSERT OR IGNORE INTO type_log (hour, type, event) VALUES (?1 >> 34, ?2, ?1)",
                     .one_an_event = true},
};

/* ---- the marks ---- */

static int read_mark(struct connection *c, const char *name, int64_t *ret) {
    sqlite3_stmt *st = connection_prepare(c, "SELECT value FROM marks WHERE name=?");
    bind_text(st, 1, slice_of(name));
    int r = statement_next(c, st);
    if (r <= 0)
        return r < 0 ? r : -EIO;
    *ret = column_int(st, 0);
    statement_done(st);
    return 0;
}

static int write_mark(struct connection *c, const char *name, int64_t value) {
    sqlite3_stmt *st = connection_prepare(c, "UPDATE marks SET value=? WHERE name=?");
    bind_int(st, 1, value);
    bind_text(st, 2, slice_of(name));
    return statement_run(c, st);
}

int log_watermark(struct connection *c, int64_t *ret) {
    return read_mark(c, kinds[LOG_BY_SUBSCRIPTION].mark, ret);
}

int type_watermark(struct connection *c, int64_t *ret) {
    return read_mark(c, kinds[LOG_BY_TYPE].mark, ret);
}

int log_find_hour(struct connection *c, const char *sql, int64_t *hour) {
    sqlite3_stmt *st = connection_prepare(c, sql);
    bind_int(st, 1, *hour);
    int r = statement_next(c, st);
    if (r > 0) {
        *hour = column_int(st, 0);
        statement_done(st);
    }
    return r;
}

/* ---- what is known ---- */

static int64_t watermark_at(const struct log_place *place) {
    return place->which == ALL_OF_EVENT ? place->event : place->event - 1;
}

static bool is_within(const struct log_place *place, int64_t event, int64_t which) {
    return event < place->event || (event == place->event && which <= place->which);
}

static void forget(struct log *l) {
    unsigned arrangement = l->now.arrangement + 1;
    l->now = l->committed = (struct log_progress){.arrangement = arrangement};
}

int log_open(struct store *s) {
    for (int i = 0; i < LOGS; i++) {
        /* Memory that is not touched is none. */
        sqlite_of(s)->logs[i].entries = calloc(LOG_BATCH_MAX, sizeof(struct log_entry));
        if (!sqlite_of(s)->logs[i].entries)
            return -ENOMEM;
    }
    return 0;
}

void log_close(struct store *s) {
    for (int i = 0; i < LOGS; i++)
        free(sqlite_of(s)->logs[i].entries);
}

void log_committed(struct store *s) {
    for (int i = 0; i < LOGS; i++)
        sqlite_of(s)->logs[i].committed = sqlite_of(s)->logs[i].now;
}

void log_rolled_back(struct store *s) {
    for (int i = 0; i < LOGS; i++) {
        struct log *l = &sqlite_of(s)->logs[i];
        if (l->now.arrangement == l->committed.arrangement)
            l->now = l->committed;
        else
            forget(l);
    }
}

void log_deleting(struct store *s, uint64_t event_key) {
    for (int i = 0; i < LOGS; i++) {
        struct log *l = &sqlite_of(s)->logs[i];
        if (l->now.n > 0 && (int64_t)event_key > watermark_at(&l->now.done) &&
            (int64_t)event_key <= l->now.gathered.event)
            forget(l);
    }
}

static int know(struct store *s, enum log_name name, struct log **ret) {
    struct log *l = *ret = &sqlite_of(s)->logs[name];
    if (l->now.known)
        return 0;
    struct log_place place = {.which = ALL_OF_EVENT};
    int r = read_mark(&sqlite_of(s)->writer, kinds[name].mark, &place.event);
    if (r < 0)
        return r;
    l->now.known = true;
    l->now.done = l->now.gathered = place;
    return 0;
}

/* ---- what comes late ---- */

static int enter(struct connection *c, enum log_name name, const struct log_entry *e) {
    sqlite3_stmt *st = connection_prepare(c, kinds[name].enter);
    bind_int(st, 1, e->event);
    bind_int(st, 2, e->which);
    return statement_run(c, st);
}

static int enter_late(struct store *s, enum log_name name, struct log_entry e) {
    struct log *l;
    int r = know(s, name, &l);
    if (r < 0 || !is_within(&l->now.gathered, e.event, e.which))
        return r;
    return enter(&sqlite_of(s)->writer, name, &e);
}

int log_late_delivery(struct store *s, uint64_t event_key, uint32_t subscription_no) {
    return enter_late(s, LOG_BY_SUBSCRIPTION, (struct log_entry){(int64_t)event_key, subscription_no});
}

int log_late_event(struct store *s, const struct event_record *e) {
    return enter_late(s, LOG_BY_TYPE,
                      (struct log_entry){(int64_t)e->id.key, type_hash(e->tenant_no, e->type)});
}

/* ---- a batch ---- */

static void spend(unsigned *work, size_t n) {
    *work = n < *work ? *work - (unsigned)n : 0;
}

static int gather(struct connection *c, enum log_name name, struct log *l, unsigned *work) {
    struct log_progress *p = &l->now;
    size_t room = LOG_BATCH_MAX - p->n, most = *work < room ? *work : room, n = p->n;
    sqlite3_stmt *st = connection_prepare(c, kinds[name].gather);
    bind_int(st, 1, p->gathered.event);
    bind_int(st, 2, p->gathered.which);
    bind_int(st, 3, p->upto);
    bind_int(st, 4, (int64_t)most);
    int r;
    while ((r = statement_next(c, st)) > 0)
        l->entries[n++] = (struct log_entry){column_int(st, 0), column_int(st, 1)};
    if (r < 0)
        return r;
    spend(work, n - p->n);
    bool ended = n - p->n < most;
    if (ended)
        p->gathered = (struct log_place){p->upto, ALL_OF_EVENT};
    else
        p->gathered = (struct log_place){l->entries[n - 1].event,
                                         kinds[name].one_an_event ? ALL_OF_EVENT : l->entries[n - 1].which};
    p->n = n;
    if (ended || n == LOG_BATCH_MAX)
        p->phase = LOG_GATHERED;
    return 0;
}

static int by_place_in_log(const void *pa, const void *pb) {
    const struct log_entry *a = pa, *b = pb;
    int64_t hour_a = a->event >> 34, hour_b = b->event >> 34;
    if (hour_a != hour_b)
        return hour_a < hour_b ? -1 : 1;
    if (a->which != b->which)
        return a->which < b->which ? -1 : 1;
    return (a->event > b->event) - (a->event < b->event);
}

static void sort(struct log *l, unsigned *work) {
    qsort(l->entries, l->now.n, sizeof l->entries[0], by_place_in_log);
    l->now.phase = LOG_SORTED;
    l->now.arrangement++;
    spend(work, l->now.n / SORTED_AT_A_WORK);
}

static int enter_slice(struct connection *c, enum log_name name, struct log *l, unsigned *work) {
    struct log_progress *p = &l->now;
    while (p->at<p->n && * work> 0) {
        const struct log_entry *e = &l->entries[p->at];
        int r = enter(c, name, e);
        if (r < 0)
            return r;
        bool same_page = p->at > 0 && e[-1].which == e->which;
        spend(work, same_page ? 1 : 1 + WORK_OF_A_PAGE);
        p->at++;
    }
    return 0;
}

static int finish(struct connection *c, enum log_name name, struct log *l) {
    struct log_progress *p = &l->now;
    if (watermark_at(&p->gathered) != watermark_at(&p->done)) {
        int r = write_mark(c, kinds[name].mark, watermark_at(&p->gathered));
        if (r < 0)
            return r;
    }
    *p = (struct log_progress){
        .known = true, .done = p->gathered, .gathered = p->gathered, .arrangement = p->arrangement + 1};
    return 0;
}

/* A batch that goes further than is asked for may wait. */
static bool is_behind(const struct log *l, int64_t upto) {
    return watermark_at(&l->now.done) < upto;
}

static int step(struct connection *c, enum log_name name, struct log *l, int64_t upto, unsigned *work) {
    int r = 0;
    switch (l->now.phase) {
    case LOG_GATHERING:
        if (l->now.n == 0)
            l->now.upto = upto;
        return gather(c, name, l, work);
    case LOG_GATHERED:
        sort(l, work);
        return 0;
    case LOG_SORTED:
        r = enter_slice(c, name, l, work);
        return r == 0 && l->now.at == l->now.n ? finish(c, name, l) : r;
    }
    UNREACHABLE();
}

int sqlite_extend_log(struct store *s, uint64_t upto_key, unsigned work, bool *ret_more) {
    CHECK(work > 0 && upto_key <= ID_KEY_MAX);
    int64_t upto = (int64_t)upto_key;
    bool more = false;
    for (enum log_name name = 0; name < LOGS; name++) {
        struct log *l;
        int r = know(s, name, &l);
        while (r == 0 && work > 0 && is_behind(l, upto))
            r = step(&sqlite_of(s)->writer, name, l, upto, &work);
        if (r < 0)
            return r;
        more |= is_behind(l, upto);
    }
    *ret_more = more;
    return 0;
}
