/* Publishes at a fixed pace, and receives, to measure latencies that a closed loop of requests would hide: an
 * event is due at its place in the schedule, whether or not the answers before it have come, and its latency
 * counts from there (no coordinated omission).
 *
 *   pace sink
 *       Listens on loopback, prints "port N", answers 204 to every POST. On SIGTERM prints
 *       "arrived N p50_us N p99_us N max_us N": from the moment an event was due to its arrival here.
 *   pace publish PORT PATH KEY RATE SECONDS CONNECTIONS TYPES
 *       Publishes RATE events a second to 127.0.0.1:PORT, of the types bench.0 … in turn, each with 512 bytes
 *       of data that carry the moment it was due. Prints "due N acked N failed N p50_us N p99_us N max_us N":
 *       from the moment an event was due to its 202. */
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

enum {
    DATA_BYTES = 512,
    BUFFER_BYTES = 16384, /* of a request or an answer */
    CONNECTIONS_MAX = 4096,
    EVENTS_A_WAIT = 256,
    DRAIN_SECONDS = 30, /* how long answers are awaited after the last event */
};

#define SAMPLES_MAX 50000000 /* latencies kept; a run that brings more is too long */

static void die(const char *what) {
    fprintf(stderr, "pace: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int64_t now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

/* ---- latencies ---- */

struct samples {
    uint32_t *us;
    size_t n, cap;
};

static void sample_add(struct samples *s, int64_t us) {
    if (s->n == s->cap) {
        s->cap = s->cap ? s->cap * 2 : 1 << 16;
        if (s->cap > SAMPLES_MAX)
            s->cap = SAMPLES_MAX;
        if (s->n == s->cap || !(s->us = realloc(s->us, s->cap * sizeof *s->us)))
            die("too many samples");
    }
    s->us[s->n++] = us < 0 ? 0 : us > UINT32_MAX ? UINT32_MAX : (uint32_t)us;
}

static int by_value(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* The nearest-rank percentile of sorted samples. */
static uint32_t percentile(const struct samples *s, unsigned percent) {
    return s->n ? s->us[(s->n * percent + 99) / 100 - 1] : 0;
}

static void samples_print(struct samples *s) {
    qsort(s->us, s->n, sizeof *s->us, by_value);
    printf("p50_us %u p99_us %u max_us %u\n", percentile(s, 50), percentile(s, 99), percentile(s, 100));
}

/* ---- connections ---- */

struct connection {
    int fd;
    bool busy;
    int64_t due_us; /* of the event under way */
    size_t n;
    char in[BUFFER_BYTES + 1];
};

/* The size of the first whole HTTP message in the buffer, 0 when it has not come in full. */
static size_t message_size(struct connection *c) {
    c->in[c->n] = '\0';
    const char *end = strstr(c->in, "\r\n\r\n");
    if (!end)
        return 0;
    const char *length = strcasestr(c->in, "\r\ncontent-length:");
    size_t head = (size_t)(end + 4 - c->in);
    size_t size = head + (length && length < end ? strtoul(length + 17, NULL, 10) : 0);
    if (size > BUFFER_BYTES) {
        fprintf(stderr, "pace: a message of %zu bytes is too long\n", size);
        exit(1);
    }
    return size <= c->n ? size : 0;
}

static void message_drop(struct connection *c, size_t size) {
    memmove(c->in, c->in + size, c->n - size);
    c->n -= size;
}

/* What has come; false when the other side has closed. */
static bool connection_read(struct connection *c) {
    ssize_t n = recv(c->fd, c->in + c->n, BUFFER_BYTES - c->n, MSG_DONTWAIT);
    if (n > 0)
        c->n += (size_t)n;
    return n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR));
}

static void watch(int epoll, int fd, void *data) {
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = data};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &e) < 0)
        die("epoll_ctl");
}

static struct sockaddr_in loopback(uint16_t port) {
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

/* ---- sink ---- */

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

static void sink_serve(struct connection *c, struct samples *latencies) {
    static const char answer[] = "HTTP/1.1 204 No Content\r\n\r\n";
    size_t size;
    if (!connection_read(c)) {
        close(c->fd);
        free(c);
        return;
    }
    while ((size = message_size(c)) > 0) {
        const char *due = memmem(c->in, size, "\"due_us\":", 9);
        if (due)
            sample_add(latencies, now_us() - strtoll(due + 9, NULL, 10));
        message_drop(c, size);
        if (send(c->fd, answer, sizeof answer - 1, MSG_NOSIGNAL) < 0 && errno != EPIPE && errno != ECONNRESET)
            die("send");
    }
}

static int sink(void) {
    struct samples latencies = {0};
    struct epoll_event events[EVENTS_A_WAIT];
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, NULL);
    int epoll = epoll_create1(0), signals = signalfd(-1, &set, 0), listener = sink_listen();
    if (epoll < 0 || signals < 0)
        die("epoll");
    watch(epoll, listener, NULL);
    watch(epoll, signals, &set);
    for (;;) {
        int n = epoll_wait(epoll, events, EVENTS_A_WAIT, -1);
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr == &set) {
                printf("arrived %zu ", latencies.n);
                samples_print(&latencies);
                return 0;
            }
            if (events[i].data.ptr == NULL)
                sink_accept(epoll, listener);
            else
                sink_serve(events[i].data.ptr, &latencies);
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
    struct sockaddr_in a = loopback(p->port);
    int on = 1;
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&a, sizeof a) < 0)
        die("the server cannot be reached");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
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

static int64_t number(const char *text, int64_t most) {
    char *end;
    errno = 0;
    long long n = strtoll(text, &end, 10);
    if (errno || *end || n < 1 || n > most) {
        fprintf(stderr, "pace: %s must be a number from 1 to %" PRId64 "\n", text, most);
        exit(2);
    }
    return n;
}

static int publisher(char **argv) {
    struct publisher p = {
        .port = (uint16_t)number(argv[0], UINT16_MAX),
        .path = argv[1],
        .key = argv[2],
        .rate = number(argv[3], 1000000),
        .connections = (size_t)number(argv[5], CONNECTIONS_MAX),
        .types = (unsigned)number(argv[6], 1000000),
        .epoll = epoll_create1(0),
    };
    p.total = p.rate * number(argv[4], 3600);
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
    if (argc == 2 && strcmp(argv[1], "sink") == 0)
        return sink();
    if (argc == 9 && strcmp(argv[1], "publish") == 0)
        return publisher(argv + 2);
    fputs("usage: pace sink | pace publish PORT PATH KEY RATE SECONDS CONNECTIONS TYPES\n", stderr);
    return 2;
}
