/* Opening a store in PostgreSQL: the schema, what is refused and with which words, several servers in one
 * URL, poolers. On a server of its own. */
#include "fixture.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "base/clock.h"
#include "own_server.h"
#include "store/postgres/postgres.h"
#include "store/schema/schema.h"
#include "store/upkeep.h"

static char server[OWN_SERVER_MAX];

/* Of a database on the server; made anew when `fresh` is set. */
static char *url_of(const char *database, bool fresh) {
    char *url = own_server_url(server, database), *sql = NULL;
    if (fresh) {
        char *any = own_server_url(server, "postgres");
        assert_true(asprintf(&sql, "DROP DATABASE IF EXISTS %s WITH (FORCE)", database) > 0);
        run_sql(any, sql);
        free(sql);
        assert_true(asprintf(&sql, "CREATE DATABASE %s", database) > 0);
        run_sql(any, sql);
        free(sql);
        free(any);
    }
    return url;
}

static void assert_opens(const char *url) {
    struct store *s = NULL;
    const char *message = "";
    if (store_open(url, &s, &message) < 0)
        fail_msg("%s", message);
    store_close(s);
}

static void assert_refused(const char *url, int error, const char *words) {
    struct store *s = NULL;
    const char *message = "";
    int r = store_open(url, &s, &message);
    if (r == 0)
        store_close(s);
    if (r != error || !strstr(message, words) || strstr(message, "hush"))
        fail_msg("%d: %s", r, message);
}

/* ---- the schema ---- */

static void test_a_new_database_gets_the_schema(void **state) {
    (void)state;
    _cleanup_free_ char *url = url_of("new", true);
    size_t from = 9, to = 0;
    const char *message = "";
    assert_int_equal(store_migrate(url, &from, &to, &message), 0);
    assert_int_equal(from, 0);
    assert_int_equal(to, postgres_migrations_n);
    assert_int_equal(store_migrate(url, &from, &to, &message), 0);
    assert_int_equal(from, postgres_migrations_n);
    assert_opens(url);
}

/* A database that is spread over machines by tenant finds a tenant's rows together: only what belongs to no
 * tenant, or may, has another key. */
static void test_keys_carry_the_tenant(void **state) {
    (void)state;
    _cleanup_free_ char *url = url_of("keys", true);
    assert_opens(url);
    assert_int_equal(
        number_of(url,
                  "SELECT count(*) FROM pg_class c JOIN pg_index i ON i.indrelid=c.oid AND i.indisprimary"
                  " JOIN pg_attribute a ON a.attrelid=c.oid AND a.attnum=i.indkey[0]"
                  " WHERE c.relnamespace='public'::regnamespace AND NOT c.relispartition"
                  " AND a.attname<>'tenant' AND c.relname NOT IN ('api_keys', 'audit', 'marks', 'nodes',"
                  " 'partitions', 'seal_keys', 'server_keys', 'source_notes', 'tenants', 'workers')"),
        0);
    assert_true(number_of(url, "SELECT count(*) FROM pg_index i JOIN pg_class c ON c.oid=i.indrelid"
                               " WHERE i.indisprimary AND c.relnamespace='public'::regnamespace") > 20);
}

/* Whatever the database is set to, a commit that was answered is on its disk. */
static void test_commits_are_durable(void **state) {
    (void)state;
    _cleanup_free_ char *url = url_of("durable", true);
    run_sql(url, "ALTER DATABASE durable SET synchronous_commit=off");
    assert_int_equal(number_of(url, "SELECT (current_setting('synchronous_commit')='on')::int"), 1);
    run_sql(
        url,
        "ALTER DATABASE durable SET synchronous_commit=local"); /* on the disk, by choice not on others' */
    assert_int_equal(number_of(url, "SELECT (current_setting('synchronous_commit')='local')::int"), 1);
}

static void test_many_may_start_at_once(void **state) {
    (void)state;
    enum { STARTS = 6 };
    _cleanup_free_ char *url = url_of("crowd", true);
    pid_t children[STARTS];
    fflush(NULL);
    for (size_t i = 0; i < STARTS; i++) {
        children[i] = fork();
        assert_true(children[i] >= 0);
        if (children[i] == 0) {
            struct store *s = NULL;
            const char *message = "";
            _exit(store_open(url, &s, &message) == 0 ? 0 : 1);
        }
    }
    for (size_t i = 0; i < STARTS; i++) {
        int status = 1;
        assert_int_equal(waitpid(children[i], &status, 0), children[i]);
        assert_int_equal(status, 0);
    }
    assert_int_equal(number_of(url, "SELECT version FROM posthorn_schema"), (int64_t)postgres_migrations_n);
    assert_int_equal(number_of(url, "SELECT count(*) FROM posthorn_schema"), 1);
}

