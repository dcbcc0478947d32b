/* Many processes, nodes, on one shared store: who lives, who owns which partitions, what others have changed,
 * and what they tell each other. For a shared store alone (store_is_shared): a store of one process owns
 * everything and hears of nobody.
 *
 * A node's lease is a row that every commit of its writer renews. When it has run out another node may bury
 * it: from then on no transaction of it is committed, and the process ends (exit status 75) when it tries. */
#pragma once

#include "core/partition.h"
#include "store/store.h"

enum { NODES_MAX = ID_SLOTS_MAX, NODE_NAME_SIZE = 128 };

/* Whether several processes may be on it. */
bool store_is_shared(const struct store *s);

/* ---- of this node, on the writer's thread within a transaction ---- */

enum node_role { ROLE_API = 1, ROLE_FANOUT = 2, ROLE_DELIVER = 4, ROLES_ALL = 7 };

struct node_entry {
    uint32_t roles;   /* set of enum node_role */
    uint32_t tiers;   /* set of 1 << enum tenant_tier that it delivers */
    const char *name; /* for people */
    int64_t lease_ms;
};
/* Makes this process, which store_register_worker has entered in this very transaction, a node. */
int store_join(struct store *s, const struct node_entry *e, uint32_t *ret_no, uint32_t *ret_slot) MUST_USE;
/* Writes what makes the commit renew the lease when there is nothing else to write, and how far the node has
 * come with changes (feed_position). */
int store_heartbeat(struct store *s, uint64_t applied) MUST_USE;
/* It delivers these tiers from now on: 0 before it ends, so that others take its partitions. */
int store_set_node_tiers(struct store *s, uint32_t tiers) MUST_USE;
/* Numbers the change of a tenant's tier that this transaction makes. -ENOENT. */
int store_change_tier(struct store *s, uint32_t tenant_no, uint64_t *ret) MUST_USE;
/* All changes of tiers up to this number are in force here: no claim that comes after goes by an older
 * tier. */
int store_set_tier_changes(struct store *s, uint64_t change) MUST_USE;
/* Until when this node may send, on the monotonic clock (µs), with a margin for the sending itself: moves on
 * with each commit. */
const atomic_int_fast64_t *store_send_until(struct store *s);

/* Declares a node dead whose lease has run out, and frees its partitions: 1. 0: it lives, or is buried. */
int store_bury_node(struct store *s, uint32_t no) MUST_USE;
/* Takes those of the partitions that nobody has; moves them to the front of `nos`, *ret_n tells how many. */
int store_take_partitions(struct store *s, enum tenant_tier tier, uint16_t *nos, size_t n,
                          size_t *ret_n) MUST_USE;
/* Gives away those of them that are this node's. */
int store_give_partitions(struct store *s, enum tenant_tier tier, const uint16_t *nos, size_t n) MUST_USE;

/* A fan-out job that no other node is at work on, the oldest after `after_key`, for this transaction alone;
 * none while changes that the job may depend on are not in force here. -ENOENT. On a store that is not shared
 * the first that store_list_jobs gives. */
int store_take_job(struct store *s, uint64_t after_key, struct fanout_job *ret) MUST_USE;
/* Whether the transaction that was rolled back last came to nothing because another node has written the same
 * at the same time, an idempotency key: what is tried again finds it. On a store that is not shared: false.
 */
bool store_clashed(struct store *s);
/* Within a transaction, to its end: no other node is past this call in one of its own. */
int store_be_alone(struct store *s) MUST_USE;
/* Whether this node has the duty of this number, which one node at a time has, for as long as its connection
 * lasts. On a store that is not shared: always. */
enum store_duty { DUTY_HOUSEKEEPING, DUTIES };
int store_try_duty(struct store *s, enum store_duty duty, bool *ret) MUST_USE;

/* ---- the feed: a connection of the node's own thread ---- */

struct store_feed;
int store_feed_open(struct store *s, struct store_feed **ret) MUST_USE;
void store_feed_close(struct store_feed *f); /* NULL-safe */

