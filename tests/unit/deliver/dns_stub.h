/* A name server for tests: a thread that answers A and AAAA from a table, over UDP and TCP on one loopback
 * port. What is not in the table does not exist. */
#pragma once

#include <arpa/inet.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "base/bytes.h"

enum {
    TYPE_A = 1,
    TYPE_CNAME = 5,
    TYPE_AAAA = 28,
    RCODE_SERVFAIL = 2,
    RCODE_NXDOMAIN = 3,
    RCODE_REFUSED = 5
};
enum { ZONE_V4_MAX = 24, ZONE_V6_MAX = 16, BIND_TRIES = 100 };

struct zone_entry {
    const char *name;
    const char *v4[ZONE_V4_MAX], *v6[ZONE_V6_MAX];
    uint32_t ttl;
    const char *cname; /* the name the addresses belong to */
    uint32_t cname_ttl;
    unsigned rcode;
    bool truncated;    /* over UDP */
    atomic_int silent; /* so many questions are not answered; -1: none ever is */
    atomic_int asked;  /* questions for A */
};

struct dns_stub {
    struct zone_entry *zone; /* set before the start */
    size_t zone_count;
    char address[32]; /* "127.0.0.1:PORT" */
    int udp, listener, client, stop;
    pthread_t thread;
};

static struct zone_entry *zone_find(const struct dns_stub *s, const char *name) {
    for (size_t i = 0; i < s->zone_count; i++) {
        if (strcmp(s->zone[i].name, name) == 0)
            return &s->zone[i];
    }
    return NULL;
}

static void dns_add_u16(struct buf *b, unsigned v) {
    buf_add_char(b, (char)(v >> 8));
    buf_add_char(b, (char)v);
}

/* `owner` is the offset of the record's name. */
static void dns_add_record(struct buf *b, unsigned owner, unsigned type, uint32_t ttl, struct slice data) {
    dns_add_u16(b, 0xc000U | owner);
    dns_add_u16(b, type);
    dns_add_u16(b, 1);
    dns_add_u16(b, ttl >> 16);
    dns_add_u16(b, ttl & 0xffffU);
    dns_add_u16(b, (unsigned)data.n);
    buf_add_slice(b, data);
}

static unsigned dns_add_addresses(struct buf *b, unsigned owner, unsigned type, const struct zone_entry *z) {
    char binary[16];
    const char *const *texts = type == TYPE_A ? z->v4 : z->v6;
    unsigned max = type == TYPE_A ? ZONE_V4_MAX : ZONE_V6_MAX, i = 0;
    for (; i < max && texts[i]; i++) {
        CHECK(inet_pton(type == TYPE_A ? AF_INET : AF_INET6, texts[i], binary) == 1);
        dns_add_record(b, owner, type, z->ttl, (struct slice){binary, type == TYPE_A ? 4 : 16});
    }
    return i;
}

static void dns_add_name(struct buf *b, const char *name) {
    while (*name) {
        size_t n = strcspn(name, ".");
        buf_add_char(b, (char)n);
        buf_add(b, name, n);
        name += n + (name[n] == '.');
    }
    buf_add_char(b, '\0');
}

/* Returns where the question ends. */
static size_t dns_read_question(const uint8_t *q, size_t n, char name[256], unsigned *type) {
    size_t at = 12, out = 0;
    while (at < n && q[at] && at + q[at] + 1U < n && out + q[at] + 1U < 255) {
        memcpy(name + out, q + at + 1, q[at]);
        out += q[at];
        name[out++] = '.';
        at += q[at] + 1U;
    }
    CHECK(out > 0 && at + 5 <= n);
    name[out - 1] = '\0';
    *type = (unsigned)(q[at + 1] << 8 | q[at + 2]);
    return at + 5;
}

static unsigned dns_add_answers(struct buf *b, unsigned type, const struct zone_entry *z) {
    unsigned owner = 12;
    if (!z->cname)
        return dns_add_addresses(b, owner, type, z);
    _cleanup_buf_ struct buf target = {0};
    dns_add_name(&target, z->cname);
    unsigned data_at = (unsigned)b->n + 12;
    dns_add_record(b, owner, TYPE_CNAME, z->cname_ttl, buf_slice(&target));
    return 1 + dns_add_addresses(b, data_at, type, z);
}

