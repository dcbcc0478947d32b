/* How long a client may take for each part of its exchange, in all: libmicrohttpd itself only sees that
 * nothing comes, and a byte now and then would hold a connection for ever. Who takes longer is cut off. */
#pragma once

#include "base/loop.h"

struct connections;
struct connection_watch; /* of one connection */

enum connection_phase {
    CONNECTION_HEAD,   /* from connecting (and the TLS handshake) to the end of the first head */
    CONNECTION_BODY,   /* from the end of the head to the end of the body */
    CONNECTION_WORK,   /* ours: no limit here */
    CONNECTION_ANSWER, /* until the answer has been taken */
    CONNECTION_IDLE,   /* until the end of the next head, which may begin late */
    CONNECTION_PHASES,
};

struct connection_limits {
    int64_t ms[CONNECTION_PHASES]; /* 0: none */
};

enum { CONNECTIONS_LOOK_MS = 250 };

/* Looks every CONNECTIONS_LOOK_MS, on the loop's thread, which must run. */
int connections_new(struct loop *loop, const struct connection_limits *limits,
                    struct connections **ret) MUST_USE;
/* After the loop's thread has ended and every connection was left. NULL-safe. */
void connections_free(struct connections *c);

/* From any thread. A connection that was not taken in (NULL: memory is out) has no limits; the others are
 * NULL-safe. */
struct connection_watch *connections_enter(struct connections *c, int fd);
void connections_leave(struct connections *c,
                       struct connection_watch *w); /* before the descriptor is closed */
/* A phase begins. One thread at a time. */
void connections_phase(struct connections *c, struct connection_watch *w, enum connection_phase phase);
/* The head of another request has begun: its own limit counts from here, not that of waiting for it. */
void connections_head_begins(struct connections *c, struct connection_watch *w);
