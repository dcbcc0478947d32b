/* Operational events are published: to those subscriptions of the tenant that ask for them by name, and to
 * the operator's (TENANT_OPERATOR), through the same fan-out as any other event, and in the transaction of
 * what they tell, so that none is lost. */
#pragma once

#include "fanout/fanout.h"
#include "observe/operational.h"
#include "store/body_cache.h"

struct raiser {
    struct fanout *fanout;
    struct id_source *ids;
    struct body_cache *bodies;
};

/* On the writer's thread, within a transaction. What is to be looked up of `e` is looked up here; `at` too
 * for OPERATIONAL_EXHAUSTED. Nothing is raised, and 0 returned, when nobody asks for it, when the
 * subscription is deleted, or for the delivery of an event that is itself of a reserved type (api.md §4.1).
 */
int raise_operational(const struct raiser *r, struct store *s, const struct operational_event *e) MUST_USE;
