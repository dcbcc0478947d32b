#include "lanes/breaker.h"

#include "base/check.h"

static const double PROBE_JITTER = 0.2;

const char *breaker_state_name(enum breaker_state s) {
    static const char *const names[] = {"closed", "open", "half_open"};
    CHECK(s <= BREAKER_HALF_OPEN);
    return names[s];
}

uint32_t breaker_allowance(const struct breaker *b, int64_t now) {
    switch (b->state) {
    case BREAKER_CLOSED:
        return UINT32_MAX;
    case BREAKER_OPEN:
        return now >= b->probe_at ? 1 : 0;
    case BREAKER_HALF_OPEN:
        return 0;
    }
    UNREACHABLE();
}

uint32_t breaker_next_probe(struct breaker *b) {
    if (b->state != BREAKER_OPEN)
        return 0;
    if (++b->last_probe == 0) /* 0 is no probe's */
        b->last_probe = 1;
    return b->last_probe;
}

void breaker_probe_begun(struct breaker *b, uint32_t probe) {
    if (b->state != BREAKER_OPEN || probe == 0)
        return;
    b->state = BREAKER_HALF_OPEN;
    b->probe = probe;
}

static bool is_the_probe(const struct breaker *b, uint32_t probe) {
    return b->state == BREAKER_HALF_OPEN && probe == b->probe;
}

void breaker_probe_lost(struct breaker *b, uint32_t probe, int64_t now) {
    if (!is_the_probe(b, probe))
        return;
    b->state = BREAKER_OPEN;
    b->probe_at = now;
}

bool breaker_reset(struct breaker *b) {
    bool was_closed = b->state == BREAKER_CLOSED;
    *b = (struct breaker){.state = BREAKER_CLOSED, .last_probe = b->last_probe};
    return !was_closed;
}

void breaker_reopen(struct breaker *b, int32_t probe_interval_ms, int64_t probe_at) {
    CHECK(probe_interval_ms > 0);
    *b = (struct breaker){.state = BREAKER_OPEN,
                          .probe_interval_ms = probe_interval_ms,
                          .probe_at = probe_at,
                          .last_probe = b->last_probe};
}

bool breaker_success(struct breaker *b, uint32_t probe) {
    return b->state == BREAKER_HALF_OPEN && !is_the_probe(b, probe) ? false : breaker_reset(b);
}

static void open_until_probe(struct breaker *b, int64_t now, struct rng *rng) {
    double spread = 1 + PROBE_JITTER * (2 * rng_unit(rng) - 1);
    b->state = BREAKER_OPEN;
    b->probe_at = now + (int64_t)((double)b->probe_interval_ms * spread);
}

static void remember(struct breaker *b, uint64_t event_key) {
    if (b->deliveries == BREAKER_DELIVERIES)
        return;
    for (unsigned i = 0; i < b->deliveries; i++)
        if (b->failed[i] == event_key)
            return;
    if (b->deliveries < BREAKER_DELIVERIES - 1)
        b->failed[b->deliveries] = event_key;
    b->deliveries++;
}

bool breaker_failure(struct breaker *b, uint64_t event_key, uint32_t probe, int64_t now, struct rng *rng) {
    if (b->state == BREAKER_HALF_OPEN && !is_the_probe(b, probe))
        return false;
    if (b->state == BREAKER_HALF_OPEN) {
        int32_t doubled = b->probe_interval_ms * 2;
        b->probe_interval_ms = doubled > BREAKER_PROBE_MS_MAX ? BREAKER_PROBE_MS_MAX : doubled;
        open_until_probe(b, now, rng);
        return false;
    }
    if (b->failures < UINT16_MAX)
        b->failures++;
    remember(b, event_key);
    /* What was in flight when it opened may still fail: that changes nothing. */
    if (b->state == BREAKER_OPEN || b->failures < BREAKER_FAILURES || b->deliveries < BREAKER_DELIVERIES)
        return false;
    b->probe_interval_ms = BREAKER_PROBE_MS_FIRST;
    open_until_probe(b, now, rng);
    return true;
}
