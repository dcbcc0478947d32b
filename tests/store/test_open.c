/* Opening the SQLite store: the lock, the schema, and files that are not what they should be. */
#include "fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sqlite3.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "faulty_vfs.h"
#include "store/schema/schema.h"

struct place {
    char *folder, *path, *url;
};

static int place_setup(void **state) {
    struct place *p = calloc(1, sizeof *p);
    p->folder = folder_make();
    assert_true(asprintf(&p->path, "%s/posthorn.db", p->folder) > 0);
    assert_true(asprintf(&p->url, "sqlite:%s", p->path) > 0);
    *state = p;
    return 0;
}

static int place_teardown(void **state) {
    struct place *p = *state;
    folder_remove(p->folder);
    free(p->folder);
    free(p->path);
    free(p->url);
    free(p);
    return 0;
}

static struct store *open_at(const char *url) {
    struct store *s = NULL;
    const char *message = "";
    if (store_open(url, &s, &message) < 0)
        fail_msg("%s: %s", url, message);
    return s;
}

static void assert_refused(const char *url, int error, const char *part_of_message) {
    struct store *s = NULL;
    const char *message = NULL;
    int r = store_open(url, &s, &message);
    if (r != error)
        fail_msg("%s gives %d, not %d (%s)", url, r, error, message ? message : "no message");
    assert_null(s);
    assert_non_null(message);
    if (!strstr(message, part_of_message))
        fail_msg("\"%s\" lacks \"%s\"", message, part_of_message);
}

static void run_sql(const char *path, const char *sql) {
    sqlite3 *db;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static void write_file(const char *path, const char *bytes, size_t n) {
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, n), n);
    close(fd);
}

static uint32_t insert_tenant(struct store *s, const char *id) {
    struct tenant_record t = {
        .id = slice_of(id), .doc = SLICE_LIT("{}"), .created_at = 1000, .updated_at = 1000};
    uint32_t no = 0;
    assert_int_equal(store_begin(s), 0);
    assert_int_equal(store_insert_tenant(s, &t, &no), 0);
    assert_int_equal(store_commit(s), 0);
    return no;
}

static void test_what_was_committed_is_there_after_a_restart(void **state) {
    struct place *p = *state;
    struct store *s = open_at(p->url);
    uint32_t no = insert_tenant(s, "acme");
    store_close(s);
    s = open_at(p->url);
    struct tenant_record t;
    assert_int_equal(store_begin(s), 0);
    assert_int_equal(store_get_tenant(s, no, &t), 0);
    assert_true(slice_eq(t.id, SLICE_LIT("acme")));
    store_rollback(s);
    store_close(s);
}

static void test_urls(void **state) {
    struct place *p = *state;
    assert_refused("mysql://localhost/x", -EINVAL, "mysql");
    assert_refused("sqlite:", -EINVAL, "sqlite:");
    assert_refused("", -EINVAL, "store");
    char *nowhere = NULL;
    assert_true(asprintf(&nowhere, "sqlite:%s/no/such/folder.db", p->folder) > 0);
    assert_refused(nowhere, -ENOENT, "no/such/folder.db");
    free(nowhere);
}

static void test_files_are_private(void **state) {
    struct place *p = *state;
    mode_t before = umask(0);
    struct store *s = open_at(p->url);
    insert_tenant(s, "acme");
    static const char *const suffixes[] = {"", "-wal", "-shm", ".lock"};
    for (size_t i = 0; i < COUNT(suffixes); i++) {
        char *path = NULL;
        struct stat st;
        assert_true(asprintf(&path, "%s%s", p->path, suffixes[i]) > 0);
        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(st.st_mode & 0777, 0600);
        free(path);
    }
    umask(before);
    store_close(s);
}

/* ---- the lock ---- */

