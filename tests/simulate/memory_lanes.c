/* Claiming, settling, leases and the order within lane keys, as store/sqlite does them. */
#include <errno.h>

#include "memory_rows.h"
#include "plants.h"
#include "timeline.h"
#include "world.h"

enum { BARRIER_POLL_MS = 20, PLANTED_HURRY_MS = 3000, RELANE_A_STEP = 5 };

static bool before(const struct memory_delivery *a, const struct memory_delivery *b) {
    return a->order_at != b->order_at ? a->order_at < b->order_at : a->event_key < b->event_key;
}

/* ---- order within a lane key ---- */

static bool passed_over(const struct memory_delivery *d) {
    return planted(PLANT_FIFO) && d->state == DELIVERY_RETRY;
}

/* Whether another of its key stands before it, or is under way. */
static bool blocked(const struct store *s, const struct memory_delivery *d) {
    const struct memory_lane *l = &s->lanes[d->subscription_no - 1];
    for (size_t i = 0; i < l->n; i++) {
        const struct memory_delivery *o = &s->deliveries[l->open[i]];
        if (o->lane_key != d->lane_key || o->event_key == d->event_key || passed_over(o))
            continue;
        if (o->state == DELIVERY_ATTEMPTING || before(o, d))
            return true;
    }
    return false;
}

/* The first of a key becomes due; when, or 0. */
static int64_t release(struct store *s, uint32_t subscription_no, uint64_t lane_key, int64_t now) {
    const struct memory_lane *l = &s->lanes[subscription_no - 1];
    const struct memory_delivery *first = NULL;
    for (size_t i = 0; i < l->n; i++) {
        const struct memory_delivery *d = &s->deliveries[l->open[i]];
        if (d->lane_key == lane_key && !passed_over(d) && (!first || before(d, first)))
            first = d;
    }
    if (!first || first->state == DELIVERY_ATTEMPTING)
        return 0;
    struct memory_delivery d = *first;
    if (!d.due_at) {
        /* An id's time that the clock has fallen back behind is not waited for. */
        bool is_creation = d.order_at == (int64_t)(d.event_key >> 12);
        d.due_at = is_creation && d.order_at > now ? now : d.order_at;
        memory_write(s, (uint32_t)(first - s->deliveries), &d);
    }
    return d.due_at;
}

static bool behind_fanout(const struct store *s, uint32_t tenant_no, const struct memory_delivery *d) {
    for (size_t i = 0; i < s->jobs_n && !planted(PLANT_BARRIER); i++) {
        const struct fanout_job *j = &s->jobs[i];
        if (j->state != FANOUT_DONE && j->event_key <= (id_key_at(d->order_at) | 0xFFF) &&
            j->event_key != d->event_key && j->tenant_no == tenant_no && j->cursor < d->subscription_no &&
            j->upper >= d->subscription_no)
            return true;
    }
    return false;
}

/* ---- new deliveries ---- */

static void begin(struct store *s, uint32_t row, int64_t now, int64_t lease_until) {
    struct memory_delivery was = s->deliveries[row], d = was;
    d.state = DELIVERY_ATTEMPTING;
    d.attempts++;
    d.due_at = 0;
    d.lease_until = lease_until;
    d.claimed_at = now;
    d.claimed_in = s->transactions;
    memory_write(s, row, &d);
    memory_change(s, CHANGE_CLAIM, row, &was, now);
}

int store_insert_deliveries(struct store *s, const struct new_delivery *n, size_t count, size_t *ret_made) {
    *ret_made = 0;
    for (size_t i = 0; i < count; i++, n++) {
        int r = memory_fails(s);
        if (r < 0)
            return r;
        if (memory_store_find(n->event_key, n->subscription_no) != SIZE_MAX)
            continue;
        struct memory_delivery d = {.event_key = n->event_key,
                                    .subscription_no = n->subscription_no,
                                    .lane_key = n->lane_key,
                                    .order_at = n->order_at,
                                    .window_at = n->order_at,
                                    .born_in = s->transactions};
        if (!d.lane_key || !blocked(s, &d))
            d.due_at = n->due_at ? n->due_at : n->order_at;
        uint32_t row = memory_insert(s, &d);
        memory_change(s, CHANGE_NEW, row, &d, world_wall());
        if (n->begun_at)
            begin(s, row, n->begun_at, n->lease_until);
        *ret_made += 1;
    }
    return 0;
}

