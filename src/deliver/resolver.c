#include "deliver/resolver.h"

#include <ares.h>
#include <errno.h>
#include <netdb.h>
#include <pthread.h>
#include <stddef.h>
#include <utlist.h>

#include "base/clock.h"

enum {
    NAME_LENGTH_MAX = 253,
    BUCKETS = RESOLVER_NAMES_MAX, /* a power of two */
    SOCKETS_MAX = 64,             /* one UDP and one TCP for each name server at most */
    TICK_US = 50000,              /* how closely the retries of the look-ups are timed */
    EDNS_BYTES = 1232,            /* fits every path unfragmented (DNS Flag Day 2020) */
};

/* In flight → settled (its waiters are about to be told) → cached → in flight again, or evicted. */
enum name_state { NAME_IN_FLIGHT, NAME_SETTLED, NAME_CACHED };

struct resolver_name {
    struct resolver *resolver;
    enum name_state state;
    int error; /* 0 or negative errno */
    size_t n;
    bool whole;                                        /* there were no more addresses than have room */
    struct in6_addr addresses[RESOLVER_ADDRESSES_MAX]; /* IPv4 as mapped */
    int64_t expires_us;
    struct resolver_query *waiters;
    struct resolver_name *prev, *next; /* in `settled` or `cached`, as the state says */
    struct resolver_name *next_in_bucket;
    size_t text_n;
    char text[];
};

struct socket_slot {
    struct loop_watch watch; /* first: the loop hands it back */
    struct resolver *resolver;
};

struct resolver {
    struct loop *loop;
    ares_channel channel;
    int64_t (*now_us)(void);
    struct loop_timer tick;
    struct socket_slot sockets[SOCKETS_MAX];
    struct resolver_name *buckets[BUCKETS];
    struct resolver_name *settled, *cached; /* oldest first */
    size_t name_count, in_flight_count, waiter_count;
    bool closing;
};

static struct resolver_name **bucket_of(struct resolver *r, struct slice host) {
    return &r->buckets[hash64(host.p, host.n) & (BUCKETS - 1)];
}

static struct resolver_name *find(struct resolver *r, struct slice host) {
    struct resolver_name *n = *bucket_of(r, host);
    while (n && !slice_eq((struct slice){n->text, n->text_n}, host))
        n = n->next_in_bucket;
    return n;
}

/* Takes a name out of its bucket and frees it; its list is the caller's matter. */
static void forget(struct resolver *r, struct resolver_name *n) {
    CHECK(!n->waiters);
    struct resolver_name **at = bucket_of(r, (struct slice){n->text, n->text_n});
    while (*at != n)
        at = &(*at)->next_in_bucket;
    *at = n->next_in_bucket;
    r->name_count--;
    free(n);
}

static int add(struct resolver *r, struct slice host, struct resolver_name **ret) {
    if (r->name_count == RESOLVER_NAMES_MAX) {
        struct resolver_name *oldest = r->cached;
        if (!oldest)
            return -EAGAIN;
        DL_DELETE(r->cached, oldest);
        forget(r, oldest);
    }
    struct resolver_name *n = calloc(1, sizeof *n + host.n + 1);
    if (!n)
        return -ENOMEM;
    n->resolver = r;
    memcpy(n->text, host.p, host.n);
    n->text_n = host.n;
    struct resolver_name **bucket = bucket_of(r, host);
    n->next_in_bucket = *bucket;
    *bucket = n;
    r->name_count++;
    *ret = n;
    return 0;
}

static void fill(const struct resolver_name *n, struct resolver_addresses *ret) {
    ret->n = n->n;
    ret->whole = n->whole;
    for (size_t i = 0; i < n->n; i++) {
        const struct in6_addr *a = &n->addresses[i];
        memset(&ret->a[i], 0, sizeof ret->a[i]);
        if (IN6_IS_ADDR_V4MAPPED(a)) {
            struct sockaddr_in in = {.sin_family = AF_INET};
            memcpy(&in.sin_addr, &a->s6_addr[12], sizeof in.sin_addr);
            memcpy(&ret->a[i], &in, sizeof in);
        } else {
            struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_addr = *a};
            memcpy(&ret->a[i], &in6, sizeof in6);
        }
    }
}

/* ---- what c-ares calls ---- */

static int error_of(int status) {
    switch (status) {
    case ARES_SUCCESS:
        return 0;
    case ARES_ENODATA:
    case ARES_ENOTFOUND:
    case ARES_EBADNAME:
        return -ENOENT;
    case ARES_ETIMEOUT:
        return -ETIMEDOUT;
    case ARES_ENOMEM:
        return -ENOMEM;
    default:
        return -EIO;
    }
}

static int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static void keep_address(struct resolver_name *n, const struct sockaddr *address) {
    struct in6_addr *to = &n->addresses[n->n++];
    if (address->sa_family == AF_INET) {
        struct sockaddr_in in;
        memcpy(&in, address, sizeof in);
        *to = (struct in6_addr){.s6_addr = {[10] = 0xff, [11] = 0xff}};
        memcpy(&to->s6_addr[12], &in.sin_addr, sizeof in.sin_addr);
    } else {
        struct sockaddr_in6 in6;
        memcpy(&in6, address, sizeof in6);
        *to = in6.sin6_addr;
    }
}

