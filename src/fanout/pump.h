/* The pump: works off fan-out jobs, a chunk a transaction, between whatever else the writer does; so a blast
 * holds nobody up. */
#pragma once

#include "fanout/fanout.h"
#include "store/writer.h"

struct pump;
int pump_new(struct fanout *f, struct writer *w, struct pump **ret) MUST_USE;
/* Starts it when there are jobs and it stands still. On the writer's thread, or before the writer has work.
 */
void pump_kick(struct pump *p);
/* From any thread: takes up no further chunk. */
void pump_stop(struct pump *p);
/* After the writer has ended. */
void pump_free(struct pump *p);
