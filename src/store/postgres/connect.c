/* Making a connection, and making it anew. */
#include <errno.h>
#include <poll.h>

#include "base/clock.h"
#include "base/log.h"
#include "store/backend.h"
#include "store/postgres/wait.h"

enum {
    CONNECT_MS = 3000,
    STATEMENT_MS = 30000,
    IDLE_IN_TRANSACTION_MS = 5000, /* half of a node's lease: what a frozen node has locked is set free */
    BACKOFF_FIRST_MS = 50,
    BACKOFF_MAX_MS = 5000,
    VERSION_MIN = 130000,
};

const struct pg_limits pg_usual_limits = {CONNECT_MS, STATEMENT_MS, IDLE_IN_TRANSACTION_MS, false};

/* The first line, without what only PostgreSQL's developers need. */
static struct slice first_line(const char *text) {
    return (struct slice){text, strcspn(text, "\n")};
}

void pg_say_lost(struct pg *c, const char *why, const char *advice) {
    int64_t none = 0;
    if (!atomic_compare_exchange_strong(&c->source->outage->since_us, &none, clock_mono_us()))
        return;
    log_error("the connection to PostgreSQL is lost; it is made anew as soon as the server takes it",
              log_slice("error", first_line(why)), log_str("server", c->source->name),
              log_str("advice", advice));
}

static int64_t left_ms(int64_t deadline_us) {
    int64_t left = (deadline_us - clock_mono_us()) / 1000;
    return left < 0 ? 0 : left;
}

static int wait_for(PGconn *conn, short events, int64_t deadline_us) {
    struct pollfd fd = {.fd = PQsocket(conn), .events = events};
    int r;
    do
        r = poll(&fd, 1, (int)left_ms(deadline_us));
    while (r < 0 && errno == EINTR);
    return r < 0 ? -EIO : r == 0 ? -ETIMEDOUT : 0;
}

int pg_wait_result(PGconn *conn, int64_t deadline_us) {
    for (;;) {
        int unsent = PQflush(conn);
        if (unsent < 0)
            return -EIO;
        if (!PQisBusy(conn))
            return 0;
        int r = wait_for(conn, (short)(POLLIN | (unsent ? POLLOUT : 0)), deadline_us);
        if (r < 0)
            return r;
        if (!PQconsumeInput(conn))
            return -EIO;
    }
}

static void ignore_notice(void *arg, const PGresult *result) {
    (void)arg;
    (void)result;
}

/* Outside of the pipeline. NULL: no answer. */
static PGresult *ask(PGconn *conn, const char *sql, int64_t deadline_us) {
    PGresult *last = NULL;
    if (!PQsendQuery(conn, sql))
        return NULL;
    for (;;) {
        if (pg_wait_result(conn, deadline_us) < 0) {
            PQclear(last);
            return NULL;
        }
        PGresult *next = PQgetResult(conn);
        if (!next)
            return last;
        /* Of several the first failure counts. */
        if (last && PQresultStatus(last) == PGRES_FATAL_ERROR) {
            PQclear(next);
            continue;
        }
        PQclear(last);
        last = next;
    }
}

/* ---- one try ---- */

static int connect_host(struct pg *c, size_t host, int64_t deadline_us) {
    const char *values[PG_KEYWORDS_MAX];
    pg_source_host(c->source, host, values);
    c->conn = PQconnectStartParams(c->source->keywords, values, 0);
    if (!c->conn)
        return -ENOMEM;
    if (PQstatus(c->conn) == CONNECTION_BAD)
        return -EIO;
    (void)PQsetErrorVerbosity(c->conn, PQERRORS_VERBOSE); /* for its SQLSTATE */
    PQsetNoticeReceiver(c->conn, ignore_notice, NULL);
    PostgresPollingStatusType state = PGRES_POLLING_WRITING;
    while (state != PGRES_POLLING_OK) {
        if (state == PGRES_POLLING_FAILED)
            return -EIO;
        int r = wait_for(c->conn, state == PGRES_POLLING_READING ? POLLIN : POLLOUT, deadline_us);
        if (r < 0)
            return r;
        state = PQconnectPoll(c->conn);
    }
    (void)PQsetErrorVerbosity(c->conn, PQERRORS_DEFAULT);
    return 0;
}

