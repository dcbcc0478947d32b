/* Publishes at a fixed pace, and receives, to measure latencies that a closed loop of requests would hide: an
 * event is due at its place in the schedule, whether or not the answers before it have come, and its latency
 * counts from there (no coordinated omission).
 *
 *   pace sink [ANSWER]
 *       Listens on loopback, prints "port N", and answers every POST as ANSWER says: 204 (also when none is
 *       named), 500, 429, 429-retry-after (30 s), or black-hole, which never answers. On SIGTERM prints
 *       "arrived N p50_us N p99_us N max_us N": from the moment an event was due to its arrival here, as its
 *       data say: "due_us" of the monotonic clock, or "wall_us" of the wall's. On SIGUSR1 prints that, too,
 * and begins afresh. pace publish PORT PATH KEY RATE SECONDS CONNECTIONS TYPES Publishes RATE events a second
 * to 127.0.0.1:PORT, of the types bench.0 … in turn, each with 512 bytes of data that carry the moment it was
 * due. Prints "due N acked N failed N p50_us N p99_us N max_us N": from the moment an event was due to its
 * 202. */
#include "http.h"

#include <errno.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

enum {
    DATA_BYTES = 512,
    DRAIN_SECONDS = 30, /* how long answers are awaited after the last event */
};

/* ---- sink ---- */

static int64_t wall_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return t.tv_sec * INT64_C(1000000) + t.tv_nsec / 1000;
}

static int sink_listen(void) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in a = loopback(0);
    socklen_t size = sizeof a;
    if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof a) < 0 || listen(fd, 1024) < 0 ||
        getsockname(fd, (struct sockaddr *)&a, &size) < 0)
        die("the sink cannot listen");
    printf("port %d\n", ntohs(a.sin_port));
    fflush(stdout);
    return fd;
}

static void sink_accept(int epoll, int listener) {
    int fd, on = 1;
    while ((fd = accept4(listener, NULL, NULL, 0)) >= 0) {
        struct connection *c = calloc(1, sizeof *c);
        if (!c)
            die("memory");
        c->fd = fd;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        watch(epoll, fd, c);
    }
}

static const struct {
    const char *name, *text; /* "": none is sent */
} answers[] = {
    {"204", "HTTP/1.1 204 No Content\r\n\r\n"},
    {"500", "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"},
    {"429", "HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n"},
    {"429-retry-after", "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 30\r\nContent-Length: 0\r\n\r\n"},
    {"black-hole", ""},
};

static const char *answer_named(const char *name) {
    for (size_t i = 0; i < sizeof answers / sizeof answers[0]; i++)
        if (strcmp(answers[i].name, name) == 0)
            return answers[i].text;
    fprintf(stderr, "pace: the sink has no answer \"%s\"\n", name);
    exit(2);
}

static void sink_serve(struct connection *c, const char *answer, struct samples *latencies) {
    size_t size;
    if (!connection_read(c)) {
        close(c->fd);
        free(c);
        return;
    }
    while ((size = message_size(c)) > 0) {
        const char *due = memmem(c->in, size, "\"due_us\":", 9),
                   *wall = memmem(c->in, size, "\"wall_us\":", 10);
        if (due)
            sample_add(latencies, now_us() - strtoll(due + 9, NULL, 10));
        else if (wall)
            sample_add(latencies, wall_us() - strtoll(wall + 10, NULL, 10));
        message_drop(c, size);
        if (*answer && send(c->fd, answer, strlen(answer), MSG_NOSIGNAL) < 0 && errno != EPIPE &&
            errno != ECONNRESET)
            die("send");
    }
}

static void sink_report(struct samples *latencies) {
    printf("arrived %zu ", latencies->n);
    samples_print(latencies);
    fflush(stdout);
    latencies->n = 0;
}

/* true: to end. */
static bool sink_signal(int signals, struct samples *latencies) {
    struct signalfd_siginfo info;
    if (read(signals, &info, sizeof info) != sizeof info)
        die("signalfd");
    sink_report(latencies);
    return info.ssi_signo == SIGTERM;
}

static int sink(const char *answer) {
    struct samples latencies = {0};
    struct epoll_event events[EVENTS_A_WAIT];
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, NULL);
    int epoll = epoll_create1(0), signals = signalfd(-1, &set, 0), listener = sink_listen();
    if (epoll < 0 || signals < 0)
        die("epoll");
    watch(epoll, listener, NULL);
    watch(epoll, signals, &set);
    for (;;) {
        int n = epoll_wait(epoll, events, EVENTS_A_WAIT, -1);
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr == NULL)
                sink_accept(epoll, listener);
            else if (events[i].data.ptr != &set)
                sink_serve(events[i].data.ptr, answer, &latencies);
            else if (sink_signal(signals, &latencies))
                return 0;
        }
    }
}

/* ---- publish ---- */

struct publisher {
    uint16_t port;
    const char *path, *key;
    int64_t rate, total;
    size_t connections;
    unsigned types;
    int epoll;
    int64_t started_us, sent, failed;
    struct samples acknowledged;
    struct connection *all, **idle;
    size_t idle_n;
};

