/* Rows, transactions and what is read; memory_lanes.c has claiming, settling and order. */
#include "memory_store.h"

#include <errno.h>

#include "memory_rows.h"
#include "store/cluster.h"
#include "world.h"

const char *const memory_types[MEMORY_TYPES] = {
    [TYPE_PAID] = "order.paid", [TYPE_SENT] = "order.sent", [TYPE_USER] = "user.new", [TYPE_BLAST] = "blast"};

enum { CALLS_MAX = 20 }; /* of a transaction that fails: which one does; past the last one the commit */

struct store the_store;

void memory_store_begin(void) {
    struct store *s = &the_store;
    for (size_t i = 0; i < s->lanes_n; i++)
        s->lanes[i].n = 0;
    if (s->slots)
        memset(s->slots, 0, s->slots_n * sizeof *s->slots);
    s->deliveries_n = s->events_n = s->jobs_n = s->lanes_n = s->undo_n = s->changes_n = 0;
    s->transactions = 0;
    s->in_transaction = false;
    memory_store_trouble(0, 0);
    memset(s->tenants, 0, sizeof s->tenants);
}

void memory_store_clear(void) {
    struct store *s = &the_store;
    for (size_t i = 0; i < s->lanes_cap; i++)
        host_free(s->lanes[i].open);
    host_free(s->lanes);
    host_free(s->deliveries);
    host_free(s->slots);
    host_free(s->events);
    host_free(s->jobs);
    host_free(s->undo);
    host_free(s->changes);
    *s = (struct store){0};
}

struct store *memory_store(void) {
    return &the_store;
}

void memory_store_trouble(double probability, int64_t broken_until) {
    the_store.failing = probability;
    the_store.broken_until = broken_until;
}

int memory_fails(struct store *s) {
    CHECK(s->in_transaction);
    return s->calls_left > 0 && --s->calls_left == 0 ? -EIO : 0;
}

/* ---- deliveries by event and subscription ---- */

static size_t slot_of(const struct store *s, uint64_t event_key, uint32_t subscription_no) {
    size_t at = mix64(event_key ^ mix64(subscription_no)) & (s->slots_n - 1);
    for (; s->slots[at]; at = (at + 1) & (s->slots_n - 1)) {
        const struct memory_delivery *d = &s->deliveries[s->slots[at] - 1];
        if (d->event_key == event_key && d->subscription_no == subscription_no)
            break;
    }
    return at;
}

size_t memory_store_find(uint64_t event_key, uint32_t subscription_no) {
    const struct store *s = &the_store;
    return s->slots_n ? (size_t)s->slots[slot_of(s, event_key, subscription_no)] - 1 : SIZE_MAX;
}

static void grow_slots(struct store *s) {
    if (s->deliveries_n * 2 < s->slots_n)
        return;
    size_t cap = s->slots_n;
    s->slots = host_grow(s->slots, &cap, cap ? cap + 1 : 1024, sizeof *s->slots);
    s->slots_n = cap;
    memset(s->slots, 0, cap * sizeof *s->slots);
    for (uint32_t row = 0; row < s->deliveries_n; row++)
        s->slots[slot_of(s, s->deliveries[row].event_key, s->deliveries[row].subscription_no)] = row + 1;
}

/* ---- changing rows ---- */

static void join_lane(struct store *s, uint32_t row) {
    struct memory_lane *l = &s->lanes[s->deliveries[row].subscription_no - 1];
    l->open = host_grow(l->open, &l->cap, l->n + 1, sizeof *l->open);
    l->open[l->n++] = row;
}

static void leave_lane(struct store *s, uint32_t row) {
    struct memory_lane *l = &s->lanes[s->deliveries[row].subscription_no - 1];
    size_t i = 0;
    while (l->open[i] != row)
        CHECK(++i < l->n);
    l->open[i] = l->open[--l->n];
}

