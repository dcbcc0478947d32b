/* The group-commit writer: what stands when it answers, and what it answers when the store refuses. */
#include "fixture.h"

#include <errno.h>
#include <semaphore.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"
#include "store/writer.h"

enum { QUEUE_MAX = 3, LIMIT_MS = 30000, JOBS = 3 };

struct bench {
    struct fixture *f;
    struct writer *w;
    uint32_t tenant;
    sem_t at_the_gate, gate, ended;
    unsigned committed, voided; /* transactions */
};

/* Inserts a subscription, then has this result. */
struct job {
    struct writer_job job; /* first */
    struct bench *b;
    int says;
    bool has_run;
    size_t seen; /* subscriptions that a reader saw when it was done */
    int result;
};

static int count(void *arg, const struct subscription_record *row) {
    (void)row;
    ++*(size_t *)arg;
    return 0;
}

static size_t subscriptions(struct bench *b) {
    size_t n = 0;
    return store_list_subscriptions(b->f->reader, b->tenant, -1, 0, 99, count, &n) == 0 ? n : SIZE_MAX;
}

static int run(struct writer_job *job, struct store *s) {
    struct job *j = (struct job *)job;
    struct subscription_record r = {.tenant_no = j->b->tenant,
                                    .id = next_id(j->b->f, j->b->f->now),
                                    .doc = SLICE_LIT("{}"),
                                    .created_at = j->b->f->now,
                                    .updated_at = j->b->f->now};
    uint32_t no;
    j->has_run = true;
    int e = store_insert_subscription(s, &r, &no);
    return e < 0 ? e : j->says;
}

static void done(struct writer_job *job, int result) {
    struct job *j = (struct job *)job;
    j->seen = subscriptions(j->b);
    j->result = result;
    sem_post(&j->b->ended);
}

static struct job job_that_says(struct bench *b, int says) {
    return (struct job){.job = {.run = run, .done = done}, .b = b, .says = says, .result = 1};
}

/* A job that keeps the writer until the gate opens, so that others gather behind it. */
static int wait_at_gate(struct writer_job *job, struct store *s) {
    struct job *j = (struct job *)job;
    (void)s;
    sem_post(&j->b->at_the_gate);
    while (sem_wait(&j->b->gate) < 0)
        ;
    return 0;
}

static void wait_for(sem_t *s) {
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += LIMIT_MS / 1000;
    assert_int_equal(sem_timedwait(s, &until), 0);
}

static void hold(struct bench *b, struct job *ret) {
    *ret = (struct job){.job = {.run = wait_at_gate, .done = done}, .b = b};
    writer_submit_internal(b->w, &ret->job);
    wait_for(&b->at_the_gate);
}

/* Until so many jobs are done. */
static void let_go(struct bench *b, unsigned jobs) {
    sem_post(&b->gate);
    while (jobs-- > 0)
        wait_for(&b->ended);
}

static void on_end(void *arg, bool committed) {
    struct bench *b = arg;
    b->committed += committed;
    b->voided += !committed;
}

static void start(struct bench *b, struct fixture *f) {
    *b = (struct bench){.f = f, .tenant = make_tenant(f)};
    sem_init(&b->at_the_gate, 0, 0);
    sem_init(&b->gate, 0, 0);
    sem_init(&b->ended, 0, 0);
    assert_int_equal(writer_start(f->store, QUEUE_MAX, NULL, &b->w), 0);
    writer_on_end(b->w, on_end, b);
}

static void stop(struct bench *b) {
    writer_stop(b->w);
    sem_destroy(&b->at_the_gate);
    sem_destroy(&b->gate);
    sem_destroy(&b->ended);
}

/* Submits them behind a job that holds the writer, so that they are one transaction. */
static void run_together(struct bench *b, struct job *jobs, unsigned n) {
    struct job held;
    hold(b, &held);
    for (unsigned i = 0; i < n; i++)
        assert_int_equal(writer_submit(b->w, &jobs[i].job), 0);
    let_go(b, n + 1);
    assert_int_equal(held.result, 0);
}

/* ---- tests ---- */

static void test_what_is_answered_is_committed(void **state) {
    struct bench b;
    start(&b, *state);
    struct job one = job_that_says(&b, 0);
    assert_int_equal(writer_submit(b.w, &one.job), 0);
    let_go(&b, 1);
    assert_int_equal(one.result, 0);
    assert_int_equal(one.seen, 1);
    stop(&b);
}

static void test_what_waits_is_one_transaction(void **state) {
    struct bench b;
    start(&b, *state);
    struct job jobs[JOBS];
    for (int i = 0; i < JOBS; i++)
        jobs[i] = job_that_says(&b, 0);
    run_together(&b, jobs, JOBS);
    assert_int_equal(b.committed, 2);
    for (int i = 0; i < JOBS; i++) {
        assert_int_equal(jobs[i].result, 0);
        assert_int_equal(jobs[i].seen, JOBS);
    }
    stop(&b);
}

