/* The shared store, and the calls of store/cluster.h on it. */
#include <errno.h>

#include "base/clock.h"
#include "sim.h"

enum { REAP_GRACE_MS = 500, LOST_NOTICE_MS = 10000 };

static size_t find_node(uint32_t no) {
    size_t i = 0;
    while (i < sim.store.nodes_n && sim.store.nodes[i].no != no)
        i++;
    return i;
}

bool store_knows(uint32_t no) {
    return find_node(no) < sim.store.nodes_n;
}

void store_leave(uint32_t no) {
    size_t i = find_node(no);
    if (i == sim.store.nodes_n)
        return;
    memmove(&sim.store.nodes[i], &sim.store.nodes[i + 1],
            (sim.store.nodes_n - i - 1) * sizeof sim.store.nodes[0]);
    sim.store.nodes_n--;
    for (int tier = 0; tier < TIERS; tier++)
        for (unsigned k = 0; k < PARTITIONS; k++)
            if (sim.store.owners[tier][k] == no)
                sim.store.owners[tier][k] = 0;
}

bool store_transaction(struct process *p) {
    size_t i = find_node(p->node.me.no);
    if (i < sim.store.nodes_n) {
        sim.store.nodes[i].lease_until = sim.now + LEASE_MS;
        return true;
    }
    if (sim.plant == PLANT_FENCE)
        return true;
    process_end(p);
    return false;
}

/* ---- nodes and partitions ---- */

int store_bury_node(struct store *s, uint32_t no) {
    (void)s;
    size_t i = find_node(no);
    int64_t early = sim.plant == PLANT_HASTE ? 1000 : 0;
    if (i == sim.store.nodes_n || sim.store.nodes[i].lease_until - early >= sim.now)
        return 0;
    store_leave(no);
    sim.burials++;
    return 1;
}

int store_take_partitions(struct store *s, enum tenant_tier tier, uint16_t *nos, size_t n, size_t *ret_n) {
    size_t taken = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t *owner = &sim.store.owners[tier][nos[i]];
        if (*owner && store_knows(*owner))
            continue;
        *owner = process_of(s)->node.me.no;
        nos[taken++] = nos[i];
    }
    sim.moves += taken;
    *ret_n = taken;
    return 0;
}

int store_give_partitions(struct store *s, enum tenant_tier tier, const uint16_t *nos, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (sim.store.owners[tier][nos[i]] == process_of(s)->node.me.no)
            sim.store.owners[tier][nos[i]] = 0;
    return 0;
}

int store_set_node_tiers(struct store *s, uint32_t tiers) {
    size_t i = find_node(process_of(s)->node.me.no);
    if (i < sim.store.nodes_n)
        sim.store.nodes[i].tiers = tiers;
    return 0;
}

int store_set_tier_changes(struct store *s, uint64_t change) {
    size_t i = find_node(process_of(s)->node.me.no);
    if (i < sim.store.nodes_n)
        sim.store.nodes[i].tier_changes = change;
    return 0;
}

/* ---- the feed: each call takes its time ---- */

static int ask(struct store_feed *f) {
    struct process *p = process_of(f);
    sleep_ms(between(0, 8));
    return p->cut_off_until > sim.now ? -EIO : 0;
}

int store_feed_view(struct store_feed *f, struct cluster_view *ret) {
    int r = ask(f);
    if (r < 0)
        return r;
    ret->n = 0;
    for (size_t i = 0; i < sim.store.nodes_n; i++)
        ret->nodes[ret->n++] = (struct node_row){.no = sim.store.nodes[i].no,
                                                 .roles = ROLES_ALL,
                                                 .tiers = sim.store.nodes[i].tiers,
                                                 .lease_left_ms = sim.store.nodes[i].lease_until - sim.now -
                                                                  (sim.plant == PLANT_HASTE ? 1000 : 0)};
    memcpy(ret->owners, sim.store.owners, sizeof ret->owners);
    ret->clock_offset_us = 0;
    ret->clock_error_us = 1000;
    sleep_ms(between(0, 8)); /* what it tells is of then */
    return 0;
}

int store_feed_tiers(struct store_feed *f, struct tier_view *ret) {
    int r = ask(f);
    if (r < 0)
        return r;
    ret->in_force = UINT64_MAX;
    ret->n = 0;
    if (sim.plant == PLANT_TIERS)
        return 0;
    for (size_t i = 0; i < sim.store.nodes_n; i++)
        if (sim.store.nodes[i].tier_changes < ret->in_force)
            ret->in_force = sim.store.nodes[i].tier_changes;
    for (uint32_t no = 1; no <= LANES; no++)
        if (sim.store.tier_change[no] > ret->in_force)
            ret->open[ret->n++] = no;
    sleep_ms(between(0, 8));
    return 0;
}

int store_feed_attempts(struct store_feed *f, const struct partition_set *partitions, feed_attempt_fn fn,
                        void *arg) {
    int r = ask(f);
    for (uint32_t i = 0; r == 0 && i < sim.store.rows_n; i++) {
        const struct row *row = &sim.store.rows[i];
        if (row->state != ROW_ATTEMPTING || row->node == process_of(f)->node.me.no ||
            sim.plant == PLANT_INHERIT || !partition_in_any(partitions, partition_of(row->lane)))
            continue;
        r = fn(arg,
               &(struct feed_attempt){.event_key = i, .subscription_no = row->lane, .number = row->number});
    }
    return r;
}

