#include "fanout/fanout.h"

#include <errno.h>

#include "base/log.h"
#include "fanout/index.h"
#include "fanout/judge.h"
#include "store/cluster.h"

enum {
    JOBS_A_LOOK = 256,
    JOB_MIN = 16, /* a smaller fan-out is cheaper made at once than put off */
    /* What a chunk may cost in looking at subscriptions and at values of the payload for their filters. */
    CHUNK_STEPS_MAX = 100000,
};
#define SEQ_NONE UINT64_MAX

struct fanout {
    struct index *index;
    struct judge *judge;
    struct metrics *metrics;
    struct tracer *tracer; /* or NULL */
    struct span finished;  /* of the job that this transaction ended; id 0: none */
    uint64_t last_served;  /* event key of the job that had its turn last */
    uint64_t last_seq;     /* at least the greatest seq of the jobs not done */
    bool seq_known;        /* the store has been asked */
    bool shared;           /* others make jobs, too: the store is asked each time, and numbers them */
    bool has_jobs, made_job;
    uint64_t newest;     /* of the events' keys */
    bool jobs_counted;   /* those that a stop left behind, for the gauge */
    size_t made_at_once; /* with their events, since the last transaction */
    size_t made;         /* deliveries, since then */
    struct lane_notice *notices;
    size_t notices_n, notices_cap;
};

int fanout_new(struct metrics *m, struct fanout **ret) {
    struct fanout *f = calloc(1, sizeof *f);
    if (!f)
        return -ENOMEM;
    f->metrics = m;
    f->has_jobs = true; /* the store may hold some */
    int r = index_new(&f->index);
    if (r == 0)
        r = judge_new(&f->judge);
    if (r < 0) {
        fanout_free(f);
        return r;
    }
    *ret = f;
    return 0;
}

void fanout_free(struct fanout *f) {
    if (!f)
        return;
    index_free(f->index);
    judge_free(f->judge);
    free(f->notices);
    free(f);
}

void fanout_share(struct fanout *f) {
    f->shared = true;
}

void fanout_record(struct fanout *f, struct tracer *t) {
    f->tracer = t;
}

int fanout_put(struct fanout *f, struct subscription *s) {
    if (s->jobs_settled > f->last_seq) /* numbers after these must be greater, whatever jobs are gone */
        f->last_seq = s->jobs_settled;
    int r = judge_put(f->judge, s);
    return r < 0 ? r : index_put(f->index, s);
}

void fanout_remove(struct fanout *f, uint32_t subscription_no) {
    index_remove(f->index, subscription_no);
    judge_remove(f->judge, subscription_no);
}

struct subscription *fanout_subscription(struct fanout *f, uint32_t subscription_no) {
    return index_get(f->index, subscription_no);
}

bool fanout_wanted(const struct fanout *f, uint32_t tenant_no, struct slice type) {
    struct index_walk walk;
    index_match(f->index, tenant_no, type, 0, &walk);
    return index_walk_bound(&walk) > 0;
}

uint32_t fanout_upper(const struct fanout *f) {
    return index_upper(f->index);
}

bool fanout_has_jobs(const struct fanout *f) {
    return f->has_jobs;
}

uint64_t fanout_newest(struct fanout *f) {
    uint64_t newest = f->newest;
    f->newest = 0;
    return newest;
}

bool fanout_made_job(struct fanout *f) {
    bool made = f->made_job;
    f->made_job = false;
    return made;
}

void fanout_look_for_jobs(struct fanout *f) {
    f->has_jobs = true;
}

static int note(struct fanout *f, uint32_t subscription_no, int64_t due_at) {
    /* An event with many deliveries to one lane, or a batch, needs to be told once. */
    if (f->notices_n && f->notices[f->notices_n - 1].subscription_no == subscription_no &&
        f->notices[f->notices_n - 1].due_at <= due_at)
        return 0;
    if (f->notices_n == f->notices_cap) {
        size_t cap = f->notices_cap ? f->notices_cap * 2 : 1024;
        struct lane_notice *notices = realloc(f->notices, cap * sizeof *notices);
        if (!notices)
            return -ENOMEM;
        f->notices = notices;
        f->notices_cap = cap;
    }
    f->notices[f->notices_n++] = (struct lane_notice){subscription_no, due_at};
    return 0;
}

