/* Lanes that come to this node: put in place as they were left, told of what is due, and of attempts that an
 * owner before has under way until these have ended. */
#include <errno.h>

#include "base/clock.h"
#include "base/log.h"
#include "cluster/node_state.h"

enum {
    PLACED_A_STEP = 2000,      /* lanes put in place at one go: the writer serves others in between */
    LOOKED_AT_A_STEP = 100000, /* numbers passed over at one go */
};

struct placing {
    const struct partition_set *partitions;
    bool settling;                 /* those of them that n->tiers held back, and n->tiers_next does not … */
    const struct tier_view *tiers; /* … which is to become this */
    struct lane_starts starts;
    struct feed_attempt *attempts;
    size_t attempts_n, attempts_cap;
    uint32_t next_no;
    bool more;
    int result;
};

static bool is_placed(struct node *n, const struct placing *p, const struct subscription *s) {
    if (!partition_in(p->partitions, s->tier, partition_of(s->no)))
        return false;
    return p->settling ? tiers_open(&n->tiers, s) && !tiers_open(&n->tiers_next, s) : !tiers_hold(n, s);
}

static int keep_attempt(struct feed_attempt **all, size_t *n, size_t *cap, const struct feed_attempt *a) {
    if (*n == *cap) {
        size_t wider = *cap ? *cap * 2 : 256;
        struct feed_attempt *more = realloc(*all, wider * sizeof *more);
        if (!more)
            return -ENOMEM;
        *all = more;
        *cap = wider;
    }
    (*all)[(*n)++] = *a;
    return 0;
}

static int note_attempt(void *arg, const struct feed_attempt *a) {
    struct placing *p = arg;
    return keep_attempt(&p->attempts, &p->attempts_n, &p->attempts_cap, a);
}

/* What is remembered of lanes that were here before is out of date. */
static void forget_attempts(struct node *n, const struct placing *p) {
    size_t kept = 0;
    for (size_t i = 0; i < n->inherited_n; i++) {
        const struct subscription *s = fanout_subscription(n->parts.fanout, n->inherited[i].subscription_no);
        if (s && !is_placed(n, p, s))
            n->inherited[kept++] = n->inherited[i];
    }
    n->inherited_n = kept;
}

/* On the writer's thread: which of the attempts are those of lanes that come. */
static void inherit(struct node *n, void *arg) {
    struct placing *p = arg;
    forget_attempts(n, p);
    for (size_t i = 0; p->result == 0 && i < p->attempts_n; i++) {
        const struct feed_attempt *a = &p->attempts[i];
        const struct subscription *s = fanout_subscription(n->parts.fanout, a->subscription_no);
        if (!s || !is_placed(n, p, s))
            continue;
        p->result = lane_starts_inherit(&p->starts, s->no);
        if (p->result == 0)
            p->result = keep_attempt(&n->inherited, &n->inherited_n, &n->inherited_cap, a);
    }
}

static void end_placing(struct node *n, const struct placing *p) {
    if (p->settling)
        n->tiers = n->tiers_next;
    n->settled_to = 0;
    for (int tier = 0; tier < TIERS; tier++)
        for (unsigned i = 0; i < PARTITIONS; i++)
            if (partition_in(p->partitions, (enum tenant_tier)tier, i))
                ownership_set(&n->ownership, (enum tenant_tier)tier, i, PARTITION_OWN);
    shares_set(n);
}

static void place_some(struct node *n, void *arg) {
    struct placing *p = arg;
    struct fanout *f = n->parts.fanout;
    unsigned placed = 0, looked_at = 0;
    for (; p->result == 0 && p->next_no <= fanout_upper(f); p->next_no++) {
        if (p->settling)
            n->settled_to = p->next_no;
        if (placed == PLACED_A_STEP || looked_at++ == LOOKED_AT_A_STEP)
            return;
        struct subscription *s = fanout_subscription(f, p->next_no);
        if (!s || !is_placed(n, p, s))
            continue;
        struct lane_start start = lane_starts_of(&p->starts, s->no);
        p->result = dispatch_resume(n->parts.dispatch, s, &start);
        placed++;
    }
    p->more = false;
    if (p->result == 0)
        end_placing(n, p);
}

