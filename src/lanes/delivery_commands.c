/* What other threads ask of a delivery loop: messages that its own thread carries out. */
#include <errno.h>

#include "base/clock.h"
#include "core/log_id.h"
#include "lanes/delivery_state.h"

struct command {
    struct loop_message message;
    struct delivery_loop *d;
    struct subscription *subscription;
    bool resumed, heard;
    struct lane_start start;
    struct partition_set *partitions;
    uint32_t no, n;
    void (*stopped)(void *arg);
    void *arg;
    uint64_t lane_changes;
    size_t notices_n;
    struct lane_notice notices[];
};

static int post(struct delivery_loop *d, struct command *c, void (*fn)(struct loop_message *m)) {
    if (!c)
        return -ENOMEM;
    c->d = d;
    c->message.fn = fn;
    loop_post(d->loop, &c->message);
    return 0;
}

static void do_put(struct loop_message *m) {
    struct command *c = (struct command *)m;
    c->d->lane_changes = c->lane_changes;
    if (lanes_put(c->d->lanes, c->subscription, c->resumed ? &c->start : NULL, clock_now_ms()) < 0)
        log_error("no memory for a lane; it is served after the next start",
                  log_id("subscription", ID_SUBSCRIPTION, c->subscription->id));
    subscription_unref(c->subscription);
    free(c);
}

int delivery_loop_put(struct delivery_loop *d, struct subscription *s, const struct lane_start *start) {
    struct command *c = calloc(1, sizeof *c);
    if (c) {
        c->subscription = subscription_ref(s);
        c->resumed = start != NULL;
        if (start)
            c->start = *start;
        c->lane_changes = permits_forget(d->permits, s->no);
    }
    return post(d, c, do_put);
}

static void do_change(struct loop_message *m) {
    struct command *c = (struct command *)m;
    if (lanes_serves(c->d->lanes, c->subscription->no)) {
        do_put(m);
        return;
    }
    subscription_unref(c->subscription);
    free(c);
}

int delivery_loop_change(struct delivery_loop *d, struct subscription *s) {
    struct command *c = calloc(1, sizeof *c);
    if (c) {
        c->subscription = subscription_ref(s);
        c->lane_changes = permits_forget(d->permits, s->no);
    }
    return post(d, c, do_change);
}

static void do_release(struct loop_message *m) {
    struct command *c = (struct command *)m;
    struct delivery_loop *d = c->d;
    if (c->partitions)
        lanes_release_all(d->lanes, c->partitions);
    else
        lanes_release(d->lanes, c->no);
    atomic_store(&d->leaving, lanes_leaving(d->lanes));
    atomic_fetch_add(&d->releases_done, 1);
    free(c->partitions);
    free(c);
}

int delivery_loop_release(struct delivery_loop *d, uint32_t no, const struct partition_set *partitions) {
    struct command *c = calloc(1, sizeof *c);
    struct partition_set *copy = c && partitions ? malloc(sizeof *copy) : NULL;
    if (!c || (partitions && !copy)) {
        free(c);
        return -ENOMEM;
    }
    if (copy)
        *copy = *partitions;
    c->no = no;
    c->partitions = copy;
    atomic_fetch_add(&d->releases_asked, 1);
    return post(d, c, do_release);
}

bool delivery_loop_released(struct delivery_loop *d, uint32_t *leaving) {
    bool done = atomic_load(&d->releases_done) == atomic_load(&d->releases_asked);
    *leaving += atomic_load(&d->leaving);
    return done;
}

static void do_disinherit(struct loop_message *m) {
    struct command *c = (struct command *)m;
    lanes_disinherit(c->d->lanes, c->no, c->n, clock_now_ms());
    free(c);
}

int delivery_loop_disinherit(struct delivery_loop *d, uint32_t no, uint32_t n) {
    struct command *c = calloc(1, sizeof *c);
    if (c) {
        c->no = no;
        c->n = n;
    }
    return post(d, c, do_disinherit);
}

static void do_remove(struct loop_message *m) {
    struct command *c = (struct command *)m;
    c->d->lane_changes = c->lane_changes;
    removals_add(c->d, c->no, c->stopped, c->arg);
    free(c);
}

int delivery_loop_remove(struct delivery_loop *d, uint32_t no, void (*stopped)(void *arg), void *arg) {
    struct command *c = calloc(1, sizeof *c);
    if (c) {
        c->no = no;
        c->stopped = stopped;
        c->arg = arg;
        c->lane_changes = permits_forget(d->permits, no);
    }
    return post(d, c, do_remove);
}

