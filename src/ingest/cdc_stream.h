/* From the messages of logical replication to a batch of events, and how far that has come. A message that
 * may stop the source is judged only when what came before it is durable. */
#pragma once

#include "ingest/cdc_batch.h"
#include "ingest/cdc_database.h"
#include "ingest/timeline.h"

struct cdc_stream;

struct cdc_stream_options {
    struct source *source;
    struct sql *database;        /* asked anew when a table is not called as it was */
    struct cdc_mapping *mapping; /* with its oids */
    struct cdc_batch *batch;
    const struct timeline_history *history; /* keys say which one they are of */
    uint32_t gaps;                          /* that were accepted; keys tell, too */
    uint64_t position;                      /* everything before it is durable */
};
/* Reads from the store what shapes subscribers know. */
int cdc_stream_new(const struct cdc_stream_options *o, struct cdc_stream **ret) MUST_USE;
void cdc_stream_free(struct cdc_stream *s); /* NULL-safe */

/* Takes the message at `lsn` into the batch, which is not full. -EAGAIN: give it again once the batch has
 * been published; other negative errno after source_fault: it ends here. */
int cdc_stream_take(struct cdc_stream *s, uint64_t lsn, struct slice bytes) MUST_USE;
/* The database has read its log up to `lsn`, and sent all that came of it. */
void cdc_stream_idle(struct cdc_stream *s, uint64_t lsn);
bool cdc_stream_in_transaction(const struct cdc_stream *s);
/* All that was committed before it is in the batch, or was. */
uint64_t cdc_stream_complete(const struct cdc_stream *s);
/* Keeps the shapes of what was taken: before a position behind it is kept. */
int cdc_stream_keep_shapes(struct cdc_stream *s) MUST_USE;
