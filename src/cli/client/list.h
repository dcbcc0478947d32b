/* Lists over as many pages as were asked for. */
#pragma once

#include "cli/client/call.h"

/* Runs a verb that is a list: --limit, --cursor and --all. */
int list_run(struct call *c);
