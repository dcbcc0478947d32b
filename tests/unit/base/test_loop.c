#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/loop.h"

enum { WAIT_LIMIT_MS = 60000, MESSAGES = 1000, SENDERS = 4, RECORD_MAX = 16 };

/* Steps until *flag is at least `wanted`. */
static void step_until(struct loop *l, const int *flag, int wanted) {
    int64_t limit = clock_mono_us() + WAIT_LIMIT_MS * INT64_C(1000);
    while (*flag < wanted) {
        assert_true(clock_mono_us() < limit);
        loop_step(l, 100);
    }
}

static int setup(void **state) {
    return loop_new((struct loop **)state);
}

static int teardown(void **state) {
    loop_free(*state);
    return 0;
}

/* ---- descriptors ---- */

struct reader {
    struct loop_watch watch;
    struct loop *loop;
    struct reader *clears, *frees;
    int calls;
};

static void on_readable(struct loop_watch *w, uint32_t events) {
    struct reader *r = (struct reader *)w;
    char byte;
    assert_true(events & EPOLLIN);
    assert_int_equal(read(w->fd, &byte, 1), 1);
    r->calls++;
    if (r->clears)
        loop_watch_clear(r->loop, &r->clears->watch);
    if (r->frees) {
        loop_watch_clear(r->loop, &r->frees->watch);
        free(r->frees);
        r->frees = NULL;
    }
}

static struct reader reader_of(struct loop *l) {
    return (struct reader){.watch = {.fn = on_readable, .fd = -1}, .loop = l};
}

static void make_pipe(int fds[2]) {
    assert_int_equal(pipe2(fds, O_CLOEXEC | O_NONBLOCK), 0);
}

static void write_byte(int fd) {
    assert_int_equal(write(fd, "x", 1), 1);
}

static void close_pipe(const int fds[2]) {
    close(fds[0]);
    close(fds[1]);
}

static void test_watch(void **state) {
    struct loop *l = *state;
    struct reader r = reader_of(l);
    int fds[2];
    make_pipe(fds);
    assert_int_equal(loop_watch_set(l, &r.watch, fds[0], EPOLLIN), 0);
    assert_int_equal(loop_watch_set(l, &r.watch, fds[0], EPOLLIN), 0);
    loop_step(l, 0);
    assert_int_equal(r.calls, 0);
    write_byte(fds[1]);
    step_until(l, &r.calls, 1);
    loop_watch_clear(l, &r.watch);
    loop_watch_clear(l, &r.watch);
    assert_int_equal(r.watch.fd, -1);
    write_byte(fds[1]);
    loop_step(l, 0);
    assert_int_equal(r.calls, 1);
    assert_int_equal(loop_watch_set(l, &r.watch, fds[0], EPOLLIN), 0);
    step_until(l, &r.calls, 2);
    close_pipe(fds);
}

static void test_watch_without_events_is_cleared_too(void **state) {
    struct loop *l = *state;
    struct reader r = reader_of(l);
    int fds[2];
    make_pipe(fds);
    assert_int_equal(loop_watch_set(l, &r.watch, fds[0], EPOLLIN), 0);
    assert_int_equal(loop_watch_set(l, &r.watch, fds[0], 0), 0);
    write_byte(fds[1]);
    loop_step(l, 0);
    assert_int_equal(r.calls, 0);
    loop_watch_clear(l, &r.watch);
    assert_int_equal(r.watch.fd, -1);
    close(fds[1]); /* a hang-up would be told even to a watch without events */
    loop_step(l, 0);
    assert_int_equal(r.calls, 0);
    close(fds[0]);
}

static void test_watch_moves_to_another_descriptor(void **state) {
    struct loop *l = *state;
    struct reader r = reader_of(l);
    int first[2], second[2];
    make_pipe(first);
    make_pipe(second);
    assert_int_equal(loop_watch_set(l, &r.watch, first[0], EPOLLIN), 0);
    assert_int_equal(loop_watch_set(l, &r.watch, second[0], EPOLLIN), 0);
    write_byte(first[1]);
    write_byte(second[1]);
    step_until(l, &r.calls, 1);
    loop_step(l, 0);
    assert_int_equal(r.calls, 1); /* the first is not watched any more */
    close_pipe(first);
    close_pipe(second);
}

static void test_watch_of_a_closed_descriptor(void **state) {
    struct loop *l = *state;
    struct reader r = reader_of(l);
    int fds[2];
    make_pipe(fds);
    close(fds[0]);
    assert_int_equal(loop_watch_set(l, &r.watch, fds[0], EPOLLIN), -EBADF);
    assert_int_equal(r.watch.fd, -1);
    close(fds[1]);
}

