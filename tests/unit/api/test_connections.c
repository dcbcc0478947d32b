/* Which connections are cut off, and when: by phase, on a real loop. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>

#include "api/connections.h"

enum { WAIT_LIMIT_MS = 60000, SHORT_MS = 1, LONG_MS = 3600000 };

struct fixture {
    struct loop *loop;
    struct connections *connections;
    int theirs[2]; /* a socket pair: the client's end, and the server's */
    struct connection_watch *watch;
};

static void start(struct fixture *f, struct connection_limits limits) {
    assert_int_equal(loop_new(&f->loop), 0);
    assert_int_equal(connections_new(f->loop, &limits, &f->connections), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, f->theirs), 0);
    f->watch = connections_enter(f->connections, f->theirs[1]);
    assert_non_null(f->watch);
}

static void end(struct fixture *f) {
    connections_leave(f->connections, f->watch);
    connections_free(f->connections);
    loop_free(f->loop);
    close(f->theirs[0]);
    close(f->theirs[1]);
}

static bool is_cut(const struct fixture *f) {
    struct pollfd p = {.fd = f->theirs[0], .events = POLLIN};
    return poll(&p, 1, 0) == 1;
}

static void wait_until_cut(struct fixture *f) {
    for (int waited = 0; !is_cut(f); waited += CONNECTIONS_LOOK_MS) {
        assert_true(waited < WAIT_LIMIT_MS);
        loop_step(f->loop, CONNECTIONS_LOOK_MS);
    }
}

/* Looks at least twice. */
static void assert_not_cut(struct fixture *f) {
    for (int i = 0; i < 3; i++)
        loop_step(f->loop, CONNECTIONS_LOOK_MS + 10);
    assert_false(is_cut(f));
}

static void test_each_phase_has_its_limit(void **state) {
    (void)state;
    for (int phase = 0; phase < CONNECTION_PHASES; phase++) {
        struct fixture f;
        struct connection_limits limits = {.ms = {LONG_MS, LONG_MS, LONG_MS, LONG_MS, LONG_MS}};
        limits.ms[phase] = SHORT_MS;
        start(&f, limits);
        connections_phase(f.connections, f.watch, (enum connection_phase)phase);
        wait_until_cut(&f);
        end(&f);
    }
}

static void test_who_keeps_to_the_limits_is_left_alone(void **state) {
    (void)state;
    struct fixture f;
    struct connection_limits limits = {.ms = {[CONNECTION_HEAD] = LONG_MS, [CONNECTION_BODY] = SHORT_MS}};
    start(&f, limits);
    assert_not_cut(&f);
    connections_phase(f.connections, f.watch, CONNECTION_BODY);
    connections_phase(f.connections, f.watch, CONNECTION_WORK); /* without a limit */
    assert_not_cut(&f);
    end(&f);
}

static void test_a_head_that_begins_late_has_its_own_limit(void **state) {
    (void)state;
    struct fixture f;
    struct connection_limits limits = {.ms = {[CONNECTION_HEAD] = SHORT_MS, [CONNECTION_IDLE] = LONG_MS}};
    start(&f, limits);
    connections_phase(f.connections, f.watch, CONNECTION_IDLE);
    assert_not_cut(&f);
    connections_head_begins(f.connections, f.watch);
    wait_until_cut(&f);
    end(&f);
}

/* The second request line in one head, so to speak, gives no more time. */
static void test_beginning_again_gives_no_more_time(void **state) {
    (void)state;
    struct fixture f;
    struct connection_limits limits = {.ms = {[CONNECTION_HEAD] = LONG_MS, [CONNECTION_BODY] = SHORT_MS}};
    start(&f, limits);
    connections_phase(f.connections, f.watch, CONNECTION_BODY);
    connections_head_begins(f.connections, f.watch);
    wait_until_cut(&f);
    end(&f);
}

static void test_those_that_left_are_not_touched(void **state) {
    (void)state;
    struct fixture f;
    struct connection_limits limits = {.ms = {[CONNECTION_HEAD] = SHORT_MS}};
    start(&f, limits);
    struct connection_watch *others[3];
    for (size_t i = 0; i < 3; i++)
        assert_non_null(others[i] = connections_enter(f.connections, -1));
    connections_leave(f.connections, f.watch);
    f.watch = NULL;
    connections_leave(f.connections, others[1]);
    assert_not_cut(&f);
    connections_leave(f.connections, others[2]);
    connections_leave(f.connections, others[0]);
    connections_leave(f.connections, NULL);
    connections_phase(f.connections, NULL, CONNECTION_BODY);
    connections_head_begins(f.connections, NULL);
    end(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_phase_has_its_limit),
        cmocka_unit_test(test_who_keeps_to_the_limits_is_left_alone),
        cmocka_unit_test(test_a_head_that_begins_late_has_its_own_limit),
        cmocka_unit_test(test_beginning_again_gives_no_more_time),
        cmocka_unit_test(test_those_that_left_are_not_touched),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