static void place(struct node *n, struct placing *p) {
    int r = lane_starts_read(&p->starts, n->reader);
    if (r == 0)
        r = store_feed_attempts(n->feed, p->partitions, note_attempt, p);
    if (r == 0)
        r = node_write(n, NULL, inherit, p);
    while (r == 0 && p->result == 0 && p->more)
        r = node_write(n, NULL, place_some, p);
    lane_starts_clear(&p->starts);
    free(p->attempts);
    if (r == 0)
        r = p->result;
    if (r < 0)
        log_error("lanes that were taken could not be put in place; it is tried again",
                  log_str("error", strerror(-r)));
    else
        placing_look_due(n);
}

void placing_run(struct node *n, const struct partition_set *taken) {
    struct placing p = {.partitions = taken, .starts = {.taken_over = true}, .next_no = 1, .more = true};
    place(n, &p);
}

/* ---- lanes that were held back ---- */

static struct partition_set own_partitions(struct node *n) {
    struct partition_set set = {0};
    for (int tier = 0; tier < TIERS; tier++)
        for (unsigned p = 0; p < PARTITIONS; p++)
            if (atomic_load(&n->ownership.state[tier][p]) == PARTITION_OWN)
                partition_add(&set, (enum tenant_tier)tier, p);
    return set;
}

/* p->more: there are some to put in place. */
static void begin_settling(struct node *n, void *arg) {
    struct placing *p = arg;
    bool still = false;
    n->tiers_next = *p->tiers;
    n->settled_to = 1;
    for (uint32_t no = 1; no <= fanout_upper(n->parts.fanout); no++) {
        const struct subscription *s = fanout_subscription(n->parts.fanout, no);
        if (!s || !s->tier_change)
            continue;
        p->more |= is_placed(n, p, s);
        still |= partition_in(p->partitions, s->tier, partition_of(no)) && tiers_open(&n->tiers_next, s);
    }
    atomic_store(&n->holding, still);
    if (!p->more)
        end_placing(n, p);
}

void placing_settle(struct node *n, const struct tier_view *tiers) {
    struct partition_set own = own_partitions(n);
    struct placing p = {
        .partitions = &own, .settling = true, .tiers = tiers, .starts = {.taken_over = true}, .next_no = 1};
    if (node_write(n, NULL, begin_settling, &p) == 0 && p.more)
        place(n, &p);
}

/* ---- what is due ---- */

struct due_page {
    struct lane_due due[LANES_A_LOOK];
    size_t n;
};

static void wake_page(struct node *n, void *arg) {
    const struct due_page *page = arg;
    struct lane_notice notices[LANES_A_LOOK];
    for (size_t i = 0; i < page->n; i++)
        notices[i] = (struct lane_notice){page->due[i].subscription_no, page->due[i].due_at};
    if (dispatch_wake(n->parts.dispatch, notices, page->n) < 0)
        log_error("no memory to tell lanes what is due; they are told with the next look");
}

void placing_look_due(struct node *n) {
    struct partition_set own = own_partitions(n);
    struct due_page page;
    uint32_t after = 0;
    bool more = true;
    int r = 0;
    while (r == 0 && more && !atomic_load(&n->leaving)) {
        r = store_feed_lanes_due(n->feed, &own, &after, page.due, LANES_A_LOOK, &page.n, &more);
        if (r == 0 && page.n)
            r = node_write(n, NULL, wake_page, &page);
    }
}

/* ---- attempts of owners before ---- */

void placing_check_inherited(struct node *n) {
    size_t some = n->inherited_n < INHERITED_A_LOOK ? n->inherited_n : INHERITED_A_LOOK, left = 0, at = 0;
    struct feed_attempt asked[INHERITED_A_LOOK], still[INHERITED_A_LOOK];
    memcpy(asked, n->inherited, some * sizeof asked[0]);
    memcpy(still, asked, some * sizeof still[0]);
    if (store_feed_under_way(n->feed, still, some, &left) < 0)
        return;
    for (size_t i = 0; i < some; i++) {
        if (at < left && memcmp(&still[at], &asked[i], sizeof still[at]) == 0)
            at++;
        else if (dispatch_disinherit(n->parts.dispatch, asked[i].subscription_no, 1) < 0)
            return; /* no memory: all of them are asked after again, which frees a place too many at worst */
    }
    /* Those asked after go to the end, the others have their turn. */
    memmove(n->inherited, n->inherited + some, (n->inherited_n - some) * sizeof n->inherited[0]);
    n->inherited_n -= some;
    for (size_t i = 0; i < left; i++)
        n->inherited[n->inherited_n++] = still[i];
}
