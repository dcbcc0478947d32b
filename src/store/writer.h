/* The group-commit writer: one thread that runs jobs in the order they came, as many as are waiting in one
 * transaction, and reports each after its commit. Durability costs one fsync a batch.
 *
 * A failed commit is never retried: when the disk refuses, jobs are answered with the error (-ENOSPC, -EIO);
 * when an fsync fails, the process ends, for nobody can tell what the disk holds. */
#pragma once

#include "observe/metrics.h"
#include "store/store.h"

struct writer;

/* Embedded by the caller, who keeps it alive until done has been called. */
struct writer_job {
    struct writer_job *next;
    /* On the writer's thread, before any job of the transaction has run: tells the store what run will ask
     * for (store_expect_…). NULL: nothing. */
    void (*expect)(struct writer_job *job, struct store *s);
    /* On the writer's thread, inside the transaction: writes, and notes its results in its own fields. A
     * negative result is handed to done. Unless `guarded`, nothing may have been written when it is negative.
     */
    int (*run)(struct writer_job *job, struct store *s);
    /* On the writer's thread, after the commit (or its failure): result is run's, or the commit's error. Must
     * be quick. The job may be freed here. */
    void (*done)(struct writer_job *job, int result);
    bool clashed;  /* result, when it failed: as store_clashed; it may be submitted again */
    int result;    /* private */
    bool admitted; /* private */
    bool guarded;  /* run in a savepoint, undone when run's result is negative: for control-plane changes */
};

/* queue_max bounds the jobs that writer_submit accepts; writer_submit_internal passes the bound, for work
 * that was admitted before (claims, settles), which is bounded by the in-flight budget. */
/* `m` may be NULL. */
int writer_start(struct store *s, size_t queue_max, struct metrics *m, struct writer **ret) MUST_USE;
/* -EAGAIN when the queue is full, -ESHUTDOWN once it stops: the job was not taken. */
int writer_submit(struct writer *w, struct writer_job *job) MUST_USE;
void writer_submit_internal(struct writer *w, struct writer_job *job);
/* Called on the writer's thread after each transaction, before the jobs' done: the place to tell others what
 * is there now, or to take back what is void. Set before the first submit. */
void writer_on_end(struct writer *w, void (*fn)(void *arg, bool committed), void *arg);
/* Works off what was submitted, then ends the thread and frees. */
void writer_stop(struct writer *w);

/* How full the bounded queue is, 0…1. From any thread. */
double writer_load(struct writer *w);
/* Whether transactions have failed lately, the last of them within five seconds before mono_us: a disk that
 * is full, a database that is away. From any thread. */
bool writer_fails(struct writer *w, int64_t mono_us);