/* Nobody is told of success whose writes went with another's failure. */
static void test_a_storage_error_voids_all_and_all_are_told(void **state) {
    static const int errors[] = {-EIO, -ENOSPC, -ENOMEM};
    struct bench b;
    start(&b, *state);
    for (size_t i = 0; i < COUNT(errors); i++) {
        struct job jobs[] = {job_that_says(&b, 0), job_that_says(&b, errors[i]), job_that_says(&b, 0)};
        jobs[1].job.guarded = i % 2 == 0;
        run_together(&b, jobs, COUNT(jobs));
        assert_int_equal(b.voided, i + 1);
        for (size_t k = 0; k < COUNT(jobs); k++)
            assert_int_equal(jobs[k].result, errors[i]);
        assert_false(jobs[2].has_run);
        assert_int_equal(subscriptions(&b), 0);
        assert_int_equal(writer_fails(b.w, clock_mono_us()), i == COUNT(errors) - 1);
    }
    assert_false(writer_fails(b.w, clock_mono_us() + LOG_AGAIN_MS * 1000));
    struct job after = job_that_says(&b, 0);
    assert_int_equal(writer_submit(b.w, &after.job), 0);
    let_go(&b, 1);
    assert_int_equal(after.result, 0);
    assert_int_equal(after.seen, 1);
    stop(&b);
}

static void test_a_guarded_job_that_is_refused_leaves_nothing(void **state) {
    struct bench b;
    start(&b, *state);
    struct job jobs[] = {job_that_says(&b, 0), job_that_says(&b, -EEXIST), job_that_says(&b, 0)};
    for (size_t i = 0; i < COUNT(jobs); i++)
        jobs[i].job.guarded = true;
    run_together(&b, jobs, COUNT(jobs));
    assert_int_equal(jobs[0].result, 0);
    assert_int_equal(jobs[1].result, -EEXIST);
    assert_int_equal(jobs[2].result, 0);
    assert_true(jobs[1].has_run);
    assert_int_equal(subscriptions(&b), 2);
    stop(&b);
}

static void test_the_queue_is_bounded(void **state) {
    struct bench b;
    start(&b, *state);
    struct job held, waiting[QUEUE_MAX], more = job_that_says(&b, 0), internal = job_that_says(&b, 0);
    hold(&b, &held);
    assert_true(writer_load(b.w) == 0);
    for (int i = 0; i < QUEUE_MAX; i++) {
        waiting[i] = job_that_says(&b, 0);
        assert_int_equal(writer_submit(b.w, &waiting[i].job), 0);
    }
    assert_true(writer_load(b.w) == 1);
    assert_int_equal(writer_submit(b.w, &more.job), -EAGAIN);
    writer_submit_internal(b.w, &internal.job);
    assert_true(writer_load(b.w) == 1);
    let_go(&b, QUEUE_MAX + 2);
    assert_true(internal.has_run && !more.has_run);
    assert_int_equal(writer_submit(b.w, &more.job), 0);
    let_go(&b, 1);
    assert_int_equal(more.result, 0);
    assert_int_equal(subscriptions(&b), QUEUE_MAX + 2);
    stop(&b);
}

/* With a full queue behind it, submits another until the writer says that it stops. */
static int submit_until_stopped(struct writer_job *job, struct store *s) {
    struct job *j = (struct job *)job, another = job_that_says(j->b, 0);
    int64_t until_us = clock_mono_us() + LIMIT_MS * INT64_C(1000);
    (void)wait_at_gate(job, s);
    do
        j->says = writer_submit(j->b->w, &another.job);
    while (j->says == -EAGAIN && clock_mono_us() < until_us);
    return 0;
}

static void test_a_stop_works_off_what_it_has_and_takes_no_more(void **state) {
    struct bench b;
    start(&b, *state);
    struct job first = {.job = {.run = submit_until_stopped, .done = done}, .b = &b}, waiting[QUEUE_MAX];
    writer_submit_internal(b.w, &first.job);
    wait_for(&b.at_the_gate);
    for (int i = 0; i < QUEUE_MAX; i++) {
        waiting[i] = job_that_says(&b, 0);
        assert_int_equal(writer_submit(b.w, &waiting[i].job), 0);
    }
    sem_post(&b.gate);
    stop(&b);
    assert_int_equal(first.says, -ESHUTDOWN);
    for (int i = 0; i < QUEUE_MAX; i++)
        assert_int_equal(waiting[i].result, 0);
    assert_int_equal(subscriptions(&b), QUEUE_MAX);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        STORE_TEST(test_what_is_answered_is_committed),
        STORE_TEST(test_what_waits_is_one_transaction),
        STORE_TEST(test_a_storage_error_voids_all_and_all_are_told),
        STORE_TEST(test_a_guarded_job_that_is_refused_leaves_nothing),
        STORE_TEST(test_the_queue_is_bounded),
        STORE_TEST(test_a_stop_works_off_what_it_has_and_takes_no_more),
    };
    return cmocka_run_group_tests(tests, NULL, fixture_end);
}
