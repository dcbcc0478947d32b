/* Every table of the SQLite store but its logs, which PostgreSQL's indexes stand for. Rows that name no
 * tenant get that of what they belong to. */
#include "store/import/tables.h"

#define A2  "$1,$2"
#define A3  A2 ",$3"
#define A4  A3 ",$4"
#define A5  A4 ",$5"
#define A6  A5 ",$6"
#define A7  A6 ",$7"
#define A8  A7 ",$8"
#define A9  A8 ",$9"
#define A10 A9 ",$10"
#define A11 A10 ",$11"
#define A12 A11 ",$12"
#define A13 A12 ",$13"
#define A14 A13 ",$14"
#define A15 A14 ",$15"
#define A16 A15 ",$16"
#define A17 A16 ",$17"
#define A18 A17 ",$18"
#define A19 A18 ",$19"
#define A20 A19 ",$20"
#define A21 A20 ",$21"
#define A22 A21 ",$22"
#define A23 A22 ",$23"
#define A24 A23 ",$24"
#define A25 A24 ",$25"

/* `arguments`: as many as there are columns. */
#define TO(name_, columns, arguments)                                                                        \
    .name = name_, .insert = "INSERT INTO " name_ " (" columns ") SELECT * FROM unnest(" arguments ")",      \
    .is_used = "SELECT 1 FROM " name_ " LIMIT 1",                                                            \
    .declare = "DECLARE import_" name_ " NO SCROLL CURSOR FOR SELECT " columns " FROM " name_,               \
    .fetch = "FETCH 2000 FROM import_" name_, .close = "CLOSE import_" name_
/* Columns of the same names. */
#define SAME(name_, columns, arguments, rows, order)                                                         \
    TO(name_, columns, arguments), .select = "SELECT " columns " FROM " rows " ORDER BY " order,             \
                                   .count = "SELECT count(*) FROM " rows

