#include "base/loop.h"

#include <errno.h>
#include <pthread.h>
#include <sys/eventfd.h>

#include "base/clock.h"

enum { EVENTS_A_WAIT = 256, TIMERS_A_ROUND = 1024 };

struct loop {
    int epoll_fd;
    struct loop_watch wake;
    struct heap timers;
    /* What this round has yet to hand out. */
    struct epoll_event *pending;
    int pending_n;
    atomic_bool stopping;
    void **doomed; /* freed at the end of the round */
    size_t doomed_n, doomed_cap;
    /* Only the mailbox is shared between threads. */
    pthread_mutex_t lock;
    struct loop_message *mail_head, **mail_tail;
};

static void wake_up(struct loop *l) {
    uint64_t one = 1;
    ssize_t n = write(l->wake.fd, &one, sizeof one);
    CHECK(n == sizeof one || errno == EAGAIN);
}

static void woken(struct loop_watch *w, uint32_t events) {
    (void)events;
    uint64_t count;
    ssize_t n = read(w->fd, &count, sizeof count);
    CHECK(n == sizeof count || errno == EAGAIN);
}

int loop_new(struct loop **ret) {
    struct loop *l = calloc(1, sizeof *l);
    if (!l)
        return -ENOMEM;
    l->mail_tail = &l->mail_head;
    pthread_mutex_init(&l->lock, NULL);
    l->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    l->wake = (struct loop_watch){.fn = woken, .fd = -1};
    int fd = l->epoll_fd < 0 ? -1 : eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int r = fd < 0 ? -errno : loop_watch_set(l, &l->wake, fd, EPOLLIN);
    if (r < 0) {
        l->wake.fd = fd;
        loop_free(l);
        return r;
    }
    *ret = l;
    return 0;
}

static void bury(struct loop *l) {
    for (size_t i = 0; i < l->doomed_n; i++)
        free(l->doomed[i]);
    l->doomed_n = 0;
}

void loop_free(struct loop *l) {
    if (!l)
        return;
    if (l->wake.fd >= 0)
        close(l->wake.fd);
    if (l->epoll_fd >= 0)
        close(l->epoll_fd);
    bury(l);
    free(l->doomed);
    heap_free(&l->timers);
    pthread_mutex_destroy(&l->lock);
    free(l);
}

int loop_watch_set(struct loop *l, struct loop_watch *w, int fd, uint32_t events) {
    CHECK(fd >= 0 && w->fn);
    struct epoll_event e = {.events = events, .data.ptr = w};
    if (w->fd == fd && w->events == events)
        return 0;
    if (w->fd >= 0 && w->fd != fd)
        loop_watch_clear(l, w);
    int op = w->fd == fd && w->events ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    int r = epoll_ctl(l->epoll_fd, op, fd, &e);
    if (r < 0 && errno == EEXIST)
        r = epoll_ctl(l->epoll_fd, EPOLL_CTL_MOD, fd, &e);
    if (r < 0 && errno == ENOENT)
        r = epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, fd, &e);
    if (r < 0)
        return -errno;
    w->fd = fd;
    w->events = events;
    return 0;
}

void loop_watch_clear(struct loop *l, struct loop_watch *w) {
    if (w->fd < 0)
        return;
    /* A descriptor that was closed meanwhile has left the set by itself. */
    (void)epoll_ctl(l->epoll_fd, EPOLL_CTL_DEL, w->fd, NULL);
    /* Its memory may be gone when the round goes on. */
    for (int i = 0; i < l->pending_n; i++)
        if (l->pending[i].data.ptr == w)
            l->pending[i].data.ptr = NULL;
    w->fd = -1;
    w->events = 0;
}

void loop_free_later(struct loop *l, void *p) {
    if (l->doomed_n == l->doomed_cap) {
        size_t cap = l->doomed_cap ? l->doomed_cap * 2 : 64;
        void **doomed = realloc(l->doomed, cap * sizeof *doomed);
        CHECK(doomed != NULL);
        l->doomed = doomed;
        l->doomed_cap = cap;
    }
    l->doomed[l->doomed_n++] = p;
}

void loop_timer_set(struct loop *l, struct loop_timer *t, int64_t at_mono_us) {
    CHECK(t->fn);
    CHECK(heap_set(&l->timers, &t->node, at_mono_us) == 0);
}

void loop_timer_clear(struct loop *l, struct loop_timer *t) {
    heap_remove(&l->timers, &t->node);
}

void loop_post(struct loop *l, struct loop_message *m) {
    CHECK(m->fn);
    m->next = NULL;
    pthread_mutex_lock(&l->lock);
    bool was_empty = l->mail_head == NULL;
    *l->mail_tail = m;
    l->mail_tail = &m->next;
    pthread_mutex_unlock(&l->lock);
    if (was_empty)
        wake_up(l);
}

static void read_mail(struct loop *l) {
    pthread_mutex_lock(&l->lock);
    struct loop_message *m = l->mail_head;
    l->mail_head = NULL;
    l->mail_tail = &l->mail_head;
    pthread_mutex_unlock(&l->lock);
    while (m) {
        struct loop_message *next = m->next;
        m->fn(m);
        m = next;
    }
}

static void run_timers(struct loop *l) {
    int64_t now = clock_mono_us();
    /* Bounded, so that timers which re-arm themselves cannot starve the descriptors. */
    for (int i = 0; i < TIMERS_A_ROUND; i++) {
        struct heap_node *top = heap_top(&l->timers);
        if (!top || top->key > now)
            return;
        heap_remove(&l->timers, top);
        struct loop_timer *t = (struct loop_timer *)top;
        t->fn(t);
    }
}

static int wait_for(const struct loop *l, int wait_ms) {
    struct heap_node *top = heap_top(&l->timers);
    if (!top)
        return wait_ms;
    int64_t left_us = top->key - clock_mono_us();
    int64_t left_ms = left_us <= 0 ? 0 : (left_us + 999) / 1000;
    return wait_ms < 0 || left_ms < wait_ms ? (int)(left_ms < 60000 ? left_ms : 60000) : wait_ms;
}

void loop_step(struct loop *l, int wait_ms) {
    struct epoll_event events[EVENTS_A_WAIT];
    int n = epoll_wait(l->epoll_fd, events, EVENTS_A_WAIT, wait_for(l, wait_ms));
    CHECK(n >= 0 || errno == EINTR);
    for (int i = 0; i < n; i++) {
        struct loop_watch *w = events[i].data.ptr;
        l->pending = events + i + 1;
        l->pending_n = n - i - 1;
        if (w)
            w->fn(w, events[i].events);
    }
    l->pending = NULL;
    l->pending_n = 0;
    bury(l);
    read_mail(l);
    run_timers(l);
}

void loop_run(struct loop *l, void (*before_wait)(void *arg), void *arg) {
    while (!atomic_load_explicit(&l->stopping, memory_order_acquire)) {
        loop_step(l, -1);
        if (before_wait)
            before_wait(arg);
    }
}

void loop_stop(struct loop *l) {
    atomic_store_explicit(&l->stopping, true, memory_order_release);
    wake_up(l);
}
