/* What a lane has learnt, and when it is worth keeping. */
#include "lanes/lane.h"

enum { VERSION = 1 };

static void put(uint8_t **at, uint64_t v, int bytes) {
    for (int i = 0; i < bytes; i++)
        *(*at)++ = (uint8_t)(v >> (8 * i));
}

static uint64_t get(const uint8_t **at, int bytes) {
    uint64_t v = 0;
    for (int i = 0; i < bytes; i++)
        v |= (uint64_t) * (*at)++ << (8 * i);
    return v;
}

void lane_memory_write(const struct lane_memory *m, uint8_t out[LANE_STATE_SIZE]) {
    uint8_t *at = out;
    put(&at, VERSION, 4);
    put(&at, (uint32_t)m->probe_interval_ms, 4);
    put(&at, (uint64_t)m->probe_at, 8);
    put(&at, (uint64_t)(m->limit * 1000), 4);
}

bool lane_memory_read(struct slice bytes, struct lane_memory *ret) {
    const uint8_t *at = (const uint8_t *)bytes.p;
    if (bytes.n != LANE_STATE_SIZE || get(&at, 4) != VERSION)
        return false;
    struct lane_memory m = {.probe_interval_ms = (int32_t)get(&at, 4), .probe_at = (int64_t)get(&at, 8)};
    m.limit = (float)get(&at, 4) / 1000;
    if (m.probe_interval_ms < 0 || m.probe_interval_ms > BREAKER_PROBE_MS_MAX || m.probe_at < 0)
        return false;
    *ret = m;
    return true;
}

void lane_remember(struct lane *l, const struct lane_memory *m) {
    l->kept_interval_ms = m->probe_interval_ms;
    l->kept_limit = m->limit;
    l->concurrency.limit = (double)m->limit;
    if (m->probe_interval_ms)
        breaker_reopen(&l->breaker, m->probe_interval_ms, m->probe_at);
}

static float limit_of(const struct lane *l) {
    uint32_t cap = l->subscription->policy->max_in_flight;
    return l->concurrency.limit == 0 || l->concurrency.limit >= cap ? 0 : (float)l->concurrency.limit;
}

static bool limits_differ(float a, float b) {
    return (a == 0) != (b == 0) || a >= 2 * b + (b == 0) || b >= 2 * a + (a == 0);
}

bool lane_worth_keeping(struct lane *l, struct lane_memory *ret) {
    bool open = l->breaker.state != BREAKER_CLOSED;
    *ret = (struct lane_memory){.probe_interval_ms = open ? l->breaker.probe_interval_ms : 0,
                                .probe_at = open ? l->breaker.probe_at : 0,
                                .limit = limit_of(l)};
    if (ret->probe_interval_ms == l->kept_interval_ms && !limits_differ(ret->limit, l->kept_limit))
        return false;
    l->kept_interval_ms = ret->probe_interval_ms;
    l->kept_limit = ret->limit;
    return true;
}
