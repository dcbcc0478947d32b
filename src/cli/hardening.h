/* What the process gives up before it serves, so that less can be done with it or learned from it. */
#pragma once

#include "cli/config.h"

/* First of all, before another thread runs: no core dump, and no process of the same user, sees the memory
 * (unless permit-core-dumps), and what JSON documents held is overwritten when they are freed. May be called
 * again. */
void hardening_keep_secrets(const struct config *c);

/* Makes the data folder, private to its user, and becomes that user for good (setting user), who must be able
 * to use the folder. After the listeners are open. What went wrong is logged. */
int hardening_take_data(const struct config *c) MUST_USE;

/* The sandbox (setting sandbox), once every file that is read at start was read and before other threads run.
 * Says what the kernel could not do. Negative errno: it must not go on. */
int hardening_confine(const struct config *c) MUST_USE;
