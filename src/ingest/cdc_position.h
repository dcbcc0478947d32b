/* How far a database's log has been read, as the store keeps it; and whether a slot goes on from there. */
#pragma once

#include "ingest/cdc_database.h"
#include "ingest/replication.h"

enum { CDC_HISTORY_SIZE = REPLICATION_SYSTEM_SIZE + 12 };

struct cdc_position {
    char history[CDC_HISTORY_SIZE]; /* "SYSTEM.TIMELINE": what the position is of */
    uint64_t lsn;
};

/* Where the source is to go on: as the store says, or where its slot stands when it is new. Makes the slot
 * where settings say so. Never past a gap, unless accept-gap names it. Negative errno after source_fault. */
int cdc_position_find(struct sql *c, const struct replication_identity *id, const struct cdc_slot *slot,
                      struct cdc_position *ret) MUST_USE;
/* Durable when it returns 0. */
int cdc_position_keep(struct source *s, const struct cdc_position *p) MUST_USE;
