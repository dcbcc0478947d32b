#include "cli/client/client.h"
#include "cli/client/verb.h"

static const struct column columns[] = {
    {"ID", "id", false},
    {"STATUS", "status", true},
    {"URL", "url", false},
    {"TYPES", "event_types", false},
    {"ORDERING", "ordering", false},
    {"CREATED", "created_at", false},
};
static const struct column secret_columns[] = {
    {"ID", "id", false},
    {"SCHEME", "scheme", false},
    {"CREATED", "created_at", false},
    {"EXPIRES", "expires_at", false},
    {"PUBLIC KEY", "public_key", false},
};
static const struct view list = {COLUMNS(columns)}, record = {0}, secrets = {COLUMNS(secret_columns)};
static const struct view with_secret = {
    .note = "The secret is shown this once: keep it where the receiver finds it."};

#define FIELDS                                                                                                 \
    {"type",      "TYPE",  "events it wants: a type, or \"invoice.*\" for all below; without one: all",        \
     OPTION_LIST, IN_BODY, "event_types",                                                                      \
     NULL},                                                                                                    \
        {"filter", "JSON", "what must be in an event: see docs/filters.md", OPTION_JSON, IN_BODY,              \
         "filter", NULL},                                                                                      \
        {"description", "TEXT", "what it is for", OPTION_TEXT, IN_BODY, "description", NULL},                  \
        {"metadata", "NAME=VALUE", "what you keep with it", OPTION_PAIRS, IN_BODY, "metadata", NULL},          \
        {"header", "NAME=VALUE", "a header sent with every delivery", OPTION_PAIRS, IN_BODY, "headers", NULL}, \
        {"ordering",       "ORDER", "none, key (one at a time for each ordering key) or strict",               \
         OPTION_TEXT,      IN_BODY, "ordering",                                                                \
         "none key strict"},                                                                                   \
        {"format",                                                                                             \
         "FORMAT",                                                                                             \
         "envelope, raw (the data alone) or cloudevents",                                                      \
         OPTION_TEXT,                                                                                          \
         IN_BODY,                                                                                              \
         "format",                                                                                             \
         "envelope raw cloudevents"},                                                                          \
        {"signature", "SCHEME", "hmac or ed25519", OPTION_TEXT, IN_BODY, "signature", "hmac ed25519"},         \
        {"receipts", NULL, "the subscriber tells what became of each delivery", OPTION_BOOL, IN_BODY,          \
         "receipts", NULL},                                                                                    \
        {"status", "STATUS", "active, paused or disabled", OPTION_TEXT,                                        \
         IN_BODY,  "status", "active paused disabled"},                                                        \
        {"timeout-ms",        "MS", "how long an attempt may take", OPTION_NUMBER, IN_BODY,                    \
         "policy.timeout_ms", NULL},                                                                           \
        {"max-in-flight",        "N", "attempts under way at one time", OPTION_NUMBER, IN_BODY,                \
         "policy.max_in_flight", NULL},                                                                        \
        {"max-attempts",        "N", "then the dead-letter queue", OPTION_NUMBER, IN_BODY,                     \
         "policy.max_attempts", NULL},                                                                         \
        {"window-seconds",        "S", "for how long is tried", OPTION_NUMBER, IN_BODY,                        \
         "policy.window_seconds", NULL},                                                                       \
        {"rate", "N", "attempts a second at most", OPTION_NUMBER, IN_BODY, "policy.rate_limit.per_second",     \
         NULL},                                                                                                \
        {"retry-schedule",                                                                                     \
         "S,S,…",                                                                                              \
         "seconds before attempt 2, 3, 4, …; then the dead-letter queue",                                      \
         OPTION_NUMBERS,                                                                                       \
         IN_BODY,                                                                                              \
         "policy.retry.schedule_seconds",                                                                      \
         NULL},                                                                                                \
        {"retry-on",                                                                                           \
         "CODE,…",                                                                                             \
         "status codes that are retried although they would be final",                                         \
         OPTION_NUMBERS,                                                                                       \
         IN_BODY,                                                                                              \
         "policy.retry_on",                                                                                    \
         NULL},                                                                                                \
        {"no-retry-on",                                                                                        \
         "CODE,…",                                                                                             \
         "status codes that are final although they would be retried",                                         \
         OPTION_NUMBERS,                                                                                       \
         IN_BODY,                                                                                              \
         "policy.no_retry_on",                                                                                 \
         NULL},                                                                                                \
        {"replay-on-recovery",                                                                                 \
         NULL,                                                                                                 \
         "what was lost is replayed by itself when the endpoint recovers",                                     \
         OPTION_BOOL,                                                                                          \
         IN_BODY,                                                                                              \
         "policy.replay_on_recovery",                                                                          \
         NULL},                                                                                                \
        {"policy", "JSON", "the whole policy, as the API has it", OPTION_JSON, IN_BODY, "policy", NULL},       \
        {"tls-certificate",        "FILE", "client certificate, as PEM", OPTION_FILE, IN_BODY,                 \
         "tls.client_certificate", NULL},                                                                      \
        {"tls-key", "FILE", "its key, as PEM", OPTION_FILE, IN_BODY, "tls.client_key", NULL},                  \
        {"tls-ca", "FILE", "certificates that the receiver's is judged by", OPTION_FILE, IN_BODY,              \
         "tls.ca", NULL},

