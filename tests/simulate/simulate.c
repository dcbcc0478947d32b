/* Plays hours of deliveries in milliseconds: the real lanes, retry policy and settle under a virtual clock
 * and seeded chance. `true_ms` is the simulation's time, the wall clock is that and an offset which jumps. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/heap.h"
#include "lanes/lanes.h"
#include "memory_store.h"
#include "settle/settle.h"

enum {
    SEEDS_DEFAULT = 2000,
    LEASE_MARGIN_MS = 5000,
    TURN_TASKS = 256,
    TURN_SETTLES = 8, /* few, so that a backlog of settles is met */
    LEASES_MAX = 512,
    REAP_EVERY_MS = 2000,
    CALM_MS = 120000,      /* after a disturbance, before waits are judged again */
    WAIT_MAX_MS = 60000,   /* of a healthy lane's delivery, in calm */
    WINDOW_SLACK_MS = 500, /* from a claim to its sending */
    CAP_CHANGE_MS = 1000,  /* a claim under way may still go by the cap before */
    END_SLACK_MS = 1800000,
    DELIVERIES_MAX = 4096,
};
static const int64_t EPOCH_MS = INT64_C(1700000000000);

enum receiver_kind { FAST, SLOW, FAILING, LIMITING, BLACK_HOLE, FLAPPING, RECEIVERS };
static const char *const receiver_names[] = {"fast", "slow", "failing", "limiting", "black hole", "flapping"};

enum event_kind {
    EV_PUBLISH,
    EV_COMMIT,
    EV_RETURN,
    EV_END,
    EV_LATE_SETTLE,
    EV_REAP,
    EV_CRASH,
    EV_START,
    EV_JUMP,
    EV_OUTAGE,
    EV_PATCH,
    EV_REPLAY,
    EV_WAKE
};

struct attempt {
    struct task task;
    struct outcome outcome;
    int64_t started_at, started_true;
    bool beyond;  /* of a planted claim: the lane does not know of it */
    bool excused; /* its lease was taken away: it may overlap with its successor */
    struct attempt *next;
};

struct event {
    struct heap_node node;
    enum event_kind kind;
    unsigned life; /* of the process that set it */
    struct attempt *attempt;
    struct settlement settlement;
};

struct sim_lane {
    struct subscription *sub;
    enum receiver_kind receiver;
    double failing;
    int64_t flap_ms;
    bool retry_after, ever_paused;
    uint32_t cap_before;
    int64_t cap_changed_at, patched_at;
    uint32_t at_receiver;
};

/* What the harness itself knows of a delivery. */
struct ledger {
    uint32_t lane;
    uint64_t lane_key;
    int64_t order_at, accepted_true;
    uint32_t live; /* number of the attempt that holds the lease, 0: none */
    uint32_t counted;
    bool closed, attempted, replayed, scheduled;
};

struct line {
    int64_t at;
    uint32_t lane, number;
    uint64_t event_key;
    const char *what;
};

struct sim {
    uint64_t seed;
    struct rng rng;
    struct heap heap;
    int64_t true_ms, offset, end_at, publish_until, last_created, disturbed_at, outage_until, no_turn_before;
    unsigned life;
    bool up, jumped, turn_under_way, turn_failed, failed;
    struct memory_store store;
    struct tenant_budgets *tenants;
    struct lanes *lanes;
    uint32_t budget;
    uint32_t lanes_n;
    struct sim_lane lane[MEMORY_LANES_MAX]; /* from 1 */
    struct ledger ledger[DELIVERIES_MAX + 1];
    size_t deliveries;
    struct attempt *attempts; /* at their receivers, of this life */
    struct settlement ended[DELIVERIES_MAX * 2];
    size_t ended_n;
    struct settlement settles[TURN_SETTLES];
    size_t settles_n;
    struct lane_claim claims[MEMORY_LANES_MAX];
    size_t claims_n;
    struct task tasks[TURN_TASKS * 2];
    size_t tasks_n;
    struct line *lines;
    size_t lines_n, lines_cap;
    const char *violation;
    uint32_t violated_lane;
};

static int64_t wall(const struct sim *s) {
    return s->true_ms + s->offset;
}
static bool chance(struct sim *s, double p) {
    return rng_unit(&s->rng) < p;
}
static int64_t between(struct sim *s, int64_t from, int64_t to) {
    return from + (int64_t)rng_below(&s->rng, (uint64_t)(to - from + 1));
}

