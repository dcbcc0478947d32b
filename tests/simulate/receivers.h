/* The endpoints that subscriptions point at. */
#pragma once

#include "core/retry.h"

enum receiver_kind {
    RECEIVER_FAST,
    RECEIVER_SLOW,
    RECEIVER_FAILING,    /* a share of its answers is an error, 1 % … 100 % */
    RECEIVER_LIMITING,   /* 429, with or without Retry-After, and 503 with it */
    RECEIVER_BLACK_HOLE, /* never answers */
    RECEIVER_FLAPPING,   /* now there, now not */
    RECEIVER_GONE,       /* like fast, but once in a while 410 */
    RECEIVERS,
};

struct receiver {
    enum receiver_kind kind;
    double failing;       /* the share that fails */
    bool retry_after;     /* of limiting: says for how long */
    int64_t flap_ms;      /* how long it stays as it is */
    int64_t healthy_from; /* from this true time on it is fast; INT64_MAX: never */
};

struct receiver receiver_make(enum receiver_kind kind);
const char *receiver_name(enum receiver_kind kind);

struct answer {
    struct outcome outcome;
    int64_t latency_ms; /* at most timeout_ms */
};
struct answer receiver_answer(const struct receiver *r, uint32_t timeout_ms);
