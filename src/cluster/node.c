#include "cluster/node.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"
#include "cluster/node_state.h"

enum {
    TURN_MS_MAX = 500,      /* a turn of the thread; what is due earlier is done earlier */
    CHANGES_EVERY_MS = 500, /* the net under what others tell of their changes */
    DUE_EVERY_MS = 10000,   /* … and of what is due */
    JOBS_EVERY_MS = 1000,   /* … and of fan-outs and replays */
    INHERITED_EVERY_MS = 200,
    WAITS_EVERY_MS = 300,
    TIERS_EVERY_MS = 25, /* while a change of a tier is not in force everywhere */
    QUOTAS_EVERY_MS = 500,
    LOOKS_A_LEASE = 10,
    LOOK_EVERY_MS_MAX = 1000, /* a long lease is no reason to share out late */
    FORGOTTEN_MS = 10000,
    OUTLAST_MS_MAX = 10,
};

/* ---- steps on the writer's thread ---- */

struct step {
    struct writer_job job;
    struct node *n;
    int (*run)(struct node *n, struct store *s, void *arg);
    void (*done)(struct node *n, void *arg);
    void *arg;
    pthread_mutex_t lock;
    pthread_cond_t over;
    bool is_over;
    int result;
};

static int run_step(struct writer_job *job, struct store *s) {
    struct step *step = (struct step *)job;
    return step->run ? step->run(step->n, s, step->arg) : 0;
}

static void step_done(struct writer_job *job, int result) {
    struct step *step = (struct step *)job;
    if (result >= 0 && step->done)
        step->done(step->n, step->arg);
    pthread_mutex_lock(&step->lock);
    step->result = result;
    step->is_over = true;
    pthread_cond_signal(&step->over);
    pthread_mutex_unlock(&step->lock);
}

int node_write(struct node *n, int (*run)(struct node *n, struct store *s, void *arg),
               void (*done)(struct node *n, void *arg), void *arg) {
    struct step step = {.job = {.run = run_step, .done = step_done},
                        .n = n,
                        .run = run,
                        .done = done,
                        .arg = arg,
                        .lock = PTHREAD_MUTEX_INITIALIZER,
                        .over = PTHREAD_COND_INITIALIZER};
    writer_submit_internal(n->parts.writer, &step.job);
    pthread_mutex_lock(&step.lock);
    while (!step.is_over)
        pthread_cond_wait(&step.over, &step.lock);
    pthread_mutex_unlock(&step.lock);
    return step.result;
}

/* ---- the thread ---- */

void node_wake(struct node *n) {
    (void)!eventfd_write(n->wake_fd, 1);
}

void node_talk(struct node *n, int timeout_ms) {
    bool changed = false;
    eventfd_t ignored;
    notices_tell(n);
    int r = store_feed_wait(n->feed, n->wake_fd, timeout_ms, notices_hear, n, &changed);
    (void)!eventfd_read(n->wake_fd, &ignored);
    if (changed)
        n->changes_at_us = 0;
    if (r < 0) /* it is made anew by the next call; what was missed is found by looking */
        n->look_at_us = n->due_at_us = 0;
}

/* true, and the time of the next one, when it is time. */
static bool is_time(int64_t *at_us, int64_t every_ms) {
    int64_t now_us = clock_mono_us();
    if (now_us < *at_us)
        return false;
    *at_us = now_us + every_ms * 1000;
    return true;
}

static void look_for_jobs(struct node *n, void *arg) {
    (void)arg;
    if (n->parts.pump) {
        fanout_look_for_jobs(n->parts.fanout);
        pump_kick(n->parts.pump);
    }
    if (n->parts.replayer)
        replayer_kick(n->parts.replayer);
}

static int64_t look_every_ms(const struct node *n) {
    int64_t ms = n->me.lease_ms / LOOKS_A_LEASE;
    return ms < LOOK_EVERY_MS_MAX ? ms : LOOK_EVERY_MS_MAX;
}