static void set_row(struct store *s, uint32_t row, const struct memory_delivery *d) {
    bool was_open = delivery_is_open(s->deliveries[row].state), is_open = delivery_is_open(d->state);
    s->deliveries[row] = *d;
    if (is_open && !was_open)
        join_lane(s, row);
    else if (was_open && !is_open)
        leave_lane(s, row);
}

static struct undo *remember(struct store *s, enum undo_kind kind, size_t at) {
    s->undo = host_grow(s->undo, &s->undo_cap, s->undo_n + 1, sizeof *s->undo);
    s->undo[s->undo_n] = (struct undo){.kind = kind, .at = at};
    return &s->undo[s->undo_n++];
}

void memory_write(struct store *s, uint32_t row, const struct memory_delivery *d) {
    remember(s, UNDO_DELIVERY, row)->delivery = s->deliveries[row];
    set_row(s, row, d);
}

uint32_t memory_insert(struct store *s, const struct memory_delivery *d) {
    grow_slots(s);
    s->deliveries = host_grow(s->deliveries, &s->deliveries_cap, s->deliveries_n + 1, sizeof *s->deliveries);
    uint32_t row = (uint32_t)s->deliveries_n++;
    s->deliveries[row] = *d;
    s->slots[slot_of(s, d->event_key, d->subscription_no)] = row + 1;
    join_lane(s, row);
    remember(s, UNDO_INSERT, row);
    return row;
}

static void undo_one(struct store *s, const struct undo *u) {
    switch (u->kind) {
    case UNDO_DELIVERY:
        set_row(s, (uint32_t)u->at, &u->delivery);
        break;
    case UNDO_INSERT:
        leave_lane(s, (uint32_t)u->at);
        /* The last one in: nothing was looked for past its slot. */
        s->slots[slot_of(s, s->deliveries[u->at].event_key, s->deliveries[u->at].subscription_no)] = 0;
        s->deliveries_n--;
        break;
    case UNDO_SUBSCRIPTION:
        s->lanes[u->at].subscription = u->subscription;
        break;
    case UNDO_EVENT:
        s->events_n--;
        break;
    case UNDO_JOB:
        s->jobs[u->at] = u->job;
        break;
    case UNDO_NEW_JOB:
        s->jobs_n--;
        break;
    }
}

static void undo_to(struct store *s, size_t n, size_t changes) {
    while (s->undo_n > n)
        undo_one(s, &s->undo[--s->undo_n]);
    s->changes_n = changes;
}

struct memory_change *memory_change(struct store *s, enum change_kind kind, uint32_t row,
                                    const struct memory_delivery *before, int64_t now) {
    s->changes = host_grow(s->changes, &s->changes_cap, s->changes_n + 1, sizeof *s->changes);
    struct memory_change *c = &s->changes[s->changes_n++];
    *c = (struct memory_change){
        .kind = kind, .row = row, .before = *before, .after = s->deliveries[row], .now = now};
    return c;
}

/* ---- transactions ---- */

int store_begin(struct store *s) {
    CHECK(!s->in_transaction);
    if (world.true_ms < s->broken_until)
        return -EIO;
    s->in_transaction = true;
    s->calls_left = s->failing > 0 && chance(s->failing) ? (int)between(1, CALLS_MAX) : 0;
    s->undo_n = s->changes_n = 0;
    s->transactions++;
    return 0;
}

int store_commit(struct store *s) {
    if (s->calls_left > 0)
        return -EIO;
    s->in_transaction = false;
    return 0;
}

void store_rollback(struct store *s) {
    undo_to(s, 0, 0);
    s->in_transaction = false;
}

int store_savepoint(struct store *s) {
    s->savepoint_undo = s->undo_n;
    s->savepoint_changes = s->changes_n;
    return 0;
}

int store_savepoint_release(struct store *s) {
    (void)s;
    return 0;
}

int store_savepoint_rollback(struct store *s) {
    undo_to(s, s->savepoint_undo, s->savepoint_changes);
    return 0;
}

/* ---- control plane ---- */

