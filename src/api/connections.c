#include "api/connections.h"

#include <errno.h>
#include <pthread.h>
#include <sys/socket.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/log.h"

struct connection_watch {
    struct connection_watch *prev, *next;
    int fd;
    _Atomic int64_t deadline_us; /* 0: none */
};

struct connections {
    struct loop_message begin;
    struct loop_timer timer;
    struct loop *loop;
    struct connection_limits limits;
    pthread_mutex_t lock;
    struct connection_watch *all;
};

/* Within the lock the descriptor is the connection's: it is left before it is closed. */
static unsigned cut_late(struct connections *c, int64_t now_us) {
    unsigned n = 0;
    pthread_mutex_lock(&c->lock);
    for (struct connection_watch *w = c->all; w; w = w->next) {
        int64_t deadline_us = atomic_load_explicit(&w->deadline_us, memory_order_relaxed);
        if (deadline_us == 0 || deadline_us > now_us)
            continue;
        atomic_compare_exchange_strong(&w->deadline_us, &deadline_us, 0);
        shutdown(w->fd, SHUT_RDWR);
        n++;
    }
    pthread_mutex_unlock(&c->lock);
    return n;
}

static void look(struct loop_timer *t) {
    struct connections *c = (struct connections *)((char *)t - offsetof(struct connections, timer));
    int64_t now_us = clock_mono_us();
    unsigned cut = cut_late(c, now_us);
    if (cut)
        log_debug("clients that took too long were cut off", log_int("connections", cut));
    loop_timer_set(c->loop, &c->timer, now_us + CONNECTIONS_LOOK_MS * INT64_C(1000));
}

static void begin(struct loop_message *m) {
    look(&((struct connections *)m)->timer);
}

int connections_new(struct loop *loop, const struct connection_limits *limits, struct connections **ret) {
    struct connections *c = calloc(1, sizeof *c);
    if (!c)
        return -ENOMEM;
    *c = (struct connections){.begin = {.fn = begin}, .timer = {.fn = look}, .loop = loop, .limits = *limits};
    pthread_mutex_init(&c->lock, NULL);
    loop_post(loop, &c->begin);
    *ret = c;
    return 0;
}

void connections_free(struct connections *c) {
    if (!c)
        return;
    CHECK(!c->all);
    pthread_mutex_destroy(&c->lock);
    free(c);
}

struct connection_watch *connections_enter(struct connections *c, int fd) {
    struct connection_watch *w = calloc(1, sizeof *w);
    if (!w)
        return NULL;
    w->fd = fd;
    connections_phase(c, w, CONNECTION_HEAD);
    pthread_mutex_lock(&c->lock);
    w->next = c->all;
    if (w->next)
        w->next->prev = w;
    c->all = w;
    pthread_mutex_unlock(&c->lock);
    return w;
}

void connections_leave(struct connections *c, struct connection_watch *w) {
    if (!w)
        return;
    pthread_mutex_lock(&c->lock);
    if (w->prev)
        w->prev->next = w->next;
    else
        c->all = w->next;
    if (w->next)
        w->next->prev = w->prev;
    pthread_mutex_unlock(&c->lock);
    free(w);
}

void connections_phase(struct connections *c, struct connection_watch *w, enum connection_phase phase) {
    if (!w)
        return;
    int64_t ms = c->limits.ms[phase];
    atomic_store_explicit(&w->deadline_us, ms ? clock_mono_us() + ms * 1000 : 0, memory_order_relaxed);
}

void connections_head_begins(struct connections *c, struct connection_watch *w) {
    if (!w || !c->limits.ms[CONNECTION_HEAD])
        return;
    int64_t deadline_us = clock_mono_us() + c->limits.ms[CONNECTION_HEAD] * 1000;
    int64_t before_us = atomic_load_explicit(&w->deadline_us, memory_order_relaxed);
    if (before_us > deadline_us)
        atomic_store_explicit(&w->deadline_us, deadline_us, memory_order_relaxed);
}
