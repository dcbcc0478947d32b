#include "faults.h"

#include "edges.h"
#include "memory_store.h"
#include "process.h"
#include "world.h"

enum {
    FIRST_MS_MAX = 1800000,
    DOWN_MS_MAX = 20000,
    OUTAGE_MS_MAX = 30000,
    JUMP_MS_MAX = 120000,
    SLOW_MS = 300,
    BUSY_MS_MAX = 25,
};

static struct {
    uint32_t lanes;
    int64_t until_ms;
    void (*armed)(void *arg);
} faults;

static void again(void (*fault)(void *arg), int64_t most_ms) {
    int64_t in_ms = between(1000, most_ms);
    if (world.true_ms + in_ms < faults.until_ms)
        world_later(in_ms, fault, NULL);
}

static void start(void *arg) {
    (void)arg;
    process_start();
}

static void crash_now(void *arg) {
    (void)arg;
    if (!process_is_up())
        return;
    process_crash();
    world_later(between(10, DOWN_MS_MAX), start, NULL);
}

/* Long enough, at times, that leases run out meanwhile: settles come late. */
static void freeze_now(void *arg) {
    (void)arg;
    if (!process_is_up())
        return;
    world_disturbed("a loop stands still");
    edge_loops_freeze(chance(0.5), chance(0.3) ? between(100, 5000) : between(5000, 30000));
}

/* Most of the time nothing goes on: the fault waits for the next send, and strikes in the steps around it. */
static void when_busy(void (*fault)(void *arg)) {
    if (chance(0.8))
        faults.armed = fault;
    else
        fault(NULL);
}

void faults_after_send(void) {
    if (!faults.armed)
        return;
    world_later(between(0, chance(0.5) ? BUSY_MS_MAX : 10 * BUSY_MS_MAX), faults.armed, NULL);
    faults.armed = NULL;
}

static void crash(void *arg) {
    (void)arg;
    when_busy(crash_now);
    again(crash, 3600000);
}

static void crash_often(void *arg) {
    (void)arg;
    when_busy(crash_now);
    again(crash_often, chance(0.3) ? 1200 : 600000);
}

static void stop(void *arg) {
    (void)arg;
    if (process_is_up())
        process_stop(between(10, DOWN_MS_MAX));
    again(stop, 7200000);
}

static void jump(void *arg) {
    (void)arg;
    world_jump(chance(0.5) ? between(1, JUMP_MS_MAX) : -between(1, JUMP_MS_MAX));
    again(jump, 7200000);
}

static void recovered(void *arg) {
    (void)arg;
    world_disturbed("the store is back");
}

static void outage(void *arg) {
    (void)arg;
    int64_t for_ms = between(100, OUTAGE_MS_MAX);
    world_disturbed("the store fails");
    memory_store_trouble(chance(0.5) ? 0.02 : 0, world.true_ms + for_ms);
    world_later(for_ms, recovered, NULL);
    again(outage, 7200000);
}

static void flaky(void *arg) {
    (void)arg;
    world_disturbed("the store fails now and then");
    memory_store_trouble(chance(0.5) ? 0.05 : 0, 0);
    again(flaky, 3600000);
}

static void slow(void *arg) {
    (void)arg;
    world_disturbed("the store's pace changes");
    edge_writer_slow(chance(0.5) ? SLOW_MS : 0);
    again(slow, 3600000);
}

static void freeze(void *arg) {
    (void)arg;
    when_busy(freeze_now);
    again(freeze, 1200000);
}

/* ---- operators ---- */

static uint32_t any_lane(void) {
    return (uint32_t)between(1, faults.lanes);
}

static void toggle_pause(struct memory_subscription *row) {
    if (row->status == SUBSCRIPTION_PAUSED)
        row->status = SUBSCRIPTION_ACTIVE;
    else if (row->status == SUBSCRIPTION_ACTIVE)
        row->status = SUBSCRIPTION_PAUSED;
}

