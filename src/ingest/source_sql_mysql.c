/* MariaDB and MySQL through MariaDB's client library. */
#include <errmsg.h>
#include <errno.h>
#include <mysql.h>
#include <pthread.h>
#include <stdio.h>

#include "ingest/source_sql.h"
#include "ingest/source_url.h"

struct mysql {
    struct sql base;
    MYSQL *connection;
    MYSQL_RES *result; /* whose bytes the last rows were */
};

static void note_text(const char *text, char problem[SQL_PROBLEM_SIZE]) {
    snprintf(problem, SQL_PROBLEM_SIZE, "%s", text);
}

static int check(const struct source_settings *s, struct buf *complaint) {
    struct mysql_url u;
    const char *why = "";
    int r = mysql_url_parse(s->url, &u, &why);
    if (r == -EINVAL)
        buf_add_str(complaint, why);
    if (r == 0)
        mysql_url_free(&u);
    return r;
}

/* ---- connecting ---- */

static void choose_tls(MYSQL *c, const struct mysql_url *u) {
    my_bool yes = 1, no = 0;
    my_bool verify = u->ssl == MYSQL_SSL_VERIFY;
    if (u->ssl == MYSQL_SSL_DISABLED) {
        mysql_optionsv(c, MYSQL_OPT_SSL_ENFORCE, &no);
        return;
    }
    if (u->ssl_ca)
        mysql_optionsv(c, MYSQL_OPT_SSL_CA, u->ssl_ca);
    /* Setting any of the key's options lets it use TLS when the server offers it. */
    mysql_ssl_set(c, NULL, NULL, u->ssl_ca, NULL, NULL);
    if (u->ssl != MYSQL_SSL_PREFERRED)
        mysql_optionsv(c, MYSQL_OPT_SSL_ENFORCE, &yes);
    mysql_optionsv(c, MYSQL_OPT_SSL_VERIFY_SERVER_CERT, verify ? &yes : &no);
}

static int connect_to(MYSQL *c, const struct source_settings *s, const struct mysql_url *u) {
    unsigned connect_seconds = SQL_CONNECT_MS / 1000;
    unsigned silent_seconds = (SQL_STATEMENT_MS + SQL_GRACE_MS) / 1000;
    my_bool reconnect = 0;
    mysql_optionsv(c, MYSQL_OPT_CONNECT_TIMEOUT, &connect_seconds);
    mysql_optionsv(c, MYSQL_OPT_READ_TIMEOUT, &silent_seconds);
    mysql_optionsv(c, MYSQL_OPT_WRITE_TIMEOUT, &silent_seconds);
    mysql_optionsv(c, MYSQL_OPT_RECONNECT, &reconnect);
    mysql_optionsv(c, MYSQL_SET_CHARSET_NAME, "utf8mb4");
    if (!u->socket || u->ssl > MYSQL_SSL_DISABLED)
        choose_tls(c, u);
    const char *password = s->password ? s->password : u->password;
    return mysql_real_connect(c, u->host, u->user, password, u->database, u->port, u->socket, 0)
               ? 0
               : -ECONNREFUSED;
}

/* The server lets go of a relay that hangs: of its statement and its session. What the other of the two
 * servers knows under another name is not needed: the client's own limits hold. */
static int set_up(struct mysql *m) {
    _cleanup_buf_ struct buf text = {0};
    buf_addf(
        &text,
        "set session transaction isolation level read committed; "
        "set session wait_timeout = %d, innodb_lock_wait_timeout = %d, time_zone = '+00:00', autocommit = 1, "
        "sql_mode = 'ANSI_QUOTES,STRICT_ALL_TABLES'",
        SQL_IDLE_MS / 1000, SQL_STATEMENT_MS / 1000);
    const char *both = text.p ? text.p : "";
    const char *second = strchr(both, ';');
    if (!buf_ok(&text))
        return -ENOMEM;
    _cleanup_buf_ struct buf first = {0};
    buf_add(&first, both, (size_t)(second - both));
    int r = sql_run(&m->base, &first, NULL, NULL);
    if (r == 0)
        r = sql_run_text(&m->base, second + 1);
    if (r < 0)
        return r;
    bool mariadb = mariadb_connection(m->connection);
    buf_reset(&text);
    if (mariadb)
        buf_addf(&text, "set session max_statement_time = %d, idle_transaction_timeout = %d",
                 SQL_STATEMENT_MS / 1000, SQL_IDLE_MS / 1000);
    else
        buf_addf(&text, "set session max_execution_time = %d", SQL_STATEMENT_MS);
    return sql_run(&m->base, &text, NULL, NULL);
}

