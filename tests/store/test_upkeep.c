/* The store as a whole: copies, their return, and a look at it, with disks that fill and processes that die.
 */
#include "fixture.h"

#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "faulty_vfs.h"
#include "store/upkeep.h"

enum { EVENTS = 40, STEPS_MAX = 2000 };

struct upkeep_fixture {
    struct fixture *f;
    uint32_t tenant, subscription;
    char *copy, *path;
};

static int setup(void **state) {
    struct upkeep_fixture *u = calloc(1, sizeof *u);
    void *f;
    assert_int_equal(fixture_setup(&f), 0);
    u->f = f;
    u->tenant = make_tenant(u->f);
    u->subscription = make_subscription(u->f, u->tenant);
    (void)make_secret(u->f, u->subscription, 's');
    for (int i = 0; i < EVENTS; i++)
        (void)publish(u->f, u->tenant, u->subscription);
    finish_one(u->f, u->tenant, u->subscription, DELIVERY_DELIVERED);
    finish_one(u->f, u->tenant, u->subscription, DELIVERY_DLQ);
    (void)claim_one(u->f, u->tenant, u->subscription);
    assert_true(asprintf(&u->copy, "%s/copy.db", u->f->folder) > 0);
    u->path = fixture_path(u->f);
    *state = u;
    return 0;
}

static int teardown(void **state) {
    struct upkeep_fixture *u = *state;
    void *f = u->f;
    free(u->copy);
    free(u->path);
    free(u);
    return fixture_teardown(&f);
}

/* ---- looking ---- */

static void count_finding(void *arg, const struct store_finding *f) {
    print_message("found: %s: %llu, such as %s\n", f->what, (unsigned long long)f->n, f->example);
    *(uint64_t *)arg += f->n;
}

static uint64_t findings_in(const char *url, struct store_summary *ret) {
    uint64_t n = 0;
    const char *message = "";
    struct store_check how = {.now = INT64_C(1) << 50, .found = count_finding, .arg = &n};
    int r = store_check(url, &how, ret, &message);
    if (r < 0)
        fail_msg("%s: %s", url, message);
    return n;
}

static char *url_of(const char *path) {
    char *url = NULL;
    assert_true(asprintf(&url, "sqlite:%s", path) > 0);
    return url;
}

static void assert_whole(const char *path) {
    char *url = url_of(path);
    struct store_summary s;
    assert_int_equal(findings_in(url, &s), 0);
    assert_int_equal(s.events, EVENTS);
    assert_int_equal(s.deliveries, EVENTS);
    assert_int_equal(s.keys_n, 1);
    free(url);
}

static bool is_there(const char *path, const char *suffix) {
    char *name = NULL;
    assert_true(asprintf(&name, "%s%s", path, suffix) > 0);
    bool there = access(name, F_OK) == 0;
    free(name);
    return there;
}

/* ---- what is made durable ---- */

/* The program's own calls, in place of the library's: what was synced, a file ('f') or a folder ('d'), and
 * what got its name ('r'), in order. */
static char calls[256];
static size_t calls_n;

static void note_call(char what) {
    if (calls_n < sizeof calls - 1)
        calls[calls_n++] = what;
    calls[calls_n] = '\0';
}

int fsync(int fd) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    struct stat st;
    note_call(fstat(fd, &st) == 0 && S_ISDIR(st.st_mode) ? 'd' : 'f');
    return real(fd);
}

int rename(const char *from, const char *to) {
    int (*real)(const char *, const char *) = (int (*)(const char *, const char *))dlsym(RTLD_NEXT, "rename");
    note_call('r');
    return real(from, to);
}

/* A copy is on the disk before it gets its name, and the name before anybody is told. */
static void assert_was_durable(void) {
    assert_true(calls_n >= 3);
    assert_string_equal(calls + calls_n - 3, "frd");
}

/* ---- backup ---- */

