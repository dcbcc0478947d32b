#include "cli/housekeeper.h"

#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <sys/signalfd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/loop.h"
#include "store/cluster.h"

enum {
    REAP_EVERY_MS = 1000,
    LEASE_GRACE_MS = 1000, /* the settle of an attempt that ended in time may still wait for its commit */
    RETAIN_EVERY_MS = 60000,
    RETAIN_PAUSES = 3, /* between steps the writer serves others, so many times as long as the step took */
    RETAIN_PAUSE_MS_MIN = 2,
    SEEN_EVERY_MS = 3600000, /* so often the store is told that this worker lives */
    HOUSE_EVERY_MS = 5000,   /* the store's own work */
    LOG_EVERY_MS = 5000,     /* from one round's beginning to the next's */
    LOG_STEP_PAUSE_MS = 5,   /* between steps the writer serves others */
    LOG_AGE_MS = 1000,       /* of an event that is taken into them: by then its own transaction has ended */
    LOG_ROUND_MS = 2500,     /* then its steps become longer */
    LOG_WORK_MIN = 250,      /* of a step; the writer serves nobody meanwhile: some 0.2 ms */
    LOG_WORK_MAX = 16000,
    REPLAY_EVERY_MS = 100,  /* for those that wait for their pace */
    COUNT_EVERY_MS = 15000, /* gauges that drift (replays, retention, order) are set right */
    TRIM_AFTER_MS = 2000,   /* by then what only the start has needed is free */
    BEATS_A_LEASE = 5,
    COUNT_RESTS = 100, /* times as long as it took: a hundredth of a core at most */
};

/* The logs by subscription and type up to some moment, in steps that are as short as it can be done with. */
struct log_round {
    int64_t began_us, slow_us; /* when its steps are made longer next */
    uint64_t upto_key;
    unsigned work;
};

struct housekeeper {
    struct housekeeper_options o;
    struct loop *loop;
    struct loop_watch signals;
    int signal_caught;
    struct loop_timer reap_timer, retain_timer, log_timer, count_timer, replay_timer, trim_timer, house_timer,
        beat_timer;
    struct writer_job reap_job, retain_job, log_job;
    struct loop_message reaped, retained, logged;
    bool reaping, retaining, logging;
    bool reap_more, retain_more, log_more;
    struct retention_sweep sweep;
    int64_t seen_at;        /* when the store was last told that this worker lives */
    int64_t retain_step_us; /* what the last step took of the writer's time */
    struct log_round log_round;
    atomic_bool on_duty; /* of nodes on one store, this one does what one must */
    int64_t kept_since;  /* the sweep's, as of its last step */
};

void housekeeper_block_signals(void) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
}

static void end_when_idle(struct housekeeper *h) {
    if (h->signal_caught && !h->reaping && !h->retaining && !h->logging)
        loop_stop(h->loop);
}

static void on_signal(struct loop_watch *w, uint32_t events) {
    (void)events;
    struct housekeeper *h = (struct housekeeper *)((char *)w - offsetof(struct housekeeper, signals));
    struct signalfd_siginfo info;
    if (read(w->fd, &info, sizeof info) != sizeof info)
        return;
    if (info.ssi_signo == SIGHUP && h->o.reload) {
        h->o.reload(h->o.arg);
        return;
    }
    h->signal_caught = (int)info.ssi_signo;
    loop_timer_clear(h->loop, &h->reap_timer);
    loop_timer_clear(h->loop, &h->retain_timer);
    loop_timer_clear(h->loop, &h->log_timer);
    loop_timer_clear(h->loop, &h->count_timer);
    loop_timer_clear(h->loop, &h->replay_timer);
    loop_timer_clear(h->loop, &h->trim_timer);
    loop_timer_clear(h->loop, &h->house_timer);
    loop_timer_clear(h->loop, &h->beat_timer);
    end_when_idle(h);
}

static void in_ms(struct housekeeper *h, struct loop_timer *t, int64_t ms) {
    if (!h->signal_caught)
        loop_timer_set(h->loop, t, clock_mono_us() + ms * 1000);
}

/* ---- the reaper ---- */

static int run_reaper(struct writer_job *job, struct store *s) {
    struct housekeeper *h = (struct housekeeper *)((char *)job - offsetof(struct housekeeper, reap_job));
    int64_t now = clock_now_ms();
    return reaper_run(h->o.reaper, s, now - LEASE_GRACE_MS, now, &h->reap_more);
}

static void reaper_done(struct writer_job *job, int result) {
    struct housekeeper *h = (struct housekeeper *)((char *)job - offsetof(struct housekeeper, reap_job));
    if (result == 0)
        reaper_announce(h->o.reaper);
    else
        h->reap_more = false;
    loop_post(h->loop, &h->reaped);
}