static const struct option create_fields[] = {
    FIELDS{"secret", "SECRET", "a secret of your own (whsec_…, whsk_…)", OPTION_TEXT, IN_BODY, "secret",
           NULL},
};
static const struct option update_fields[] = {
    FIELDS{"endpoint", "URL", "where it is sent to", OPTION_TEXT, IN_BODY, "url", NULL},
};
static const struct option list_filters[] = {
    {"status", "STATUS", "active, paused or disabled", OPTION_TEXT, IN_QUERY, "status",
     "active paused disabled"},
};
static const struct option rotation[] = {
    {"overlap-seconds", "S", "how long the old secrets go on signing beside it (default 86400)",
     OPTION_NUMBER, IN_BODY, "overlap_seconds", NULL},
    {"secret", "SECRET", "a secret of your own (whsec_…, whsk_…)", OPTION_TEXT, IN_BODY, "secret", NULL},
};

#define ONE "/v1/tenants/{t}/subscriptions/{id}"

static const struct verb verbs[] = {
    {.name = "create",
     .arguments = "[URL]",
     .summary = "subscribe a URL to events",
     .details = "The answer holds the signing secret, this once. A literal --policy or --body comes first, "
                "single flags are\n"
                "laid over it.\n",
     .examples = "posthorn subscription create https://example.com/hook --tenant acme --type 'invoice.*'\n"
                 "posthorn subscription create https://example.com/hook --tenant acme \\\n"
                 "    --filter '{\"data\":{\"amount\":[{\"numeric\":[\">\",1000]}]}}' --retry-schedule "
                 "5,60,600 --header X-Team=billing\n"
                 "posthorn subscription create --tenant acme --body @subscription.json\n",
     .method = "POST",
     .path = "/v1/tenants/{t}/subscriptions",
     .argument_field = "url",
     OPTIONS(create_fields),
     .view = &with_secret},
    {.name = "list",
     .summary = "list subscriptions, newest first",
     .examples = "posthorn subscription list --tenant acme --status disabled\n",
     .method = "GET",
     .path = "/v1/tenants/{t}/subscriptions",
     OPTIONS(list_filters),
     .view = &list},
    {.name = "get",
     .arguments = "ID",
     .summary = "show a subscription",
     .method = "GET",
     .path = ONE,
     .view = &record},
    {.name = "update",
     .arguments = "ID",
     .summary = "change a subscription",
     .details = "What is not named stays as it is.\n",
     .examples = "posthorn subscription update sub_… --tenant acme --endpoint https://example.com/new\n"
                 "posthorn subscription update sub_… --tenant acme --unset filter,policy.timeout_ms\n",
     .method = "PATCH",
     .path = ONE,
     OPTIONS(update_fields),
     .view = &record},
    {.name = "delete",
     .arguments = "ID",
     .summary = "unsubscribe; open deliveries go to the dead-letter queue",
     .method = "DELETE",
     .path = ONE,
     .done = "deleted"},
    {.name = "pause",
     .arguments = "ID",
     .summary = "keep its events, send nothing",
     .method = "PATCH",
     .path = ONE,
     .fixed_body = "{\"status\":\"paused\"}",
     .view = &record},
    {.name = "resume",
     .arguments = "ID",
     .summary = "send again, what has waited too",
     .details = "For a paused one, and for one that was disabled because its endpoint failed.\n",
     .method = "PATCH",
     .path = ONE,
     .fixed_body = "{\"status\":\"active\"}",
     .view = &record},
    {.name = "secrets",
     .arguments = "ID",
     .summary = "list what signs now; never the secrets themselves",
     .method = "GET",
     .path = ONE "/secrets",
     .view = &secrets},
    {.name = "rotate-secret",
     .arguments = "ID",
     .summary = "sign with a new secret, for a while with the old ones too",
     .examples = "posthorn subscription rotate-secret sub_… --tenant acme --overlap-seconds 3600\n",
     .method = "POST",
     .path = ONE "/rotate-secret",
     OPTIONS(rotation),
     .view = &with_secret},
    {.name = "test",
     .arguments = "ID",
     .summary = "send an event posthorn.test to it alone",
     .examples = "posthorn subscription test sub_… --tenant acme\n",
     .method = "POST",
     .path = ONE "/test",
     .view = &record},
    {.name = "stats",
     .arguments = "ID",
     .summary = "how it fares: success rate, latencies, what waits and why",
     .method = "GET",
     .path = ONE "/stats",
     .view = &record},
};

const struct command subscription_command = {
    .name = "subscription",
    .summary = "which events go to which URL, and how",
    .details = "A subscription is an endpoint of a tenant with the event types it wants, its signing secret "
               "and its policy\n"
               "of retries.\n",
    .examples = "posthorn subscription create https://example.com/hook --tenant acme --type 'invoice.*'\n"
                "posthorn subscription stats sub_… --tenant acme\n",
    VERBS(verbs),
};
