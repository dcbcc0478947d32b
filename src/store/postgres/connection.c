/* Statements and their results. */
#include "store/postgres/connection.h"

#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>

#include "base/clock.h"
#include "base/log.h"
#include "store/postgres/wait.h"

enum { SPARE_MS = 5000 /* what the server gets to break off a statement by itself, before we hang up */ };

struct pg_params *pg_params(struct pg *c) {
    pg_params_reset(&c->params);
    return &c->params;
}

/* ---- failures ---- */

static const char *advice_for(const char *sqlstate) {
    static const struct {
        const char *prefix, *advice;
    } known[] = {
        {"53100", "the database's disk is full: make room"},
        {"53200", "the database is out of memory: give it more, or lower its settings"},
        {"57014", "a statement took too long: look for locks and load in pg_stat_activity"},
        {"25P03", "this process was held up within a transaction: look for a frozen or overloaded machine"},
        {"23505", "another node has written the same at the same time: it is tried again"},
        {"40", "transactions stood in each other's way: whoever asked is told to try again"},
        {"25006", "the server is read-only: let the URL name the primary"},
        {"42501", "the user lacks rights: make it the owner of posthorn's tables"},
        {"42P01", "a table is missing: was the schema changed by hand, or search_path?"},
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strncmp(sqlstate, known[i].prefix, strlen(known[i].prefix)) == 0)
            return known[i].advice;
    return NULL;
}

static int errno_of(const char *sqlstate) {
    return strcmp(sqlstate, "53100") == 0 ? -ENOSPC : strcmp(sqlstate, "53200") == 0 ? -ENOMEM : -EIO;
}

/* The connection cannot be used any more. */
static int lost(struct pg *c, int r) {
    c->broken = true;
    c->pending_n = 0;
    if (!c->error) {
        c->error = r;
        c->sqlstate[0] = '\0'; /* an earlier one's, that a savepoint has undone */
    }
    return r;
}

/* The server refused a statement. Its own words alone are logged: the detail may quote a row. */
static int refused(struct pg *c, const PGresult *result) {
    const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    const char *text = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    const char *severity = PQresultErrorField(result, PG_DIAG_SEVERITY_NONLOCALIZED);
    bool over = !severity || strcmp(severity, "ERROR") != 0;
    if (!text)
        text = PQerrorMessage(c->conn);
    if (over)
        pg_say_lost(c, text, sqlstate ? advice_for(sqlstate) : NULL);
    if (!c->error) {
        snprintf(c->sqlstate, sizeof c->sqlstate, "%s", sqlstate ? sqlstate : "");
        c->error = errno_of(c->sqlstate);
        if (!over && strcmp(c->sqlstate, PG_FENCED) != 0)
            log_error("the store cannot do its work", log_str("error", text),
                      log_str("sqlstate", c->sqlstate), log_str("advice", advice_for(c->sqlstate)));
    }
    return over ? lost(c, c->error) : c->error;
}

/* ---- sending ---- */

static size_t find_statement(struct pg *c, const char *sql) {
    size_t at = mix64((uint64_t)(uintptr_t)sql) % (PG_STATEMENTS_MAX * 2);
    while (c->statements[at].sql && c->statements[at].sql != sql)
        at = (at + 1) % (PG_STATEMENTS_MAX * 2);
    if (!c->statements[at].sql) {
        CHECK(c->statements_n < PG_STATEMENTS_MAX);
        c->statements[at].sql = sql;
        c->statements_n++;
    }
    return at;
}

static void note(struct pg *c, enum pg_kind kind, size_t statement) {
    const size_t room = sizeof c->pending / sizeof c->pending[0];
    CHECK(c->pending_n < room);
    size_t at = (c->pending_at + c->pending_n++) % room;
    c->pending[at].kind = kind;
    c->pending[at].statement = (uint16_t)statement;
}

static int cannot_send(struct pg *c) {
    pg_say_lost(c, PQerrorMessage(c->conn), NULL);
    return lost(c, -EIO);
}

/* p NULL: without parameters. */
static int put(struct pg *c, const char *sql, const struct pg_params *p) {
    static const int binary[PG_PARAMS_MAX] = {[0 ... PG_PARAMS_MAX - 1] = 1};
    const char *values[PG_PARAMS_MAX];
    int n = p ? p->n : 0;
    for (int i = 0; i < n; i++)
        values[i] = p->length[i] < 0 ? NULL : p->data.p ? p->data.p + p->at[i] : "";
    size_t at = find_statement(c, sql);
    char name[16];
    snprintf(name, sizeof name, "s%zu", at);
    if (!c->statements[at].prepared) {
        if (!PQsendPrepare(c->conn, name, sql, n, p ? p->types : NULL))
            return cannot_send(c);
        note(c, PG_PREPARE, at);
        c->statements[at].prepared = true;
    }
    if (!PQsendQueryPrepared(c->conn, name, n, values, p ? p->length : NULL, binary, 1))
        return cannot_send(c);
    note(c, PG_RUN, at);
    return 0;
}

