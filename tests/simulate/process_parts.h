/* The stages of the process under test, as process.c and requests.c share them. */
#pragma once

#include "fanout/pump.h"
#include "process.h"
#include "settle/reaper.h"

struct process {
    struct metrics *metrics;
    struct fanout *fanout;
    struct writer *writer;
    struct pump *pump;
    struct reaper *reaper;
    struct dispatch *dispatch;
    struct id_source ids;
    struct writer_job reap_job;
    bool reap_more, stopping;
    int64_t stop_until, down_ms;
};

extern struct process *the_process; /* NULL: it is down */

/* As fanout/apply.c: what the store has of a subscription takes effect. */
void process_apply(uint32_t no);
/* Something of this lane is due. */
void process_lane_due(void *arg, uint32_t no, int64_t due_at);
