#include "lanes/concurrency.h"

#include "base/check.h"

static double current(const struct concurrency *c, uint32_t cap) {
    CHECK(cap >= 1);
    return c->limit == 0 || c->limit > cap ? cap : c->limit;
}

uint32_t concurrency_limit(const struct concurrency *c, uint32_t cap) {
    double limit = current(c, cap);
    return limit < 1 ? 1 : (uint32_t)limit;
}

void concurrency_success(struct concurrency *c, uint32_t cap) {
    double limit = current(c, cap);
    limit += 1 / limit;
    c->limit = limit > cap ? cap : limit;
}

void concurrency_halve(struct concurrency *c, uint32_t cap, int64_t attempt_started_at, int64_t now) {
    if (attempt_started_at < c->halved_at)
        return;
    double limit = current(c, cap) / 2;
    c->limit = limit < 1 ? 1 : limit;
    c->halved_at = now;
}

void concurrency_slow_start(struct concurrency *c) {
    c->limit = 1;
}
