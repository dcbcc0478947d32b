/* A tenant's events_per_second hold over all nodes. Each goes by its share: as much as it is asked for of
 * what all are asked for. What nobody tells of is so little that every node has room for it. */
#include <errno.h>
#include <stdio.h>
#include <uthash.h>

#include "base/clock.h"
#include "base/log.h"
#include "cluster/node_state.h"

enum {
    TOLD_FOR_MS = 5000,     /* what another node has told counts for so long */
    SPARE_PARTS = 8,        /* a node that is asked for little may take this part of an even share */
    ELSEWHERE_MAX = 100000, /* of tenants, of nodes each; more count as nothing */
};

#define OWN_LEAST 0.1 /* below it, nothing was asked for lately */

struct quota {
    uint32_t tenant_no, per_second;
    double own, elsewhere; /* asked for, a second; no more than the quota by any node */
    UT_hash_handle hh;
};

struct quota_asked {
    struct quota_asker {
        uint32_t tenant_no, node;
    } by;
    uint32_t per_second;
    int64_t until_us;
    UT_hash_handle hh;
};

bool quotas_pending(const struct node *n) {
    return n->view.n > 1 || n->quotas;
}

static double least_share(const struct node *n) {
    return 1.0 / (SPARE_PARTS * (double)(n->view.n ? n->view.n : 1));
}

static struct quota *quota_of(struct node *n, uint32_t tenant_no) {
    struct quota *q;
    HASH_FIND_INT(n->quotas, &tenant_no, q);
    if (q || !(q = calloc(1, sizeof *q)))
        return q;
    q->tenant_no = tenant_no;
    HASH_ADD_INT(n->quotas, tenant_no, q);
    return q;
}

/* ---- what is asked for here ---- */

struct asking {
    struct node *n;
    double seconds; /* since the last time */
};

static void add_own(void *arg, uint32_t tenant_no, uint32_t per_second, uint64_t asked) {
    const struct asking *a = arg;
    struct quota *q = quota_of(a->n, tenant_no);
    if (!q)
        return; /* no memory: the next time */
    q->per_second = per_second;
    double rate = (double)asked / a->seconds;
    q->own += (rate < per_second ? rate : per_second) / 2;
}

static void tell(struct node *n) {
    enum { ONE_MAX = 24 };
    char text[FEED_TEXT_MAX + 1];
    struct quota *q = n->quotas;
    while (q && n->view.n > 1) {
        int start = snprintf(text, sizeof text, "e %u", n->me.no);
        size_t at = (size_t)start;
        for (; q && at < FEED_TEXT_MAX - ONE_MAX; q = q->hh.next)
            if (q->own > OWN_LEAST && q->own >= q->per_second * least_share(n))
                at += (size_t)snprintf(text + at, ONE_MAX, " %u:%u", q->tenant_no, (unsigned)(q->own + 1));
        if (at > (size_t)start)
            (void)!store_feed_tell(n->feed, text); /* found to be less when it is lost, until the next */
    }
}

/* ---- what is asked for elsewhere ---- */

void quotas_heard(struct node *n, const char *text) {
    char *at;
    struct quota_asker by = {.node = (uint32_t)strtoul(text + 1, &at, 10)};
    while (*at == ' ') {
        by.tenant_no = (uint32_t)strtoul(at + 1, &at, 10);
        uint32_t per_second = *at == ':' ? (uint32_t)strtoul(at + 1, &at, 10) : 0;
        struct quota_asked *a;
        HASH_FIND(hh, n->asked_elsewhere, &by, sizeof by, a);
        if (!a && HASH_COUNT(n->asked_elsewhere) < ELSEWHERE_MAX && (a = calloc(1, sizeof *a))) {
            a->by = by;
            HASH_ADD(hh, n->asked_elsewhere, by, sizeof a->by, a);
        }
        if (!a)
            return;
        a->per_second = per_second;
        a->until_us = clock_mono_us() + TOLD_FOR_MS * INT64_C(1000);
    }
}

static void add_elsewhere(struct node *n) {
    struct quota_asked *a, *next;
    int64_t now_us = clock_mono_us();
    HASH_ITER (hh, n->asked_elsewhere, a, next) {
        struct quota *q = a->until_us > now_us ? quota_of(n, a->by.tenant_no) : NULL;
        if (q) {
            q->elsewhere += a->per_second;
            continue;
        }
        HASH_DEL(n->asked_elsewhere, a);
        free(a);
    }
}

/* ---- sharing ---- */

static double share_of(const struct node *n, const struct quota *q) {
    double share = q->elsewhere > 0 ? q->own / (q->own + q->elsewhere) : 1, least = least_share(n);
    return share > least ? share : least;
}

void quotas_run(struct node *n) {
    struct quota *q, *next;
    int64_t now_us = clock_mono_us();
    struct asking a = {n, (double)(now_us - n->quotas_run_us) / 1e6};
    bool first = n->quotas_run_us == 0;
    n->quotas_run_us = now_us;
    for (q = n->quotas; q; q = q->hh.next) {
        q->own /= 2;
        q->elsewhere = 0;
    }
    if (first || a.seconds <= 0)
        a.seconds = 1; /* since nobody knows when */
    directory_take_asked(n->parts.directory, add_own, &a);
    tell(n);
    add_elsewhere(n);
    HASH_ITER (hh, n->quotas, q, next) {
        bool idle = q->own <= OWN_LEAST && q->elsewhere <= 0;
        directory_share_quota(n->parts.directory, q->tenant_no, idle ? 1 : share_of(n, q));
        if (idle) {
            HASH_DEL(n->quotas, q);
            free(q);
        }
    }
}

void quotas_clear(struct node *n) {
    struct quota *q, *next_q;
    struct quota_asked *a, *next_a;
    HASH_ITER (hh, n->quotas, q, next_q) {
        HASH_DEL(n->quotas, q);
        free(q);
    }
    HASH_ITER (hh, n->asked_elsewhere, a, next_a) {
        HASH_DEL(n->asked_elsewhere, a);
        free(a);
    }
}
