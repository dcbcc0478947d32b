#include "fanout/replayer.h"

#include <errno.h>

#include "base/clock.h"
#include "base/random.h"
#include "core/log_id.h"

enum {
    JOBS_A_STEP = 16,
    STARTED_A_STEP = 500,
    CANCELLED_A_STEP = 500,
    PACE_BURST_US = 1000000, /* a replay that fell behind its pace catches up a second at most */
};

/* What one step did, told to others after its commit. */
struct step {
    struct lane_notice notices[CANCELLED_A_STEP];
    size_t notices_n;
    struct replay_candidate found[STARTED_A_STEP];
    struct expired_task moved[CANCELLED_A_STEP];
    size_t moved_n;
    size_t started;
    bool progress; /* there is more to do at once */
    bool idle;     /* no replay has work left */
};

struct replayer {
    struct replayer_options o;
    struct writer_job job;
    atomic_bool running, stopping;
    atomic_bool has_work; /* at start there may be some */
    uint64_t last_served; /* the replay that had its turn last */
    bool again;           /* kicked while running; the writer's thread alone */
    bool recovering;      /* a transaction has asked for an automatic one */
    struct rng rng;
    struct step step;
};

/* ---- one replay's turn ---- */

/* A turn within a transaction. */
struct turn_context {
    struct replayer *r;
    struct store *s;
    struct replay_record *job;
    char source[ID_TEXT_SIZE], requested_by[ID_TEXT_SIZE];
    int64_t now;
    unsigned budget; /* rows to look at */
    size_t allowed;  /* deliveries to start */
    bool progress;
};

static void note(struct step *step, uint32_t subscription_no, int64_t due_at) {
    if (step->notices_n && step->notices[step->notices_n - 1].subscription_no == subscription_no)
        return;
    CHECK(step->notices_n < CANCELLED_A_STEP);
    step->notices[step->notices_n++] = (struct lane_notice){subscription_no, due_at};
}

/* How many the pace lets start now. */
static size_t pace_allows(const struct replay_record *job, int64_t now_us) {
    if (!job->per_second)
        return STARTED_A_STEP;
    int64_t from = job->paid_until > now_us - PACE_BURST_US ? job->paid_until : now_us - PACE_BURST_US;
    int64_t n = (now_us - from) * job->per_second / 1000000;
    return n <= 0 ? 0 : n > STARTED_A_STEP ? STARTED_A_STEP : (size_t)n;
}

static void pay(struct replay_record *job, int64_t now_us, size_t n) {
    if (!job->per_second || !n)
        return;
    if (job->paid_until < now_us - PACE_BURST_US)
        job->paid_until = now_us - PACE_BURST_US;
    job->paid_until += (int64_t)n * 1000000 / job->per_second;
}

/* 1 when it was started. What is open or gone meanwhile is passed over. */
static int start_one(struct turn_context *t, uint32_t subscription_no, const struct replay_candidate *d) {
    struct slice source = slice_of(t->source), by = slice_of(t->requested_by);
    int r = d->missing ? store_replay_missing(t->s, d->event_key, subscription_no, t->job->filter.tenant_no,
                                              d->lane_key, t->now, source, by)
                       : store_replay(t->s, d->event_key, subscription_no, t->job->filter.tenant_no,
                                      d->lane_key, t->now, source, by);
    if (r == 0)
        return 1;
    return r == -EBUSY || r == -EEXIST || r == -ENOENT || r == -ESTALE ? 0 : r;
}

static int start_found(struct turn_context *t, struct replay_lane *l, size_t n) {
    for (size_t i = 0; i < n; i++) {
        int r = t->job->dry_run ? 1 : start_one(t, l->subscription_no, &t->r->step.found[i]);
        if (r < 0)
            return r;
        t->job->started += (unsigned)r;
        if (!r || t->job->dry_run)
            continue;
        l->outstanding++;
        t->allowed--;
        t->r->step.started++;
        note(&t->r->step, l->subscription_no, t->now);
    }
    return 0;
}

static uint32_t share_of(const struct replayer *r, const struct subscription *sub) {
    uint32_t share = (uint32_t)((uint64_t)sub->policy->max_in_flight * r->o.share_percent / 100);
    return share ? share : 1;
}

/* How many of a lane may be started now. */
static size_t lane_allows(const struct turn_context *t, const struct replay_lane *l) {
    size_t most = t->job->most - t->job->started,
           room = l->share > l->outstanding ? l->share - l->outstanding : 0;
    if (t->job->dry_run)
        room = STARTED_A_STEP;
    if (room > t->allowed)
        room = t->allowed;
    return room < most ? room : most;
}

