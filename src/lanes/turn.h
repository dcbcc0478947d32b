/* A turn of a delivery loop at the writer: what has ended is settled, then what may be sent is claimed, in
 * one transaction. One turn of a loop is under way at a time; what comes meanwhile gathers for the next. */
#pragma once

#include "deliver/attempt.h"
#include "lanes/dispatch.h"

enum {
    TURN_SETTLES_MAX = 512,
    TURN_CLAIMS_MAX = 512,
    TURN_TASKS_MAX = 512,
    TURN_EXPIRED_MAX = 512,
    TURN_EXPIRIES_MAX = 16,
    TURN_CLOSE_A_STEP = 500,
    TURN_RELANE_A_STEP = 500,
};

struct turn {
    /* asked */
    struct settlement settlements[TURN_SETTLES_MAX];
    struct health_change health[TURN_SETTLES_MAX]; /* of each settlement's */
    size_t settlements_n;
    struct lane_claim claims[TURN_CLAIMS_MAX];
    size_t claims_n;
    struct lane_expiry expiries[TURN_EXPIRIES_MAX];
    size_t expiries_n;
    struct lane_relane relane; /* whose open deliveries move to other lane keys */
    struct relane_cursor relane_cursor;
    struct permit_plan permits; /* carried out after the commit */
    uint32_t closing;           /* a deleted subscription whose waiting deliveries go to the DLQ, 0: none */
    /* answered */
    struct task tasks[TURN_TASKS_MAX];
    size_t tasks_n;
    struct expired_task expired[TURN_EXPIRED_MAX];
    size_t expired_n;
    size_t expiries_done; /* of `expiries`, from the first on; the others may have more to shed */
    unsigned closed;      /* deliveries of `closing` */
    int64_t now;          /* when it ran, Unix ms */
    bool disabled_any;
    bool relaned; /* all of them have */
    int result;
};

static inline bool turn_is_empty(const struct turn *t) {
    return !t->settlements_n && !t->claims_n && !t->expiries_n && !t->closing && !t->relane.subscription_no &&
           permit_plan_is_empty(&t->permits);
}

/* Runs it within a transaction. */
int turn_run(struct turn *t, struct store *s, int64_t now, const struct dispatch_options *o) MUST_USE;
