/* Who lives, and which partitions are whose: what a look at the store makes this node do. */
#include "base/clock.h"
#include "base/log.h"
#include "cluster/node_state.h"
#include "cluster/plan.h"

enum {
    GIVE_WAIT_MS =
        2000, /* for attempts under way to end; those that go on count against the next owner's caps */
    GIVE_LOOK_MS = 10,
    COME_BACK_PART = 3, /* of a lease: how long others have after an outage of the store */
    DEATH_LOOK_MS = 20, /* after a lease's end, until it is looked at */
};

/* Partitions of all tiers that are taken, or given. */
struct transfer {
    uint16_t nos[TIERS][PARTITIONS];
    size_t n[TIERS];
};

static size_t total(const struct transfer *t) {
    size_t n = 0;
    for (int tier = 0; tier < TIERS; tier++)
        n += t->n[tier];
    return n;
}

static struct partition_set set_of(const struct transfer *t) {
    struct partition_set set = {0};
    for (int tier = 0; tier < TIERS; tier++)
        for (size_t i = 0; i < t->n[tier]; i++)
            partition_add(&set, (enum tenant_tier)tier, t->nos[tier][i]);
    return set;
}

static void mark(struct node *n, const struct transfer *t, enum partition_state state) {
    for (int tier = 0; tier < TIERS; tier++)
        for (size_t i = 0; i < t->n[tier]; i++)
            ownership_set(&n->ownership, (enum tenant_tier)tier, t->nos[tier][i], state);
}

bool membership_alive(const struct node *n, uint32_t no) {
    for (size_t i = 0; i < n->view.n; i++)
        if (n->view.nodes[i].no == no)
            return true;
    return false;
}

static void tell_owned(struct node *n) {
    for (int tier = 0; tier < TIERS; tier++) {
        int64_t owned = 0;
        for (unsigned p = 0; p < PARTITIONS; p++)
            owned += atomic_load(&n->ownership.state[tier][p]) != PARTITION_AWAY;
        metrics_partitions(n->parts.metrics, (enum tenant_tier)tier, owned);
    }
}

/* ---- the dead ---- */

static int bury(struct node *n, struct store *s, void *arg) {
    (void)n;
    const struct node_row *row = arg;
    return store_bury_node(s, row->no);
}

/* After an outage of the store all leases are over: whoever reaches it first lets the others come back, too.
 */
static bool may_bury(struct node *n) {
    int64_t now_us = clock_mono_us(), lease_us = n->me.lease_ms * 1000;
    if (now_us - n->looked_at_us > lease_us / 2)
        n->well_since_us = now_us;
    n->looked_at_us = now_us;
    return now_us - n->well_since_us >= lease_us / COME_BACK_PART;
}

/* true: somebody is buried. */
static bool bury_dead(struct node *n) {
    bool any = false;
    if (!may_bury(n))
        return false;
    for (size_t i = 0; i < n->view.n; i++) {
        struct node_row *row = &n->view.nodes[i];
        if (row->lease_left_ms >= 0 || row->no == n->me.no || node_write(n, bury, NULL, row) <= 0)
            continue;
        any = true;
        log_warn("a node has let its lease run out; its partitions are free for others",
                 log_str("name", row->name), log_int("node", row->no),
                 log_int("late_ms", -row->lease_left_ms));
    }
    return any;
}

/* ---- taking ---- */

static int take(struct node *n, struct store *s, void *arg) {
    (void)n;
    struct transfer *t = arg;
    for (int tier = 0; tier < TIERS; tier++) {
        int r = t->n[tier]
                    ? store_take_partitions(s, (enum tenant_tier)tier, t->nos[tier], t->n[tier], &t->n[tier])
                    : 0;
        if (r < 0)
            return r;
    }
    return 0;
}

static void taken(struct node *n, void *arg) {
    mark(n, arg, PARTITION_COMING);
}

static bool take_all(struct node *n, struct transfer *t) {
    if (!total(t) || node_write(n, take, taken, t) < 0 || !total(t))
        return false;
    struct partition_set set = set_of(t);
    int64_t began_us = clock_mono_us();
    tiers_settle(n);
    placing_run(n, &set);
    log_info("partitions were taken", log_int("premium", (int64_t)t->n[TIER_PREMIUM]),
             log_int("standard", (int64_t)t->n[TIER_STANDARD]), log_int("bulk", (int64_t)t->n[TIER_BULK]),
             log_int("took_ms", (clock_mono_us() - began_us) / 1000));
    return true;
}

/* ---- giving ---- */

static void let_go(struct node *n, void *arg) {
    struct partition_set set = set_of(arg);
    mark(n, arg, PARTITION_GOING);
    if (dispatch_release(n->parts.dispatch, &set) < 0)
        log_error("no memory to let go of lanes; they go with the next look");
}

static int give(struct node *n, struct store *s, void *arg) {
    (void)n;
    const struct transfer *t = arg;
    int r = 0;
    for (int tier = 0; r == 0 && tier < TIERS; tier++)
        if (t->n[tier])
            r = store_give_partitions(s, (enum tenant_tier)tier, t->nos[tier], t->n[tier]);
    return r;
}

static void given(struct node *n, void *arg) {
    mark(n, arg, PARTITION_AWAY);
    shares_set(n);
}

