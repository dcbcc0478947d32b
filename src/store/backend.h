/* What stands behind store.h: a backend, a table of its calls. An opened store, and each of its readers,
 * begins with these structures. The calls' contracts are those of store.h, replay.h and upkeep.h: the table
 * takes its types from there, so that none of them can differ. */
#pragma once

#include "store/cluster.h"
#include "store/replay.h"
#include "store/upkeep.h"

/* By URL, on a store that need not be open. */
#define STORE_URL_CALLS(X) X(open) X(backup) X(check) X(restore) X(migrate)

/* One a line. */
/* clang-format off */

/* Of an open store: all but store_reader_open on the writer's thread. */
#define STORE_CALLS(X) \
    X(is_sealed) \
    X(unlock) \
    X(close) \
    X(begin) \
    X(commit) \
    X(rollback) \
    X(tidy) \
    X(savepoint) \
    X(savepoint_release) \
    X(savepoint_rollback) \
    X(last_key) \
    X(register_worker) \
    X(see_worker) \
    X(server_key) \
    X(insert_tenant) \
    X(update_tenant) \
    X(delete_tenant) \
    X(insert_subscription) \
    X(update_subscription) \
    X(set_health) X(set_lane_state) \
    X(delete_subscription) \
    X(close_deleted) \
    X(insert_secret) \
    X(expire_secrets) \
    X(put_tls) \
    X(get_tls) \
    X(insert_key) \
    X(revoke_key) \
    X(insert_audit) \
    X(get_tenant) \
    X(get_subscription) \
    X(get_signing_keys) \
    X(get_subscription_tenant) \
    X(count_subscriptions) \
    X(insert_events) \
    X(insert_idempotency) \
    X(expect_idempotency) X(find_idempotency) \
    X(insert_deliveries) \
    X(extend_log) \
    X(insert_job) \
    X(update_job) \
    X(list_jobs) \
    X(last_job) \
    X(get_event) \
    X(claim) \
    X(expire) \
    X(relane) \
    X(set_relaned) \
    X(list_lanes_due) \
    X(settle) \
    X(get_exhausted) \
    X(list_expired_leases) \
    X(retain) \
    X(retain_floor) \
    X(next_tenant) \
    X(retain_idempotency) \
    X(retain_control) \
    X(replay) \
    X(insert_receipt) \
    X(put_source_note) \
    X(get_source_note) \
    X(reader_open) \
    X(insert_replay) \
    X(next_replay) \
    X(update_replay) \
    X(cancel_replay) \
    X(cancel_replay_step) \
    X(delete_replay) \
    X(last_recovery) \
    X(retain_replays) \
    X(open_replay_lanes) \
    X(list_replay_lanes) \
    X(has_replay_lanes) \
    X(update_replay_lane) \
    X(delete_replay_lane) \
    X(find_replayable) \
    X(replay_missing) \
    X(take_replay_progress)

/* Of a reader. */
#define STORE_READER_CALLS(X) \
    X(read_tls) \
    X(reader_close) \
    X(reader_ping) \
    X(keep_house) \
    X(read_tenant) \
    X(list_tenants) \
    X(read_subscription) \
    X(find_subscription) \
    X(list_subscriptions) \
    X(each_subscription) X(each_lane_state) \
    X(list_secrets) \
    X(list_keys) \
    X(list_audit) \
    X(read_event) \
    X(list_events) \
    X(read_body) \
    X(read_delivery) \
    X(list_deliveries) \
    X(list_attempts) \
    X(list_transitions) \
    X(count_deliveries) \
    X(sum_dlq) \
    X(list_dlq_counts) \
    X(count_lane) \
    X(read_replay) \
    X(list_replays) \
    X(count_replayable)

/* Of a store that nodes share: of the store, then of a feed. */
#define STORE_CLUSTER_CALLS(X) \
    X(join) \
    X(heartbeat) \
    X(set_node_tiers) \
    X(change_tier) \
    X(set_tier_changes) \
    X(send_until) \
    X(bury_node) \
    X(take_partitions) \
    X(give_partitions) \
    X(take_job) \
    X(clashed) \
    X(be_alone) \
    X(try_duty) \
    X(feed_applied) \
    X(feed_open)

#define STORE_FEED_CALLS(X) \
    X(feed_close) \
    X(feed_view) \
    X(feed_changes) \
    X(feed_attempts) \
    X(feed_under_way) \
    X(feed_sending) \
    X(feed_tiers) \
    X(feed_lanes_due) \
    X(feed_tell) \
    X(feed_wait)

/* clang-format on */

struct store_cluster {
#define X(name) typeof(store_##name) *name;
    STORE_CLUSTER_CALLS(X)
    STORE_FEED_CALLS(X)
#undef X
};

struct store_backend {
    const char *scheme;                  /* of the URLs that are its own, with the colon */
    const struct store_cluster *cluster; /* NULL: it belongs to one process */
#define X(name) typeof(store_##name) *name;
    STORE_URL_CALLS(X)
    STORE_CALLS(X)
    STORE_READER_CALLS(X)
#undef X
};

struct store {
    const struct store_backend *backend;
};

struct store_reader {
    const struct store_backend *backend;
};

struct store_feed {
    const struct store_backend *backend;
};

extern const struct store_backend sqlite_backend, postgres_backend, postgresql_backend;

/* Returns r, and a message for whoever starts the program (this thread's, until the next one). */
int store_explain(int r, const char **ret_message, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Says that a schema is being brought up to date, which may take a while: nothing is served before. Of a
 * store that is made (from 0), or up to date, nothing. */
void store_say_upgrade(size_t from, size_t to);
