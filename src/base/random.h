/* Randomness. Domain code takes a struct rng; only the edges seed one from the system. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* xoshiro256** (Blackman, Vigna 2018): fast, seedable, not for secrets. One per thread. */
struct rng {
    uint64_t s[4];
};

void rng_seed(struct rng *r, uint64_t seed);
void rng_seed_from_system(struct rng *r);
uint64_t rng_next(struct rng *r);
double rng_unit(struct rng *r);                    /* uniform in [0, 1) */
uint64_t rng_below(struct rng *r, uint64_t bound); /* uniform in [0, bound), bound > 0 */

/* Bytes fit for secrets, from getrandom(2). Aborts when the kernel has none: nothing sane can follow. Not to
 * be used after a fork without exec: the child would get its parent's. */
void random_bytes(void *p, size_t n);