static void note(struct sim *s, uint32_t lane, uint64_t event_key, uint32_t number, const char *what) {
    if (s->lines_n == s->lines_cap) {
        s->lines_cap = s->lines_cap ? s->lines_cap * 2 : 4096;
        CHECK((s->lines = realloc(s->lines, s->lines_cap * sizeof *s->lines)) != NULL);
    }
    s->lines[s->lines_n++] = (struct line){s->true_ms, lane, number, event_key, what};
}

static void violate(struct sim *s, uint32_t lane, uint64_t event_key, const char *what) {
    if (s->violation)
        return;
    s->violation = what;
    s->violated_lane = lane;
    note(s, lane, event_key, 0, what);
}

static struct event *schedule(struct sim *s, enum event_kind kind, int64_t in_ms) {
    struct event *e = calloc(1, sizeof *e);
    CHECK(e != NULL);
    e->kind = kind;
    e->life = s->life;
    CHECK(heap_set(&s->heap, &e->node, s->true_ms + in_ms) == 0);
    return e;
}

static void disturb(struct sim *s, const char *what) {
    s->disturbed_at = s->true_ms;
    note(s, 0, 0, 0, what);
}

/* ---- settles, as the store has accepted them ---- */

static void judge_settle(struct sim *s, const struct settlement *i) {
    struct ledger *l = &s->ledger[i->event_key];
    if (i->stale) {
        note(s, l->lane, i->event_key, i->number, "stale settle refused");
        return;
    }
    if (l->live != i->number)
        violate(s, l->lane, i->event_key, "a stale settle changed the delivery");
    l->live = 0;
    l->counted += i->counted;
    if (l->counted > s->lane[l->lane].sub->policy.max_attempts)
        violate(s, l->lane, i->event_key, "more attempts than max_attempts");
    l->closed = i->to != DELIVERY_RETRY;
    note(s, l->lane, i->event_key, i->number, delivery_state_name(i->to));
}

static void expired(void *arg, uint64_t event_key) {
    struct sim *s = arg;
    s->ledger[event_key].closed = true;
    note(s, s->ledger[event_key].lane, event_key, 0, "window expired");
}

/* ---- receivers ---- */

static struct outcome receive(struct sim *s, struct sim_lane *l, int64_t *ret_latency) {
    struct outcome o = {.status = 200, .retry_after_ms = -1};
    *ret_latency = between(s, 2, 50);
    bool down = false;
    switch (l->receiver) {
    case FAST:
    case RECEIVERS:
        break;
    case SLOW:
        *ret_latency = between(s, 500, 5000);
        break;
    case FAILING:
        if (chance(s, l->failing))
            o.status = chance(s, 0.02) ? 404 : 500;
        break;
    case LIMITING:
        if (chance(s, l->failing)) {
            o.status = 429;
            o.retry_after_ms = l->retry_after ? between(s, 0, 120000) : -1;
        }
        break;
    case BLACK_HOLE:
        down = true;
        *ret_latency = INT64_MAX;
        break;
    case FLAPPING:
        down = (s->true_ms / l->flap_ms) % 2 == 1;
        break;
    }
    if (down)
        o = (struct outcome){.error = ATTEMPT_CONNECT_REFUSED, .retry_after_ms = -1};
    if (*ret_latency >= l->sub->policy.timeout_ms) {
        *ret_latency = l->sub->policy.timeout_ms;
        o = (struct outcome){.error = ATTEMPT_TIMEOUT, .retry_after_ms = -1};
    }
    return o;
}

static void judge_order(struct sim *s, const struct task *t) {
    const struct ledger *l = &s->ledger[t->event_key];
    for (const struct attempt *a = s->attempts; a; a = a->next)
        if (!a->excused && a->task.subscription_no == t->subscription_no &&
            s->ledger[a->task.event_key].lane_key == l->lane_key && a->task.event_key != t->event_key)
            violate(s, l->lane, t->event_key, "two of one key at once");
    for (uint64_t k = 1; k <= s->deliveries && !l->replayed; k++) {
        const struct ledger *o = &s->ledger[k];
        bool earlier = o->order_at != l->order_at ? o->order_at < l->order_at : k < t->event_key;
        if (o->lane == l->lane && o->lane_key == l->lane_key && !o->closed && !o->replayed && earlier)
            violate(s, l->lane, t->event_key, "sent past an earlier one of its key");
    }
}

