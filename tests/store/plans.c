#include "plans.h"

#include <string.h>

#include "store/sqlite/sqlite.h"

/* The large tables, and the names that the joins give them. */
static const char *const large[] = {
    "deliveries", "events", "attempts", "transitions", "subscription_log", "l", "idempotency", "d", "e", "a"};

/* What goes through these is bounded, so it may be sorted: what is in flight, and a lane's retries when they
 * are few. */
static const char *const bounded[] = {"deliveries_leased", "deliveries_retrying"};

static bool scans_large(const char *sql, const char *step) {
    if (strncmp(step, "SCAN ", 5) != 0)
        return false;
    /* A gauge counts all there are of a kind: by an index that holds no others, and its rows untouched. */
    if (strncmp(sql, "SELECT (SELECT count(*)", 23) == 0 && strstr(step, " USING COVERING INDEX "))
        return false;
    for (size_t i = 0; i < COUNT(large); i++) {
        size_t n = strlen(large[i]);
        if (strncmp(step + 5, large[i], n) == 0 && (step[5 + n] == ' ' || step[5 + n] == '\0'))
            return true;
    }
    return false;
}

static void assert_plan(sqlite3 *db, const char *sql) {
    _cleanup_buf_ struct buf explain = {0}, plan = {0};
    buf_addf(&explain, "EXPLAIN QUERY PLAN %s", sql);
    sqlite3_stmt *st = NULL;
    assert_int_equal(sqlite3_prepare_v2(db, explain.p, -1, &st, NULL), SQLITE_OK);
    /* A write that sorts what it takes in does so for the sake of the pages it dirties, a step at a time. */
    bool is_read = strncmp(sql, "SELECT", 6) == 0;
    bool scans = false, sorts = false, few = false;
    while (sqlite3_step(st) == SQLITE_ROW) {
        const char *step = (const char *)sqlite3_column_text(st, 3);
        buf_addf(&plan, "  %s\n", step);
        scans |= scans_large(sql, step);
        sorts |= is_read && strstr(step, "USE TEMP B-TREE FOR ORDER BY") && strstr(sql, "deliveries");
        for (size_t i = 0; i < COUNT(bounded); i++)
            few |= strstr(step, bounded[i]) != NULL;
    }
    sqlite3_finalize(st);
    if (scans || (sorts && !few))
        fail_msg("%s\n%s", sql, plan.p);
}

static void assert_connection(struct connection *c) {
    for (size_t i = 0; i < COUNT(c->cache); i++)
        if (c->cache[i].sql)
            assert_plan(c->db, c->cache[i].sql);
}

void assert_indexed(struct fixture *f) {
    if (!fixture_is_sqlite(f) || f->in_transaction)
        return;
    assert_connection(&sqlite_of(f->store)->writer);
    assert_connection(&sqlite_reader_of(f->reader)->conn);
}
