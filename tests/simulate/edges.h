/* The edges of the process under test, bound at link time in place of the real ones: the delivery loops'
 * epoll loop (base/loop.h), the writer's thread (store/writer.h), the attempt on the network
 * (deliver/attempt.h), clock, chance, threads and log. What runs between them is the program's own code. */
#pragma once

#include "deliver/attempt.h"
#include "store/writer.h"

/* ---- edge_loop.c ---- */

/* An attempt's network part is over: its `done` runs in its loop's next round, when that is not frozen. */
void edge_loop_ended(struct client *c, struct attempt *a);
/* One loop, chosen by chance, or all of them, stand still for so long, as a process does that gets no time.
 */
void edge_loops_freeze(bool all, int64_t for_ms);
/* The time until which some loop stands, or stood, still. */
int64_t edge_loops_frozen_until(void);
/* All loops have come to their end. */
bool edge_loops_stopped(void);
/* Something was posted to a loop that has not looked since. */
bool edge_loops_have_mail(void);
/* The process is gone, and its loops with it. */
void edge_loops_forget(void);

/* ---- edge_writer.c ---- */

struct writer *edge_writer_new(struct store *s);
bool edge_writer_idle(const struct writer *w);
/* Transactions take up to so long from now on. */
void edge_writer_slow(int64_t most_ms);

/* ---- edge_attempt.c ---- */

void edge_attempts_begin(void);
void edge_attempts_clear(void);
/* Answers that are still on their way find nobody any more. */
void edge_attempts_forget(void);
