#include "memory_store.h"

#include <stdlib.h>

#include "base/check.h"

struct memory_delivery *memory_store_at(struct memory_store *s, uint64_t event_key) {
    CHECK(event_key >= 1 && event_key <= s->n);
    return &s->deliveries[event_key - 1];
}

static void open_one(struct memory_lane *l, uint64_t event_key) {
    if (l->n == l->cap) {
        l->cap = l->cap ? l->cap * 2 : 64;
        CHECK((l->open = realloc(l->open, l->cap * sizeof *l->open)) != NULL);
    }
    l->open[l->n++] = event_key;
}

static void close_one(struct memory_store *s, uint64_t event_key, enum delivery_state to,
                      enum delivery_reason reason) {
    struct memory_delivery *d = memory_store_at(s, event_key);
    struct memory_lane *l = &s->lanes[d->subscription_no];
    for (size_t i = 0; i < l->n; i++) {
        if (l->open[i] == event_key) {
            l->open[i] = l->open[--l->n];
            break;
        }
    }
    d->state = to;
    d->reason = reason;
    d->due_at = d->lease_until = 0;
    d->lane_key = 0;
}

static bool before(const struct memory_store *s, uint64_t a, uint64_t b) {
    const struct memory_delivery *x = &s->deliveries[a - 1], *y = &s->deliveries[b - 1];
    return x->order_at != y->order_at ? x->order_at < y->order_at : a < b;
}

/* Whether another of its key stands before it, or is under way. */
static bool blocked(const struct memory_store *s, uint64_t event_key) {
    const struct memory_delivery *d = &s->deliveries[event_key - 1];
    const struct memory_lane *l = &s->lanes[d->subscription_no];
    for (size_t i = 0; i < l->n; i++) {
        const struct memory_delivery *o = &s->deliveries[l->open[i] - 1];
        if (l->open[i] == event_key || o->lane_key != d->lane_key)
            continue;
        if (s->plant == PLANT_FIFO && o->state == DELIVERY_RETRY)
            continue;
        if (o->state == DELIVERY_ATTEMPTING || before(s, l->open[i], event_key))
            return true;
    }
    return false;
}

/* The first of a key becomes due. */
static int64_t release(struct memory_store *s, uint32_t no, uint64_t lane_key) {
    const struct memory_lane *l = &s->lanes[no];
    uint64_t first = 0;
    for (size_t i = 0; i < l->n; i++) {
        const struct memory_delivery *d = memory_store_at(s, l->open[i]);
        if (d->lane_key != lane_key || (s->plant == PLANT_FIFO && d->state == DELIVERY_RETRY))
            continue;
        if (d->state == DELIVERY_ATTEMPTING)
            return 0;
        if (!first || before(s, l->open[i], first))
            first = l->open[i];
    }
    if (!first)
        return 0;
    struct memory_delivery *d = memory_store_at(s, first);
    if (!d->due_at)
        d->due_at = d->order_at;
    return d->due_at;
}

void memory_store_insert(struct memory_store *s, const struct new_delivery *n) {
    if (s->n == s->cap) {
        s->cap = s->cap ? s->cap * 2 : 256;
        CHECK((s->deliveries = realloc(s->deliveries, s->cap * sizeof *s->deliveries)) != NULL);
    }
    CHECK(n->event_key == s->n + 1 && n->subscription_no < MEMORY_LANES_MAX);
    s->deliveries[s->n++] = (struct memory_delivery){.subscription_no = n->subscription_no,
                                                     .lane_key = n->lane_key,
                                                     .order_at = n->order_at,
                                                     .window_at = n->order_at};
    open_one(&s->lanes[n->subscription_no], n->event_key);
    struct memory_delivery *d = memory_store_at(s, n->event_key);
    d->due_at = d->lane_key && blocked(s, n->event_key) ? 0 : d->order_at;
}

static uint64_t first_due(const struct memory_store *s, uint32_t no) {
    const struct memory_lane *l = &s->lanes[no];
    uint64_t first = 0;
    for (size_t i = 0; i < l->n; i++) {
        int64_t due_at = s->deliveries[l->open[i] - 1].due_at;
        if (!due_at)
            continue;
        int64_t best = first ? s->deliveries[first - 1].due_at : INT64_MAX;
        if (due_at < best || (due_at == best && l->open[i] < first))
            first = l->open[i];
    }
    return first;
}

int64_t memory_store_earliest(const struct memory_store *s, uint32_t no) {
    uint64_t first = first_due(s, no);
    return first ? s->deliveries[first - 1].due_at : INT64_MAX;
}

static void shed(struct memory_store *s, uint64_t event_key) {
    struct memory_delivery *d = memory_store_at(s, event_key);
    uint64_t lane_key = d->lane_key;
    close_one(s, event_key, DELIVERY_DLQ, REASON_WINDOW_EXPIRED);
    s->expired(s->arg, event_key);
    if (lane_key)
        release(s, d->subscription_no, lane_key);
}

