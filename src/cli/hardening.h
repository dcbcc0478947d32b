/* What the process gives up before it serves, so that less can be done with it or learned from it. */
#pragma once

#include "cli/config.h"

/* First of all, before another thread runs: no core dump, and no process of the same user, sees the memory
 * (unless permit-core-dumps), and what JSON documents held is overwritten when they are freed. */
void hardening_keep_secrets(const struct config *c);
