/* A connection to PostgreSQL by itself: parameters and rows, pipelines, failures. On the server that
 * POSTHORN_TEST_STORE names. */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "store/postgres/connection.h"

static struct pg_source *source;

static int setup(void **state) {
    struct pg *c = calloc(1, sizeof *c);
    const char *message = "";
    pg_init(c, source, &pg_usual_limits);
    if (pg_connect(c, &message) < 0)
        fail_msg("%s", message);
    *state = c;
    return 0;
}

static int teardown(void **state) {
    struct pg *c = *state;
    pg_close(c);
    free(c);
    return 0;
}

static int64_t number(struct pg *c, const char *sql) {
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    assert_int_equal(pg_query_row(c, sql, &rows), 1);
    return pg_column_int(&rows, 0);
}

static void test_values_come_back(void **state) {
    struct pg *c = *state;
    struct pg_params *p = pg_params(c);
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    pg_bigint(p, INT64_MIN);
    pg_int(p, -7);
    pg_bool(p, true);
    pg_time(p, 0);
    pg_text(p, SLICE_LIT(""));
    pg_text(p, SLICE_NONE);
    pg_bytea(p, (struct slice){"\0\xff", 2});
    assert_int_equal(pg_query_row(c, "SELECT $1, $2, $3, $4, $5, $6, $7, (-3)::smallint", &rows), 1);
    assert_true(pg_column_int(&rows, 0) == INT64_MIN);
    assert_int_equal(pg_column_int(&rows, 1), -7);
    assert_int_equal(pg_column_int(&rows, 2), 1);
    assert_true(pg_column_null(&rows, 3));
    assert_int_equal(pg_column_int(&rows, 3), 0);
    assert_non_null(pg_column_slice(&rows, 4).p);
    assert_int_equal(pg_column_slice(&rows, 4).n, 0);
    assert_null(pg_column_slice(&rows, 5).p);
    assert_memory_equal(pg_column_slice(&rows, 6).p, "\0\xff", 2);
    assert_int_equal(pg_column_int(&rows, 7), -3);
    assert_false(pg_next(&rows));
}

static void test_columns_are_arrays(void **state) {
    struct pg *c = *state;
    struct pg_column keys = PG_COLUMN(PG_BIGINT), names = PG_COLUMN(PG_TEXT), none = PG_COLUMN(PG_INT);
    for (int64_t i = 0; i < 1000; i++) {
        pg_add_time(&keys, i); /* the first is NULL */
        pg_add_text(&names, i % 2 ? SLICE_LIT("odd") : SLICE_NONE);
    }
    struct pg_params *p = pg_params(c);
    pg_array(p, &keys);
    pg_array(p, &names);
    pg_array(p, &none);
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    assert_int_equal(pg_query_row(c,
                                  "SELECT count(*), count(k), sum(k)::bigint, count(n), cardinality($3)"
                                  " FROM unnest($1, $2) AS t(k, n)",
                                  &rows),
                     1);
    assert_int_equal(pg_column_int(&rows, 0), 1000);
    assert_int_equal(pg_column_int(&rows, 1), 999);
    assert_int_equal(pg_column_int(&rows, 2), 499500);
    assert_int_equal(pg_column_int(&rows, 3), 500);
    assert_int_equal(pg_column_int(&rows, 4), 0);
    pg_column_free(&keys);
    pg_column_free(&names);
    pg_column_free(&none);
}

static void test_thousands_are_sent_without_waiting(void **state) {
    struct pg *c = *state;
    pg_begin(c);
    assert_int_equal(pg_send(c, "CREATE TEMP TABLE t (n bigint, body bytea) ON COMMIT DROP"), 0);
    static char body[20000];
    for (int64_t i = 0; i < 3000; i++) {
        struct pg_params *p = pg_params(c);
        pg_bigint(p, i);
        pg_bytea(p, (struct slice){body, sizeof body});
        /* What comes back is as long as what goes out: neither side may wait for the other alone. */
        assert_int_equal(pg_send(c, "INSERT INTO t VALUES ($1, $2) RETURNING body"), 0);
    }
    assert_int_equal(number(c, "SELECT count(*) FROM t"), 3000);
    assert_int_equal(pg_commit(c, NULL, NULL), 0);
}

