/* A tenant's tier decides which node sends for its lanes. When it changes, the node before lets go of them as
 * it hears of it, and the next begins when it knows that this is so: when every node that delivers has told
 * that the change is in force there. One that has died meanwhile told nothing, and is waited for until it is
 * buried. */
#include "cluster/node_state.h"

static int by_number(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

bool tiers_open(const struct tier_view *v, const struct subscription *s) {
    return s->tier_change > v->in_force ||
           bsearch(&s->tenant_no, v->open, v->n, sizeof v->open[0], by_number) != NULL;
}

/* Then nobody else can serve the lane, whatever tier others take it to be of. */
static bool is_ours_in_all_tiers(const struct node *n, uint32_t no) {
    for (int tier = 0; tier < TIERS; tier++) {
        enum partition_state state = ownership_of(&n->ownership, (enum tenant_tier)tier, no);
        if (state != PARTITION_OWN && state != PARTITION_COMING)
            return false;
    }
    return true;
}

bool tiers_hold(void *arg, const struct subscription *s) {
    struct node *n = arg;
    if (!s->tier_change || !tiers_open(&n->tiers, s) || is_ours_in_all_tiers(n, s->no))
        return false;
    /* placing_settle has been past it: it was made since then. */
    if (s->no < n->settled_to && !tiers_open(&n->tiers_next, s))
        return false;
    if (!atomic_exchange(&n->holding, true))
        node_wake(n);
    return true;
}

bool tiers_pending(const struct node *n) {
    return n->tier_changes != n->tier_changes_told || atomic_load(&n->holding);
}

/* ---- telling ---- */

static int write_changes(struct node *n, struct store *s, void *arg) {
    (void)arg;
    return store_set_tier_changes(s, n->tier_changes);
}

static void changes_written(struct node *n, void *arg) {
    (void)arg;
    shares_set(n);
}

/* Once the lanes that go are let go of. Claims that the loops had asked for before are written by then: the
 * writer keeps the order. */
static void tell(struct node *n) {
    uint32_t leaving = 0;
    if (n->tier_changes == n->tier_changes_told || atomic_load(&n->walks.under_way) ||
        !dispatch_released(n->parts.dispatch, &leaving))
        return;
    if (node_write(n, write_changes, changes_written, NULL) == 0)
        n->tier_changes_told = n->tier_changes;
}

/* ---- what others have told ---- */

static bool same(const struct tier_view *a, const struct tier_view *b) {
    return a->in_force == b->in_force && a->n == b->n &&
           memcmp(a->open, b->open, a->n * sizeof a->open[0]) == 0;
}

void tiers_settle(struct node *n) {
    struct tier_view v;
    /* What was seen before stays true of whatever it let begin: with more than a view can hold, they wait. */
    if (store_feed_tiers(n->feed, &v) == 0 && !same(&v, &n->tiers))
        placing_settle(n, &v);
}

void tiers_run(struct node *n) {
    tell(n);
    if (atomic_load(&n->holding))
        tiers_settle(n);
}
