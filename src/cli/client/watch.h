/* posthorn delivery watch: what changes, as it changes. */
#pragma once

#include "cli/client/call.h"

/* Until Ctrl-C. */
int watch_run(struct call *c);

/* ---- what was seen of a list that is asked again and again; pure ---- */

enum { WATCH_SEEN_MAX = 4096 /* deliveries; more than the pages of two rounds hold */ };

/* Zero-initialise it. */
struct seen {
    struct {
        uint64_t id, look;
    } at[WATCH_SEEN_MAX];
    size_t n, next; /* the oldest is replaced */
};

/* Notes how a delivery looks. True when that is new. */
bool seen_changes(struct seen *s, struct slice delivery);
