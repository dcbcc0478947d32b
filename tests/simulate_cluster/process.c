/* A process: its node's thread, its writer, and one delivery loop with real lanes. */
#include <errno.h>

#include "base/clock.h"
#include "sim.h"

enum { TICK_MS = 25, DUE_EVERY_MS = 5000, INHERITED_EVERY_MS = 200, REAP_EVERY_MS = 1000, CLAIMS = 32 };

/* An attempt that has ended on the network, to be settled. */
struct settlement_of {
    uint32_t row, number;
    bool success;
    struct settlement_of *next;
};

struct process *process_of(const void *node) {
    return (struct process *)node; /* store, feed, reader and dispatch of a node are the process itself */
}

/* ---- the writer: transactions take place one after another ---- */

static int64_t writer_delay(struct process *p) {
    int64_t at = p->writer_free_at > sim.now ? p->writer_free_at : sim.now;
    p->writer_free_at = at + between(1, chance(0.02) ? 400 : 12);
    return p->writer_free_at - sim.now;
}

static void renewed(struct process *p, int64_t sent_ms) {
    atomic_store(&p->send_until_us, (sent_ms + LEASE_MS - LEASE_MS / 10) * 1000);
}

struct write {
    int (*run)(struct node *n, struct store *s, void *arg);
    void (*done)(struct node *n, void *arg);
    void *arg;
    int result;
    int64_t sent_ms;
    bool over;
};

static void write_returns(struct process *p, void *arg) {
    struct write *w = arg;
    if (w->result >= 0) {
        renewed(p, w->sent_ms);
        if (w->done)
            w->done(&p->node, w->arg);
    }
    w->over = true;
}

static void write_runs(struct process *p, void *arg) {
    struct write *w = arg;
    if (p->cut_off_until > sim.now)
        w->result = -EIO;
    else if (!store_transaction(p))
        return;
    else
        w->result = w->run ? w->run(&p->node, (struct store *)p, w->arg) : 0;
    after(between(0, 6), p, false, write_returns, w);
}

int node_write(struct node *n, int (*run)(struct node *n, struct store *s, void *arg),
               void (*done)(struct node *n, void *arg), void *arg) {
    struct process *p = process_of(n);
    struct write w = {.run = run, .done = done, .arg = arg, .sent_ms = sim.now};
    after(writer_delay(p), p, true, write_runs, &w);
    while (!w.over)
        sleep_ms(1);
    return w.result;
}

void node_talk(struct node *n, int timeout_ms) {
    (void)n;
    sleep_ms(timeout_ms ? between(1, timeout_ms) : 1);
}

void node_wake(struct node *n) {
    (void)n;
}

void shares_set(struct node *n) {
    (void)n;
}

/* ---- the loop's mail ---- */

struct letter {
    uint32_t lane, n;
    struct subscription *subscription;
    bool resume;
    struct lane_start start;
    struct partition_set partitions;
};

static void post(struct process *p, const struct letter *l, void (*fn)(struct process *p, void *arg)) {
    struct letter *copy = malloc(sizeof *copy);
    CHECK(copy != NULL);
    *copy = *l;
    int64_t at = sim.now + between(0, 10);
    p->mail_at = at > p->mail_at ? at : p->mail_at; /* in order */
    after(p->mail_at - sim.now, p, false, fn, copy);
}

static void do_resume(struct process *p, void *arg) {
    struct letter *l = arg;
    CHECK(lanes_put(p->lanes, l->subscription, l->resume ? &l->start : NULL, sim.now) == 0);
    free(l);
}

int dispatch_resume(struct dispatch *d, struct subscription *s, const struct lane_start *start) {
    post(process_of(d), &(struct letter){.subscription = s, .resume = true, .start = *start}, do_resume);
    return 0;
}

static void do_change(struct process *p, void *arg) {
    struct letter *l = arg;
    if (lanes_serves(p->lanes, l->subscription->no))
        do_resume(p, arg);
    else
        free(l);
}

static void do_release_one(struct process *p, void *arg) {
    struct letter *l = arg;
    lanes_release(p->lanes, l->lane);
    p->releases_done++;
    free(l);
}

int dispatch_configure(struct dispatch *d, struct subscription *s) {
    struct process *p = process_of(d);
    struct letter l = {.lane = s->no, .subscription = s};
    enum partition_state state = ownership_of(&p->node.ownership, s->tier, s->no);
    bool ours = state == PARTITION_OWN || state == PARTITION_COMING;
    bool held = ours && tiers_hold(&p->node, s);
    p->releases_asked += !ours;
    post(p, &l, !ours ? do_release_one : state == PARTITION_OWN && !held ? do_resume : do_change);
    return 0;
}

