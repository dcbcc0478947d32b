/* POSTs as fast as the answers come: what a run needs before it measures (subscriptions, a backlog), and the
 * latency of single requests, one after another.
 *
 *   flood [--batch N] [--first N] [--kinds N] [--connections N] [--gap-ms N] PORT PATH KEY COUNT TEMPLATE
 *       Sends COUNT bodies made of TEMPLATE to 127.0.0.1:PORT. Each "%" in it becomes a number that counts
 *       from --first (0) and begins again after --kinds of them. --batch puts N bodies into one JSON array a
 *       request. Over --connections (64) keep-alive connections, each of which sends its next request when
 *       the answer to the one before is there. With --gap-ms, which takes one connection, not before so many
 *       have passed since that was sent.
 *       Prints "sent N failed N seconds N p50_us N p99_us N max_us N": requests, and from sending one to its
 *       2xx. Status 1 when any failed; the first such answer goes to stderr. */
#include "http.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    ANSWER_SECONDS_MAX = 60, /* without any answer: the server does not work */
    BATCH_MAX = 250,         /* so that the answer fits the buffer */
    NUMBER_DIGITS = 20,
    HEAD_BYTES = 1024,
    REQUEST_BYTES_MAX = 16 * 1024 * 1024,
};

struct flood {
    uint16_t port;
    const char *path, *key, *template;
    int64_t count, batch, first, kinds, gap_us, next; /* next: of the body that is sent next */
    size_t connections;
    int epoll;
    int64_t sent, answered, failed;
    struct samples latencies;
    char *body, *request;
    size_t request_max;
};

/* Appends the template with its number; returns where it ends. */
static char *write_body(const struct flood *f, char *to, int64_t nth) {
    int64_t number = f->first + nth % f->kinds;
    for (const char *at = f->template; *at; at++) {
        if (*at == '%')
            to += sprintf(to, "%" PRId64, number);
        else
            *to++ = *at;
    }
    return to;
}

/* The next request, in f->request; returns its size. */
static size_t write_request(struct flood *f) {
    char *to = f->body;
    if (f->batch > 0)
        *to++ = '[';
    int64_t n = f->batch > 0 ? f->batch : 1;
    for (int64_t i = 0; i < n && f->next < f->count; i++) {
        if (i)
            *to++ = ',';
        to = write_body(f, to, f->next++);
    }
    if (f->batch > 0)
        *to++ = ']';
    size_t body = (size_t)(to - f->body);
    int head = snprintf(f->request, HEAD_BYTES,
                        "POST %s HTTP/1.1\r\nHost: 127.0.0.1:%u\r\nAuthorization: Bearer %s\r\n"
                        "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n",
                        f->path, f->port, f->key, body);
    if (head >= HEAD_BYTES) {
        fputs("flood: path and key are too long\n", stderr);
        exit(2);
    }
    memcpy(f->request + head, f->body, body);
    return (size_t)head + body;
}

static void send_next(struct flood *f, struct connection *c) {
    if (f->next >= f->count)
        return;
    int64_t wait = f->gap_us && c->due_us ? c->due_us + f->gap_us - now_us() : 0;
    if (wait > 0)
        usleep((useconds_t)wait);
    size_t n = write_request(f);
    c->due_us = now_us();
    c->busy = true;
    f->sent++;
    /* The socket blocks until all of it is taken; a connection that broke is told by the read. */
    for (size_t done = 0; done < n;) {
        ssize_t r = send(c->fd, f->request + done, n - done, MSG_NOSIGNAL);
        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0)
            break;
        done += (size_t)r;
    }
}

static void note_answer(struct flood *f, struct connection *c, size_t size) {
    f->answered++;
    if (strncmp(c->in, "HTTP/1.1 2", 10) == 0) {
        sample_add(&f->latencies, now_us() - c->due_us);
        return;
    }
    if (f->failed++ == 0)
        fprintf(stderr, "flood: the first refusal: %.*s\n", (int)size, c->in);
}