static void start_reaper(struct loop_timer *t) {
    struct housekeeper *h = (struct housekeeper *)((char *)t - offsetof(struct housekeeper, reap_timer));
    h->reaping = true;
    writer_submit_internal(h->o.writer, &h->reap_job);
}

static void reaper_returned(struct loop_message *m) {
    struct housekeeper *h = (struct housekeeper *)((char *)m - offsetof(struct housekeeper, reaped));
    h->reaping = false;
    in_ms(h, &h->reap_timer, h->reap_more ? 0 : REAP_EVERY_MS);
    end_when_idle(h);
}

/* ---- retention ---- */

static int run_retention(struct writer_job *job, struct store *s) {
    struct housekeeper *h = (struct housekeeper *)((char *)job - offsetof(struct housekeeper, retain_job));
    int64_t began_us = clock_mono_us(), now = clock_now_ms();
    bool ours = true;
    int r = 0;
    if (now - h->seen_at >= SEEN_EVERY_MS && (r = store_see_worker(s, h->o.worker_no, now)) == 0)
        h->seen_at = now;
    if (r == 0)
        r = store_try_duty(s, DUTY_HOUSEKEEPING, &ours);
    atomic_store(&h->on_duty, r == 0 && ours);
    h->retain_more = false;
    if (r == 0 && ours)
        r = retention_step(&h->sweep, s, now, &h->retain_more);
    h->retain_step_us = clock_mono_us() - began_us;
    return r;
}

static void retention_done(struct writer_job *job, int result) {
    struct housekeeper *h = (struct housekeeper *)((char *)job - offsetof(struct housekeeper, retain_job));
    if (result < 0)
        h->retain_more = false;
    loop_post(h->loop, &h->retained);
}

static void start_retention(struct loop_timer *t) {
    struct housekeeper *h = (struct housekeeper *)((char *)t - offsetof(struct housekeeper, retain_timer));
    h->retaining = true;
    writer_submit_internal(h->o.writer, &h->retain_job);
}

static void retention_returned(struct loop_message *m) {
    struct housekeeper *h = (struct housekeeper *)((char *)m - offsetof(struct housekeeper, retained));
    h->retaining = false;
    h->kept_since = h->sweep.kept_since;
    int64_t pause_ms = RETAIN_PAUSE_MS_MIN + RETAIN_PAUSES * h->retain_step_us / 1000;
    in_ms(h, &h->retain_timer, h->retain_more ? pause_ms : RETAIN_EVERY_MS);
    end_when_idle(h);
}

/* ---- the logs by subscription and by type ---- */

static int run_log(struct writer_job *job, struct store *s) {
    struct housekeeper *h = (struct housekeeper *)((char *)job - offsetof(struct housekeeper, log_job));
    return store_extend_log(s, h->log_round.upto_key, h->log_round.work, &h->log_more);
}

static void log_done(struct writer_job *job, int result) {
    struct housekeeper *h = (struct housekeeper *)((char *)job - offsetof(struct housekeeper, log_job));
    if (result < 0)
        h->log_more = false;
    loop_post(h->loop, &h->logged);
}

/* A round's end is fixed: with one that moves on, each step would find a few more, and dirty a page for each.
 */
static void begin_log_round(struct log_round *round) {
    round->began_us = clock_mono_us();
    round->slow_us = round->began_us + LOG_ROUND_MS * 1000;
    round->upto_key = id_key_at(clock_now_ms() - LOG_AGE_MS);
}

static void start_log(struct loop_timer *t) {
    struct housekeeper *h = (struct housekeeper *)((char *)t - offsetof(struct housekeeper, log_timer));
    if (!h->log_more)
        begin_log_round(&h->log_round);
    h->logging = true;
    writer_submit_internal(h->o.writer, &h->log_job);
}

static void pace_log(struct log_round *round, bool more) {
    int64_t now = clock_mono_us();
    if (more && now > round->slow_us && round->work < LOG_WORK_MAX) {
        round->work *= 2;
        round->slow_us = now + LOG_ROUND_MS * 1000;
    }
    if (!more && now < round->began_us + LOG_ROUND_MS * 1000 / 2 && round->work > LOG_WORK_MIN)
        round->work /= 2;
}

static void log_returned(struct loop_message *m) {
    struct housekeeper *h = (struct housekeeper *)((char *)m - offsetof(struct housekeeper, logged));
    h->logging = false;
    pace_log(&h->log_round, h->log_more);
    int64_t rest_ms = LOG_EVERY_MS - (clock_mono_us() - h->log_round.began_us) / 1000;
    in_ms(h, &h->log_timer, h->log_more || rest_ms < LOG_STEP_PAUSE_MS ? LOG_STEP_PAUSE_MS : rest_ms);
    end_when_idle(h);
}

