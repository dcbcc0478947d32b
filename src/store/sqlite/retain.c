/* Retention: deleting what is old in small steps, so that the writer never stalls. */
#include <errno.h>

#include "store/sqlite/sqlite.h"

/* The rows of one event, deleted in this order: the event goes last, so that a step cut short leaves it to
 * the next. */
static const char *const event_rows[] = {
    "DELETE FROM attempts WHERE (event, subscription, number) IN"
    " (SELECT event, subscription, number FROM attempts WHERE event=?1 LIMIT ?2)",
    "DELETE FROM transitions WHERE (event, subscription, at, to_state) IN"
    " (SELECT event, subscription, at, to_state FROM transitions WHERE event=?1 LIMIT ?2)",
    "DELETE FROM subscription_log WHERE (hour, subscription, event) IN"
    " (SELECT event >> 34, subscription, event FROM deliveries WHERE event=?1 LIMIT ?2)",
    "DELETE FROM deliveries WHERE (event, subscription) IN"
    " (SELECT event, subscription FROM deliveries WHERE event=?1 LIMIT ?2)",
    "DELETE FROM fanout_jobs WHERE event=?1 AND ?2>0",
    "DELETE FROM events WHERE key=?1 AND ?2>0",
};

/* 1 when the event must stay: a delivery or its job is still open. */
static int event_is_open(struct connection *c, int64_t event) {
    sqlite3_stmt *st =
        connection_prepare(c, "SELECT EXISTS (SELECT 1 FROM deliveries WHERE event=?1 AND state NOT IN (3,4))"
                              " OR EXISTS (SELECT 1 FROM fanout_jobs WHERE event=?1 AND state<>2)");
    bind_int(st, 1, event);
    int r = statement_next(c, st);
    if (r <= 0)
        return r < 0 ? r : -EIO;
    bool open = column_int(st, 0) != 0;
    statement_done(st);
    return open;
}

/* Deletes up to `budget` rows of the event; *budget tells what is left. */
static int delete_event(struct connection *c, int64_t event, unsigned *budget) {
    for (size_t i = 0; i < sizeof event_rows / sizeof event_rows[0] && *budget > 0; i++) {
        sqlite3_stmt *st = connection_prepare(c, event_rows[i]);
        bind_int(st, 1, event);
        bind_int(st, 2, *budget);
        int r = statement_run(c, st);
        if (r < 0)
            return r;
        unsigned deleted = (unsigned)sqlite3_changes(c->db);
        *budget = deleted < *budget ? *budget - deleted : 0;
    }
    return 0;
}

/* The tenant's next event after *event and before `before_key`: 1, or 0 when there is none. */
static int next_event(struct connection *c, uint32_t tenant_no, int64_t before_key, int64_t *event) {
    sqlite3_stmt *st = connection_prepare(
        c, "SELECT key FROM events WHERE tenant=? AND key>? AND key<? ORDER BY key LIMIT 1");
    bind_int(st, 1, tenant_no);
    bind_int(st, 2, *event);
    bind_int(st, 3, before_key);
    int r = statement_next(c, st);
    if (r <= 0)
        return r;
    *event = column_int(st, 0);
    statement_done(st);
    return 1;
}

int store_retain(struct store *s, uint32_t tenant_no, int64_t before, unsigned limit, uint64_t *after_key,
                 unsigned *ret_n) {
    struct connection *c = &s->writer;
    unsigned budget = limit;
    int64_t event = (int64_t)*after_key;
    int r = 0;
    while (budget > 0 && (r = next_event(c, tenant_no, (int64_t)id_key_at(before), &event)) > 0) {
        int open = event_is_open(c, event);
        if (open < 0)
            return open;
        if (open) {
            *after_key = (uint64_t)event;
            budget--;
            continue;
        }
        r = delete_event(c, event, &budget);
        if (r < 0)
            return r;
        /* One that the step did not get through is found again. */
        *after_key = (uint64_t)event - 1;
    }
    if (r < 0)
        return r;
    *ret_n = limit - budget;
    return 0;
}

int store_retain_idempotency(struct store *s, int64_t before, unsigned limit, unsigned *ret_n) {
    struct connection *c = &s->writer;
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
