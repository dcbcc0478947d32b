/* What the store makes of a PostgreSQL that fails, on a server that tests/tools/postgres starts for it alone.
 */
#include "fixture.h"

#include <errno.h>
#include <string.h>
#include <sys/wait.h>

#include "base/clock.h"
#include "middleman.h"
#include "own_server.h"
#include "store/postgres/postgres.h"

static char server[OWN_SERVER_MAX];

struct faults {
    struct fixture *f;
    struct middleman *m;
    uint32_t worker;
};

static int setup(void **state) {
    struct faults *t = calloc(1, sizeof *t);
    if (fixture_setup((void **)&t->f) < 0)
        return -1;
    fixture_close(t->f);
    t->m = middleman_start(t->f->url);
    char *straight = t->f->url;
    t->f->url = strdup(middleman_url(t->m));
    fixture_open(t->f);
    free(t->f->url);
    t->f->url = straight;
    /* From here on it is a node. */
    begin(t->f);
    assert_int_equal(store_register_worker(t->f->store, "host:1", "posthorn/1", t->f->now, &t->worker), 0);
    commit(t->f);
    *state = t;
    return 0;
}

static int teardown(void **state) {
    struct faults *t = *state;
    fixture_close(t->f);
    middleman_stop(t->m);
    fixture_open(t->f);
    fixture_teardown((void **)&t->f);
    free(t);
    return 0;
}

static struct pg *writer_of(struct faults *t) {
    return &pg_of(t->f->store)->writer;
}

/* On another connection, straight to the server. */
static int64_t ask(struct faults *t, const char *sql) {
    return number_of(t->f->url, sql);
}

static void end_sessions(struct faults *t) {
    (void)ask(t, "SELECT count(pg_terminate_backend(pid, 60000)) FROM pg_stat_activity"
                 " WHERE application_name='posthorn' AND pid<>pg_backend_pid()");
}

/* Writes a tenant without a commit. */
static void write_tenant(struct faults *t, const char *id) {
    uint32_t no = 0;
    struct tenant_record record = {
        .id = slice_of(id), .doc = SLICE_LIT("{}"), .created_at = 1, .updated_at = 1};
    begin(t->f);
    assert_int_equal(store_insert_tenant(t->f->store, &record, &no), 0);
}

static int64_t tenants(struct faults *t) {
    return ask(t, "SELECT count(*) FROM tenants");
}

static void commit_another(struct faults *t) {
    int64_t before = tenants(t);
    write_tenant(t, "another");
    commit(t->f);
    assert_int_equal(tenants(t), before + 1);
}

/* ---- sessions that end ---- */

static void test_a_session_that_ends_between_transactions_is_not_noticed(void **state) {
    struct faults *t = *state;
    end_sessions(t);
    commit_another(t);
    assert_int_equal(store_reader_ping(t->f->reader), 0);
}

static void test_a_session_that_ends_within_a_transaction_voids_it(void **state) {
    struct faults *t = *state;
    write_tenant(t, "one");
    end_sessions(t);
    uint32_t no = 0;
    struct tenant_record two = {
        .id = SLICE_LIT("two"), .doc = SLICE_LIT("{}"), .created_at = 1, .updated_at = 1};
    assert_int_equal(store_insert_tenant(t->f->store, &two, &no), -EIO);
    assert_int_equal(store_commit(t->f->store), -EIO);
    rollback(t->f);
    assert_int_equal(tenants(t), 0);
    commit_another(t);
}

static void test_a_reader_comes_back(void **state) {
    struct faults *t = *state;
    write_tenant(t, "one");
    commit(t->f);
    end_sessions(t);
    assert_int_equal(store_reader_ping(t->f->reader), 0);
}

/* ---- commits whose answer is lost ---- */

static void test_a_commit_that_took_place_is_known_without_its_answer(void **state) {
    struct faults *t = *state;
    write_tenant(t, "one");
    middleman_set(t->m, SWALLOW_ANSWERS);
    commit(t->f);
    assert_int_equal(tenants(t), 1);
    commit_another(t);
}

