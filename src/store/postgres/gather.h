/* What a transaction gathers before it is written: rows whose insert nobody waits for, a table's in one
 * statement over arrays. Reading calls that look where they go call pg_flush first. */
#pragma once

#include "store/postgres/postgres.h"

/* Each table's columns, in the order of its INSERT (gather.c). */
enum pg_gathered {
    PG_EVENTS,
    PG_DELIVERIES,
    PG_IDEMPOTENCY,
    PG_ATTEMPTS,
    PG_TRANSITIONS,
    PG_DEAD,    /* what came into the DLQ, or left it */
    PG_REPLAYS, /* what became of deliveries that bulk replays have started */
    PG_OWED,    /* lane keys whose next is to be released */
    PG_GATHERED,
};

/* Of PG_DELIVERIES: the columns are those that ingest.c adds. */
#define PG_INSERT_DELIVERIES                                                                                 \
    "INSERT INTO deliveries_open (tenant, event, subscription, partition, state, attempts, node, due_at,"    \
    " lane_key, order_at, window_at, test, claimed_at, lease_until)"                                         \
    " SELECT tenant, event, subscription, partition, (claimed_at IS NOT NULL)::int,"                         \
    " (claimed_at IS NOT NULL)::int, node, due_at, lane_key, order_at, order_at, test, claimed_at,"          \
    " lease_until FROM unnest($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11) AS d(tenant, event, subscription,"         \
    " partition, node, due_at, lane_key, order_at, test, claimed_at, lease_until)"

/* The columns of a table, to which the caller adds one row; then pg_gathered. */
struct pg_column *pg_gather(struct pg_store *s, enum pg_gathered table);
/* Sends what there is when it has become much. */
int pg_gathered(struct pg_store *s, enum pg_gathered table) MUST_USE;

/* What is known of idempotency keys within the transaction (idempotency.c). */
int pg_keys_open(struct pg_store *s) MUST_USE;
void pg_keys_close(struct pg_store *s);
void pg_keys_forget(struct pg_store *s); /* it has ended, or a savepoint is rolled back */

/* Goes with every transition into the DLQ (1) or out of it (-1); retention takes out many. */
int pg_count_dead(struct pg_store *s, uint32_t tenant_no, uint32_t subscription_no,
                  enum delivery_reason reason, int64_t delta) MUST_USE;
int pg_add_transition(struct pg_store *s, uint32_t tenant_no, uint64_t event_key, uint32_t subscription_no,
                      int64_t at, enum delivery_state from, enum delivery_state to,
                      enum delivery_reason reason) MUST_USE;

/* A delivery that a bulk replay may have started ended an attempt, or closed without one. `attempts` since it
 * was replayed. Of one that was replayed by itself, or not at all, it does nothing. */
struct pg_replayed {
    uint32_t tenant_no, subscription_no;
    struct slice source; /* replay_source */
    uint32_t attempts;
    enum delivery_state to;
};
int pg_count_replayed_attempt(struct pg_store *s, const struct pg_replayed *d) MUST_USE;
int pg_count_replayed_waiting(struct pg_store *s, const struct pg_replayed *d,
                              enum delivery_reason reason) MUST_USE;
