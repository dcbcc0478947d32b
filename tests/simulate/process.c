#include "process_parts.h"

#include <errno.h>

#include "arena.h"
#include "base/clock.h"
#include "edges.h"
#include "judge.h"
#include "scenario.h"
#include "timeline.h"
#include "world.h"

enum {
    LEASE_MARGIN_MS = 5000,
    REAP_EVERY_MS = 1000,
    LEASE_GRACE_MS = 1000,
    LANES_A_LOOK = 8,
    START_AGAIN_MS = 1000,
    STOP_LOOK_MS = 20,
    STOP_MS_MAX = 60000,
};

struct process *the_process;

bool process_is_up(void) {
    return the_process && !the_process->stopping;
}

bool process_has_just_begun(void) {
    return the_process && !the_process->dispatch;
}

/* ---- subscriptions, as memory has them ---- */

static void set_types(struct subscription *sub, enum memory_interest interest) {
    static const struct {
        uint16_t n;
        const char *event_types;
    } lists[INTERESTS] = {[INTEREST_ORDERS] = {1, "order.*"},
                          [INTEREST_PAID] = {1, "order.paid"},
                          [INTEREST_MIXED] = {2, "user.new\0order.sent"},
                          [INTEREST_BLAST] = {1, "blast"}};
    sub->event_types = lists[interest].event_types;
    sub->event_types_n = lists[interest].n;
}

static struct policy *policy(const struct policy *row) {
    struct policy *p = policy_new();
    CHECK(p != NULL);
    *p = *row;
    atomic_init(&p->refs, 1);
    const struct retry_policy *r = &row->retry;
    if (r->schedule_seconds) {
        size_t bytes = r->schedule_n * sizeof *r->schedule_seconds;
        CHECK((p->retry.schedule_seconds = malloc(bytes)) != NULL);
        memcpy(p->retry.schedule_seconds, r->schedule_seconds, bytes);
    }
    return p;
}

static struct subscription *snapshot(const struct memory_subscription *row) {
    struct subscription *sub = calloc(1, sizeof *sub);
    CHECK(sub != NULL);
    atomic_init(&sub->refs, 1);
    sub->no = row->no;
    sub->tenant_no = row->tenant_no;
    sub->tier = memory_store_tenant(row->tenant_no)->tier;
    sub->status = row->status;
    sub->ordering = row->ordering;
    sub->resumed_at = row->resumed_at;
    sub->failing_since = row->failing_since;
    sub->raised_since = row->raised_since;
    sub->jobs_settled = row->jobs_settled;
    sub->relane = row->relane;
    sub->url = "https://example.com/";
    sub->policy = policy(&row->policy);
    set_types(sub, row->interest);
    return sub;
}
void process_apply(uint32_t no) {
    struct subscription *sub = snapshot(memory_store_subscription(no));
    CHECK(fanout_put(the_process->fanout, sub) == 0 && dispatch_configure(the_process->dispatch, sub) == 0);
    subscription_unref(sub);
    judge_configured(no);
}

static int disable(void *arg, struct store *s, uint32_t no, const char *reason, int64_t now) {
    (void)arg;
    (void)reason;
    struct memory_subscription row = *memory_store_subscription(no);
    if (row.status == SUBSCRIPTION_DELETED || row.status == SUBSCRIPTION_DISABLED)
        return row.status == SUBSCRIPTION_DELETED ? -ENOENT : 0;
    int r = fanout_settle_jobs_for(the_process->fanout, s, no, now, &row.jobs_settled);
    row.status = SUBSCRIPTION_DISABLED;
    if (r == 0)
        memory_store_write_subscription(s, &row);
    return r < 0 ? r : 1;
}

/* Nobody asks for them here; that their transaction may fail is what matters. */
static int raise_event(void *arg, struct store *s, const struct operational_event *e) {
    (void)arg;
    (void)e;
    return store_last_job(s, &(uint64_t){0});
}

static void changed(void *arg, uint32_t no) {
    (void)arg;
    const struct memory_subscription *row = memory_store_subscription(no);
    if (row->status == SUBSCRIPTION_DELETED)
        return;
    note(no, 0, 0, row->status == SUBSCRIPTION_DISABLED ? "disabled" : "has followed its new ordering");
    process_apply(no);
}

