/* A node from the inside, as the rooms behind node.h share it: node.c (its thread), membership.c, placing.c,
 * tiers.c, changes.c, notices.c, questions.c, deletions.c, shares.c, quotas.c. On the node's thread unless
 * said otherwise. */
#pragma once

#include <pthread.h>
#include <semaphore.h>

#include "cluster/lane_starts.h"
#include "cluster/node.h"

enum {
    NOTICES_MAX = 8192, /* that wait to be told; with more, others are asked to look for themselves */
    LANES_A_LOOK = 1024,
    INHERITED_A_LOOK = 1000,
};

/* A deletion that waits until another node has stopped sending. */
struct stop_wait {
    uint32_t no;
    enum tenant_tier tier;
    void (*fn)(void *arg);
    void *arg;
    int64_t until_us, ask_at_us;
    bool said; /* the owner has */
    struct stop_wait *next;
};

/* A deleted lane of this node of which something is in flight; or a question about one. */
struct stopping {
    struct node *n;
    uint32_t no;
    bool asked;
    struct stopping *next;
};

struct node {
    struct store *store;
    struct store_feed *feed;
    struct store_reader *reader;
    struct node_setup me;
    struct node_parts parts;
    struct ownership ownership;
    pthread_t thread;
    bool started;
    atomic_bool leaving, ending;
    sem_t left;
    int wake_fd;
    struct writer_job heartbeat_job;
    atomic_bool beating;
    atomic_int_fast64_t clock_error_us;
    atomic_uint_fast64_t applied; /* feed_position.from that is in force */

    struct cluster_view view;
    int64_t looked_at_us, well_since_us; /* the last look at the store; since when there was no long gap */
    int64_t look_at_us, changes_at_us, due_at_us, inherited_at_us, jobs_at_us, waits_at_us, tiers_at_us,
        quotas_at_us;
    struct feed_change changes[FEED_CHANGES_MAX];
    size_t changes_n;
    struct feed_position position;
    struct feed_attempt *inherited;
    size_t inherited_n, inherited_cap;

    struct apply_walks walks;
    uint64_t tier_changes, tier_changes_told; /* up to these all are in force here; as others know */
    struct tier_view tiers;                   /* by which lanes are held back: the writer's thread's, … */
    struct tier_view tiers_next;              /* … as is what it is to become, … */
    uint32_t settled_to;                      /* … and is for lanes below this number */
    atomic_bool holding;                      /* some lane is held back */

    struct quota *quotas; /* in use, here or elsewhere */
    struct quota_asked *asked_elsewhere;
    int64_t quotas_run_us;

    /* Of all threads, under the lock. */
    pthread_mutex_t lock;
    struct lane_notice notices[NOTICES_MAX];
    size_t notices_n;
    bool too_many, jobs_made;
    struct stop_wait *waits;
    struct question *questions;
    uint32_t last_question;
    struct stopping *stopping;
    uint32_t *stopped; /* of these, told next */
    size_t stopped_n, stopped_cap;
};

/* ---- node.c ---- */

/* A step on the writer's thread, waited for: `run` within a transaction (NULL: nothing to write), `done`
 * after its commit, unless it failed. Returns run's result, or the commit's error. */
int node_write(struct node *n, int (*run)(struct node *n, struct store *s, void *arg),
               void (*done)(struct node *n, void *arg), void *arg) MUST_USE;
void node_wake(struct node *n); /* any thread */
/* Waits for up to so long, telling and hearing meanwhile. */
void node_talk(struct node *n, int timeout_ms);

/* ---- membership.c ---- */
void membership_look(struct node *n);
/* Gives all that is this node's, for it ends. */
void membership_leave(struct node *n);
bool membership_alive(const struct node *n, uint32_t no);

/* ---- placing.c ---- */
/* Puts the lanes of partitions that were taken in place, and looks for what is due in them. */
void placing_run(struct node *n, const struct partition_set *taken);
/* The same of lanes that were held back by n->tiers, and are not by this: which then takes its place. */
void placing_settle(struct node *n, const struct tier_view *tiers);
/* All that is due in this node's lanes. */
void placing_look_due(struct node *n);
void placing_check_inherited(struct node *n);

/* ---- tiers.c ---- */
/* The tenant's tier is not yet known alike to all. */
bool tiers_open(const struct tier_view *v, const struct subscription *s);
/* On the writer's thread: dispatch_node's holds_back. */
bool tiers_hold(void *arg, const struct subscription *s);
/* Whether there is something to wait for. */
bool tiers_pending(const struct node *n);
/* Tells what is in force, and lets those lanes begin that need wait no longer. */
void tiers_run(struct node *n);
void tiers_settle(struct node *n);

/* ---- changes.c ---- */
void changes_apply(struct node *n);

/* ---- notices.c ---- */
void notices_elsewhere(void *arg, const struct lane_notice *notices, size_t count); /* any thread */
void notices_tell(struct node *n);
void notices_hear(void *arg, const char *text);

/* ---- questions.c ---- */
void questions_ask(struct node *n);
void questions_heard(struct node *n, const char *text);
void questions_answered(struct node *n, const char *text);

/* ---- deletions.c ---- */
void deletions_run(struct node *n);
/* They wait no longer. */
void deletions_give_up(struct node *n);
void deletions_heard(struct node *n, uint32_t no);
/* Another node asks whether this one still sends for a lane. */
void deletions_asked(struct node *n, uint32_t no);
/* The questions that came before this node's changes were applied last. */
void deletions_answer(struct node *n);
/* On the writer's thread: a subscription that another node has deleted. */
void deletions_remove(struct node *n, uint32_t no);

/* ---- quotas.c ---- */
bool quotas_pending(const struct node *n);
/* What was asked for here is told, and quotas are shared out by what all have told. */
void quotas_run(struct node *n);
void quotas_heard(struct node *n, const char *text);
void quotas_clear(struct node *n);

/* ---- shares.c: on the writer's thread ---- */
/* Tenants' caps, as far as they are this node's. */
void shares_set(struct node *n);
