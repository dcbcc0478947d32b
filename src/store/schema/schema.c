#include "store/schema/schema.h"

#include "base/embed.h"

/* Only so that the build sees that a .sql file has changed. */
#if __has_include("store/schema/schema_stamp.h")
#include "store/schema/schema_stamp.h"
#endif

/* SCHEMA_DIR is this folder's path, given by the build as a string literal. */
#define EMBED(symbol, file) EMBED_FILE(symbol, SCHEMA_DIR "/" file)

EMBED(sqlite_001_initial, "sqlite/001_initial.sql");
EMBED(sqlite_002_sealed_secrets, "sqlite/002_sealed_secrets.sql");
EMBED(sqlite_003_subscription_health, "sqlite/003_subscription_health.sql");
EMBED(sqlite_004_blocked_deliveries, "sqlite/004_blocked_deliveries.sql");
EMBED(sqlite_005_changed_subscriptions, "sqlite/005_changed_subscriptions.sql");
EMBED(sqlite_006_relane, "sqlite/006_relane.sql");
EMBED(sqlite_007_replays, "sqlite/007_replays.sql");
EMBED(sqlite_008_receipts, "sqlite/008_receipts.sql");
EMBED(sqlite_009_search, "sqlite/009_search.sql");
EMBED(sqlite_010_subscription_tls, "sqlite/010_subscription_tls.sql");
EMBED(sqlite_011_trace, "sqlite/011_trace.sql");
EMBED(sqlite_012_lane_states, "sqlite/012_lane_states.sql");
EMBED(sqlite_013_source_notes, "sqlite/013_source_notes.sql");
EMBED(sqlite_014_sealed_server_keys, "sqlite/014_sealed_server_keys.sql");
EMBED(sqlite_015_sealed_headers, "sqlite/015_sealed_headers.sql");
EMBED(sqlite_016_control_retention, "sqlite/016_control_retention.sql");
EMBED(sqlite_017_last_keys, "sqlite/017_last_keys.sql");

EMBED(postgres_001_initial, "postgres/001_initial.sql");
EMBED(postgres_002_sealed_server_keys, "postgres/002_sealed_server_keys.sql");
EMBED(postgres_003_sealed_headers, "postgres/003_sealed_headers.sql");
EMBED(postgres_004_tier_changes, "postgres/004_tier_changes.sql");
EMBED(postgres_005_control_retention, "postgres/005_control_retention.sql");
EMBED(postgres_006_last_keys, "postgres/006_last_keys.sql");

const char *const sqlite_migrations[] = {sqlite_001_initial,
                                         sqlite_002_sealed_secrets,
                                         sqlite_003_subscription_health,
                                         sqlite_004_blocked_deliveries,
                                         sqlite_005_changed_subscriptions,
                                         sqlite_006_relane,
                                         sqlite_007_replays,
                                         sqlite_008_receipts,
                                         sqlite_009_search,
                                         sqlite_010_subscription_tls,
                                         sqlite_011_trace,
                                         sqlite_012_lane_states,
                                         sqlite_013_source_notes,
                                         sqlite_014_sealed_server_keys,
                                         sqlite_015_sealed_headers,
                                         sqlite_016_control_retention,
                                         sqlite_017_last_keys};
const size_t sqlite_migrations_n = sizeof sqlite_migrations / sizeof sqlite_migrations[0];

const char *const postgres_migrations[] = {postgres_001_initial,           postgres_002_sealed_server_keys,
                                           postgres_003_sealed_headers,    postgres_004_tier_changes,
                                           postgres_005_control_retention, postgres_006_last_keys};
const size_t postgres_migrations_n = sizeof postgres_migrations / sizeof postgres_migrations[0];
const size_t postgres_runs_from[] = {1, 2, 3, 3, 5, 5};
_Static_assert(sizeof postgres_runs_from / sizeof postgres_runs_from[0] ==
                   sizeof postgres_migrations / sizeof postgres_migrations[0],
               "one of each migration");