/* ---- gauges ---- */

static void count_deliveries(struct loop_timer *t) {
    struct housekeeper *h = (struct housekeeper *)((char *)t - offsetof(struct housekeeper, count_timer));
    uint64_t pending, dlq;
    int64_t began_us = clock_mono_us();
    bool ours = atomic_load(&h->on_duty); /* the sum over all nodes is the store's */
    if (!ours)
        pending = dlq = 0;
    if (!ours || store_count_deliveries(h->o.reader, &pending, &dlq) == 0) {
        metrics_gauge_set(h->o.metrics, METRIC_DELIVERIES_PENDING, (int64_t)pending);
        metrics_gauge_set(h->o.metrics, METRIC_DLQ_SIZE, (int64_t)dlq);
    }
    /* All that is open or dead is counted one by one, some 20 ms a million. */
    int64_t rest_ms = (clock_mono_us() - began_us) / 1000 * COUNT_RESTS;
    in_ms(h, &h->count_timer, rest_ms > COUNT_EVERY_MS ? rest_ms : COUNT_EVERY_MS);
}

/* ---- the store's own ---- */

static void keep_house(struct loop_timer *t) {
    struct housekeeper *h = (struct housekeeper *)((char *)t - offsetof(struct housekeeper, house_timer));
    (void)!store_keep_house(h->o.reader, clock_now_ms(), h->kept_since); /* it logs, and comes again */
    in_ms(h, &h->house_timer, HOUSE_EVERY_MS);
}

/* ---- memory ---- */

/* The allocator keeps what comes free between pieces that stay: with a million subscriptions that is much. */
static void trim_memory(struct loop_timer *t) {
    (void)t;
    malloc_trim(0);
}

/* ---- the node's lease ---- */

static void beat(struct loop_timer *t) {
    struct housekeeper *h = (struct housekeeper *)((char *)t - offsetof(struct housekeeper, beat_timer));
    node_heartbeat(h->o.node);
    in_ms(h, &h->beat_timer, h->o.lease_ms / BEATS_A_LEASE);
}

/* ---- bulk replays ---- */

static void tick_replays(struct loop_timer *t) {
    struct housekeeper *h = (struct housekeeper *)((char *)t - offsetof(struct housekeeper, replay_timer));
    replayer_tick(h->o.replayer);
    in_ms(h, &h->replay_timer, REPLAY_EVERY_MS);
}

/* ---- life ---- */

static int watch_signals(struct housekeeper *h) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (fd < 0)
        return -errno;
    int r = loop_watch_set(h->loop, &h->signals, fd, EPOLLIN);
    if (r < 0)
        close(fd);
    return r;
}

int housekeeper_run(const struct housekeeper_options *o) {
    struct housekeeper h = {
        .o = *o,
        .signals = {.fn = on_signal, .fd = -1},
        .reap_timer = {.fn = start_reaper},
        .retain_timer = {.fn = start_retention},
        .on_duty = !store_is_shared(o->store),
        .sweep = {.policy = o->retention},
        .seen_at = clock_now_ms(), /* it has just registered */
        .reap_job = {.run = run_reaper, .done = reaper_done},
        .retain_job = {.run = run_retention, .done = retention_done},
        .reaped = {.fn = reaper_returned},
        .retained = {.fn = retention_returned},
        .log_timer = {.fn = start_log},
        .count_timer = {.fn = count_deliveries},
        .replay_timer = {.fn = tick_replays},
        .trim_timer = {.fn = trim_memory},
        .house_timer = {.fn = keep_house},
        .beat_timer = {.fn = beat},
        .log_job = {.run = run_log, .done = log_done},
        .log_round = {.work = LOG_WORK_MIN},
        .logged = {.fn = log_returned},
    };
    int r = loop_new(&h.loop);
    if (r == 0)
        r = watch_signals(&h);
    if (r == 0) {
        in_ms(&h, &h.reap_timer, REAP_EVERY_MS);
        in_ms(&h, &h.retain_timer, RETAIN_EVERY_MS);
        in_ms(&h, &h.log_timer, LOG_EVERY_MS);
        in_ms(&h, &h.count_timer, COUNT_EVERY_MS);
        in_ms(&h, &h.replay_timer, REPLAY_EVERY_MS);
        in_ms(&h, &h.trim_timer, TRIM_AFTER_MS);
        in_ms(&h, &h.house_timer, HOUSE_EVERY_MS);
        if (o->node)
            beat(&h.beat_timer);
        loop_run(h.loop, NULL, NULL);
        close(h.signals.fd);
    }
    loop_free(h.loop);
    return r < 0 ? r : h.signal_caught;
}
