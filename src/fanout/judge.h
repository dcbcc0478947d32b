/* Which events the filters of subscriptions let through. Equal filters are kept once and asked once an event;
 * a payload is read when the first filter is asked about it, and what was found is kept while a few other
 * events take turns with it. An event that meets no filter costs nothing. On the writer's thread alone. */
#pragma once

#include "core/subscription.h"
#include "store/store.h"

struct judge;

int judge_new(struct judge **ret) MUST_USE;
void judge_free(struct judge *j);

/* Takes note of a subscription's filter, in place of the one it had. Replaces s->filter by an equal one that
 * others have too: call it before s is shared. */
int judge_put(struct judge *j, struct subscription *s) MUST_USE;
void judge_remove(struct judge *j, uint32_t subscription_no);

/* Whether the filter of a subscription, if any, lets an event through, whose type is not looked at: 1 or 0;
 * -ENOMEM; -EIO when its payload is no JSON. Adds what it cost to *steps. */
int judge_wants(struct judge *j, uint32_t subscription_no, const struct event_record *e,
                uint64_t *steps) MUST_USE;