static void test_second_process_is_refused(void **state) {
    struct place *p = *state;
    int ready[2], end[2];
    assert_int_equal(pipe(ready), 0);
    assert_int_equal(pipe(end), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    char byte = 0;
    if (child == 0) {
        close(end[1]);
        struct store *s = NULL;
        const char *message = NULL;
        if (store_open(p->url, &s, &message) < 0)
            _exit(1);
        if (write(ready[1], "r", 1) != 1 || read(end[0], &byte, 1) != 0)
            _exit(2);
        _exit(0); /* dies with the store open */
    }
    close(end[0]);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    char expected[128];
    snprintf(expected, sizeof expected, "another posthorn runs on this data folder (pid %ld)", (long)child);
    assert_refused(p->url, -EBUSY, expected);
    close(end[1]);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    close(ready[0]);
    close(ready[1]);
    store_close(open_at(p->url));
}

static void test_second_opening_is_refused(void **state) {
    struct place *p = *state;
    struct store *s = open_at(p->url);
    assert_refused(p->url, -EBUSY, "choose another --data");
    store_close(s);
    store_close(open_at(p->url));
}

/* ---- the schema ---- */

static void test_newer_schema_is_refused(void **state) {
    struct place *p = *state;
    store_close(open_at(p->url));
    run_sql(p->path, "PRAGMA user_version=4711");
    assert_refused(p->url, -EPROTONOSUPPORT, "newer posthorn");
    assert_refused(p->url, -EPROTONOSUPPORT, "4711");
}

static void test_other_programs_database_is_refused(void **state) {
    struct place *p = *state;
    run_sql(p->path, "CREATE TABLE notes (t TEXT); INSERT INTO notes VALUES ('mine')");
    assert_refused(p->url, -EUCLEAN, "another program");
    run_sql(p->path, "PRAGMA user_version=1");
    assert_refused(p->url, -EUCLEAN, "another program");
    run_sql(p->path, "UPDATE notes SET t='still mine'");
}

static void test_what_is_no_database_is_refused(void **state) {
    struct place *p = *state;
    char text[4096];
    memset(text, 'x', sizeof text);
    write_file(p->path, text, sizeof text);
    assert_refused(p->url, -EUCLEAN, "backup");
    /* A header that is right, and nothing behind it. */
    memset(text, 0, sizeof text);
    memcpy(text, "SQLite format 3\0\x10\0\1\1\0\x40\x20\x20", 24);
    write_file(p->path, text, 512);
    assert_refused(p->url, -EUCLEAN, "backup");
}

/* As a user that may read it alone; root may write everything, and so becomes another for a moment. */
static void test_what_cannot_be_written_is_refused(void **state) {
    enum { NOBODY = 65534 };
    struct place *p = *state;
    _cleanup_free_ char *lock = NULL;
    assert_true(asprintf(&lock, "%s.lock", p->path) > 0);
    store_close(open_at(p->url));
    const char *const all[] = {p->path, lock, p->folder};
    for (size_t i = 0; geteuid() == 0 && i < 3; i++)
        assert_int_equal(chown(all[i], NOBODY, (gid_t)-1), 0);
    uid_t self = geteuid();
    if (self == 0)
        assert_int_equal(seteuid(NOBODY), 0);
    if (faccessat(AT_FDCWD, p->folder, W_OK, AT_EACCESS) < 0) { /* a TMPDIR that is root's alone */
        assert_int_equal(seteuid(self), 0);
        skip();
    }
    assert_int_equal(chmod(p->path, 0400), 0);
    assert_refused(p->url, -EACCES, "posthorn.db cannot be written: Permission denied");
    assert_int_equal(chmod(p->path, 0600), 0);
    assert_int_equal(chmod(p->folder, 0500), 0);
    assert_refused(p->url, -EACCES, "cannot be written: Permission denied");
    assert_int_equal(chmod(p->folder, 0700), 0);
    store_close(open_at(p->url));
    assert_int_equal(seteuid(self), 0);
}

static void test_empty_file_becomes_a_store(void **state) {
    struct place *p = *state;
    write_file(p->path, "", 0);
    struct store *s = open_at(p->url);
    insert_tenant(s, "acme");
    store_close(s);
}

/* ---- stores of earlier versions ---- */

/* What the first version held: tenant 3, its subscription 5, an event with a job that is not done and two
 * deliveries, one dead and one to be tried again. */
static const char first_rows[] =
    "INSERT INTO tenants (no, id, doc, created_at, updated_at) VALUES (3, 'acme', '{}', 1, 1);"
    "INSERT INTO subscriptions (no, key, tail, tenant, status, doc, created_at, updated_at)"
    " VALUES (5, 50, 51, 3, 0, '{}', 1, 1), (6, 60, 61, 3, 0, '{}', 1, 1);"
    "INSERT INTO events (key, tail, tenant, type, schema_version, data_size, deliveries, has_job, body)"
    " VALUES (70, 71, 3, 'a.b', '1', 1, 0, 1, x'7b7d');"
    "INSERT INTO fanout_jobs VALUES (70, 3, 6, 9, 2, 1);"
    "INSERT INTO deliveries (event, subscription, tenant, state, attempts, reason, due_at, order_at, "
    "window_at)"
    " VALUES (70, 5, 3, 4, 24, 1, NULL, 1, 1), (70, 6, 3, 2, 1, NULL, 9, 1, 1);";

static void make_version(const char *path, size_t version) {
    char stamp[80];
    for (size_t i = 0; i < version; i++) {
        run_sql(path, sqlite_migrations[i]);
        if (i == 0)
            run_sql(path, first_rows);
    }
    snprintf(stamp, sizeof stamp, "PRAGMA user_version=%zu; PRAGMA application_id=0x706f7374", version);
    run_sql(path, stamp);
}

static int count_dead(void *arg, const struct dlq_count_row *row) {
    assert_true(row->subscription_no == 5 && row->reason == REASON_ATTEMPTS_EXHAUSTED);
    *(uint64_t *)arg += row->n;
    return 0;
}

static void assert_first_rows(struct store *s) {
    struct store_reader *r = NULL;
    struct fanout_job jobs[4];
    struct lane_due due[4];
    size_t n = 0;
    uint64_t pending = 0, dlq = 0, dead = 0, last = 0;
    assert_int_equal(store_reader_open(s, &r), 0);
    assert_int_equal(store_count_deliveries(r, &pending, &dlq), 0);
    assert_true(pending == 1 && dlq == 1);
    assert_int_equal(store_list_dlq_counts(r, 3, 0, 0, count_dead, &dead), 0);
    assert_int_equal(dead, 1);
    store_reader_close(r);
    assert_int_equal(store_list_jobs(s, 0, jobs, 4, &n), 0);
    assert_true(n == 1 && jobs[0].event_key == 70 && jobs[0].cursor == 6 && jobs[0].upper == 9);
    assert_int_equal(store_list_lanes_due(s, 0, due, 4, &n), 0);
    assert_true(n == 1 && due[0].subscription_no == 6 && due[0].due_at == 9);
    assert_int_equal(store_last_key(s, &last), 0);
    assert_int_equal(last, 70);
}

static void test_a_store_of_every_earlier_version_opens_with_its_rows(void **state) {
    struct place *p = *state;
    for (size_t version = 1; version <= sqlite_migrations_n; version++) {
        char path[256], url[272];
        snprintf(path, sizeof path, "%s/of-%zu.db", p->folder, version);
        snprintf(url, sizeof url, "sqlite:%s", path);
        make_version(path, version);
        struct store *s = open_at(url);
        assert_first_rows(s);
        store_close(s);
    }
}

/* ---- killed while the schema is made ---- */

/* In a child that dies at its n-th change of a file; false once it gets through. */
static bool dies_while_opening(const char *url, unsigned n) {
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        faulty_vfs_arm((struct fault){.what = FAULT_DIE, .at = n});
        struct store *s = NULL;
        const char *message = NULL;
        _exit(store_open(url, &s, &message) == 0 ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    if (WIFEXITED(status)) {
        assert_int_equal(WEXITSTATUS(status), 0);
        return false;
    }
    assert_int_equal(WTERMSIG(status), SIGKILL);
    return true;
}

static void test_kill_at_any_step_of_a_migration(void **state) {
    struct place *p = *state;
    enum { STEPS_MAX = 500 };
    unsigned n = 1;
    for (bool died = true; died && n < STEPS_MAX; n++) {
        char *path = NULL, *url = NULL;
        assert_true(asprintf(&path, "%s/at-%u.db", p->folder, n) > 0);
        assert_true(asprintf(&url, "sqlite:%s", path) > 0);
        died = dies_while_opening(url, n);
        struct store *s = open_at(url);
        insert_tenant(s, "acme");
        store_close(s);
        free(path);
        free(url);
    }
    assert_true(n > 20 && n < STEPS_MAX);
}

/* A store of an earlier program, with a row that every migration has to keep. */
static void make_old_store(const char *path, size_t version) {
    sqlite3 *db;
    char *stamp = NULL;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "PRAGMA journal_mode=WAL", NULL, NULL, NULL), SQLITE_OK);
    for (size_t i = 0; i < version; i++)
        assert_int_equal(sqlite3_exec(db, sqlite_migrations[i], NULL, NULL, NULL), SQLITE_OK);
    assert_true(
        asprintf(&stamp,
                 "PRAGMA application_id=%d; PRAGMA user_version=%zu; INSERT INTO tenants (no, id, doc,"
                 " created_at, updated_at) VALUES (1, 'old', '{}', 1, 1); INSERT INTO deliveries (event,"
                 " subscription, tenant, state, order_at, window_at, reason, closed_at)"
                 " VALUES (1, 1, 1, 4, 1, 1, 1, 1)",
                 0x706f7374, version) > 0);
    assert_int_equal(sqlite3_exec(db, stamp, NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    free(stamp);
}

static void test_kill_at_any_step_of_an_upgrade(void **state) {
    struct place *p = *state;
    enum { STEPS_MAX = 500, OLD = 6 };
    unsigned n = 1;
    for (bool died = true; died && n < STEPS_MAX; n++) {
        char *path = NULL, *url = NULL;
        assert_true(asprintf(&path, "%s/old-%u.db", p->folder, n) > 0);
        assert_true(asprintf(&url, "sqlite:%s", path) > 0);
        make_old_store(path, OLD);
        died = dies_while_opening(url, n);
        struct store *s = open_at(url);
        struct tenant_record t;
        assert_int_equal(store_begin(s), 0);
        assert_int_equal(store_get_tenant(s, 1, &t), 0);
        assert_true(slice_eq(t.id, SLICE_LIT("old")));
        store_rollback(s);
        store_close(s);
        run_sql(path,
                "CREATE TEMP TABLE one (n CHECK (n=1));"
                "INSERT INTO one SELECT count(*) FROM deliveries; INSERT INTO one SELECT n FROM dlq_counts");
        free(path);
        free(url);
    }
    assert_true(n > 10 && n < STEPS_MAX);
}

int main(void) {
    if (getenv("POSTHORN_TEST_STORE"))
        return 0; /* of the SQLite file alone */
    faulty_vfs_install();
#define PLACE_TEST(fn) cmocka_unit_test_setup_teardown(fn, place_setup, place_teardown)
    const struct CMUnitTest tests[] = {
        PLACE_TEST(test_what_was_committed_is_there_after_a_restart),
        PLACE_TEST(test_urls),
        PLACE_TEST(test_files_are_private),
        PLACE_TEST(test_second_process_is_refused),
        PLACE_TEST(test_second_opening_is_refused),
        PLACE_TEST(test_newer_schema_is_refused),
        PLACE_TEST(test_other_programs_database_is_refused),
        PLACE_TEST(test_what_is_no_database_is_refused),
        PLACE_TEST(test_what_cannot_be_written_is_refused),
        PLACE_TEST(test_empty_file_becomes_a_store),
        PLACE_TEST(test_a_store_of_every_earlier_version_opens_with_its_rows),
        PLACE_TEST(test_kill_at_any_step_of_a_migration),
        PLACE_TEST(test_kill_at_any_step_of_an_upgrade),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