int memory_store_replay(struct store *s, uint64_t event_key, uint32_t subscription_no, uint64_t lane_key,
                        int64_t now) {
    size_t row = memory_store_find(event_key, subscription_no);
    int r = memory_fails(s);
    if (r < 0 || row == SIZE_MAX)
        return r < 0 ? r : -ENOENT;
    struct memory_delivery was = s->deliveries[row], d = was;
    if (delivery_is_open(was.state))
        return -EBUSY;
    d.state = DELIVERY_REPLAYING;
    d.reason = REASON_NONE;
    d.lane_key = lane_key;
    d.order_at = d.window_at = now;
    d.base = d.attempts;
    d.uncounted = 0;
    d.replayed = true;
    d.born_in = s->transactions;
    d.due_at = lane_key && blocked(s, &d) ? 0 : now;
    memory_write(s, (uint32_t)row, &d);
    memory_change(s, CHANGE_REPLAY, (uint32_t)row, &was, now);
    return 0;
}

/* ---- to the DLQ without an attempt ---- */

static void shed(struct store *s, uint32_t row, enum delivery_reason reason, int64_t now) {
    struct memory_delivery was = s->deliveries[row], d = was;
    d.state = DELIVERY_DLQ;
    d.reason = reason;
    d.due_at = 0;
    d.lane_key = 0;
    memory_write(s, row, &d);
    memory_change(s, CHANGE_SHED, row, &was, now);
    if (was.lane_key)
        release(s, was.subscription_no, was.lane_key, now);
}

/* Whether the lane lets it go: what has a last attempt to come is spared for a while. */
static bool lets_go(const struct lane_expiry *lane, const struct memory_delivery *d, int64_t now) {
    int64_t end = d->window_at + lane->window_ms;
    bool resumed = lane->resumed_at && now < lane->resumed_at + lane->spare_ms;
    if (end >= now || (resumed && end <= lane->resumed_at))
        return false;
    if (d->state == DELIVERY_PENDING)
        return d->due_at != 0;
    return d->state != DELIVERY_ATTEMPTING && (d->due_at < end || end < now - lane->spare_ms);
}

int store_expire(struct store *s, const struct lane_expiry *lane, int64_t now, struct expired_task *ret,
                 size_t limit, size_t *ret_n) {
    int r = memory_fails(s);
    if (r < 0)
        return r;
    const struct memory_lane *l = &s->lanes[lane->subscription_no - 1];
    size_t n = 0;
    for (size_t i = l->n; i-- > 0 && n < limit;) {
        const struct memory_delivery *d = &s->deliveries[l->open[i]];
        if (!lets_go(lane, d, now))
            continue;
        ret[n++] = (struct expired_task){d->event_key, d->subscription_no, lane->tenant_no};
        shed(s, l->open[i], REASON_WINDOW_EXPIRED, now);
        i = l->n; /* what it released may lie anywhere */
    }
    *ret_n = n;
    return 0;
}

int store_close_deleted(struct store *s, uint32_t subscription_no, int64_t now, unsigned limit,
                        unsigned *ret_n) {
    int r = memory_fails(s);
    if (r < 0)
        return r;
    const struct memory_lane *l = &s->lanes[subscription_no - 1];
    unsigned n = 0;
    for (size_t i = l->n; i-- > 0 && n < limit;) {
        if (s->deliveries[l->open[i]].state == DELIVERY_ATTEMPTING)
            continue;
        shed(s, l->open[i], REASON_SUBSCRIPTION_DELETED, now);
        i = l->n;
        n++;
    }
    *ret_n = n;
    return 0;
}

/* ---- claiming ---- */

static struct task task_of(const struct memory_delivery *d) {
    return (struct task){.event_key = d->event_key,
                         .subscription_no = d->subscription_no,
                         .tenant_no = the_store.events[memory_store_event_no(d->event_key) - 1].tenant_no,
                         .number = d->attempts,
                         .base = d->base,
                         .uncounted = d->uncounted,
                         .lane_key = d->lane_key,
                         .window_at = d->window_at,
                         .lease_until = d->lease_until,
                         .trigger = d->replayed ? TRIGGER_REPLAY : TRIGGER_SCHEDULE};
}

/* The row that is due next after `last`; SIZE_MAX: none. */
static size_t next_due(const struct store *s, uint32_t subscription_no, const struct memory_delivery *last) {
    const struct memory_lane *l = &s->lanes[subscription_no - 1];
    const struct memory_delivery *first = NULL;
    for (size_t i = 0; i < l->n; i++) {
        const struct memory_delivery *d = &s->deliveries[l->open[i]];
        if (!d->due_at || d->due_at < last->due_at ||
            (d->due_at == last->due_at && d->event_key <= last->event_key))
            continue;
        if (!first || d->due_at < first->due_at ||
            (d->due_at == first->due_at && d->event_key < first->event_key))
            first = d;
    }
    return first ? (size_t)(first - s->deliveries) : SIZE_MAX;
}