static void test_a_failure_voids_the_transaction(void **state) {
    struct pg *c = *state;
    pg_begin(c);
    assert_int_equal(pg_send(c, "CREATE TABLE pg_connection_test (n bigint)"), 0);
    assert_int_equal(pg_send(c, "SELECT 1 / (SELECT 0)"), 0);
    assert_int_equal(pg_send(c, "SELECT 1"), 0);
    assert_int_equal(pg_query(c, "SELECT 2", NULL), -EIO);
    assert_string_equal(c->sqlstate, "22012");
    assert_int_equal(pg_send(c, "SELECT 1"), -EIO);
    assert_int_equal(pg_commit(c, NULL, NULL), -EIO);
    pg_rollback(c);
    /* What was prepared on the way still is, and what was not gets prepared. */
    pg_begin(c);
    assert_int_equal(number(c, "SELECT 2"), 2);
    assert_int_equal(number(c, "SELECT count(*) FROM pg_class WHERE relname='pg_connection_test'"), 0);
    assert_int_equal(pg_commit(c, NULL, NULL), 0);
    assert_int_equal(pg_query(c, "SELECT 1 / (SELECT 0)", NULL), -EIO);
    assert_int_equal(number(c, "SELECT 3"), 3);
}

static void test_a_savepoint_goes_out_with_its_first_statement(void **state) {
    struct pg *c = *state;
    pg_begin(c);
    assert_int_equal(pg_send(c, "CREATE TEMP TABLE t (n bigint) ON COMMIT DROP"), 0);
    pg_savepoint(c);
    assert_int_equal(pg_savepoint_rollback(c), 0); /* never sent */
    pg_savepoint(c);
    assert_int_equal(pg_send(c, "INSERT INTO t VALUES (1)"), 0);
    assert_int_equal(pg_savepoint_rollback(c), 0);
    pg_savepoint(c);
    assert_int_equal(pg_send(c, "INSERT INTO t VALUES (2)"), 0);
    assert_int_equal(pg_savepoint_release(c), 0);
    assert_int_equal(number(c, "SELECT sum(n)::bigint FROM t"), 2);
    assert_int_equal(pg_commit(c, NULL, NULL), 0);
}

static void test_nothing_is_sent_for_nothing(void **state) {
    struct pg *c = *state;
    pg_begin(c);
    assert_int_equal(pg_commit(c, NULL, NULL), 0);
    assert_int_equal(c->pending_n, 0);
    pg_begin(c);
    pg_rollback(c);
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    pg_begin(c);
    assert_int_equal(pg_commit(c, "SELECT 41 + 1", &rows), 0);
    assert_true(pg_next(&rows));
    assert_int_equal(pg_column_int(&rows, 0), 42);
}

static void kill_it(struct pg *c) {
    struct pg other;
    const char *message = "";
    pg_init(&other, source, &pg_usual_limits);
    assert_int_equal(pg_connect(&other, &message), 0);
    struct pg_params *p = pg_params(&other);
    pg_int(p, PQbackendPID(c->conn));
    assert_int_equal(pg_query(&other, "SELECT pg_terminate_backend($1, 60000)", NULL), 0);
    pg_close(&other);
}

static void test_a_lost_connection_comes_back(void **state) {
    struct pg *c = *state;
    kill_it(c);
    assert_int_equal(number(c, "SELECT 1"), 1); /* between transactions nobody notices */
    pg_begin(c);
    assert_int_equal(number(c, "SELECT 1"), 1);
    kill_it(c);
    assert_int_equal(pg_query(c, "SELECT 1", NULL), -EIO);
    pg_rollback(c);
    assert_int_equal(pg_ensure(c), 0);
    pg_begin(c);
    assert_int_equal(number(c, "SELECT 1"), 1);
    assert_int_equal(pg_commit(c, NULL, NULL), 0);
}

static void test_what_was_not_sent_leaves_nothing_for_the_next(void **state) {
    struct pg *c = *state;
    kill_it(c);
    c->retry_at_us = INT64_MAX;
    pg_bigint(pg_params(c), 7);
    assert_int_equal(pg_query(c, "SELECT $1", NULL), -EIO);
    c->retry_at_us = 0;
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(number(c, "SELECT 5"), 5);
}

static void test_a_commit_without_an_answer_says_so(void **state) {
    struct pg *c = *state;
    pg_begin(c);
    assert_int_equal(number(c, "SELECT 1"), 1);
    kill_it(c);
    assert_int_equal(pg_commit(c, NULL, NULL), -EAGAIN);
    assert_int_equal(pg_ensure(c), 0);
}

