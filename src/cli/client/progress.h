/* A line on a terminal that says how far something has come. */
#pragma once

#include "base/bytes.h"

struct progress {
    bool shown; /* it is wanted */
    bool drawn; /* the line stands there now */
    int64_t start_us;
};

void progress_start(struct progress *p, bool shown);
/* Draws over what stood there. total 0: not known. */
void progress_show(struct progress *p, int64_t done, int64_t failed, int64_t total, const char *what);
/* Takes the line away, so that something else can be written. */
void progress_clear(struct progress *p);

/* The line, without control characters: "[#####-----]  50 %  5 of 10 replayed, 1 failed, 2/s". Pure. */
void progress_line(int64_t done, int64_t failed, int64_t total, const char *what, int64_t elapsed_ms,
                   struct buf *out);
