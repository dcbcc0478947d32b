#include "cli/client/client.h"
#include "cli/client/verb.h"

static const struct column columns[] = {
    {"ID", "id", false},
    {"STATE", "state", true},
    {"MATCHED", "matched", false},
    {"DONE", "done", false},
    {"FAILED", "failed", false},
    {"REQUESTED BY", "requested_by", false},
    {"CREATED", "created_at", false},
};
static const struct view list = {COLUMNS(columns)}, record = {0};

static const struct option fields[] = {
    {"subscription", "ID", "of this subscription alone", OPTION_TEXT, IN_BODY, "subscription_id", NULL},
    {"state", "STATE", "dlq (the default), delivered or both", OPTION_LIST, IN_BODY, "states",
     "dlq delivered"},
    {"type", "TYPE", "of events of this type; \"invoice.*\" is one, too", OPTION_TEXT, IN_BODY, "event_type",
     NULL},
    {"since", "TIME", "of events created then or later; \"2h\" is two hours ago", OPTION_PAST, IN_BODY,
     "since", NULL},
    {"until", "TIME", "of events created before", OPTION_PAST, IN_BODY, "until", NULL},
    {"include-missing", NULL, "also events from before the subscription existed", OPTION_BOOL, IN_BODY,
     "include_missing", NULL},
    {"per-second", "N", "no more than this a second", OPTION_NUMBER, IN_BODY, "per_second", NULL},
    {"dry-run", NULL, "count, and send nothing", OPTION_BOOL, IN_BODY, "dry_run", NULL},
};

#define ALL "/v1/tenants/{t}/replays"

static const struct verb verbs[] = {
    {.name = "create",
     .summary = "send many deliveries again, in their own share beside the live traffic",
     .examples = "posthorn replay create --tenant acme --subscription sub_… --since 24h --dry-run\n",
     .method = "POST",
     .path = ALL,
     OPTIONS(fields),
     .view = &record},
    {.name = "list",
     .summary = "list bulk replays, newest first",
     .method = "GET",
     .path = ALL,
     .view = &list},
    {.name = "get",
     .arguments = "ID",
     .summary = "show how far a bulk replay has come",
     .method = "GET",
     .path = ALL "/{id}",
     .view = &record},
    {.name = "cancel",
     .arguments = "ID",
     .summary = "end it; what was not attempted goes back to the dead-letter queue",
     .method = "DELETE",
     .path = ALL "/{id}",
     .done = "cancelled"},
};

const struct command replay_command = {
    .name = "replay",
    .summary = "send many deliveries again",
    .details = "A replay keeps event ids, delivery ids and bytes, so receivers know what they have seen. For "
               "a single one:\n"
               "posthorn delivery replay.\n",
    .examples = "posthorn replay create --tenant acme --state dlq --since 24h --dry-run\nposthorn replay "
                "list --tenant acme\n",
    VERBS(verbs),
};