static void change_policy(struct memory_subscription *row) {
    struct policy *p = &row->policy;
    switch (between(0, 3)) {
    case 0:
        p->max_in_flight = (uint32_t)between(1, 12);
        break;
    case 1:
        if (p->rate_per_second) {
            p->rate_per_second = (uint32_t)between(1, 10);
            p->rate_burst = (uint32_t)between(1, 20);
        }
        break;
    case 2:
        p->max_attempts = (uint32_t)between(2, 24);
        break;
    default:
        p->window_seconds = (uint32_t)between(600, 7200);
        break;
    }
}

static void change_ordering(struct memory_subscription *row) {
    row->ordering = (enum subscription_ordering)between(ORDERING_NONE, ORDERING_STRICT);
}

/* The operator's answer to a disabled subscription, and the creation of one. */
static void enable(struct memory_subscription *row) {
    if (row->status == SUBSCRIPTION_DISABLED)
        row->status = SUBSCRIPTION_ACTIVE;
}

static void create(struct memory_subscription *row) {
    if (row->status == SUBSCRIPTION_DELETED)
        row->status = SUBSCRIPTION_ACTIVE;
}

static void pause_one(void *arg) {
    (void)arg;
    if (process_is_up())
        process_patch(any_lane(), toggle_pause);
    again(pause_one, 1800000);
}

static void patch(void *arg) {
    (void)arg;
    if (process_is_up())
        process_patch(any_lane(), change_policy);
    again(patch, 1200000);
}

static void reorder(void *arg) {
    (void)arg;
    if (process_is_up())
        process_patch(any_lane(), change_ordering);
    again(reorder, 1800000);
}

static void enable_all(void *arg) {
    (void)arg;
    for (uint32_t no = 1; no <= faults.lanes && process_is_up(); no++)
        if (memory_store_subscription(no)->status == SUBSCRIPTION_DISABLED && chance(0.5))
            process_patch(no, enable);
    again(enable_all, 1200000);
}

static void remove_one(void *arg) {
    (void)arg;
    if (process_is_up())
        process_delete(any_lane());
    again(remove_one, 7200000);
}

static void change_tenant(void *arg) {
    (void)arg;
    struct memory_tenant *t = memory_store_tenant((uint32_t)between(1, MEMORY_TENANTS_MAX));
    if (process_is_up() && t->limits.max_in_flight < 1000) {
        t->limits.max_in_flight = (uint32_t)between(1, 12);
        process_configure_tenant(t->no);
    }
    again(change_tenant, 1800000);
}

static void replay(void *arg) {
    (void)arg;
    size_t n = memory_store_deliveries();
    for (int tries = 0; tries < 10 && n && process_is_up(); tries++) {
        const struct memory_delivery *d = memory_store_delivery(rng_below(&world.rng, n));
        if (delivery_is_open(d->state) ||
            memory_store_subscription(d->subscription_no)->status == SUBSCRIPTION_DELETED)
            continue;
        process_replay(d->event_key, d->subscription_no);
        if (chance(0.5))
            break;
    }
    again(replay, 1200000);
}

static void create_all(void *arg) {
    (void)arg;
    for (uint32_t no = 1; no <= faults.lanes && process_is_up(); no++)
        if (memory_store_subscription(no)->status == SUBSCRIPTION_DELETED)
            process_patch(no, create);
}

void faults_begin(uint32_t lanes, int64_t until_ms) {
    static const struct {
        void (*fault)(void *arg);
        double often; /* the share of seeds that know it */
    } all[] = {{crash, 0.4},         {crash_often, 0.05}, {stop, 0.2},       {jump, 0.25},
               {outage, 0.3},        {flaky, 0.2},        {slow, 0.2},       {freeze, 0.2},
               {pause_one, 0.4},     {patch, 0.5},        {enable_all, 0.5}, {remove_one, 0.3},
               {change_tenant, 0.3}, {replay, 0.5},       {reorder, 0.2}};
    faults.lanes = lanes;
    faults.until_ms = until_ms;
    faults.armed = NULL;
    edge_writer_slow(0);
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        if (chance(all[i].often))
            again(all[i].fault, FIRST_MS_MAX);
    /* Before anything was deleted. */
    world_later(500, create_all, NULL);
}
