/* An event as change data capture makes it, before ingest judges it; and those that producers write into the
 * log themselves, with pg_logical_emit_message(true, 'posthorn', '{"type":…,"data":…}'). */
#pragma once

#include "base/bytes.h"

#define CDC_MESSAGE_PREFIX "posthorn"

/* Zero-initialise it; each event takes the memory of the one before. Texts that are not there are empty. */
struct cdc_event {
    struct buf type, tenant, ordering_key, schema_version, data;
    int64_t deliver_at; /* Unix ms, 0: at once */
};
void cdc_event_clear(struct cdc_event *e); /* empties, keeps the memory */
void cdc_event_free(struct cdc_event *e);
bool cdc_event_ok(const struct cdc_event *e); /* memory did not run out */

/* The event of a message's content: type and data, and as one likes tenant, ordering_key, schema_version and
 * deliver_at, as in a publish request; null stands for none. The bytes of data are kept. -EINVAL: it is none;
 * `reason` says why, without its values; -ENOMEM. */
int cdc_event_of_message(struct slice content, struct cdc_event *out, struct buf *reason) MUST_USE;
