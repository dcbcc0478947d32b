/* What a seed is made of: tenants, subscriptions, their receivers, what is published, and what goes wrong. */
#pragma once

#include "receivers.h"

enum {
    SCENARIO_END_SLACK_MS = 1800000, /* after the last window, for what must then be over */
};

/* Fills the store and sets the first things in motion. */
void scenario_begin(void);
/* When all windows have closed, true time. */
int64_t scenario_end_at(void);

unsigned scenario_loops(void);
unsigned scenario_budget(void);       /* attempts in flight, over all loops */
double scenario_memory_trouble(void); /* how often there is none for an attempt, or its text */
double scenario_job_share(void);      /* how often a small fan-out becomes a job */
const struct receiver *scenario_receiver(uint32_t subscription_no);
/* A lane whose deliveries nothing should hold up in calm. */
bool scenario_is_healthy(uint32_t subscription_no);
