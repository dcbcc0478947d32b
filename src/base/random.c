#include "base/random.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include "base/bytes.h"
#include "base/check.h"

void rng_seed(struct rng *r, uint64_t seed) {
    for (int i = 0; i < 4; i++)
        r->s[i] = mix64(seed += 0x9e3779b97f4a7c15ULL);
}

void rng_seed_from_system(struct rng *r) {
    uint64_t seed;
    random_bytes(&seed, sizeof seed);
    rng_seed(r, seed);
}

static uint64_t rotate_left(uint64_t x, int k) {
    return (x << k) | (x >> (64 - k));
}

uint64_t rng_next(struct rng *r) {
    uint64_t *s = r->s, result = rotate_left(s[1] * 5, 7) * 9, t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotate_left(s[3], 45);
    return result;
}

double rng_unit(struct rng *r) {
    return (double)(rng_next(r) >> 11) * 0x1.0p-53;
}

uint64_t rng_below(struct rng *r, uint64_t bound) {
    CHECK(bound > 0);
    return (uint64_t)(((unsigned __int128)rng_next(r) * bound) >> 64);
}

static void from_system(unsigned char *p, size_t n) {
    while (n > 0) {
        ssize_t got = getrandom(p, n, 0);
        if (got < 0 && errno == EINTR)
            continue;
        CHECK(got > 0);
        p += got;
        n -= (size_t)got;
    }
}

/* Fetched beforehand for ids, which every event takes: a system call each would be dear. What is longer may
 * be a secret, and does not lie about in memory. */
enum { STOCK_BYTES = 512, FROM_STOCK_MAX = 16 };
static _Thread_local struct {
    unsigned char bytes[STOCK_BYTES];
    size_t left;
} stock;

void random_bytes(void *p, size_t n) {
    if (n > FROM_STOCK_MAX) {
        from_system(p, n);
        return;
    }
    if (stock.left < n) {
        from_system(stock.bytes, STOCK_BYTES);
        stock.left = STOCK_BYTES;
    }
    stock.left -= n;
    memcpy(p, stock.bytes + stock.left, n);
    memset(stock.bytes + stock.left, 0, n); /* nobody gets them twice */
}