struct memory_subscription *memory_store_add_subscription(const struct memory_subscription *row) {
    struct store *s = &the_store;
    CHECK(row->no == s->lanes_n + 1);
    size_t before = s->lanes_cap;
    s->lanes = host_grow(s->lanes, &s->lanes_cap, s->lanes_n + 1, sizeof *s->lanes);
    memset(s->lanes + before, 0, (s->lanes_cap - before) * sizeof *s->lanes);
    struct memory_lane *l = &s->lanes[s->lanes_n++];
    l->subscription = *row;
    return &l->subscription;
}

void memory_store_write_subscription(struct store *s, const struct memory_subscription *row) {
    CHECK(s->in_transaction);
    struct memory_subscription *now = &s->lanes[row->no - 1].subscription;
    remember(s, UNDO_SUBSCRIPTION, row->no - 1)->subscription = *now;
    *now = *row;
}

const struct memory_subscription *memory_store_subscription(uint32_t no) {
    return no >= 1 && no <= the_store.lanes_n ? &the_store.lanes[no - 1].subscription : NULL;
}

int store_get_subscription(struct store *s, uint32_t no, struct subscription_record *ret) {
    const struct memory_subscription *row = memory_store_subscription(no);
    int r = memory_fails(s);
    if (r < 0 || !row || row->status == SUBSCRIPTION_DELETED)
        return r < 0 ? r : -ENOENT;
    *ret = (struct subscription_record){.no = no, .tenant_no = row->tenant_no, .status = row->status};
    return 0;
}

int store_set_health(struct store *s, uint32_t no, int64_t failing_since, int64_t raised_since) {
    int r = memory_fails(s);
    if (r < 0)
        return r;
    struct memory_subscription row = *memory_store_subscription(no);
    row.failing_since = failing_since;
    row.raised_since = raised_since;
    memory_store_write_subscription(s, &row);
    return 0;
}

int store_set_lane_state(struct store *s, uint32_t no, uint32_t tenant_no, struct slice state, int64_t now) {
    (void)now;
    int r = memory_fails(s);
    if (r < 0)
        return r;
    struct memory_subscription row = *memory_store_subscription(no);
    CHECK(row.tenant_no == tenant_no && (!state.p || state.n == sizeof row.lane_state));
    row.has_lane_state = state.p != NULL;
    if (state.p)
        memcpy(row.lane_state, state.p, state.n);
    memory_store_write_subscription(s, &row);
    return 0;
}

/* ---- events and jobs ---- */

int memory_store_insert_event(struct store *s, const struct memory_event *e) {
    int r = memory_fails(s);
    if (r < 0)
        return r;
    CHECK(!s->events_n || s->events[s->events_n - 1].id.key < e->id.key);
    s->events = host_grow(s->events, &s->events_cap, s->events_n + 1, sizeof *s->events);
    s->events[s->events_n++] = *e;
    remember(s, UNDO_EVENT, s->events_n - 1);
    return 0;
}

size_t memory_store_event_no(uint64_t event_key) {
    size_t low = 0, high = the_store.events_n;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (the_store.events[mid].id.key < event_key)
            low = mid + 1;
        else
            high = mid;
    }
    return low < the_store.events_n && the_store.events[low].id.key == event_key ? low + 1 : 0;
}

int store_get_event(struct store *s, uint32_t tenant_no, uint64_t event_key, struct event_record *ret) {
    size_t no = memory_store_event_no(event_key);
    int r = memory_fails(s);
    if (r < 0 || !no)
        return r < 0 ? r : -ENOENT;
    const struct memory_event *e = &s->events[no - 1];
    if (e->tenant_no != tenant_no)
        return -ENOENT;
    *ret = (struct event_record){.id = e->id,
                                 .tenant_no = e->tenant_no,
                                 .type = slice_of(memory_types[e->type]),
                                 .deliver_at = e->deliver_at};
    if (e->ordering_key)
        ret->ordering_key = (struct slice){&e->ordering_key, 1};
    return 0;
}

