/* What a service manager hears. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "cli/notify.h"

static int listen_at(const char *path) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    strcpy(a.sun_path, path);
    if (path[0] == '@')
        a.sun_path[0] = '\0';
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
    assert_int_equal(bind(fd, (struct sockaddr *)&a, size), 0);
    return fd;
}

static void hear(const char *path) {
    int fd = listen_at(path);
    char text[256] = "";
    assert_int_equal(setenv("NOTIFY_SOCKET", path, 1), 0);
    notify_manager("READY=1");
    assert_true(recv(fd, text, sizeof text - 1, MSG_DONTWAIT) > 0);
    assert_int_equal(strncmp(text, "READY=1\nMONOTONIC_USEC=", 23), 0);
    assert_true(strtoll(text + 23, NULL, 10) > 0);
    close(fd);
}

static void test_both_kinds_of_socket(void **state) {
    (void)state;
    char folder[64] = "/tmp/posthorn-notify-XXXXXX", path[80];
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/socket", folder);
    hear(path);
    assert_true(unlink(path) == 0 && rmdir(folder) == 0);
    snprintf(path, sizeof path, "@posthorn-notify-%d", (int)getpid());
    hear(path);
}

static void test_nobody_listens(void **state) {
    (void)state;
    char long_path[300] = "/";
    memset(long_path + 1, 'x', sizeof long_path - 2);
    const char *const paths[] = {"", "relative", "/no/such/socket", "@nobody-here", long_path};
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        assert_int_equal(setenv("NOTIFY_SOCKET", paths[i], 1), 0);
        notify_manager("READY=1");
    }
    unsetenv("NOTIFY_SOCKET");
    notify_manager("READY=1");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_both_kinds_of_socket),
        cmocka_unit_test(test_nobody_listens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
