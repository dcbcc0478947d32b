/* What the main thread does while the server runs: waits for the signals that end it, and hands the writer
 * its periodic work, the reaper's each second and retention's small steps. */
#pragma once

#include "cluster/node.h"
#include "settle/reaper.h"
#include "settle/retention.h"
#include "store/writer.h"

struct housekeeper_options {
    struct store *store;
    struct node *node; /* NULL: none */
    int64_t lease_ms;
    uint32_t worker_no; /* this process's */
    struct retention_policy retention;
    struct writer *writer;
    struct reaper *reaper;
    struct replayer *replayer;
    struct store_reader *reader; /* the main thread's */
    struct metrics *metrics;
    void (*reload)(void *arg); /* what SIGHUP asks for; NULL: it ends the server as SIGTERM does */
    void *arg;
};

/* Blocks SIGTERM, SIGINT and SIGHUP for every thread started afterwards: call it before any. A broken pipe,
 * and a file that may not grow, are errors of their writes from then on. */
void housekeeper_block_signals(void);

/* Returns after a signal that ends the server, once the work it handed out is done; its number. Negative
 * errno: it could not run. */
int housekeeper_run(const struct housekeeper_options *o);