static bool holds(void *arg, uint32_t no) {
    (void)arg;
    const struct subscription *sub = fanout_subscription(the_process->fanout, no);
    return sub && sub->relane;
}

/* ---- start ---- */

void process_lane_due(void *arg, uint32_t no, int64_t due_at) {
    (void)arg;
    struct lane_notice notice = {no, due_at};
    CHECK(dispatch_notify(the_process->dispatch, &notice, 1) == 0);
}

static const struct subscription *subscription_of(void *arg, uint32_t no) {
    (void)arg;
    return fanout_subscription(the_process->fanout, no);
}

static void after_transaction(void *arg, bool committed) {
    (void)arg;
    dispatch_made(the_process->dispatch, committed);
    if (!committed) {
        fanout_forget(the_process->fanout);
        return;
    }
    fanout_announce(the_process->fanout, the_process->dispatch);
    pump_kick(the_process->pump);
}

static int recover_leases(struct store *s) {
    bool more = true;
    while (more) {
        int r = store_begin(s);
        if (r < 0)
            return r;
        r = reaper_run(the_process->reaper, s, INT64_MAX, clock_now_ms(), &more);
        if (r == 0)
            r = store_commit(s);
        if (r < 0) {
            store_rollback(s);
            return r;
        }
        judge_committed();
        reaper_forget(the_process->reaper);
    }
    return 0;
}

struct waking {
    struct writer_job job;
    struct lane_due due[LANES_A_LOOK];
    size_t n;
    uint32_t after;
};

static int find_due(struct writer_job *job, struct store *s) {
    struct waking *w = (struct waking *)job;
    return store_list_lanes_due(s, w->after, w->due, LANES_A_LOOK, &w->n);
}

/* The real one gives up when the store fails, and says so; a seed that goes on must not. */
static void wake_due(struct writer_job *job, int result) {
    struct waking *w = (struct waking *)job;
    for (size_t i = 0; result == 0 && i < w->n; i++) {
        process_lane_due(NULL, w->due[i].subscription_no, w->due[i].due_at);
        w->after = w->due[i].subscription_no;
    }
    if (result < 0 || w->n == LANES_A_LOOK)
        writer_submit_internal(the_process->writer, job);
    else
        free(w);
}

static int run_reaper(struct writer_job *job, struct store *s) {
    (void)job;
    int64_t now = clock_now_ms();
    return reaper_run(the_process->reaper, s, now - LEASE_GRACE_MS, now, &the_process->reap_more);
}

static void start_reaper(void *arg) {
    (void)arg;
    if (!the_process->stopping)
        writer_submit_internal(the_process->writer, &the_process->reap_job);
}

static void reaper_done(struct writer_job *job, int result) {
    (void)job;
    if (result == 0)
        reaper_announce(the_process->reaper);
    world_after(result == 0 && the_process->reap_more ? 0 : REAP_EVERY_MS, start_reaper, NULL);
}

static struct lane_start kept(const struct memory_subscription *row) {
    struct lane_start start = {0};
    struct slice state = {(const char *)row->lane_state, sizeof row->lane_state};
    if (row->has_lane_state)
        CHECK(lane_memory_read(state, &start.memory));
    return start;
}

static void start_lanes(void) {
    for (uint32_t no = 1; no <= fanout_upper(the_process->fanout); no++) {
        struct subscription *sub = fanout_subscription(the_process->fanout, no);
        if (!sub)
            continue;
        struct lane_start start = kept(memory_store_subscription(no));
        CHECK(dispatch_resume(the_process->dispatch, sub, &start) == 0);
        judge_configured(no);
    }
    for (uint32_t no = 1; no <= MEMORY_TENANTS_MAX; no++)
        process_configure_tenant(no);
    struct waking *w = calloc(1, sizeof *w);
    CHECK(w != NULL);
    w->job = (struct writer_job){.run = find_due, .done = wake_due};
    writer_submit_internal(the_process->writer, &w->job);
}

