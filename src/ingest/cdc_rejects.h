/* What came out of a database's log and will never be an event: counted, logged, and kept with the reason in
 * FOLDER/NAME.rejected.jsonl, a JSON object a line, for somebody to mend and publish. The log of the database
 * does not give it again. */
#pragma once

#include "ingest/source.h"

enum {
    CDC_REJECTS_FILE_MAX = 64 << 20, /* then it becomes ….jsonl.1, and the one before that is gone */
    CDC_REJECTS_WAITING_MAX = 4 << 20,
    CDC_REJECT_CONTENT_MAX = 1 << 20, /* what it held is kept up to this, or else its size alone */
};

struct cdc_rejects;

struct cdc_reject {
    const char *key;  /* of the row, as in source_row */
    const char *what; /* "message", "public.orders update" */
    struct slice reason;
    struct slice tenant, type, ordering_key; /* absent: not known */
    struct slice content;                    /* data, or the message; absent: none */
    int64_t committed_at;
    bool counted; /* by source_publish */
};

int cdc_rejects_new(struct source *s, struct cdc_rejects **ret) MUST_USE;
void cdc_rejects_free(struct cdc_rejects *r); /* what waits is dropped; NULL-safe */

void cdc_rejects_add(struct cdc_rejects *r, const struct cdc_reject *reject, int64_t now);
bool cdc_rejects_wait(const struct cdc_rejects *r);
/* They should be kept before more is added. */
bool cdc_rejects_full(const struct cdc_rejects *r);
/* Makes those that wait durable, and says so. Negative errno after source_fault: they wait on. */
int cdc_rejects_keep(struct cdc_rejects *r, int64_t now) MUST_USE;