/* Both are ready in one round; whichever is called first clears the other. */
static void test_clearing_another_in_the_same_round(void **state) {
    struct loop *l = *state;
    struct reader a = reader_of(l), b = reader_of(l);
    int fds_a[2], fds_b[2];
    a.clears = &b;
    b.clears = &a;
    make_pipe(fds_a);
    make_pipe(fds_b);
    assert_int_equal(loop_watch_set(l, &a.watch, fds_a[0], EPOLLIN), 0);
    assert_int_equal(loop_watch_set(l, &b.watch, fds_b[0], EPOLLIN), 0);
    write_byte(fds_a[1]);
    write_byte(fds_b[1]);
    loop_step(l, WAIT_LIMIT_MS);
    loop_step(l, 0);
    assert_int_equal(a.calls + b.calls, 1);
    close_pipe(fds_a);
    close_pipe(fds_b);
}

static void test_freeing_another_in_the_same_round(void **state) {
    struct loop *l = *state;
    struct reader *a = malloc(sizeof *a), *b = malloc(sizeof *b);
    assert_non_null(a);
    assert_non_null(b);
    *a = reader_of(l);
    *b = reader_of(l);
    a->frees = b;
    b->frees = a;
    int fds_a[2], fds_b[2];
    make_pipe(fds_a);
    make_pipe(fds_b);
    assert_int_equal(loop_watch_set(l, &a->watch, fds_a[0], EPOLLIN), 0);
    assert_int_equal(loop_watch_set(l, &b->watch, fds_b[0], EPOLLIN), 0);
    write_byte(fds_a[1]);
    write_byte(fds_b[1]);
    loop_step(l, WAIT_LIMIT_MS);
    loop_step(l, 0);
    char byte;
    bool b_is_left = read(fds_a[0], &byte, 1) == 1; /* then a was freed unread */
    free(b_is_left ? b : a);
    close_pipe(fds_a);
    close_pipe(fds_b);
}

/* ---- timers ---- */

struct alarm {
    struct loop_timer timer;
    struct loop *loop;
    int name, *record, *n;
    int again; /* how many times it arms itself anew, at once */
};

static void on_alarm(struct loop_timer *t) {
    struct alarm *a = (struct alarm *)t;
    if (a->record && *a->n < RECORD_MAX)
        a->record[*a->n] = a->name;
    ++*a->n;
    if (a->again-- > 0)
        loop_timer_set(a->loop, t, 0);
}

static void test_timers_in_order(void **state) {
    struct loop *l = *state;
    int record[RECORD_MAX], n = 0;
    struct alarm alarms[4];
    static const int64_t after_us[] = {3000, 1000, 2000, 1000};
    int64_t now = clock_mono_us();
    for (int i = 0; i < 4; i++) {
        alarms[i] = (struct alarm){.timer.fn = on_alarm, .loop = l, .name = i, .record = record, .n = &n};
        loop_timer_set(l, &alarms[i].timer, now + after_us[i]);
    }
    step_until(l, &n, 4);
    assert_true(clock_mono_us() >= now + 3000);
    static const int expected[] = {1, 3, 2, 0};
    assert_memory_equal(record, expected, sizeof expected);
}

static void test_timer_moved_and_cleared(void **state) {
    struct loop *l = *state;
    int n = 0, record[RECORD_MAX];
    int64_t now = clock_mono_us(), far = now + INT64_C(3600000000);
    struct alarm a = {.timer.fn = on_alarm, .loop = l, .name = 1, .record = record, .n = &n};
    struct alarm b = {.timer.fn = on_alarm, .loop = l, .name = 2, .record = record, .n = &n};
    loop_timer_set(l, &a.timer, far);
    loop_timer_set(l, &b.timer, now);
    loop_timer_set(l, &a.timer, now);
    loop_timer_clear(l, &b.timer);
    loop_timer_clear(l, &b.timer);
    step_until(l, &n, 1);
    loop_step(l, 0);
    assert_int_equal(n, 1);
    assert_int_equal(record[0], 1);
}

static void test_a_timer_shortens_the_wait(void **state) {
    struct loop *l = *state;
    int n = 0;
    struct alarm a = {.timer.fn = on_alarm, .loop = l, .n = &n};
    loop_timer_set(l, &a.timer, clock_mono_us() + 2000);
    for (int i = 0; i < 10 && n == 0; i++)
        loop_step(l, -1);
    assert_int_equal(n, 1);
}