static int start(void) {
    struct store *s = memory_store();
    CHECK((the_process = calloc(1, sizeof *the_process)) != NULL &&
          (the_process->metrics = metrics_new()) != NULL);
    if (memory_store_events())
        id_source_raise(&the_process->ids, memory_store_event(memory_store_events() - 1)->id.key);
    CHECK(fanout_new(the_process->metrics, &the_process->fanout) == 0);
    for (uint32_t no = 1; no <= memory_store_subscriptions(); no++) {
        if (memory_store_subscription(no)->status == SUBSCRIPTION_DELETED)
            continue;
        struct subscription *sub = snapshot(memory_store_subscription(no));
        CHECK(fanout_put(the_process->fanout, sub) == 0);
        subscription_unref(sub);
    }
    struct reaper_options reaper = {.metrics = the_process->metrics,
                                    .subscription = subscription_of,
                                    .due = process_lane_due,
                                    .raise = raise_event};
    CHECK(reaper_new(&reaper, &the_process->reaper) == 0);
    int r = recover_leases(s);
    if (r < 0)
        return r;
    the_process->writer = edge_writer_new(s);
    CHECK(pump_new(the_process->fanout, the_process->writer, &the_process->pump) == 0);
    struct dispatch_options o = {.store = s,
                                 .writer = the_process->writer,
                                 .metrics = the_process->metrics,
                                 .loops = scenario_loops(),
                                 .max_in_flight = scenario_budget(),
                                 .lease_margin_ms = LEASE_MARGIN_MS,
                                 .disable = disable,
                                 .changed = changed,
                                 .holds = holds,
                                 .raise = raise_event};
    CHECK(dispatch_start(&o, &the_process->dispatch) == 0);
    writer_on_end(the_process->writer, after_transaction, NULL);
    start_lanes();
    the_process->reap_job = (struct writer_job){.run = run_reaper, .done = reaper_done};
    world_after(REAP_EVERY_MS, start_reaper, NULL);
    return 0;
}

/* All that the process had is gone. */
static void gone(void) {
    the_process = NULL;
    edge_attempts_forget();
    edge_loops_forget();
    arena_fail(0, 0);
    arena_reset();
    judge_died();
}

static void start_again(void *arg) {
    (void)arg;
    process_start();
}

void process_start(void) {
    world.life++;
    world_disturbed("start");
    if (start() == 0) {
        arena_fail(sizeof(struct attempt), scenario_memory_trouble());
        return;
    }
    note(0, 0, 0, "the start fails");
    gone();
    world_later(START_AGAIN_MS, start_again, NULL);
}

/* ---- the end ---- */

void process_crash(void) {
    world_disturbed("crash");
    gone();
    world.life++;
}

/* What commits after the loops have ended is told to nobody: the next start finds it. That letter is lost
 * with the process. */
static void free_all(void) {
    bool mail = edge_loops_have_mail();
    dispatch_free(the_process->dispatch);
    pump_free(the_process->pump);
    reaper_free(the_process->reaper);
    fanout_free(the_process->fanout);
    metrics_free(the_process->metrics);
    free(the_process->writer);
    free(the_process);
    if (arena_in_use() != 0 && !mail)
        violate(0, 0, "an orderly stop leaves memory that nobody freed");
}

static void look_whether_stopped(void *arg) {
    (void)arg;
    bool ended = edge_loops_stopped() && edge_writer_idle(the_process->writer);
    if (!ended && world.true_ms < the_process->stop_until) {
        world_after(STOP_LOOK_MS, look_whether_stopped, NULL);
        return;
    }
    int64_t down_ms = the_process->down_ms;
    world_disturbed(ended ? "stopped" : "gives up stopping");
    if (ended)
        free_all();
    gone();
    world.life++;
    world_later(down_ms, start_again, NULL);
}

void process_stop(int64_t down_ms) {
    world_disturbed("stopping");
    the_process->stopping = true;
    the_process->stop_until = world.true_ms + STOP_MS_MAX;
    the_process->down_ms = down_ms;
    pump_stop(the_process->pump);
    dispatch_stop(the_process->dispatch);
    world_after(STOP_LOOK_MS, look_whether_stopped, NULL);
}

void process_clear(void) {
    if (the_process)
        gone();
}