static void set_schema(const char *url, size_t version, size_t runs_from) {
    char sql[128];
    snprintf(sql, sizeof sql, "UPDATE posthorn_schema SET version=%zu, runs_from=%zu", version, runs_from);
    run_sql(url, sql);
}

/* ---- schemas of before ---- */

#define OLD_DOC "{\"headers\":{\"x-key\":\"k\"},\"url\":\"u\"}"
static const char first_rows[] =
    "INSERT INTO tenants (no, id, doc, created_at, updated_at) VALUES (3, 'acme', '{}', 1, 1);"
    "INSERT INTO subscriptions (tenant, no, key, tail, status, doc, created_at, updated_at)"
    " VALUES (3, 5, 50, 51, 0, '" OLD_DOC "', 1, 1);"
    "INSERT INTO attempts (tenant, event, subscription, number, started_at, settled_at, to_state, latency_ms,"
    " dns_ms, connect_ms, tls_ms, wait_ms, error, trigger, worker, url, content_type, request_headers)"
    " VALUES (3, 70, 5, 1, 1, 1, 3, 1, 1, 1, 1, 1, 0, 0, 1, '', '', 'x-key: k');"
    "INSERT INTO server_keys (name, bytes) VALUES ('receipts', 'kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk');"
    "INSERT INTO keys_to_release (subscription, lane_key) VALUES (5, 9);";

static void make_version(const char *url, size_t version) {
    run_sql(url, "CREATE TABLE posthorn_schema (version integer NOT NULL, runs_from integer NOT NULL);"
                 "INSERT INTO posthorn_schema VALUES (0, 0)");
    for (size_t i = 0; i < version; i++) {
        run_sql(url, postgres_migrations[i]);
        if (i == 0)
            run_sql(url, first_rows);
    }
    set_schema(url, version, postgres_runs_from[version - 1]);
}

static int is_old_doc(void *arg, const struct subscription_record *row) {
    (void)arg;
    assert_true(slice_eq(row->doc, SLICE_LIT(OLD_DOC)));
    return 7;
}

static int is_old_attempt(void *arg, const struct attempt_row *row) {
    (void)arg;
    assert_true(slice_eq(row->attempt.request_headers, SLICE_LIT("x-key: k")));
    return 7;
}

static void test_a_store_of_every_earlier_version_opens_with_its_rows(void **state) {
    (void)state;
    /* In schemas of later versions nothing can have been left in clear. */
    for (size_t version = 1; version < 3; version++) {
        _cleanup_free_ char *url = url_of("earlier", true);
        struct store *s = NULL;
        struct store_reader *r = NULL;
        const char *message = "";
        uint8_t key[32];
        make_version(url, version);
        if (store_open(url, &s, &message) < 0)
            fail_msg("%s", message);
        fixture_unlock(s);
        assert_int_equal(store_reader_open(s, &r), 0);
        assert_int_equal(store_each_subscription(r, is_old_doc, NULL), 7);
        assert_int_equal(store_list_attempts(r, 3, 70, 5, is_old_attempt, NULL), 7);
        assert_int_equal(store_begin(s), 0);
        assert_int_equal(store_server_key(s, "receipts", (const uint8_t[32]){0}, key), 0);
        assert_memory_equal(key, "kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk", sizeof key);
        store_rollback(s);
        store_reader_close(r);
        store_close(s);
        assert_int_equal(number_of(url, "SELECT count(*) FROM marks"), 0);
        assert_int_equal(
            number_of(url, "SELECT count(*) FROM subscriptions WHERE doc LIKE '%x-key%' OR headers IS NULL"),
            0);
        assert_int_equal(
            number_of(url, "SELECT count(*) FROM attempts WHERE request_headers_clear IS NOT NULL"), 0);
    }
}

static void test_a_neighbouring_version_may_run_beside(void **state) {
    (void)state;
    size_t known = postgres_migrations_n;
    _cleanup_free_ char *url = url_of("newer", true);
    assert_opens(url);
    set_schema(url, known + 1, known);
    assert_opens(url);
    set_schema(url, known + 1, known + 1);
    assert_refused(url, -EPROTONOSUPPORT, "newer posthorn");
    set_schema(url, known + 2, known);
    assert_refused(url, -EPROTONOSUPPORT, "newer posthorn");
    /* Nothing was changed by it. */
    assert_int_equal(number_of(url, "SELECT version FROM posthorn_schema"), (int64_t)known + 2);
}

