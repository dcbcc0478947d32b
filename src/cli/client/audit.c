#include "cli/client/client.h"
#include "cli/client/verb.h"

static const struct column columns[] = {
    {"AT", "at", false},         {"ACTOR", "actor", false},
    {"ACTION", "action", false}, {"TENANT", "tenant_id", false},
    {"OBJECT", "object", false}, {"DETAIL", "detail", false},
};
static const struct view list = {COLUMNS(columns)};
static const struct option filters[] = {
    {"tenant", "TENANT", "of this tenant alone", OPTION_TEXT, IN_QUERY, "tenant_id", NULL},
};

static const struct verb verbs[] = {
    {.name = "",
     .summary = "list who changed what, newest first",
     .method = "GET",
     .path = "/v1/audit",
     OPTIONS(filters),
     .view = &list},
};

const struct command audit_command = {
    .name = "audit",
    .summary = "who changed what, when; newest first",
    .examples = "posthorn audit --tenant acme --limit 20\n",
    VERBS(verbs),
};