/* Copies what was found into n, IPv4 first, and returns how long it may be kept. */
static int64_t keep_addresses(struct resolver_name *n, const struct ares_addrinfo *all) {
    static const int families[] = {AF_INET, AF_INET6};
    int64_t ttl_us = RESOLVER_TTL_MAX_US;
    for (const struct ares_addrinfo_cname *c = all->cnames; c; c = c->next)
        ttl_us = least(ttl_us, c->ttl * INT64_C(1000000));
    for (unsigned i = 0; i < sizeof families / sizeof families[0]; i++) {
        for (const struct ares_addrinfo_node *a = all->nodes; a; a = a->ai_next) {
            if (a->ai_family != families[i])
                continue;
            if (n->n == RESOLVER_ADDRESSES_MAX) {
                n->whole = false;
                continue;
            }
            keep_address(n, a->ai_addr);
            ttl_us = least(ttl_us, a->ai_ttl * INT64_C(1000000));
        }
    }
    return ttl_us > RESOLVER_TTL_MIN_US ? ttl_us : RESOLVER_TTL_MIN_US;
}

static void found(void *arg, int status, int timeouts, struct ares_addrinfo *result) {
    (void)timeouts;
    struct resolver_name *n = arg;
    struct resolver *r = n->resolver;
    if (!r->closing) {
        CHECK(n->state == NAME_IN_FLIGHT);
        int64_t ttl_us = RESOLVER_FAILURE_TTL_US;
        n->error = error_of(status);
        n->n = 0;
        n->whole = true;
        if (n->error == 0)
            ttl_us = keep_addresses(n, result);
        if (n->error == 0 && n->n == 0)
            n->error = -ENOENT;
        n->expires_us = r->now_us() + ttl_us;
        n->state = NAME_SETTLED;
        DL_APPEND(r->settled, n);
        r->in_flight_count--;
    }
    if (result)
        ares_freeaddrinfo(result);
}

static struct socket_slot *slot_of(struct resolver *r, int fd) {
    for (size_t i = 0; i < SOCKETS_MAX; i++) {
        if (r->sockets[i].watch.fd == fd)
            return &r->sockets[i];
    }
    return NULL;
}

static void socket_state(void *arg, ares_socket_t fd, int readable, int writable) {
    struct resolver *r = arg;
    struct socket_slot *slot = slot_of(r, fd);
    uint32_t events = (readable ? EPOLLIN : 0U) | (writable ? EPOLLOUT : 0U);
    if (!events) {
        if (slot)
            loop_watch_clear(r->loop, &slot->watch);
        return;
    }
    if (!slot)
        slot = slot_of(r, -1);
    /* A socket that cannot be watched is a name server that does not answer: the look-up times out. */
    if (slot && loop_watch_set(r->loop, &slot->watch, fd, events) < 0)
        loop_watch_clear(r->loop, &slot->watch);
}

/* ---- telling the waiters ---- */

static void leave(struct resolver_query *q) {
    DL_DELETE(q->name->waiters, q);
    q->name = NULL;
    q->resolver->waiter_count--;
    loop_timer_clear(q->resolver->loop, &q->deadline);
}

static void cache(struct resolver *r, struct resolver_name *n) {
    CHECK(n->state == NAME_SETTLED);
    DL_DELETE(r->settled, n);
    n->state = NAME_CACHED;
    DL_APPEND(r->cached, n);
}

/* Ends: nobody can begin to wait for a name that is settled. */
static void tell_waiters(struct resolver *r) {
    while (r->settled) {
        struct resolver_name *n = r->settled;
        struct resolver_addresses addresses;
        fill(n, &addresses);
        while (n->waiters) {
            struct resolver_query *q = n->waiters;
            leave(q);
            q->fn(q, n->error, n->error ? NULL : &addresses);
        }
        cache(r, n);
    }
}

static void arm_tick(struct resolver *r) {
    if (r->settled)
        loop_timer_set(r->loop, &r->tick, clock_mono_us());
    else if (r->in_flight_count && !heap_contains(&r->tick.node))
        loop_timer_set(r->loop, &r->tick, clock_mono_us() + TICK_US);
}

static void process(struct resolver *r, ares_socket_t read_fd, ares_socket_t write_fd) {
    ares_process_fd(r->channel, read_fd, write_fd);
    tell_waiters(r);
    arm_tick(r);
}

