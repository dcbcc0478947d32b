/* Rows of a database's log on their way into ingest: gathered, published in their order, and those that are
 * rejected kept apart. */
#pragma once

#include "ingest/cdc_event.h"
#include "ingest/cdc_rejects.h"

struct cdc_batch;

/* Where in the log an event stands. */
struct cdc_origin {
    const char *key;  /* copied */
    const char *what; /* "message", or the rule's name; outlives the batch */
    int64_t committed_at;
};

/* `rows_max` as of the source's settings. */
int cdc_batch_new(struct source *s, struct cdc_batch **ret) MUST_USE;
void cdc_batch_free(struct cdc_batch *b); /* NULL-safe */

/* Copies an event into the batch, which is not full. -ENOMEM. */
int cdc_batch_add(struct cdc_batch *b, const struct cdc_event *e, const struct cdc_origin *o) MUST_USE;
/* An event that cannot be one: `content` is what there was. */
void cdc_batch_reject(struct cdc_batch *b, const struct cdc_origin *o, struct slice reason,
                      struct slice content);
bool cdc_batch_is_empty(const struct cdc_batch *b); /* no rejected ones wait either */
bool cdc_batch_is_full(const struct cdc_batch *b);
/* Hands on what there is. 0: all of it is durable, accepted or kept apart. -EAGAIN: what is left is to be
 * handed on later; other negative errno, after source_fault. */
int cdc_batch_publish(struct cdc_batch *b) MUST_USE;