static void judge_attempt(struct sim *s, const struct task *t) {
    struct ledger *d = &s->ledger[t->event_key];
    struct sim_lane *l = &s->lane[d->lane];
    uint32_t cap = l->sub->policy.max_in_flight;
    if (s->true_ms < l->cap_changed_at + CAP_CHANGE_MS && l->cap_before > cap)
        cap = l->cap_before;
    if (l->at_receiver > cap)
        violate(s, d->lane, t->event_key, "more in flight than the cap");
    if (d->lane_key)
        judge_order(s, t);
    int64_t window_end = retry_window_end(&l->sub->policy, t->window_at);
    if (!s->jumped && !l->ever_paused && l->receiver != LIMITING && wall(s) > window_end + WINDOW_SLACK_MS)
        violate(s, d->lane, t->event_key, "sent after its window");
    int64_t from = d->accepted_true;
    if (!d->attempted && !d->lane_key && !(d->scheduled && s->jumped) && l->receiver == FAST &&
        from > s->disturbed_at + CALM_MS && from > l->patched_at + CALM_MS && s->disturbed_at < from &&
        s->true_ms - from > WAIT_MAX_MS)
        violate(s, d->lane, t->event_key, "a healthy lane waited too long");
    d->attempted = true;
}

static void drop_task(struct sim *s, const struct task *t) {
    struct lane_outcome o = {.subscription_no = t->subscription_no,
                             .event_key = t->event_key,
                             .probe = t->probe,
                             .not_sent = true,
                             .retry_after_ms = -1};
    lanes_ended(s->lanes, &o, wall(s), &s->rng);
}

static void begin_attempt(struct sim *s, const struct task *t, bool beyond) {
    struct sim_lane *l = &s->lane[t->subscription_no];
    if (t->lease_until - wall(s) < l->sub->policy.timeout_ms) {
        note(s, t->subscription_no, t->event_key, t->number, "lease too short, not sent");
        if (!beyond)
            drop_task(s, t);
        return;
    }
    struct attempt *a = calloc(1, sizeof *a);
    CHECK(a != NULL);
    *a = (struct attempt){.task = *t, .started_at = wall(s), .started_true = s->true_ms, .beyond = beyond};
    l->at_receiver++;
    note(s, t->subscription_no, t->event_key, t->number, "sent");
    judge_attempt(s, t);
    a->next = s->attempts;
    s->attempts = a;
    int64_t latency;
    a->outcome = receive(s, l, &latency);
    schedule(s, EV_END, latency)->attempt = a;
}

static void forget_attempt(struct sim *s, struct attempt *a) {
    struct attempt **at = &s->attempts;
    while (*at != a)
        at = &(*at)->next;
    *at = a->next;
    if (!a->excused)
        s->lane[a->task.subscription_no].at_receiver--;
}

static void queue_settle(struct sim *s, const struct settlement *i) {
    CHECK(s->ended_n < DELIVERIES_MAX * 2);
    s->ended[s->ended_n++] = *i;
}

static void attempt_ended(struct sim *s, struct attempt *a) {
    forget_attempt(s, a);
    const struct policy *p = &s->lane[a->task.subscription_no].sub->policy;
    struct settlement i = {0};
    struct lane_outcome o = {.subscription_no = a->task.subscription_no,
                             .event_key = a->task.event_key,
                             .probe = a->task.probe,
                             .timed_out = a->outcome.error == ATTEMPT_TIMEOUT,
                             .started_at = a->started_at,
                             .retry_after_ms = a->outcome.retry_after_ms,
                             .latency_ms = (int32_t)(s->true_ms - a->started_true)};
    o.class = settle_prepare(p, &a->task, &a->outcome, wall(s), &s->rng, &i);
    o.retry_due_at = i.to == DELIVERY_RETRY ? i.due_at : 0;
    if (!a->beyond)
        lanes_ended(s->lanes, &o, wall(s), &s->rng);
    if (chance(s, 0.005))
        note(s, o.subscription_no, o.event_key, a->task.number, "settle lost");
    else if (chance(s, 0.01))
        schedule(s, EV_LATE_SETTLE, between(s, 1000, 20000))->settlement = i;
    else
        queue_settle(s, &i);
    free(a);
}

