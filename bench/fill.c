/* Fills a store with deliveries that lie behind, for questions to be asked of it. posthorn must not run on
 * it.
 *
 *   fill FILE COUNT SUBSCRIPTIONS
 *       Adds COUNT events of the tenant 1 over the last twenty days, each with a delivery to one of its
 *       subscriptions 1 … SUBSCRIPTIONS in turn, and an attempt at it: of a hundred, 92 went well, 5 are dead
 *       (two refused with 404, two with 503 too often, one timed out too often), 3 wait for a retry tomorrow.
 *       Types are bench.0 … as bench/pace.c has them; each tenth event has an ordering key, of 100,000. The
 *       logs by subscription and type are left to posthorn.
 *   fill FILE behind
 *       Prints how many events the logs have not taken in yet. */
#include <sqlite3.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { DATA_BYTES = 200, ORDERING_KEYS = 100000, A_TRANSACTION = 100000 };

static sqlite3 *db;

static void check(int rc) {
    if (rc == SQLITE_OK || rc == SQLITE_DONE || rc == SQLITE_ROW)
        return;
    fprintf(stderr, "fill: %s\n", sqlite3_errmsg(db));
    exit(1);
}

static void run(const char *sql) {
    check(sqlite3_exec(db, sql, NULL, NULL, NULL));
}

static sqlite3_stmt *prepare(const char *sql) {
    sqlite3_stmt *st;
    check(sqlite3_prepare_v2(db, sql, -1, &st, NULL));
    return st;
}

static void insert(sqlite3_stmt *st) {
    check(sqlite3_step(st));
    check(sqlite3_reset(st));
}

/* How delivery i ended. */
struct end {
    int state, status, error, reason;
};

static struct end end_of(int64_t i) {
    /* Mixed, so that a subscription or type has of each. */
    unsigned r = (unsigned)(((uint64_t)i * UINT64_C(0x9E3779B97F4A7C15) >> 40) % 100);
    if (r < 2)
        return (struct end){4, 404, 0, 3};
    if (r < 4)
        return (struct end){4, 503, 0, 1};
    if (r < 5)
        return (struct end){4, 0, 1, 1};
    if (r < 8)
        return (struct end){2, 500, 0, 0};
    return (struct end){3, 204, 0, 0};
}

static void bind_or_null(sqlite3_stmt *st, int at, int64_t v) {
    check(v ? sqlite3_bind_int64(st, at, v) : sqlite3_bind_null(st, at));
}

struct statements {
    sqlite3_stmt *event, *delivery, *attempt;
};

static void add(struct statements *s, int64_t i, int64_t at, int64_t now, int64_t subscriptions) {
    static char body[DATA_BYTES];
    char type[32], ordering_key[32];
    int64_t key = at << 12 | (i & 0xFFF), subscription = i % subscriptions + 1;
    struct end end = end_of(i);
    snprintf(type, sizeof type, "bench.%lld", (long long)(i % subscriptions));
    snprintf(ordering_key, sizeof ordering_key, "k%lld", (long long)(i / 10 % ORDERING_KEYS));
    memset(body, 'x', sizeof body);
    memcpy(body, "{\"data\":\"", 9);
    memcpy(body + sizeof body - 2, "\"}", 2);
    sqlite3_bind_int64(s->event, 1, key);
    sqlite3_bind_int64(s->event, 2, i);
    sqlite3_bind_text(s->event, 3, type, -1, SQLITE_STATIC);
    if (i % 10 == 0)
        sqlite3_bind_text(s->event, 4, ordering_key, -1, SQLITE_STATIC);
    else
        sqlite3_bind_null(s->event, 4);
    sqlite3_bind_int64(s->event, 5, DATA_BYTES - 9);
    sqlite3_bind_blob(s->event, 6, body, sizeof body, SQLITE_STATIC);
    insert(s->event);

    sqlite3_bind_int64(s->delivery, 1, key);
    sqlite3_bind_int64(s->delivery, 2, subscription);
    sqlite3_bind_int(s->delivery, 3, end.state);
    bind_or_null(s->delivery, 4, end.state == 2 ? now + 86400000 + i % 3600000 : 0);
    sqlite3_bind_int64(s->delivery, 5, at);
    bind_or_null(s->delivery, 6, end.state == 2 ? 0 : at + 20);
    bind_or_null(s->delivery, 7, end.status);
    bind_or_null(s->delivery, 8, end.error);
    bind_or_null(s->delivery, 9, end.reason);
    insert(s->delivery);

    sqlite3_bind_int64(s->attempt, 1, key);
    sqlite3_bind_int64(s->attempt, 2, subscription);
    sqlite3_bind_int64(s->attempt, 3, at + 5);
    sqlite3_bind_int64(s->attempt, 4, at + 20);
    sqlite3_bind_int(s->attempt, 5, end.state);
    bind_or_null(s->attempt, 6, end.reason);
    bind_or_null(s->attempt, 7, end.status);
    sqlite3_bind_int(s->attempt, 8, end.error);
    insert(s->attempt);
}

