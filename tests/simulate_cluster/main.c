/* Seeds, faults, time, and what must hold in the end. */
#include <stdio.h>
#include <stdlib.h>

#include "base/heap.h"
#include "base/log.h"
#include "sim.h"

struct sim sim;

const char *const plant_names[PLANTS] = {"none",  "fence", "inherit", "release",
                                         "haste", "send",  "forget",  "tiers"};

struct event {
    struct heap_node node;
    struct process *p;
    bool store;
    void (*fn)(struct process *p, void *arg);
    void *arg;
};
static struct heap events;

int64_t __wrap_clock_now_ms(void);
int64_t __wrap_clock_mono_us(void);
void __wrap_clock_set_offset(int64_t us);
void __wrap_log_write(enum log_level level, const char *message, const struct log_field *fields, size_t n);

int64_t __wrap_clock_now_ms(void) {
    return sim.now;
}

int64_t __wrap_clock_mono_us(void) {
    return sim.now * 1000;
}

void __wrap_clock_set_offset(int64_t us) {
    (void)us;
}

void __wrap_log_write(enum log_level level, const char *message, const struct log_field *fields, size_t n) {
    (void)level;
    (void)fields;
    (void)n;
    if (sim.verbose)
        printf("%8.3f node %u: %s\n", (double)sim.now / 1000, sim.running ? sim.running->node.me.no : 0,
               message);
}

bool chance(double p) {
    return rng_unit(&sim.rng) < p;
}

int64_t between(int64_t from, int64_t to) {
    return from + (int64_t)rng_below(&sim.rng, (uint64_t)(to - from + 1));
}

void violate(const char *what, uint32_t node, uint32_t lane) {
    if (!sim.violated && (sim.verbose || sim.plant == PLANT_NONE))
        printf("seed %llu at %.3f s: %s (node %u, lane %u)\n", (unsigned long long)sim.seed,
               (double)sim.now / 1000, what, node, lane);
    sim.violated = true;
}

void after(int64_t in_ms, struct process *p, bool store, void (*fn)(struct process *p, void *arg),
           void *arg) {
    struct event *e = calloc(1, sizeof *e);
    CHECK(e != NULL);
    *e = (struct event){.p = p, .store = store, .fn = fn, .arg = arg};
    CHECK(heap_set(&events, &e->node, sim.now + in_ms) == 0);
}

/* ---- threads ---- */

static void run_thread(struct process *p) {
    sim.running = p;
    swapcontext(&sim.scheduler, &p->context);
    sim.running = NULL;
}

static void wake(struct process *p, void *arg) {
    (void)arg;
    run_thread(p);
}

void sleep_ms(int64_t ms) {
    struct process *p = sim.running;
    CHECK(p != NULL);
    after(ms, p, false, wake, NULL);
    swapcontext(&p->context, &sim.scheduler);
}

/* ---- faults ---- */

static struct process *any(void) {
    struct process *p = sim.processes[between(0, NODES - 1)];
    return p && p->up ? p : NULL;
}

static unsigned running(void) {
    unsigned n = 0;
    for (size_t i = 0; i < NODES; i++)
        n += sim.processes[i] && !atomic_load(&sim.processes[i]->node.leaving);
    return n;
}

static void start_process(void) {
    process_start();
    for (size_t i = 0; i < NODES; i++)
        if (sim.processes[i] && sim.processes[i]->woken) {
            sim.processes[i]->woken = false;
            after(0, sim.processes[i], false, wake, NULL);
        }
}

static void fault(struct process *ignored, void *arg) {
    (void)ignored;
    (void)arg;
    if (sim.now > FAULTS_END_MS)
        return;
    struct process *p = any();
    int64_t what = between(0, 9);
    for (int64_t n = between(0, 4); n > 0; n--)
        if ((p = any()))
            process_change_tier(p);
    p = any();
    if (what <= 3 || running() < 2)
        start_process();
    else if (p && what <= 5) /* now and then for longer than its lease */
        p->frozen_until = sim.now + between(10, chance(0.5) ? 800 : 3 * LEASE_MS);
    else if (p && what == 6)
        p->cut_off_until = sim.now + between(100, 2 * LEASE_MS);
    else if (p && what == 7)
        process_end(p);
    else if (p)
        process_stop(p);
    after(between(200, 6000), NULL, true, fault, NULL);
}

static void publish(struct process *ignored, void *arg) {
    (void)ignored;
    (void)arg;
    store_publish();
    if (sim.now < FAULTS_END_MS + 20000)
        after(between(1, 60), NULL, true, publish, NULL);
}

/* ---- a seed ---- */

static void make_subscriptions(void) {
    for (uint32_t no = 1; no <= LANES; no++) {
        struct policy *policy = policy_new();
        CHECK(policy != NULL);
        policy->max_in_flight = (uint32_t)between(1, 4);
        policy->timeout_ms = TIMEOUT_MS;
        sim.policies[no] = policy;
        sim.store.tiers[no] = (enum tenant_tier)(no % TIERS);
    }
}

