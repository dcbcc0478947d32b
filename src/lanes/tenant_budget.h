/* A tenant's caps over all its lanes, as lanes.c uses them; safe from all threads. */
#pragma once

#include "lanes/lanes.h"

/* The tenant's counters, made without caps when it is not known yet; they live as long as the table. NULL: no
 * memory. */
struct tenant_budget *tenant_budget_of(struct tenant_budgets *b, uint32_t tenant_no);

/* Takes up to n places; returns how many, and what cut them when fewer. */
uint32_t tenant_budget_take(struct tenant_budget *t, uint32_t n, int64_t now, enum lane_wait *ret_cause);
/* Gives places back; `unused`: nothing was sent on them, the minute's quota gets them back too. */
void tenant_budget_return(struct tenant_budget *t, uint32_t n, bool unused);
