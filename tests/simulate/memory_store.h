/* The store of the simulator: what store.h promises about claiming, settling, order and leases, in plain
 * arrays. Each event has one delivery; the delivery of event key k is at k - 1. Never durable, may be told to
 * misbehave. */
#pragma once

#include "store/store.h"

enum { MEMORY_LANES_MAX = 16 };

enum plant { PLANT_NONE, PLANT_FENCING, PLANT_CAP, PLANT_FIFO };

struct memory_delivery {
    uint32_t subscription_no;
    enum delivery_state state;
    enum delivery_reason reason;
    uint32_t attempts, base, uncounted;
    uint64_t lane_key;
    int64_t due_at; /* 0: blocked, leased or closed */
    int64_t order_at, window_at, lease_until;
    bool replayed;
};

struct memory_lane {
    uint64_t *open; /* event keys */
    size_t n, cap;
};

struct memory_store {
    enum plant plant;
    struct memory_delivery *deliveries;
    size_t n, cap;
    struct memory_lane lanes[MEMORY_LANES_MAX];
    void (*expired)(void *arg, uint64_t event_key);
    void *arg;
};

struct memory_delivery *memory_store_at(struct memory_store *s, uint64_t event_key);
void memory_store_insert(struct memory_store *s, const struct new_delivery *d);
/* As store_claim, for one lane; appends at most c->limit tasks. */
void memory_store_claim(struct memory_store *s, struct lane_claim *c, int64_t now, struct task *tasks,
                        size_t *tasks_n);
void memory_store_settle(struct memory_store *s, struct settlement *i);
void memory_store_expire(struct memory_store *s, const struct lane_expiry *e, int64_t now);
size_t memory_store_expired_leases(struct memory_store *s, int64_t before, struct task *ret, size_t max);
int64_t memory_store_earliest(const struct memory_store *s, uint32_t no); /* INT64_MAX: nothing waits */
void memory_store_replay(struct memory_store *s, uint64_t event_key, uint64_t lane_key, int64_t now);
void memory_store_clear(struct memory_store *s);
