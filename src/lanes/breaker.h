/* A lane's circuit breaker (api.md §4.1): opens after 10 consecutive failures over at least 5 deliveries, so
 * that a lone task keeps its schedule. While open nothing is sent but one probe at a time, ever more rarely;
 * a probe that succeeds closes it. Each probe has a number, by which its outcome is told from those of
 * attempts that were under way before it. Pure; times are Unix milliseconds. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/random.h"

enum {
    BREAKER_FAILURES = 10,
    BREAKER_DELIVERIES = 5,
    BREAKER_PROBE_MS_FIRST = 5000,
    BREAKER_PROBE_MS_MAX = 300000,
};

enum breaker_state { BREAKER_CLOSED, BREAKER_OPEN, BREAKER_HALF_OPEN };

struct breaker {
    enum breaker_state state;
    uint16_t failures; /* consecutive */
    uint8_t deliveries;
    uint64_t failed[BREAKER_DELIVERIES -
                    1]; /* different event keys that failed in the run, all but the last needed */
    int32_t probe_interval_ms;
    int64_t probe_at;    /* while open */
    uint32_t probe;      /* the one under way while half-open */
    uint32_t last_probe; /* the greatest number given out */
};

/* How many may be claimed now for the breaker's sake: UINT32_MAX when closed, 1 when a probe is due, else 0.
 */
uint32_t breaker_allowance(const struct breaker *b, int64_t now);
/* The number of what is about to be claimed now: a probe's when the breaker is open, else 0. */
uint32_t breaker_next_probe(struct breaker *b);
/* The claim brought work. Half-open now, unless it was no probe, or the breaker has closed meanwhile. */
void breaker_probe_begun(struct breaker *b, uint32_t probe);
/* A probe came to nothing (it was not sent): the next is due at once. */
void breaker_probe_lost(struct breaker *b, uint32_t probe, int64_t now);

/* An attempt's outcome; `probe` is the number of its claim. While half-open only the probe's own counts. true
 * when it changed the state: opened, or closed. */
bool breaker_success(struct breaker *b, uint32_t probe);
bool breaker_failure(struct breaker *b, uint64_t event_key, uint32_t probe, int64_t now, struct rng *rng);
/* Open as it was before: the next probe at probe_at. */
void breaker_reopen(struct breaker *b, int32_t probe_interval_ms, int64_t probe_at);
/* Closes it, whatever it was: true when it was not closed. What is under way is no probe any more. */
bool breaker_reset(struct breaker *b);

const char *breaker_state_name(enum breaker_state s); /* "closed", "open", "half_open" */
