#include "http.h"

#include <errno.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>

void die(const char *what) {
    fprintf(stderr, "%s: %s: %s\n", program_invocation_short_name, what, strerror(errno));
    exit(1);
}

int64_t now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

int64_t number(const char *text, int64_t least, int64_t most) {
    char *end;
    errno = 0;
    long long n = strtoll(text, &end, 10);
    if (errno || *end || n < least || n > most) {
        fprintf(stderr, "%s: \"%s\" must be a number from %" PRId64 " to %" PRId64 "\n",
                program_invocation_short_name, text, least, most);
        exit(2);
    }
    return n;
}

/* ---- latencies ---- */

void sample_add(struct samples *s, int64_t us) {
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

static uint32_t percentile(const struct samples *s, unsigned percent) {
    return s->n ? s->us[(s->n * percent + 99) / 100 - 1] : 0;
}

void samples_print(struct samples *s) {
    if (s->n)
        qsort(s->us, s->n, sizeof *s->us, by_value);
    printf("p50_us %u p99_us %u max_us %u\n", percentile(s, 50), percentile(s, 99), percentile(s, 100));
}

/* ---- connections ---- */

struct sockaddr_in loopback(uint16_t port) {
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

int connection_open(uint16_t port) {
    struct sockaddr_in a = loopback(port);
    int on = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof a) < 0)
        die("the server cannot be reached");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return fd;
}

bool connection_read(struct connection *c) {
    ssize_t n = recv(c->fd, c->in + c->n, BUFFER_BYTES - c->n, MSG_DONTWAIT);
    if (n > 0)
        c->n += (size_t)n;
    return n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR));
}

size_t message_size(struct connection *c) {
    c->in[c->n] = '\0';
    const char *end = strstr(c->in, "\r\n\r\n");
    if (!end)
        return 0;
    const char *length = strcasestr(c->in, "\r\ncontent-length:");
    size_t head = (size_t)(end + 4 - c->in);
    size_t size = head + (length && length < end ? strtoul(length + 17, NULL, 10) : 0);
    if (size > BUFFER_BYTES) {
        fprintf(stderr, "%s: a message of %zu bytes is too long\n", program_invocation_short_name, size);
        exit(1);
    }
    return size <= c->n ? size : 0;
}

void message_drop(struct connection *c, size_t size) {
    memmove(c->in, c->in + size, c->n - size);
    c->n -= size;
}

void watch(int epoll, int fd, void *data) {
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = data};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &e) < 0)
        die("epoll_ctl");
}
