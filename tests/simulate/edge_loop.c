/* base/loop.h on virtual time: a loop is one iteration after another, each a happening of the world. */
#include "arena.h"
#include "base/loop.h"
#include "edges.h"
#include "judge.h"
#include "world.h"

enum { LOOPS_MAX = 8, POST_MS_MAX = 2 };

struct loop {
    struct heap timers;
    struct loop_message *head, **tail;
    struct attempt *ended, **ended_tail;
    void (*before_wait)(void *arg);
    void *arg;
    int64_t wake_at, frozen_until;
    bool stopped;
};

static struct {
    struct loop *all[LOOPS_MAX];
    unsigned n;
    int64_t frozen_until;
} loops;

static void run_timers(struct loop *l) {
    struct heap_node *top;
    while ((top = heap_top(&l->timers)) && top->key <= world.true_ms * 1000) {
        struct loop_timer *t = (struct loop_timer *)((char *)top - offsetof(struct loop_timer, node));
        heap_remove(&l->timers, top);
        t->fn(t);
    }
}

static void run_messages(struct loop *l) {
    struct loop_message *m = l->head;
    l->head = NULL;
    l->tail = &l->head;
    while (m) {
        struct loop_message *next = m->next;
        m->fn(m);
        m = next;
    }
}

static void run_ended(struct loop *l) {
    struct attempt *a = l->ended;
    l->ended = NULL;
    l->ended_tail = &l->ended;
    while (a) {
        struct attempt *next = a->next;
        a->next = NULL;
        judge_ended(a);
        a->done(a);
        a = next;
    }
}

static void run(void *arg);

static void wake(struct loop *l, int64_t in_ms) {
    if (world.true_ms + in_ms >= l->wake_at)
        return;
    l->wake_at = world.true_ms + in_ms;
    world_after(in_ms, run, l);
}

static void run(void *arg) {
    struct loop *l = arg;
    if (l->wake_at != world.true_ms || l->stopped)
        return; /* another one came before it */
    l->wake_at = INT64_MAX;
    if (l->frozen_until > world.true_ms) {
        wake(l, l->frozen_until - world.true_ms);
        return;
    }
    arena_allow_failing(true);
    run_timers(l);
    run_messages(l);
    run_ended(l);
    if (l->before_wait && !l->stopped)
        l->before_wait(l->arg);
    arena_allow_failing(false);
    struct heap_node *top = heap_top(&l->timers);
    int64_t at_ms = top ? (top->key + 999) / 1000 : INT64_MAX;
    if (l->head || l->ended)
        wake(l, 0);
    else if (at_ms != INT64_MAX)
        wake(l, at_ms > world.true_ms ? at_ms - world.true_ms : 1);
}

int loop_new(struct loop **ret) {
    struct loop *l = calloc(1, sizeof *l);
    CHECK(l != NULL && loops.n < LOOPS_MAX);
    l->tail = &l->head;
    l->ended_tail = &l->ended;
    l->wake_at = INT64_MAX;
    loops.all[loops.n++] = l;
    *ret = l;
    return 0;
}

void loop_free(struct loop *l) {
    if (!l)
        return;
    heap_free(&l->timers);
    free(l);
}

void loop_timer_set(struct loop *l, struct loop_timer *t, int64_t at_mono_us) {
    CHECK(heap_set(&l->timers, &t->node, at_mono_us) == 0);
}

void loop_timer_clear(struct loop *l, struct loop_timer *t) {
    heap_remove(&l->timers, &t->node);
}

void loop_post(struct loop *l, struct loop_message *m) {
    m->next = NULL;
    *l->tail = m;
    l->tail = &m->next;
    wake(l, between(0, POST_MS_MAX));
}

void loop_run(struct loop *l, void (*before_wait)(void *arg), void *arg) {
    l->before_wait = before_wait;
    l->arg = arg;
    wake(l, 0);
}

void loop_stop(struct loop *l) {
    l->stopped = true;
}

void edge_loop_ended(struct client *c, struct attempt *a) {
    struct loop *l = (struct loop *)c;
    a->next = NULL;
    *l->ended_tail = a;
    l->ended_tail = &a->next;
    wake(l, 0);
}

void edge_loops_freeze(bool all, int64_t for_ms) {
    unsigned one = loops.n ? (unsigned)rng_below(&world.rng, loops.n) : 0;
    for (unsigned i = 0; i < loops.n; i++)
        if (all || i == one)
            loops.all[i]->frozen_until = world.true_ms + for_ms;
    if (world.true_ms + for_ms > loops.frozen_until)
        loops.frozen_until = world.true_ms + for_ms;
}

int64_t edge_loops_frozen_until(void) {
    return loops.frozen_until;
}

bool edge_loops_stopped(void) {
    for (unsigned i = 0; i < loops.n; i++)
        if (!loops.all[i]->stopped)
            return false;
    return true;
}

bool edge_loops_have_mail(void) {
    for (unsigned i = 0; i < loops.n; i++)
        if (loops.all[i]->head)
            return true;
    return false;
}

void edge_loops_forget(void) {
    memset(&loops, 0, sizeof loops);
}

/* The client is its loop: all that the attempts want of it is to come back there. */
int client_new(struct loop *l, const struct client_options *o, struct client **ret) {
    (void)o;
    *ret = (struct client *)l;
    return 0;
}

void client_free(struct client *c) {
    (void)c;
}
