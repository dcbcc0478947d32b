#include "api/side.h"

#include <errno.h>
#include <pthread.h>

#include "base/clock.h"

struct refused {
    struct loop_message message; /* first */
    struct loop_watch watch;
    struct loop_timer deadline;
    struct side *side;
    size_t bytes;
    struct refused *prev, *next;
};

struct side {
    struct loop *loop;
    struct resolver *resolver;
    const struct address_policy *addresses;
    pthread_t thread;
    atomic_uint lingers_n;
    struct refused *lingers; /* those the loop has got; its thread's */
};

static void *side_main(void *arg) {
    struct side *s = arg;
    pthread_setname_np(pthread_self(), "api-side");
    loop_run(s->loop, NULL, NULL);
    return NULL;
}

int side_start(const struct address_policy *addresses, const char *name_servers, struct side **ret) {
    struct resolver_options resolver = {.name_servers = name_servers};
    struct side *s = calloc(1, sizeof *s);
    if (!s)
        return -ENOMEM;
    s->addresses = addresses;
    int r = loop_new(&s->loop);
    if (r == 0)
        r = resolver_new(s->loop, &resolver, &s->resolver);
    if (r == 0)
        r = -pthread_create(&s->thread, NULL, side_main, s);
    if (r < 0) {
        resolver_free(s->resolver);
        if (s->loop)
            loop_free(s->loop);
        free(s);
        return r;
    }
    *ret = s;
    return 0;
}

struct loop *side_loop(struct side *s) {
    return s->loop;
}

/* ---- names ---- */

static void looked_up(struct side_lookup *l, const struct resolver_addresses *found) {
    const char *reason = NULL;
    if (found && address_judge_resolved(l->side->addresses, found->a, found->n, l->port, &reason) == 0)
        reason = found->whole ? NULL : RESOLVER_TOO_MANY_REASON;
    l->done(l, reason);
}

static void resolved(struct resolver_query *q, int error, const struct resolver_addresses *found) {
    struct side_lookup *l = (struct side_lookup *)((char *)q - offsetof(struct side_lookup, query));
    looked_up(l, error == 0 ? found : NULL);
}

static void begin_lookup(struct loop_message *m) {
    struct side_lookup *l = (struct side_lookup *)((char *)m - offsetof(struct side_lookup, message));
    struct resolver_addresses known;
    l->query = (struct resolver_query){.fn = resolved};
    int r = resolver_lookup(l->side->resolver, &l->query, slice_of(l->host),
                            clock_mono_us() + SIDE_LOOKUP_MS * INT64_C(1000), &known);
    if (r != 0)
        looked_up(l, r > 0 ? &known : NULL);
}

void side_judge(struct side *s, struct side_lookup *l) {
    CHECK(l->done && l->host[0]);
    l->side = s;
    l->message.fn = begin_lookup;
    loop_post(s->loop, &l->message);
}

/* ---- senders that were refused ---- */

static void cut(struct refused *g) {
    struct side *s = g->side;
    int fd = g->watch.fd;
    loop_timer_clear(s->loop, &g->deadline);
    loop_watch_clear(s->loop, &g->watch);
    close(fd);
    if (g->prev)
        g->prev->next = g->next;
    else
        s->lingers = g->next;
    if (g->next)
        g->next->prev = g->prev;
    atomic_fetch_sub(&s->lingers_n, 1);
    free(g);
}

static void on_bytes(struct loop_watch *w, uint32_t epoll_events) {
    struct refused *g = (struct refused *)((char *)w - offsetof(struct refused, watch));
    char dropped[65536];
    (void)epoll_events;
    ssize_t n = recv(w->fd, dropped, sizeof dropped, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    g->bytes += n > 0 ? (size_t)n : 0;
    if (n <= 0 || g->bytes > SIDE_LINGER_BYTES_MAX)
        cut(g);
}

static void on_deadline(struct loop_timer *t) {
    cut((struct refused *)((char *)t - offsetof(struct refused, deadline)));
}

static void begin_linger(struct loop_message *m) {
    struct refused *g = (struct refused *)m;
    struct side *s = g->side;
    int fd = g->watch.fd;
    g->next = s->lingers;
    if (g->next)
        g->next->prev = g;
    s->lingers = g;
    g->watch = (struct loop_watch){.fn = on_bytes, .fd = -1};
    g->deadline.fn = on_deadline;
    loop_timer_set(s->loop, &g->deadline, clock_mono_us() + SIDE_LINGER_MS * INT64_C(1000));
    if (loop_watch_set(s->loop, &g->watch, fd, EPOLLIN) < 0) {
        g->watch.fd = fd;
        cut(g);
    }
}

void side_linger(struct side *s, int fd) {
    struct refused *g = atomic_fetch_add(&s->lingers_n, 1) < SIDE_LINGERS_MAX ? calloc(1, sizeof *g) : NULL;
    if (!g) {
        atomic_fetch_sub(&s->lingers_n, 1);
        close(fd);
        return;
    }
    g->side = s;
    g->watch.fd = fd;
    g->message.fn = begin_linger;
    loop_post(s->loop, &g->message);
}

/* What was posted but not yet begun is worked off first. */
void side_stop(struct side *s) {
    if (!s)
        return;
    loop_stop(s->loop);
    pthread_join(s->thread, NULL);
    loop_step(s->loop, 0);
    while (s->lingers)
        cut(s->lingers);
    resolver_free(s->resolver);
    loop_free(s->loop);
    free(s);
}