static void back_up(struct upkeep_fixture *u) {
    struct store_summary s;
    const char *message = "";
    if (store_backup(u->f->url, u->copy, NULL, NULL, &s, &message) < 0)
        fail_msg("%s", message);
}

static void test_a_copy_of_an_open_store_is_whole(void **state) {
    struct upkeep_fixture *u = *state;
    struct store_summary s;
    const char *message = "";
    begin(u->f); /* a transaction under way holds up nothing, and is not in it */
    (void)make_event(u->f, u->tenant, (struct event_spec){0});
    assert_int_equal(store_backup(u->f->url, u->copy, NULL, NULL, &s, &message), 0);
    commit(u->f);
    assert_int_equal(s.events, EVENTS);
    assert_whole(u->copy);
    assert_false(is_there(u->copy, ".partial"));
    assert_int_equal(store_backup(u->f->url, u->copy, NULL, NULL, &s, &message), -EEXIST);
    assert_non_null(strstr(message, "is there already"));
}

static void test_a_full_disk_leaves_no_copy_and_a_good_store(void **state) {
    struct upkeep_fixture *u = *state;
    unsigned n = 1;
    int r = -ENOSPC;
    for (; r < 0 && n < STEPS_MAX; n += n / 8 + 1) {
        struct store_summary s;
        const char *message = "";
        faulty_vfs_arm((struct fault){.what = FAULT_FULL, .at = n, .stays = true});
        r = store_backup(u->f->url, u->copy, NULL, NULL, &s, &message);
        bool struck = faulty_vfs_disarm();
        assert_int_equal(r < 0, struck);
        assert_int_equal(is_there(u->copy, ""), r == 0);
        assert_false(is_there(u->copy, ".partial"));
    }
    assert_true(n > 10 && r == 0);
    assert_whole(u->copy);
    (void)claim_one(u->f, u->tenant, u->subscription);
}

/* ---- restore ---- */

static int restore(const char *from, const char *path, bool replace) {
    char *url = url_of(path);
    uint64_t n = 0;
    struct store_summary s;
    const char *message = "";
    struct store_check check = {.now = INT64_C(1) << 50, .found = count_finding, .arg = &n};
    struct store_restore how = {.replace = replace, .check = &check};
    int r = store_restore(from, url, &how, &s, &message);
    if (r < 0 && r != -EEXIST)
        print_message("%s\n", message);
    free(url);
    return r;
}