static int serve_lane(struct turn_context *t, struct replay_lane *l) {
    uint64_t key = t->job->id.key;
    struct subscription *sub = fanout_subscription(t->r->o.fanout, l->subscription_no);
    if (!sub || t->job->started >= t->job->most) { /* deleted: it takes nothing any more */
        t->progress = true;
        return store_delete_replay_lane(t->s, key, l->subscription_no);
    }
    l->share = share_of(t->r, sub);
    struct replay_look look = {
        .cursor = l->cursor, .budget = t->budget, .found = t->r->step.found, .max = lane_allows(t, l)};
    int r = look.max ? store_find_replayable(t->s, &t->job->filter, sub, &look) : 0;
    if (r == 0)
        r = start_found(t, l, look.n);
    if (r < 0)
        return r;
    t->progress |= look.ended || look.n || look.budget < t->budget;
    t->budget = look.budget;
    l->cursor = look.cursor;
    t->job->served = l->subscription_no;
    return look.ended ? store_delete_replay_lane(t->s, key, l->subscription_no)
                      : store_update_replay_lane(t->s, key, l);
}

/* The lanes whose turn it is, round the circle. */
static int next_lanes(struct turn_context *t, struct replay_lane lanes[REPLAY_LANES_A_STEP], size_t *ret_n) {
    uint64_t key = t->job->id.key;
    int r = store_list_replay_lanes(t->s, key, t->job->served, lanes, REPLAY_LANES_A_STEP, ret_n);
    if (r == 0 && *ret_n == 0 && t->job->served)
        r = store_list_replay_lanes(t->s, key, 0, lanes, REPLAY_LANES_A_STEP, ret_n);
    return r;
}

static int serve_lanes(struct turn_context *t) {
    struct replay_lane lanes[REPLAY_LANES_A_STEP];
    size_t n;
    int r = next_lanes(t, lanes, &n);
    for (size_t i = 0; r == 0 && i < n && t->budget && t->allowed; i++)
        r = serve_lane(t, &lanes[i]);
    return r;
}

/* Everything was looked at: what was started has only to end. */
static int all_found(struct turn_context *t) {
    struct replay_record *job = t->job;
    job->state = job->dry_run || job->done + job->failed >= job->started ? REPLAY_DONE : REPLAY_SENDING;
    t->progress = true;
    if (job->started == 0 && strcmp(t->requested_by, REPLAY_BY_SYSTEM) == 0)
        return store_delete_replay(t->s, job->id.key);
    log_info(job->dry_run ? "a bulk replay has counted all it would take"
                          : "a bulk replay has started all it found",
             log_str("replay", t->source), log_int("deliveries", (int64_t)job->started));
    return store_update_replay(t->s, job);
}

static int advance(struct turn_context *t) {
    struct replay_record *job = t->job;
    int64_t now_us = t->now * 1000;
    uint64_t started = job->started;
    bool lanes_left = true;
    int r = 0;
    t->allowed = job->dry_run ? STARTED_A_STEP : pace_allows(job, now_us);
    if (!t->allowed)
        return 0;
    if (job->opened != UINT32_MAX) {
        r = store_open_replay_lanes(t->s, job, REPLAY_LANES_A_STEP);
        t->progress = true;
    }
    if (r == 0)
        r = serve_lanes(t);
    if (r == 0 && job->opened == UINT32_MAX)
        r = store_has_replay_lanes(t->s, job->id.key, &lanes_left);
    if (r < 0)
        return r;
    if (!lanes_left)
        return all_found(t);
    if (!t->progress)
        return 0;
    if (!job->dry_run)
        pay(job, now_us, (size_t)(job->started - started));
    return store_update_replay(t->s, job);
}

static int cancel(struct turn_context *t) {
    struct step *step = &t->r->step;
    size_t n = 0;
    bool ended = false;
    int r = store_cancel_replay_step(t->s, t->job, t->now, CANCELLED_A_STEP, step->moved, &n, &ended);
    if (r < 0)
        return r;
    step->moved_n = n;
    /* What stood behind them in an ordered lane is due now. */
    for (size_t i = 0; i < n; i++)
        note(step, step->moved[i].subscription_no, t->now);
    t->progress = true;
    if (ended)
        log_info("a bulk replay was cancelled", log_str("replay", t->source));
    return 0;
}

/* Copies what of the row lives only until the next call. */
static void keep_texts(struct turn_context *t, struct buf *event_type) {
    struct replay_record *job = t->job;
    id_format(ID_REPLAY, job->id, t->source);
    size_t n = job->requested_by.n < ID_TEXT_SIZE ? job->requested_by.n : ID_TEXT_SIZE - 1;
    memcpy(t->requested_by, job->requested_by.p, n);
    t->requested_by[n] = '\0';
    if (!job->filter.event_type.p)
        return;
    buf_add_slice(event_type, job->filter.event_type);
    job->filter.event_type = buf_slice(event_type);
}

/* 1: it made progress; 0: it waits; -ENOENT: no replay is left. */
static int serve_next(struct replayer *r, struct store *s, int64_t now) {
    struct replay_record job;
    _cleanup_buf_ struct buf event_type = {0};
    struct turn_context t = {.r = r, .s = s, .job = &job, .now = now, .budget = REPLAY_ROWS_A_STEP};
    int e = store_next_replay(s, r->last_served, &job);
    if (e == -ENOENT && r->last_served)
        e = store_next_replay(s, 0, &job);
    if (e < 0)
        return e;
    r->last_served = job.id.key;
    keep_texts(&t, &event_type);
    if (!buf_ok(&event_type))
        return -ENOMEM;
    e = job.state == REPLAY_CANCELLING ? cancel(&t) : advance(&t);
    return e < 0 ? e : t.progress;
}