static void turn(struct node *n) {
    if (is_time(&n->look_at_us, look_every_ms(n)))
        membership_look(n);
    if (is_time(&n->changes_at_us, CHANGES_EVERY_MS))
        changes_apply(n);
    if (is_time(&n->due_at_us, DUE_EVERY_MS))
        placing_look_due(n);
    if (n->inherited_n && is_time(&n->inherited_at_us, INHERITED_EVERY_MS))
        placing_check_inherited(n);
    if ((n->parts.pump || n->parts.replayer) && is_time(&n->jobs_at_us, JOBS_EVERY_MS))
        (void)!node_write(n, NULL, look_for_jobs, NULL);
    if (is_time(&n->waits_at_us, WAITS_EVERY_MS))
        deletions_run(n);
    if (tiers_pending(n) && is_time(&n->tiers_at_us, TIERS_EVERY_MS))
        tiers_run(n);
    if (quotas_pending(n) && is_time(&n->quotas_at_us, QUOTAS_EVERY_MS))
        quotas_run(n);
}

static int64_t earliest(const struct node *n) {
    int64_t at_us = n->look_at_us < n->changes_at_us ? n->look_at_us : n->changes_at_us;
    if (n->due_at_us < at_us)
        at_us = n->due_at_us;
    if (n->inherited_n && n->inherited_at_us < at_us)
        at_us = n->inherited_at_us;
    if (tiers_pending(n) && n->tiers_at_us < at_us)
        at_us = n->tiers_at_us;
    if (quotas_pending(n) && n->quotas_at_us < at_us)
        at_us = n->quotas_at_us;
    return n->waits_at_us < at_us ? n->waits_at_us : at_us;
}

static void *node_main(void *arg) {
    struct node *n = arg;
    pthread_setname_np(pthread_self(), "node");
    while (!atomic_load(&n->leaving)) {
        turn(n);
        int64_t in_ms = (earliest(n) - clock_mono_us()) / 1000 + 1;
        node_talk(n, in_ms < 0 ? 0 : in_ms > TURN_MS_MAX ? TURN_MS_MAX : (int)in_ms);
    }
    membership_leave(n);
    deletions_give_up(n);
    sem_post(&n->left);
    while (!atomic_load(&n->ending))
        node_talk(n, TURN_MS_MAX);
    notices_tell(n);
    return NULL;
}

/* ---- heartbeats and commits ---- */

static int run_heartbeat(struct writer_job *job, struct store *s) {
    struct node *n = (struct node *)((char *)job - offsetof(struct node, heartbeat_job));
    return store_heartbeat(s, atomic_load(&n->applied));
}

static void heartbeat_done(struct writer_job *job, int result) {
    struct node *n = (struct node *)((char *)job - offsetof(struct node, heartbeat_job));
    (void)result; /* the writer has logged it */
    atomic_store(&n->beating, false);
}

void node_heartbeat(struct node *n) {
    int64_t left_us = atomic_load(store_send_until(n->store)) - clock_mono_us();
    metrics_gauge_set(n->parts.metrics, METRIC_NODE_LEASE_MS, left_us > 0 ? left_us / 1000 : 0);
    if (!atomic_exchange(&n->beating, true))
        writer_submit_internal(n->parts.writer, &n->heartbeat_job);
}

/* Whoever is answered and then asks another node is to get a greater id there, whatever their clocks differ
 * by: the answer waits until no clock can show the time of its ids any more. A commit that waits for a disk
 * has taken longer than that. */
static void outlast_clocks(struct node *n) {
    uint64_t newest = fanout_newest(n->parts.fanout);
    int64_t until_ms = (int64_t)(newest >> 12) + 1 + atomic_load(&n->clock_error_us) / 1000 + 1;
    int64_t end_us = clock_mono_us() + OUTLAST_MS_MAX * 1000;
    const struct timespec pause = {.tv_nsec = 100000};
    while (newest && clock_now_ms() < until_ms && clock_mono_us() < end_us)
        nanosleep(&pause, NULL);
}