static int64_t order_of(const struct event_record *e) {
    int64_t created_at = id_ms(e->id);
    return e->deliver_at > created_at ? e->deliver_at : created_at;
}

/* The clock may have been set back since the event's id was taken, whose time only goes forward: then it is
 * due all the same. */
static int64_t due_of(const struct event_record *e, int64_t now) {
    int64_t order_at = order_of(e);
    return e->deliver_at < order_at && order_at > now ? now : order_at;
}

/* `fresh`: the event is made in this transaction. */
static struct new_delivery delivery_for(const struct event_record *e, const struct subscription *s, bool test,
                                        bool fresh, int64_t now) {
    return (struct new_delivery){
        .event_key = e->id.key,
        .subscription_no = s->no,
        .tenant_no = e->tenant_no,
        .lane_key = subscription_lane_key(s->ordering, e->ordering_key),
        .order_at = order_of(e),
        .due_at = due_of(e, now),
        .test = test,
        .fresh = fresh,
    };
}

static int insert(struct fanout *f, struct store *st, const struct new_delivery *d, size_t n,
                  uint32_t *deliveries) {
    size_t made;
    int r = n ? store_insert_deliveries(st, d, n, &made) : 0;
    if (r < 0 || n == 0)
        return r;
    for (size_t i = 0; i < n && r == 0; i++) {
        CHECK(!d[i].begun_at || made == n); /* it was new */
        r = d[i].begun_at ? 0 : note(f, d[i].subscription_no, d[i].due_at);
    }
    *deliveries += (uint32_t)made;
    f->made += made;
    return r;
}

/* Begun, if it may be. */
static struct new_delivery begin(struct dispatch *d, struct new_delivery n, int64_t now) {
    if (d && dispatch_begin(d, &n, now, &n.lease_until))
        n.begun_at = now;
    return n;
}

/* What a subscription matches has changed since this job was accepted: it has had its part. */
static bool has_had(const struct subscription *s, uint64_t seq) {
    return s->jobs_settled && s->jobs_settled >= seq;
}

/* Makes deliveries for up to FANOUT_CHUNK subscriptions up to number `upper`; *cursor moves to the last one
 * looked at, or to `upper` when all are done. `seq` is the job's, SEQ_NONE for an event without one. */
static int expand_chunk(struct fanout *f, struct store *st, const struct event_record *e, uint64_t seq,
                        int64_t now, uint32_t *cursor, uint32_t upper, struct dispatch *d,
                        uint32_t *deliveries) {
    struct new_delivery chunk[FANOUT_CHUNK];
    size_t n = 0;
    uint64_t steps = 0;
    struct index_walk walk;
    index_match(f->index, e->tenant_no, e->type, *cursor, &walk);
    for (;; steps++) {
        const struct subscription *s = index_walk_next(&walk);
        if (!s || s->no > upper) {
            *cursor = upper;
            break;
        }
        if (n == FANOUT_CHUNK || steps >= CHUNK_STEPS_MAX)
            break;
        int wanted = has_had(s, seq) ? 0 : judge_wants(f->judge, s->no, e, &steps);
        if (wanted < 0)
            return wanted;
        if (wanted)
            chunk[n++] = begin(d, delivery_for(e, s, false, seq == SEQ_NONE, now), now);
        *cursor = s->no;
    }
    return insert(f, st, chunk, n, deliveries);
}

static int know_seq(struct fanout *f, struct store *st) {
    uint64_t stored = 0;
    int r = f->seq_known ? 0 : store_last_job(st, &stored);
    if (r < 0)
        return r;
    f->seq_known = !f->shared;
    if (stored > f->last_seq)
        f->last_seq = stored;
    return 0;
}

static int start_job(struct fanout *f, struct store *st, struct event_record *e, uint32_t cursor) {
    int r = f->shared ? 0 : know_seq(f, st);
    if (r < 0)
        return r;
    struct fanout_job job = {.event_key = e->id.key,
                             .seq = f->shared ? 0 : ++f->last_seq,
                             .tenant_no = e->tenant_no,
                             .cursor = cursor,
                             .upper = index_upper(f->index),
                             .state = FANOUT_PENDING};
    e->has_job = true;
    f->has_jobs = f->made_job = true;
    metrics_gauge_add(f->metrics, METRIC_FANOUT_JOBS_PENDING, 1);
    return store_insert_job(st, &job);
}