static void drop_result(struct mysql *m) {
    if (m->result)
        mysql_free_result(m->result);
    m->result = NULL;
}

static void mysql_driver_close(struct sql *c) {
    struct mysql *m = (struct mysql *)c;
    drop_result(m);
    if (m->connection)
        mysql_close(m->connection);
    free(m);
    mysql_thread_end();
}

static pthread_once_t library = PTHREAD_ONCE_INIT;

static void start_library(void) {
    (void)mysql_library_init(0, NULL, NULL);
}

static int mysql_driver_open(struct source *s, struct sql **ret, char problem[SQL_PROBLEM_SIZE]) {
    struct mysql_url u;
    const char *why = "";
    pthread_once(&library, start_library);
    int r = mysql_url_parse(source_settings(s)->url, &u, &why);
    if (r < 0)
        return r;
    struct mysql *m = calloc(1, sizeof *m);
    if (m)
        m->connection = mysql_init(NULL);
    if (!m || !m->connection) {
        free(m);
        mysql_url_free(&u);
        return -ENOMEM;
    }
    m->base.driver = &sql_mysql;
    m->base.source = s;
    r = connect_to(m->connection, source_settings(s), &u);
    mysql_url_free(&u);
    if (r < 0)
        note_text(mysql_error(m->connection), problem);
    if (r == 0) {
        r = set_up(m);
        if (r < 0)
            memcpy(problem, m->base.problem, SQL_PROBLEM_SIZE);
    }
    if (r < 0)
        mysql_driver_close(&m->base);
    else
        *ret = &m->base;
    return r;
}

/* ---- statements ---- */

static int failed(struct mysql *m) {
    unsigned code = mysql_errno(m->connection);
    note_text(mysql_error(m->connection), m->base.problem);
    /* The client's own errors are of the connection, the server's of the statement. */
    if (code < CR_MIN_ERROR || code > CR_MAX_ERROR)
        return -EPROTO;
    m->base.lost = true;
    return -EPIPE;
}

static int mysql_driver_run(struct sql *c, struct slice text, sql_row_fn *each, void *arg) {
    struct mysql *m = (struct mysql *)c;
    drop_result(m);
    if (c->lost)
        return -EPIPE;
    if (mysql_real_query(m->connection, text.p, (unsigned long)text.n) != 0)
        return failed(m);
    m->result = mysql_store_result(m->connection);
    if (!m->result)
        return mysql_errno(m->connection) != 0 ? failed(m) : 0;
    unsigned columns = mysql_num_fields(m->result);
    CHECK(columns <= SQL_COLUMNS_MAX);
    int r = 0;
    MYSQL_ROW row;
    while (each && r >= 0 && (row = mysql_fetch_row(m->result))) {
        struct slice cells[SQL_COLUMNS_MAX];
        const unsigned long *lengths = mysql_fetch_lengths(m->result);
        for (unsigned i = 0; i < columns; i++)
            cells[i] = row[i] ? (struct slice){row[i], lengths[i]} : SLICE_NONE;
        r = each(arg, cells, columns);
    }
    return r < 0 ? r : 0;
}

static void mysql_driver_literal(struct sql *c, struct slice text, struct buf *out) {
    struct mysql *m = (struct mysql *)c;
    if (!text.p) {
        buf_add_str(out, "null");
        return;
    }
    char *escaped = malloc(text.n * 2 + 1);
    if (!escaped) {
        out->failed = true;
        return;
    }
    unsigned long n = mysql_real_escape_string(m->connection, escaped, text.p, (unsigned long)text.n);
    buf_add_char(out, '\'');
    buf_add(out, escaped, n);
    buf_add_char(out, '\'');
    free(escaped);
}

static int mysql_driver_notice_fd(const struct sql *c) {
    (void)c;
    return -1;
}

static int mysql_driver_take_notices(struct sql *c) {
    (void)c;
    return 0;
}

const struct sql_driver sql_mysql = {
    .name = "mysql",
    .schemes = {"mysql://", "mariadb://", NULL},
    .check = check,
    .open = mysql_driver_open,
    .run = mysql_driver_run,
    .literal = mysql_driver_literal,
    .notice_fd = mysql_driver_notice_fd,
    .take_notices = mysql_driver_take_notices,
    .close = mysql_driver_close,
};
