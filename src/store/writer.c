#include "store/writer.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>

#include "base/clock.h"
#include "base/log.h"
#include "observe/metrics.h"
#include "store/cluster.h"

/* A transaction holds at most this many jobs, so that the first of them is not kept waiting by an endless
 * stream. */
enum {
    JOBS_A_BATCH = 4096,
    QUIET_JOBS_MAX = 8,
    FAILING_LEAST = 3, /* transactions: fewer may be chance */
};

struct writer {
    struct store *store;
    struct metrics *metrics;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct writer_job *head, **tail;
    size_t admitted; /* jobs in the queue that count against queue_max */
    size_t queue_max;
    bool stopping;
    /* Transactions, and the last of them; until it is said that they succeed again. */
    _Atomic int64_t failed, failed_us;
    struct log_again again;
    void (*ended)(void *arg, bool committed);
    void *ended_arg;
};

static void push(struct writer *w, struct writer_job *job) {
    CHECK(job->run && job->done);
    job->next = NULL;
    bool was_empty = w->head == NULL;
    *w->tail = job;
    w->tail = &job->next;
    if (was_empty)
        pthread_cond_signal(&w->wake);
}

int writer_submit(struct writer *w, struct writer_job *job) {
    int r = 0;
    pthread_mutex_lock(&w->lock);
    if (w->stopping) {
        r = -ESHUTDOWN;
    } else if (w->admitted >= w->queue_max) {
        r = -EAGAIN;
    } else {
        job->admitted = true;
        w->admitted++;
        push(w, job);
    }
    pthread_mutex_unlock(&w->lock);
    return r;
}

void writer_submit_internal(struct writer *w, struct writer_job *job) {
    pthread_mutex_lock(&w->lock);
    job->admitted = false;
    push(w, job);
    pthread_mutex_unlock(&w->lock);
}

double writer_load(struct writer *w) {
    pthread_mutex_lock(&w->lock);
    double load = (double)w->admitted / (double)w->queue_max;
    pthread_mutex_unlock(&w->lock);
    return load;
}

/* Takes what waits, up to a batch; NULL when the writer is to end. */
static struct writer_job *take_batch(struct writer *w, size_t *ret_n) {
    pthread_mutex_lock(&w->lock);
    while (!w->head && !w->stopping)
        pthread_cond_wait(&w->wake, &w->lock);
    struct writer_job *batch = w->head, **end = &w->head;
    size_t n = 0, admitted = 0;
    for (; *end && n < JOBS_A_BATCH; end = &(*end)->next, n++)
        admitted += (*end)->admitted;
    w->head = *end;
    *end = NULL;
    if (!w->head)
        w->tail = &w->head;
    w->admitted -= admitted;
    pthread_mutex_unlock(&w->lock);
    *ret_n = n;
    return n ? batch : NULL;
}

/* 0 with job->result set, or a storage error that makes the whole transaction void. */
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

static int run_batch(struct store *s, struct writer_job *batch) {
    int r = store_begin(s);
    if (r < 0)
        return r;
    for (struct writer_job *job = batch; job; job = job->next)
        if (job->expect)
            job->expect(job, s);
    for (struct writer_job *job = batch; job && r == 0; job = job->next)
        r = run_job(s, job);
    if (r == 0)
        r = store_commit(s);
    if (r < 0)
        store_rollback(s);
    return r;
}

static enum store_load load_after(struct writer *w, size_t jobs) {
    pthread_mutex_lock(&w->lock);
    bool idle = w->head == NULL;
    pthread_mutex_unlock(&w->lock);
    return !idle ? STORE_BUSY : jobs > QUIET_JOBS_MAX ? STORE_IDLE : STORE_QUIET;
}

/* When it begins to fail, now and then while it does, and when that is over: a disk that is full would fill
 * another with lines. A transaction that succeeds in between may be one that writes nothing. */
static void tell(struct writer *w, int r, size_t jobs, int64_t mono_us) {
    int64_t left_out;
    if (r < 0) {
        atomic_store(&w->failed_us, mono_us);
        atomic_fetch_add(&w->failed, 1);
        if (log_again(&w->again, r, mono_us, &left_out))
            log_error("a transaction failed; its requests are answered with the error and had no effect",
                      log_str("error", strerror(-r)), log_int("jobs", (int64_t)jobs),
                      log_int("left_out", left_out));
    } else if (w->failed && mono_us - w->failed_us >= (int64_t)LOG_AGAIN_MS * 1000) {
        log_info("transactions succeed again", log_int("failed", w->failed));
        atomic_store(&w->failed, 0);
    }
}

bool writer_fails(struct writer *w, int64_t mono_us) {
    return atomic_load(&w->failed) >= FAILING_LEAST &&
           mono_us - atomic_load(&w->failed_us) < (int64_t)LOG_AGAIN_MS * 1000;
}

static void *writer_main(void *arg) {
    struct writer *w = arg;
    struct writer_job *batch;
    size_t n;
    /* Of itself: for another thread it takes a file that the sandbox withholds. */
    pthread_setname_np(pthread_self(), "writer");
    while ((batch = take_batch(w, &n))) {
        int64_t began = clock_mono_us();
        int r = run_batch(w->store, batch);
        int64_t ended = clock_mono_us();
        bool clashed = r < 0 && store_clashed(w->store);
        if (clashed)
            log_warn(
                "another node has written the same at the same time: a transaction is void, and what can be "
                "is tried again",
                log_int("jobs", (int64_t)n));
        else
            tell(w, r, n, ended);
        if (w->metrics) {
            metrics_observe(w->metrics, METRIC_STORE_COMMIT, (double)(ended - began) / 1e6);
            metrics_observe(w->metrics, METRIC_STORE_BATCH_SIZE, (double)n);
        }
        if (w->ended)
            w->ended(w->ended_arg, r == 0);
        while (batch) {
            struct writer_job *job = batch;
            batch = job->next;
            job->clashed = clashed;
            job->done(job, r < 0 ? r : job->result);
        }
        store_tidy(w->store, load_after(w, n));
    }
    return NULL;
}

int writer_start(struct store *s, size_t queue_max, struct metrics *m, struct writer **ret) {
    struct writer *w = calloc(1, sizeof *w);
    if (!w)
        return -ENOMEM;
    *w = (struct writer){.store = s, .metrics = m, .queue_max = queue_max};
    w->tail = &w->head;
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->wake, NULL);
    int r = pthread_create(&w->thread, NULL, writer_main, w);
    if (r != 0) {
        free(w);
        return -r;
    }
    *ret = w;
    return 0;
}

void writer_on_end(struct writer *w, void (*fn)(void *arg, bool committed), void *arg) {
    w->ended = fn;
    w->ended_arg = arg;
}

void writer_stop(struct writer *w) {
    pthread_mutex_lock(&w->lock);
    w->stopping = true;
    pthread_cond_signal(&w->wake);
    pthread_mutex_unlock(&w->lock);
    pthread_join(w->thread, NULL);
    pthread_mutex_destroy(&w->lock);
    pthread_cond_destroy(&w->wake);
    free(w);
}
