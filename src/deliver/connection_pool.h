/* The connections of one transport: which belong to which receiver, and those that are kept for reuse. A
 * receiver is told apart by its authority (host:port), so that names that share an address do not share
 * connections. */
#pragma once

#include <sys/socket.h>

#include "base/loop.h"

enum {
    POOL_IDLE_SECONDS_MAX = 60, /* a kept connection that is not used for so long is closed */
};

struct connection_pool;
struct connection_origin;

/* What the pool needs of a connection, embedded by the caller; zeroed but for fn and fd = -1 of the watch. */
struct pooled {
    struct loop_watch watch; /* its socket; fd -1: none */
    struct sockaddr_storage peer;
    /* private */
    struct connection_origin *origin;
    int64_t idle_since_us;
    struct pooled *prev, *next;           /* of the origin, while it is kept */
    struct pooled *idle_prev, *idle_next; /* of all, the longest idle first */
};

struct connection_pool_options {
    struct loop *loop;
    unsigned kept_max;
    void (*release)(struct pooled *k); /* frees it: it belongs to nobody any more, its socket is closed */
};

int connection_pool_new(const struct connection_pool_options *o, struct connection_pool **ret) MUST_USE;
/* Closes the kept ones; there must be no others. NULL-safe. */
void connection_pool_free(struct connection_pool *p);

/* Enters a new connection. -ENOMEM. */
int connection_pool_enter(struct connection_pool *p, struct slice authority, struct pooled *k) MUST_USE;
/* Closes one that is in use, or was never connected. */
void connection_pool_close(struct connection_pool *p, struct pooled *k);
/* Closes its socket alone, to connect anew. */
void connection_pool_close_socket(struct connection_pool *p, struct pooled *k);

/* Keeps one that is in use for the next request; the longest kept one makes room. */
void connection_pool_keep(struct connection_pool *p, struct pooled *k, int64_t now_us);
/* Takes a kept one to one of these addresses (their ports are ignored), so that a name that moves is
 * followed; NULL when there is none. */
struct pooled *connection_pool_take(struct connection_pool *p, struct slice authority,
                                    const struct sockaddr_storage *addresses, size_t n);
/* Closes a kept one: its receiver did so, or sent what nobody asked for. */
void connection_pool_drop(struct connection_pool *p, struct pooled *k);