/* A node that knows only an older schema would not understand the new one. */
static void test_nodes_of_an_older_version_are_to_stop_first(void **state) {
    (void)state;
    _cleanup_free_ char *url = url_of("running", true);
    make_version(url, 1);
    run_sql(
        url,
        "INSERT INTO nodes (slot, name, version, roles, tiers, lease_until, started_at)"
        " VALUES (5, 'old', '0', 7, 7, (extract(epoch from clock_timestamp()) * 1000)::bigint + 600000, 1)");
    assert_refused(url, -EBUSY, "stop them first");
    assert_int_equal(number_of(url, "SELECT version FROM posthorn_schema"), 1);
    run_sql(url, "UPDATE nodes SET lease_until=1");
    assert_opens(url);
    assert_int_equal(number_of(url, "SELECT version FROM posthorn_schema"), (int64_t)postgres_migrations_n);
}

static void test_a_migration_that_fails_leaves_nothing(void **state) {
    (void)state;
    _cleanup_free_ char *url = url_of("strange", true);
    run_sql(url, "CREATE TABLE tenants (mine integer)");
    assert_refused(url, -EUCLEAN, "tables of another program");
    assert_int_equal(
        number_of(url, "SELECT count(*) FROM pg_class WHERE relnamespace='public'::regnamespace"), 1);
    run_sql(url, "CREATE SCHEMA own");
    _cleanup_free_ char *apart = NULL;
    assert_true(asprintf(&apart, "%s&options=-csearch_path%%3Down", url) > 0);
    assert_opens(apart);
}

/* ---- refusals ---- */

static void test_a_user_without_rights_is_told(void **state) {
    (void)state;
    _cleanup_free_ char *url = url_of("rights", true), *poor = NULL;
    run_sql(url, "DROP ROLE IF EXISTS poor");
    run_sql(url, "CREATE ROLE poor LOGIN");
    assert_true(asprintf(&poor, "postgres://poor:hush@/rights?host=%s", server) > 0);
    assert_refused(poor, -EIO, "make it the owner of the database");
}

static void test_a_database_in_another_encoding_is_refused(void **state) {
    (void)state;
    _cleanup_free_ char *any = own_server_url(server, "postgres"), *url = own_server_url(server, "ascii");
    run_sql(any, "DROP DATABASE IF EXISTS ascii");
    run_sql(any, "CREATE DATABASE ascii ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0");
    assert_refused(url, -EINVAL, "UTF8");
}

static void test_urls_that_are_none(void **state) {
    (void)state;
    assert_refused("postgres:", -EINVAL, "postgres://");
    assert_refused("postgres://me:hush%zz@/db", -EINVAL, "postgres://");
    assert_refused("mysql://me:hush@/db", -EINVAL, "mysql");
    assert_refused("postgresql://me:hush@127.0.0.1:1/db?connect_timeout=2", -EIO, "is it running");
}

static void test_copies_are_postgresqls_business(void **state) {
    (void)state;
    _cleanup_free_ char *url = own_server_url(server, "postgres");
    const char *message = "";
    struct store_summary summary;
    struct store_restore how = {0};
    assert_int_equal(store_backup(url, "/nowhere", NULL, NULL, &summary, &message), -EOPNOTSUPP);
    assert_non_null(strstr(message, "pg_dump"));
    assert_int_equal(store_restore("/nowhere", url, &how, &summary, &message), -EOPNOTSUPP);
    assert_non_null(strstr(message, "pg_restore"));
}

/* ---- several servers ---- */

static void test_the_primary_is_found_among_several(void **state) {
    (void)state;
    char standby[OWN_SERVER_MAX];
    own_server_tool("standby", server, standby, sizeof standby);
    _cleanup_free_ char *both = NULL, *alone = NULL, *made = url_of("several", true);
    assert_opens(made);
    assert_true(asprintf(&both, "postgres://postgres@/several?host=/nowhere,%s,%s", standby, server) > 0);
    assert_true(asprintf(&alone, "postgres://postgres@/postgres?host=%s", standby) > 0);
    assert_opens(both);
    assert_refused(alone, -EIO, "let the URL name the primary");
    own_server_tool("remove", standby, NULL, 0);
}

