/* Asynchronous name look-up for one loop, with a cache. One look-up is in flight per name; later askers of
 * the same name wait with the first. It asks the hosts file, then the name servers of resolv.conf, for IPv4
 * and IPv6 alike; a name is absolute, search domains are not tried. Everything runs on the loop's thread. */
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include "base/bytes.h"
#include "base/loop.h"

#define RESOLVER_ADDRESSES_MAX  32    /* of a name; with more it is not `whole` */
#define RESOLVER_NAMES_MAX      4096  /* cached or in flight; the oldest cached one makes room */
#define RESOLVER_WAITERS_MAX    65536 /* queries waiting in all */
#define RESOLVER_TTL_MIN_US     (1 * INT64_C(1000000))
#define RESOLVER_TTL_MAX_US     (30 * INT64_C(1000000))
#define RESOLVER_FAILURE_TTL_US (1 * INT64_C(1000000)) /* how long a failure is remembered, of any kind */
#define RESOLVER_TRIES          3
#define RESOLVER_TRY_MS         1500 /* the first try; each further one waits twice as long */

struct resolver;
struct resolver_name;

struct resolver_addresses {
    size_t n;                                          /* at least 1 when handed out */
    bool whole;                                        /* these are all that the name has */
    struct sockaddr_storage a[RESOLVER_ADDRESSES_MAX]; /* AF_INET and AF_INET6, port 0, IPv4 first */
};

/* What says no to addresses that cannot all be judged. */
#define RESOLVER_TOO_MANY_REASON "is one of more addresses than can be judged"

/* One asker, embedded by the caller, zero-initialised; not to be freed while it waits. */
struct resolver_query {
    /* Runs once, from the loop, unless cancelled before. `error` is 0, or as of resolver_lookup, or
     * -ETIMEDOUT when the deadline came first; `addresses` is NULL with an error and valid only during the
     * call. It may free the query, look up and cancel others, but not free the resolver. */
    void (*fn)(struct resolver_query *q, int error, const struct resolver_addresses *addresses);
    /* private: */
    struct loop_timer deadline;
    struct resolver *resolver;
    struct resolver_name *name; /* NULL: idle */
    struct resolver_query *prev, *next;
};

/* NULL stands for all defaults, zero for the default of each. */
struct resolver_options {
    const char *name_servers; /* "IP:PORT,…" in place of resolv.conf's */
    int try_ms;               /* in place of RESOLVER_TRY_MS */
    int64_t (*now_us)(void);  /* the clock the cache ages by; clock_mono_us */
};

/* 0, -EINVAL for malformed name servers, or -ENOMEM. The loop must outlive the resolver. */
int resolver_new(struct loop *l, const struct resolver_options *options, struct resolver **ret) MUST_USE;
/* NULL-safe. Queries that still wait become idle, their fn is not called. */
void resolver_free(struct resolver *r);

/* 1: known already, *ret_addresses is filled and fn will not run. 0: q waits, fn will run later, never from
 * within this call. An error, and q stays idle: -ENOENT no such name or no address, -ETIMEDOUT name servers
 * silent, -EIO they failed, -EINVAL not a name (1 to 253 bytes, no NUL), -EAGAIN too many in flight, -ENOMEM.
 * `deadline_us` is a moment of the monotonic clock. q must be idle. */
int resolver_lookup(struct resolver *r, struct resolver_query *q, struct slice host, int64_t deadline_us,
                    struct resolver_addresses *ret_addresses) MUST_USE;
/* Idempotent; fn is not called after it. The look-up itself goes on for the cache. */
void resolver_cancel(struct resolver_query *q);
