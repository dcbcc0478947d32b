/* A deletion is answered once nothing of the subscription is sent any more: when its lane is another node's,
 * that node says so. */
#include <errno.h>
#include <stdio.h>
#include <utlist.h>

#include "base/clock.h"
#include "base/log.h"
#include "cluster/node_state.h"

enum {
    WAIT_MS_MAX = 75000, /* the longest attempt, and a lease */
    ASK_EVERY_MS = 500,
};

/* ---- where it was deleted ---- */

bool node_await_stopped(struct node *n, uint32_t subscription_no, enum tenant_tier tier,
                        void (*fn)(void *arg), void *arg) {
    if (ownership_of(&n->ownership, tier, subscription_no) == PARTITION_OWN || atomic_load(&n->leaving))
        return false;
    struct stop_wait *w = calloc(1, sizeof *w);
    if (!w)
        return false;
    *w = (struct stop_wait){.no = subscription_no,
                            .tier = tier,
                            .fn = fn,
                            .arg = arg,
                            .until_us = clock_mono_us() + (int64_t)WAIT_MS_MAX * 1000};
    pthread_mutex_lock(&n->lock);
    LL_PREPEND(n->waits, w);
    pthread_mutex_unlock(&n->lock);
    n->waits_at_us = 0;
    node_wake(n);
    return true;
}

void deletions_heard(struct node *n, uint32_t no) {
    struct stop_wait *w;
    pthread_mutex_lock(&n->lock);
    LL_FOREACH (n->waits, w)
        if (w->no == no) {
            w->said = true;
            n->waits_at_us = 0;
        }
    pthread_mutex_unlock(&n->lock);
}

static void ask(struct node *n, struct stop_wait *w, uint32_t owner) {
    char text[48];
    int64_t now_us = clock_mono_us();
    if (now_us < w->ask_at_us)
        return;
    w->ask_at_us = now_us + ASK_EVERY_MS * 1000;
    snprintf(text, sizeof text, "x %u %u", owner, w->no);
    (void)!store_feed_tell(n->feed, text);
}

/* Whoever owns its partition has stopped, or nobody does. */
static bool has_stopped(struct node *n, struct stop_wait *w) {
    uint32_t owner = n->view.owners[w->tier][partition_of(w->no)];
    bool others = owner && owner != n->me.no && membership_alive(n, owner), sending = true;
    if (others && !w->said)
        ask(n, w, owner);
    if (others && !w->said)
        return false;
    return store_feed_sending(n->feed, w->no, &sending) == 0 && !sending;
}

void deletions_run(struct node *n) {
    struct stop_wait *w, *next;
    pthread_mutex_lock(&n->lock);
    struct stop_wait *all = TAKE_PTR(n->waits);
    pthread_mutex_unlock(&n->lock);
    LL_FOREACH_SAFE (all, w, next) {
        bool late = clock_mono_us() >= w->until_us;
        if (!late && !has_stopped(n, w)) {
            pthread_mutex_lock(&n->lock);
            LL_PREPEND(n->waits, w);
            pthread_mutex_unlock(&n->lock);
            continue;
        }
        if (late)
            log_warn("a deletion is answered though the node that sent has not said that it stopped",
                     log_int("subscription_no", w->no));
        w->fn(w->arg);
        free(w);
    }
}

void deletions_give_up(struct node *n) {
    struct stop_wait *w, *next;
    pthread_mutex_lock(&n->lock);
    struct stop_wait *all = TAKE_PTR(n->waits);
    pthread_mutex_unlock(&n->lock);
    LL_FOREACH_SAFE (all, w, next) {
        w->fn(w->arg);
        free(w);
    }
}

/* ---- where it was sent ---- */

static void stopped(void *arg) {
    struct stopping *s = arg;
    struct node *n = s->n;
    pthread_mutex_lock(&n->lock);
    if (n->stopped_n == n->stopped_cap) {
        size_t cap = n->stopped_cap ? n->stopped_cap * 2 : 16;
        uint32_t *more = realloc(n->stopped, cap * sizeof *more);
        n->stopped = more ? more : n->stopped;
        n->stopped_cap = more ? cap : n->stopped_cap;
    }
    if (n->stopped_n < n->stopped_cap) /* else: they ask */
        n->stopped[n->stopped_n++] = s->no;
    LL_DELETE(n->stopping, s);
    pthread_mutex_unlock(&n->lock);
    free(s);
    node_wake(n);
}

static struct stopping *add(struct node *n, uint32_t no, bool asked) {
    struct stopping *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    *s = (struct stopping){.n = n, .no = no, .asked = asked};
    pthread_mutex_lock(&n->lock);
    LL_PREPEND(n->stopping, s);
    pthread_mutex_unlock(&n->lock);
    return s;
}

void deletions_remove(struct node *n, uint32_t no) {
    if (!fanout_subscription(n->parts.fanout, no))
        return; /* told before */
    struct stopping *s = add(n, no, false);
    fanout_remove(n->parts.fanout, no);
    if (s && dispatch_remove(n->parts.dispatch, no, stopped, s) == 0)
        return;
    log_error("a deleted subscription's lane could not be told; it stops at the next start",
              log_int("subscription_no", no));
    if (s)
        stopped(s);
}

/* That it is deleted is known once the changes before the question are in force. */
void deletions_asked(struct node *n, uint32_t no) {
    if (add(n, no, true))
        n->changes_at_us = 0;
}

/* Those that were asked after; of one that is being stopped the answer comes when it has. */
static struct stopping *take_asked(struct node *n) {
    struct stopping *s, *next, *other, *asked = NULL;
    pthread_mutex_lock(&n->lock);
    LL_FOREACH_SAFE (n->stopping, s, next) {
        if (!s->asked)
            continue;
        LL_DELETE(n->stopping, s);
        LL_PREPEND(asked, s);
    }
    LL_FOREACH (asked, s)
        LL_FOREACH (n->stopping, other)
            s->asked &= other->no != s->no;
    pthread_mutex_unlock(&n->lock);
    return asked;
}

void deletions_answer(struct node *n) {
    struct stopping *s, *next, *asked = take_asked(n);
    char text[32];
    LL_FOREACH_SAFE (asked, s, next) {
        snprintf(text, sizeof text, "s %u", s->no);
        if (s->asked)
            (void)!store_feed_tell(n->feed, text);
        free(s);
    }
}
