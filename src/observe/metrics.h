/* Counters, gauges and histograms, as Prometheus text (api.md §5). One struct metrics a process, passed to
 * whoever counts; every call is lock-free and safe from all threads. */
#pragma once

#include "base/bytes.h"
#include "core/delivery.h"
#include "core/retry.h"
#include "core/subscription.h"
#include "core/tenant.h"
#include "observe/source_series.h"

struct metrics;

enum metric_counter {
    METRIC_EVENTS_PUBLISHED,
    METRIC_LEASES_EXPIRED,
    METRIC_STALE_SETTLES, /* settles refused by their fencing token */
    METRIC_SPANS_EXPORTED,
    METRIC_SPANS_DROPPED,
    METRIC_COUNTERS,
};

enum metric_gauge {
    METRIC_FANOUT_JOBS_PENDING,
    METRIC_FANOUT_LAG_MS, /* age of the oldest event not fully expanded; rendered in seconds */
    METRIC_DELIVERIES_PENDING,
    METRIC_DELIVERY_QUEUE_LAG_MS, /* metrics_queue_lag, the greatest; rendered in seconds */
    METRIC_DLQ_SIZE,
    METRIC_BREAKER_OPEN,
    METRIC_STORE_QUEUE_PERMILLE, /* how full the queue of requests that wait for the disk is; shown as a ratio
                                  */
    METRIC_NODES,                /* on this store */
    METRIC_NODE_LEASE_MS,        /* left; rendered in seconds */
    METRIC_GAUGES,
};

enum metric_histogram {
    METRIC_ATTEMPT_DURATION,      /* seconds */
    METRIC_TIME_TO_FIRST_ATTEMPT, /* seconds */
    METRIC_ATTEMPTS_PER_DELIVERY,
    METRIC_STORE_COMMIT, /* seconds */
    METRIC_STORE_BATCH_SIZE,
    METRIC_HISTOGRAMS,
};

/* Why lanes hold back work. */
enum lane_wait {
    LANE_WAIT_NONE,
    LANE_WAIT_RATE_LIMIT,
    LANE_WAIT_CONCURRENCY,
    LANE_WAIT_BREAKER,
    LANE_WAIT_ORDERING,
    LANE_WAIT_PAUSED,
    LANE_WAITS
};
const char *lane_wait_name(enum lane_wait w); /* "rate_limit" …; NULL for none */

struct metrics *metrics_new(void); /* NULL when memory is out */
void metrics_free(struct metrics *m);
/* Series of each subscription too, for up to `max` of them; call it before anybody counts. -ENOMEM. */
int metrics_keep_subscriptions(struct metrics *m, unsigned max) MUST_USE;

/* The series of one more source, at most METRIC_SOURCES_MAX; call it before anybody renders. */
struct metric_source *metrics_keep_source(struct metrics *m, const char *name);

void metrics_count(struct metrics *m, enum metric_counter c, uint64_t n);
void metrics_gauge_set(struct metrics *m, enum metric_gauge g, int64_t v);
void metrics_gauge_add(struct metrics *m, enum metric_gauge g, int64_t delta);
void metrics_observe(struct metrics *m, enum metric_histogram h, double v);

void metrics_attempt(struct metrics *m, enum outcome_class class); /* posthorn_attempts_total{class} */
/* The same by subscription, when metrics_keep_subscriptions was called. */
void metrics_subscription_attempt(struct metrics *m, const struct subscription *s, enum outcome_class class);
/* An open delivery has closed: deliveries_pending, deliveries_total{outcome}, dlq_total{reason}, dlq_size. */
void metrics_delivery_closed(struct metrics *m, enum delivery_state to, enum delivery_reason why);
/* How overdue the longest-waiting delivery is that a delivery loop could send. */
enum { METRIC_LOOPS_MAX = 64 };
void metrics_queue_lag(struct metrics *m, unsigned loop, int64_t lag_ms);
void metrics_in_flight(struct metrics *m, enum tenant_tier tier, int64_t delta);  /* in_flight{tier} */
void metrics_throttled(struct metrics *m, enum lane_wait cause, int64_t delta);   /* lanes_throttled{cause} */
void metrics_partitions(struct metrics *m, enum tenant_tier tier, int64_t owned); /* partitions_owned{tier} */
/* posthorn_http_requests_total{route,code}; `route` is a pattern of the route table (static), never a path.
 */
void metrics_http(struct metrics *m, const char *route, int code);

/* The whole text, HELP and TYPE lines included. */
void metrics_render(struct metrics *m, struct buf *out);
