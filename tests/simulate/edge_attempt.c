/* deliver/attempt.h without a network: the lease is looked at as the real one does, then a simulated receiver
 * answers. The receiver goes on when the process dies. */
#include "edges.h"
#include "faults.h"
#include "judge.h"
#include "scenario.h"
#include "world.h"

static struct flight *flights; /* by slot */
static size_t flights_n, flights_cap;

void edge_attempts_begin(void) {
    flights_n = 0;
}

void edge_attempts_clear(void) {
    host_free(flights);
    flights = NULL;
    flights_n = flights_cap = 0;
}

void edge_attempts_forget(void) {
    for (size_t i = 0; i < flights_n; i++) {
        flights[i].attempt = NULL;
        flights[i].used &= !flights[i].over;
    }
}

static struct flight *take_flight(void) {
    size_t i = 0;
    while (i < flights_n && flights[i].used)
        i++;
    if (i == flights_n) {
        flights = host_grow(flights, &flights_cap, flights_n + 1, sizeof *flights);
        flights_n++;
    }
    flights[i] = (struct flight){.used = true};
    return &flights[i];
}

struct flight *flight_next(const struct flight *last) {
    size_t i = last ? (size_t)(last - flights) + 1 : 0;
    while (i < flights_n && !flights[i].used)
        i++;
    return i < flights_n ? &flights[i] : NULL;
}

const struct flight *flight_of(const struct attempt *a) {
    return a->not_sent ? NULL : &flights[a->request.started_us];
}

static void answered(void *arg) {
    struct flight *f = &flights[(size_t)arg];
    struct attempt *a = f->attempt;
    f->over = true;
    judge_answered(f);
    if (!a) { /* its process is dead */
        f->used = false;
        return;
    }
    a->outcome = f->answer.outcome;
    a->request.latency_us = (world.true_ms - f->sent_at) * 1000;
    edge_loop_ended(a->context->client, a);
}

static void fail_later(struct attempt *a, enum attempt_error error) {
    a->not_sent = true;
    a->outcome = (struct outcome){.error = error, .retry_after_ms = -1};
    edge_loop_ended(a->context->client, a);
}

void attempt_start(struct attempt *a, const struct attempt_context *context, int64_t now) {
    a->context = context;
    a->started_at = now;
    a->not_sent = false;
    a->request.started_us = -1;
    if (now + a->subscription->policy->timeout_ms >= a->task.lease_until) {
        fail_later(a, ATTEMPT_LEASE_EXPIRED);
        return;
    }
    if (scenario_memory_trouble() > 0 && chance(scenario_memory_trouble())) {
        fail_later(a, ATTEMPT_INTERNAL);
        return;
    }
    struct flight *f = take_flight();
    f->attempt = a;
    f->task = a->task;
    f->policy = *a->subscription->policy;
    f->sent_at = world.true_ms;
    f->answer =
        receiver_answer(scenario_receiver(a->task.subscription_no), a->subscription->policy->timeout_ms);
    a->request.started_us = f - flights;
    judge_sent(f);
    faults_after_send();
    world_later(f->answer.latency_ms, answered, (void *)(f - flights));
}

struct attempt_record attempt_record_of(const struct attempt *a) {
    return (struct attempt_record){.started_at = a->started_at,
                                   .latency_ms = (int32_t)(a->request.latency_us / 1000),
                                   .status = a->outcome.status,
                                   .error = a->outcome.error,
                                   .trigger = a->task.trigger,
                                   .worker_no = a->context->worker_no};
}

/* The process is done with it: the outcome was settled, or given up. */
void attempt_clear(struct attempt *a) {
    if (a->request.started_us >= 0 && a->context) {
        struct flight *f = &flights[a->request.started_us];
        CHECK(f->used && f->over && f->attempt == a);
        f->used = false;
    }
    subscription_unref(a->subscription);
    *a = (struct attempt){.request.started_us = -1};
}

void attempt_free(struct attempt *a) {
    attempt_clear(a);
    free(a);
}
