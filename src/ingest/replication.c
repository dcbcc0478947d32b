#include "ingest/replication.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>

#include "base/clock.h"
#include "ingest/pgoutput.h"
#include "ingest/source_postgres.h"

/* Where PostgreSQL's clock begins, in Unix milliseconds. */
#define POSTGRES_EPOCH_MS INT64_C(946684800000)

enum {
    DATA_HEAD = 1 + 8 + 8 + 8, /* 'w', start, end, time */
    KEEPALIVE_SIZE = 1 + 8 + 8 + 1,
    STATUS_SIZE = 1 + 8 + 8 + 8 + 8 + 1,
};

struct replication {
    struct source *source;
    PGconn *connection;
    char *message;    /* of libpq */
    int64_t heard_at; /* monotonic ms */
    char problem[SQL_PROBLEM_SIZE];
};

static int64_t mono_ms(void) {
    return clock_mono_us() / 1000;
}

static int lost(struct replication *r, const char *text) {
    snprintf(r->problem, sizeof r->problem, "%.*s", (int)strcspn(text ? text : "", "\n"), text ? text : "");
    source_fault(r->source, "the stream from the database broke off", r->problem,
                 "see the database's log; it is tried again from where it was");
    return -EPIPE;
}

static uint64_t number_at(const char *p, size_t bytes) {
    uint64_t v = 0;
    for (size_t i = 0; i < bytes; i++)
        v = v << 8 | (uint8_t)p[i];
    return v;
}

/* ---- commands ---- */

static int wait_for(struct replication *r, short events, int64_t deadline) {
    int e = source_wait_finish(r->source, PQsocket(r->connection), events, deadline);
    return e == -ETIMEDOUT ? lost(r, "the database does not answer") : e < 0 ? e : 0;
}

static int flush(struct replication *r, int64_t deadline) {
    int left;
    while ((left = PQflush(r->connection)) > 0) {
        int e = wait_for(r, POLLIN | POLLOUT, deadline);
        if (e < 0)
            return e;
        if (!PQconsumeInput(r->connection))
            return lost(r, PQerrorMessage(r->connection));
    }
    return left < 0 ? lost(r, PQerrorMessage(r->connection)) : 0;
}

/* The next result of a command; *ret is NULL after the last. */
static int next_result(struct replication *r, int64_t deadline, PGresult **ret) {
    while (PQisBusy(r->connection)) {
        int e = wait_for(r, POLLIN, deadline);
        if (e < 0)
            return e;
        if (!PQconsumeInput(r->connection))
            return lost(r, PQerrorMessage(r->connection));
    }
    *ret = PQgetResult(r->connection);
    return 0;
}

/* The last result of a command, to be cleared by the caller; the stream's own when one begins. */
static int command(struct replication *r, const char *text, PGresult **ret) {
    int64_t deadline = mono_ms() + REPLICATION_LIMIT_MS;
    if (!PQsendQuery(r->connection, text))
        return lost(r, PQerrorMessage(r->connection));
    PGresult *last = NULL, *next = NULL;
    int e = flush(r, deadline);
    while (e == 0 && (e = next_result(r, deadline, &next)) == 0 && next) {
        PQclear(last);
        last = next;
        if (PQresultStatus(last) == PGRES_COPY_BOTH)
            break;
    }
    if (e == 0 && !last)
        e = lost(r, PQerrorMessage(r->connection));
    if (e == 0)
        *ret = last;
    else
        PQclear(last);
    return e;
}

static struct slice cell(const PGresult *result, int column) {
    return (struct slice){PQgetvalue(result, 0, column), (size_t)PQgetlength(result, 0, column)};
}

/* The one row of a command's result, which the caller clears. */
static int ask(struct replication *r, const char *text, int columns, PGresult **ret) {
    int e = command(r, text, ret);
    if (e < 0)
        return e;
    if (PQresultStatus(*ret) != PGRES_TUPLES_OK || PQntuples(*ret) != 1 || PQnfields(*ret) < columns)
        e = lost(r, PQresultErrorMessage(*ret));
    return e;
}

static int ask_history(struct replication *r, struct timeline_history *ret) {
    char text[64];
    PGresult *result = NULL;
    snprintf(text, sizeof text, "TIMELINE_HISTORY %u", ret->timeline);
    int e = ask(r, text, 2, &result);
    if (e == 0 && timeline_parse(cell(result, 1), ret) < 0)
        e = lost(r, "the history of its timelines cannot be read");
    PQclear(result);
    return e;
}

static int identify(struct replication *r, struct timeline_history *ret) {
    PGresult *result = NULL;
    *ret = (struct timeline_history){0};
    int e = ask(r, "IDENTIFY_SYSTEM", 3, &result);
    if (e == 0) {
        snprintf(ret->system, sizeof ret->system, "%s", cell(result, 0).p);
        ret->timeline = (uint32_t)strtoul(cell(result, 1).p, NULL, 10);
        e = lsn_parse(cell(result, 2), &ret->flushed) < 0 ? lost(r, "it does not say who it is") : 0;
    }
    PQclear(result);
    return e == 0 && ret->timeline > 1 ? ask_history(r, ret) : e;
}

/* Values are to be written alike whatever the role's own settings say. */
static int set_output(struct replication *r) {
    PGresult *result = NULL;
    int e = command(r,
                    "SET datestyle = 'ISO'; SET intervalstyle = 'postgres'; SET timezone = 'UTC'; "
                    "SET extra_float_digits = 1; SET bytea_output = 'hex'",
                    &result);
    if (e == 0 && PQresultStatus(result) != PGRES_COMMAND_OK)
        e = lost(r, PQresultErrorMessage(result));
    PQclear(result);
    return e;
}