void node_committed(struct node *n) {
    outlast_clocks(n);
    if (!fanout_made_job(n->parts.fanout))
        return;
    pthread_mutex_lock(&n->lock);
    n->jobs_made = true;
    pthread_mutex_unlock(&n->lock);
    node_wake(n);
}

static enum tenant_tier tier_of(void *arg, uint32_t subscription_no) {
    struct node *n = arg;
    const struct subscription *s = fanout_subscription(n->parts.fanout, subscription_no);
    return s ? s->tier : TIER_STANDARD;
}

bool node_reaps(struct node *n, uint32_t subscription_no, int64_t lease_until, int64_t now) {
    return now - lease_until > FORGOTTEN_MS ||
           ownership_of(&n->ownership, tier_of(n, subscription_no), subscription_no) == PARTITION_OWN;
}

/* ---- life ---- */

int node_new(struct store *s, const struct node_setup *setup, struct node **ret) {
    struct node *n = calloc(1, sizeof *n);
    size_t known = 0;
    if (!n)
        return -ENOMEM;
    n->store = s;
    n->me = *setup;
    n->heartbeat_job = (struct writer_job){.run = run_heartbeat, .done = heartbeat_done};
    pthread_mutex_init(&n->lock, NULL);
    sem_init(&n->left, 0, 0);
    n->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int r = n->wake_fd < 0 ? -errno : store_feed_open(s, &n->feed);
    if (r == 0)
        r = store_reader_open(s, &n->reader);
    if (r == 0)
        r = store_feed_changes(n->feed, n->changes, &known, &n->position);
    if (r == 0)
        r = store_feed_view(n->feed, &n->view);
    if (r < 0) {
        node_free(n);
        return r;
    }
    clock_set_offset(n->view.clock_offset_us);
    atomic_init(&n->clock_error_us, n->view.clock_error_us);
    *ret = n;
    return 0;
}

void node_dispatch(struct node *n, struct dispatch_node *ret) {
    *ret = (struct dispatch_node){.ownership = &n->ownership,
                                  .send_until_us = store_send_until(n->store),
                                  .tier_of = tier_of,
                                  .holds_back = tiers_hold,
                                  .elsewhere = notices_elsewhere,
                                  .arg = n};
}

struct apply_walks *node_walks(struct node *n) {
    return &n->walks;
}

void node_tenant_changed(struct node *n) {
    shares_set(n);
}

int node_start(struct node *n, const struct node_parts *parts) {
    n->parts = *parts;
    store_feed_applied(n->store, &n->position);
    int r = -pthread_create(&n->thread, NULL, node_main, n);
    n->started = r == 0;
    return r;
}

void node_leave(struct node *n) {
    if (!n->started)
        return;
    atomic_store(&n->leaving, true);
    node_wake(n);
    while (sem_wait(&n->left) < 0)
        ;
}

void node_end(struct node *n) {
    if (!n->started)
        return;
    atomic_store(&n->ending, true);
    node_wake(n);
    pthread_join(n->thread, NULL);
    n->started = false;
}

void node_free(struct node *n) {
    if (!n)
        return;
    quotas_clear(n);
    store_reader_close(n->reader);
    store_feed_close(n->feed);
    if (n->wake_fd >= 0)
        close(n->wake_fd);
    while (n->waits) {
        struct stop_wait *w = n->waits;
        n->waits = w->next;
        free(w);
    }
    while (n->stopping) {
        struct stopping *s = n->stopping;
        n->stopping = s->next;
        free(s);
    }
    pthread_mutex_destroy(&n->lock);
    sem_destroy(&n->left);
    free(n->stopped);
    free(n->inherited);
    free(n);
}
