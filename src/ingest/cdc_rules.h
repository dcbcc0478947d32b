/* Rules of change data capture, one a line of the settings: which changes of a table become events, and of
 * what type, tenant, order and data.
 *
 *   public.orders insert,update type=order.{status} tenant={account} ordering-key={id} data=id,status,total
 *
 * A {column} stands for the column's value. Names of tables and columns are written as the catalog has them,
 * in "double quotes" when there is a space, a dot, a comma or a quote in them. */
#pragma once

#include "ingest/pgoutput.h"

enum {
    CDC_RULES_MAX = 64,        /* of a source */
    CDC_RULE_COLUMNS_MAX = 64, /* that data= may name */
    CDC_RULE_TEXT_MAX = 8192,
};

enum cdc_operation { CDC_INSERT = 1, CDC_UPDATE = 2, CDC_DELETE = 4 };
const char *cdc_operation_name(enum cdc_operation o); /* "insert" … */

/* Texts are owned. Type, tenant and ordering key may hold {column}. */
struct cdc_rule {
    char *name; /* "public.orders insert,update": how messages and the store call it */
    char *schema, *table;
    unsigned operations; /* of enum cdc_operation */
    char *type;
    char *tenant;         /* NULL: the source's */
    char *ordering_key;   /* NULL: none */
    char *schema_version; /* "1" by default */
    char *columns[CDC_RULE_COLUMNS_MAX];
    size_t columns_n; /* 0: all there are */
    bool before;      /* data is {"before":…,"after":…} */
};

/* -EINVAL: `complaint` says what is wrong; -ENOMEM. On failure *ret is cleared. */
int cdc_rule_parse(struct slice text, struct cdc_rule *ret, struct buf *complaint) MUST_USE;
void cdc_rule_clear(struct cdc_rule *r);
/* Whether two rules would both take a change. */
bool cdc_rules_overlap(const struct cdc_rule *a, const struct cdc_rule *b);

/* The pieces of a text with {column}s: walks `rest`, which begins as the whole. 1 with a literal piece or a
 * column's name, 0 at the end, -EINVAL: a brace without its other half, or nothing between them. */
struct cdc_piece {
    struct slice text;
    bool column;
};
int cdc_template_next(struct slice *rest, struct cdc_piece *ret) MUST_USE;