static bool window_closed(const struct lane_claim *c, const struct memory_delivery *d, int64_t now) {
    int64_t end = d->window_at + c->window_ms;
    return now > end && d->due_at != end && c->resumed_at < end;
}

static void claim_row(struct store *s, struct lane_claim *c, uint32_t row, int64_t now, struct task *ret) {
    begin(s, row, now, now + c->lease_ms);
    *ret = task_of(&s->deliveries[row]);
    ret->probe = c->probe;
    c->claimed++;
}

struct claiming {
    struct store *s;
    int64_t now;
    struct task *tasks;
    size_t tasks_n;
    struct expired_task *expired;
    size_t expired_n, expired_max;
};

static void claim_lane(struct claiming *k, struct lane_claim *c) {
    struct store *s = k->s;
    struct memory_delivery last = {0};
    bool barred = false;
    c->claimed = c->expired = 0;
    c->next_due_at = k->now;
    if (c->held)
        return;
    size_t at;
    while (c->claimed < c->limit && (at = next_due(s, c->subscription_no, &last)) != SIZE_MAX) {
        struct memory_delivery d = s->deliveries[at];
        if (d.due_at > k->now)
            break;
        last = d;
        if (window_closed(c, &d, k->now)) {
            if (k->expired_n == k->expired_max)
                break;
            k->expired[k->expired_n++] = (struct expired_task){d.event_key, d.subscription_no, c->tenant_no};
            c->expired++;
            shed(s, (uint32_t)at, REASON_WINDOW_EXPIRED, k->now);
            last = (struct memory_delivery){0}; /* it may have released an earlier one */
        } else if (d.lane_key && behind_fanout(s, c->tenant_no, &d)) {
            barred = true;
        } else if (d.lane_key && blocked(s, &d)) {
            d.due_at = 0;
            memory_write(s, (uint32_t)at, &d);
        } else {
            claim_row(s, c, (uint32_t)at, k->now, &k->tasks[k->tasks_n++]);
        }
    }
    at = next_due(s, c->subscription_no, &last);
    c->next_due_at = at == SIZE_MAX ? INT64_MAX : s->deliveries[at].due_at;
    if (barred && k->now + BARRIER_POLL_MS < c->next_due_at)
        c->next_due_at = k->now + BARRIER_POLL_MS;
}

int store_claim(struct store *s, struct lane_claim *lanes, size_t n, int64_t now, struct task *tasks,
                size_t tasks_max, size_t *ret_tasks, struct expired_task *expired, size_t expired_max,
                size_t *ret_expired) {
    struct claiming k = {.s = s, .now = now, .tasks = tasks, .expired = expired, .expired_max = expired_max};
    for (size_t i = 0; i < n; i++) {
        int r = memory_fails(s);
        if (r < 0)
            return r;
        CHECK(k.tasks_n + lanes[i].limit <= tasks_max);
        claim_lane(&k, &lanes[i]);
    }
    *ret_tasks = k.tasks_n;
    *ret_expired = k.expired_n;
    return 0;
}

int store_list_lanes_due(struct store *s, uint32_t after_no, struct lane_due *ret, size_t max,
                         size_t *ret_n) {
    int r = memory_fails(s);
    if (r < 0)
        return r;
    size_t n = 0;
    for (uint32_t no = after_no + 1; no <= s->lanes_n && n < max; no++) {
        size_t row = next_due(s, no, &(struct memory_delivery){0});
        if (row != SIZE_MAX)
            ret[n++] = (struct lane_due){no, s->deliveries[row].due_at};
    }
    *ret_n = n;
    return 0;
}

/* ---- a changed ordering ---- */

static uint64_t wanted_key(const struct store *s, const struct memory_delivery *d,
                           enum subscription_ordering ordering) {
    const struct memory_event *e = &s->events[memory_store_event_no(d->event_key) - 1];
    struct slice key = e->ordering_key ? (struct slice){&e->ordering_key, 1} : SLICE_NONE;
    return subscription_lane_key(ordering, key);
}

