/* Retention: deleting what is old in small steps, so that the writer never stalls. */
#include <errno.h>

#include "store/sqlite/sqlite.h"

enum {
    DELIVERIES_A_LOOK = 64,
    EVENT_FINISHED = -1, /* the cursor's delivery: go on with the event after it */
};

struct retaining {
    struct store *s;
    struct connection *c;
    unsigned budget;
    struct retain_cursor *at;
};

static void spend(struct retaining *k, unsigned n) {
    k->budget = n < k->budget ? k->budget - n : 0;
}

/* Runs a deletion of up to the budget's rows of one delivery. */
static int delete_rows(struct retaining *k, const char *sql, int64_t event, int64_t subscription_no) {
    sqlite3_stmt *st = connection_prepare(k->c, sql);
    bind_int(st, 1, event);
    bind_int(st, 2, subscription_no);
    bind_int(st, 3, k->budget);
    int r = statement_run(k->c, st);
    if (r == 0)
        spend(k, (unsigned)sqlite3_changes(k->c->db));
    return r;
}

/* The delivery goes last, so that a step cut short leaves it to the next. */
static int delete_delivery(struct retaining *k, int64_t event, int64_t subscription_no) {
    static const char *const rows[] = {
        "DELETE FROM attempts WHERE event=?1 AND subscription=?2 AND number IN"
        " (SELECT number FROM attempts WHERE event=?1 AND subscription=?2 LIMIT ?3)",
        "DELETE FROM transitions WHERE event=?1 AND subscription=?2 AND at IN"
        " (SELECT at FROM transitions WHERE event=?1 AND subscription=?2 LIMIT ?3)",
        "DELETE FROM receipts WHERE event=?1 AND subscription=?2 AND ?3>0",
        "DELETE FROM subscription_log WHERE hour=?1 >> 34 AND subscription=?2 AND event=?1 AND ?3>0",
        "DELETE FROM deliveries WHERE event=?1 AND subscription=?2 AND ?3>0",
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        int r = delete_rows(k, rows[i], event, subscription_no);
        if (r < 0)
            return r;
        if (k->budget == 0)
            return 0;
    }
    k->at->subscription_no = subscription_no;
    return 0;
}

struct seen {
    int64_t subscription_no;
    bool open;
};

static int look(struct retaining *k, int64_t event, struct seen *ret, size_t max, size_t *ret_n) {
    sqlite3_stmt *st =
        connection_prepare(k->c, "SELECT subscription, state FROM deliveries WHERE event=? AND subscription>?"
                                 " ORDER BY subscription LIMIT ?");
    bind_int(st, 1, event);
    bind_int(st, 2, k->at->subscription_no);
    bind_int(st, 3, (int64_t)max);
    int r;
    for (*ret_n = 0; (r = statement_next(k->c, st)) > 0; ++*ret_n)
        ret[*ret_n] =
            (struct seen){column_int(st, 0), delivery_is_open((enum delivery_state)column_int(st, 1))};
    return r;
}

/* Deletes the event's closed deliveries from the cursor on. 1 when it came to their end. */
static int delete_deliveries(struct retaining *k, int64_t event) {
    struct seen seen[DELIVERIES_A_LOOK];
    size_t n = DELIVERIES_A_LOOK;
    while (k->budget > 0 && n == DELIVERIES_A_LOOK) {
        int r = look(k, event, seen, DELIVERIES_A_LOOK, &n);
        for (size_t i = 0; r == 0 && i < n && k->budget > 0; i++) {
            if (!seen[i].open) {
                r = delete_delivery(k, event, seen[i].subscription_no);
                continue;
            }
            k->at->subscription_no = seen[i].subscription_no;
            spend(k, 1);
        }
        if (r < 0)
            return r;
    }
    return k->budget > 0;
}

/* With its job, when nothing of it is left. */
static int delete_event(struct retaining *k, int64_t event) {
    static const char *const rows[] = {
        "DELETE FROM type_log WHERE hour=?1 >> 34 AND event=?1"
        " AND type=(SELECT type_hash(tenant, type) FROM events WHERE key=?1)"
        " AND NOT EXISTS (SELECT 1 FROM deliveries WHERE event=?1)",
        "DELETE FROM events WHERE key=?1 AND NOT EXISTS (SELECT 1 FROM deliveries WHERE event=?1)",
        "DELETE FROM fanout_jobs WHERE event=?1 AND NOT EXISTS (SELECT 1 FROM events WHERE key=?1)",
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        sqlite3_stmt *st = connection_prepare(k->c, rows[i]);
        bind_int(st, 1, event);
        int r = statement_run(k->c, st);
        if (r < 0)
            return r;
    }
    spend(k, 1);
    return 0;
}