/* ---- turns ---- */

static void turn_begin(struct sim *s) {
    if (!s->up || s->turn_under_way || s->true_ms < s->no_turn_before)
        return;
    s->settles_n = s->ended_n < TURN_SETTLES ? s->ended_n : TURN_SETTLES;
    memcpy(s->settles, s->ended, s->settles_n * sizeof *s->settles);
    s->ended_n -= s->settles_n;
    memmove(s->ended, s->ended + s->settles_n, s->ended_n * sizeof *s->ended);
    s->claims_n = lanes_plan(s->lanes, wall(s), s->claims, MEMORY_LANES_MAX, TURN_TASKS);
    struct lane_expiry e;
    while (lanes_expiries(s->lanes, wall(s), &e, 1))
        memory_store_expire(&s->store, &e, wall(s));
    if (!s->settles_n && !s->claims_n) {
        int64_t at = lanes_next_wake(s->lanes, wall(s));
        if (at != INT64_MAX)
            schedule(s, EV_WAKE, at > wall(s) ? at - wall(s) : 1);
        return;
    }
    s->turn_under_way = true;
    schedule(s, EV_COMMIT, between(s, 0, 15));
}

static void claim_one(struct sim *s, struct lane_claim *c) {
    size_t from = s->tasks_n;
    uint32_t limit = c->limit;
    if (s->store.plant == PLANT_CAP)
        c->limit *= 2;
    memory_store_claim(&s->store, c, wall(s), s->tasks, &s->tasks_n);
    c->limit = limit;
    for (size_t i = from; i < s->tasks_n; i++) {
        const struct task *t = &s->tasks[i];
        struct ledger *l = &s->ledger[t->event_key];
        if (l->live || l->closed)
            violate(s, l->lane, t->event_key, "two live leases on one task");
        l->live = t->number;
        note(s, l->lane, t->event_key, t->number, "claimed");
    }
}

static void turn_commit(struct sim *s) {
    s->tasks_n = 0;
    s->turn_failed = s->true_ms < s->outage_until || chance(s, 0.02);
    for (size_t i = 0; i < s->settles_n && !s->turn_failed; i++) {
        memory_store_settle(&s->store, &s->settles[i]);
        judge_settle(s, &s->settles[i]);
    }
    for (size_t i = 0; i < s->claims_n && !s->turn_failed; i++)
        claim_one(s, &s->claims[i]);
    schedule(s, EV_RETURN, between(s, 0, 5));
}

static void turn_return(struct sim *s) {
    s->turn_under_way = false;
    if (s->turn_failed) {
        CHECK(s->ended_n + s->settles_n <= DELIVERIES_MAX * 2);
        memmove(s->ended + s->settles_n, s->ended, s->ended_n * sizeof *s->ended);
        memcpy(s->ended, s->settles, s->settles_n * sizeof *s->settles);
        s->ended_n += s->settles_n;
        s->no_turn_before = s->true_ms + 200;
        schedule(s, EV_WAKE, 200);
    }
    for (size_t i = 0; i < s->settles_n && !s->turn_failed; i++) {
        const struct settlement *r = &s->settles[i];
        if (!r->stale && r->to == DELIVERY_RETRY)
            lanes_due(s->lanes, r->subscription_no, r->due_at, wall(s));
        if (r->released_due_at)
            lanes_due(s->lanes, r->subscription_no, r->released_due_at, wall(s));
    }
    size_t at = 0;
    for (size_t i = 0; i < s->claims_n; i++) {
        struct lane_claim *c = &s->claims[i];
        uint32_t claimed = s->turn_failed ? 0 : c->claimed;
        c->claimed = claimed < c->limit ? claimed : c->limit;
        lanes_claimed(s->lanes, c, s->turn_failed, wall(s));
        for (uint32_t k = 0; k < claimed; k++)
            begin_attempt(s, &s->tasks[at++], k >= c->limit);
    }
}

/* ---- leases, crashes, starts ---- */

