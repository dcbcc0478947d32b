#include "cli/client/client.h"
#include "cli/client/verb.h"
#include "cli/client/watch.h"

static const struct column columns[] = {
    {"ID", "id", false},
    {"STATE", "state", true},
    {"TRIES", "attempt_count", false},
    {"CODE", "last_status_code", false},
    {"ERROR", "last_error", false},
    {"TYPE", "event_type", false},
    {"SUBSCRIPTION", "subscription_id", false},
    {"NEXT ATTEMPT", "next_attempt_at", false},
    {"REASON", "failure_reason", false},
};
static const struct column attempt_columns[] = {
    {"NUMBER", "number", false}, {"STARTED", "started_at", false}, {"CODE", "status_code", false},
    {"ERROR", "error", false},   {"MS", "latency_ms", false},      {"TRIGGER", "trigger", false},
    {"URL", "url", false},
};
static const struct column timeline_columns[] = {
    {"AT", "at", false},
    {"FROM", "from", true},
    {"TO", "to", true},
    {"REASON", "reason", false},
};
static const struct column count_columns[] = {
    {"SUBSCRIPTION", "subscription_id", false},
    {"TOTAL", "total", false},
    {"BY REASON", "by_reason", false},
};
static const struct view list = {COLUMNS(columns)}, attempts = {COLUMNS(attempt_columns)}, plain = {0};
static const struct view record = {.sections = {{"Attempts", "attempts", COLUMNS(attempt_columns)},
                                                {"Timeline", "timeline", COLUMNS(timeline_columns)}}};
static const struct view counts = {.sections = {{"By subscription", "data", COLUMNS(count_columns)}}};

#define FILTERS                                                                                                \
    {"state",  "STATE", "pending, attempting, retry, delivered, dlq or replaying", OPTION_TEXT,                \
     IN_QUERY, "state", "pending attempting retry delivered dlq replaying"},                                   \
        {"subscription", "ID", "of this subscription", OPTION_TEXT, IN_QUERY, "subscription_id", NULL},        \
        {"event", "ID", "of this event", OPTION_TEXT, IN_QUERY, "event_id", NULL},                             \
        {"type", "TYPE", "of events of this type", OPTION_TEXT, IN_QUERY, "event_type", NULL},                 \
        {"ordering-key", "TEXT", "of events with this ordering key", OPTION_TEXT, IN_QUERY,                    \
         "ordering_key", NULL},                                                                                \
        {"status-code", "CODE", "whose last answer was this", OPTION_TEXT, IN_QUERY, "status_code", NULL},     \
        {"error",  "CODE",  "whose last error was this: timeout, connect_refused, dns, tls, …",   OPTION_TEXT, \
         IN_QUERY, "error", "timeout connect_refused dns tls blocked_address reset lease_expired"},            \
        {"reason",                                                                                             \
         "CODE",                                                                                               \
         "in the dead-letter queue for this reason",                                                           \
         OPTION_TEXT,                                                                                          \
         IN_QUERY,                                                                                             \
         "failure_reason",                                                                                     \
         "attempts_exhausted window_expired permanent_response gone blocked_address"},                         \
        {"since", "TIME", "created then or later; \"2h\" is two hours ago", OPTION_PAST, IN_QUERY,             \
         "since", NULL},                                                                                       \
        {"until", "TIME", "created before", OPTION_PAST, IN_QUERY, "until", NULL},

static const struct option filters[] = {FILTERS};
static const struct option watch_filters[] = {
    FILTERS{"interval-ms", "MS", "how often it looks (default 1000)", OPTION_NUMBER, IN_COMMAND, NULL, NULL},
};
static const struct option count_filters[] = {
    {"subscription", "ID", "of this subscription alone", OPTION_TEXT, IN_QUERY, "subscription_id", NULL},
    {"limit", "N", "subscriptions a page (default 50)", OPTION_TEXT, IN_QUERY, "limit", NULL},
    {"cursor", "CURSOR", "go on from where an earlier page ended", OPTION_TEXT, IN_QUERY, "cursor", NULL},
};
static const struct option receipt_fields[] = {
    {"token", "TOKEN", "the header posthorn-receipt-token of the delivery", OPTION_TEXT, IN_HEADER,
     "posthorn-receipt-token", NULL},
    {"status", "STATUS", "processed or failed", OPTION_TEXT, IN_BODY, "status", "processed failed"},
    {"note", "TEXT", "what to remember of it", OPTION_TEXT, IN_BODY, "note", NULL},
};

#define ALL "/v1/tenants/{t}/deliveries"

static const struct verb verbs[] = {
    {.name = "list",
     .summary = "list deliveries, newest first",
     .examples = "posthorn delivery list --tenant acme --state dlq --since 24h\n"
                 "posthorn delivery list --tenant acme --error timeout --all --json\n",
     .method = "GET",
     .path = ALL,
     OPTIONS(filters),
     .view = &list},
    {.name = "get",
     .arguments = "ID",
     .summary = "show a delivery, its attempts and its timeline",
     .method = "GET",
     .path = ALL "/{id}",
     .view = &record},
    {.name = "attempts",
     .arguments = "ID",
     .summary = "list the attempts of a delivery, oldest first",
     .details = "With --json also headers and the first 4 KiB of each answer.\n",
     .method = "GET",
     .path = ALL "/{id}/attempts",
     .view = &attempts},
    {.name = "watch",
     .summary = "show deliveries as they change, until Ctrl-C",
     .details = "Begins with the last ten. The newest 1,000 that match are watched; with --json each change "
                "is a line of JSON.\n",
     .examples = "posthorn delivery watch --tenant acme\n"
                 "posthorn delivery watch --tenant acme --state dlq --json | jq -r .failure_reason\n",
     .method = "GET",
     .path = ALL,
     OPTIONS(watch_filters),
     .view = &plain,
     .run = watch_run},
    {.name = "replay",
     .arguments = "ID",
     .summary = "send a closed delivery again: the same ids, the same bytes",
     .examples = "posthorn delivery replay dlv_… --tenant acme\n",
     .method = "POST",
     .path = ALL "/{id}/replay",
     .view = &plain},
    {.name = "counts",
     .summary = "count the dead-letter queue by reason and subscription",
     .method = "GET",
     .path = ALL "/counts",
     OPTIONS(count_filters),
     .view = &counts},
    {.name = "receipt",
     .arguments = "ID",
     .summary = "tell, as the subscriber, what became of a delivery",
     .examples = "posthorn delivery receipt dlv_… --tenant acme --token TOKEN --status processed\n",
     .method = "POST",
     .path = ALL "/{id}/receipt",
     OPTIONS(receipt_fields),
     .view = &plain,
     .keyless = true},
};

const struct command delivery_command = {
    .name = "delivery",
    .summary = "one event to one subscription: what was sent, what came back",
    .details = "States: PENDING, ATTEMPTING, RETRY, DELIVERED, DLQ (the dead-letter queue) and REPLAYING.\n",
    .examples =
        "posthorn delivery list --tenant acme --state dlq\nposthorn delivery get dlv_… --tenant acme\n",
    VERBS(verbs),
};