static void on_readable(struct flood *f, struct connection *c) {
    bool open = connection_read(c);
    size_t size = message_size(c);
    if (size > 0 && c->busy) {
        note_answer(f, c, size);
        message_drop(c, size);
        c->busy = false;
    }
    if (!open) {
        if (c->busy) {
            f->answered++;
            f->failed++;
        }
        close(c->fd);
        c->busy = false;
        c->n = 0;
        c->fd = connection_open(f->port);
        watch(f->epoll, c->fd, c);
    }
    if (!c->busy)
        send_next(f, c);
}

static void run(struct flood *f) {
    struct connection *all = calloc(f->connections, sizeof *all);
    struct epoll_event events[EVENTS_A_WAIT];
    if (!all)
        die("memory");
    for (size_t i = 0; i < f->connections; i++) {
        all[i].fd = connection_open(f->port);
        watch(f->epoll, all[i].fd, &all[i]);
        send_next(f, &all[i]);
    }
    while (f->answered < f->sent) {
        int n = epoll_wait(f->epoll, events, EVENTS_A_WAIT, ANSWER_SECONDS_MAX * 1000);
        if (n == 0) {
            fprintf(stderr, "flood: no answer for %d s\n", ANSWER_SECONDS_MAX);
            exit(1);
        }
        for (int i = 0; i < n; i++)
            on_readable(f, events[i].data.ptr);
    }
}

static void allocate(struct flood *f) {
    size_t marks = 0, length = strlen(f->template);
    for (const char *at = f->template; *at; at++)
        marks += *at == '%';
    f->request_max =
        (length + marks * NUMBER_DIGITS + 1) * (size_t)(f->batch > 0 ? f->batch : 1) + HEAD_BYTES + 2;
    if (f->request_max > REQUEST_BYTES_MAX) {
        fputs("flood: a request would be too long\n", stderr);
        exit(2);
    }
    f->body = malloc(f->request_max);
    f->request = malloc(f->request_max);
    f->epoll = epoll_create1(0);
    if (!f->body || !f->request || f->epoll < 0)
        die("start");
}

static void usage(void) {
    fputs(
        "usage: flood [--batch N] [--first N] [--kinds N] [--connections N] [--gap-ms N] PORT PATH KEY COUNT "
        "TEMPLATE\n",
        stderr);
    exit(2);
}

int main(int argc, char **argv) {
    static const struct option options[] = {{"batch", 1, NULL, 'b'},       {"first", 1, NULL, 'f'},
                                            {"kinds", 1, NULL, 'k'},       {"gap-ms", 1, NULL, 'g'},
                                            {"connections", 1, NULL, 'c'}, {0}};
    struct flood f = {.connections = 64, .kinds = INT64_MAX};
    int option;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
        case 'b':
            f.batch = number(optarg, 1, BATCH_MAX);
            break;
        case 'f':
            f.first = number(optarg, 0, INT32_MAX);
            break;
        case 'k':
            f.kinds = number(optarg, 1, INT32_MAX);
            break;
        case 'g':
            f.gap_us = number(optarg, 1, 60000) * 1000;
            break;
        case 'c':
            f.connections = (size_t)number(optarg, 1, CONNECTIONS_MAX);
            break;
        default:
            usage();
        }
    }
    if (argc - optind != 5 || (f.gap_us && f.connections > 1))
        usage();
    f.port = (uint16_t)number(argv[optind], 1, UINT16_MAX);
    f.path = argv[optind + 1];
    f.key = argv[optind + 2];
    f.count = number(argv[optind + 3], 1, SAMPLES_MAX);
    f.template = argv[optind + 4];
    allocate(&f);
    int64_t began = now_us();
    run(&f);
    printf("sent %" PRId64 " failed %" PRId64 " seconds %.3f ", f.sent, f.failed,
           (double)(now_us() - began) / 1e6);
    samples_print(&f.latencies);
    return f.failed > 0;
}
