#include "scenario.h"

#include "edges.h"
#include "faults.h"
#include "memory_store.h"
#include "process.h"
#include "timeline.h"
#include "world.h"

enum {
    LANES_MAX = 10,
    FILLERS = 1100, /* more than a fan-out makes at once, and a chunk of a job */
    EVENTS_MAX = 700,
    BATCH_MAX = 40,
    BLASTS_MAX = 4, /* in a seed with fillers */
    WINDOW_MS_MAX = 7200000,
    DELIVER_IN_MS_MAX = 600000,
};

static struct {
    struct receiver receivers[LANES_MAX + FILLERS + 1];
    bool limited_tenant[MEMORY_TENANTS_MAX + 1];
    unsigned loops, budget, lanes;
    int64_t publish_until, blasts;
    double memory_trouble, job_share;
    bool large;
} scenario;

unsigned scenario_loops(void) {
    return scenario.loops;
}

unsigned scenario_budget(void) {
    return scenario.budget;
}

double scenario_memory_trouble(void) {
    return scenario.memory_trouble;
}

double scenario_job_share(void) {
    return scenario.job_share;
}

const struct receiver *scenario_receiver(uint32_t no) {
    return &scenario.receivers[no];
}

bool scenario_is_healthy(uint32_t no) {
    const struct memory_subscription *s = memory_store_subscription(no);
    return scenario.receivers[no].kind == RECEIVER_FAST && !s->policy.rate_per_second &&
           !scenario.limited_tenant[s->tenant_no] && scenario.memory_trouble == 0;
}

int64_t scenario_end_at(void) {
    return scenario.publish_until + WINDOW_MS_MAX + DELIVER_IN_MS_MAX + SCENARIO_END_SLACK_MS;
}

/* ---- what there is ---- */

static void make_tenants(void) {
    for (uint32_t no = 1; no <= MEMORY_TENANTS_MAX; no++) {
        struct memory_tenant *t = memory_store_tenant(no);
        bool limited = chance(0.3);
        *t = (struct memory_tenant){.no = no, .tier = (enum tenant_tier)rng_below(&world.rng, TIERS)};
        t->limits.max_in_flight = limited ? (uint32_t)between(1, 12) : 10000;
        t->limits.deliveries_per_minute = limited && chance(0.5) ? (uint32_t)between(20, 300) : 0;
        scenario.limited_tenant[no] = limited;
    }
}

static void make_policy(struct policy *p) {
    static uint32_t schedule[] = {2, 30, 30, 300};
    policy_init(p);
    p->timeout_ms = (uint32_t)between(1000, 8000);
    p->max_in_flight = (uint32_t)between(1, 12);
    p->max_attempts = (uint32_t)between(2, 24);
    p->window_seconds = (uint32_t)between(600, WINDOW_MS_MAX / 1000);
    p->retry.initial_seconds = (uint32_t)between(1, 10);
    p->retry.max_seconds = (uint32_t)between(60, 1800);
    p->retry.jitter = chance(0.2) ? 0 : 0.2;
    if (chance(0.2)) {
        p->retry.schedule_seconds = schedule;
        p->retry.schedule_n = sizeof schedule / sizeof schedule[0];
    }
    if (chance(0.2)) {
        p->rate_per_second = (uint32_t)between(1, 10);
        p->rate_burst = (uint32_t)between(1, 20);
    }
    if (chance(0.1))
        p->disable_after_seconds = (uint32_t)between(120, 3600);
}

static void make_lane(uint32_t no) {
    struct memory_subscription s = {.no = no,
                                    .tenant_no = (uint32_t)between(1, MEMORY_TENANTS_MAX),
                                    .ordering =
                                        (enum subscription_ordering)between(ORDERING_NONE, ORDERING_STRICT),
                                    .interest = (enum memory_interest)between(INTEREST_ALL, INTEREST_MIXED)};
    make_policy(&s.policy);
    /* Created later, by the first PATCH. */
    if (chance(0.1))
        s.status = SUBSCRIPTION_DELETED;
    scenario.receivers[no] =
        receiver_make(chance(0.3) ? RECEIVER_FAST : (enum receiver_kind)rng_below(&world.rng, RECEIVERS));
    memory_store_add_subscription(&s);
}

