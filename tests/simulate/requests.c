/* What producers and operators ask of the process: the jobs of the API's routes. */
#include <errno.h>

#include "base/clock.h"
#include "judge.h"
#include "process_parts.h"
#include "timeline.h"
#include "world.h"

struct publishing {
    struct writer_job job;
    int64_t now;
    size_t n;
    struct memory_event events[];
};

static int publish(struct writer_job *job, struct store *s) {
    struct publishing *q = (struct publishing *)job;
    int r = 0;
    for (size_t i = 0; i < q->n && r == 0; i++) {
        const struct memory_event *e = &q->events[i];
        struct event_record record = {.id = e->id,
                                      .tenant_no = e->tenant_no,
                                      .type = slice_of(memory_types[e->type]),
                                      .deliver_at = e->deliver_at};
        if (e->ordering_key)
            record.ordering_key = (struct slice){&e->ordering_key, 1};
        r = fanout_event(the_process->fanout, s, &record, 0, clock_now_ms(), the_process->dispatch);
        if (r == 0)
            r = memory_store_insert_event(s, e);
        if (r == 0)
            judge_publishing(e->id.key);
    }
    return r;
}

static void published(struct writer_job *job, int result) {
    struct publishing *q = (struct publishing *)job;
    for (size_t i = 0; i < q->n && result == 0; i++)
        judge_accepted(q->events[i].id.key);
    free(q);
}

void process_publish(const struct publish_wish *wishes, size_t n) {
    struct publishing *q = calloc(1, sizeof *q + n * sizeof q->events[0]);
    CHECK(q != NULL);
    *q = (struct publishing){.job = {.run = publish, .done = published}, .now = clock_now_ms(), .n = n};
    uint64_t key = id_source_take(&the_process->ids, q->now, (unsigned)n);
    for (size_t i = 0; i < n; i++)
        q->events[i] = (struct memory_event){
            .id = {key + i, 0},
            .tenant_no = wishes[i].tenant_no,
            .type = wishes[i].type,
            .ordering_key = wishes[i].ordering_key,
            .deliver_at = wishes[i].deliver_in_ms ? q->now + wishes[i].deliver_in_ms : 0};
    if (writer_submit(the_process->writer, &q->job) < 0)
        free(q);
}

struct patching {
    struct writer_job job;
    uint32_t no;
    int64_t now;
    void (*edit)(struct memory_subscription *row);
};

static int patch(struct writer_job *job, struct store *s) {
    struct patching *q = (struct patching *)job;
    struct memory_subscription row = *memory_store_subscription(q->no), was = row;
    q->edit(&row);
    if (was.status == SUBSCRIPTION_PAUSED && row.status != SUBSCRIPTION_PAUSED)
        row.resumed_at = q->now;
    if (was.ordering != row.ordering)
        row.relane = id_source_take(&the_process->ids, q->now, 1);
    if (was.status == SUBSCRIPTION_DISABLED && row.status != SUBSCRIPTION_DISABLED)
        row.failing_since = 0;
    int r = was.status != row.status
                ? fanout_settle_jobs_for(the_process->fanout, s, q->no, q->now, &row.jobs_settled)
                : 0;
    if (r == 0)
        memory_store_write_subscription(s, &row);
    return r;
}

static void patched(struct writer_job *job, int result) {
    struct patching *q = (struct patching *)job;
    const struct memory_subscription *row = memory_store_subscription(q->no);
    if (result == 0 && row->status != SUBSCRIPTION_DELETED) {
        note(q->no, 0, 0, subscription_status_name(row->status));
        process_apply(q->no);
    }
    free(q);
}

static void submit(uint32_t no, int (*run)(struct writer_job *job, struct store *s),
                   void (*done)(struct writer_job *job, int result),
                   void (*edit)(struct memory_subscription *row)) {
    struct patching *q = calloc(1, sizeof *q);
    CHECK(q != NULL);
    *q = (struct patching){
        .job = {.run = run, .done = done, .guarded = true}, .no = no, .now = clock_now_ms(), .edit = edit};
    if (writer_submit(the_process->writer, &q->job) < 0)
        free(q);
}

void process_patch(uint32_t no, void (*edit)(struct memory_subscription *row)) {
    submit(no, patch, patched, edit);
}

static int delete_it(struct writer_job *job, struct store *s) {
    struct patching *q = (struct patching *)job;
    struct memory_subscription row = *memory_store_subscription(q->no);
    if (row.status == SUBSCRIPTION_DELETED)
        return -ENOENT;
    int r = fanout_settle_jobs_for(the_process->fanout, s, q->no, q->now, &row.jobs_settled);
    row.status = SUBSCRIPTION_DELETED;
    if (r == 0)
        memory_store_write_subscription(s, &row);
    return r;
}

static void stopped(void *arg) {
    judge_sending_stopped((uint32_t)(size_t)arg);
}

static void deleted(struct writer_job *job, int result) {
    struct patching *q = (struct patching *)job;
    if (result == 0) {
        note(q->no, 0, 0, "deleted");
        fanout_remove(the_process->fanout, q->no);
        judge_configured(q->no);
        CHECK(dispatch_remove(the_process->dispatch, q->no, stopped, (void *)(size_t)q->no) == 0);
    }
    free(q);
}

void process_delete(uint32_t no) {
    submit(no, delete_it, deleted, NULL);
}

struct replaying {
    struct writer_job job;
    uint64_t event_key;
    uint32_t no;
    int64_t now;
};

static int replay(struct writer_job *job, struct store *s) {
    struct replaying *q = (struct replaying *)job;
    struct event_record e;
    const struct subscription *sub = fanout_subscription(the_process->fanout, q->no);
    int r = sub ? store_get_event(s, sub->tenant_no, q->event_key, &e) : -EOWNERDEAD;
    return r < 0 ? r
                 : memory_store_replay(s, q->event_key, q->no,
                                       subscription_lane_key(sub->ordering, e.ordering_key), q->now);
}

static void replayed(struct writer_job *job, int result) {
    struct replaying *q = (struct replaying *)job;
    if (result == 0)
        process_lane_due(NULL, q->no, q->now);
    free(q);
}

void process_replay(uint64_t event_key, uint32_t subscription_no) {
    struct replaying *q = calloc(1, sizeof *q);
    CHECK(q != NULL);
    *q = (struct replaying){.job = {.run = replay, .done = replayed, .guarded = true},
                            .event_key = event_key,
                            .no = subscription_no,
                            .now = clock_now_ms()};
    if (writer_submit(the_process->writer, &q->job) < 0)
        free(q);
}

void process_configure_tenant(uint32_t no) {
    CHECK(dispatch_configure_tenant(the_process->dispatch, no, &memory_store_tenant(no)->limits) == 0);
    judge_configured_tenant(no);
}