/* Statements are few, known, and made for their indexes. Their plans are made once, and must not depend on
 * what the server believes of tables that grow by millions a day. Explicit joins keep their order. */
#define PLANS                                                                                                \
    "SET plan_cache_mode=force_generic_plan; SET enable_seqscan=off; SET enable_bitmapscan=off;"             \
    "SET enable_hashjoin=off; SET enable_mergejoin=off; SET enable_material=off;"                            \
    "SET max_parallel_workers_per_gather=0; SET join_collapse_limit=1; SET jit=off;"

static int set_up(struct pg *c, int64_t deadline_us) {
    char sql[1024];
    /* Durable is what is acknowledged; a server that was told otherwise is overruled. */
    snprintf(sql, sizeof sql,
             PLANS "SET statement_timeout=%d; SET idle_in_transaction_session_timeout=%d;"
                   "SET default_transaction_isolation='read committed'; SET lock_timeout=0;"
                   "SET default_transaction_read_only=%s;"
                   "SELECT set_config('synchronous_commit', 'on', false)"
                   " WHERE current_setting('synchronous_commit')='off';"
                   "SELECT pg_backend_pid(), substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)",
             c->limits.statement_ms, c->limits.idle_in_transaction_ms, c->limits.read_only ? "on" : "off");
    if (PQsetnonblocking(c->conn, 1) < 0)
        return -EIO;
    PGresult *result = ask(c->conn, sql, deadline_us);
    bool ok = result && PQresultStatus(result) == PGRES_TUPLES_OK && PQntuples(result) == 1;
    c->session = ok ? atoi(PQgetvalue(result, 0, 0)) : 0;
    c->timeline = ok ? (uint32_t)strtoul(PQgetvalue(result, 0, 1), NULL, 16) : 0;
    PQclear(result);
    return ok && PQenterPipelineMode(c->conn) ? 0 : -EIO;
}

static void forget(struct pg *c) {
    PQfinish(c->conn);
    c->conn = NULL;
    c->pending_n = c->pending_at = 0;
    for (size_t i = 0; i < PG_STATEMENTS_MAX * 2; i++)
        c->statements[i].prepared = false;
}

/* Of several hosts the first that may be written to. On failure the connection tells why. */
static int try_hosts(struct pg *c) {
    int r = -EIO;
    int64_t patience = c->source->connect_ms ? c->source->connect_ms : c->limits.connect_ms;
    for (size_t i = 0; i < c->source->hosts_n && r < 0; i++) {
        int64_t deadline = clock_mono_us() + patience * 1000;
        forget(c);
        r = connect_host(c, i, deadline);
        if (r == 0 && PQserverVersion(c->conn) < VERSION_MIN)
            r = -EPROTONOSUPPORT;
        if (r == 0)
            r = set_up(c, deadline);
    }
    c->broken = r < 0;
    return r;
}

static const char *reason(struct pg *c, int r) {
    return r == -ETIMEDOUT || !c->conn ? "no answer in time" : PQerrorMessage(c->conn);
}

static int back_off(struct pg *c) {
    c->backoff_ms = c->backoff_ms ? c->backoff_ms * 2 : BACKOFF_FIRST_MS;
    if (c->backoff_ms > BACKOFF_MAX_MS)
        c->backoff_ms = BACKOFF_MAX_MS;
    /* Half of it is chance, so that the nodes do not come all at once. */
    int64_t wait = c->backoff_ms / 2 + (int64_t)rng_below(&c->rng, (uint64_t)c->backoff_ms / 2 + 1);
    c->retry_at_us = clock_mono_us() + wait * 1000;
    return -EIO;
}

/* While nobody asked anything. */
static bool hung_up(PGconn *conn) {
    struct pollfd fd = {.fd = PQsocket(conn), .events = POLLRDHUP};
    return PQstatus(conn) == CONNECTION_BAD || poll(&fd, 1, 0) > 0;
}