/* ---- steps ---- */

static int run_step(struct writer_job *writer_job, struct store *s) {
    struct replayer *r = (struct replayer *)((char *)writer_job - offsetof(struct replayer, job));
    struct step *step = &r->step;
    int64_t now = clock_now_ms();
    uint64_t first = 0;
    step->notices_n = step->moved_n = step->started = 0;
    step->progress = step->idle = false;
    r->again = false;
    for (int i = 0; i < JOBS_A_STEP; i++) {
        int e = serve_next(r, s, now);
        if (e == -ENOENT) {
            step->idle = true;
            return 0;
        }
        if (e < 0)
            return e;
        if (e > 0) {
            step->progress = true;
            return 0;
        }
        if (r->last_served == first)
            return 0;
        if (!first)
            first = r->last_served;
    }
    step->progress = true; /* not yet round the circle */
    return 0;
}

static void announce(struct replayer *r) {
    const struct step *step = &r->step;
    metrics_gauge_add(r->o.metrics, METRIC_DELIVERIES_PENDING, (int64_t)step->started);
    for (size_t i = 0; i < step->moved_n; i++)
        metrics_delivery_closed(r->o.metrics, DELIVERY_DLQ, REASON_REPLAY_CANCELLED);
    if (step->notices_n && dispatch_notify(r->o.dispatch, step->notices, step->notices_n) < 0)
        log_error("lanes could not be told of replays; they are found at the next look");
}

static void submit(struct replayer *r) {
    if (atomic_load(&r->stopping) || !atomic_load(&r->has_work) || atomic_exchange(&r->running, true))
        return;
    writer_submit_internal(r->o.writer, &r->job);
}

static void step_done(struct writer_job *job, int result) {
    struct replayer *r = (struct replayer *)((char *)job - offsetof(struct replayer, job));
    if (result < 0)
        log_error("a bulk replay could not go on; it is tried again", log_str("error", strerror(-result)));
    else
        announce(r);
    bool again = result == 0 && (r->step.progress || r->again);
    if (result == 0 && r->step.idle && !r->again)
        atomic_store(&r->has_work, false);
    atomic_store(&r->running, false);
    if (again)
        submit(r);
}

void replayer_kick(struct replayer *r) {
    r->again = true;
    atomic_store(&r->has_work, true);
    submit(r);
}

void replayer_committed(struct replayer *r, struct store *s) {
    bool progress = store_take_replay_progress(s) && atomic_load(&r->has_work);
    if (progress || r->recovering)
        replayer_kick(r);
    r->recovering = false;
}

void replayer_tick(struct replayer *r) {
    submit(r);
}

void replayer_stop(struct replayer *r) {
    atomic_store(&r->stopping, true);
}

int replayer_new(const struct replayer_options *o, struct replayer **ret) {
    CHECK(o->share_percent >= 1 && o->share_percent <= 100);
    struct replayer *r = calloc(1, sizeof *r);
    if (!r)
        return -ENOMEM;
    r->o = *o;
    r->job = (struct writer_job){.run = run_step, .done = step_done};
    atomic_init(&r->has_work, true);
    rng_seed_from_system(&r->rng);
    *ret = r;
    return 0;
}

void replayer_free(struct replayer *r) {
    free(r);
}

/* ---- recovery ---- */

int replayer_recover(struct replayer *r, struct store *s, const struct subscription *sub, int64_t now) {
    int64_t last_at;
    bool waiting;
    if (!sub->policy->replay_on_recovery)
        return 0;
    int e = store_last_recovery(s, sub->no, &last_at, &waiting);
    if (e < 0 || waiting)
        return e;
    uint64_t key = id_source_take(r->o.ids, now, 1);
    struct replay_record record = {
        .id = {.key = key, .tail = rng_next(&r->rng) & ID_TAIL_MAX},
        .filter = {.tenant_no = sub->tenant_no,
                   .subscription_no = sub->no,
                   .states = 1U << DELIVERY_DLQ,
                   .reasons = 1U << REASON_ATTEMPTS_EXHAUSTED | 1U << REASON_WINDOW_EXPIRED,
                   .last_event = key,
                   .closed_after = last_at},
        .per_second = REPLAY_RECOVERY_PER_SECOND,
        .most = REPLAY_RECOVERY_MAX,
        .requested_by = SLICE_LIT(REPLAY_BY_SYSTEM),
    };
    e = store_insert_replay(s, &record, REPLAY_OPEN_MAX);
    r->recovering |= e == 0;
    if (e != -EDQUOT)
        return e;
    log_warn("a subscription has recovered, but its tenant has too many replays under way for one more",
             log_str("tenant", sub->tenant_id), log_id("subscription", ID_SUBSCRIPTION, sub->id));
    return 0;
}
