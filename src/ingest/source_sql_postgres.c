/* PostgreSQL through libpq, without ever blocking longer than it says. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>

#include "base/clock.h"
#include "ingest/source_postgres.h"

struct postgres {
    struct sql base;
    PGconn *connection;
    PGresult *result; /* whose bytes the last rows were */
};

static int64_t mono_ms(void) {
    return clock_mono_us() / 1000;
}

/* One line of what the server said, without its line end. */
static void note_text(const char *text, char problem[SQL_PROBLEM_SIZE]) {
    size_t n = strcspn(text ? text : "", "\n");
    snprintf(problem, SQL_PROBLEM_SIZE, "%.*s", (int)n, text ? text : "");
}

static int check(const struct source_settings *s, struct buf *complaint) {
    /* What libpq says of a URL that it cannot read quotes it, and with it maybe the password. */
    PQconninfoOption *options = PQconninfoParse(s->url, NULL);
    if (!options) {
        buf_add_str(complaint, "url is not one that libpq reads, such as postgres://user@host:5432/database: "
                               "percent-encode what is special in its parts");
        return -EINVAL;
    }
    PQconninfoFree(options);
    return 0;
}

/* ---- connecting ---- */

static void quiet(void *arg, const PGresult *notice) {
    (void)arg, (void)notice;
}

static PGconn *start(const struct source_settings *s, bool replication) {
    char connect_seconds[16], name[sizeof s->name + sizeof "posthorn "], user_timeout[16];
    snprintf(connect_seconds, sizeof connect_seconds, "%d", SQL_CONNECT_MS / 1000);
    snprintf(user_timeout, sizeof user_timeout, "%d", SQL_STATEMENT_MS + SQL_GRACE_MS);
    snprintf(name, sizeof name, "posthorn %s", s->name);
    /* What stands before the URL is its default, what comes behind wins over it. */
    const char *const keys[] = {"connect_timeout",
                                "keepalives_idle",
                                "keepalives_interval",
                                "keepalives_count",
                                "tcp_user_timeout",
                                "fallback_application_name",
                                "dbname",
                                "client_encoding",
                                replication ? "replication" : "client_encoding",
                                s->password ? "password" : NULL,
                                NULL};
    const char *const values[] = {connect_seconds,
                                  "10",
                                  "5",
                                  "3",
                                  user_timeout,
                                  name,
                                  s->url,
                                  "UTF8",
                                  replication ? "database" : "UTF8",
                                  s->password,
                                  NULL};
    return PQconnectStartParams(keys, values, 1);
}

static int finish_connecting(struct source *s, PGconn *c) {
    int64_t deadline = mono_ms() + SQL_CONNECT_MS;
    PostgresPollingStatusType status = PGRES_POLLING_WRITING;
    while (status != PGRES_POLLING_OK) {
        short events = status == PGRES_POLLING_READING ? POLLIN : POLLOUT;
        int r = source_wait(s, PQsocket(c), events, deadline - mono_ms());
        if (r < 0)
            return r;
        if (r == 0 && mono_ms() >= deadline)
            return -ETIMEDOUT;
        if (r == 0)
            continue;
        status = PQconnectPoll(c);
        if (status == PGRES_POLLING_FAILED)
            return -ECONNREFUSED;
    }
    return 0;
}

int postgres_connect(struct source *s, bool replication, PGconn **ret, char problem[SQL_PROBLEM_SIZE]) {
    PGconn *c = start(source_settings(s), replication);
    if (!c)
        return -ENOMEM;
    int r = PQstatus(c) == CONNECTION_BAD ? -ECONNREFUSED : finish_connecting(s, c);
    if (r < 0) {
        note_text(r == -ETIMEDOUT ? "it does not answer" : PQerrorMessage(c), problem);
        PQfinish(c);
        return r;
    }
    PQsetNoticeReceiver(c, quiet, NULL);
    PQsetnonblocking(c, 1);
    *ret = c;
    return 0;
}

/* The server lets go of a relay that hangs: of its statement, its transaction and its session. */
static int set_up(struct postgres *p) {
    _cleanup_buf_ struct buf text = {0};
    buf_addf(
        &text,
        "set statement_timeout = %d; set lock_timeout = %d; set idle_in_transaction_session_timeout = %d; "
        "set default_transaction_isolation = 'read committed'; set default_transaction_read_only = off; "
        "set timezone = 'UTC'; set datestyle = 'ISO'; set synchronous_commit = on; ",
        SQL_STATEMENT_MS, SQL_STATEMENT_MS, SQL_IDLE_MS);
    if (PQserverVersion(p->connection) >= 140000)
        buf_addf(&text, "set idle_session_timeout = %d", SQL_IDLE_MS);
    return sql_run(&p->base, &text, NULL, NULL);
}

static void postgres_close(struct sql *c) {
    struct postgres *p = (struct postgres *)c;
    PQclear(p->result);
    PQfinish(p->connection);
    free(p);
}

