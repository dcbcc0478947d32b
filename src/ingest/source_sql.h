/* A connection to a producer's database, the same for PostgreSQL, MariaDB (and MySQL) and SQLite: it runs one
 * statement after the other, none for longer than SQL_STATEMENT_MS, and notices a server that is gone. Used
 * by its source's thread alone. */
#pragma once

#include "ingest/source.h"

enum {
    SQL_CONNECT_MS = 10000,
    SQL_STATEMENT_MS = 30000, /* told to the server; the client waits a little longer */
    SQL_GRACE_MS = 5000,
    SQL_IDLE_MS = 60000, /* a session that asks nothing for so long is ended by the server, its locks too */
    SQL_COLUMNS_MAX = 16,
    SQL_PROBLEM_SIZE = 512,
};

struct sql {
    const struct sql_driver *driver;
    struct source *source;
    char problem[SQL_PROBLEM_SIZE]; /* of what failed last, in the server's words, without secrets */
    bool lost;                      /* the connection is of no more use */
};

/* A row of a result; a NULL has p == NULL, others have a byte of 0 behind them. The bytes stay until the next
 * sql_run. Negative errno ends it. */
typedef int sql_row_fn(void *arg, const struct slice *cells, size_t n);

struct sql_driver {
    const char *name; /* "postgres" … */
    /* What urls begin with; NULL ends them. */
    const char *schemes[3];
    /* Whether the URL can be read. The complaint holds nothing of it: a password may stand anywhere. */
    int (*check)(const struct source_settings *s, struct buf *complaint);
    /* Negative errno with `problem` in *ret_problem. */
    int (*open)(struct source *s, struct sql **ret, char problem[SQL_PROBLEM_SIZE]);
    int (*run)(struct sql *c, struct slice text, sql_row_fn *each, void *arg);
    /* Appends a text as a literal of the dialect; NULL for an absent one. */
    void (*literal)(struct sql *c, struct slice text, struct buf *out);
    /* Something to wait for beside time, for POLLIN; -1: none. */
    int (*notice_fd)(const struct sql *c);
    /* Takes what notices came, those too that came with answers: 1 when there were any. Negative errno: the
     * connection is lost. */
    int (*take_notices)(struct sql *c);
    /* Of an exclusive lock that lives as long as the connection. 1: it is held; 0: somebody else holds it.
     * Only for drivers whose dialect has none. */
    int (*lock)(struct sql *c);
    void (*close)(struct sql *c);
};

extern const struct sql_driver sql_postgres, sql_mysql, sql_sqlite;

/* The driver of a URL by its scheme; NULL: none. */
const struct sql_driver *sql_driver_of(const char *url);
/* Opens and complains with source_fault. */
int sql_open(struct source *s, struct sql **ret) MUST_USE;
/* Runs one statement (PostgreSQL: several) and hands on its rows. `each` may be NULL. -EPIPE: the connection
 * is lost; -EPROTO: the server refused it (`problem`); what `each` returned. */
int sql_run(struct sql *c, const struct buf *text, sql_row_fn *each, void *arg) MUST_USE;
int sql_run_text(struct sql *c, const char *text) MUST_USE;
void sql_close(struct sql *c); /* NULL-safe */

/* ---- files of a URL, for the sandbox ---- */

enum { SQL_FILES_MAX = 8 };

/* What a database behind this URL is reached by while the process runs: owned texts. */
struct sql_files {
    char *readable[SQL_FILES_MAX]; /* files, and folders with all below them */
    size_t readable_n;
    char *writable; /* the folder of an SQLite file */
};
int sql_files(const char *url, struct sql_files *ret) MUST_USE;
void sql_files_free(struct sql_files *f);