static void test_timers_do_not_starve_descriptors(void **state) {
    struct loop *l = *state;
    int n = 0;
    struct alarm a = {.timer.fn = on_alarm, .loop = l, .n = &n, .again = INT32_MAX};
    struct reader r = reader_of(l);
    int fds[2];
    make_pipe(fds);
    assert_int_equal(loop_watch_set(l, &r.watch, fds[0], EPOLLIN), 0);
    loop_timer_set(l, &a.timer, 0);
    loop_step(l, 0);
    write_byte(fds[1]);
    step_until(l, &r.calls, 1);
    loop_timer_clear(l, &a.timer);
    close_pipe(fds);
}

/* ---- messages ---- */

struct letter {
    struct loop_message message;
    int sender, number, *next_of_sender, *count;
};

static void on_letter(struct loop_message *m) {
    struct letter *letter = (struct letter *)m;
    assert_int_equal(letter->number, letter->next_of_sender[letter->sender]++);
    ++*letter->count;
    free(letter);
}

struct sender {
    struct loop *loop;
    int name, *next_of_sender, *count;
    pthread_t thread;
};

static void *send_letters(void *arg) {
    struct sender *s = arg;
    for (int i = 0; i < MESSAGES; i++) {
        struct letter *letter = malloc(sizeof *letter);
        CHECK(letter);
        *letter = (struct letter){.message.fn = on_letter,
                                  .sender = s->name,
                                  .number = i,
                                  .next_of_sender = s->next_of_sender,
                                  .count = s->count};
        loop_post(s->loop, &letter->message);
    }
    return NULL;
}

static void test_messages_of_many_threads(void **state) {
    struct loop *l = *state;
    int next_of_sender[SENDERS] = {0}, count = 0;
    struct sender senders[SENDERS];
    for (int i = 0; i < SENDERS; i++) {
        senders[i] = (struct sender){.loop = l, .name = i, .next_of_sender = next_of_sender, .count = &count};
        assert_int_equal(pthread_create(&senders[i].thread, NULL, send_letters, &senders[i]), 0);
    }
    step_until(l, &count, SENDERS * MESSAGES);
    for (int i = 0; i < SENDERS; i++)
        pthread_join(senders[i].thread, NULL);
    loop_step(l, 0);
    assert_int_equal(count, SENDERS * MESSAGES);
}

struct reposter {
    struct loop_message message;
    struct loop *loop;
    int left, calls;
};

static void on_repost(struct loop_message *m) {
    struct reposter *r = (struct reposter *)m;
    r->calls++;
    if (r->left-- > 0)
        loop_post(r->loop, m);
}

static void test_a_message_posted_by_a_message_comes_later(void **state) {
    struct loop *l = *state;
    struct reposter r = {.message.fn = on_repost, .loop = l, .left = 2};
    loop_post(l, &r.message);
    loop_step(l, WAIT_LIMIT_MS);
    assert_int_equal(r.calls, 1);
    step_until(l, &r.calls, 3);
}

/* ---- running ---- */

struct run {
    struct loop *loop;
    struct loop_message message;
    int messages, waits;
};

static void on_run_message(struct loop_message *m) {
    struct run *r = (struct run *)(void *)((char *)m - offsetof(struct run, message));
    r->messages++;
}

static void before_wait(void *arg) {
    struct run *r = arg;
    if (r->waits++ == 0)
        loop_post(r->loop, &r->message);
    if (r->messages == 1)
        loop_stop(r->loop);
}

static void *stop_loop(void *loop) {
    loop_stop(loop);
    return NULL;
}

static void test_run_until_stopped(void **state) {
    struct run r = {.loop = *state, .message.fn = on_run_message};
    struct reposter wake = {.message.fn = on_repost, .loop = *state};
    loop_post(*state, &wake.message);
    loop_run(*state, before_wait, &r);
    assert_int_equal(r.messages, 1);
    assert_true(r.waits >= 2);
}

static void test_stop_from_another_thread(void **state) {
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, stop_loop, *state), 0);
    loop_run(*state, NULL, NULL);
    pthread_join(thread, NULL);
    loop_run(*state, NULL, NULL); /* stays stopped */
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_watch),
        TEST(test_watch_without_events_is_cleared_too),
        TEST(test_watch_moves_to_another_descriptor),
        TEST(test_watch_of_a_closed_descriptor),
        TEST(test_clearing_another_in_the_same_round),
        TEST(test_freeing_another_in_the_same_round),
        TEST(test_timers_in_order),
        TEST(test_timer_moved_and_cleared),
        TEST(test_a_timer_shortens_the_wait),
        TEST(test_timers_do_not_starve_descriptors),
        TEST(test_messages_of_many_threads),
        TEST(test_a_message_posted_by_a_message_comes_later),
        TEST(test_run_until_stopped),
        TEST(test_stop_from_another_thread),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
