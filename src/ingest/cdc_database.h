/* What change data capture asks of its database beside the stream: publication, mapped tables and the slot.
 */
#pragma once

#include "ingest/cdc_rules.h"
#include "ingest/source_sql.h"

/* A slot as the database tells of it. */
struct cdc_slot {
    bool there;
    bool usable;                   /* of pgoutput and this database */
    bool lost;                     /* its log is gone */
    bool active;                   /* somebody reads it, or makes it */
    uint64_t confirmed;            /* 0: it is being made */
    int64_t lag_bytes, kept_bytes; /* of the log: behind `confirmed`, and kept for it */
};
/* Negative errno after source_fault, as with all of these. */
int cdc_database_slot(struct sql *c, struct cdc_slot *ret) MUST_USE;
/* Makes the source's slot; *ret_from: changes that are committed from there on come through it. -EEXIST,
 * without a fault: somebody else has just made it. */
int cdc_database_make_slot(struct sql *c, uint64_t *ret_from) MUST_USE;
int cdc_database_drop_slot(struct sql *c) MUST_USE;

/* The rules of the source, and which tables they mean. */
struct cdc_mapping {
    size_t n;
    struct cdc_rule rules[CDC_RULES_MAX];
    uint32_t oids[CDC_RULES_MAX]; /* of the rule's table, as it is called now */
};
/* -EINVAL: `complaint` says which rule is wrong; -ENOMEM. */
int cdc_mapping_parse(const char *lines, struct cdc_mapping *ret, struct buf *complaint) MUST_USE;
void cdc_mapping_clear(struct cdc_mapping *m);
/* Whether the publication is there and publishes what the rules map; fills in the oids. */
int cdc_database_check(struct sql *c, struct cdc_mapping *m) MUST_USE;
