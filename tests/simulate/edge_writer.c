/* store/writer.h on virtual time, with the rules of store/writer.c: one batch at a time, in the order the
 * jobs came, one transaction; what a job's error voids; done after the commit. Between commit and done there
 * is time to crash in. */
#include <errno.h>

#include "edges.h"
#include "judge.h"
#include "memory_store.h"
#include "timeline.h"
#include "world.h"

enum { JOBS_A_BATCH = 64, QUEUE_MAX = 64, COMMIT_MS_MAX = 12, DONE_MS_MAX = 4 };

struct writer {
    struct store *store;
    struct writer_job *head, **tail, *batch;
    size_t admitted;
    int batch_result;
    bool busy;
    void (*ended)(void *arg, bool committed);
    void *ended_arg;
};

static int64_t commit_ms_max = COMMIT_MS_MAX;

struct writer *edge_writer_new(struct store *s) {
    struct writer *w = calloc(1, sizeof *w);
    CHECK(w != NULL);
    w->store = s;
    w->tail = &w->head;
    return w;
}

void edge_writer_slow(int64_t most_ms) {
    commit_ms_max = most_ms > COMMIT_MS_MAX ? most_ms : COMMIT_MS_MAX;
}

void writer_on_end(struct writer *w, void (*fn)(void *arg, bool committed), void *arg) {
    w->ended = fn;
    w->ended_arg = arg;
}

static int run_job(struct store *s, struct writer_job *job) {
    int r = job->guarded ? store_savepoint(s) : 0;
    if (r < 0)
        return r;
    job->result = job->run(job, s);
    if (job->result == -EIO || job->result == -ENOSPC || job->result == -ENOMEM)
        return job->result;
    if (!job->guarded)
        return 0;
    return job->result < 0 ? store_savepoint_rollback(s) : store_savepoint_release(s);
}

static int run_batch(struct writer *w) {
    int r = store_begin(w->store);
    if (r < 0)
        return r;
    for (struct writer_job *job = w->batch; job && r == 0; job = job->next)
        r = run_job(w->store, job);
    if (r == 0)
        r = store_commit(w->store);
    if (r < 0)
        store_rollback(w->store);
    return r;
}

static void start_batch(struct writer *w);

static void report(void *arg) {
    struct writer *w = arg;
    struct writer_job *batch = w->batch;
    w->batch = NULL;
    if (w->ended)
        w->ended(w->ended_arg, w->batch_result == 0);
    while (batch) {
        struct writer_job *job = batch;
        batch = job->next;
        job->done(job, w->batch_result < 0 ? w->batch_result : job->result);
    }
    w->busy = false;
    start_batch(w);
}

static void commit(void *arg) {
    struct writer *w = arg;
    w->batch = w->head;
    struct writer_job **end = &w->head;
    for (int n = 0; *end && n < JOBS_A_BATCH; n++) {
        w->admitted -= (*end)->admitted;
        end = &(*end)->next;
    }
    w->head = *end;
    *end = NULL;
    if (!w->head)
        w->tail = &w->head;
    w->batch_result = run_batch(w);
    if (w->batch_result < 0)
        note(0, 0, 0, "a transaction fails");
    else
        judge_committed();
    world_after(between(0, DONE_MS_MAX), report, w);
}

static void start_batch(struct writer *w) {
    if (w->busy || !w->head)
        return;
    w->busy = true;
    world_after(between(0, commit_ms_max), commit, w);
}

static void push(struct writer *w, struct writer_job *job) {
    CHECK(job->run && job->done);
    job->next = NULL;
    *w->tail = job;
    w->tail = &job->next;
    start_batch(w);
}

bool edge_writer_idle(const struct writer *w) {
    return !w->busy && !w->head;
}

int writer_submit(struct writer *w, struct writer_job *job) {
    if (w->admitted >= QUEUE_MAX)
        return -EAGAIN;
    w->admitted++;
    job->admitted = true;
    push(w, job);
    return 0;
}

void writer_submit_internal(struct writer *w, struct writer_job *job) {
    job->admitted = false;
    push(w, job);
}
