/* A simulator of the partition protocol: several nodes on one store, in virtual time, with seeded chance.
 * Real are the plan, membership, placing and changes of tiers of nodes (src/cluster) and their lanes
 * (src/lanes); the store, the writers, the loops' threads and the network stand here. A node's thread is a
 * coroutine: wherever the real one waits for the store, others run. */
#pragma once

#include <ucontext.h>

#include "base/random.h"
#include "cluster/node_state.h"

enum {
    LANES = 24,
    NODES = 6, /* processes at one time; one that ends makes place for another */
    ROWS = 4000,
    LEASE_MS = 3000,
    TIMEOUT_MS = 1000, /* of an attempt */
    LEASE_MARGIN_MS = 10000,
    FAULTS_END_MS = 90000,
    END_MS = 150000,
    STACK_SIZE = 512 * 1024,
};

enum plant {
    PLANT_NONE,
    PLANT_FENCE,   /* what a buried node writes is taken */
    PLANT_INHERIT, /* attempts of the owner before do not count */
    PLANT_RELEASE, /* lanes that are given away go on claiming */
    PLANT_HASTE,   /* a node is buried a second before its lease ends */
    PLANT_SEND,    /* a node whose lease is over goes on sending */
    PLANT_FORGET,  /* what is due in lanes that come is not looked for */
    PLANT_TIERS,   /* a lane whose tier has changed begins while the node before still serves it */
    PLANTS
};
extern const char *const plant_names[PLANTS];

/* One process. */
struct process {
    struct node node;                              /* its number is me.no */
    struct subscription *subscriptions[LANES + 1]; /* as it knows them */
    uint64_t tiers_heard[LANES + 1];               /* changes that its feed has told */
    struct lanes *lanes;
    struct tenant_budgets *tenants;
    ucontext_t context;
    char *stack;
    bool up, ended; /* it runs; its thread has left */
    bool woken;
    int64_t frozen_until, cut_off_until, writer_free_at, mail_at;
    atomic_int_fast64_t send_until_us;
    unsigned releases_asked, releases_done;
    bool turn_under_way;
    struct settlement_of *ended_attempts;
};

enum row_state { ROW_DUE, ROW_ATTEMPTING, ROW_DELIVERED };
struct row {
    uint32_t lane, number, node; /* node: that has claimed it */
    enum row_state state;
    bool refused; /* by the node that has claimed it: it is never sent, and counts against no cap */
    int64_t due_at, lease_until;
};

/* The shared store. */
struct shared {
    struct {
        uint32_t no, tiers;
        int64_t lease_until;
        uint64_t tier_changes;
    } nodes[NODES * 64];
    size_t nodes_n;
    uint32_t owners[TIERS][PARTITIONS];
    enum tenant_tier tiers[LANES + 1]; /* each lane is a tenant's of its own */
    uint64_t tier_change[LANES + 1], tier_changes;
    struct row rows[ROWS];
    size_t rows_n;
};

struct sim {
    uint64_t seed;
    struct rng rng;
    int64_t now;
    enum plant plant;
    struct shared store;
    struct policy *policies[LANES + 1];
    struct process *processes[NODES], *running; /* whose thread runs */
    ucontext_t scheduler;
    uint32_t last_no;
    bool violated;
    bool verbose;
    uint64_t sends, moves, burials, promotions;
};
extern struct sim sim;

bool chance(double p);
int64_t between(int64_t from, int64_t to);
void violate(const char *what, uint32_t node, uint32_t lane);

/* Calls fn(p, arg) in in_ms. `store`: it takes place in the store, also while the process is frozen; else it
 * waits until that wakes. Nothing happens when the process has ended. */
void after(int64_t in_ms, struct process *p, bool store, void (*fn)(struct process *p, void *arg), void *arg);
/* The running thread waits. */
void sleep_ms(int64_t ms);

/* ---- store.c ---- */
bool store_knows(uint32_t no);
/* Its row goes, and what it owned is free. */
void store_leave(uint32_t no);
/* A transaction of the process takes place: false when it is buried, and then ends it. */
bool store_transaction(struct process *p);
void store_claim_rows(struct process *p, struct lane_claim *claim, uint32_t *rows, size_t *n);
void store_end_row(uint32_t row, uint32_t number, bool success);
void store_reap(struct process *p);
void store_publish(void);

/* ---- process.c ---- */
struct process *process_of(const void *node);
void process_start(void);
void process_end(struct process *p);
void process_stop(struct process *p); /* planned */
/* It changes some lane's tier. */
void process_change_tier(struct process *p);
void tell_lane(struct process *from, uint32_t lane, int64_t due_at);
