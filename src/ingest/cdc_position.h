/* How far a database's log has been read, as the store keeps it; and whether a slot goes on from there. */
#pragma once

#include "ingest/cdc_database.h"
#include "ingest/timeline.h"

struct cdc_position {
    char system[TIMELINE_SYSTEM_SIZE]; /* of the cluster */
    uint32_t timeline;
    uint64_t lsn;
    uint32_t gaps; /* that were accepted: places before the last one are other places than those behind it */
};

/* Where the source is to go on: as the store says, or where its slot stands when it is new. Makes the slot
 * where settings say so. Never past a gap, unless accept-gap names it. -EEXIST: another process has just made
 * the slot; other negative errno after source_fault. */
int cdc_position_find(struct sql *c, const struct timeline_history *h, const struct cdc_slot *slot,
                      struct cdc_position *ret) MUST_USE;
/* Whether it is another node on the same store that reads or makes an active slot: the store then knows of
 * all that the slot has been confirmed for. 1, 0, negative errno after source_fault. */
int cdc_position_is_shared(struct source *s, const struct cdc_slot *slot) MUST_USE;
/* Durable when it returns 0. */
int cdc_position_keep(struct source *s, const struct cdc_position *p) MUST_USE;