/* Nothing of them is claimed any more when it returns; attempts may go on after the time. */
static bool wait_for_attempts(struct node *n, int64_t wait_ms) {
    int64_t until_us = clock_mono_us() + wait_ms * 1000;
    for (;;) {
        uint32_t leaving = 0;
        bool released = dispatch_released(n->parts.dispatch, &leaving);
        if (released && (!leaving || clock_mono_us() >= until_us))
            return true;
        if (!released && clock_mono_us() >= until_us + wait_ms * 1000)
            return false; /* a loop stands still: its lanes stay this node's */
        node_talk(n, GIVE_LOOK_MS);
    }
}

static bool give_all(struct node *n, struct transfer *t) {
    if (!total(t) || node_write(n, NULL, let_go, t) < 0 || !wait_for_attempts(n, GIVE_WAIT_MS))
        return false;
    /* Claims that the loops had asked for before are written by now: the writer keeps the order. */
    if (node_write(n, give, given, t) < 0)
        return false;
    log_info("partitions were given away", log_int("premium", (int64_t)t->n[TIER_PREMIUM]),
             log_int("standard", (int64_t)t->n[TIER_STANDARD]), log_int("bulk", (int64_t)t->n[TIER_BULK]));
    (void)!store_feed_tell(n->feed, "n");
    return true;
}

/* ---- a look ---- */

/* The offset in force is kept while it may be the true one: a clock that is set back and forth within its
 * error is none the better. */
static void keep_clock(struct node *n, int64_t before_us) {
    int64_t apart_us = n->view.clock_offset_us - before_us;
    atomic_store(&n->clock_error_us, n->view.clock_error_us);
    if (apart_us > n->view.clock_error_us || -apart_us > n->view.clock_error_us)
        clock_set_offset(n->view.clock_offset_us);
    else
        n->view.clock_offset_us = before_us;
}

/* Nodes that are about to leave, or do not deliver, get nothing. */
static size_t plan_nodes(const struct node *n, struct plan_node ret[CLUSTER_NODES_MAX]) {
    for (size_t i = 0; i < n->view.n; i++) {
        const struct node_row *row = &n->view.nodes[i];
        ret[i] = (struct plan_node){row->no, row->roles & ROLE_DELIVER ? row->tiers : 0};
    }
    return n->view.n;
}

static int64_t next_death_ms(const struct node *n) {
    int64_t least = INT64_MAX;
    for (size_t i = 0; i < n->view.n; i++)
        if (n->view.nodes[i].no != n->me.no && n->view.nodes[i].lease_left_ms < least)
            least = n->view.nodes[i].lease_left_ms;
    return least < 0 ? 0 : least;
}

/* A partition that this node has and keeps, but does not serve: the answer to its take was lost, or it was
 * about to be given to a node that is gone. */
static void add_unplaced(const struct node *n, int tier, const struct partition_plan *plan,
                         struct transfer *ret) {
    size_t give = 0;
    for (unsigned p = 0; p < PARTITIONS; p++) {
        bool goes = give < plan->give_n && plan->give[give] == p;
        give += goes;
        if (!goes && n->view.owners[tier][p] == n->me.no &&
            atomic_load(&n->ownership.state[tier][p]) != PARTITION_OWN)
            ret->nos[tier][ret->n[tier]++] = (uint16_t)p;
    }
}

static void act(struct node *n) {
    struct transfer takes = {0}, gives = {0}, unplaced = {0};
    struct plan_node nodes[CLUSTER_NODES_MAX];
    struct partition_plan plan;
    size_t count = plan_nodes(n, nodes);
    for (int tier = 0; tier < TIERS; tier++) {
        plan_partitions(nodes, count, (enum tenant_tier)tier, n->view.owners[tier], n->me.no, &plan);
        memcpy(takes.nos[tier], plan.take, sizeof plan.take);
        memcpy(gives.nos[tier], plan.give, sizeof plan.give);
        takes.n[tier] = plan.take_n;
        gives.n[tier] = plan.give_n;
        add_unplaced(n, tier, &plan, &unplaced);
    }
    if (total(&unplaced)) {
        mark(n, &unplaced, PARTITION_COMING);
        struct partition_set set = set_of(&unplaced);
        tiers_settle(n);
        placing_run(n, &set);
    }
    bool moved = give_all(n, &gives);
    moved |= take_all(n, &takes);
    tell_owned(n);
    if (moved)
        n->look_at_us = 0;
}

static int look_again(struct node *n) {
    int64_t offset_us = n->view.clock_offset_us;
    int r = store_feed_view(n->feed, &n->view);
    if (r == 0)
        keep_clock(n, offset_us);
    return r;
}

void membership_look(struct node *n) {
    if (look_again(n) < 0)
        return;
    if (bury_dead(n) && look_again(n) < 0)
        return;
    metrics_gauge_set(n->parts.metrics, METRIC_NODES, (int64_t)n->view.n);
    if (!membership_alive(n, n->me.no))
        return; /* buried: the writer's next commit ends the process */
    act(n);
    int64_t death_us = clock_mono_us() + (next_death_ms(n) + DEATH_LOOK_MS) * 1000;
    if (n->view.n > 1 && death_us < n->look_at_us)
        n->look_at_us = death_us;
}

static int no_tiers(struct node *n, struct store *s, void *arg) {
    (void)n;
    (void)arg;
    return store_set_node_tiers(s, 0);
}

void membership_leave(struct node *n) {
    struct transfer all = {0};
    for (int tier = 0; tier < TIERS; tier++)
        for (unsigned p = 0; p < PARTITIONS; p++)
            if (atomic_load(&n->ownership.state[tier][p]) != PARTITION_AWAY)
                all.nos[tier][all.n[tier]++] = (uint16_t)p;
    if (node_write(n, no_tiers, NULL, NULL) == 0)
        (void)give_all(n, &all);
}
