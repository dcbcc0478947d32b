#include "cli/client/client.h"
#include "cli/client/verb.h"

static const struct column columns[] = {
    {"ID", "id", false},
    {"NAME", "name", false},
    {"TIER", "tier", false},
    {"EVENTS/S", "limits.events_per_second", false},
    {"MAX IN FLIGHT", "limits.max_in_flight", false},
    {"RETENTION DAYS", "limits.retention_days", false},
    {"CREATED", "created_at", false},
};
static const struct view list = {COLUMNS(columns)}, record = {0};

static const struct option fields[] = {
    {"name", "TEXT", "what people call it", OPTION_TEXT, IN_BODY, "name", NULL},
    {"tier", "TIER", "premium, standard or bulk: sets the defaults of the limits", OPTION_TEXT, IN_BODY,
     "tier", "premium standard bulk"},
    {"allow-http", NULL, "its subscriptions may use plain http", OPTION_BOOL, IN_BODY, "allow_http", NULL},
    {"events-per-second", "N", "events taken a second; above it publishing is answered 429", OPTION_NUMBER,
     IN_BODY, "limits.events_per_second", NULL},
    {"max-subscriptions", "N", "subscriptions at most", OPTION_NUMBER, IN_BODY, "limits.max_subscriptions",
     NULL},
    {"max-in-flight", "N", "attempts under way at one time", OPTION_NUMBER, IN_BODY, "limits.max_in_flight",
     NULL},
    {"max-payload-bytes", "N", "largest data of an event", OPTION_NUMBER, IN_BODY, "limits.max_payload_bytes",
     NULL},
    {"retention-days", "N", "events and deliveries are deleted after so many days", OPTION_NUMBER, IN_BODY,
     "limits.retention_days", NULL},
    {"deliveries-per-minute", "N", "0: no limit", OPTION_NUMBER, IN_BODY, "limits.deliveries_per_minute",
     NULL},
};

static const struct verb verbs[] = {
    {.name = "create",
     .arguments = "ID",
     .summary = "create a tenant",
     .details = "The id is yours to choose: letters, digits, \".\", \"_\" and \"-\", up to 64.\n",
     .examples = "posthorn tenant create acme --name 'Acme Inc.' --tier premium\n",
     .method = "POST",
     .path = "/v1/tenants",
     .argument_field = "id",
     OPTIONS(fields),
     .view = &record},
    {.name = "list",
     .summary = "list tenants, newest first",
     .examples = "posthorn tenant list --all --json | jq -r '.data[].id'\n",
     .method = "GET",
     .path = "/v1/tenants",
     .view = &list},
    {.name = "get",
     .arguments = "ID",
     .summary = "show a tenant",
     .method = "GET",
     .path = "/v1/tenants/{id}",
     .view = &record},
    {.name = "update",
     .arguments = "ID",
     .summary = "change a tenant",
     .examples = "posthorn tenant update acme --events-per-second 500\n"
                 "posthorn tenant update acme --unset limits.events_per_second\n",
     .method = "PATCH",
     .path = "/v1/tenants/{id}",
     OPTIONS(fields),
     .view = &record},
    {.name = "delete",
     .arguments = "ID",
     .summary = "delete a tenant without subscriptions and open deliveries",
     .method = "DELETE",
     .path = "/v1/tenants/{id}",
     .done = "deleted"},
};

const struct command tenant_command = {
    .name = "tenant",
    .heading = "Clients of a server (POSTHORN_URL, POSTHORN_KEY)",
    .summary = "those whose events and subscriptions are kept apart",
    .details = "A tenant is a customer, a team or an environment: its events reach its own subscriptions "
               "alone. A tier sets\n"
               "its limits; each can be set by itself.\n",
    .examples = "posthorn tenant create acme --name 'Acme Inc.'\nposthorn tenant list\n",
    VERBS(verbs),
};