/* Many subscriptions of one tenant that listen to the blasts alone. They are paused, and deleted in the end:
 * their large fan-out is what matters here. */
static void make_fillers(uint32_t from) {
    for (uint32_t no = from; no < from + FILLERS; no++) {
        struct memory_subscription s = {
            .no = no, .tenant_no = 1, .status = SUBSCRIPTION_PAUSED, .interest = INTEREST_BLAST};
        policy_init(&s.policy);
        s.policy.window_seconds = WINDOW_MS_MAX / 1000;
        scenario.receivers[no] = receiver_make(RECEIVER_FAST);
        memory_store_add_subscription(&s);
    }
}

/* ---- what is published ---- */

static struct publish_wish wish(uint32_t tenant_no) {
    struct publish_wish w = {.tenant_no = tenant_no,
                             .type = (enum memory_type)rng_below(&world.rng, TYPE_BLAST)};
    if (chance(0.8))
        w.ordering_key = (char)('a' + (char)rng_below(&world.rng, 3));
    if (chance(0.05))
        w.deliver_in_ms = between(1, DELIVER_IN_MS_MAX);
    if (tenant_no == 1 && scenario.blasts > 0 && chance(0.05)) {
        w.type = TYPE_BLAST;
        w.deliver_in_ms = 0;
        scenario.blasts--;
    }
    return w;
}

static void publish(void *arg) {
    (void)arg;
    size_t n = (size_t)(chance(0.1) ? between(5, BATCH_MAX) : between(1, 3));
    uint32_t tenant_no = memory_store_subscription((uint32_t)between(1, scenario.lanes))->tenant_no;
    struct publish_wish wishes[BATCH_MAX];
    for (size_t i = 0; i < n; i++)
        wishes[i] = wish(tenant_no);
    if (process_is_up() && memory_store_events() < EVENTS_MAX)
        process_publish(wishes, n);
    if (world.true_ms < scenario.publish_until)
        world_later(chance(0.3) ? between(0, 500) : between(100, 120000), publish, NULL);
}

/* ---- the end ---- */

static void resume(struct memory_subscription *row) {
    if (row->status == SUBSCRIPTION_PAUSED)
        row->status = SUBSCRIPTION_ACTIVE;
}

/* Once nothing new comes, no pause may keep anything open. */
static void wind_up(void *arg) {
    (void)arg;
    bool again = !process_is_up();
    for (uint32_t no = 1; no <= memory_store_subscriptions() && !again; no++) {
        if (memory_store_subscription(no)->status != SUBSCRIPTION_PAUSED)
            continue;
        again = true;
        for (uint32_t k = no; k < no + 32 && k <= memory_store_subscriptions(); k++) {
            if (memory_store_subscription(k)->status != SUBSCRIPTION_PAUSED)
                continue;
            if (k > scenario.lanes)
                process_delete(k);
            else
                process_patch(k, resume);
        }
    }
    if (again)
        world_later(1000, wind_up, NULL);
}

void scenario_begin(void) {
    memset(&scenario, 0, sizeof scenario);
    scenario.loops = (unsigned)between(1, 3);
    scenario.budget = (unsigned)between(20, 80);
    scenario.lanes = (unsigned)between(2, LANES_MAX);
    scenario.memory_trouble = chance(0.1) ? 0.01 : 0;
    scenario.job_share = chance(0.5) ? 0.2 : 0;
    scenario.large = chance(0.01);
    scenario.publish_until = between(600000, 7200000);
    make_tenants();
    for (uint32_t no = 1; no <= scenario.lanes; no++)
        make_lane(no);
    /* In the end all answer, so that what a pause has kept past its window is over soon. */
    for (uint32_t no = 1; no <= scenario.lanes; no++)
        scenario.receivers[no].healthy_from = scenario_end_at() - SCENARIO_END_SLACK_MS;
    if (scenario.large) {
        make_fillers(scenario.lanes + 1);
        scenario.blasts = BLASTS_MAX;
    }
    faults_begin(scenario.lanes, scenario.publish_until);
    world_later(1, publish, NULL);
    world_later(scenario.publish_until, wind_up, NULL);
}