static void fill(int64_t count, int64_t subscriptions) {
    const int64_t span = INT64_C(20) * 86400000, now = (int64_t)time(NULL) * 1000;
    run("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA locking_mode=EXCLUSIVE;"
        "PRAGMA cache_size=-1048576; PRAGMA temp_store=MEMORY");
    struct statements s = {
        prepare("INSERT INTO events (key, tail, tenant, type, schema_version, ordering_key, data_size, "
                "deliveries,"
                " has_job, body) VALUES (?1,?2,1,?3,'1',?4,?5,1,0,?6)"),
        prepare("INSERT INTO deliveries (event, subscription, tenant, state, attempts, due_at, order_at, "
                "window_at,"
                " closed_at, last_status, last_error, reason) VALUES (?1,?2,1,?3,1,?4,?5,?5,?6,?7,?8,?9)"),
        prepare("INSERT INTO attempts (event, subscription, number, started_at, settled_at, to_state, reason,"
                " latency_ms, dns_ms, connect_ms, tls_ms, wait_ms, status, error, trigger, worker, url,"
                " content_type) VALUES (?1,?2,1,?3,?4,?5,?6,15,0,1,0,14,?7,?8,0,1,'http://127.0.0.1:1/',"
                "'application/json')")};
    for (int64_t i = 0; i < count; i++) {
        if (i % A_TRANSACTION == 0)
            run(i ? "COMMIT; BEGIN" : "BEGIN");
        add(&s, i, now - span + (int64_t)((double)span * 0.999 * (double)i / (double)count), now,
            subscriptions);
    }
    run("COMMIT");
    sqlite3_finalize(s.event);
    sqlite3_finalize(s.delivery);
    sqlite3_finalize(s.attempt);
    run("DELETE FROM dlq_counts; INSERT INTO dlq_counts SELECT tenant, subscription, reason, count(*) FROM "
        "deliveries"
        " INDEXED BY deliveries_dead WHERE state=4 GROUP BY 1, 2, 3");
    run("UPDATE marks SET value=0; PRAGMA journal_mode=WAL");
}

static void tell_behind(void) {
    check(sqlite3_busy_timeout(db, 5000));
    sqlite3_stmt *st =
        prepare("SELECT count(*) FROM (SELECT 1 FROM events WHERE key > (SELECT min(value) FROM marks)"
                " LIMIT 100000)");
    check(sqlite3_step(st));
    printf("%lld\n", (long long)sqlite3_column_int64(st, 0));
    sqlite3_finalize(st);
}

int main(int argc, char **argv) {
    if (argc != 4 && !(argc == 3 && strcmp(argv[2], "behind") == 0)) {
        fputs("usage: fill FILE COUNT SUBSCRIPTIONS | fill FILE behind\n", stderr);
        return 2;
    }
    check(sqlite3_open_v2(argv[1], &db, argc == 4 ? SQLITE_OPEN_READWRITE : SQLITE_OPEN_READONLY, NULL));
    if (argc == 4)
        fill(atoll(argv[2]), atoll(argv[3]));
    else
        tell_behind();
    check(sqlite3_close(db));
    return 0;
}
