#include "receivers.h"

#include "world.h"

enum { RETRY_AFTER_MS_MAX = 180000, FLAP_MS_MIN = 5000, FLAP_MS_MAX = 1800000 };

const char *receiver_name(enum receiver_kind kind) {
    static const char *const names[RECEIVERS] = {"fast",       "slow",     "failing", "limiting",
                                                 "black hole", "flapping", "gone"};
    return names[kind];
}

struct receiver receiver_make(enum receiver_kind kind) {
    struct receiver r = {.kind = kind, .healthy_from = INT64_MAX};
    /* Often all of it or nearly nothing: those are the hard ones. */
    r.failing = chance(0.25) ? 1 : chance(0.25) ? 0.01 : 0.01 + rng_unit(&world.rng) * 0.98;
    r.retry_after = chance(0.5);
    r.flap_ms = between(FLAP_MS_MIN, chance(0.5) ? 60000 : FLAP_MS_MAX);
    return r;
}

static struct outcome status(int code, int64_t retry_after_ms) {
    return (struct outcome){.status = code, .retry_after_ms = retry_after_ms};
}

static struct outcome no_answer(enum attempt_error error) {
    return (struct outcome){.error = error, .retry_after_ms = -1};
}

static struct outcome failure(void) {
    static const int codes[] = {500, 502, 503, 408, 409, 425, 301};
    if (chance(0.02))
        return status(chance(0.5) ? 404 : 422, -1);
    if (chance(0.2))
        return no_answer(chance(0.5) ? ATTEMPT_CONNECT_REFUSED : ATTEMPT_RESET);
    return status(codes[rng_below(&world.rng, sizeof codes / sizeof codes[0])], -1);
}

static struct outcome limited(const struct receiver *r) {
    if (!r->retry_after)
        return status(429, -1);
    return status(chance(0.5) ? 429 : 503, between(0, RETRY_AFTER_MS_MAX / 1000) * 1000);
}

struct answer receiver_answer(const struct receiver *r, uint32_t timeout_ms) {
    struct answer a = {status(chance(0.9) ? 200 : 204, -1), between(2, 50)};
    switch (world.true_ms >= r->healthy_from ? RECEIVER_FAST : r->kind) {
    case RECEIVER_FAST:
    case RECEIVERS:
        break;
    case RECEIVER_SLOW:
        a.latency_ms = between(300, 6000);
        break;
    case RECEIVER_FAILING:
        if (chance(r->failing))
            a.outcome = failure();
        break;
    case RECEIVER_LIMITING:
        if (chance(r->failing))
            a.outcome = limited(r);
        break;
    case RECEIVER_BLACK_HOLE:
        a.latency_ms = INT64_MAX;
        break;
    case RECEIVER_FLAPPING:
        if ((world.true_ms / r->flap_ms) % 2 == 1)
            a.outcome = no_answer(ATTEMPT_CONNECT_REFUSED);
        break;
    case RECEIVER_GONE:
        if (chance(0.02))
            a.outcome = status(410, -1);
        break;
    }
    if (a.latency_ms >= timeout_ms)
        a = (struct answer){no_answer(ATTEMPT_TIMEOUT), timeout_ms};
    return a;
}
