/* A table as the stream describes it: whether a rule still fits it, and what event a change of it makes. */
#pragma once

#include "ingest/cdc_event.h"
#include "ingest/cdc_rules.h"

struct cdc_column {
    char *name;
    uint32_t type; /* OID */
    bool identity;
};

struct cdc_table {
    uint32_t oid;
    char *schema, *name;
    char identity; /* pg_class.relreplident */
    size_t n;
    struct cdc_column columns[];
};

/* Of a PGOUTPUT_RELATION. -ENOMEM. */
int cdc_table_new(const struct pgoutput_message *relation, struct cdc_table **ret) MUST_USE;
void cdc_table_free(struct cdc_table *t); /* NULL-safe */

/* Whether the table has what the rule asks of it. -EINVAL: it has not; `reason` says what, and what to do. */
int cdc_table_fits(const struct cdc_table *t, const struct cdc_rule *rule, struct buf *reason) MUST_USE;

/* What subscribers have been shown: of each column of the rule's data the kind of JSON value, under the
 * rule's schema version. A JSON object. */
void cdc_shape_write(const struct cdc_table *t, const struct cdc_rule *rule, struct buf *out);
/* Whether the table still makes data of the shape `known`. Columns that were added are nothing new to say; a
 * rule with another schema version says that everything may be. -EINVAL: a column is gone or has another
 * kind; `reason` says what to do. -EBADMSG: `known` is no shape. */
int cdc_shape_keeps(const struct cdc_table *t, const struct cdc_rule *rule, struct slice known,
                    struct buf *reason) MUST_USE;

/* The event that a rule makes of a PGOUTPUT_INSERT, UPDATE or DELETE of its table, which fits it. -EINVAL: of
 * this row it cannot be made; `reason` says why, without the row's values. -EBADMSG: the row has other
 * columns than the table. -ENOMEM. */
int cdc_event_of(const struct cdc_table *t, const struct cdc_rule *rule, const struct pgoutput_message *row,
                 struct cdc_event *out, struct buf *reason) MUST_USE;
/* CDC_INSERT … of such a message. */
enum cdc_operation cdc_operation_of(const struct pgoutput_message *row);
