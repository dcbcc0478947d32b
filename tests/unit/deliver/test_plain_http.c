/* The plain transport against a receiver of the test's own, on loopback, step by step. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "base/clock.h"
#include "deliver/plain_http.h"
#include "deliver/response.h"

enum { LIMIT_US = 60 * 1000000, KEPT_MAX = 2 };

#define ANSWER(status) "HTTP/1.1 " status " x\r\ncontent-length: 0\r\n\r\n"

struct fixture {
    struct loop *loop;
    struct plain_http *http;
    struct address_policy policy;
    struct egress egress;
    int listener;
    uint16_t port;
    uint32_t timeout_ms;
};

struct sent {
    struct client_request r; /* first */
    struct url url;
    int ended;
};

static void ended(void *arg, struct client_request *r) {
    (void)arg;
    response_finish(r);
    ((struct sent *)r)->ended++;
}

static void step_until(struct fixture *f, bool (*met)(void *arg), void *arg) {
    int64_t limit = clock_mono_us() + LIMIT_US;
    while (!met(arg)) {
        assert_true(clock_mono_us() < limit);
        loop_step(f->loop, 5);
    }
}

static bool has_ended(void *arg) {
    return ((struct sent *)arg)->ended > 0;
}

static void *set_up(void) {
    struct fixture *f = calloc(1, sizeof *f);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    assert_non_null(f);
    f->timeout_ms = LIMIT_US / 1000;
    f->listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    assert_int_equal(bind(f->listener, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(listen(f->listener, 16), 0);
    assert_int_equal(getsockname(f->listener, (struct sockaddr *)&a, &n), 0);
    f->port = ntohs(a.sin_port);
    assert_int_equal(address_policy_allow_cidr(&f->policy, SLICE_LIT("127.0.0.0/8")), 0);
    assert_int_equal(address_policy_allow_port(&f->policy, SLICE_LIT("1-65535")), 0);
    assert_int_equal(loop_new(&f->loop), 0);
    f->egress.addresses = &f->policy;
    struct transport_options o = {f->loop, &f->egress, KEPT_MAX, ended, f};
    assert_int_equal(plain_http_new(&o, &f->http), 0);
    return f;
}

static void tear_down(struct fixture *f) {
    plain_http_free(f->http);
    loop_free(f->loop);
    close(f->listener);
    free(f);
}

static struct sockaddr_storage v4(const char *text) {
    struct sockaddr_storage s = {.ss_family = AF_INET};
    assert_int_equal(inet_pton(AF_INET, text, &((struct sockaddr_in *)&s)->sin_addr), 1);
    return s;
}

static int send_to(struct fixture *f, struct sent *s, struct slice body, const char *first,
                   const char *second) {
    char text[64];
    const char *reason;
    struct sockaddr_storage addresses[2] = {v4(first), v4(second ? second : first)};
    snprintf(text, sizeof text, "http://shop.test:%u/hook?x=1", f->port);
    assert_int_equal(url_parse(slice_of(text), &s->url, &reason), 0);
    s->r.url = &s->url;
    s->r.header_lines = SLICE_LIT("webhook-id: dlv_1\r\n");
    s->r.body = body;
    s->r.timeout_ms = f->timeout_ms;
    s->r.started_us = clock_mono_us();
    return plain_http_send(f->http, &s->r, addresses, second ? 2 : 1);
}

static void clear(struct sent *s) {
    client_request_clear(&s->r);
    url_free(&s->url);
    *s = (struct sent){0};
}

struct waiting {
    struct fixture *f;
    int fd;
    char text[4096];
    size_t n;
    const char *until;
};

static bool accepts(void *arg) {
    struct waiting *w = arg;
    w->fd = accept4(w->f->listener, NULL, NULL, SOCK_NONBLOCK);
    return w->fd >= 0;
}

static int accept_one(struct fixture *f) {
    struct waiting w = {.f = f};
    step_until(f, accepts, &w);
    return w.fd;
}

static bool heard_request(void *arg) {
    struct waiting *w = arg;
    ssize_t n = recv(w->fd, w->text + w->n, sizeof w->text - 1 - w->n, 0);
    if (n > 0)
        w->n += (size_t)n;
    w->text[w->n] = '\0';
    return strstr(w->text, w->until) != NULL;
}

static void read_request(struct fixture *f, int fd, struct waiting *w) {
    *w = (struct waiting){.f = f, .fd = fd, .until = "\r\n\r\n{}"};
    step_until(f, heard_request, w);
}

static void answer(int fd, const char *text) {
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

static bool nobody_connects(struct fixture *f) {
    int fd = accept4(f->listener, NULL, NULL, SOCK_NONBLOCK);
    if (fd >= 0)
        close(fd);
    return fd < 0;
}

static bool is_closed(void *arg) {
    char c;
    return recv(*(int *)arg, &c, 1, MSG_DONTWAIT | MSG_PEEK) == 0;
}

/* One request over a connection that is then kept; returns the receiver's end of it. */
static int one_round(struct fixture *f, struct sent *s) {
    struct waiting w;
    assert_int_equal(send_to(f, s, SLICE_LIT("{}"), "127.0.0.1", NULL), 0);
    int fd = accept_one(f);
    read_request(f, fd, &w);
    answer(fd, ANSWER("204"));
    step_until(f, has_ended, s);
    assert_int_equal(s->r.status, 204);
    return fd;
}

/* ---- tests ---- */

static void test_the_request_stands_as_the_standard_says(void **state) {
    (void)state;
    struct fixture *f = set_up();
    struct sent s = {0};
    struct waiting w;
    char expected[256];
    assert_int_equal(send_to(f, &s, SLICE_LIT("{}"), "127.0.0.1", NULL), 0);
    int fd = accept_one(f);
    read_request(f, fd, &w);
    snprintf(
        expected, sizeof expected,
        "POST /hook?x=1 HTTP/1.1\r\nhost: shop.test:%u\r\nwebhook-id: dlv_1\r\ncontent-length: 2\r\n\r\n{}",
        f->port);
    assert_string_equal(w.text, expected);
    answer(fd, "HTTP/1.1 429 x\r\nRetry-After: 7\r\ncontent-length: 2\r\n\r\nno");
    step_until(f, has_ended, &s);
    assert_int_equal(s.r.status, 429);
    assert_int_equal(s.r.error, ATTEMPT_OK);
    assert_true(slice_eq(s.r.retry_after, SLICE_LIT(" 7")));
    assert_true(slice_eq(buf_slice(&s.r.body_kept), SLICE_LIT("no")));
    assert_true(s.r.has_hash);
    clear(&s);
    close(fd);
    tear_down(f);
}

static void test_a_connection_is_kept_and_used_again(void **state) {
    (void)state;
    struct fixture *f = set_up();
    struct sent s = {0};
    struct waiting w;
    int fd = one_round(f, &s);
    clear(&s);
    assert_int_equal(send_to(f, &s, SLICE_LIT("{}"), "127.0.0.1", NULL), 0);
    read_request(f, fd, &w);
    answer(fd, ANSWER("200"));
    step_until(f, has_ended, &s);
    assert_int_equal(s.r.status, 200);
    assert_true(nobody_connects(f));
    clear(&s);
    close(fd);
    tear_down(f);
}

static void test_a_kept_connection_closed_meanwhile_costs_no_attempt(void **state) {
    (void)state;
    struct fixture *f = set_up();
    struct sent s = {0};
    struct waiting w;
    int fd = one_round(f, &s);
    clear(&s);
    close(fd); /* the loop has not heard of it when it sends */
    assert_int_equal(send_to(f, &s, SLICE_LIT("{}"), "127.0.0.1", NULL), 0);
    fd = accept_one(f);
    read_request(f, fd, &w);
    answer(fd, ANSWER("200"));
    step_until(f, has_ended, &s);
    assert_int_equal(s.r.status, 200);
    assert_int_equal(s.ended, 1);
    clear(&s);
    close(fd);
    tear_down(f);
}

static void test_a_new_connection_closed_is_a_reset(void **state) {
    (void)state;
    struct fixture *f = set_up();
    struct sent s = {0};
    struct waiting w;
    assert_int_equal(send_to(f, &s, SLICE_LIT("{}"), "127.0.0.1", NULL), 0);
    int fd = accept_one(f);
    read_request(f, fd, &w);
    close(fd);
    step_until(f, has_ended, &s);
    assert_int_equal(s.r.status, 0);
    assert_int_equal(s.r.error, ATTEMPT_RESET);
    assert_true(nobody_connects(f));
    clear(&s);
    tear_down(f);
}

static void test_bytes_nobody_asked_for_close_a_kept_connection(void **state) {
    (void)state;
    struct fixture *f = set_up();
    struct sent s = {0};
    int fd = one_round(f, &s);
    clear(&s);
    answer(fd, ANSWER("500"));
    step_until(f, is_closed, &fd);
    close(fd);
    fd = one_round(f, &s);
    clear(&s);
    close(fd);
    tear_down(f);
}

static void test_an_answer_with_more_behind_it_ends_the_connection(void **state) {
    (void)state;
    struct fixture *f = set_up();
    struct sent s = {0};
    struct waiting w;
    assert_int_equal(send_to(f, &s, SLICE_LIT("{}"), "127.0.0.1", NULL), 0);
    int fd = accept_one(f);
    read_request(f, fd, &w);
    answer(fd, ANSWER("204") ANSWER("500")); /* the second would answer the next request */
    step_until(f, has_ended, &s);
    assert_int_equal(s.r.status, 204);
    step_until(f, is_closed, &fd);
    clear(&s);
    close(fd);
    tear_down(f);
}

static void test_an_answer_before_the_body_was_taken(void **state) {
    (void)state;
    struct fixture *f = set_up();
    struct sent s = {0};
    size_t n = 16 << 20; /* more than the sockets hold */
    char *large = calloc(1, n);
    assert_non_null(large);
    assert_int_equal(send_to(f, &s, (struct slice){large, n}, "127.0.0.1", NULL), 0);
    int fd = accept_one(f);
    answer(fd, ANSWER("413"));
    step_until(f, has_ended, &s);
    assert_int_equal(s.r.status, 413);
    clear(&s);
    close(fd);
    fd = one_round(f, &s); /* the other connection is not kept */
    clear(&s);
    close(fd);
    free(large);
    tear_down(f);
}

static bool drain(void *arg) {
    struct waiting *w = arg;
    char bytes[65536];
    ssize_t n = recv(w->fd, bytes, sizeof bytes, 0);
    if (n > 0)
        w->n += (size_t)n;
    return w->n >= (8U << 20);
}

static void test_a_large_body_arrives_whole(void **state) {
    (void)state;
    struct fixture *f = set_up();
    struct sent s = {0};
    size_t n = 8 << 20;
    char *large = calloc(1, n);
    assert_non_null(large);
    assert_int_equal(send_to(f, &s, (struct slice){large, n}, "127.0.0.1", NULL), 0);
    struct waiting w = {.f = f, .fd = accept_one(f)};
    step_until(f, drain, &w);
    answer(w.fd, ANSWER("200"));
    step_until(f, has_ended, &s);
    assert_int_equal(s.r.status, 200);
    clear(&s);
    close(w.fd);
    free(large);
    tear_down(f);
}

static void test_the_next_address_is_tried(void **state) {
    (void)state;
    struct fixture *f = set_up();
    struct sent s = {0};
    struct waiting w;
    assert_int_equal(send_to(f, &s, SLICE_LIT("{}"), "127.0.0.2", "127.0.0.1"), 0);
    int fd = accept_one(f);
    read_request(f, fd, &w);
    answer(fd, ANSWER("200"));
    step_until(f, has_ended, &s);
    assert_int_equal(s.r.status, 200);
    assert_int_equal(s.r.error, ATTEMPT_OK);
    clear(&s);
    close(fd);
    tear_down(f);
}

static void test_a_kept_connection_to_another_address_is_left_alone(void **state) {
    (void)state;
    struct fixture *f = set_up();
    struct sent s = {0};
    int fd = one_round(f, &s);
    clear(&s);
    /* The name has moved to an address where nobody listens. */
    if (send_to(f, &s, SLICE_LIT("{}"), "127.0.0.3", NULL) == 0)
        step_until(f, has_ended, &s);
    assert_int_equal(s.r.error, ATTEMPT_CONNECT_REFUSED);
    clear(&s);
    close(fd);
    tear_down(f);
}

static void test_the_guard_judges_at_the_socket(void **state) {
    (void)state;
    struct fixture *f = set_up();
    struct sent s = {0};
    assert_int_not_equal(send_to(f, &s, SLICE_LIT("{}"), "10.0.0.1", "127.0.0.1"), 0);
    assert_int_equal(s.r.error, ATTEMPT_BLOCKED_ADDRESS);
    assert_int_equal(s.ended, 0);
    assert_true(nobody_connects(f));
    clear(&s);
    tear_down(f);
}

static void test_silence_is_a_timeout(void **state) {
    (void)state;
    struct fixture *f = set_up();
    struct sent s = {0};
    struct waiting w;
    f->timeout_ms = 50;
    assert_int_equal(send_to(f, &s, SLICE_LIT("{}"), "127.0.0.1", NULL), 0);
    int fd = accept_one(f);
    read_request(f, fd, &w);
    step_until(f, has_ended, &s);
    assert_int_equal(s.r.error, ATTEMPT_TIMEOUT);
    step_until(f, is_closed, &fd);
    clear(&s);
    close(fd);
    tear_down(f);
}

static void test_no_more_connections_are_kept_than_allowed(void **state) {
    (void)state;
    struct fixture *f = set_up();
    struct sent s[KEPT_MAX + 1] = {0};
    struct waiting w;
    int fd[KEPT_MAX + 1];
    for (int i = 0; i <= KEPT_MAX; i++) {
        assert_int_equal(send_to(f, &s[i], SLICE_LIT("{}"), "127.0.0.1", NULL), 0);
        fd[i] = accept_one(f);
    }
    for (int i = 0; i <= KEPT_MAX; i++) {
        read_request(f, fd[i], &w);
        answer(fd[i], ANSWER("200"));
        step_until(f, has_ended, &s[i]);
    }
    step_until(f, is_closed, &fd[0]); /* the longest idle */
    for (int i = 0; i <= KEPT_MAX; i++) {
        assert_int_equal(is_closed(&fd[i]), i == 0);
        clear(&s[i]);
        close(fd[i]);
    }
    tear_down(f);
}

static void test_a_request_is_dropped(void **state) {
    (void)state;
    struct fixture *f = set_up();
    struct sent s = {0};
    struct waiting w;
    assert_int_equal(send_to(f, &s, SLICE_LIT("{}"), "127.0.0.1", NULL), 0);
    int fd = accept_one(f);
    read_request(f, fd, &w);
    plain_http_cancel(f->http, &s.r);
    step_until(f, is_closed, &fd);
    assert_int_equal(s.ended, 0);
    clear(&s);
    close(fd);
    tear_down(f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_request_stands_as_the_standard_says),
        cmocka_unit_test(test_a_connection_is_kept_and_used_again),
        cmocka_unit_test(test_a_kept_connection_closed_meanwhile_costs_no_attempt),
        cmocka_unit_test(test_a_new_connection_closed_is_a_reset),
        cmocka_unit_test(test_bytes_nobody_asked_for_close_a_kept_connection),
        cmocka_unit_test(test_an_answer_with_more_behind_it_ends_the_connection),
        cmocka_unit_test(test_an_answer_before_the_body_was_taken),
        cmocka_unit_test(test_a_large_body_arrives_whole),
        cmocka_unit_test(test_the_next_address_is_tried),
        cmocka_unit_test(test_a_kept_connection_to_another_address_is_left_alone),
        cmocka_unit_test(test_the_guard_judges_at_the_socket),
        cmocka_unit_test(test_silence_is_a_timeout),
        cmocka_unit_test(test_no_more_connections_are_kept_than_allowed),
        cmocka_unit_test(test_a_request_is_dropped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
