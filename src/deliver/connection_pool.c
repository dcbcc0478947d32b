#include "deliver/connection_pool.h"

#include <errno.h>
#include <netinet/in.h>
#include <unistd.h>
#include <utlist.h>

#include "base/clock.h"

/* A failed allocation is told, it does not end the process. */
#define HASH_NONFATAL_OOM            1
#define uthash_nonfatal_oom(element) ((element)->left_out = true)
#include <uthash.h>

enum { LOOKED_AT_MAX = 16 /* kept connections of an origin that are tried for the right address */ };

struct connection_origin {
    UT_hash_handle hh;
    struct pooled *kept; /* latest used first */
    unsigned connections;
    bool left_out; /* memory was out */
    size_t authority_n;
    char authority[];
};

struct connection_pool {
    struct connection_pool_options o;
    struct connection_origin *origins;
    struct pooled *kept;
    unsigned kept_n;
    struct loop_timer age_timer;
};

/* ---- origins ---- */

static struct connection_origin *origin_find(struct connection_pool *p, struct slice authority) {
    struct connection_origin *o;
    HASH_FIND(hh, p->origins, authority.p, authority.n, o);
    return o;
}

static struct connection_origin *origin_get(struct connection_pool *p, struct slice authority) {
    struct connection_origin *o = origin_find(p, authority);
    if (o || !(o = calloc(1, sizeof *o + authority.n)))
        return o;
    memcpy(o->authority, authority.p, authority.n);
    o->authority_n = authority.n;
    HASH_ADD_KEYPTR(hh, p->origins, o->authority, o->authority_n, o);
    if (!o->left_out)
        return o;
    free(o);
    return NULL;
}

static void origin_leave(struct connection_pool *p, struct connection_origin *o) {
    CHECK(o->connections > 0);
    if (--o->connections > 0)
        return;
    HASH_DEL(p->origins, o);
    free(o);
}

/* ---- connections ---- */

int connection_pool_enter(struct connection_pool *p, struct slice authority, struct pooled *k) {
    struct connection_origin *o = origin_get(p, authority);
    if (!o)
        return -ENOMEM;
    k->origin = o;
    o->connections++;
    return 0;
}

void connection_pool_close_socket(struct connection_pool *p, struct pooled *k) {
    int fd = k->watch.fd;
    if (fd < 0)
        return;
    loop_watch_clear(p->o.loop, &k->watch);
    close(fd);
}

void connection_pool_close(struct connection_pool *p, struct pooled *k) {
    connection_pool_close_socket(p, k);
    origin_leave(p, k->origin);
    p->o.release(k);
}

/* ---- kept connections ---- */

static void unkeep(struct connection_pool *p, struct pooled *k) {
    DL_DELETE(k->origin->kept, k);
    DL_DELETE2(p->kept, k, idle_prev, idle_next);
    p->kept_n--;
}

void connection_pool_drop(struct connection_pool *p, struct pooled *k) {
    unkeep(p, k);
    connection_pool_close(p, k);
}

static void close_aged(struct loop_timer *t) {
    struct connection_pool *p =
        (struct connection_pool *)((char *)t - offsetof(struct connection_pool, age_timer));
    const int64_t age_us = POOL_IDLE_SECONDS_MAX * INT64_C(1000000);
    int64_t now_us = clock_mono_us();
    while (p->kept && p->kept->idle_since_us + age_us <= now_us)
        connection_pool_drop(p, p->kept);
    if (p->kept)
        loop_timer_set(p->o.loop, t, p->kept->idle_since_us + age_us);
}

void connection_pool_keep(struct connection_pool *p, struct pooled *k, int64_t now_us) {
    k->idle_since_us = now_us;
    DL_PREPEND(k->origin->kept, k);
    if (!p->kept)
        loop_timer_set(p->o.loop, &p->age_timer, now_us + POOL_IDLE_SECONDS_MAX * INT64_C(1000000));
    DL_APPEND2(p->kept, k, idle_prev, idle_next);
    if (++p->kept_n > p->o.kept_max)
        connection_pool_drop(p, p->kept);
}

static bool same_address(const struct sockaddr_storage *a, const struct sockaddr_storage *b) {
    if (a->ss_family != b->ss_family)
        return false;
    if (a->ss_family == AF_INET)
        return memcmp(&((const struct sockaddr_in *)a)->sin_addr, &((const struct sockaddr_in *)b)->sin_addr,
                      sizeof(struct in_addr)) == 0;
    return memcmp(&((const struct sockaddr_in6 *)a)->sin6_addr, &((const struct sockaddr_in6 *)b)->sin6_addr,
                  sizeof(struct in6_addr)) == 0;
}

static bool is_among(const struct sockaddr_storage *peer, const struct sockaddr_storage *addresses,
                     size_t n) {
    for (size_t i = 0; i < n; i++)
        if (same_address(peer, &addresses[i]))
            return true;
    return false;
}

struct pooled *connection_pool_take(struct connection_pool *p, struct slice authority,
                                    const struct sockaddr_storage *addresses, size_t n) {
    struct connection_origin *o = origin_find(p, authority);
    struct pooled *k = o ? o->kept : NULL;
    for (unsigned i = 0; k && i < LOOKED_AT_MAX; i++, k = k->next) {
        if (!is_among(&k->peer, addresses, n))
            continue;
        unkeep(p, k);
        return k;
    }
    return NULL;
}

/* ---- the pool ---- */

int connection_pool_new(const struct connection_pool_options *o, struct connection_pool **ret) {
    struct connection_pool *p = calloc(1, sizeof *p);
    if (!p)
        return -ENOMEM;
    p->o = *o;
    p->age_timer.fn = close_aged;
    *ret = p;
    return 0;
}

void connection_pool_free(struct connection_pool *p) {
    if (!p)
        return;
    while (p->kept)
        connection_pool_drop(p, p->kept);
    CHECK(!p->origins);
    loop_timer_clear(p->o.loop, &p->age_timer);
    free(p);
}