static int postgres_open(struct source *s, struct sql **ret, char problem[SQL_PROBLEM_SIZE]) {
    struct postgres *p = calloc(1, sizeof *p);
    if (!p)
        return -ENOMEM;
    p->base.driver = &sql_postgres;
    p->base.source = s;
    int r = postgres_connect(s, false, &p->connection, problem);
    if (r == 0) {
        r = set_up(p);
        if (r < 0)
            memcpy(problem, p->base.problem, SQL_PROBLEM_SIZE);
    }
    if (r < 0) {
        postgres_close(&p->base);
        return r;
    }
    *ret = &p->base;
    return 0;
}

/* ---- statements ---- */

static int lose(struct postgres *p, const char *text) {
    p->base.lost = true;
    note_text(text, p->base.problem);
    return -EPIPE;
}

static int flush(struct postgres *p, int64_t deadline) {
    int left;
    while ((left = PQflush(p->connection)) > 0) {
        /* The server may want to be read before it reads on. */
        int r = source_wait_finish(p->base.source, PQsocket(p->connection), POLLIN | POLLOUT, deadline);
        if (r < 0)
            return lose(p, "it takes no statement");
        if (!PQconsumeInput(p->connection))
            return lose(p, PQerrorMessage(p->connection));
    }
    return left < 0 ? lose(p, PQerrorMessage(p->connection)) : 0;
}

/* The next result of what was sent; *ret is NULL when there is none left. */
static int next_result(struct postgres *p, int64_t deadline, PGresult **ret) {
    while (PQisBusy(p->connection)) {
        int r = source_wait_finish(p->base.source, PQsocket(p->connection), POLLIN, deadline);
        if (r < 0)
            return lose(p, "it does not answer a statement");
        if (!PQconsumeInput(p->connection))
            return lose(p, PQerrorMessage(p->connection));
    }
    *ret = PQgetResult(p->connection);
    return 0;
}

/* Keeps the last result; the first error of them all. */
static int collect(struct postgres *p) {
    int64_t deadline = mono_ms() + SQL_STATEMENT_MS + SQL_GRACE_MS;
    int failed = 0;
    int r = flush(p, deadline);
    for (PGresult *result = NULL; r == 0; result = NULL) {
        r = next_result(p, deadline, &result);
        if (r < 0 || !result)
            break;
        ExecStatusType status = PQresultStatus(result);
        if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK && failed == 0) {
            note_text(PQresultErrorMessage(result), p->base.problem);
            failed = -EPROTO;
        }
        PQclear(p->result);
        p->result = result;
        if (status == PGRES_COPY_IN || status == PGRES_COPY_OUT || status == PGRES_COPY_BOTH)
            return lose(p, "it copies");
    }
    if (r == 0 && PQstatus(p->connection) != CONNECTION_OK)
        return lose(p, p->base.problem[0] ? p->base.problem : PQerrorMessage(p->connection));
    return r < 0 ? r : failed;
}

static int postgres_run(struct sql *c, struct slice text, sql_row_fn *each, void *arg) {
    struct postgres *p = (struct postgres *)c;
    if (c->lost)
        return -EPIPE;
    if (!PQsendQuery(p->connection, text.p))
        return lose(p, PQerrorMessage(p->connection));
    int r = collect(p);
    if (r < 0 || !each)
        return r;
    size_t columns = (size_t)PQnfields(p->result);
    CHECK(columns <= SQL_COLUMNS_MAX);
    for (int row = 0; r >= 0 && row < PQntuples(p->result); row++) {
        struct slice cells[SQL_COLUMNS_MAX];
        for (int i = 0; i < (int)columns; i++)
            cells[i] =
                PQgetisnull(p->result, row, i)
                    ? SLICE_NONE
                    : (struct slice){PQgetvalue(p->result, row, i), (size_t)PQgetlength(p->result, row, i)};
        r = each(arg, cells, columns);
    }
    return r < 0 ? r : 0;
}

static void postgres_literal(struct sql *c, struct slice text, struct buf *out) {
    struct postgres *p = (struct postgres *)c;
    char *literal = text.p ? PQescapeLiteral(p->connection, text.p, text.n) : NULL;
    if (!text.p)
        buf_add_str(out, "null");
    else if (literal)
        buf_add_str(out, literal);
    else
        buf_add_str(out, "''"); /* not UTF-8, or memory is out */
    PQfreemem(literal);
}

static int postgres_notice_fd(const struct sql *c) {
    return PQsocket(((const struct postgres *)c)->connection);
}

static int postgres_take_notices(struct sql *c) {
    struct postgres *p = (struct postgres *)c;
    PGnotify *notice;
    int any = 0;
    if (!PQconsumeInput(p->connection))
        return lose(p, PQerrorMessage(p->connection));
    for (; (notice = PQnotifies(p->connection)); any = 1)
        PQfreemem(notice);
    return PQstatus(p->connection) == CONNECTION_OK ? any : lose(p, PQerrorMessage(p->connection));
}

const struct sql_driver sql_postgres = {
    .name = "postgres",
    .schemes = {"postgres://", "postgresql://", NULL},
    .check = check,
    .open = postgres_open,
    .run = postgres_run,
    .literal = postgres_literal,
    .notice_fd = postgres_notice_fd,
    .take_notices = postgres_take_notices,
    .close = postgres_close,
};