static struct task task_of(const struct memory_store *s, uint64_t event_key) {
    const struct memory_delivery *d = &s->deliveries[event_key - 1];
    return (struct task){.event_key = event_key,
                         .subscription_no = d->subscription_no,
                         .number = d->attempts,
                         .base = d->base,
                         .uncounted = d->uncounted,
                         .lane_key = d->lane_key,
                         .window_at = d->window_at,
                         .lease_until = d->lease_until,
                         .trigger = d->replayed ? TRIGGER_REPLAY : TRIGGER_SCHEDULE};
}

void memory_store_claim(struct memory_store *s, struct lane_claim *c, int64_t now, struct task *tasks,
                        size_t *tasks_n) {
    c->claimed = c->expired = 0;
    uint64_t key;
    while (c->claimed < c->limit && (key = first_due(s, c->subscription_no))) {
        struct memory_delivery *d = memory_store_at(s, key);
        if (d->due_at > now)
            break;
        int64_t end = d->window_at + c->window_ms;
        if (now > end && d->due_at < end && c->resumed_at < end) {
            c->expired++;
            shed(s, key);
        } else if (d->lane_key && blocked(s, key)) {
            d->due_at = 0;
        } else {
            d->state = DELIVERY_ATTEMPTING;
            d->attempts++;
            d->due_at = 0;
            d->lease_until = now + c->lease_ms;
            tasks[*tasks_n] = task_of(s, key);
            tasks[(*tasks_n)++].probe = c->probe;
            c->claimed++;
        }
    }
    c->next_due_at = memory_store_earliest(s, c->subscription_no);
}

void memory_store_settle(struct memory_store *s, struct settlement *i) {
    struct memory_delivery *d = memory_store_at(s, i->event_key);
    i->released_due_at = 0;
    i->stale = d->state != DELIVERY_ATTEMPTING || d->attempts != i->number;
    if (s->plant == PLANT_FENCING && delivery_is_open(d->state))
        i->stale = false;
    if (i->stale)
        return;
    d->lease_until = 0;
    if (i->to == DELIVERY_RETRY) {
        d->state = DELIVERY_RETRY;
        d->due_at = i->due_at;
        d->uncounted += !i->counted;
        if (d->replayed)
            d->order_at = i->due_at;
    } else {
        close_one(s, i->event_key, i->to, i->reason);
    }
    if (i->lane_key)
        i->released_due_at = release(s, i->subscription_no, i->lane_key);
}

void memory_store_expire(struct memory_store *s, const struct lane_expiry *e, int64_t now) {
    struct memory_lane *l = &s->lanes[e->subscription_no];
    for (size_t i = l->n; i-- > 0;) {
        const struct memory_delivery *d = memory_store_at(s, l->open[i]);
        int64_t end = d->window_at + e->window_ms;
        bool spared = (d->due_at >= end && now <= end + e->spare_ms) ||
                      (e->resumed_at >= end && now < e->resumed_at + e->spare_ms);
        if (d->state != DELIVERY_ATTEMPTING && end < now && !spared &&
            (d->due_at || d->state != DELIVERY_PENDING))
            shed(s, l->open[i]);
    }
}

size_t memory_store_expired_leases(struct memory_store *s, int64_t before_at, struct task *ret, size_t max) {
    size_t n = 0;
    for (uint32_t no = 0; no < MEMORY_LANES_MAX; no++) {
        for (size_t i = 0; i < s->lanes[no].n && n < max; i++) {
            const struct memory_delivery *d = memory_store_at(s, s->lanes[no].open[i]);
            if (d->state == DELIVERY_ATTEMPTING && d->lease_until < before_at)
                ret[n++] = task_of(s, s->lanes[no].open[i]);
        }
    }
    return n;
}

void memory_store_replay(struct memory_store *s, uint64_t event_key, uint64_t lane_key, int64_t now) {
    struct memory_delivery *d = memory_store_at(s, event_key);
    CHECK(!delivery_is_open(d->state));
    d->state = DELIVERY_REPLAYING;
    d->reason = REASON_NONE;
    d->lane_key = lane_key;
    d->order_at = d->window_at = now;
    d->base = d->attempts;
    d->uncounted = 0;
    d->replayed = true;
    open_one(&s->lanes[d->subscription_no], event_key);
    d->due_at = lane_key && blocked(s, event_key) ? 0 : now;
}

void memory_store_clear(struct memory_store *s) {
    for (size_t i = 0; i < MEMORY_LANES_MAX; i++)
        free(s->lanes[i].open);
    free(s->deliveries);
    *s = (struct memory_store){0};
}