static void test_a_commit_that_did_not_arrive_fails(void **state) {
    struct faults *t = *state;
    write_tenant(t, "one");
    middleman_set(t->m, SWALLOW_REQUEST);
    assert_int_equal(store_commit(t->f->store), -EIO);
    rollback(t->f);
    assert_int_equal(tenants(t), 0);
    commit_another(t);
}

static void test_a_commit_that_arrives_after_it_was_given_up_is_refused(void **state) {
    struct faults *t = *state;
    write_tenant(t, "one");
    middleman_set(t->m, HOLD_REQUEST);
    assert_int_equal(store_commit(t->f->store), -EIO);
    rollback(t->f);
    middleman_release(t->m);
    assert_int_equal(tenants(t), 0);
    commit_another(t);
}

/* ---- the server ---- */

static void test_a_server_that_restarts_is_found_again(void **state) {
    struct faults *t = *state;
    write_tenant(t, "one");
    own_server_tool("stop", server, NULL, 0);
    assert_int_equal(store_commit(t->f->store), -EIO);
    rollback(t->f);
    assert_int_equal(store_begin(t->f->store), -EIO); /* at once */
    assert_int_equal(store_reader_ping(t->f->reader), -EIO);
    own_server_tool("again", server, NULL, 0);
    /* The backoff has a limit. */
    int64_t until = clock_mono_us() + 60000000;
    int r;
    while ((r = store_begin(t->f->store)) < 0)
        assert_true(clock_mono_us() < until);
    store_rollback(t->f->store);
    commit_another(t);
    while ((r = store_reader_ping(t->f->reader)) < 0)
        assert_true(clock_mono_us() < until);
}

static void test_a_lock_that_is_not_given_up_fails_the_transaction(void **state) {
    struct faults *t = *state;
    write_tenant(t, "one");
    commit(t->f);
    struct pg *c = writer_of(t);
    begin(t->f);
    assert_int_equal(pg_send(c, "SET LOCAL statement_timeout=100"), 0);
    /* Another node sits on the row. */
    _cleanup_pg_source_ struct pg_source *source = NULL;
    const char *message = "";
    struct pg other;
    assert_int_equal(pg_source_parse(t->f->url, &source, &message), 0);
    pg_init(&other, source, &pg_usual_limits);
    assert_int_equal(pg_connect(&other, &message), 0);
    pg_begin(&other);
    assert_int_equal(pg_query(&other, "SELECT no FROM tenants FOR UPDATE", NULL), 0);
    assert_int_equal(store_update_tenant(t->f->store, 1, SLICE_LIT("{\"a\":1}"), 2), -EIO);
    assert_string_equal(c->sqlstate, "57014");
    rollback(t->f);
    pg_rollback(&other);
    pg_close(&other);
    commit_another(t);
}

/* ---- nodes ---- */

static void expect_end_at_commit(struct faults *t) {
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        write_tenant(t, "one");
        (void)!store_commit(t->f->store);
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 75);
    assert_int_equal(tenants(t), 0);
    end_sessions(t); /* the child has used this one */
}

static void test_a_node_that_was_declared_dead_writes_nothing_and_ends(void **state) {
    struct faults *t = *state;
    (void)ask(t, "UPDATE nodes SET epoch=epoch+1 RETURNING 1");
    expect_end_at_commit(t);
}

/* As after a failover to a standby that had not got it all, or when a backup was restored. */
static void test_a_node_whose_commits_are_gone_writes_nothing_and_ends(void **state) {
    struct faults *t = *state;
    (void)ask(t, "UPDATE nodes SET commit_seq=commit_seq-1 RETURNING 1");
    expect_end_at_commit(t);
}

static void test_every_commit_renews_the_lease(void **state) {
    struct faults *t = *state;
    (void)ask(t, "UPDATE nodes SET lease_until=1 RETURNING 1");
    commit_another(t);
    assert_int_equal(ask(t, "SELECT count(*) FROM nodes WHERE lease_until>" PG_NOW " + 5000"), 1);
}