static void do_notify(struct loop_message *m) {
    struct command *c = (struct command *)m;
    struct delivery_loop *d = c->d;
    int64_t now = clock_now_ms();
    for (size_t i = 0; i < c->notices_n; i++) {
        uint32_t no = c->notices[i].subscription_no;
        /* No such lane: its subscription was deleted, perhaps before the last start, and left deliveries
         * behind. */
        if (!lanes_due(d->lanes, no, c->notices[i].due_at, now) && !c->heard && !removals_find(d, no))
            removals_add(d, no, NULL, NULL);
    }
    free(c);
}

int delivery_loop_notify(struct delivery_loop *d, const struct lane_notice *notices, size_t n, bool heard) {
    struct command *c = malloc(sizeof *c + n * sizeof *notices);
    if (c) {
        *c = (struct command){.notices_n = n, .heard = heard};
        memcpy(c->notices, notices, n * sizeof *notices);
    }
    return post(d, c, do_notify);
}

struct news {
    struct loop_message message;
    struct delivery_loop *d;
    size_t n;
    struct task tasks[];
};

static void do_begin(struct loop_message *m) {
    struct news *c = (struct news *)m;
    int64_t now = clock_now_ms();
    for (size_t i = 0; i < c->n; i++) {
        lanes_begun(c->d->lanes, c->tasks[i].subscription_no, now);
        delivery_begin(c->d, &c->tasks[i], now);
    }
    free(c);
}

bool delivery_loop_begin(struct delivery_loop *d, const struct new_delivery *n, int64_t now,
                         int64_t *ret_lease_until) {
    return permits_begin(d->permits, n, now, ret_lease_until);
}

void delivery_loop_made(struct delivery_loop *d, bool committed) {
    if (!committed) {
        permits_give_up(d->permits);
        return;
    }
    size_t n;
    const struct task *tasks = permits_committed(d->permits, &n);
    struct news *c = n ? malloc(sizeof *c + n * sizeof *tasks) : NULL;
    if (!c)
        return; /* without memory: after the next commit */
    *c = (struct news){.message.fn = do_begin, .d = d, .n = n};
    memcpy(c->tasks, tasks, n * sizeof *tasks);
    permits_told(d->permits);
    loop_post(d->loop, &c->message);
}

struct stats_question {
    struct loop_message message;
    struct delivery_loop *d;
    uint32_t no;
    struct lane_stats stats;
    atomic_uint refs; /* the asker's and the loop's: the asker may give up */
    pthread_mutex_t lock;
    pthread_cond_t answered;
    bool done;
};

static void question_unref(struct stats_question *q) {
    if (atomic_fetch_sub(&q->refs, 1) != 1)
        return;
    pthread_mutex_destroy(&q->lock);
    pthread_cond_destroy(&q->answered);
    free(q);
}

static void do_stats(struct loop_message *m) {
    struct stats_question *q = (struct stats_question *)m;
    pthread_mutex_lock(&q->lock);
    lanes_stats(q->d->lanes, q->no, clock_now_ms(), &q->stats);
    q->done = true;
    pthread_cond_signal(&q->answered);
    pthread_mutex_unlock(&q->lock);
    question_unref(q);
}

int delivery_loop_stats(struct delivery_loop *d, uint32_t no, struct lane_stats *ret) {
    struct stats_question *q = calloc(1, sizeof *q);
    if (!q)
        return -ENOMEM;
    *q = (struct stats_question){.message = {.fn = do_stats}, .d = d, .no = no};
    atomic_init(&q->refs, 2);
    pthread_mutex_init(&q->lock, NULL);
    pthread_cond_init(&q->answered, NULL);
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 1;
    pthread_mutex_lock(&q->lock);
    loop_post(d->loop, &q->message);
    int r = 0;
    while (!q->done && r == 0)
        r = pthread_cond_timedwait(&q->answered, &q->lock, &until);
    if (q->done)
        *ret = q->stats;
    bool done = q->done;
    pthread_mutex_unlock(&q->lock);
    question_unref(q);
    return done ? 0 : -ETIMEDOUT;
}

static void do_stop(struct loop_message *m) {
    struct command *c = (struct command *)m;
    c->d->stopping = true;
    free(c);
}

static void do_end(struct loop_message *m) {
    ((struct command *)m)->d->ending = true;
    do_stop(m);
}

void delivery_loop_stop(struct delivery_loop *d) {
    struct command *c = calloc(1, sizeof *c);
    CHECK(post(d, c, do_stop) == 0);
}

void delivery_loop_end(struct delivery_loop *d) {
    struct command *c = calloc(1, sizeof *c);
    CHECK(post(d, c, do_end) == 0);
}