static int put_sync(struct pg *c) {
    if (!PQpipelineSync(c->conn))
        return cannot_send(c);
    note(c, PG_SYNC, 0);
    return 0;
}

/* ---- taking results ---- */

static bool is_error(const PGresult *result) {
    ExecStatusType status = PQresultStatus(result);
    return status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK && status != PGRES_PIPELINE_SYNC;
}

static int next_result(struct pg *c, int64_t deadline_us, PGresult **ret) {
    int r = pg_wait_result(c->conn, deadline_us);
    if (r < 0) {
        pg_say_lost(c, r == -ETIMEDOUT ? "the server does not answer in time" : PQerrorMessage(c->conn),
                    NULL);
        return lost(c, -EIO);
    }
    *ret = PQgetResult(c->conn);
    return 0;
}

/* Takes what belongs to the oldest statement sent. Its rows go to *ret, when that is given. */
static int take_one(struct pg *c, int64_t deadline_us, PGresult **ret) {
    CHECK(c->pending_n > 0);
    enum pg_kind kind = c->pending[c->pending_at].kind;
    size_t statement = c->pending[c->pending_at].statement;
    bool failed = false;
    for (bool first = true;; first = false) {
        PGresult *result = NULL;
        int r = next_result(c, deadline_us, &result);
        if (r < 0)
            return r;
        if (!result && !first)
            break;
        if (!result) { /* the statement before has only now come to its end */
            first = true;
            r = next_result(c, deadline_us, &result);
            if (r < 0)
                return r;
            if (!result) {
                pg_say_lost(c,
                            PQstatus(c->conn) == CONNECTION_BAD ? PQerrorMessage(c->conn)
                                                                : "the server skipped an answer",
                            NULL);
                return lost(c, -EIO);
            }
        }
        bool aborted = PQresultStatus(result) == PGRES_PIPELINE_ABORTED;
        bool sync = PQresultStatus(result) == PGRES_PIPELINE_SYNC;
        if (is_error(result)) {
            failed = true;
            if (!aborted)
                (void)refused(c, result);
        }
        if (ret && !failed && !sync && !*ret)
            *ret = result;
        else
            PQclear(result);
        if (c->broken)
            return c->error;
        if (sync)
            break;
    }
    if (kind == PG_PREPARE && failed)
        c->statements[statement].prepared = false;
    c->pending_at = (c->pending_at + 1) % (sizeof c->pending / sizeof c->pending[0]);
    c->pending_n--;
    return 0;
}

static int64_t deadline_of(const struct pg *c) {
    return clock_mono_us() + (int64_t)(c->limits.statement_ms + SPARE_MS) * 1000;
}

/* Takes the results of all but the last `keep`. */
static int take_until(struct pg *c, size_t keep) {
    int64_t deadline = deadline_of(c);
    while (c->pending_n > keep) {
        int r = take_one(c, deadline, NULL);
        if (r < 0)
            return r;
    }
    return c->error;
}

/* The results of all that was sent, the rows of the last but `after` to *ret. */
static int take_all(struct pg *c, size_t after, struct pg_rows *ret) {
    int64_t deadline = deadline_of(c);
    PGresult *result = NULL;
    int r = 0;
    while (r == 0 && c->pending_n)
        r = take_one(c, deadline, c->pending_n == after + 1 ? &result : NULL);
    if (r == 0)
        r = c->error;
    if (r < 0 || !ret) {
        PQclear(result);
        return r;
    }
    pg_rows_free(ret);
    *ret = (struct pg_rows){.result = result, .n = PQntuples(result)};
    return 0;
}

/* ---- calls ---- */

/* What must stand before the next statement. */
static int open_transaction(struct pg *c) {
    int r = 0;
    if (!c->begun) {
        r = put(c, "BEGIN", NULL);
        c->begun = r == 0;
    }
    if (r == 0 && c->savepoint && !c->savepoint_sent) {
        r = put(c, "SAVEPOINT job", NULL);
        c->savepoint_sent = r == 0;
    }
    return r;
}

static int put_next(struct pg *c, const char *sql) {
    int r = c->error;
    if (r == 0 && (c->broken || !c->conn))
        r = lost(c, -EIO);
    if (r == 0 && !buf_ok(&c->params.data))
        r = c->error = -ENOMEM;
    if (r == 0 && c->pending_n >= PG_PENDING_MAX - 8) {
        r = put_sync(c);
        if (r == 0)
            r = take_until(c, 0);
    }
    if (r == 0 && c->in_transaction)
        r = open_transaction(c);
    if (r == 0)
        r = put(c, sql, &c->params);
    pg_params_reset(&c->params);
    return r;
}

int pg_send(struct pg *c, const char *sql) {
    CHECK(c->in_transaction);
    return put_next(c, sql);
}

int pg_query(struct pg *c, const char *sql, struct pg_rows *ret) {
    if (!c->in_transaction) {
        int r = pg_ensure(c);
        if (r < 0) {
            pg_params_reset(&c->params);
            return r;
        }
        c->error = 0;
    }
    int r = put_next(c, sql);
    if (r < 0)
        return r;
    /* Whoever waits ends the pipeline: only then does the server's clock run for a client that says nothing
     * more (idle_in_transaction_session_timeout). */
    r = put_sync(c);
    return r < 0 ? r : take_all(c, 1, ret);
}