int pg_ensure(struct pg *c) {
    CHECK(!c->in_transaction);
    /* A session that ended while nothing was asked is no more than that, as long as there is another. */
    if (c->conn && !c->broken && hung_up(c->conn))
        c->broken = true;
    if (c->conn && !c->broken)
        return 0;
    if (clock_mono_us() < c->retry_at_us)
        return -EIO;
    int r = try_hosts(c);
    if (r < 0) {
        pg_say_lost(c, reason(c, r), NULL);
        return back_off(c);
    }
    int64_t since = atomic_exchange(&c->source->outage->since_us, 0);
    if (since)
        log_info("the connection to PostgreSQL is back", log_str("server", c->source->name),
                 log_int("after_ms", (clock_mono_us() - since) / 1000));
    c->retry_at_us = c->backoff_ms = 0;
    return 0;
}

/* ---- the first try ---- */

/* In "…  28P01: …". */
static void find_sqlstate(const char *text, char ret[6]) {
    static const char legal[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";
    ret[0] = '\0';
    for (const char *at = text; (at = strstr(at, "  ")); at++)
        if (strspn(at + 2, legal) == 5 && at[7] == ':') {
            memcpy(ret, at + 2, 5);
            ret[5] = '\0';
            return;
        }
}

static int explain(struct pg *c, int r, const char **ret_message) {
    const char *name = c->source->name;
    if (r == -EPROTONOSUPPORT)
        return store_explain(r, ret_message, "PostgreSQL at %s is of version %d: 13 or newer is needed", name,
                             PQserverVersion(c->conn) / 10000);
    if (r == -ETIMEDOUT)
        return store_explain(-EIO, ret_message,
                             "PostgreSQL at %s does not answer: is it running, does a firewall stand between,"
                             " is the URL right?",
                             name);
    static const struct {
        const char *sqlstate, *advice;
    } known[] = {
        {"28P01", "check the user and the password in the URL, or in ~/.pgpass"},
        {"28000", "check the user in the URL, and pg_hba.conf on the server"},
        {"3D000", "make the database first: createdb"},
        {"42501", "give the user the right to connect to this database"},
        {"53300", "all connections are taken: raise max_connections, or end others"},
        {"57P03", "the server is starting or stopping: try again in a moment"},
    };
    const char *text = reason(c, r), *advice = "is it running, and is the URL right?";
    char sqlstate[6];
    find_sqlstate(text, sqlstate);
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(known[i].sqlstate, sqlstate) == 0)
            advice = known[i].advice;
    if (strstr(text, "session is read-only"))
        advice =
            "it is a standby, or read-only: let the URL name the primary, or all hosts one after another";
    struct slice line = first_line(text);
    return store_explain(-EIO, ret_message, "PostgreSQL at %s cannot be used: %.*s; %s", name,
                         SLICE_ARG(line), advice);
}

int pg_connect(struct pg *c, const char **ret_message) {
    int r = try_hosts(c);
    return r < 0 ? explain(c, r, ret_message) : 0;
}

void pg_init(struct pg *c, const struct pg_source *source, const struct pg_limits *limits) {
    *c = (struct pg){.source = source, .limits = *limits};
    rng_seed_from_system(&c->rng);
}

void pg_close(struct pg *c) {
    PQfinish(c->conn);
    pg_params_free(&c->params);
    *c = (struct pg){0};
}

int pg_script(struct pg *c, const char *sql) {
    CHECK(c->in_transaction == false && c->conn && !c->broken && c->pending_n == 0);
    if (!PQexitPipelineMode(c->conn))
        return -EIO;
    PGresult *result = ask(c->conn, sql, clock_mono_us() + (int64_t)c->limits.statement_ms * 1000);
    ExecStatusType status = PQresultStatus(result);
    bool ok = status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK;
    const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    snprintf(c->sqlstate, sizeof c->sqlstate, "%s", !ok && sqlstate ? sqlstate : "");
    if (!ok)
        log_error("PostgreSQL refuses a part of the schema",
                  log_slice("error", first_line(PQerrorMessage(c->conn))), log_str("sqlstate", c->sqlstate));
    PQclear(result);
    if (!PQenterPipelineMode(c->conn))
        c->broken = true;
    return ok && !c->broken ? 0 : strcmp(c->sqlstate, "53100") == 0 ? -ENOSPC : -EIO;
}