int store_insert_job(struct store *s, const struct fanout_job *j) {
    int r = memory_fails(s);
    if (r < 0)
        return r;
    s->jobs = host_grow(s->jobs, &s->jobs_cap, s->jobs_n + 1, sizeof *s->jobs);
    s->jobs[s->jobs_n++] = *j;
    remember(s, UNDO_NEW_JOB, s->jobs_n - 1);
    return 0;
}

int store_update_job(struct store *s, const struct fanout_job *j) {
    int r = memory_fails(s);
    if (r < 0)
        return r;
    size_t i = 0;
    while (s->jobs[i].event_key != j->event_key)
        CHECK(++i < s->jobs_n);
    remember(s, UNDO_JOB, i)->job = s->jobs[i];
    s->jobs[i] = *j;
    return 0;
}

int store_list_jobs(struct store *s, uint64_t after_key, struct fanout_job *ret, size_t max, size_t *ret_n) {
    int r = memory_fails(s);
    if (r < 0)
        return r;
    size_t n = 0;
    for (size_t i = 0; i < s->jobs_n && n < max; i++)
        if (s->jobs[i].state != FANOUT_DONE && s->jobs[i].event_key > after_key)
            ret[n++] = s->jobs[i];
    *ret_n = n;
    return 0;
}

int store_take_job(struct store *s, uint64_t after_key, struct fanout_job *ret) {
    size_t n = 0;
    int r = store_list_jobs(s, after_key, ret, 1, &n);
    return r == 0 && n == 0 ? -ENOENT : r;
}

int store_last_job(struct store *s, uint64_t *ret) {
    int r = memory_fails(s);
    if (r < 0)
        return r;
    *ret = 0;
    for (size_t i = 0; i < s->jobs_n; i++)
        if (s->jobs[i].state != FANOUT_DONE && s->jobs[i].seq > *ret)
            *ret = s->jobs[i].seq;
    return 0;
}

bool memory_store_job_pending(uint64_t event_key, uint32_t subscription_no) {
    for (size_t i = 0; i < the_store.jobs_n; i++) {
        const struct fanout_job *j = &the_store.jobs[i];
        if (j->event_key == event_key)
            return j->state != FANOUT_DONE && j->cursor < subscription_no && subscription_no <= j->upper;
    }
    return false;
}

size_t memory_store_jobs_pending(void) {
    size_t n = 0;
    for (size_t i = 0; i < the_store.jobs_n; i++)
        n += the_store.jobs[i].state != FANOUT_DONE;
    return n;
}

/* ---- looking ---- */

size_t memory_store_subscriptions(void) {
    return the_store.lanes_n;
}

struct memory_tenant *memory_store_tenant(uint32_t no) {
    CHECK(no >= 1 && no <= MEMORY_TENANTS_MAX);
    return &the_store.tenants[no - 1];
}

size_t memory_store_deliveries(void) {
    return the_store.deliveries_n;
}

const struct memory_delivery *memory_store_delivery(size_t row) {
    return row < the_store.deliveries_n ? &the_store.deliveries[row] : NULL;
}

const uint32_t *memory_store_open(uint32_t subscription_no, size_t *ret_n) {
    const struct memory_lane *l = &the_store.lanes[subscription_no - 1];
    *ret_n = l->n;
    return l->open;
}

size_t memory_store_events(void) {
    return the_store.events_n;
}

const struct memory_event *memory_store_event(size_t i) {
    return &the_store.events[i];
}

uint64_t memory_store_transactions(void) {
    return the_store.transactions;
}

const struct memory_change *memory_store_changes(size_t *ret_n) {
    CHECK(!the_store.in_transaction);
    *ret_n = the_store.changes_n;
    return the_store.changes;
}

int store_reader_open(struct store *s, struct store_reader **ret) {
    (void)s;
    *ret = NULL; /* nothing is read outside of transactions */
    return 0;
}

void store_reader_close(struct store_reader *r) {
    (void)r;
}