static void ticked(struct loop_timer *t) {
    struct resolver *r = (struct resolver *)((char *)t - offsetof(struct resolver, tick));
    process(r, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
}

static void socket_ready(struct loop_watch *w, uint32_t events) {
    const struct socket_slot *slot = (const struct socket_slot *)w;
    bool failed = events & (EPOLLERR | EPOLLHUP);
    process(slot->resolver, events & EPOLLIN || failed ? w->fd : ARES_SOCKET_BAD,
            events & EPOLLOUT || failed ? w->fd : ARES_SOCKET_BAD);
}

static void deadline_passed(struct loop_timer *t) {
    struct resolver_query *q =
        (struct resolver_query *)((char *)t - offsetof(struct resolver_query, deadline));
    leave(q);
    q->fn(q, -ETIMEDOUT, NULL);
}

/* ---- the interface ---- */

static void begin(struct resolver *r, struct resolver_name *n) {
    /* To sort, the library would connect sockets to addresses that nobody has judged yet. */
    static const struct ares_addrinfo_hints hints = {
        .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = ARES_AI_NOSORT};
    if (n->state == NAME_CACHED)
        DL_DELETE(r->cached, n);
    n->state = NAME_IN_FLIGHT;
    r->in_flight_count++;
    /* May settle at once (hosts file), this name or, when a socket fails, others. */
    ares_getaddrinfo(r->channel, n->text, NULL, &hints, found, n);
    if (n->state == NAME_SETTLED)
        cache(r, n);
    arm_tick(r);
}

int resolver_lookup(struct resolver *r, struct resolver_query *q, struct slice host, int64_t deadline_us,
                    struct resolver_addresses *ret_addresses) {
    CHECK(q->fn && !q->name);
    if (host.n == 0 || host.n > NAME_LENGTH_MAX || memchr(host.p, '\0', host.n))
        return -EINVAL;
    struct resolver_name *n = find(r, host);
    if (!n) {
        int added = add(r, host, &n);
        if (added < 0)
            return added;
        begin(r, n);
    } else if (n->state == NAME_CACHED && n->expires_us <= r->now_us()) {
        begin(r, n);
    }
    if (n->state != NAME_IN_FLIGHT) {
        if (n->error)
            return n->error;
        fill(n, ret_addresses);
        return 1;
    }
    if (r->waiter_count == RESOLVER_WAITERS_MAX)
        return -EAGAIN;
    q->resolver = r;
    q->name = n;
    DL_APPEND(n->waiters, q);
    r->waiter_count++;
    q->deadline.fn = deadline_passed;
    loop_timer_set(r->loop, &q->deadline, deadline_us);
    return 0;
}

void resolver_cancel(struct resolver_query *q) {
    if (q->name)
        leave(q);
}

static pthread_once_t library_once = PTHREAD_ONCE_INIT;

static void library_init(void) {
    CHECK(ares_library_init(ARES_LIB_INIT_ALL) == ARES_SUCCESS);
}

static int open_channel(struct resolver *r, const struct resolver_options *o) {
    struct ares_options options = {
        .flags = ARES_FLAG_NOSEARCH | ARES_FLAG_NOALIASES | ARES_FLAG_EDNS,
        .timeout = o->try_ms ? o->try_ms : RESOLVER_TRY_MS,
        .tries = RESOLVER_TRIES,
        .ndots = 0,
        .ndomains = 0,
        .ednspsz = EDNS_BYTES,
        .sock_state_cb = socket_state,
        .sock_state_cb_data = r,
    };
    int mask = ARES_OPT_FLAGS | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_NDOTS | ARES_OPT_DOMAINS |
               ARES_OPT_EDNSPSZ | ARES_OPT_SOCK_STATE_CB;
    int status = ares_init_options(&r->channel, &options, mask);
    if (status != ARES_SUCCESS)
        return error_of(status);
    if (o->name_servers && ares_set_servers_ports_csv(r->channel, o->name_servers) != ARES_SUCCESS)
        return -EINVAL;
    return 0;
}

int resolver_new(struct loop *l, const struct resolver_options *options, struct resolver **ret) {
    static const struct resolver_options defaults;
    const struct resolver_options *o = options ? options : &defaults;
    pthread_once(&library_once, library_init);
    struct resolver *r = calloc(1, sizeof *r);
    if (!r)
        return -ENOMEM;
    r->loop = l;
    r->now_us = o->now_us ? o->now_us : clock_mono_us;
    r->tick.fn = ticked;
    for (size_t i = 0; i < SOCKETS_MAX; i++)
        r->sockets[i] = (struct socket_slot){.watch = {.fn = socket_ready, .fd = -1}, .resolver = r};
    int opened = open_channel(r, o);
    if (opened < 0) {
        resolver_free(r);
        return opened;
    }
    *ret = r;
    return 0;
}

void resolver_free(struct resolver *r) {
    if (!r)
        return;
    r->closing = true;
    if (r->channel)
        ares_destroy(r->channel);
    loop_timer_clear(r->loop, &r->tick);
    for (size_t i = 0; i < BUCKETS; i++) {
        while (r->buckets[i]) {
            struct resolver_name *n = r->buckets[i];
            while (n->waiters)
                leave(n->waiters);
            forget(r, n);
        }
    }
    CHECK(r->waiter_count == 0 && r->name_count == 0);
    free(r);
}
