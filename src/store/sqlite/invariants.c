/* What holds of every store between two transactions, as queries for what breaks it. `now` (?1) is the time
 * of the check.
 *
 * Retention deletes a delivery's rows in steps and may stand in the middle of one delivery a tenant: where
 * that is excused, two of a tenant are not. */
#include "store/sqlite/sqlite.h"

#define DELIVERY      "delivery_id(d.event, d.subscription) AS x"
#define FROM_DELIVERY "SELECT " DELIVERY " FROM deliveries d "
#define FROM_ATTEMPT  "SELECT " DELIVERY " FROM attempts d "
#define ATTEMPTS(what)                                                                                       \
    "(SELECT " what " FROM attempts a WHERE a.event=d.event AND a.subscription=d.subscription)"
#define ORPHANS(table)                                                                                       \
    "SELECT " DELIVERY " FROM " table " d WHERE NOT EXISTS (SELECT 1 FROM deliveries o"                      \
    " WHERE o.event=d.event AND o.subscription=d.subscription)"
#define IDEMPOTENT_EVENT(offset)                                                                             \
    "NOT EXISTS (SELECT 1 FROM events e WHERE e.key=u64_at(i.events, " offset ") AND e.tenant=i.tenant)"

const struct invariant invariants[] = {
    /* What belongs together. */
    {"deliveries without their event",
     FROM_DELIVERY "WHERE NOT EXISTS (SELECT 1 FROM events e WHERE e.key=d.event)"},
    {"deliveries of another tenant than their event's",
     FROM_DELIVERY "CROSS JOIN events e ON e.key=d.event WHERE e.tenant<>d.tenant"},
    {"deliveries without their subscription",
     FROM_DELIVERY "WHERE NOT EXISTS (SELECT 1 FROM subscriptions s WHERE s.no=d.subscription"
                   " AND s.tenant=d.tenant)"},
    {"attempts without their delivery", ORPHANS("attempts")},
    {"transitions without their delivery", ORPHANS("transitions")},
    {"receipts without their delivery", ORPHANS("receipts")},
    {"entries of the log by subscription without their delivery", ORPHANS("subscription_log")},
    {"subscriptions without their tenant",
     "SELECT 'subscription ' || no AS x FROM subscriptions s WHERE tenant<>0 AND NOT EXISTS"
     " (SELECT 1 FROM tenants t WHERE t.no=s.tenant)"},
    {"keys of a tenant that there is not",
     "SELECT 'tenant ' || tenant AS x FROM api_keys k WHERE tenant<>0 AND NOT EXISTS"
     " (SELECT 1 FROM tenants t WHERE t.no=k.tenant)"},

    /* The state machine. */
    {"deliveries in a state that there is none of", FROM_DELIVERY "WHERE d.state NOT BETWEEN 0 AND 5"},
    {"ATTEMPTING deliveries without a lease or a number",
     FROM_DELIVERY "WHERE d.state=1 AND (d.lease_until IS NULL OR d.claimed_at IS NULL OR d.attempts<1)"},
    {"leases on deliveries that are not ATTEMPTING",
     FROM_DELIVERY "WHERE d.state<>1 AND (d.lease_until IS NOT NULL OR d.claimed_at IS NOT NULL)"},
    {"ATTEMPTING deliveries that could be claimed once more",
     FROM_DELIVERY "WHERE d.state=1 AND d.due_at IS NOT NULL"},
    {"closed deliveries that still stand in a lane",
     FROM_DELIVERY "WHERE (d.state=3 OR d.state=4) AND (d.due_at IS NOT NULL OR d.lane_key IS NOT NULL)"},
    {"deliveries whose time of closing does not fit their state",
     FROM_DELIVERY "WHERE (d.state=3 OR d.state=4)<>(d.closed_at IS NOT NULL)"},
    {"DLQ deliveries without a reason", FROM_DELIVERY "WHERE d.state=4 AND (d.reason IS NULL OR d.reason<1)"},
    {"reasons on deliveries that are not in the DLQ",
     FROM_DELIVERY "WHERE d.state<>4 AND d.reason IS NOT NULL"},
    {"PENDING deliveries that have been attempted", FROM_DELIVERY "WHERE d.state=0 AND d.attempts>0"},
    {"RETRY deliveries that have not been attempted", FROM_DELIVERY "WHERE d.state=2 AND d.attempts=0"},
    {"REPLAYING deliveries that nobody asked for", FROM_DELIVERY "WHERE d.state=5 AND d.replay_by IS NULL"},
    {"counts of attempts that do not add up",
     FROM_DELIVERY "WHERE d.base<0 OR d.uncounted<0 OR d.base+d.uncounted>d.attempts"},

    /* Lanes. */
    {"deliveries that wait and are due never",
     FROM_DELIVERY "WHERE (d.state=0 OR d.state=2 OR d.state=5) AND d.lane_key IS NULL AND d.due_at IS NULL"},
    {"ordered lane keys of which nothing may go",
     "SELECT delivery_id(h.event, h.subscription) AS x FROM (SELECT event, subscription, lane_key, state, "
     "due_at,"
     " row_number() OVER (PARTITION BY subscription, lane_key ORDER BY order_at, event) AS place FROM "
     "deliveries"
     " WHERE lane_key IS NOT NULL) h WHERE place=1 AND due_at IS NULL AND state<>1 AND NOT EXISTS (SELECT 1 "
     "FROM"
     " deliveries o WHERE o.subscription=h.subscription AND o.lane_key=h.lane_key AND o.state=1) AND NOT "
     "EXISTS"
     " (SELECT 1 FROM subscriptions s WHERE s.no=h.subscription AND s.relane IS NOT NULL)"},
    {"ordered lane keys of which several are ATTEMPTING",
     "SELECT 'subscription ' || subscription || ', lane key ' || lane_key AS x FROM deliveries d WHERE "
     "lane_key"
     " IS NOT NULL AND state=1 AND NOT EXISTS (SELECT 1 FROM subscriptions s WHERE s.no=d.subscription AND"
     " s.relane IS NOT NULL) GROUP BY subscription, lane_key HAVING count(*)>1"},

    /* Attempts. */
    {"open deliveries whose recorded attempts are not those that ended",
     FROM_DELIVERY "WHERE d.state<>3 AND d.state<>4 AND d.attempts-(d.state=1)<>" ATTEMPTS("count(*)")},
    {"closed deliveries with gaps in their recorded attempts",
     FROM_DELIVERY "WHERE (d.state=3 OR d.state=4) AND " ATTEMPTS(
         "count(*)>0 AND (max(number)<>d.attempts OR max(number)-min(number)+1<>count(*))")},
    {"closed deliveries of which recorded attempts are missing",
     "SELECT min(x) AS x FROM (SELECT d.tenant, " DELIVERY
     " FROM deliveries d WHERE (d.state=3 OR d.state=4) AND"
     " d.attempts>" ATTEMPTS("count(*)") ") GROUP BY tenant HAVING count(*)>1"},
    {"DELIVERED deliveries whose last attempt was no success",
     FROM_DELIVERY "CROSS JOIN attempts a ON a.event=d.event AND a.subscription=d.subscription AND"
                   " a.number=d.attempts WHERE d.state=3 AND a.to_state<>3"},

    /* Fan-out. */
    {"fan-out jobs without their event",
     "SELECT 'event ' || event AS x FROM fanout_jobs j WHERE NOT EXISTS (SELECT 1 FROM events e WHERE"
     " e.key=j.event AND e.has_job)"},
    {"events without the fan-out job that they have",
     "SELECT 'event ' || key AS x FROM events e WHERE has_job AND NOT EXISTS (SELECT 1 FROM fanout_jobs j "
     "WHERE"
     " j.event=e.key)"},
    {"fan-out jobs that stand where none can",
     "SELECT 'event ' || event AS x FROM fanout_jobs WHERE state NOT BETWEEN 0 AND 2 OR cursor>upper"},
    {"fan-out jobs that count more deliveries than there are",
     "SELECT 'event ' || event AS x FROM fanout_jobs j WHERE state<>2 AND deliveries>(SELECT count(*) FROM"
     " deliveries d WHERE d.event=j.event)"},

    /* Counters and logs that stand for rows elsewhere. */
    {"counts of the DLQ that are not what is in it",
     "SELECT 'subscription ' || subscription || ', reason ' || reason AS x FROM (SELECT subscription, "
     "reason, n"
     " FROM dlq_counts UNION ALL SELECT subscription, reason, -1 FROM deliveries WHERE state=4)"
     " GROUP BY subscription, reason HAVING sum(n)<>0"},
    {"deliveries that the log by subscription lacks",
     "SELECT min(x) AS x FROM (SELECT d.tenant, " DELIVERY
     " FROM deliveries d WHERE d.event<=(SELECT value FROM"
     " marks WHERE name='log_watermark') AND NOT EXISTS (SELECT 1 FROM subscription_log l WHERE"
     " l.hour=d.event >> 34 AND l.subscription=d.subscription AND l.event=d.event))"
     " GROUP BY tenant HAVING count(*)>1"},
    {"events that the log by type lacks", "SELECT 'event ' || key AS x FROM events e WHERE key<=(SELECT "
                                          "value FROM marks WHERE name='type_watermark')"
                                          " AND NOT EXISTS (SELECT 1 FROM type_log l WHERE l.hour=e.key >> "
                                          "34 AND l.type=type_hash(e.tenant, e.type)"
                                          " AND l.event=e.key)"},
    {"replays' lanes that do not add up, or without their replay",
     "SELECT 'replay ' || replay || ', subscription ' || subscription AS x FROM replay_lanes l WHERE"
     " outstanding<0 OR room<>share-2*outstanding OR NOT EXISTS (SELECT 1 FROM replays r WHERE "
     "r.key=l.replay)"},

    /* Idempotency: retention may have taken the events of a key after a day, and those of a deleted tenant.
     */
    {"idempotency keys that are malformed",
     "SELECT 'key of tenant ' || tenant AS x FROM idempotency WHERE length(events)=0 OR length(events)%16<>0"
     " OR length(body_hash)<>32"},
    {"idempotency keys without their events",
     "SELECT 'key of tenant ' || i.tenant AS x FROM idempotency i CROSS JOIN tenants t ON t.no=i.tenant"
     " WHERE t.deleted_at IS NULL AND i.created_at>?1-82800000 AND (" IDEMPOTENT_EVENT(
         "0") " OR " IDEMPOTENT_EVENT("length(i.events)-16") ")"},

    /* Secrets. */
    {"secrets that no known key has sealed",
     "SELECT 'subscription ' || subscription AS x FROM (SELECT subscription, seal_key FROM secrets UNION ALL"
     " SELECT subscription, seal_key FROM subscription_tls) s WHERE NOT EXISTS (SELECT 1 FROM seal_keys k "
     "WHERE"
     " k.no=s.seal_key)"},
    {"keys of the server's own that no known key has sealed",
     "SELECT name AS x FROM server_keys s WHERE seal_key IS NOT NULL AND NOT EXISTS (SELECT 1 FROM seal_keys "
     "k WHERE k.no=s.seal_key)"},
    {"headers that no known key has sealed",
     "SELECT 'subscription ' || no AS x FROM subscriptions s WHERE (headers IS NULL)<>(headers_key IS NULL)"
     " OR headers_key IS NOT NULL AND NOT EXISTS (SELECT 1 FROM seal_keys k WHERE k.no=s.headers_key)"},
    {"headers of deleted subscriptions",
     "SELECT 'subscription ' || no AS x FROM subscriptions WHERE status=3 AND headers IS NOT NULL"},
    {"headers that lie in clear", "SELECT x FROM (SELECT 'subscription ' || no AS x FROM subscriptions WHERE "
                                  "CASE WHEN json_valid(doc) THEN"
                                  " json_extract(doc, '$.headers')<>'{}' END UNION ALL " FROM_ATTEMPT
                                  "WHERE typeof(request_headers)='text') WHERE NOT EXISTS"
                                  " (SELECT 1 FROM marks WHERE name='headers_in_clear')"},
    {"secrets of no live subscription",
     "SELECT 'subscription ' || subscription AS x FROM (SELECT subscription FROM secrets UNION ALL SELECT"
     " subscription FROM subscription_tls) x WHERE NOT EXISTS (SELECT 1 FROM subscriptions s WHERE"
     " s.no=x.subscription AND s.status<>3)"},
};
const size_t invariants_n = sizeof invariants / sizeof invariants[0];