static void do_release(struct process *p, void *arg) {
    struct letter *l = arg;
    if (sim.plant != PLANT_RELEASE)
        lanes_release_all(p->lanes, &l->partitions);
    p->releases_done++;
    free(l);
}

int dispatch_release(struct dispatch *d, const struct partition_set *partitions) {
    struct process *p = process_of(d);
    p->releases_asked++;
    post(p, &(struct letter){.partitions = *partitions}, do_release);
    return 0;
}

bool dispatch_released(struct dispatch *d, uint32_t *ret_leaving) {
    struct process *p = process_of(d);
    *ret_leaving = lanes_leaving(p->lanes);
    return p->releases_done == p->releases_asked;
}

static void do_disinherit(struct process *p, void *arg) {
    struct letter *l = arg;
    lanes_disinherit(p->lanes, l->lane, l->n, sim.now);
    free(l);
}

int dispatch_disinherit(struct dispatch *d, uint32_t no, uint32_t n) {
    post(process_of(d), &(struct letter){.lane = no, .n = n}, do_disinherit);
    return 0;
}

static void do_due(struct process *p, void *arg) {
    struct letter *l = arg;
    (void)lanes_due(p->lanes, l->lane, sim.now, sim.now);
    free(l);
}

int dispatch_wake(struct dispatch *d, const struct lane_notice *notices, size_t n) {
    struct process *p = process_of(d);
    for (size_t i = 0; i < n; i++)
        if (ownership_of(&p->node.ownership, p->subscriptions[notices[i].subscription_no]->tier,
                         notices[i].subscription_no) == PARTITION_OWN)
            post(p, &(struct letter){.lane = notices[i].subscription_no}, do_due);
    return 0;
}

struct subscription *fanout_subscription(struct fanout *f, uint32_t no) {
    return no >= 1 && no <= LANES ? process_of(f)->subscriptions[no] : NULL;
}

uint32_t fanout_upper(const struct fanout *f) {
    (void)f;
    return LANES;
}

/* Local lanes hear of it; others by a notice, which may be lost. */
void tell_lane(struct process *from, uint32_t lane, int64_t due_at) {
    (void)due_at;
    for (size_t i = 0; i < NODES; i++) {
        struct process *p = sim.processes[i];
        if (p && p->up && (p == from || chance(0.9)))
            post(p, &(struct letter){.lane = lane}, do_due);
    }
}

/* ---- attempts ---- */

struct flight {
    uint32_t row, number, lane;
    bool success;
    int64_t began;
};

static void flight_ends(struct process *p, void *arg) {
    struct flight *f = arg;
    struct settlement_of *e = malloc(sizeof *e);
    CHECK(e != NULL);
    *e = (struct settlement_of){f->row, f->number, f->success, p->ended_attempts};
    p->ended_attempts = e;
    struct lane_outcome o = {.subscription_no = f->lane,
                             .event_key = f->row,
                             .class = f->success ? OUTCOME_SUCCESS : OUTCOME_TRANSIENT,
                             .started_at = f->began,
                             .retry_after_ms = -1};
    (void)lanes_ended(p->lanes, &o, sim.now, &sim.rng);
    free(f);
}

static void begin(struct process *p, uint32_t i, uint32_t number, uint32_t lane, int64_t lease_until) {
    bool lives = clock_mono_us() < atomic_load(&p->send_until_us) || sim.plant == PLANT_SEND;
    struct row *row = &sim.store.rows[i];
    if (sim.now + TIMEOUT_MS >= lease_until || !lives) {
        row->refused |= row->number == number;
        struct lane_outcome o = {
            .subscription_no = lane, .event_key = i, .not_sent = true, .retry_after_ms = -1};
        (void)lanes_ended(p->lanes, &o, sim.now, &sim.rng);
        return; /* the reaper has it */
    }
    sim.sends++;
    if (!store_knows(p->node.me.no))
        violate("a node that is buried sends", p->node.me.no, lane);
    if (row->state != ROW_ATTEMPTING || row->number != number)
        violate("sent without a lease", p->node.me.no, lane);
    struct flight *f = malloc(sizeof *f);
    CHECK(f != NULL);
    *f = (struct flight){i, number, lane, chance(0.85), sim.now};
    after(chance(0.1) ? between(TIMEOUT_MS / 2, TIMEOUT_MS) : between(5, 200), p, false, flight_ends, f);
}

/* ---- turns ---- */

struct turn_of {
    struct settlement_of *settles;
    struct lane_claim claims[CLAIMS];
    size_t claims_n;
    uint32_t rows[CLAIMS * LANE_CLAIM_MAX], numbers[CLAIMS * LANE_CLAIM_MAX];
    int64_t leases[CLAIMS * LANE_CLAIM_MAX];
    size_t rows_n;
    bool failed;
    int64_t sent_ms;
};