static void reap(struct sim *s, int64_t before) {
    struct task lost[LEASES_MAX];
    size_t n = memory_store_expired_leases(&s->store, before, lost, LEASES_MAX);
    for (size_t i = 0; i < n; i++) {
        struct outcome o = {.error = ATTEMPT_LEASE_EXPIRED, .retry_after_ms = -1};
        struct settlement r = {0};
        settle_prepare(&s->lane[lost[i].subscription_no].sub->policy, &lost[i], &o, wall(s), &s->rng, &r);
        note(s, lost[i].subscription_no, lost[i].event_key, lost[i].number, "lease expired");
        memory_store_settle(&s->store, &r);
        judge_settle(s, &r);
        for (struct attempt *a = s->attempts; a; a = a->next) {
            if (a->task.event_key == lost[i].event_key && !a->excused) {
                a->excused = true;
                s->lane[lost[i].subscription_no].at_receiver--;
            }
        }
        if (!s->lanes)
            continue;
        if (r.to == DELIVERY_RETRY)
            lanes_due(s->lanes, r.subscription_no, r.due_at, wall(s));
        if (r.released_due_at)
            lanes_due(s->lanes, r.subscription_no, r.released_due_at, wall(s));
    }
}

static void start(struct sim *s) {
    reap(s, INT64_MAX);
    CHECK(tenant_budgets_new(&s->tenants) == 0);
    CHECK(lanes_new(s->tenants, s->budget, LEASE_MARGIN_MS, NULL, &s->lanes) == 0);
    for (uint32_t no = 1; no <= s->lanes_n; no++) {
        CHECK(lanes_put(s->lanes, s->lane[no].sub, wall(s)) == 0);
        int64_t due_at = memory_store_earliest(&s->store, no);
        if (due_at != INT64_MAX)
            lanes_due(s->lanes, no, due_at, wall(s));
    }
    s->up = true;
    schedule(s, EV_REAP, REAP_EVERY_MS);
}

static void stop(struct sim *s) {
    lanes_free(s->lanes);
    tenant_budgets_free(s->tenants);
    s->lanes = NULL;
    s->tenants = NULL;
    s->up = s->turn_under_way = false;
    s->ended_n = 0;
    s->no_turn_before = 0;
    while (s->attempts) { /* freed by their EV_END */
        struct attempt *a = s->attempts;
        s->attempts = a->next;
        if (!a->excused)
            s->lane[a->task.subscription_no].at_receiver--;
    }
    s->life++;
}

/* ---- what happens from outside ---- */

static void publish(struct sim *s) {
    uint32_t no = (uint32_t)between(s, 1, s->lanes_n);
    int64_t n = chance(s, 0.1) ? between(s, 5, 40) : between(s, 1, 3);
    for (; n > 0 && s->up && s->deliveries < DELIVERIES_MAX; n--) {
        const struct sim_lane *l = &s->lane[no];
        /* The id was taken a little before the commit. */
        int64_t created = wall(s) - between(s, 0, 10);
        s->last_created = created > s->last_created ? created : s->last_created;
        int64_t deliver_at = chance(s, 0.05) ? s->last_created + between(s, 0, 600000) : 0;
        struct new_delivery d = {.event_key = ++s->deliveries, .subscription_no = no, .tenant_no = no};
        d.order_at = deliver_at ? deliver_at : s->last_created;
        d.lane_key = l->sub->ordering == ORDERING_STRICT ? 1
                     : l->sub->ordering == ORDERING_KEY  ? (uint64_t)between(s, 2, 5)
                                                         : 0;
        s->ledger[d.event_key] =
            (struct ledger){.lane = no,
                            .lane_key = d.lane_key,
                            .order_at = d.order_at,
                            .scheduled = deliver_at != 0,
                            .accepted_true = s->true_ms + (deliver_at ? d.order_at - wall(s) : 0)};
        memory_store_insert(&s->store, &d);
        note(s, no, d.event_key, 0, "accepted");
        lanes_due(s->lanes, no, d.order_at, wall(s));
    }
    if (s->true_ms < s->publish_until)
        schedule(s, EV_PUBLISH, between(s, 100, 240000));
}

static struct subscription *copy_of(const struct subscription *old) {
    struct subscription *n = malloc(sizeof *n);
    CHECK(n != NULL);
    memcpy(n, old, sizeof *n);
    atomic_init(&n->refs, 1);
    return n;
}

