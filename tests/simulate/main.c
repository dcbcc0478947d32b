/* The simulator's command line. README.md tells what it plays. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <time.h>

#include "judge.h"
#include "plants.h"
#include "process.h"
#include "scenario.h"
#include "timeline.h"
#include "world.h"

enum { SEEDS_DEFAULT = 2000, PLANT_SEEDS_MAX = 400, AUDIT_EVERY_MS = 20000 };

struct options {
    uint64_t first, seeds;
    enum plant plant;
    bool one, check_plants;
};

static void audit(void *arg) {
    (void)arg;
    judge_audit();
    world_later(AUDIT_EVERY_MS, audit, NULL);
}

/* true: no invariant was broken. */
static bool play(uint64_t seed, enum plant plant) {
    timeline_begin();
    world_begin(seed);
    plant_set(plant);
    memory_store_begin();
    edge_attempts_begin();
    scenario_begin();
    judge_begin();
    process_start();
    world_later(AUDIT_EVERY_MS, audit, NULL);
    while (!timeline_violation() && world_step(scenario_end_at()))
        ;
    if (!timeline_violation())
        judge_end();
    process_clear();
    return !timeline_violation();
}

static void tell_how_to_play_again(const struct options *o) {
    fprintf(stderr, "play it again: build/tests/simulate --seed %" PRIu64 "%s%s\n", world.seed,
            o->plant ? " --plant " : "", o->plant ? plant_name(o->plant) : "");
}

static int play_one(const struct options *o) {
    bool good = play(o->first, o->plant);
    timeline_print(true);
    printf("seed %" PRIu64 ": %zu events, %zu deliveries, %s\n", o->first, memory_store_events(),
           memory_store_deliveries(), good ? "no invariant was broken" : timeline_violation());
    return good ? 0 : 1;
}

static int play_many(const struct options *o) {
    double hours = 0, deliveries = 0;
    struct timespec a, b;
    clock_gettime(CLOCK_MONOTONIC, &a);
    for (uint64_t i = 0; i < o->seeds; i++) {
        bool good = play(o->first + i, o->plant);
        hours += (double)world.true_ms / 3600000;
        deliveries += (double)memory_store_deliveries();
        if (!good) {
            timeline_print(false);
            tell_how_to_play_again(o);
            return 1;
        }
    }
    clock_gettime(CLOCK_MONOTONIC, &b);
    double seconds = (double)(b.tv_sec - a.tv_sec) + (double)(b.tv_nsec - a.tv_nsec) / 1e9;
    printf("%" PRIu64 " seeds, %.0f deliveries, %.0f simulated hours, %.0f simulated hours per second\n",
           o->seeds, deliveries, hours, hours / seconds);
    printf("the longest wait of a healthy lane in calm: %" PRId64 " ms\n", judge_longest_wait());
    return 0;
}

static int check_plants(const struct options *o) {
    int r = 0;
    for (int p = PLANT_NONE + 1; p < PLANTS; p++) {
        uint64_t i = 0;
        while (i < PLANT_SEEDS_MAX && play(o->first + i, (enum plant)p))
            i++;
        if (i == PLANT_SEEDS_MAX)
            r = 1;
        printf("planted %-8s  ", plant_name((enum plant)p));
        if (i < PLANT_SEEDS_MAX)
            printf("found at seed %" PRIu64 ": %s\n", o->first + i, timeline_violation());
        else
            printf("not found in %d seeds\n", PLANT_SEEDS_MAX);
    }
    return r;
}

static int usage(void) {
    fputs("usage: simulate [--seeds N] [--first SEED] [--plant NAME]   plays N seeds (2000)\n"
          "       simulate --seed SEED [--plant NAME]                 plays one and prints its timeline\n"
          "       simulate --check-plants                             shows that each planted bug is found\n"
          "planted bugs:\n",
          stderr);
    plant_list(stderr);
    return 2;
}

static bool number(const char *text, uint64_t *ret) {
    char *end;
    errno = 0;
    unsigned long long n = text ? strtoull(text, &end, 10) : 0;
    if (!text || !*text || *text == '-' || *end || errno)
        return false;
    *ret = n;
    return true;
}

/* false: wrong usage. */
static bool parse(int argc, char **argv, struct options *o) {
    for (int i = 1; i < argc; i++) {
        const char *flag = argv[i], *value = argv[i + 1];
        if (!strcmp(flag, "--check-plants")) {
            o->check_plants = true;
            continue;
        }
        i++;
        if (!strcmp(flag, "--seed") && number(value, &o->first)) {
            o->one = true;
        } else if (!strcmp(flag, "--plant") && value) {
            o->plant = plant_parse(value);
            if (o->plant == PLANTS) {
                fprintf(stderr, "simulate: no planted bug has the name %s\n", value);
                return false;
            }
        } else if (!(!strcmp(flag, "--seeds") && number(value, &o->seeds)) &&
                   !(!strcmp(flag, "--first") && number(value, &o->first))) {
            return false;
        }
    }
    return true;
}

int main(int argc, char **argv) {
    struct options o = {.first = 1, .seeds = SEEDS_DEFAULT};
    if (!parse(argc, argv, &o))
        return usage();
    int r = o.check_plants ? check_plants(&o) : o.one ? play_one(&o) : play_many(&o);
    judge_clear();
    memory_store_clear();
    edge_attempts_clear();
    timeline_clear();
    world_clear();
    return r;
}