int store_feed_under_way(struct store_feed *f, struct feed_attempt *attempts, size_t n, size_t *ret_n) {
    int r = ask(f);
    *ret_n = 0;
    for (size_t i = 0; r == 0 && i < n; i++) {
        const struct row *row = &sim.store.rows[attempts[i].event_key];
        if (row->state == ROW_ATTEMPTING && row->number == attempts[i].number)
            attempts[(*ret_n)++] = attempts[i];
    }
    return r;
}

int store_feed_lanes_due(struct store_feed *f, const struct partition_set *partitions, uint32_t *after_no,
                         struct lane_due *ret, size_t max, size_t *ret_n, bool *ret_more) {
    int r = ask(f);
    *ret_n = 0;
    *ret_more = false;
    for (uint32_t lane = 1; r == 0 && lane <= LANES && sim.plant != PLANT_FORGET; lane++) {
        int64_t due_at = INT64_MAX;
        for (size_t i = 0; i < sim.store.rows_n; i++)
            if (sim.store.rows[i].lane == lane && sim.store.rows[i].state == ROW_DUE &&
                sim.store.rows[i].due_at < due_at)
                due_at = sim.store.rows[i].due_at;
        if (due_at != INT64_MAX && partition_in_any(partitions, partition_of(lane))) {
            CHECK(*ret_n < max);
            ret[(*ret_n)++] = (struct lane_due){lane, due_at};
        }
    }
    *after_no = LANES;
    return r;
}

int store_feed_tell(struct store_feed *f, const char *text) {
    (void)text; /* "n": others look soon, or a little later */
    for (size_t i = 0; i < NODES; i++)
        if (sim.processes[i] && sim.processes[i]->up && &sim.processes[i]->node != (void *)f && chance(0.8))
            sim.processes[i]->node.look_at_us = 0;
    return 0;
}

int store_each_lane_state(struct store_reader *r, lane_state_row_fn fn, void *arg) {
    (void)fn;
    (void)arg;
    return ask((struct store_feed *)r);
}

/* ---- deliveries ---- */

static unsigned attempting(uint32_t lane) {
    unsigned n = 0;
    for (size_t i = 0; i < sim.store.rows_n; i++)
        n += sim.store.rows[i].lane == lane && sim.store.rows[i].state == ROW_ATTEMPTING &&
             !sim.store.rows[i].refused;
    return n;
}

/* The lane's partition is its own in some tier, and nobody else who can write serves the lane. */
static void judge_claim(const struct process *p, uint32_t lane) {
    bool owned = false;
    for (int tier = 0; tier < TIERS; tier++)
        owned |= sim.store.owners[tier][partition_of(lane)] == p->node.me.no;
    if (!owned)
        violate("a lane is claimed by a node that does not own it", p->node.me.no, lane);
    for (size_t i = 0; i < NODES; i++) {
        const struct process *other = sim.processes[i];
        if (other && other != p && store_knows(other->node.me.no) && lanes_serves(other->lanes, lane))
            violate("a lane is claimed while another node serves it", p->node.me.no, lane);
    }
}

void store_claim_rows(struct process *p, struct lane_claim *claim, uint32_t *rows, size_t *n) {
    uint32_t lane = claim->subscription_no;
    claim->claimed = 0;
    claim->next_due_at = INT64_MAX;
    for (uint32_t i = 0; i < sim.store.rows_n; i++) {
        struct row *row = &sim.store.rows[i];
        if (row->lane != lane || row->state != ROW_DUE)
            continue;
        if (row->due_at > sim.now || claim->claimed == claim->limit) {
            if (row->due_at < claim->next_due_at)
                claim->next_due_at = row->due_at;
            continue;
        }
        *row = (struct row){.lane = lane,
                            .number = row->number + 1,
                            .node = p->node.me.no,
                            .state = ROW_ATTEMPTING,
                            .lease_until = sim.now + claim->lease_ms};
        rows[(*n)++] = i;
        claim->claimed++;
    }
    if (claim->claimed)
        judge_claim(p, lane);
    if (claim->claimed && attempting(lane) > sim.policies[lane]->max_in_flight)
        violate("more attempts are under way in a lane than its cap", p->node.me.no, lane);
}

void store_end_row(uint32_t i, uint32_t number, bool success) {
    struct row *row = &sim.store.rows[i];
    if (row->state != ROW_ATTEMPTING || row->number != number)
        return; /* its lease was lost: refused */
    row->state = success ? ROW_DELIVERED : ROW_DUE;
    row->due_at = sim.now + between(0, 3000);
}

void store_reap(struct process *p) {
    for (uint32_t i = 0; i < sim.store.rows_n; i++) {
        struct row *row = &sim.store.rows[i];
        int64_t late = sim.now - row->lease_until;
        bool ours =
            ownership_of(&p->node.ownership, p->subscriptions[row->lane]->tier, row->lane) == PARTITION_OWN;
        if (row->state != ROW_ATTEMPTING || late < REAP_GRACE_MS || !(ours || late > LOST_NOTICE_MS))
            continue;
        row->state = ROW_DUE;
        row->due_at = sim.now;
        tell_lane(p, row->lane, sim.now);
    }
}

void store_publish(void) {
    if (sim.store.rows_n == ROWS)
        return;
    uint32_t lane = (uint32_t)between(1, LANES);
    sim.store.rows[sim.store.rows_n++] = (struct row){.lane = lane, .due_at = sim.now};
    struct process *by = sim.processes[between(0, NODES - 1)];
    if (by && by->up)
        tell_lane(by, lane, sim.now);
}