/* Leaves b empty when the question is not to be answered. */
static void dns_answer(const struct dns_stub *s, const uint8_t *q, size_t n, bool over_tcp, struct buf *b) {
    char name[256];
    unsigned type;
    size_t end = dns_read_question(q, n, name, &type);
    struct zone_entry *z = zone_find(s, name);
    if (z && type == TYPE_A)
        atomic_fetch_add(&z->asked, 1);
    int silent = z ? atomic_load(&z->silent) : 0;
    if (silent) {
        if (silent > 0)
            atomic_fetch_sub(&z->silent, 1);
        return;
    }
    unsigned rcode = z ? z->rcode : RCODE_NXDOMAIN;
    bool truncated = z && z->truncated && !over_tcp;
    buf_add(b, q, 2);
    dns_add_u16(b, 0x8180U | rcode | (truncated ? 0x200U : 0U));
    dns_add_u16(b, 1);
    dns_add_u16(b, 0);
    dns_add_u16(b, 0);
    dns_add_u16(b, 0);
    buf_add(b, q + 12, end - 12);
    if (z && !rcode && !truncated)
        b->p[7] = (char)dns_add_answers(b, type, z);
}

static void dns_serve_datagram(const struct dns_stub *s) {
    uint8_t question[1500];
    struct sockaddr_storage from;
    socklen_t from_n = sizeof from;
    ssize_t n = recvfrom(s->udp, question, sizeof question, 0, (struct sockaddr *)&from, &from_n);
    _cleanup_buf_ struct buf b = {0};
    if (n > 12)
        dns_answer(s, question, (size_t)n, false, &b);
    /* A client that has gone is no fault. */
    if (b.n)
        (void)!sendto(s->udp, b.p, b.n, 0, (struct sockaddr *)&from, from_n);
}

static void dns_serve_stream(struct dns_stub *s) {
    uint8_t length[2], question[1500];
    ssize_t got = recv(s->client, length, sizeof length, MSG_WAITALL);
    size_t n = got == 2 ? (size_t)(length[0] << 8 | length[1]) : 0;
    _cleanup_buf_ struct buf b = {0}, framed = {0};
    if (n > 12 && n <= sizeof question && recv(s->client, question, n, MSG_WAITALL) == (ssize_t)n)
        dns_answer(s, question, n, true, &b);
    dns_add_u16(&framed, (unsigned)b.n);
    buf_add_slice(&framed, buf_slice(&b));
    if (b.n && send(s->client, framed.p, framed.n, MSG_NOSIGNAL) == (ssize_t)framed.n)
        return;
    close(s->client);
    s->client = -1;
}

static void *dns_stub_main(void *arg) {
    struct dns_stub *s = arg;
    for (;;) {
        struct pollfd fds[] = {{.fd = s->stop, .events = POLLIN},
                               {.fd = s->udp, .events = POLLIN},
                               {.fd = s->client, .events = POLLIN},
                               {.fd = s->client < 0 ? s->listener : -1, .events = POLLIN}};
        CHECK(poll(fds, 4, -1) > 0);
        if (fds[0].revents)
            return NULL;
        if (fds[1].revents)
            dns_serve_datagram(s);
        if (fds[2].revents)
            dns_serve_stream(s);
        if (fds[3].revents)
            s->client = accept4(s->listener, NULL, NULL, SOCK_CLOEXEC);
    }
}

/* A port that is free for UDP and TCP alike. */
static bool dns_stub_bind(struct dns_stub *s) {
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof in;
    s->udp = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    s->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(s->udp >= 0 && s->listener >= 0);
    if (bind(s->udp, (struct sockaddr *)&in, sizeof in) == 0 &&
        getsockname(s->udp, (struct sockaddr *)&in, &n) == 0 &&
        bind(s->listener, (struct sockaddr *)&in, sizeof in) == 0 && listen(s->listener, 4) == 0) {
        snprintf(s->address, sizeof s->address, "127.0.0.1:%u", ntohs(in.sin_port));
        return true;
    }
    close(s->udp);
    close(s->listener);
    return false;
}

static void dns_stub_start(struct dns_stub *s) {
    int tries = 0;
    while (!dns_stub_bind(s))
        CHECK(++tries < BIND_TRIES);
    s->client = -1;
    s->stop = eventfd(0, EFD_CLOEXEC);
    CHECK(s->stop >= 0 && pthread_create(&s->thread, NULL, dns_stub_main, s) == 0);
}

static void dns_stub_stop(struct dns_stub *s) {
    uint64_t one = 1;
    CHECK(write(s->stop, &one, sizeof one) == sizeof one);
    pthread_join(s->thread, NULL);
    const int fds[] = {s->udp, s->listener, s->client, s->stop};
    for (size_t i = 0; i < sizeof fds / sizeof fds[0]; i++) {
        if (fds[i] >= 0)
            close(fds[i]);
    }
}
