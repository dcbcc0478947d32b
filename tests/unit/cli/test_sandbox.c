/* The sandbox, in children of the test that enter it; and becoming another user. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <pthread.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "cli/privileges.h"
#include "cli/sandbox.h"

struct place {
    char root[64], mine[80], theirs[80], readable[96];
};

static void write_file(const char *folder, const char *name, char *ret_path, size_t size) {
    snprintf(ret_path, size, "%s/%s", folder, name);
    int fd = open(ret_path, O_WRONLY | O_CREAT, 0600);
    assert_true(fd >= 0 && write(fd, "x", 1) == 1);
    close(fd);
}

static int setup(void **state) {
    struct place *p = calloc(1, sizeof *p);
    char ignored[128];
    const char *parent = getenv("TMPDIR");
    snprintf(p->root, sizeof p->root, "%.30s/posthorn-sandbox-XXXXXX", parent ? parent : "/tmp");
    assert_non_null(mkdtemp(p->root));
    snprintf(p->mine, sizeof p->mine, "%s/mine", p->root);
    snprintf(p->theirs, sizeof p->theirs, "%s/theirs", p->root);
    assert_true(mkdir(p->mine, 0700) == 0 && mkdir(p->theirs, 0700) == 0);
    write_file(p->mine, "old", ignored, sizeof ignored);
    write_file(p->theirs, "secret", ignored, sizeof ignored);
    write_file(p->theirs, "readable", p->readable, sizeof p->readable);
    *state = p;
    return 0;
}

static int teardown(void **state) {
    struct place *p = *state;
    char command[160];
    snprintf(command, sizeof command, "rm -r '%s'", p->root);
    assert_int_equal(system(command), 0);
    free(p);
    return 0;
}

/* Runs fn in a child; it calls `ok` on what must hold, which ends the child with the line that did not. */
static int in_child(void (*fn)(const struct place *p), const struct place *p) {
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        fn(p);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

#define ok(condition)                                                                                        \
    do {                                                                                                     \
        if (!(condition)) {                                                                                  \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #condition, strerror(errno));             \
            _exit(1);                                                                                        \
        }                                                                                                    \
    } while (0)

/* The kernel cannot do what is tested. */
enum { NOT_HERE = 77 };

static void enter(const struct place *p, unsigned needed) {
    struct sandbox s = {.writable = {p->mine, "/no/such/folder"},
                        .writable_n = 2,
                        .readable = {p->readable},
                        .readable_n = 1};
    unsigned confined = 0;
    ok(sandbox_enter(&s, &confined) == 0);
    if (!(confined & needed))
        _exit(NOT_HERE);
}

static bool opens(const char *folder, const char *name, int flags) {
    char path[160];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    int fd = open(path, flags | O_CLOEXEC, 0600);
    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

static bool refused(bool done) {
    return !done && (errno == EACCES || errno == EPERM || errno == EXDEV);
}

static void use_files(const struct place *p) {
    char from[128], to[128], away[128];
    enter(p, SANDBOX_FILES);
    ok(opens(p->mine, "old", O_RDWR) && opens(p->mine, "new", O_RDWR | O_CREAT) &&
       opens(p->mine, "new", O_WRONLY | O_TRUNC));
    ok(opens(p->mine, ".", O_RDONLY | O_DIRECTORY));
    snprintf(from, sizeof from, "%s/new", p->mine);
    snprintf(to, sizeof to, "%s/newer", p->mine);
    snprintf(away, sizeof away, "%s/away", p->theirs);
    ok(rename(from, to) == 0 && link(to, from) == 0 && unlink(from) == 0);
    ok(refused(rename(to, away) == 0) && unlink(to) == 0);
    ok(opens(p->theirs, "readable", O_RDONLY) && refused(opens(p->theirs, "readable", O_RDWR)));
    ok(refused(opens(p->theirs, "secret", O_RDONLY)) && refused(opens(p->theirs, "secret", O_WRONLY)));
    ok(refused(opens(p->theirs, "new", O_WRONLY | O_CREAT)) && refused(opens(p->theirs, ".", O_RDONLY)));
    ok(refused(mkdir(to, 0700) == 0) && refused(symlink("/etc/passwd", to) == 0) &&
       refused(mkfifo(to, 0600) == 0));
    ok(refused(opens("/etc", "passwd", O_RDONLY)) && refused(opens("/root", ".", O_RDONLY)) &&
       refused(opens("/", "tmp", O_RDONLY)));
    ok(opens("/dev", "urandom", O_RDONLY) && opens("/proc/self", "status", O_RDONLY));
}

static void *nothing(void *arg) {
    return arg;
}

static void use_calls(const struct place *p) {
    char *const none[] = {NULL};
    pthread_t thread;
    enter(p, SANDBOX_CALLS);
    ok(execve("/bin/true", none, none) < 0 && (errno == EPERM || errno == EACCES));
    ok(fork() < 0 && errno == EPERM);
    ok(ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0 && errno == EPERM);
    ok(chroot("/") < 0 && errno == EPERM);
    ok(setuid(getuid()) < 0 && errno == EPERM);
    ok(pthread_create(&thread, NULL, nothing, NULL) == 0 && pthread_join(thread, NULL) == 0);
}

/* What a server does goes on: names, sockets, clocks. */
static void go_on(const struct place *p) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found = NULL;
    enter(p, SANDBOX_FILES | SANDBOX_CALLS);
    ok(getaddrinfo("localhost", "80", &hints, &found) == 0);
    freeaddrinfo(found);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in any = {.sin_family = AF_INET};
    ok(fd >= 0 && bind(fd, (struct sockaddr *)&any, sizeof any) == 0 && listen(fd, 1) == 0);
    close(fd);
}

static void assert_child(void (*fn)(const struct place *p), void **state) {
    int status = in_child(fn, *state);
    if (status == NOT_HERE)
        skip();
    assert_int_equal(status, 0);
}

static void test_files(void **state) {
    assert_child(use_files, state);
}

static void test_calls(void **state) {
#ifdef __SANITIZE_THREAD__
    skip(); /* its run-time makes calls of its own that are refused */
#endif
    assert_child(use_calls, state);
}

static void test_a_server_goes_on(void **state) {
    assert_child(go_on, state);
}

static void test_accounts(void **state) {
    (void)state;
    struct account a;
    assert_int_equal(account_find("no-such-user-here", &a), -ENOENT);
    assert_int_equal(account_find("root", &a), -EINVAL);
    assert_int_equal(account_find("nobody", &a), 0);
    assert_true(a.uid != 0 && a.gid != 0);
    assert_string_equal(a.name, "nobody");
}

static void become_nobody(const struct place *p) {
    (void)p;
    struct account a, other;
    ok(account_find("nobody", &a) == 0 && account_find("daemon", &other) == 0);
    ok(privileges_drop(&a) == 0);
    ok(getuid() == a.uid && geteuid() == a.uid && getgid() == a.gid && getegid() == a.gid);
    ok(setuid(0) < 0 && seteuid(0) < 0 && setgid(0) < 0);
    ok(privileges_drop(&a) == 0 && privileges_drop(&other) == -EPERM);
}

static void test_privileges_are_gone(void **state) {
    if (geteuid() != 0)
        skip();
    assert_int_equal(in_child(become_nobody, *state), 0);
}

int main(void) {
#define PLACE_TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        PLACE_TEST(test_files),
        PLACE_TEST(test_calls),
        PLACE_TEST(test_a_server_goes_on),
        cmocka_unit_test(test_accounts),
        PLACE_TEST(test_privileges_are_gone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
