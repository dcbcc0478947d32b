/* What was promised: every accepted event ends in DELIVERED or DLQ for every subscription that matched it.
 * The other judges are called from here. */
#include "judge.h"

#include "judges.h"
#include "process.h"
#include "scenario.h"
#include "timeline.h"
#include "world.h"

/* One delivery that an event promises. */
struct promise {
    uint64_t event_key;
    uint32_t subscription_no;
    bool accepted;
};

static struct {
    struct promise *promises; /* ascending by event, for as long as nothing rolled back is looked at */
    size_t n, cap;
    struct view *views; /* by subscription number */
    size_t views_cap;
} judge;

struct view *view_of(uint32_t no) {
    return &judge.views[no];
}

void judge_begin(void) {
    judge.n = 0;
    size_t lanes = memory_store_subscriptions() + 1;
    judge.views = host_grow(judge.views, &judge.views_cap, lanes, sizeof *judge.views);
    for (size_t no = 0; no < lanes; no++)
        judge.views[no] =
            (struct view){.status = SUBSCRIPTION_DELETED, .before.status = SUBSCRIPTION_DELETED};
    judge_deliveries_begin();
    judge_traffic_begin();
    judge_health_begin();
    judge_waits_begin();
}

void judge_clear(void) {
    host_free(judge.promises);
    host_free(judge.views);
    memset(&judge, 0, sizeof judge);
    judge_deliveries_clear();
    judge_traffic_clear();
    judge_health_clear();
    judge_waits_clear();
}

/* ---- what is in force ---- */

static struct settings settings_of(uint32_t no) {
    const struct memory_subscription *s = memory_store_subscription(no);
    return (struct settings){.status = s->status, .policy = s->policy, .resumed_at = s->resumed_at};
}

void judge_configured(uint32_t no) {
    struct view *v = view_of(no);
    struct settings now = settings_of(no);
    v->before = v->known ? v->now : now;
    v->now = now;
    v->status = now.status;
    v->known = true;
    v->changed_at = world.true_ms;
    if (v->before.status == SUBSCRIPTION_DISABLED && now.status == SUBSCRIPTION_ACTIVE)
        judge_health_forget(no);
    judge_traffic_configured(no);
}

bool settings_are_settling(int64_t changed_at) {
    int64_t frozen_until = edge_loops_frozen_until();
    int64_t from = frozen_until > changed_at ? frozen_until : changed_at;
    return world.true_ms <= from + SETTLING_MS;
}

void judge_sending_stopped(uint32_t no) {
    view_of(no)->stopped = true;
    note(no, 0, 0, "sending has stopped");
}

void judge_died(void) {
    judge_traffic_died();
    judge_health_died();
}

/* ---- promises ---- */

/* The contract's rule (api.md §2), written out. */
static bool listens(enum memory_interest interest, enum memory_type type) {
    static const bool table[INTERESTS][MEMORY_TYPES] = {
        [INTEREST_ALL] = {true, true, true, true},
        [INTEREST_ORDERS] = {[TYPE_PAID] = true, [TYPE_SENT] = true},
        [INTEREST_PAID] = {[TYPE_PAID] = true},
        [INTEREST_MIXED] = {[TYPE_SENT] = true, [TYPE_USER] = true},
        [INTEREST_BLAST] = {[TYPE_BLAST] = true},
    };
    return table[interest][type];
}

static bool takes_events(enum subscription_status s) {
    return s == SUBSCRIPTION_ACTIVE || s == SUBSCRIPTION_PAUSED;
}

void judge_publishing(uint64_t event_key) {
    const struct memory_event *e = memory_store_event(memory_store_event_no(event_key) - 1);
    for (uint32_t no = 1; no <= memory_store_subscriptions(); no++) {
        const struct memory_subscription *s = memory_store_subscription(no);
        /* Disabled earlier in the same transaction: that came first. */
        if (s->tenant_no != e->tenant_no || !listens(s->interest, e->type) ||
            !takes_events(view_of(no)->status) || !takes_events(s->status))
            continue;
        judge.promises = host_grow(judge.promises, &judge.cap, judge.n + 1, sizeof *judge.promises);
        judge.promises[judge.n++] = (struct promise){event_key, no, false};
    }
}

void judge_accepted(uint64_t event_key) {
    note(0, event_key, 0, "accepted");
    for (size_t i = judge.n; i-- > 0 && judge.promises[i].event_key >= event_key;)
        judge.promises[i].accepted |= judge.promises[i].event_key == event_key;
}

bool judge_promised(uint64_t event_key, uint32_t subscription_no) {
    size_t low = 0, high = judge.n;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (judge.promises[mid].event_key < event_key)
            low = mid + 1;
        else
            high = mid;
    }
    for (; low < judge.n && judge.promises[low].event_key == event_key; low++)
        if (judge.promises[low].subscription_no == subscription_no)
            return judge.promises[low].accepted;
    return false;
}

void judge_end(void) {
    for (size_t i = 0; i < judge.n; i++) {
        const struct promise *p = &judge.promises[i];
        if (p->accepted && memory_store_find(p->event_key, p->subscription_no) == SIZE_MAX)
            violate(p->subscription_no, p->event_key, "an accepted event never became a delivery");
    }
    for (size_t row = 0; row < memory_store_deliveries(); row++) {
        const struct memory_delivery *d = memory_store_delivery(row);
        if (delivery_is_open(d->state))
            violate(d->subscription_no, d->event_key, "still open long after its window");
    }
    if (memory_store_jobs_pending())
        violate(0, 0, "a fan-out never ended");
    judge_deliveries_end();
}

void judge_committed(void) {
    size_t n;
    const struct memory_change *c = memory_store_changes(&n);
    for (size_t i = 0; i < n; i++)
        judge_change(&c[i]);
}

void judge_sent(struct flight *f) {
    judge_health_sent(f);
    judge_traffic_sent(f);
    judge_waits_sent(f);
}

void judge_answered(struct flight *f) {
    note_value(f->task.subscription_no, f->task.event_key, f->task.number,
               f->answer.outcome.status ? "answered" : "no answer",
               f->answer.outcome.status ? f->answer.outcome.status : (int64_t)f->answer.outcome.error);
    judge_traffic_answered(f);
}

void judge_ended(const struct attempt *a) {
    judge_deliveries_ended(a);
    judge_health_ended(a);
}

void judge_audit(void) {
    judge_waits_audit();
}