static void patch(struct sim *s, uint32_t no, bool resume) {
    struct sim_lane *l = &s->lane[no];
    struct subscription *n = copy_of(l->sub);
    if (n->status == SUBSCRIPTION_PAUSED) {
        n->status = SUBSCRIPTION_ACTIVE;
        n->resumed_at = wall(s);
    } else if (resume) {
        free(n);
        return;
    } else if (chance(s, 0.4)) {
        n->status = SUBSCRIPTION_PAUSED;
        l->ever_paused = true;
    } else {
        l->cap_before = n->policy.max_in_flight;
        l->cap_changed_at = s->true_ms;
        n->policy.max_in_flight = (uint32_t)between(s, 1, 12);
    }
    note(s, no, 0, n->policy.max_in_flight, n->status == SUBSCRIPTION_PAUSED ? "paused" : "patched");
    l->patched_at = s->true_ms;
    subscription_unref(l->sub);
    l->sub = n;
    if (s->up)
        CHECK(lanes_put(s->lanes, n, wall(s)) == 0);
}

static void jump(struct sim *s) {
    s->offset += chance(s, 0.5) ? between(s, 1, 120000) : -between(s, 1, 120000);
    s->jumped = true;
    disturb(s, "clock jumped");
}

static void replay(struct sim *s) {
    for (int tries = 0; tries < 10 && s->up && s->deliveries; tries++) {
        uint64_t key = 1 + rng_below(&s->rng, s->deliveries);
        struct ledger *l = &s->ledger[key];
        if (!l->closed)
            continue;
        l->closed = false;
        l->replayed = true;
        l->counted = 0;
        memory_store_replay(&s->store, key, l->lane_key, wall(s));
        note(s, l->lane, key, 0, "replayed");
        lanes_due(s->lanes, l->lane, wall(s), wall(s));
        return;
    }
}

static void again(struct sim *s, enum event_kind kind, int64_t most) {
    int64_t in_ms = between(s, 1000, most);
    if (s->true_ms + in_ms < s->publish_until)
        schedule(s, kind, in_ms);
}

static void handle(struct sim *s, struct event *e) {
    bool ours = e->life == s->life;
    switch (e->kind) {
    case EV_PUBLISH:
        publish(s);
        break;
    case EV_COMMIT:
        if (ours)
            turn_commit(s);
        break;
    case EV_RETURN:
        if (ours)
            turn_return(s);
        break;
    case EV_END:
        if (ours)
            attempt_ended(s, e->attempt);
        else
            free(e->attempt);
        break;
    case EV_LATE_SETTLE:
        if (ours)
            queue_settle(s, &e->settlement);
        break;
    case EV_REAP:
        if (ours && s->true_ms >= s->outage_until)
            reap(s, wall(s));
        if (ours)
            schedule(s, EV_REAP, REAP_EVERY_MS);
        break;
    case EV_CRASH:
        disturb(s, "crash");
        if (s->up) {
            stop(s);
            schedule(s, EV_START, between(s, 10, 20000));
        }
        again(s, EV_CRASH, 7200000);
        break;
    case EV_START:
        disturb(s, "start");
        start(s);
        break;
    case EV_JUMP:
        jump(s);
        again(s, EV_JUMP, 7200000);
        break;
    case EV_OUTAGE:
        disturb(s, "store fails");
        s->outage_until = s->true_ms + between(s, 100, 30000);
        again(s, EV_OUTAGE, 7200000);
        break;
    case EV_PATCH:
        patch(s, (uint32_t)between(s, 1, s->lanes_n), false);
        again(s, EV_PATCH, 1800000);
        break;
    case EV_REPLAY:
        replay(s);
        again(s, EV_REPLAY, 1200000);
        break;
    case EV_WAKE:
        break;
    }
}

/* ---- one seed ---- */