static void play(void) {
    struct heap_node *top;
    while (!sim.violated && (top = heap_top(&events)) && top->key <= END_MS) {
        struct event *e = (struct event *)((char *)top - offsetof(struct event, node));
        heap_remove(&events, top);
        sim.now = top->key > sim.now ? top->key : sim.now;
        if (e->p && e->p->up && !e->store && e->p->frozen_until > sim.now) {
            CHECK(heap_set(&events, &e->node, e->p->frozen_until) == 0);
            continue;
        }
        if (!e->p || e->p->up)
            e->fn(e->p, e->arg);
        free(e);
    }
}

static void judge_end(void) {
    uint32_t tiers = 0;
    for (size_t k = 0; k < NODES; k++)
        tiers |= sim.processes[k] ? sim.processes[k]->node.me.tiers : 0;
    for (size_t i = 0; i < sim.store.rows_n && !sim.violated; i++)
        if (sim.store.rows[i].state != ROW_DELIVERED && tiers & 1U << sim.store.tiers[sim.store.rows[i].lane])
            violate("a delivery was forgotten", sim.store.rows[i].node, sim.store.rows[i].lane);
    unsigned nodes = 0, least = PARTITIONS, most = 0;
    for (size_t k = 0; k < NODES && !sim.violated; k++) {
        if (!sim.processes[k] || !(sim.processes[k]->node.me.tiers & 1))
            continue;
        unsigned have = 0;
        nodes++;
        for (unsigned i = 0; i < PARTITIONS; i++)
            have += sim.store.owners[0][i] == sim.processes[k]->node.me.no;
        least = have < least ? have : least;
        most = have > most ? have : most;
    }
    if (!sim.violated && nodes && (most - least > 1 || least < PARTITIONS / nodes))
        violate("in the end the partitions are not shared out evenly", 0, 0);
}

static void clear(void) {
    struct heap_node *top;
    while ((top = heap_top(&events))) {
        heap_remove(&events, top);
        free((char *)top - offsetof(struct event, node));
    }
    heap_free(&events);
    events = (struct heap){0};
}

/* What processes leave behind goes with the program: seeds are few and small. */
static bool run_seed(uint64_t seed, enum plant plant, bool verbose) {
    uint64_t sends = sim.sends, moves = sim.moves, burials = sim.burials, promotions = sim.promotions;
    sim = (struct sim){.seed = seed, .plant = plant, .verbose = verbose};
    sim.sends = sends, sim.moves = moves, sim.burials = burials, sim.promotions = promotions;
    rng_seed(&sim.rng, seed);
    make_subscriptions();
    for (int64_t n = between(1, 4); n > 0; n--)
        start_process();
    after(between(500, 3000), NULL, true, fault, NULL);
    after(0, NULL, true, publish, NULL);
    play();
    judge_end();
    clear();
    return !sim.violated;
}

static int check_plants(uint64_t seeds) {
    int missed = 0;
    for (int plant = PLANT_NONE + 1; plant < PLANTS; plant++) {
        uint64_t seed = 1;
        while (seed <= seeds && run_seed(seed, (enum plant)plant, false))
            seed++;
        printf("%-8s %s %llu\n", plant_names[plant], seed <= seeds ? "found with seed" : "NOT FOUND in",
               (unsigned long long)(seed <= seeds ? seed : seeds));
        missed += seed > seeds;
    }
    return missed ? 1 : 0;
}

int main(int argc, char **argv) {
    uint64_t seeds = 100, first = 1;
    enum plant plant = PLANT_NONE;
    bool plants = false, one = false;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--check-plants") == 0)
            plants = true;
        else if (strcmp(argv[i], "--seeds") == 0 && i + 1 < argc)
            seeds = strtoull(argv[++i], NULL, 10);
        else if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc)
            first = strtoull(argv[++i], NULL, 10), one = true;
        else if (strcmp(argv[i], "--plant") == 0 && i + 1 < argc)
            for (i++; plant < PLANTS && strcmp(argv[i], plant_names[plant]) != 0;)
                plant++;
    }
    if (plant == PLANTS) {
        fputs("there is no such plant\n", stderr);
        return 2;
    }
    if (plants)
        return check_plants(seeds);
    for (uint64_t seed = first; seed < first + (one ? 1 : seeds); seed++)
        if (!run_seed(seed, plant, one)) {
            printf("play it again: --seed %llu%s%s\n", (unsigned long long)seed, plant ? " --plant " : "",
                   plant ? plant_names[plant] : "");
            return 1;
        }
    printf("%llu seeds, %llu sends, %llu partitions taken, %llu nodes buried, %llu tiers changed\n",
           (unsigned long long)(one ? 1 : seeds), (unsigned long long)sim.sends,
           (unsigned long long)sim.moves, (unsigned long long)sim.burials,
           (unsigned long long)sim.promotions);
    return 0;
}
