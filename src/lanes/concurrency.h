/* A lane's concurrency limit, moved by AIMD between 1 and the policy's cap: backpressure and timeouts halve
 * it, successes raise it by about one a round. After an outage it starts at 1, so that a backlog does not
 * fall on an endpoint that has just come back. Pure. */
#pragma once

#include <stdint.h>

struct concurrency {
    double limit; /* 0: the cap has not been met yet */
    int64_t
        halved_at; /* an attempt begun before this does not halve again: it belongs to the same congestion */
};

/* The limit in force, 1…cap. */
uint32_t concurrency_limit(const struct concurrency *c, uint32_t cap);
void concurrency_success(struct concurrency *c, uint32_t cap);
void concurrency_halve(struct concurrency *c, uint32_t cap, int64_t attempt_started_at, int64_t now);
void concurrency_slow_start(struct concurrency *c);