static void make_lane(struct sim *s, uint32_t no) {
    struct sim_lane *l = &s->lane[no];
    struct subscription *sub = calloc(1, sizeof *sub);
    CHECK(sub != NULL);
    atomic_init(&sub->refs, 1);
    sub->no = no;
    sub->tenant_no = 1 + no / 2;
    sub->tier = (enum tenant_tier)(sub->tenant_no % TIERS);
    sub->ordering = (enum subscription_ordering)between(s, ORDERING_NONE, ORDERING_STRICT);
    policy_init(&sub->policy);
    sub->policy.timeout_ms = (uint32_t)between(s, 1000, 8000);
    sub->policy.max_in_flight = (uint32_t)between(s, 1, 12);
    sub->policy.max_attempts = (uint32_t)between(s, 2, 24);
    sub->policy.window_seconds = (uint32_t)between(s, 600, 7200);
    sub->policy.retry.initial_seconds = (uint32_t)between(s, 1, 10);
    l->receiver = (enum receiver_kind)rng_below(&s->rng, RECEIVERS);
    if (chance(s, 0.2) && l->receiver != FAST) {
        sub->policy.rate_per_second = (uint32_t)between(s, 1, 20);
        sub->policy.rate_burst = (uint32_t)between(s, 1, 20);
    }
    l->failing = chance(s, 0.2) ? 1 : 0.01 + rng_unit(&s->rng) * 0.9;
    l->flap_ms = between(s, 10000, 1800000);
    l->retry_after = chance(s, 0.5);
    l->patched_at = l->cap_changed_at = -CALM_MS;
    l->sub = sub;
}

static void begin(struct sim *s, uint64_t seed, enum plant plant) {
    struct line *lines = s->lines;
    size_t cap = s->lines_cap;
    memset(s, 0, offsetof(struct sim, ledger));
    s->deliveries = s->ended_n = s->settles_n = s->claims_n = s->tasks_n = s->lines_n = 0;
    s->attempts = NULL;
    s->violation = NULL;
    s->lines = lines;
    s->lines_cap = cap;
    s->seed = seed;
    rng_seed(&s->rng, seed);
    s->offset = EPOCH_MS;
    s->store.plant = plant;
    s->store.expired = expired;
    s->store.arg = s;
    s->disturbed_at = -CALM_MS;
    s->budget = (uint32_t)between(s, 20, 80);
    s->lanes_n = (uint32_t)between(s, 2, 10);
    for (uint32_t no = 1; no <= s->lanes_n; no++)
        make_lane(s, no);
    s->publish_until = between(s, 600000, 7200000);
    s->end_at = s->publish_until + 7200000 + 2 * END_SLACK_MS;
    schedule(s, EV_PUBLISH, 1);
    static const struct {
        enum event_kind kind;
        double often;
    } troubles[] = {{EV_CRASH, 0.5}, {EV_JUMP, 0.3}, {EV_OUTAGE, 0.5}, {EV_PATCH, 0.5}, {EV_REPLAY, 0.5}};
    for (size_t i = 0; i < sizeof troubles / sizeof troubles[0]; i++)
        if (chance(s, troubles[i].often))
            again(s, troubles[i].kind, 1800000);
    start(s);
}

static void judge_end(struct sim *s) {
    for (uint64_t k = 1; k <= s->deliveries; k++) {
        const struct memory_delivery *d = memory_store_at(&s->store, k);
        const struct policy *p = &s->lane[d->subscription_no].sub->policy;
        if (delivery_is_open(d->state) && retry_window_end(p, d->window_at) + END_SLACK_MS < wall(s))
            violate(s, d->subscription_no, k, "still open long after its window");
        if (delivery_is_open(d->state) == s->ledger[k].closed)
            violate(s, d->subscription_no, k, "the store and the ledger disagree");
    }
}

static void finish(struct sim *s) {
    if (s->up)
        stop(s);
    struct heap_node *top;
    while ((top = heap_top(&s->heap))) {
        struct event *e = (struct event *)((char *)top - offsetof(struct event, node));
        heap_remove(&s->heap, top);
        free(e->attempt);
        free(e);
    }
    heap_free(&s->heap);
    memory_store_clear(&s->store);
    for (uint32_t no = 1; no <= s->lanes_n; no++)
        subscription_unref(s->lane[no].sub);
}