static void publisher_connect(struct publisher *p, struct connection *c) {
    c->fd = connection_open(p->port);
    c->n = 0;
    c->busy = false;
    watch(p->epoll, c->fd, c);
    p->idle[p->idle_n++] = c;
}

static int64_t due_us(const struct publisher *p, int64_t event) {
    return p->started_us + event * 1000000 / p->rate;
}

static void publish(struct publisher *p, struct connection *c) {
    char data[DATA_BYTES + 1], body[DATA_BYTES + 64], request[DATA_BYTES + 1024];
    c->due_us = due_us(p, p->sent);
    c->busy = true;
    int n = snprintf(data, sizeof data, "{\"due_us\":%" PRId64 ",\"filler\":\"", c->due_us);
    memset(data + n, 'x', (size_t)(DATA_BYTES - n));
    memcpy(data + DATA_BYTES - 2, "\"}", 3);
    int body_n = snprintf(body, sizeof body, "{\"type\":\"bench.%u\",\"data\":%s}",
                          (unsigned)(p->sent % p->types), data);
    n = snprintf(request, sizeof request,
                 "POST %s HTTP/1.1\r\nHost: 127.0.0.1:%u\r\nAuthorization: Bearer %s\r\n"
                 "Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
                 p->path, p->port, p->key, body_n, body);
    p->sent++;
    /* A request fits the socket's empty buffer: a part of it never stays behind. */
    if (n >= (int)sizeof request || send(c->fd, request, (size_t)n, MSG_NOSIGNAL) != n)
        c->n = 0; /* the close that follows is told by the read */
}

static void publisher_read(struct publisher *p, struct connection *c) {
    bool open = connection_read(c);
    size_t size = message_size(c);
    if (size > 0 && c->busy) {
        if (strncmp(c->in, "HTTP/1.1 202", 12) == 0)
            sample_add(&p->acknowledged, now_us() - c->due_us);
        else
            p->failed++;
        c->busy = false;
        message_drop(c, size);
        p->idle[p->idle_n++] = c;
        if (open)
            return;
    }
    if (!open) {
        if (c->busy)
            p->failed++;
        else
            for (size_t i = 0; i < p->idle_n; i++)
                if (p->idle[i] == c)
                    p->idle[i] = p->idle[--p->idle_n];
        close(c->fd);
        publisher_connect(p, c);
    }
}

/* Waits for answers, but no longer than until the next event is due. */
static void publisher_wait(struct publisher *p) {
    struct epoll_event events[EVENTS_A_WAIT];
    int64_t wait_us = p->sent < p->total && p->idle_n ? due_us(p, p->sent) - now_us() : 100000;
    if (wait_us < 0)
        wait_us = 0;
    struct timespec wait = {wait_us / 1000000, wait_us % 1000000 * 1000};
    int n = epoll_pwait2(p->epoll, events, EVENTS_A_WAIT, &wait, NULL);
    for (int i = 0; i < n; i++)
        publisher_read(p, events[i].data.ptr);
}

static void publisher_run(struct publisher *p) {
    p->started_us = now_us();
    int64_t end = due_us(p, p->total) + DRAIN_SECONDS * INT64_C(1000000);
    while ((int64_t)p->acknowledged.n + p->failed < p->total && now_us() < end) {
        while (p->sent < p->total && p->idle_n && due_us(p, p->sent) <= now_us())
            publish(p, p->idle[--p->idle_n]);
        publisher_wait(p);
    }
}

static int publisher(char **argv) {
    struct publisher p = {
        .port = (uint16_t)number(argv[0], 1, UINT16_MAX),
        .path = argv[1],
        .key = argv[2],
        .rate = number(argv[3], 1, 1000000),
        .connections = (size_t)number(argv[5], 1, CONNECTIONS_MAX),
        .types = (unsigned)number(argv[6], 1, 1000000),
        .epoll = epoll_create1(0),
    };
    p.total = p.rate * number(argv[4], 1, 3600);
    p.all = calloc(p.connections, sizeof *p.all);
    p.idle = calloc(p.connections, sizeof *p.idle);
    if (p.epoll < 0 || !p.all || !p.idle || p.total > SAMPLES_MAX)
        die("start");
    for (size_t i = 0; i < p.connections; i++)
        publisher_connect(&p, &p.all[i]);
    publisher_run(&p);
    printf("due %" PRId64 " acked %zu failed %" PRId64 " ", p.total, p.acknowledged.n, p.failed);
    samples_print(&p.acknowledged);
    return p.failed || (int64_t)p.acknowledged.n < p.total;
}

int main(int argc, char **argv) {
    if ((argc == 2 || argc == 3) && strcmp(argv[1], "sink") == 0)
        return sink(answer_named(argc == 3 ? argv[2] : "204"));
    if (argc == 9 && strcmp(argv[1], "publish") == 0)
        return publisher(argv + 2);
    fputs("usage: pace sink [ANSWER] | pace publish PORT PATH KEY RATE SECONDS CONNECTIONS TYPES\n", stderr);
    return 2;
}
