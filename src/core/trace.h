/* W3C Trace Context (Recommendation of 2021-11-23), level 1: taken at publish, kept with the event, passed on
 * with every attempt. What is kept is one text: a traceparent of version 00, right after it the tracestate,
 * which may be empty. */
#pragma once

#include "base/bytes.h"

enum {
    TRACE_ID_N = 32,       /* hex digits */
    TRACEPARENT_N = 55,    /* "00-", 32 digits, "-", 16 digits, "-", 2 digits */
    TRACE_STATE_MAX = 512, /* what the standard asks to be passed on; a longer one is dropped */
    TRACE_TEXT_MAX = TRACEPARENT_N + TRACE_STATE_MAX,
};

/* The text of a request's headers into `out`, as the standard says: a traceparent that is malformed, or whose
 * ids are zero, counts as none (false: out is untouched); of a later version the first four fields count; a
 * malformed tracestate counts as none. Absent: p == NULL. */
bool trace_take(struct slice traceparent, struct slice tracestate, struct buf *out);

/* Of a text that trace_take made. */
struct slice trace_state(struct slice trace);
bool trace_sampled(struct slice trace);
void trace_id(struct slice trace, char ret[TRACE_ID_N + 1]);
/* The id of the step that it was taken from, or was made for. */
uint64_t trace_span(struct slice trace);

/* The traceparent of a step of this trace, whose id is span (not 0). */
void trace_parent_for(struct slice trace, uint64_t span, char ret[TRACEPARENT_N + 1]);
