#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <poll.h>
#include <semaphore.h>
#include <sys/socket.h>
#include <time.h>

#include "api/side.h"

enum { WAIT_SECONDS = 60 };

struct judging {
    struct side_lookup lookup; /* first */
    sem_t done;
    const char *refused;
};

static void judged(struct side_lookup *l, const char *refused) {
    struct judging *j = (struct judging *)l;
    j->refused = refused;
    sem_post(&j->done);
}

static const char *judge(const struct address_policy *policy, const char *host) {
    struct side *side;
    struct judging j = {.lookup = {.port = 80, .done = judged}};
    struct timespec until;
    strcpy(j.lookup.host, host);
    sem_init(&j.done, 0, 0);
    assert_int_equal(side_start(policy, NULL, &side), 0);
    side_judge(side, &j.lookup);
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += WAIT_SECONDS;
    assert_int_equal(sem_timedwait(&j.done, &until), 0);
    side_stop(side);
    sem_destroy(&j.done);
    return j.refused;
}

/* The hosts file knows localhost: no name server is asked. */
static void test_name_of_a_refused_address(void **state) {
    (void)state;
    struct address_policy closed = {0};
    const char *refused = judge(&closed, "localhost");
    assert_non_null(refused);
    assert_non_null(strstr(refused, "loopback"));
}

static void test_name_of_an_allowed_address(void **state) {
    (void)state;
    struct address_policy open = {0};
    assert_int_equal(address_policy_allow_cidr(&open, SLICE_LIT("127.0.0.0/8")), 0);
    assert_int_equal(address_policy_allow_cidr(&open, SLICE_LIT("::1")), 0);
    assert_null(judge(&open, "localhost"));
}

/* RFC 6761: never resolves; and it takes at most SIDE_LOOKUP_MS to find that out. */
static void test_name_that_does_not_resolve(void **state) {
    (void)state;
    struct address_policy closed = {0};
    assert_null(judge(&closed, "no-such-name.invalid"));
}

/* Waits until the other end has closed. */
static void assert_closes(int fd) {
    struct pollfd p = {.fd = fd, .events = POLLRDHUP};
    assert_int_equal(poll(&p, 1, WAIT_SECONDS * 1000), 1);
}

static void test_a_lingering_sender_is_heard_out(void **state) {
    (void)state;
    struct address_policy closed = {0};
    struct side *side;
    int pair[2];
    static char bytes[65536];
    assert_int_equal(side_start(&closed, NULL, &side), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    side_linger(side, pair[1]);
    /* Far more than the socket's buffers hold: somebody reads. */
    for (int i = 0; i < 200; i++)
        assert_int_equal(send(pair[0], bytes, sizeof bytes, MSG_NOSIGNAL), sizeof bytes);
    assert_int_equal(shutdown(pair[0], SHUT_WR), 0);
    assert_closes(pair[0]);
    close(pair[0]);
    side_stop(side);
}

static void test_lingers_are_bounded(void **state) {
    (void)state;
    struct address_policy closed = {0};
    struct side *side;
    int here[SIDE_LINGERS_MAX + 1];
    assert_int_equal(side_start(&closed, NULL, &side), 0);
    for (int i = 0; i <= SIDE_LINGERS_MAX; i++) {
        int pair[2];
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
        here[i] = pair[0];
        side_linger(side, pair[1]);
    }
    assert_closes(here[SIDE_LINGERS_MAX]);
    struct pollfd first = {.fd = here[0], .events = POLLRDHUP};
    assert_int_equal(poll(&first, 1, 0), 0);
    /* A stop cuts them all. */
    side_stop(side);
    for (int i = 0; i <= SIDE_LINGERS_MAX; i++) {
        assert_closes(here[i]);
        close(here[i]);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_name_of_a_refused_address),
        cmocka_unit_test(test_name_of_an_allowed_address),
        cmocka_unit_test(test_name_that_does_not_resolve),
        cmocka_unit_test(test_a_lingering_sender_is_heard_out),
        cmocka_unit_test(test_lingers_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