int pg_query_row(struct pg *c, const char *sql, struct pg_rows *ret) {
    int r = pg_query(c, sql, ret);
    return r < 0 ? r : pg_next(ret) ? 1 : 0;
}

int pg_wait(struct pg *c) {
    if (c->error || !c->pending_n)
        return c->error;
    int r = put_sync(c);
    return r < 0 ? r : take_until(c, 0);
}

/* ---- transactions ---- */

static void end(struct pg *c) {
    c->in_transaction = c->begun = c->savepoint = c->savepoint_sent = false;
    c->error = 0;
    pg_params_reset(&c->params);
}

void pg_begin(struct pg *c) {
    CHECK(!c->in_transaction);
    end(c);
    c->sqlstate[0] = '\0';
    c->in_transaction = true;
}

int pg_commit(struct pg *c, const char *last, struct pg_rows *ret) {
    CHECK(c->in_transaction);
    int r = last ? put_next(c, last) : c->error;
    if (r == 0 && !c->begun) {
        end(c);
        return 0;
    }
    size_t before = c->pending_n;
    if (r == 0)
        r = put(c, "COMMIT", NULL);
    if (r == 0)
        r = put_sync(c);
    if (r < 0)
        return r;
    /* From here on the server may have it. */
    r = take_all(c, c->pending_n - before, last ? ret : NULL);
    if (c->broken) {
        end(c);
        return -EAGAIN;
    }
    if (r < 0)
        return r;
    /* COMMIT of a transaction that failed is a rollback, and succeeds. */
    CHECK(PQtransactionStatus(c->conn) == PQTRANS_IDLE);
    end(c);
    return 0;
}

void pg_rollback(struct pg *c) {
    bool begun = c->begun && !c->broken && c->conn;
    end(c);
    if (!begun)
        return;
    /* The first end of a pipeline takes it out of its failure, so that ROLLBACK is heard. */
    int r = put_sync(c);
    if (r == 0)
        r = put(c, "ROLLBACK", NULL);
    if (r == 0)
        r = put_sync(c);
    int64_t deadline = deadline_of(c);
    while (r == 0 && c->pending_n)
        r = take_one(c, deadline, NULL);
    c->broken = r < 0 || PQtransactionStatus(c->conn) != PQTRANS_IDLE;
    c->error = 0;
}

void pg_savepoint(struct pg *c) {
    CHECK(c->in_transaction && !c->savepoint);
    c->savepoint = true;
    c->savepoint_sent = false;
}

static int leave_savepoint(struct pg *c) {
    bool sent = c->savepoint_sent;
    CHECK(c->savepoint);
    c->savepoint = c->savepoint_sent = false;
    pg_params_reset(&c->params);
    return sent ? 1 : 0;
}

int pg_savepoint_release(struct pg *c) {
    return leave_savepoint(c) ? put_next(c, "RELEASE SAVEPOINT job") : c->error;
}

int pg_savepoint_rollback(struct pg *c) {
    if (!leave_savepoint(c))
        return c->error;
    int r = put_next(c, "ROLLBACK TO SAVEPOINT job");
    return r < 0 ? r : put_next(c, "RELEASE SAVEPOINT job");
}

/* ---- rows ---- */

void pg_rows_free(struct pg_rows *rows) {
    PQclear(rows->result);
    *rows = (struct pg_rows){0};
}

bool pg_next(struct pg_rows *rows) {
    if (rows->at >= rows->n)
        return false;
    rows->at++;
    return true;
}

uint64_t pg_changed(const struct pg_rows *rows) {
    return strtoull(PQcmdTuples(rows->result), NULL, 10);
}

bool pg_column_null(const struct pg_rows *rows, int column) {
    CHECK(rows->at > 0 && column < PQnfields(rows->result));
    return PQgetisnull(rows->result, rows->at - 1, column);
}

int64_t pg_column_int(const struct pg_rows *rows, int column) {
    if (pg_column_null(rows, column))
        return 0;
    const char *value = PQgetvalue(rows->result, rows->at - 1, column);
    uint16_t two;
    uint32_t four;
    uint64_t eight;
    switch (PQgetlength(rows->result, rows->at - 1, column)) {
    case 1:
        return value[0];
    case 2:
        memcpy(&two, value, sizeof two);
        return (int16_t)ntohs(two);
    case 4:
        memcpy(&four, value, sizeof four);
        return (int32_t)ntohl(four);
    case 8:
        memcpy(&eight, value, sizeof eight);
        return (int64_t)be64toh(eight);
    default:
        UNREACHABLE();
    }
}

struct slice pg_column_slice(const struct pg_rows *rows, int column) {
    if (pg_column_null(rows, column))
        return SLICE_NONE;
    return (struct slice){PQgetvalue(rows->result, rows->at - 1, column),
                          (size_t)PQgetlength(rows->result, rows->at - 1, column)};
}
