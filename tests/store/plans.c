#include "plans.h"

#include <string.h>

#include "store/postgres/postgres.h"
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

/* ---- on PostgreSQL ---- */

/* Tables that grow with the traffic, and their partitions. */
static const char *const pg_large[] = {"deliveries_open", "deliveries_closed", "events",     "attempts",
                                       "transitions",     "receipts",          "idempotency"};

/* Indexes of what is in flight, or under way, alone. */
static const char *const pg_bounded[] = {"deliveries_open_leased", "fanout_jobs_open"};

static bool begins_with_one(const char *text, const char *const *names, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (strncmp(text, names[i], strlen(names[i])) == 0)
            return true;
    return false;
}

/* A step of a plan that reads a large table from one end to the other. `next` is the line below it. */
static bool reads_all(const char *line, const char *next) {
    const char *table = strstr(line, " on "), *index = strstr(line, " using ");
    if (!table || !strstr(line, " Scan") || !begins_with_one(table + 4, pg_large, COUNT(pg_large)))
        return false;
    if (strstr(line, "Seq Scan"))
        return true;
    return index && !begins_with_one(index + 7, pg_bounded, COUNT(pg_bounded)) &&
           !(next && strstr(next, "Index Cond"));
}

static PGresult *ask(PGconn *conn, const char *sql) {
    PGresult *result = PQexec(conn, sql);
    if (PQresultStatus(result) != PGRES_TUPLES_OK && PQresultStatus(result) != PGRES_COMMAND_OK)
        fail_msg("%s\n%s", sql, PQerrorMessage(conn));
    return result;
}

static void assert_pg_plan(PGconn *conn, const char *explain, const char *sql) {
    _cleanup_buf_ struct buf plan = {0};
    bool wrong = false;
    PGresult *lines = ask(conn, explain);
    for (int i = 0; i < PQntuples(lines); i++) {
        const char *next = i + 1 < PQntuples(lines) ? PQgetvalue(lines, i + 1, 0) : NULL;
        wrong |= reads_all(PQgetvalue(lines, i, 0), next);
        buf_addf(&plan, "  %s\n", PQgetvalue(lines, i, 0));
    }
    PQclear(lines);
    if (wrong)
        fail_msg("%s\n%s", sql, plan.p);
}

/* Every statement that was prepared, as it is planned once and for all; with the partitions that its bounds
 * would leave out. */
static void assert_pg_connection(struct pg *c) {
    if (!c->conn || c->broken || !PQexitPipelineMode(c->conn))
        return;
    PQclear(ask(c->conn, "DISCARD PLANS"));
    PQclear(ask(c->conn, "SET enable_partition_pruning=off"));
    PGresult *all = ask(
        c->conn,
        "SELECT 'EXPLAIN (COSTS OFF) EXECUTE ' || name || coalesce('(' || (SELECT string_agg(CASE WHEN "
        "t::text LIKE '%[]' THEN '''{}''' WHEN t='bytea'::regtype THEN '''\\x00''' WHEN "
        "t='boolean'::regtype THEN 'true' ELSE '''1''' END, ',') FROM unnest(parameter_types) t) || ')', "
        "''), "
        "statement FROM pg_prepared_statements WHERE statement ~* '^\\s*(select|with|insert|update|delete)'");
    for (int i = 0; i < PQntuples(all); i++)
        assert_pg_plan(c->conn, PQgetvalue(all, i, 0), PQgetvalue(all, i, 1));
    PQclear(all);
    PQclear(ask(c->conn, "SET enable_partition_pruning=on"));
    assert_true(PQenterPipelineMode(c->conn));
}

void assert_indexed(struct fixture *f) {
    if (f->in_transaction || !f->store)
        return;
    if (!fixture_is_sqlite(f)) {
        assert_pg_connection(&pg_of(f->store)->writer);
        if (f->reader) /* a test that plays several nodes has none */
            assert_pg_connection(&pg_reader_of(f->reader)->conn);
        return;
    }
    assert_connection(&sqlite_of(f->store)->writer);
    assert_connection(&sqlite_reader_of(f->reader)->conn);
}
