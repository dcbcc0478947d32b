/* Operational events (api.md §4): what the system tells a tenant of its own subscriptions and deliveries. The
 * documents alone, pure; fanout/raise.h publishes them. docs/operational-events.md shows them. */
#pragma once

#include "core/delivery.h"
#include "core/id.h"

enum operational_kind {
    OPERATIONAL_DISABLED,  /* a subscription, for its endpoint's sake */
    OPERATIONAL_FAILING,   /* its breaker opened */
    OPERATIONAL_RECOVERED, /* its endpoint takes deliveries again, after OPERATIONAL_FAILING */
    OPERATIONAL_EXHAUSTED, /* a delivery went to the DLQ */
    OPERATIONAL_KINDS,
};

/* "posthorn.subscription.disabled" … */
const char *operational_type(enum operational_kind kind);

struct operational_event {
    enum operational_kind kind;
    uint32_t subscription_no;
    int64_t at;                  /* when it came about, Unix ms */
    const char *disabled_reason; /* of DISABLED */
    int64_t failing_since;       /* of all but EXHAUSTED; 0: it had not been failing */
    uint64_t event_key;          /* of EXHAUSTED: of the delivery's event */
    uint32_t tenant_no;          /* of EXHAUSTED */
    int last_status;             /* of FAILING and EXHAUSTED: what the last attempt brought, 0: none */
    enum attempt_error last_error;
    /* looked up by whoever publishes it */
    struct id subscription_id;
    const char *url;
    /* of EXHAUSTED */
    struct id event_id;
    struct slice event_type;
    uint32_t attempt_count;
    enum delivery_reason reason;
};

/* The event's `data` as JSON text; the caller frees it. NULL when memory is out. */
char *operational_data(const struct operational_event *e);