static int job_is_open(struct connection *c, int64_t event) {
    sqlite3_stmt *st = connection_prepare(c, "SELECT 1 FROM fanout_jobs WHERE event=? AND state<>2");
    bind_int(st, 1, event);
    int r = statement_next(c, st);
    if (r > 0)
        statement_done(st);
    return r;
}

/* One event, as far as the budget reaches; then the cursor stands behind it. */
static int retain_event(struct retaining *k, int64_t event) {
    int open = job_is_open(k->c, event), ended = 1;
    if (open == 0) {
        log_deleting(k->s, (uint64_t)event);
        ended = delete_deliveries(k, event);
    }
    if (open < 0 || ended < 0)
        return open < 0 ? open : ended;
    if (!ended)
        return 0;
    int r = 0;
    if (open)
        spend(k, 1);
    else
        r = delete_event(k, event);
    k->at->subscription_no = EVENT_FINISHED;
    return r;
}

/* The tenant's event at the cursor or after it, before `before_key`: 1, or 0 when there is none. */
static int next_event(struct retaining *k, uint32_t tenant_no, int64_t before_key, int64_t *ret) {
    int64_t from = (int64_t)k->at->event_key + (k->at->subscription_no == EVENT_FINISHED);
    sqlite3_stmt *st = connection_prepare(
        k->c, "SELECT key FROM events WHERE tenant=? AND key>=? AND key<? ORDER BY key LIMIT 1");
    bind_int(st, 1, tenant_no);
    bind_int(st, 2, from);
    bind_int(st, 3, before_key);
    int r = statement_next(k->c, st);
    if (r <= 0)
        return r;
    *ret = column_int(st, 0);
    statement_done(st);
    if (*ret != (int64_t)k->at->event_key || k->at->subscription_no == EVENT_FINISHED)
        *k->at = (struct retain_cursor){.event_key = (uint64_t)*ret};
    return 1;
}

int sqlite_retain(struct store *s, uint32_t tenant_no, int64_t before, unsigned limit,
                  struct retain_cursor *cursor, unsigned *ret_n) {
    struct retaining k = {.s = s, .c = &sqlite_of(s)->writer, .budget = limit, .at = cursor};
    int r = 0;
    int64_t event;
    while (k.budget > 0 && (r = next_event(&k, tenant_no, (int64_t)id_key_at(before), &event)) > 0) {
        r = retain_event(&k, event);
        if (r < 0)
            break;
    }
    if (r < 0)
        return r;
    *ret_n = limit - k.budget;
    return 0;
}

int64_t sqlite_retain_floor(struct store *s, int64_t before) {
    (void)s;
    return before;
}

int sqlite_keep_house(struct store_reader *r, int64_t now, int64_t before) {
    (void)r;
    (void)now;
    (void)before;
    return 0;
}

int sqlite_retain_idempotency(struct store *s, int64_t before, unsigned limit, unsigned *ret_n) {
    struct connection *c = &sqlite_of(s)->writer;
    sqlite3_stmt *st =
        connection_prepare(c, "DELETE FROM idempotency WHERE (tenant, key) IN (SELECT tenant, key FROM"
                              " idempotency WHERE created_at<? ORDER BY created_at LIMIT ?)");
    bind_int(st, 1, before);
    bind_int(st, 2, limit);
    int r = statement_run(c, st);
    if (r < 0)
        return r;
    *ret_n = (unsigned)sqlite3_changes(c->db);
    return 0;
}

int sqlite_next_tenant(struct store *s, uint32_t after_no, struct tenant_record *ret, bool *ret_deleted) {
    sqlite3_stmt *st =
        connection_prepare(&sqlite_of(s)->writer, "SELECT " TENANT_COLUMNS
                                                  ", deleted_at FROM tenants WHERE no>? ORDER BY no LIMIT 1");
    bind_int(st, 1, after_no);
    int r = statement_next(&sqlite_of(s)->writer, st);
    if (r <= 0)
        return r < 0 ? r : -ENOENT;
    /* Not reset: the slices point into the row. */
    read_tenant_columns(st, ret);
    *ret_deleted = column_int(st, 5) != 0;
    return 0;
}