int fanout_event(struct fanout *f, struct store *st, struct event_record *e, uint32_t only_subscription,
                 int64_t now, struct dispatch *d) {
    e->deliveries = 0;
    e->has_job = false;
    if (e->id.key > f->newest)
        f->newest = e->id.key;
    if (only_subscription) {
        struct subscription *s = index_get(f->index, only_subscription);
        if (!s)
            return -ENOENT;
        struct new_delivery n = delivery_for(e, s, true, true, now);
        return insert(f, st, &n, 1, &e->deliveries);
    }
    struct index_walk walk;
    index_match(f->index, e->tenant_no, e->type, 0, &walk);
    size_t bound = index_walk_bound(&walk);
    size_t most = event_type_reserved(e->type) ? FANOUT_RAISED_INLINE_MAX : FANOUT_INLINE_MAX;
    if (bound > most || (bound >= JOB_MIN && f->made_at_once + bound > FANOUT_A_TRANSACTION_MAX))
        return start_job(f, st, e, 0);
    uint32_t cursor = 0, upper = index_upper(f->index);
    int r = expand_chunk(f, st, e, SEQ_NONE, now, &cursor, upper, d, &e->deliveries);
    f->made_at_once += e->deliveries;
    /* A chunk has room for all of them, but their filters may cost too much for one transaction. */
    return r < 0 || cursor == upper ? r : start_job(f, st, e, cursor);
}

/* The job whose turn it is: the next after the one served last, round the circle. -ENOENT: there is none. */
static int next_job(struct fanout *f, struct store *st, struct fanout_job *ret) {
    int r = store_take_job(st, f->last_served, ret);
    if (r == -ENOENT && f->last_served) {
        f->last_served = 0;
        r = store_take_job(st, 0, ret);
    }
    return r;
}

/* Of a job that is done, to be recorded once that is committed. */
static void note_span(struct fanout *f, const struct event_record *e, const struct fanout_job *job,
                      int64_t now) {
    if (!trace_sampled(e->trace))
        return;
    f->finished = (struct span){.id = tracer_new_id(f->tracer),
                                .parent = trace_span(e->trace),
                                .kind = SPAN_FANOUT,
                                .started_us = id_ms(e->id) * 1000,
                                .ended_us = now * 1000,
                                .event_id = e->id,
                                .count = job->deliveries};
    trace_id(e->trace, f->finished.trace_id);
}

static int advance(struct fanout *f, struct store *st, struct fanout_job *job, int64_t now) {
    struct event_record e;
    int r = store_get_event(st, job->tenant_no, job->event_key, &e);
    if (r < 0)
        return r;
    r = expand_chunk(f, st, &e, job->seq, now, &job->cursor, job->upper, NULL, &job->deliveries);
    if (r < 0)
        return r;
    job->state = job->cursor >= job->upper ? FANOUT_DONE : FANOUT_EXPANDING;
    if (job->state == FANOUT_DONE) {
        metrics_gauge_add(f->metrics, METRIC_FANOUT_JOBS_PENDING, -1);
        if (f->tracer && e.trace.p)
            note_span(f, &e, job, now);
    }
    return store_update_job(st, job);
}

/* The oldest job is the one that lags most, whichever has its turn. */
static int tell_lag(struct fanout *f, struct store *st, int64_t now) {
    struct fanout_job oldest;
    size_t n = 0;
    int r = store_list_jobs(st, 0, &oldest, 1, &n);
    if (r < 0)
        return r;
    metrics_gauge_set(f->metrics, METRIC_FANOUT_LAG_MS, n ? now - (int64_t)(oldest.event_key >> 12) : 0);
    return 0;
}