/* Once all have their keys: of each, the first alone is due. */
static void place_all(struct store *s, const struct memory_lane *l) {
    for (size_t i = 0; i < l->n; i++) {
        struct memory_delivery d = s->deliveries[l->open[i]];
        if (d.state == DELIVERY_ATTEMPTING)
            continue;
        int64_t due_at = d.due_at ? d.due_at : d.order_at;
        d.due_at = d.lane_key && blocked(s, &d) ? 0 : due_at;
        memory_write(s, l->open[i], &d);
    }
}

/* The open delivery of the next event; NULL: there is none. */
static const struct memory_delivery *event_after(const struct store *s, const struct memory_lane *l,
                                                 int64_t event) {
    const struct memory_delivery *next = NULL;
    for (size_t i = 0; i < l->n; i++) {
        const struct memory_delivery *d = &s->deliveries[l->open[i]];
        if ((int64_t)d->event_key > event && (!next || d->event_key < next->event_key))
            next = d;
    }
    return next;
}

int store_relane(struct store *s, uint32_t subscription_no, enum subscription_ordering ordering,
                 struct relane_cursor *cursor, unsigned limit, bool *ret_done) {
    int r = memory_fails(s);
    if (r < 0)
        return r;
    const struct memory_lane *l = &s->lanes[subscription_no - 1];
    const struct memory_delivery *next = NULL;
    for (unsigned n = 0; n < limit && n < RELANE_A_STEP && (next = event_after(s, l, cursor->event)); n++) {
        struct memory_delivery d = *next;
        d.lane_key = wanted_key(s, &d, ordering);
        memory_write(s, (uint32_t)(next - s->deliveries), &d);
        cursor->event = (int64_t)d.event_key;
    }
    *ret_done = !event_after(s, l, cursor->event);
    if (*ret_done)
        place_all(s, l);
    return 0;
}

int store_set_relaned(struct store *s, uint32_t subscription_no, uint64_t relane) {
    int r = memory_fails(s);
    struct memory_subscription row = *memory_store_subscription(subscription_no);
    if (r < 0 || row.relane != relane)
        return r;
    row.relane = 0;
    memory_store_write_subscription(s, &row);
    return 1;
}

/* ---- settling ---- */

static int settle_one(struct store *s, struct settlement *i) {
    size_t row = memory_store_find(i->event_key, i->subscription_no);
    int r = memory_fails(s);
    if (r < 0)
        return r;
    CHECK(row != SIZE_MAX);
    struct memory_delivery was = s->deliveries[row], d = was;
    i->released_due_at = 0;
    i->stale = was.state != DELIVERY_ATTEMPTING || was.attempts != i->number;
    if (i->stale && planted(PLANT_FENCING) && delivery_is_open(was.state))
        i->stale = false;
    if (!i->stale) {
        d.state = i->to;
        d.reason = i->reason;
        d.lease_until = 0;
        d.due_at = i->to == DELIVERY_RETRY ? i->due_at : 0;
        d.uncounted += !i->counted;
        if (i->to != DELIVERY_RETRY)
            d.lane_key = 0;
        else if (d.replayed)
            d.order_at = i->due_at;
        memory_write(s, (uint32_t)row, &d);
    }
    struct memory_change *c =
        memory_change(s, i->stale ? CHANGE_STALE : CHANGE_SETTLE, (uint32_t)row, &was, i->settled_at);
    c->number = i->number;
    c->error = i->attempt.error;
    c->counted = i->counted;
    if (!i->stale && i->lane_key)
        i->released_due_at = release(s, i->subscription_no, i->lane_key, i->settled_at);
    return 0;
}

int store_settle(struct store *s, struct settlement *items, size_t n) {
    for (size_t i = 0; i < n; i++) {
        int r = settle_one(s, &items[i]);
        if (r < 0)
            return r;
    }
    return 0;
}

int store_list_expired_leases(struct store *s, int64_t before_at, struct leased_task *ret, size_t max,
                              size_t *ret_n) {
    int r = memory_fails(s);
    if (r < 0)
        return r;
    if (planted(PLANT_LEASE) && before_at != INT64_MAX)
        before_at += PLANTED_HURRY_MS;
    size_t n = 0;
    for (size_t no = 0; no < s->lanes_n; no++) {
        for (size_t i = 0; i < s->lanes[no].n && n < max; i++) {
            const struct memory_delivery *d = &s->deliveries[s->lanes[no].open[i]];
            if (d->state == DELIVERY_ATTEMPTING && d->lease_until < before_at)
                ret[n++] = (struct leased_task){task_of(d), d->claimed_at};
        }
    }
    *ret_n = n;
    return 0;
}
