/* Permits: leave that a loop gives the writer ahead, to begin new deliveries by itself. Where a permit is
 * left, a delivery is made as ATTEMPTING in its event's own transaction; otherwise it is made PENDING, its
 * lane is told, and claims it in a transaction of its own.
 *
 * This is the writer's side, one a loop, on the writer's thread alone: all that gives, takes back and uses
 * permits happens in the order of its transactions, so none is used twice and nothing is locked. What lanes
 * can spare they decide themselves (lanes.h). A delivery uses a permit of its lane, a place of its tier in
 * the loop's budget (the pool), and one of its tenant. */
#pragma once

#include "lanes/lanes.h"

struct permits;

int permits_new(struct permits **ret) MUST_USE;
void permits_free(struct permits *p);

/* Carries out, after its commit, what a turn brought, and answers in it. */
void permits_apply(struct permits *p, struct permit_plan *plan);
/* The lane has changed, or is gone: what it gave is void. Returns the number of changes so far, for the
 * message that tells the loop: a plan that was made before it came gives nothing. */
uint64_t permits_forget(struct permits *p, uint32_t subscription_no);

/* Whether a delivery that is being made may be begun; if so it is to be made with this lease. */
bool permits_begin(struct permits *p, const struct new_delivery *n, int64_t now, int64_t *ret_lease_until);
/* The transaction is committed: what was begun, for the loop, until permits_told says that it knows. */
const struct task *permits_committed(struct permits *p, size_t *ret_n);
void permits_told(struct permits *p);
/* The transaction was void: what it began has not happened. */
void permits_give_up(struct permits *p);
