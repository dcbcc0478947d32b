/* What the load programs share: HTTP/1.1 connections on loopback that an epoll watches, and latencies. A
 * failure of the machine ends the program: these measure, they do not serve. */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    BUFFER_BYTES = 65536, /* of a request or an answer that is read */
    CONNECTIONS_MAX = 4096,
    EVENTS_A_WAIT = 256,
};

#define SAMPLES_MAX 50000000 /* latencies kept; a run that brings more is too long */

/* Names errno and ends the program with status 1. */
void die(const char *what) __attribute__((noreturn));
int64_t now_us(void); /* of the monotonic clock */
/* A number from `least` to `most`, or the program ends with status 2. */
int64_t number(const char *text, int64_t least, int64_t most);

struct samples {
    uint32_t *us;
    size_t n, cap;
};

void sample_add(struct samples *s, int64_t us);
/* Prints "p50_us N p99_us N max_us N", by nearest rank; sorts them. */
void samples_print(struct samples *s);

struct connection {
    int fd;
    bool busy;      /* its request waits for the answer */
    int64_t due_us; /* when that request was due */
    size_t n;
    char in[BUFFER_BYTES + 1];
};

/* A blocking socket that is connected to 127.0.0.1:PORT. */
int connection_open(uint16_t port);
/* Takes what has come into the buffer; false when the other side has closed. */
bool connection_read(struct connection *c);
/* The size of the first whole HTTP message in the buffer, 0 when it has not come in full. */
size_t message_size(struct connection *c);
void message_drop(struct connection *c, size_t size);
void watch(int epoll, int fd, void *data);
struct sockaddr_in loopback(uint16_t port);