static int count_jobs(struct fanout *f, struct store *st) {
    struct fanout_job jobs[JOBS_A_LOOK];
    size_t n = JOBS_A_LOOK, total = 0;
    for (uint64_t after = 0; n == JOBS_A_LOOK; total += n) {
        int r = store_list_jobs(st, after, jobs, JOBS_A_LOOK, &n);
        if (r < 0)
            return r;
        after = n ? jobs[n - 1].event_key : after;
    }
    metrics_gauge_set(f->metrics, METRIC_FANOUT_JOBS_PENDING, (int64_t)total);
    f->jobs_counted = true;
    return 0;
}

int fanout_expand(struct fanout *f, struct store *st, int64_t now, bool *ret_more) {
    struct fanout_job job;
    f->finished.id = 0;
    int r = f->jobs_counted ? 0 : count_jobs(f, st);
    if (r == 0)
        r = next_job(f, st, &job);
    if (r < 0 && r != -ENOENT)
        return r;
    if (r == -ENOENT) {
        f->has_jobs = false;
        metrics_gauge_set(f->metrics, METRIC_FANOUT_JOBS_PENDING, 0);
        metrics_gauge_set(f->metrics, METRIC_FANOUT_LAG_MS, 0);
        *ret_more = false;
        return 0;
    }
    f->last_served = job.event_key;
    r = tell_lag(f, st, now);
    if (r == 0)
        r = advance(f, st, &job, now);
    if (r < 0)
        return r;
    *ret_more = true;
    return 0;
}

/* 1: the event is one of those that the subscription asks for. */
static int wants(struct fanout *f, const struct subscription *s, const struct event_record *e) {
    uint64_t steps = 0;
    return subscription_matches(s, e->type) ? judge_wants(f->judge, s->no, e, &steps) : 0;
}

int fanout_wants(struct fanout *f, uint32_t subscription_no, const struct event_record *e) {
    const struct subscription *s = index_get(f->index, subscription_no);
    return s ? wants(f, s, e) : -ENOENT;
}

static int expand_for_one(struct fanout *f, struct store *st, struct fanout_job *job, struct subscription *s,
                          int64_t now) {
    struct event_record e;
    int r = store_get_event(st, job->tenant_no, job->event_key, &e);
    if (r == 0)
        r = has_had(s, job->seq) ? 0 : wants(f, s, &e);
    if (r <= 0)
        return r;
    struct new_delivery d = delivery_for(&e, s, false, false, now);
    r = insert(f, st, &d, 1, &job->deliveries);
    return r < 0 ? r : store_update_job(st, job);
}

int fanout_settle_jobs_for(struct fanout *f, struct store *st, uint32_t subscription_no, int64_t now,
                           uint64_t *ret_settled) {
    int r = know_seq(f, st);
    if (r < 0)
        return r;
    *ret_settled = f->last_seq;
    struct subscription *s = index_get(f->index, subscription_no);
    if (!s || (s->status != SUBSCRIPTION_ACTIVE && s->status != SUBSCRIPTION_PAUSED))
        return 0;
    struct fanout_job jobs[JOBS_A_LOOK];
    size_t n = JOBS_A_LOOK;
    for (uint64_t after = 0; n == JOBS_A_LOOK;) {
        r = store_list_jobs(st, after, jobs, JOBS_A_LOOK, &n);
        for (size_t i = 0; r == 0 && i < n; i++) {
            after = jobs[i].event_key;
            if (jobs[i].tenant_no == s->tenant_no && jobs[i].cursor < s->no && s->no <= jobs[i].upper)
                r = expand_for_one(f, st, &jobs[i], s, now);
        }
        if (r < 0)
            return r;
    }
    return 0;
}

void fanout_forget(struct fanout *f) {
    f->made_at_once = f->made = 0;
}

void fanout_announce(struct fanout *f, struct dispatch *d) {
    metrics_gauge_add(f->metrics, METRIC_DELIVERIES_PENDING, (int64_t)f->made);
    fanout_forget(f);
    if (f->finished.id)
        tracer_add(f->tracer, &f->finished);
    f->finished.id = 0;
    if (!f->notices_n)
        return;
    int r = dispatch_notify(d, f->notices, f->notices_n);
    if (r < 0)
        log_error("lanes could not be told of new deliveries; they are found at the next look",
                  log_int("errno", r));
    f->notices_n = 0;
}
