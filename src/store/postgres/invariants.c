/* What holds of every store between two transactions, as queries for what breaks it; after
 * store/sqlite/invariants.c, where the tables differ.
 *
 * Retention deletes a delivery's rows in steps and may stand in the middle of one delivery a tenant: where
 * that is excused, two of a tenant are not. */
#include "store/postgres/invariants.h"

#define COUNT(sql)  "SELECT count(*), min(x) FROM (" sql ") q"
#define DELIVERY    "d.event || '/' || d.subscription AS x"
#define FROM_OPEN   "SELECT " DELIVERY " FROM deliveries_open d "
#define FROM_CLOSED "SELECT " DELIVERY " FROM deliveries_closed d "
#define SAME(a, b)                                                                                           \
    a ".tenant=" b ".tenant AND " a ".event=" b ".event AND " a ".subscription=" b ".subscription"
#define NOT_IN(table) "NOT EXISTS (SELECT 1 FROM " table " o WHERE " SAME("o", "d") ")"
#define ORPHANS(table)                                                                                       \
    COUNT("SELECT " DELIVERY " FROM " table                                                                  \
          " d WHERE " NOT_IN("deliveries_open") " AND " NOT_IN("deliveries_closed"))
#define WITHOUT_EVENT "WHERE NOT EXISTS (SELECT 1 FROM events e WHERE e.tenant=d.tenant AND e.key=d.event)"
#define WITHOUT_SUBSCRIPTION                                                                                 \
    "WHERE NOT EXISTS (SELECT 1 FROM subscriptions s WHERE s.tenant=d.tenant AND s.no=d.subscription)"
#define ATTEMPTS                                                                                             \
    "LEFT JOIN (SELECT tenant, event, subscription, count(*) AS n, min(number) AS first, max(number) AS "    \
    "last FROM attempts GROUP BY tenant, event, subscription) a ON " SAME("a", "d") " "
#define RELANED                                                                                              \
    "NOT EXISTS (SELECT 1 FROM subscriptions s WHERE s.tenant=d.tenant AND s.no=d.subscription AND "         \
    "s.relane "                                                                                              \
    "IS NOT NULL)"
#define LANE_KEY "'subscription ' || d.subscription || ', lane key ' || d.lane_key AS x"
/* An id's key, the first 8 bytes from an offset on. */
#define IDEMPOTENT_EVENT(offset)                                                                             \
    "NOT EXISTS (SELECT 1 FROM events e WHERE e.tenant=i.tenant AND e.key=('x' || "                          \
    "encode(substr(i.events, " offset ", 8), 'hex'))::bit(64)::bigint)"