const struct import_table import_tables[] = {
    {SAME("tenants", "no, id, doc, created_at, updated_at, deleted_at", A6, "tenants", "no"),
     .types = "ittlll"},
    {SAME("subscriptions",
          "tenant, no, key, tail, status, disabled_reason, doc, created_at, updated_at, resumed_at, "
          "failing_since, raised_since, jobs_settled, relane, headers, headers_key",
          A16, "subscriptions", "no"),
     .types = "iillittlllllllyi"},
    {TO("lane_states", "tenant, subscription, state, at", A4),
     .select = "SELECT s.tenant, l.subscription, l.state, 0 FROM lane_states l JOIN subscriptions s ON "
               "s.no=l.subscription",
     .count = "SELECT count(*) FROM lane_states", .types = "iiyl"},
    {SAME("seal_keys", "no, fingerprint", A2, "seal_keys", "no"), .types = "iy"},
    {SAME("secrets", "tenant, subscription, key, tail, scheme, seal_key, sealed, created_at, expires_at", A9,
          "secrets", "subscription, key, tail"),
     .types = "iilliiyll"},
    {SAME("subscription_tls", "tenant, subscription, seal_key, sealed", A4, "subscription_tls",
          "subscription"),
     .types = "iiiy"},
    {SAME("api_keys", "key, tail, hash, tenant, scopes, created_at, expires_at, revoked_at", A8, "api_keys",
          "key, tail"),
     .types = "llyiilll"},
    {SAME("audit", "no, at, tenant, actor, action, object, detail", A7, "audit", "no"), .types = "llitttt"},
    {SAME("server_keys", "name, bytes, seal_key", A3, "server_keys", "name"), .types = "tyi"},
    {SAME("source_notes", "source, item, text", A3, "source_notes", "source, item"), .types = "ttt"},
    {SAME("workers", "no, name, user_agent, started_at, seen_at", A5, "workers", "no"), .types = "ittll"},
    {SAME("events",
          "tenant, key, tail, type, schema_version, ordering_key, deliver_at, data_size, deliveries, "
          "has_job, body, trace",
          A12, "events", "key"),
     .types = "illttyliibyt"},
    {SAME("idempotency", "tenant, key, body_hash, events, created_at", A5, "idempotency", "tenant, key"),
     .types = "ityyl"},
    {SAME("fanout_jobs", "tenant, event, cursor, upper, deliveries, state, seq", A7, "fanout_jobs", "event"),
     .types = "illllil"},
    {TO("deliveries_open",
        "tenant, event, subscription, partition, state, attempts, base, uncounted, due_at, lease_until, "
        "lane_key, order_at, window_at, claimed_at, last_status, last_error, replay_source, replay_by, test, "
        "created_at",
        A20),
     .select = "SELECT tenant, event, subscription, partition_of(subscription), state, attempts, base, "
               "uncounted, due_at, lease_until, lane_key, order_at, window_at, claimed_at, last_status, "
               "last_error, replay_source, replay_by, test, created_at FROM deliveries WHERE state<>3 AND "
               "state<>4 ORDER BY event, subscription",
     .count = "SELECT count(*) FROM deliveries WHERE state<>3 AND state<>4", .types = "iliiiiiilllllliittbl"},
    {SAME("deliveries_closed",
          "tenant, event, subscription, state, attempts, base, uncounted, order_at, window_at, closed_at, "
          "last_status, last_error, reason, replay_source, replay_by, test, created_at",
          A17, "deliveries WHERE state=3 OR state=4", "event, subscription"),
     .types = "iliiiiillliiittbl"},
    {TO("attempts",
        "tenant, event, subscription, number, started_at, settled_at, to_state, reason, latency_ms, dns_ms, "
        "connect_ms, tls_ms, wait_ms, status, error, trigger, worker, url, content_type, request_headers, "
        "signature, response_headers, response_body, response_hash",
        A24),
     .select =
         "SELECT d.tenant, x.event, x.subscription, x.number, x.started_at, x.settled_at, x.to_state, "
         "x.reason, x.latency_ms, x.dns_ms, x.connect_ms, x.tls_ms, x.wait_ms, x.status, x.error, x.trigger, "
         "x.worker, x.url, x.content_type, x.request_headers, x.signature, x.response_headers, "
         "x.response_body, x.response_hash FROM attempts x CROSS JOIN deliveries d ON d.event=x.event AND "
         "d.subscription=x.subscription ORDER BY x.event, x.subscription, x.number",
     .count = "SELECT count(*) FROM attempts", .types = "iliilliiiiiiiiiiittytyyy"},
    {TO("transitions", "tenant, event, subscription, at, from_state, to_state, reason", A7),
     .select = "SELECT d.tenant, x.event, x.subscription, x.at, x.from_state, x.to_state, x.reason FROM "
               "transitions x CROSS JOIN deliveries d ON d.event=x.event AND d.subscription=x.subscription "
               "ORDER BY x.event, x.subscription, x.at",
     .count = "SELECT count(*) FROM transitions", .types = "ililiii"},
    {TO("receipts", "tenant, event, subscription, attempt, status, note, at", A7),
     .select = "SELECT d.tenant, x.event, x.subscription, x.attempt, x.status, x.note, x.at FROM receipts x "
               "CROSS JOIN deliveries d ON d.event=x.event AND d.subscription=x.subscription ORDER BY "
               "x.event, x.subscription",
     .count = "SELECT count(*) FROM receipts", .types = "iliiitl"},
    {SAME("replays",
          "tenant, key, tail, state, subscription, states, reasons, event_type, first_event, last_event, "
          "closed_after, include_missing, dry_run, per_second, most, requested_by, matched, started, done, "
          "failed, opened, served, paid_until, cancel_event, cancel_lane",
          A25, "replays", "key"),
     .types = "illiiiitlllbbiltlllllllli"},
    {TO("replay_lanes", "tenant, replay, subscription, cursor, share, outstanding, room", A7),
     .select = "SELECT r.tenant, l.replay, l.subscription, l.cursor, l.share, l.outstanding, l.room FROM "
               "replay_lanes l CROSS JOIN replays r ON r.key=l.replay ORDER BY l.replay, l.subscription",
     .count = "SELECT count(*) FROM replay_lanes", .types = "ililiii"},
    {SAME("dlq_counts", "tenant, subscription, reason, n", A4, "dlq_counts WHERE n<>0",
          "tenant, subscription, reason"),
     .types = "iiil"},
};
const size_t import_tables_n = sizeof import_tables / sizeof import_tables[0];
