/* This process as a node among several on one shared store. Its thread watches who lives and who owns what,
 * takes the partitions that are its share and gives those that are another's, puts in force what other nodes
 * have changed, and tells and hears what is due in whose lanes. What it writes, the writer writes; what it
 * misses to hear, it finds by looking. */
#pragma once

#include "fanout/apply.h"
#include "fanout/pump.h"
#include "fanout/replayer.h"
#include "store/cluster.h"
#include "store/directory.h"

struct node;

struct node_setup {
    uint32_t no, roles, tiers; /* as in store_join */
    int64_t lease_ms;
};

/* After store_join, before memory is filled: what others change from now on is put in force later. The
 * store's clock is the process's from here on. */
int node_new(struct store *s, const struct node_setup *setup, struct node **ret) MUST_USE;
/* For the dispatcher; until node_start it owns no lane. */
void node_dispatch(struct node *n, struct dispatch_node *ret);
/* For apply_context. */
struct apply_walks *node_walks(struct node *n);

/* What the node acts on; all of it outlives the node's thread. */
struct node_parts {
    struct writer *writer;
    struct fanout *fanout;
    struct dispatch *dispatch;
    struct pump *pump;         /* NULL: fan-outs are none of its roles */
    struct replayer *replayer; /* NULL likewise */
    struct directory *directory;
    const struct apply_context *apply;
    struct metrics *metrics;
};
int node_start(struct node *n, const struct node_parts *parts) MUST_USE;
/* From any thread, a few times a lease: keeps the node alive while its writer has nothing else to do. */
void node_heartbeat(struct node *n);
/* On the writer's thread after a commit: what it has made for others to do is told them. */
void node_committed(struct node *n);
/* On the writer's thread: whether this node is to settle a lost lease of the lane. What its owner has left
 * for long is anybody's. */
bool node_reaps(struct node *n, uint32_t subscription_no, int64_t lease_until, int64_t now);
/* On the writer's thread, after the commit that changed a tenant: its caps are shared out. */
void node_tenant_changed(struct node *n);
/* On the writer's thread, after the commit that deleted the subscription: calls fn once nothing of it is
 * being sent any more, on whichever node, or after a bounded while. false: its lane is this node's,
 * dispatch_remove does it. */
bool node_await_stopped(struct node *n, uint32_t subscription_no, enum tenant_tier tier,
                        void (*fn)(void *arg), void *arg);
/* What the lane tells of itself, on whichever node it is; what nobody tells within a second is told as
 * unknown. From any thread but a loop's, the writer's and the node's. */
int node_stats(struct node *n, uint32_t subscription_no, enum tenant_tier tier,
               struct lane_stats *ret) MUST_USE;
/* Gives all partitions away, at once as far as attempts under way allow, and takes no more. Deletions that
 * wait for others are answered. */
void node_leave(struct node *n);
/* What has ended since is told; ends the thread. The writer must still run. */
void node_end(struct node *n);
void node_free(struct node *n); /* NULL-safe */
