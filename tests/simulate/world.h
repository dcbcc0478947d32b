/* The simulated world: one virtual time, one source of chance, one queue of what happens next. There is one
 * world in the program and no thread beside it, so the same seed plays the same way every time.
 *
 * `true_ms` is how much time has passed since the seed began; the wall clock is that and an offset, which
 * jumps. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/random.h"

enum {
    CALM_MS = 120000, /* after a disturbance, before waits are judged again */
};

struct world {
    uint64_t seed;
    struct rng rng;
    int64_t true_ms, wall_offset;
    unsigned life;        /* which start of the process this is; 0: none was yet */
    int64_t disturbed_at; /* the last crash, clock jump, outage, freeze or large fan-out */
    int64_t jumped_at;    /* the last clock jump, INT64_MIN / 2: none */
};
extern struct world world;

/* Forgets everything and begins a seed. */
void world_begin(uint64_t seed);
void world_clear(void);

int64_t world_wall(void);
void world_jump(int64_t by_ms);
void world_disturbed(const char *what); /* static text */
bool world_is_calm_since(int64_t true_ms);

bool chance(double p);
int64_t between(int64_t from, int64_t to); /* both included */

/* Calls fn(arg) in in_ms (≥ 0); things of the same moment happen in the order they were asked for.
 * `world_after` is the process's: forgotten when it dies. `world_later` happens whatever dies. */
void world_after(int64_t in_ms, void (*fn)(void *arg), void *arg);
void world_later(int64_t in_ms, void (*fn)(void *arg), void *arg);
/* Plays the next thing that happens up to `until_ms`; false: there is none. */
bool world_step(int64_t until_ms);

/* Memory of the world's own, outside of the process (arena.h). Aborts when there is none. */
void *host_grow(void *p, size_t *cap, size_t needed, size_t size);
void host_free(void *p);
