/* Which history of a PostgreSQL cluster a place in its log belongs to: each promotion of a standby, and each
 * restore to a point in time, begins a timeline that shares the log up to where it forked off. */
#pragma once

#include "base/bytes.h"

enum { TIMELINES_MAX = 64, TIMELINE_SYSTEM_SIZE = 32 };

struct timeline_history {
    char system[TIMELINE_SYSTEM_SIZE]; /* of the cluster, decimal */
    uint32_t timeline;                 /* the current one */
    uint64_t flushed;                  /* the end of its log on disk */
    size_t n;
    struct {
        uint32_t timeline;
        uint64_t end;      /* where the next one begins */
    } past[TIMELINES_MAX]; /* those before, the oldest first */
};

/* Reads the file that TIMELINE_HISTORY gives into `past`; of more than TIMELINES_MAX the newest. -EINVAL: it
 * is none. */
int timeline_parse(struct slice text, struct timeline_history *h) MUST_USE;
/* Whose log holds what begins at lsn. */
uint32_t timeline_at(const struct timeline_history *h, uint64_t lsn);
/* Whether all that was before lsn of a timeline is in this history, too. */
bool timeline_holds(const struct timeline_history *h, uint32_t timeline, uint64_t lsn);
