/* What a lane tells of itself, when it is another node's: asked and answered by notices. */
#include <errno.h>
#include <stdio.h>
#include <time.h>
#include <utlist.h>

#include "base/clock.h"
#include "cluster/node_state.h"
#include "lanes/breaker.h"

enum { ANSWER_MS_MAX = 1000, ANSWER_SIZE = 256 };

struct question {
    uint32_t id, no;
    enum tenant_tier tier;
    bool asked, answered;
    struct lane_stats stats;
    pthread_cond_t answer;
    struct question *next;
};

static void wait_for_answer(struct node *n, struct question *q) {
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += ANSWER_MS_MAX / 1000;
    int r = 0;
    while (!q->answered && r == 0)
        r = pthread_cond_timedwait(&q->answer, &n->lock, &until);
}

int node_stats(struct node *n, uint32_t subscription_no, enum tenant_tier tier, struct lane_stats *ret) {
    if (ownership_of(&n->ownership, tier, subscription_no) == PARTITION_OWN)
        return dispatch_stats(n->parts.dispatch, subscription_no, ret);
    struct question q = {.no = subscription_no, .tier = tier, .answer = PTHREAD_COND_INITIALIZER};
    lane_stats_unknown(&q.stats);
    pthread_mutex_lock(&n->lock);
    q.id = ++n->last_question;
    LL_PREPEND(n->questions, &q);
    node_wake(n);
    wait_for_answer(n, &q);
    LL_DELETE(n->questions, &q);
    pthread_mutex_unlock(&n->lock);
    pthread_cond_destroy(&q.answer);
    *ret = q.stats;
    return 0;
}

void questions_ask(struct node *n) {
    struct question *q;
    char text[80];
    pthread_mutex_lock(&n->lock);
    for (q = n->questions; q; q = q->next) {
        if (q->asked)
            continue;
        q->asked = true;
        uint32_t owner = n->view.owners[q->tier][partition_of(q->no)];
        q->answered = !owner || owner == n->me.no;
        snprintf(text, sizeof text, "q %u %u %u %u", owner, n->me.no, q->id, q->no);
        if (q->answered || store_feed_tell(n->feed, text) < 0)
            pthread_cond_signal(&q->answer);
    }
    pthread_mutex_unlock(&n->lock);
}

void questions_heard(struct node *n, const char *text) {
    unsigned owner, asker, id, no;
    struct lane_stats s;
    char answer[ANSWER_SIZE];
    if (sscanf(text, "q %u %u %u %u", &owner, &asker, &id, &no) != 4 || owner != n->me.no ||
        dispatch_stats(n->parts.dispatch, no, &s) < 0)
        return;
    unsigned breaker = BREAKER_CLOSED;
    while (breaker < BREAKER_HALF_OPEN &&
           strcmp(s.breaker, breaker_state_name((enum breaker_state)breaker)) != 0)
        breaker++;
    snprintf(answer, sizeof answer, "r %u %u %d %u %u %u %u %lld %llu %llu %d %d %d", asker, id, s.known,
             s.in_flight, s.concurrency, breaker, (unsigned)s.waiting_on, (long long)s.next_due_at,
             (unsigned long long)s.successes, (unsigned long long)s.failures, s.latency_p50_ms,
             s.latency_p95_ms, s.latency_p99_ms);
    (void)!store_feed_tell(n->feed, answer);
}

void questions_answered(struct node *n, const char *text) {
    unsigned asker, id, in_flight, concurrency, breaker, waiting;
    int known, p50, p95, p99;
    long long next_due_at;
    unsigned long long successes, failures;
    if (sscanf(text, "r %u %u %d %u %u %u %u %lld %llu %llu %d %d %d", &asker, &id, &known, &in_flight,
               &concurrency, &breaker, &waiting, &next_due_at, &successes, &failures, &p50, &p95,
               &p99) != 13 ||
        asker != n->me.no || breaker > BREAKER_HALF_OPEN || waiting >= LANE_WAITS)
        return;
    struct question *q;
    pthread_mutex_lock(&n->lock);
    LL_SEARCH_SCALAR(n->questions, q, id, id);
    if (q) {
        q->stats = (struct lane_stats){.known = known != 0,
                                       .in_flight = in_flight,
                                       .concurrency = concurrency,
                                       .breaker = breaker_state_name((enum breaker_state)breaker),
                                       .waiting_on = (enum lane_wait)waiting,
                                       .next_due_at = next_due_at,
                                       .successes = successes,
                                       .failures = failures,
                                       .latency_p50_ms = p50,
                                       .latency_p95_ms = p95,
                                       .latency_p99_ms = p99};
        q->answered = true;
        pthread_cond_signal(&q->answer);
    }
    pthread_mutex_unlock(&n->lock);
}