static void turn_returns(struct process *p, void *arg) {
    struct turn_of *t = arg;
    p->turn_under_way = false;
    if (!t->failed)
        renewed(p, t->sent_ms);
    while (t->settles) {
        struct settlement_of *e = t->settles;
        t->settles = e->next;
        const struct row *row = &sim.store.rows[e->row];
        if (t->failed) {
            e->next = p->ended_attempts;
            p->ended_attempts = e;
            continue;
        }
        if (row->state == ROW_DUE)
            tell_lane(p, row->lane, row->due_at);
        free(e);
    }
    for (size_t i = 0; i < t->claims_n; i++)
        (void)lanes_claimed(p->lanes, &t->claims[i], t->failed, sim.now);
    for (size_t i = 0; i < t->rows_n; i++)
        begin(p, t->rows[i], t->numbers[i], sim.store.rows[t->rows[i]].lane, t->leases[i]);
    free(t);
}

static void turn_runs(struct process *p, void *arg) {
    struct turn_of *t = arg;
    t->failed = p->cut_off_until > sim.now;
    if (!t->failed && !store_transaction(p))
        return;
    if (!t->failed) {
        for (struct settlement_of *e = t->settles; e; e = e->next)
            store_end_row(e->row, e->number, e->success);
        for (size_t i = 0; i < t->claims_n; i++)
            store_claim_rows(p, &t->claims[i], t->rows, &t->rows_n);
    }
    for (size_t i = 0; i < t->rows_n; i++) {
        t->numbers[i] = sim.store.rows[t->rows[i]].number;
        t->leases[i] = sim.store.rows[t->rows[i]].lease_until;
    }
    after(between(0, 6), p, false, turn_returns, t);
}

static void tick(struct process *p, void *arg) {
    (void)arg;
    after(between(1, TICK_MS), p, false, tick, NULL);
    if (p->turn_under_way)
        return;
    struct turn_of *t = calloc(1, sizeof *t);
    CHECK(t != NULL);
    t->sent_ms = sim.now;
    t->settles = TAKE_PTR(p->ended_attempts);
    if (clock_mono_us() < atomic_load(&p->send_until_us) || sim.plant == PLANT_SEND)
        t->claims_n = lanes_plan(p->lanes, sim.now, t->claims, CLAIMS, CLAIMS * LANE_CLAIM_MAX);
    if (!t->settles && !t->claims_n) {
        free(t);
        return;
    }
    p->turn_under_way = true;
    after(writer_delay(p), p, true, turn_runs, t);
}

static void heartbeat(struct process *p, void *arg);

static void beat_runs(struct process *p, void *arg) {
    int64_t sent_ms = (int64_t)(intptr_t)arg;
    if (p->cut_off_until <= sim.now && store_transaction(p))
        renewed(p, sent_ms);
}

static void heartbeat(struct process *p, void *arg) {
    (void)arg;
    after(LEASE_MS / 5, p, false, heartbeat, NULL);
    after(writer_delay(p), p, true, beat_runs, (void *)(intptr_t)sim.now);
}

static void reap_runs(struct process *p, void *arg) {
    (void)arg;
    if (p->cut_off_until <= sim.now && store_transaction(p))
        store_reap(p);
}

static void reap(struct process *p, void *arg) {
    (void)arg;
    after(REAP_EVERY_MS, p, false, reap, NULL);
    after(writer_delay(p), p, true, reap_runs, NULL);
}

/* ---- tiers ---- */

/* A new snapshot of the lane, as the store has it now. */
static void learn(struct process *p, uint32_t no) {
    struct subscription *s = calloc(1, sizeof *s);
    CHECK(s != NULL);
    atomic_init(&s->refs, 1000000); /* what the process drops goes with the program */
    s->no = s->tenant_no = no;
    s->tier = sim.store.tiers[no];
    s->tier_change = sim.store.tier_change[no];
    s->policy = sim.policies[no];
    p->subscriptions[no] = s;
}

static void change_runs(struct process *p, void *arg) {
    uint32_t no = (uint32_t)(uintptr_t)arg;
    if (p->cut_off_until > sim.now || p->frozen_until > sim.now || !store_transaction(p))
        return;
    sim.store.tiers[no] = (enum tenant_tier)between(0, TIERS - 1);
    sim.store.tier_change[no] = ++sim.store.tier_changes;
    sim.promotions++;
    learn(p, no);
    CHECK(dispatch_configure((struct dispatch *)p, p->subscriptions[no]) == 0);
}

void process_change_tier(struct process *p) {
    after(writer_delay(p), p, true, change_runs, (void *)(uintptr_t)between(1, LANES));
}

struct told {
    bool lanes[LANES + 1];
};