const struct pg_invariant pg_invariants[] = {
    /* What belongs together. */
    {"deliveries both open and closed",
     COUNT("SELECT " DELIVERY " FROM deliveries_open d JOIN deliveries_closed c ON " SAME("c", "d"))},
    {"open deliveries without their event", COUNT(FROM_OPEN WITHOUT_EVENT)},
    {"closed deliveries without their event", COUNT(FROM_CLOSED WITHOUT_EVENT)},
    {"open deliveries without their subscription", COUNT(FROM_OPEN WITHOUT_SUBSCRIPTION)},
    {"closed deliveries without their subscription", COUNT(FROM_CLOSED WITHOUT_SUBSCRIPTION)},
    {"attempts without their delivery", ORPHANS("attempts")},
    {"transitions without their delivery", ORPHANS("transitions")},
    {"receipts without their delivery", ORPHANS("receipts")},
    {"subscriptions without their tenant",
     COUNT("SELECT 'subscription ' || no AS x FROM subscriptions s WHERE tenant<>0 AND NOT EXISTS (SELECT 1 "
           "FROM tenants t WHERE t.no=s.tenant)")},
    {"keys of a tenant that there is not",
     COUNT("SELECT 'tenant ' || tenant AS x FROM api_keys k WHERE tenant<>0 AND NOT EXISTS (SELECT 1 FROM "
           "tenants t WHERE t.no=k.tenant)")},

    /* The state machine. */
    {"open deliveries in a state that is none of theirs",
     COUNT(FROM_OPEN "WHERE d.state NOT IN (0, 1, 2, 5)")},
    {"closed deliveries in a state that is none of theirs", COUNT(FROM_CLOSED "WHERE d.state NOT IN (3, 4)")},
    {"ATTEMPTING deliveries without a lease or a number",
     COUNT(FROM_OPEN "WHERE d.state=1 AND (d.lease_until IS NULL OR d.claimed_at IS NULL OR d.attempts<1)")},
    {"leases on deliveries that are not ATTEMPTING",
     COUNT(FROM_OPEN "WHERE d.state<>1 AND (d.lease_until IS NOT NULL OR d.claimed_at IS NOT NULL)")},
    {"ATTEMPTING deliveries that could be claimed once more",
     COUNT(FROM_OPEN "WHERE d.state=1 AND d.due_at IS NOT NULL")},
    {"DLQ deliveries without a reason",
     COUNT(FROM_CLOSED "WHERE d.state=4 AND (d.reason IS NULL OR d.reason<1)")},
    {"reasons on deliveries that are not in the DLQ",
     COUNT(FROM_CLOSED "WHERE d.state<>4 AND d.reason IS NOT NULL")},
    {"PENDING deliveries that have been attempted", COUNT(FROM_OPEN "WHERE d.state=0 AND d.attempts>0")},
    {"RETRY deliveries that have not been attempted", COUNT(FROM_OPEN "WHERE d.state=2 AND d.attempts=0")},
    {"REPLAYING deliveries that nobody asked for",
     COUNT(FROM_OPEN "WHERE d.state=5 AND d.replay_by IS NULL")},
    {"counts of attempts that do not add up",
     COUNT("SELECT " DELIVERY " FROM (SELECT event, subscription, base, uncounted, attempts FROM "
           "deliveries_open UNION ALL SELECT event, subscription, base, uncounted, attempts FROM "
           "deliveries_closed) d WHERE d.base<0 OR d.uncounted<0 OR d.base+d.uncounted>d.attempts")},

    /* Lanes. */
    {"deliveries that wait and are due never",
     COUNT(FROM_OPEN "WHERE d.state<>1 AND d.lane_key IS NULL AND d.due_at IS NULL")},
    {"ordered lane keys of which nothing may go",
     COUNT("SELECT " LANE_KEY " FROM deliveries_open d WHERE d.lane_key IS NOT NULL AND " RELANED
           " GROUP BY d.subscription, d.lane_key HAVING bool_and(d.due_at IS NULL AND d.state<>1)")},
    {"ordered lane keys of which several are ATTEMPTING",
     COUNT("SELECT " LANE_KEY
           " FROM deliveries_open d WHERE d.lane_key IS NOT NULL AND d.state=1 AND " RELANED
           " GROUP BY d.subscription, d.lane_key HAVING count(*)>1")},

    /* Attempts. */
    {"open deliveries whose recorded attempts are not those that ended",
     COUNT(FROM_OPEN ATTEMPTS "WHERE d.attempts-(d.state=1)::integer<>coalesce(a.n, 0)")},
    {"closed deliveries with gaps in their recorded attempts",
     COUNT(FROM_CLOSED ATTEMPTS "WHERE a.last<>d.attempts OR a.last-a.first+1<>a.n")},
    {"closed deliveries of which recorded attempts are missing",
     COUNT("SELECT min(x) AS x FROM (SELECT d.tenant, " DELIVERY " FROM deliveries_closed d " ATTEMPTS
           "WHERE d.attempts>coalesce(a.n, 0)) m GROUP BY tenant HAVING count(*)>1")},
    {"DELIVERED deliveries whose last attempt was no success",
     COUNT(FROM_CLOSED "JOIN attempts a ON " SAME(
         "a", "d") " AND a.number=d.attempts WHERE d.state=3 AND a.to_state<>3")},

    /* Fan-out. */
    {"fan-out jobs without their event",
     COUNT("SELECT 'event ' || event AS x FROM fanout_jobs j WHERE NOT EXISTS (SELECT 1 FROM events e WHERE "
           "e.tenant=j.tenant AND e.key=j.event AND e.has_job)")},
    {"events without the fan-out job that they have",
     COUNT(
         "SELECT 'event ' || key AS x FROM events e WHERE has_job AND NOT EXISTS (SELECT 1 FROM fanout_jobs "
         "j WHERE j.tenant=e.tenant AND j.event=e.key)")},
    {"fan-out jobs that stand where none can",
     COUNT("SELECT 'event ' || event AS x FROM fanout_jobs WHERE state NOT BETWEEN 0 AND 2 OR cursor>upper")},
    {"fan-out jobs that count more deliveries than there are",
     COUNT("SELECT 'event ' || event AS x FROM fanout_jobs j WHERE state<>2 AND deliveries>(SELECT count(*) "
           "FROM deliveries_open d WHERE d.tenant=j.tenant AND d.event=j.event)+(SELECT count(*) FROM "
           "deliveries_closed d WHERE d.tenant=j.tenant AND d.event=j.event)")},

    /* Counts that stand for rows elsewhere. */
    {"counts of the DLQ that are not what is in it",
     COUNT("SELECT 'subscription ' || subscription || ', reason ' || reason AS x FROM (SELECT tenant, "
           "subscription, reason, n FROM dlq_counts UNION ALL SELECT tenant, subscription, reason, -1 FROM "
           "deliveries_closed WHERE state=4) c GROUP BY tenant, subscription, reason HAVING sum(n)<>0")},
    {"replays' lanes that do not add up, or without their replay",
     COUNT("SELECT 'replay ' || replay || ', subscription ' || subscription AS x FROM replay_lanes l WHERE "
           "outstanding<0 OR room<>share-2*outstanding OR NOT EXISTS (SELECT 1 FROM replays r WHERE "
           "r.tenant=l.tenant AND r.key=l.replay)")},

    /* Idempotency: retention may have taken the events of a key after a day, and those of a deleted tenant.
     */
    {"idempotency keys that are malformed",
     COUNT("SELECT 'key of tenant ' || tenant AS x FROM idempotency WHERE length(events)=0 OR "
           "length(events)%16<>0 OR length(body_hash)<>32")},
    {"idempotency keys without their events",
     COUNT(
         "SELECT 'key of tenant ' || i.tenant AS x FROM idempotency i JOIN tenants t ON t.no=i.tenant WHERE "
         "t.deleted_at IS NULL AND i.created_at>$1-82800000 AND length(i.events)>=16 AND (" IDEMPOTENT_EVENT(
             "1") " OR " IDEMPOTENT_EVENT("length(i.events)-15") ")")},

    /* Secrets. */
    {"secrets that no known key has sealed",
     COUNT(
         "SELECT 'subscription ' || subscription AS x FROM (SELECT subscription, seal_key FROM secrets UNION "
         "ALL SELECT subscription, seal_key FROM subscription_tls) s WHERE NOT EXISTS (SELECT 1 FROM "
         "seal_keys k WHERE k.no=s.seal_key)")},
    {"keys of the server's own that no known key has sealed",
     COUNT("SELECT name AS x FROM server_keys s WHERE seal_key IS NOT NULL AND NOT EXISTS (SELECT 1 FROM "
           "seal_keys k WHERE k.no=s.seal_key)")},
    {"headers that no known key has sealed",
     COUNT("SELECT 'subscription ' || no AS x FROM subscriptions s WHERE (headers IS NULL)<>(headers_key IS "
           "NULL) OR headers_key IS NOT NULL AND NOT EXISTS (SELECT 1 FROM seal_keys k WHERE "
           "k.no=s.headers_key)")},
    {"headers of deleted subscriptions",
     COUNT("SELECT 'subscription ' || no AS x FROM subscriptions WHERE status=3 AND headers IS NOT NULL")},
    {"headers that lie in clear",
     COUNT(
         "SELECT x FROM (SELECT 'subscription ' || no AS x FROM subscriptions WHERE CASE WHEN position("
         "'\"headers\":{\"' IN doc)>0 THEN doc::json->>'headers'<>'{}' END UNION ALL SELECT " DELIVERY
         " FROM attempts d WHERE request_headers_clear IS NOT NULL) c WHERE NOT EXISTS (SELECT 1 FROM marks "
         "WHERE name='headers_in_clear')")},
    {"secrets of no live subscription",
     COUNT("SELECT 'subscription ' || subscription AS x FROM (SELECT tenant, subscription FROM secrets UNION "
           "ALL SELECT tenant, subscription FROM subscription_tls) d " WITHOUT_SUBSCRIPTION
           " OR EXISTS (SELECT 1 FROM subscriptions s WHERE s.tenant=d.tenant AND s.no=d.subscription AND "
           "s.status=3)")},

    /* Nodes. */
    {"partitions of a node that is gone",
     COUNT(
         "SELECT 'tier ' || tier || ', partition ' || p.no AS x FROM partitions p WHERE node IS NOT NULL AND "
         "NOT EXISTS (SELECT 1 FROM nodes n WHERE n.no=p.node)")},
    {"partitions that are missing",
     COUNT("SELECT 'tier ' || tier || ', partition ' || no AS x FROM generate_series(0, 2) tier, "
           "generate_series(0, 1023) no WHERE NOT EXISTS (SELECT 1 FROM partitions p WHERE p.tier=tier.tier "
           "AND "
           "p.no=no.no)")},
    /* While nobody serves, nobody makes them. */
    {"days that should have been made by now",
     COUNT("SELECT day_name(parent, day) AS x FROM unnest(ARRAY['events', 'deliveries_closed', 'attempts', "
           "'transitions', 'receipts']) parent, generate_series(($1/86400000)::integer+1, "
           "($1/86400000)::integer+2) day WHERE to_regclass(day_name(parent, day)) IS NULL AND EXISTS "
           "(SELECT 1 "
           "FROM nodes WHERE lease_until>$1 AND started_at<$1-60000)")},
};
const size_t pg_invariants_n = sizeof pg_invariants / sizeof pg_invariants[0];