/* ---- poolers ---- */

/* The socket is there before anybody listens on it. */
static bool is_listening(const char *path) {
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    int n = snprintf(at.sun_path, sizeof at.sun_path, "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0 && n < (int)sizeof at.sun_path);
    bool listening = connect(fd, (struct sockaddr *)&at, sizeof at) == 0;
    close(fd);
    return listening;
}

static pid_t start_pooler(const char *folder, const char *mode) {
    _cleanup_free_ char *path = NULL;
    assert_true(asprintf(&path, "%s/pgbouncer.ini", folder) > 0);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fprintf(f,
            "[databases]\n* = host=%s user=postgres\n[pgbouncer]\nlisten_addr =\nunix_socket_dir = "
            "%s\nlisten_port = 5432\n"
            "auth_type = any\npool_mode = %s\nignore_startup_parameters = options\n"
            "unix_socket_mode = 0777\n",
            server, folder, mode);
    fclose(f);
    assert_int_equal(chmod(folder, 0777), 0);
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        /* It does not run as root; and it goes with us, also when a test fails. */
        enum { NOBODY = 65534 };
        if (geteuid() == 0 && (setgid(NOBODY) < 0 || setuid(NOBODY) < 0))
            _exit(126);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        execlp("pgbouncer", "pgbouncer", "-q", path, (char *)NULL);
        _exit(127);
    }
    _cleanup_free_ char *path_of_socket = NULL;
    assert_true(asprintf(&path_of_socket, "%s/.s.PGSQL.5432", folder) > 0);
    int64_t until = clock_mono_us() + 60000000;
    while (!is_listening(path_of_socket)) {
        assert_true(clock_mono_us() < until);
        assert_int_equal(waitpid(child, NULL, WNOHANG), 0);
        usleep(10000);
    }
    return child;
}

static void remove_pooler(pid_t child, const char *folder) {
    kill(child, SIGTERM);
    assert_int_equal(waitpid(child, NULL, 0), child);
    _cleanup_free_ char *path = NULL;
    assert_true(asprintf(&path, "%s/pgbouncer.ini", folder) > 0);
    unlink(path);
    rmdir(folder);
}

static void with_pooler(const char *mode, void (*look)(const char *url)) {
    if (system("command -v pgbouncer >/dev/null") != 0)
        skip();
    _cleanup_free_ char *made = url_of("pooled", true), *url = NULL;
    assert_opens(made);
    char *folder = folder_make();
    pid_t child = start_pooler(folder, mode);
    assert_true(asprintf(&url, "postgres://postgres@/pooled?connect_timeout=30&host=%s", folder) > 0);
    look(url);
    remove_pooler(child, folder);
    free(folder);
}

static void refuses_it(const char *url) {
    assert_refused(url, -EINVAL, "pool_mode = session");
}

static void test_a_pooler_by_transaction_is_refused(void **state) {
    (void)state;
    with_pooler("transaction", refuses_it);
}

static void test_a_pooler_by_session_will_do(void **state) {
    (void)state;
    with_pooler("session", assert_opens);
}

int main(void) {
    if (!getenv("POSTHORN_TEST_STORE"))
        return 77; /* meson's word for: left out */
    own_server_start(server);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_new_database_gets_the_schema),
        cmocka_unit_test(test_keys_carry_the_tenant),
        cmocka_unit_test(test_commits_are_durable),
        cmocka_unit_test(test_many_may_start_at_once),
        cmocka_unit_test(test_a_neighbouring_version_may_run_beside),
        cmocka_unit_test(test_a_store_of_every_earlier_version_opens_with_its_rows),
        cmocka_unit_test(test_nodes_of_an_older_version_are_to_stop_first),
        cmocka_unit_test(test_a_migration_that_fails_leaves_nothing),
        cmocka_unit_test(test_a_user_without_rights_is_told),
        cmocka_unit_test(test_a_database_in_another_encoding_is_refused),
        cmocka_unit_test(test_urls_that_are_none),
        cmocka_unit_test(test_copies_are_postgresqls_business),
        cmocka_unit_test(test_the_primary_is_found_among_several),
        cmocka_unit_test(test_a_pooler_by_transaction_is_refused),
        cmocka_unit_test(test_a_pooler_by_session_will_do),
    };
    int r = cmocka_run_group_tests(tests, NULL, NULL);
    own_server_tool("remove", server, NULL, 0);
    return r;
}