/* true: no invariant was broken. */
static bool run_seed(struct sim *s, uint64_t seed, enum plant plant) {
    begin(s, seed, plant);
    bool resumed = false;
    struct heap_node *top;
    while (!s->violation && (top = heap_top(&s->heap)) && top->key <= s->end_at) {
        struct event *e = (struct event *)((char *)top - offsetof(struct event, node));
        heap_remove(&s->heap, top);
        s->true_ms = top->key;
        if (!resumed && s->true_ms >= s->publish_until) {
            for (uint32_t no = 1; no <= s->lanes_n; no++)
                patch(s, no, true);
            resumed = true;
        }
        handle(s, e);
        free(e);
        turn_begin(s);
    }
    if (!s->violation)
        judge_end(s);
    finish(s);
    return !s->violation;
}

static void print_timeline(const struct sim *s) {
    uint32_t no = s->violated_lane;
    fprintf(stderr, "seed %" PRIu64 ": lane %u (%s): %s\n", s->seed, no, receiver_names[s->lane[no].receiver],
            s->violation);
    size_t from = 0, shown = 0;
    for (from = s->lines_n; from > 0 && shown < 200; from--)
        shown += s->lines[from - 1].lane == no || s->lines[from - 1].lane == 0;
    for (size_t i = from; i < s->lines_n; i++) {
        const struct line *l = &s->lines[i];
        if (l->lane == no || l->lane == 0)
            fprintf(stderr, "  %10.3f s  event %" PRIu64 " #%u  %s\n", (double)l->at / 1000, l->event_key,
                    l->number, l->what);
    }
}

static const char *const plant_names[] = {"none", "fencing", "cap", "fifo"};

static int check_plants(struct sim *s, uint64_t first, uint64_t seeds) {
    int r = 0;
    for (int p = PLANT_FENCING; p <= PLANT_FIFO; p++) {
        uint64_t i = 0;
        while (i < seeds && run_seed(s, first + i, (enum plant)p))
            i++;
        if (i == seeds) {
            printf("planted %s: not found\n", plant_names[p]);
            r = 1;
        } else {
            printf("planted %s: found at seed %" PRIu64 ": %s\n", plant_names[p], first + i, s->violation);
        }
    }
    return r;
}

static int run_seeds(struct sim *s, uint64_t first, uint64_t seeds, enum plant plant, bool verbose) {
    double hours = 0;
    struct timespec a, b;
    clock_gettime(CLOCK_MONOTONIC, &a);
    for (uint64_t i = 0; i < seeds; i++) {
        bool ok = run_seed(s, first + i, plant);
        hours += (double)s->true_ms / 3600000;
        if (verbose)
            printf("seed %" PRIu64 ": %zu deliveries, %u lanes\n", first + i, s->deliveries, s->lanes_n);
        if (!ok) {
            print_timeline(s);
            return 1;
        }
    }
    clock_gettime(CLOCK_MONOTONIC, &b);
    double seconds = (double)(b.tv_sec - a.tv_sec) + (double)(b.tv_nsec - a.tv_nsec) / 1e9;
    printf("%" PRIu64 " seeds, %.0f simulated hours, %.0f simulated hours per second\n", seeds, hours,
           hours / seconds);
    return 0;
}

int main(int argc, char **argv) {
    uint64_t seeds = SEEDS_DEFAULT, first = 1;
    bool verbose = false, plants = false;
    enum plant plant = PLANT_NONE;
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (!strcmp(argv[i], "--verbose")) {
            verbose = true;
        } else if (!strcmp(argv[i], "--check-plants")) {
            plants = true;
        } else if (!strcmp(argv[i], "--seeds")) {
            seeds = strtoull(value, NULL, 10), i++;
        } else if (!strcmp(argv[i], "--first")) {
            first = strtoull(value, NULL, 10), i++;
        } else if (!strcmp(argv[i], "--plant")) {
            for (int p = PLANT_FENCING; p <= PLANT_FIFO; p++)
                if (!strcmp(value, plant_names[p]))
                    plant = (enum plant)p;
            i++;
        } else {
            fprintf(stderr, "usage: simulate [--seeds N] [--first SEED] [--verbose]"
                            " [--plant fencing|cap|fifo] [--check-plants]\n");
            return 2;
        }
    }
    struct sim *s = calloc(1, sizeof *s);
    CHECK(s != NULL);
    int r = plants ? check_plants(s, first, seeds) : run_seeds(s, first, seeds, plant, verbose);
    free(s->lines);
    free(s);
    return r;
}
