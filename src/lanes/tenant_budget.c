/* A tenant's caps over all its lanes, exact on one node: the loops share these counters. */
#include "lanes/tenant_budget.h"

#include <errno.h>
#include <pthread.h>
#include <uthash.h>

#include "lanes/bucket.h"

struct tenant_budget {
    uint32_t tenant_no;
    uint32_t max_in_flight; /* 0: no cap */
    uint32_t per_minute;    /* 0: no limit */
    uint32_t in_flight;
    struct bucket bucket;
    bool bucket_started;
    pthread_mutex_t *lock; /* of the whole table: held for a few instructions */
    UT_hash_handle hh;
};

struct tenant_budgets {
    pthread_mutex_t lock;
    struct tenant_budget *by_no;
};

int tenant_budgets_new(struct tenant_budgets **ret) {
    struct tenant_budgets *b = calloc(1, sizeof *b);
    if (!b)
        return -ENOMEM;
    pthread_mutex_init(&b->lock, NULL);
    *ret = b;
    return 0;
}

void tenant_budgets_free(struct tenant_budgets *b) {
    if (!b)
        return;
    struct tenant_budget *t, *next;
    HASH_ITER (hh, b->by_no, t, next) {
        HASH_DEL(b->by_no, t);
        free(t);
    }
    pthread_mutex_destroy(&b->lock);
    free(b);
}

struct tenant_budget *tenant_budget_of(struct tenant_budgets *b, uint32_t tenant_no) {
    pthread_mutex_lock(&b->lock);
    struct tenant_budget *t;
    HASH_FIND(hh, b->by_no, &tenant_no, sizeof tenant_no, t);
    if (!t && (t = calloc(1, sizeof *t))) {
        t->tenant_no = tenant_no;
        t->lock = &b->lock;
        HASH_ADD(hh, b->by_no, tenant_no, sizeof t->tenant_no, t);
    }
    pthread_mutex_unlock(&b->lock);
    return t;
}

int tenant_budgets_put(struct tenant_budgets *b, uint32_t tenant_no, const struct tenant_limits *limits) {
    struct tenant_budget *t = tenant_budget_of(b, tenant_no);
    if (!t)
        return -ENOMEM;
    pthread_mutex_lock(t->lock);
    t->max_in_flight = limits->max_in_flight;
    if (t->per_minute != limits->deliveries_per_minute)
        t->bucket_started = false;
    t->per_minute = limits->deliveries_per_minute;
    pthread_mutex_unlock(t->lock);
    return 0;
}

/* A minute's quota may come in ten bursts. */
static double burst_of(const struct tenant_budget *t) {
    return t->per_minute < 10 ? 1 : t->per_minute / 10.0;
}

uint32_t tenant_budget_take(struct tenant_budget *t, uint32_t n, int64_t now, enum lane_wait *ret_cause) {
    pthread_mutex_lock(t->lock);
    if (t->max_in_flight) {
        uint32_t free_places = t->max_in_flight > t->in_flight ? t->max_in_flight - t->in_flight : 0;
        if (n > free_places) {
            n = free_places;
            *ret_cause = LANE_WAIT_CONCURRENCY;
        }
    }
    if (t->per_minute && n) {
        if (!t->bucket_started) {
            bucket_init(&t->bucket, burst_of(t), now);
            t->bucket_started = true;
        }
        uint32_t tokens = bucket_available(&t->bucket, t->per_minute / 60.0, burst_of(t), now);
        if (n > tokens) {
            n = tokens;
            *ret_cause = LANE_WAIT_RATE_LIMIT;
        }
        bucket_take(&t->bucket, n);
    }
    t->in_flight += n;
    pthread_mutex_unlock(t->lock);
    return n;
}

void tenant_budget_return(struct tenant_budget *t, uint32_t n, bool unused) {
    if (!n)
        return;
    pthread_mutex_lock(t->lock);
    CHECK(t->in_flight >= n);
    t->in_flight -= n;
    if (unused && t->per_minute && t->bucket_started)
        bucket_return(&t->bucket, n, burst_of(t));
    pthread_mutex_unlock(t->lock);
}