struct node_row {
    uint32_t no, roles, tiers;
    char name[NODE_NAME_SIZE];
    int64_t lease_left_ms; /* by the store's clock; below 0: it may be buried */
};
struct cluster_view {
    struct node_row nodes[NODES_MAX]; /* ascending by number */
    size_t n;
    uint32_t owners[TIERS][PARTITIONS]; /* numbers of nodes, 0: nobody's */
    int64_t clock_offset_us; /* of the store's clock to this machine's, for clock_set_offset, … */
    int64_t clock_error_us;  /* … give or take so much */
};
int store_feed_view(struct store_feed *f, struct cluster_view *ret) MUST_USE;

/* What other nodes have changed in the control plane: a tenant, a subscription and all that belongs to it, an
 * API key (`no`: the key of its id). Stored: append only. */
enum feed_kind { FEED_TENANT = 1, FEED_SUBSCRIPTION, FEED_KEY };
struct feed_change {
    enum feed_kind kind;
    uint32_t tenant_no;
    uint64_t no;
};
/* Up to where a node knows. */
struct feed_position {
    uint64_t from;         /* everything before is known */
    uint64_t known;        /* how many after it are */
    uint32_t timeline;     /* of the database: its transactions' numbers mean something there */
    uint64_t tier_changes; /* up to this number they are among what is known */
};
enum { FEED_CHANGES_MAX = 1000 };
/* The next up to FEED_CHANGES_MAX changes that were not told yet, in no particular order; *p is where this
 * node is once they are in force. The first call tells nothing: what memory is filled with afterwards knows
 * all that is before. */
int store_feed_changes(struct store_feed *f, struct feed_change *ret, size_t *ret_n,
                       struct feed_position *p) MUST_USE;
/* On the writer's thread, outside of a transaction: what was told up to there is in force on this node; jobs
 * that need no more may be taken. */
void store_feed_applied(struct store *s, const struct feed_position *p);

/* Attempts that other nodes, or this one's predecessors, have under way in partitions that are ours now. */
struct feed_attempt {
    uint64_t event_key;
    uint32_t subscription_no, tenant_no, number;
};
typedef int (*feed_attempt_fn)(void *arg, const struct feed_attempt *row);
int store_feed_attempts(struct store_feed *f, const struct partition_set *partitions, feed_attempt_fn fn,
                        void *arg) MUST_USE;
/* Moves those that are still under way to the front; *ret_n tells how many. */
int store_feed_under_way(struct store_feed *f, struct feed_attempt *attempts, size_t n,
                         size_t *ret_n) MUST_USE;
/* Whether any attempt of this lane is under way. */
int store_feed_sending(struct store_feed *f, uint32_t subscription_no, bool *ret) MUST_USE;
/* Whose tiers are known alike to all nodes that deliver, at one moment. A tenant's lanes may be begun by the
 * node that its tier makes their owner when its own knowledge of the tier is not older, and known to all. */
enum { TIERS_OPEN_MAX = 4096 };
struct tier_view {
    uint64_t in_force;             /* changes up to this number are in force on all of them, … */
    uint32_t open[TIERS_OPEN_MAX]; /* … but these tenants, ascending, have later ones */
    size_t n;
};
/* -E2BIG: more than TIERS_OPEN_MAX have. */
int store_feed_tiers(struct store_feed *f, struct tier_view *ret) MUST_USE;
/* As store_list_lanes_due, of these partitions (whatever their tier). Moves *after_no on; *ret_more: to go on
 * from there. */
int store_feed_lanes_due(struct store_feed *f, const struct partition_set *partitions, uint32_t *after_no,
                         struct lane_due *ret, size_t max, size_t *ret_n, bool *ret_more) MUST_USE;

/* What nodes tell each other: a text of at most FEED_TEXT_MAX bytes without NUL, to all. Lost when a node is
 * not listening: whatever is told must be found by looking, too. */
enum { FEED_TEXT_MAX = 7000 };
int store_feed_tell(struct store_feed *f, const char *text) MUST_USE;
/* Waits until something was told, wake_fd is readable, or the time has passed. `heard` gets each text of
 * another node. *ret_changed: a node says that it has changed the control plane. */
typedef void (*feed_text_fn)(void *arg, const char *text);
int store_feed_wait(struct store_feed *f, int wake_fd, int timeout_ms, feed_text_fn heard, void *arg,
                    bool *ret_changed) MUST_USE;
