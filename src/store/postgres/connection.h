/* A connection to PostgreSQL: libpq in pipeline mode, statements prepared by the address of their text (a
 * string literal each), parameters and rows in binary. Every wait has an end.
 *
 * A statement is sent (pg_send: nobody waits for it, its failure shows at a later call) or asked (pg_query:
 * waits for its rows). Between pg_begin and pg_commit they are one transaction, which the first failure makes
 * void: every later call returns that error until pg_rollback. Outside, each pg_query is a transaction of
 * its own. One thread at a time. */
#pragma once

#include "base/random.h"
#include "store/postgres/params.h"
#include "store/postgres/source.h"

enum {
    PG_STATEMENTS_MAX = 512,
    PG_PENDING_MAX = 1024, /* statements sent whose results were not taken; then they are taken first */
};

/* The first of the two numbers of each advisory lock. The second: 0 the schema, 1 slots of nodes, 2 the keys
 * that seal, 3 days, 4 numbers of jobs. */
#define PG_LOCK_CLASS "1886352244"
/* The cluster's clock: the database's, Unix milliseconds. */
#define PG_NOW "(extract(epoch from clock_timestamp()) * 1000)::bigint"

struct pg_limits {
    int connect_ms, statement_ms, idle_in_transaction_ms;
    bool read_only;
};
extern const struct pg_limits pg_usual_limits;

enum pg_kind { PG_PREPARE, PG_RUN, PG_SYNC };

struct pg {
    PGconn *conn; /* NULL while there is none */
    const struct pg_source *source;
    struct pg_limits limits;
    int session;       /* the server's process; PQbackendPID may be a pooler's invention */
    uint32_t timeline; /* another one after each failover */
    bool broken;       /* lost, or in an unknown state: to be made anew */
    struct {
        const char *sql;
        bool prepared;
    } statements[PG_STATEMENTS_MAX * 2]; /* open addressing */
    size_t statements_n;
    struct {
        enum pg_kind kind;
        uint16_t statement;
    } pending[PG_PENDING_MAX + 4]; /* a ring */
    size_t pending_at, pending_n;
    struct pg_params params;
    /* The transaction. */
    bool in_transaction, begun;     /* pg_begin was called; BEGIN was sent */
    bool savepoint, savepoint_sent; /* likewise */
    int error;                      /* what made it void; 0 */
    char sqlstate[6];               /* of the last failure; "" when the server said nothing */
    /* Coming back. */
    int64_t retry_at_us, backoff_ms;
    struct rng rng;
};

/* Makes no connection yet. The source must outlive it. */
void pg_init(struct pg *c, const struct pg_source *source, const struct pg_limits *limits);
void pg_close(struct pg *c);
/* A connection that works, made anew when it was lost: 0, or -EIO at once while a try has just failed. Not
 * within a transaction. What is wrong is logged once, and once that it is over. */
int pg_ensure(struct pg *c) MUST_USE;
/* The first one, for whoever starts the program: one try, and a message that says what to do. */
int pg_connect(struct pg *c, const char **ret_message) MUST_USE;

/* The connection's own, empty: fill them in and send. */
struct pg_params *pg_params(struct pg *c);

/* The rows of a statement. Begin with {0}; pg_next, then the columns of the row it stands on. */
struct pg_rows {
    PGresult *result;
    int n, at; /* at - 1 is the row it stands on */
};
#define _cleanup_pg_rows_ _cleanup_(pg_rows_free)
void pg_rows_free(struct pg_rows *rows);
bool pg_next(struct pg_rows *rows);
/* How many an INSERT, UPDATE or DELETE has changed. */
uint64_t pg_changed(const struct pg_rows *rows);
/* smallint, int, bigint or boolean; NULL reads as 0. */
int64_t pg_column_int(const struct pg_rows *rows, int column);
/* text or bytea; NULL reads as absent. Lives until the rows are freed. */
struct slice pg_column_slice(const struct pg_rows *rows, int column);
bool pg_column_null(const struct pg_rows *rows, int column);

/* With pg_params(c) as its parameters, which are empty afterwards. 0, -EIO, -ENOSPC, -ENOMEM. Within a
 * transaction alone. */
int pg_send(struct pg *c, const char *sql) MUST_USE;
/* *ret must be {0}, or hold rows, which are freed; NULL: rows are not wanted. */
int pg_query(struct pg *c, const char *sql, struct pg_rows *ret) MUST_USE;
/* 1 with rows that stand on the first one, 0 when there is none. */
int pg_query_row(struct pg *c, const char *sql, struct pg_rows *ret) MUST_USE;
/* Waits for what was sent. */
int pg_wait(struct pg *c) MUST_USE;
/* Text of several statements without parameters or rows, outside of a pipeline: for the schema. */
int pg_script(struct pg *c, const char *sql) MUST_USE;

/* BEGIN goes out with the first statement, and a savepoint with the first one after it: a transaction that
 * does nothing costs nothing. One savepoint at a time. */
void pg_begin(struct pg *c);
/* `last` (NULL: none) goes out just before COMMIT, with pg_params(c), and gives *ret. 0: durable. -EAGAIN:
 * the connection was lost before the answer came: nobody can tell. After another error pg_rollback ends it.
 */
int pg_commit(struct pg *c, const char *last, struct pg_rows *ret) MUST_USE;
void pg_rollback(struct pg *c);
void pg_savepoint(struct pg *c);
int pg_savepoint_release(struct pg *c) MUST_USE;
int pg_savepoint_rollback(struct pg *c) MUST_USE;