/* A machine that is frozen, or a network that swallows everything: nobody hangs up, and no answer comes. */
static void test_a_server_that_falls_silent_is_given_up(void **state) {
    (void)state;
    struct pg c;
    const char *message = "";
    pg_init(&c, source,
            &(struct pg_limits){.connect_ms = 60000, .statement_ms = 200, .idle_in_transaction_ms = 0});
    assert_int_equal(pg_connect(&c, &message), 0);
    pid_t backend = PQbackendPID(c.conn);
    if (kill(backend, SIGSTOP) < 0)
        skip(); /* another user's */
    int r = pg_query(&c, "SELECT 1", NULL);
    kill(backend, SIGCONT);
    assert_int_equal(r, -EIO);
    assert_int_equal(number(&c, "SELECT 2"), 2); /* by a new connection */
    assert_int_not_equal(PQbackendPID(c.conn), backend);
    pg_close(&c);
}

static void test_a_statement_that_takes_too_long_is_broken_off(void **state) {
    (void)state;
    struct pg c;
    const char *message = "";
    pg_init(&c, source,
            &(struct pg_limits){.connect_ms = 60000, .statement_ms = 2000, .idle_in_transaction_ms = 0});
    assert_int_equal(pg_connect(&c, &message), 0);
    assert_int_equal(pg_query(&c, "SELECT pg_sleep(60)", NULL), -EIO);
    assert_string_equal(c.sqlstate, "57014");
    assert_int_equal(number(&c, "SELECT 1"), 1);
    pg_close(&c);
}

static void expect_refusal(const char *url, const char *word) {
    _cleanup_pg_source_ struct pg_source *other = NULL;
    const char *message = "";
    int r = pg_source_parse(url, &other, &message);
    if (r == 0) {
        struct pg c;
        pg_init(&c, other, &pg_usual_limits);
        r = pg_connect(&c, &message);
        pg_close(&c);
    }
    assert_true(r < 0);
    if (!strstr(message, word) || strstr(message, "hush"))
        fail_msg("%s", message);
}

static void test_refusals_say_what_to_do(void **state) {
    (void)state;
    _cleanup_buf_ struct buf url = {0};
    const char *host = getenv("POSTHORN_TEST_STORE");
    host = strstr(host, "host=");
    assert_non_null(host);
    buf_addf(&url, "postgres://postgres:hush@/nowhere?%s", host);
    expect_refusal(url.p, "createdb");
    buf_reset(&url);
    buf_addf(&url, "postgres://nobody-of-that-name:hush@/postgres?%s", host);
    expect_refusal(url.p, "check the user");
    buf_reset(&url);
    buf_addf(&url, "postgres://postgres:hush@/postgres?options=-cdefault_transaction_read_only%%3Don&%s",
             host);
    expect_refusal(url.p, "primary");
    expect_refusal("postgres://postgres:hush@127.0.0.1:1/postgres", "is it running");
    expect_refusal("postgres://postgres:hu%zzsh@127.0.0.1/postgres", "cannot be read");
}

int main(void) {
    const char *url = getenv("POSTHORN_TEST_STORE"), *message = "";
    if (!url || !strstr(url, "postgres"))
        return 77; /* meson's word for: left out */
    if (pg_source_parse(url, &source, &message) < 0) {
        fprintf(stderr, "%s\n", message);
        return 1;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_values_come_back, setup, teardown),
        cmocka_unit_test_setup_teardown(test_columns_are_arrays, setup, teardown),
        cmocka_unit_test_setup_teardown(test_thousands_are_sent_without_waiting, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_failure_voids_the_transaction, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_savepoint_goes_out_with_its_first_statement, setup, teardown),
        cmocka_unit_test_setup_teardown(test_nothing_is_sent_for_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_lost_connection_comes_back, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_was_not_sent_leaves_nothing_for_the_next, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_commit_without_an_answer_says_so, setup, teardown),
        cmocka_unit_test(test_a_server_that_falls_silent_is_given_up),
        cmocka_unit_test_setup_teardown(test_a_statement_that_takes_too_long_is_broken_off, setup, teardown),
        cmocka_unit_test(test_refusals_say_what_to_do),
    };
    int r = cmocka_run_group_tests(tests, NULL, NULL);
    pg_source_free(source);
    return r;
}
