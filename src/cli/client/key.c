#include "cli/client/client.h"
#include "cli/client/verb.h"

#define SCOPES                                                                                               \
    "events:write events:read subscriptions:write subscriptions:read deliveries:read replays:write admin"

static const struct column columns[] = {
    {"ID", "id", false},
    {"TENANT", "tenant_id", false},
    {"SCOPES", "scopes", false},
    {"CREATED", "created_at", false},
    {"EXPIRES", "expires_at", false},
};
static const struct view list = {COLUMNS(columns)};
static const struct view with_key = {.note = "The key is shown this once."};

static const struct option fields[] = {
    {"scope", "SCOPE", "what it may do; may be given again", OPTION_LIST, IN_BODY, "scopes", SCOPES},
    {"tenant", "TENANT", "for this tenant alone; without it for every one, whatever POSTHORN_TENANT says",
     OPTION_TEXT, IN_BODY, "tenant_id", NULL},
    {"expires-at", "TIME", "a time, or \"90d\" from now", OPTION_FUTURE, IN_BODY, "expires_at", NULL},
};

static const struct verb verbs[] = {
    {.name = "create",
     .summary = "create an API key",
     .details = "Scopes: events:write events:read subscriptions:write subscriptions:read deliveries:read "
                "replays:write, and\n"
                "admin, which holds all others.\n",
     .examples = "posthorn key create --tenant acme --scope events:write --expires-at 90d\n",
     .method = "POST",
     .path = "/v1/keys",
     OPTIONS(fields),
     .view = &with_key},
    {.name = "list",
     .summary = "list the keys in force, newest first",
     .method = "GET",
     .path = "/v1/keys",
     .view = &list},
    {.name = "revoke",
     .arguments = "ID",
     .summary = "end a key, at once",
     .method = "DELETE",
     .path = "/v1/keys/{id}",
     .done = "revoked"},
};

const struct command key_command = {
    .name = "key",
    .summary = "who may use the API, and for what",
    .details = "Keys are kept hashed: a lost one cannot be shown again, only replaced.\n",
    .examples = "posthorn key create --tenant acme --scope events:write,events:read\nposthorn key list\n",
    VERBS(verbs),
};