/* In a child that dies at its n-th change of a file; false once it gets through. */
static bool dies_while_restoring(const char *from, const char *path, bool replace, unsigned n) {
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        faulty_vfs_arm((struct fault){.what = FAULT_DIE, .at = n});
        _exit(restore(from, path, replace) == 0 ? 0 : 1);
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

static void assert_start_refused(const char *path) {
    char *url = url_of(path);
    struct store *s = NULL;
    const char *message = "";
    assert_int_equal(store_open(url, &s, &message), -EBUSY);
    assert_non_null(strstr(message, "restore"));
    assert_false(is_there(path, ""));
    free(url);
}

static void test_kill_at_any_step_of_a_restore(void **state) {
    struct upkeep_fixture *u = *state;
    back_up(u);
    bool died = true;
    unsigned n = 1;
    for (; died && n < STEPS_MAX; n += n / 16 + 1) {
        char *path = NULL;
        assert_true(asprintf(&path, "%s/new-%u.db", u->f->folder, n) > 0);
        died = dies_while_restoring(u->copy, path, false, n);
        if (died) {
            assert_start_refused(path);
            assert_int_equal(restore(u->copy, path, false), 0);
        }
        assert_whole(path);
        free(path);
    }
    assert_true(n > 10 && !died);
}

/* A store with one tenant and nothing else. */
static void make_other(const char *path) {
    char *url = url_of(path);
    struct store *s = NULL;
    const char *message = "";
    struct tenant_record t = {
        .id = SLICE_LIT("other"), .doc = SLICE_LIT("{}"), .created_at = 1, .updated_at = 1};
    uint32_t no;
    assert_int_equal(store_open(url, &s, &message), 0);
    assert_int_equal(store_begin(s), 0);
    assert_int_equal(store_insert_tenant(s, &t, &no), 0);
    assert_int_equal(store_commit(s), 0);
    store_close(s);
    free(url);
}

static void test_kill_at_any_step_of_a_replacement(void **state) {
    struct upkeep_fixture *u = *state;
    back_up(u);
    bool died = true;
    unsigned n = 1;
    for (; died && n < STEPS_MAX; n += n / 16 + 1) {
        char *path = NULL;
        assert_true(asprintf(&path, "%s/old-%u.db", u->f->folder, n) > 0);
        make_other(path);
        assert_int_equal(restore(u->copy, path, false), -EEXIST);
        died = dies_while_restoring(u->copy, path, true, n);
        if (died) { /* the old one is there, all of it */
            char *url = url_of(path);
            struct store_summary s;
            assert_int_equal(findings_in(url, &s), 0);
            assert_int_equal(s.tenants, 1);
            assert_int_equal(s.events, 0);
            free(url);
        } else {
            assert_whole(path);
        }
        free(path);
    }
    assert_true(n > 10 && !died);
}

static void test_a_copy_is_durable_before_anybody_is_told(void **state) {
    struct upkeep_fixture *u = *state;
    calls_n = 0;
    back_up(u);
    assert_was_durable();
    char *path = NULL;
    assert_true(asprintf(&path, "%s/new.db", u->f->folder) > 0);
    calls_n = 0;
    assert_int_equal(restore(u->copy, path, false), 0);
    assert_was_durable();
    calls_n = 0;
    assert_int_equal(restore(u->copy, path, true), 0);
    assert_was_durable();
    free(path);
}

static void test_nothing_is_replaced_that_is_open(void **state) {
    struct upkeep_fixture *u = *state;
    back_up(u);
    assert_int_equal(restore(u->copy, u->path, true), -EBUSY); /* by a server */
    char *path = NULL;
    assert_true(asprintf(&path, "%s/read.db", u->f->folder) > 0);
    make_other(path);
    /* By a reader, whose log and index would become the new one's. It is a process of its own: a lock does
     * not count against its own. */
    int ready[2], end[2];
    char byte;
    assert_int_equal(pipe(ready), 0);
    assert_int_equal(pipe(end), 0);
    pid_t child = fork();
    if (child == 0) {
        close(end[1]);
        char *command = NULL;
        if (asprintf(&command, "BEGIN; SELECT count(*) FROM tenants;") < 0)
            _exit(1);
        dup2(end[0], STDIN_FILENO);
        dup2(ready[1], STDOUT_FILENO);
        execlp("sqlite3", "sqlite3", "-batch", "-readonly", "-cmd", command, path, (char *)NULL);
        _exit(1);
    }
    close(end[0]);
    close(ready[1]);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    assert_int_equal(restore(u->copy, path, true), -EBUSY);
    close(end[1]);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(restore(u->copy, path, true), 0);
    assert_whole(path);
    close(ready[0]);
    free(path);
}

int main(void) {
    if (getenv("POSTHORN_TEST_STORE"))
        return 0; /* of the SQLite file alone */
    faulty_vfs_install();
#define UPKEEP_TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        UPKEEP_TEST(test_a_copy_of_an_open_store_is_whole),
        UPKEEP_TEST(test_a_full_disk_leaves_no_copy_and_a_good_store),
        UPKEEP_TEST(test_kill_at_any_step_of_a_restore),
        UPKEEP_TEST(test_kill_at_any_step_of_a_replacement),
        UPKEEP_TEST(test_a_copy_is_durable_before_anybody_is_told),
        UPKEEP_TEST(test_nothing_is_replaced_that_is_open),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
