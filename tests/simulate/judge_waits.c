/* Nobody starves, nothing is forgotten, and what memory holds does not grow with the backlog. */
#include "arena.h"
#include "judges.h"
#include "scenario.h"
#include "timeline.h"
#include "world.h"

enum {
    WAIT_MS_MAX = 20000,     /* of a healthy lane's delivery in calm: the others' timeouts, and their turns */
    STUCK_MS_MAX = 900000,   /* of any lane that may send: longer than each rest and probe interval */
    MEMORY_BASE = 256 << 10, /* reaper, metrics */
    MEMORY_A_LOOP = 384 << 10, /* its turn, and what the writer has begun for it */
    MEMORY_A_LANE = 1536,
    MEMORY_AN_ATTEMPT = 2048,
};

static int64_t longest_wait;
static int64_t *sent_at; /* by subscription number: when something was sent last */
static size_t sent_at_cap;

int64_t judge_longest_wait(void) {
    return longest_wait;
}

void judge_waits_begin(void) {
    size_t n = memory_store_subscriptions() + 1;
    sent_at = host_grow(sent_at, &sent_at_cap, n, sizeof *sent_at);
    memset(sent_at, 0, n * sizeof *sent_at);
}

void judge_waits_clear(void) {
    host_free(sent_at);
    sent_at = NULL;
    sent_at_cap = 0;
}

/* Whether nothing but the other lanes can have kept this one waiting since then. */
static bool undisturbed(uint32_t no, int64_t since) {
    const struct view *v = view_of(no);
    return v->known && v->now.status == SUBSCRIPTION_ACTIVE && world_is_calm_since(since) &&
           v->changed_at + CALM_MS < since && edge_loops_frozen_until() + CALM_MS < since;
}

static void judge_wait(const struct memory_delivery *d, int64_t since, const char *what) {
    uint32_t no = d->subscription_no;
    if (!scenario_is_healthy(no) || !undisturbed(no, since))
        return;
    /* Those before it in its own lane are not the others' fault. */
    int64_t wait = world.true_ms - (sent_at[no] > since ? sent_at[no] : since);
    if (wait > longest_wait)
        longest_wait = wait;
    if (wait > WAIT_MS_MAX)
        violate(no, d->event_key, what);
}

void judge_waits_sent(const struct flight *f) {
    size_t row = memory_store_find(f->task.event_key, f->task.subscription_no);
    const struct memory_delivery *d = memory_store_delivery(row);
    if (d->attempts == d->base + 1)
        judge_wait(d, delivery_due_since(row), "a healthy lane waited too long");
    sent_at[f->task.subscription_no] = world.true_ms;
}

static void judge_stuck(uint32_t no, const struct memory_delivery *d) {
    int64_t due_at = world.true_ms - (world_wall() - d->due_at);
    int64_t since = sent_at[no] > due_at ? sent_at[no] : due_at;
    if (d->due_at && undisturbed(no, since) && world.true_ms - since > STUCK_MS_MAX)
        violate(no, d->event_key, "work is due in a lane that sends nothing any more");
}

void judge_waits_audit(void) {
    for (uint32_t no = 1; no <= memory_store_subscriptions(); no++) {
        size_t n;
        const uint32_t *open = memory_store_open(no, &n);
        for (size_t i = 0; i < n; i++) {
            const struct memory_delivery *d = memory_store_delivery(open[i]);
            if (d->state == DELIVERY_PENDING && d->attempts == 0)
                judge_wait(d, delivery_due_since(open[i]), "a healthy lane is not served");
            judge_stuck(no, d);
        }
    }
    size_t most = MEMORY_BASE + scenario_loops() * MEMORY_A_LOOP +
                  memory_store_subscriptions() * MEMORY_A_LANE + scenario_budget() * MEMORY_AN_ATTEMPT;
    if (arena_in_use() > most)
        violate(0, 0, "the process holds more memory than its settings allow");
}