int replication_open(struct source *s, struct replication **ret, struct timeline_history *ret_history) {
    struct replication *r = calloc(1, sizeof *r);
    if (!r)
        return -ENOMEM;
    r->source = s;
    int e = postgres_connect(s, true, &r->connection, r->problem);
    if (e < 0 && !source_stopping(s))
        source_fault(
            s, "the database cannot be reached for replication", r->problem,
            "see that it runs, that pg_hba.conf lets the user in, and that the user has REPLICATION");
    if (e == 0 && PQserverVersion(r->connection) < REPLICATION_VERSION_MIN) {
        source_fault(s, "the database is older than PostgreSQL 14", NULL, "use the outbox with it");
        e = -EPROTONOSUPPORT;
    }
    if (e == 0)
        e = identify(r, ret_history);
    if (e == 0)
        e = set_output(r);
    if (e < 0) {
        replication_close(r);
        return e;
    }
    *ret = r;
    return 0;
}

static int refused(struct replication *r, const PGresult *result) {
    const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    const char *text = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    snprintf(r->problem, sizeof r->problem, "%s", text ? text : "");
    if (state && strcmp(state, "55006") == 0)
        return -EBUSY;
    source_fault(r->source, "the database refuses to stream", r->problem, "see docs/producers.md, CDC");
    return -EPROTO;
}

int replication_start(struct replication *r, const char *slot, const char *publication, uint64_t from) {
    _cleanup_buf_ struct buf text = {0};
    char position[LSN_TEXT_SIZE];
    PGresult *result = NULL;
    lsn_format(from, position);
    buf_addf(&text,
             "START_REPLICATION SLOT \"%s\" LOGICAL %s (proto_version '1', publication_names '\"%s\"', "
             "messages 'true')",
             slot, position, publication);
    if (!buf_ok(&text))
        return -ENOMEM;
    int e = command(r, text.p, &result);
    if (e == 0 && PQresultStatus(result) != PGRES_COPY_BOTH)
        e = refused(r, result);
    PQclear(result);
    r->heard_at = mono_ms();
    return e;
}

/* ---- the stream ---- */

static int read_message(struct replication *r, struct slice raw, struct replication_message *ret) {
    if (raw.n >= DATA_HEAD && raw.p[0] == 'w') {
        *ret = (struct replication_message){.lsn = number_at(raw.p + 1, 8),
                                            .bytes = {raw.p + DATA_HEAD, raw.n - DATA_HEAD}};
        return 1;
    }
    if (raw.n == KEEPALIVE_SIZE && raw.p[0] == 'k') {
        *ret = (struct replication_message){
            .keepalive = true, .lsn = number_at(raw.p + 1, 8), .reply = raw.p[KEEPALIVE_SIZE - 1] != 0};
        return 1;
    }
    return lost(r, "a message of an unknown kind came");
}

/* The server has ended the stream, and maybe says why. */
static int stream_ended(struct replication *r) {
    PGresult *result = NULL;
    int e = next_result(r, mono_ms() + REPLICATION_LIMIT_MS, &result);
    if (e < 0)
        return e;
    const char *text = result ? PQresultErrorMessage(result) : "";
    e = lost(r, text[0] ? text : "the database ended it");
    PQclear(result);
    return e;
}

int replication_read(struct replication *r, struct replication_message *ret) {
    PQfreemem(r->message);
    r->message = NULL;
    int n = PQgetCopyData(r->connection, &r->message, 1);
    if (n == 0) {
        if (!PQconsumeInput(r->connection))
            return lost(r, PQerrorMessage(r->connection));
        n = PQgetCopyData(r->connection, &r->message, 1);
    }
    if (n == -1)
        return stream_ended(r);
    if (n < 0)
        return lost(r, PQerrorMessage(r->connection));
    if (n == 0)
        return mono_ms() - r->heard_at > REPLICATION_SILENCE_MS ? lost(r, "the database says nothing") : 0;
    r->heard_at = mono_ms();
    return read_message(r, (struct slice){r->message, (size_t)n}, ret);
}

int replication_fd(const struct replication *r) {
    return PQsocket(r->connection);
}

static char *put_number(char *at, uint64_t v) {
    for (int shift = 56; shift >= 0; shift -= 8)
        *at++ = (char)(v >> shift);
    return at;
}

int replication_confirm(struct replication *r, uint64_t received, uint64_t confirmed, int64_t now) {
    char status[STATUS_SIZE] = {'r'}, *at = status + 1;
    int64_t deadline = mono_ms() + REPLICATION_LIMIT_MS;
    at = put_number(at, received);
    at = put_number(at, confirmed);
    at = put_number(at, confirmed);
    at = put_number(at, (uint64_t)(now - POSTGRES_EPOCH_MS) * 1000);
    *at = 1; /* answer: so that a server that is gone is noticed */
    int put;
    while ((put = PQputCopyData(r->connection, status, sizeof status)) == 0) {
        int e = wait_for(r, POLLOUT, deadline);
        if (e < 0)
            return e;
    }
    return put < 0 ? lost(r, PQerrorMessage(r->connection)) : flush(r, deadline);
}

void replication_close(struct replication *r) {
    if (!r)
        return;
    PQfreemem(r->message);
    PQfinish(r->connection);
    free(r);
}
