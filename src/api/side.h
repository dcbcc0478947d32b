/* A thread of its own for what the server's threads must not wait for: what a name resolves to when it is
 * registered, and senders that go on talking after they were refused. */
#pragma once

#include "base/loop.h"
#include "core/address.h"
#include "deliver/resolver.h"

enum {
    SIDE_LOOKUP_MS = 2000, /* a name that takes longer counts as one that does not resolve now */
    SIDE_LINGER_MS = 5000,
    SIDE_LINGER_BYTES_MAX = 64 * 1024 * 1024,
    SIDE_LINGERS_MAX = 64, /* at a time; one more sender is cut off at once */
};

struct side;

/* `addresses` outlives it. name_servers: "IP:PORT,…", NULL: resolv.conf's. */
int side_start(const struct address_policy *addresses, const char *name_servers, struct side **ret) MUST_USE;
/* Every lookup must have been answered. Lingering connections are cut. */
void side_stop(struct side *s); /* NULL-safe */

/* The loop that its thread runs. */
struct loop *side_loop(struct side *s);

/* A name to be judged, embedded by the caller, who keeps it until done. Any thread may call. */
struct side_lookup {
    char host[URL_HOST_MAX + 1];
    uint16_t port;
    /* On the side's thread: `refused` is NULL, also when the name does not resolve now, or a static text that
     * reads on after "an address that". */
    void (*done)(struct side_lookup *l, const char *refused);
    /* private: */
    struct loop_message message;
    struct resolver_query query;
    struct side *side;
};
void side_judge(struct side *s, struct side_lookup *l);

/* Takes over a socket whose other end may still be sending: reads and drops what comes until it closes, so
 * that the answer it was sent is not lost to a reset. Any thread. */
void side_linger(struct side *s, int fd);
