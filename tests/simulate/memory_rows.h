/* The rows of the store, as memory_store.c and memory_lanes.c share them. */
#pragma once

#include "memory_store.h"

struct memory_lane {
    struct memory_subscription subscription;
    uint32_t *open; /* rows, in no order */
    size_t n, cap;
};

enum undo_kind { UNDO_DELIVERY, UNDO_INSERT, UNDO_SUBSCRIPTION, UNDO_EVENT, UNDO_JOB, UNDO_NEW_JOB };

struct undo {
    enum undo_kind kind;
    size_t at;
    union {
        struct memory_delivery delivery;
        struct memory_subscription subscription;
        struct fanout_job job;
    };
};

struct store {
    struct memory_tenant tenants[MEMORY_TENANTS_MAX];
    struct memory_lane *lanes; /* by number - 1 */
    struct memory_delivery *deliveries;
    struct memory_event *events; /* ascending by key */
    struct fanout_job *jobs;     /* the same; those done stay */
    uint32_t *slots;             /* row + 1 by hash, 0: free */
    struct undo *undo;
    struct memory_change *changes; /* of the transaction */
    size_t lanes_n, deliveries_n, events_n, jobs_n, slots_n, undo_n, changes_n;
    size_t lanes_cap, deliveries_cap, events_cap, jobs_cap, undo_cap, changes_cap;
    size_t savepoint_undo, savepoint_changes;
    uint64_t transactions;
    bool in_transaction;
    double failing;
    int calls_left; /* until one fails, 0: none will */
    int64_t broken_until;
};
extern struct store the_store;

/* -EIO when this call is to fail. */
int memory_fails(struct store *s) MUST_USE;
/* Both within a transaction, which may undo them. */
void memory_write(struct store *s, uint32_t row, const struct memory_delivery *d);
uint32_t memory_insert(struct store *s, const struct memory_delivery *d);
/* Tells the judges, once it is committed. */
struct memory_change *memory_change(struct store *s, enum change_kind kind, uint32_t row,
                                    const struct memory_delivery *before, int64_t now);