static void test_what_a_frozen_node_has_locked_is_free_before_its_lease_ends(void **state) {
    struct faults *t = *state;
    static const char held[] = "SELECT count(*) FROM pg_stat_activity WHERE state='idle in transaction'";
    static const char limit[] =
        "SELECT setting::int FROM pg_settings WHERE name='idle_in_transaction_session_timeout'";
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    begin(t->f);
    assert_int_equal(pg_set_lease(pg_of(t->f->store), 1000), 0);
    assert_int_equal(pg_query_row(writer_of(t), limit, &rows), 1);
    assert_in_range(pg_column_int(&rows, 0), 1, 999);
    commit(t->f);
    write_tenant(t, "one");
    assert_int_equal(pg_wait(writer_of(t)), 0);
    int64_t until = clock_mono_us() + 60000000;
    while (ask(t, held) > 0)
        assert_true(clock_mono_us() < until);
    assert_int_equal(store_commit(t->f->store), -EIO);
    rollback(t->f);
    commit_another(t);
}

static void test_a_node_that_stops_leaves_nothing_behind(void **state) {
    struct faults *t = *state;
    (void)ask(t, "UPDATE partitions SET node=(SELECT no FROM nodes) WHERE no<9 RETURNING 1");
    assert_int_equal(ask(t, "SELECT count(*) FROM partitions WHERE node IS NOT NULL"), 27);
    fixture_close(t->f);
    assert_int_equal(ask(t, "SELECT count(*) FROM nodes"), 0);
    assert_int_equal(ask(t, "SELECT count(*) FROM partitions WHERE node IS NOT NULL"), 0);
    fixture_open(t->f);
}

static void test_changes_are_told_to_others(void **state) {
    struct faults *t = *state;
    int64_t before = ask(t, "SELECT count(*) FROM changes");
    write_tenant(t, "one");
    rollback(t->f);
    assert_int_equal(ask(t, "SELECT count(*) FROM changes"), before);
    write_tenant(t, "one");
    commit(t->f);
    assert_int_equal(ask(t, "SELECT count(*) FROM changes c JOIN nodes n ON n.no=c.node WHERE c.kind=1"), 1);
}

int main(void) {
    if (!getenv("POSTHORN_TEST_STORE"))
        return 77; /* meson's word for: left out */
    own_server_start(server);
    _cleanup_free_ char *url = own_server_url(server, "postgres");
    setenv("POSTHORN_TEST_STORE", url, 1);
#define FAULT_TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        FAULT_TEST(test_a_session_that_ends_between_transactions_is_not_noticed),
        FAULT_TEST(test_a_session_that_ends_within_a_transaction_voids_it),
        FAULT_TEST(test_a_reader_comes_back),
        FAULT_TEST(test_a_commit_that_took_place_is_known_without_its_answer),
        FAULT_TEST(test_a_commit_that_did_not_arrive_fails),
        FAULT_TEST(test_a_commit_that_arrives_after_it_was_given_up_is_refused),
        FAULT_TEST(test_a_server_that_restarts_is_found_again),
        FAULT_TEST(test_a_lock_that_is_not_given_up_fails_the_transaction),
        FAULT_TEST(test_a_node_that_was_declared_dead_writes_nothing_and_ends),
        FAULT_TEST(test_a_node_whose_commits_are_gone_writes_nothing_and_ends),
        FAULT_TEST(test_every_commit_renews_the_lease),
        FAULT_TEST(test_what_a_frozen_node_has_locked_is_free_before_its_lease_ends),
        FAULT_TEST(test_a_node_that_stops_leaves_nothing_behind),
        FAULT_TEST(test_changes_are_told_to_others),
    };
    int r = cmocka_run_group_tests(tests, NULL, fixture_end);
    own_server_tool("remove", server, NULL, 0);
    return r;
}