static void apply_told(struct node *n, void *arg) {
    struct process *p = process_of(n);
    const struct told *told = arg;
    for (uint32_t no = 1; no <= LANES; no++) {
        if (!told->lanes[no])
            continue;
        learn(p, no);
        CHECK(dispatch_configure((struct dispatch *)p, p->subscriptions[no]) == 0);
    }
}

/* What cluster/changes.c does. */
static void apply_changes(struct process *p) {
    struct told told = {0};
    sleep_ms(between(0, 8));
    if (p->cut_off_until > sim.now)
        return;
    uint64_t changes = sim.store.tier_changes;
    for (uint32_t no = 1; no <= LANES; no++) {
        told.lanes[no] = sim.store.tier_change[no] != p->tiers_heard[no];
        p->tiers_heard[no] = sim.store.tier_change[no];
    }
    sleep_ms(between(0, 8));
    while (changes != p->node.tier_changes && node_write(&p->node, NULL, apply_told, &told) < 0)
        sleep_ms(50);
    p->node.tier_changes = changes;
}

/* ---- the node's thread ---- */

static void node_thread(void) {
    struct process *p = sim.running;
    struct node *n = &p->node;
    while (!atomic_load(&n->leaving)) {
        if (clock_mono_us() >= n->look_at_us) {
            n->look_at_us = clock_mono_us() + LEASE_MS / 10 * 1000;
            membership_look(n);
        }
        if (n->inherited_n && clock_mono_us() >= n->inherited_at_us) {
            n->inherited_at_us = clock_mono_us() + INHERITED_EVERY_MS * 1000;
            placing_check_inherited(n);
        }
        if (clock_mono_us() >= n->due_at_us) {
            n->due_at_us = clock_mono_us() + DUE_EVERY_MS * 1000;
            placing_look_due(n);
        }
        if (clock_mono_us() >= n->changes_at_us) {
            n->changes_at_us = clock_mono_us() + between(1, 500) * 1000;
            apply_changes(p);
        }
        if (tiers_pending(n))
            tiers_run(n);
        node_talk(n, 50);
    }
    membership_leave(n);
    p->ended = true;
    for (;;)
        sleep_ms(1000);
}

void process_start(void) {
    size_t at = 0;
    while (at < NODES && sim.processes[at])
        at++;
    if (at == NODES)
        return;
    struct process *p = calloc(1, sizeof *p);
    CHECK(p && (p->stack = malloc(STACK_SIZE)));
    sim.processes[at] = p;
    p->up = true;
    p->node.me = (struct node_setup){.no = ++sim.last_no, .roles = ROLES_ALL, .lease_ms = LEASE_MS};
    p->node.me.tiers = chance(0.5) ? 7 : (uint32_t)between(1, 7);
    p->node.store = (struct store *)p;
    p->node.feed = (struct store_feed *)p;
    p->node.reader = (struct store_reader *)p;
    p->node.parts.dispatch = (struct dispatch *)p;
    p->node.parts.fanout = (struct fanout *)p;
    for (uint32_t no = 1; no <= LANES; no++) {
        learn(p, no);
        p->tiers_heard[no] = sim.store.tier_change[no];
    }
    CHECK((p->node.parts.metrics = metrics_new()) != NULL && tenant_budgets_new(&p->tenants) == 0);
    CHECK(lanes_new(p->tenants, 1000, LEASE_MARGIN_MS, NULL, &p->lanes) == 0);
    size_t k = sim.store.nodes_n++;
    sim.store.nodes[k].no = p->node.me.no;
    sim.store.nodes[k].tiers = p->node.me.tiers;
    sim.store.nodes[k].tier_changes = sim.store.tier_changes;
    sim.store.nodes[k].lease_until = sim.now + LEASE_MS;
    renewed(p, sim.now);
    getcontext(&p->context);
    p->context.uc_stack.ss_sp = p->stack;
    p->context.uc_stack.ss_size = STACK_SIZE;
    makecontext(&p->context, node_thread, 0);
    p->woken = true;
    tick(p, NULL);
    heartbeat(p, NULL);
    reap(p, NULL);
}

/* Killed, or ended for it was buried: what it had under way is with the reaper of others. Its memory stays
 * till the seed's end: who ends may be running. */
void process_end(struct process *p) {
    p->up = false;
    for (size_t i = 0; i < NODES; i++)
        if (sim.processes[i] == p)
            sim.processes[i] = NULL;
}

static void leave_when_idle(struct process *p, void *arg) {
    (void)arg;
    if (!p->ended || lanes_in_flight(p->lanes) || p->ended_attempts || p->turn_under_way) {
        after(50, p, false, leave_when_idle, NULL);
        return;
    }
    store_leave(p->node.me.no);
    process_end(p);
}

void process_stop(struct process *p) {
    if (atomic_exchange(&p->node.leaving, true))
        return;
    after(50, p, false, leave_when_idle, NULL);
}
