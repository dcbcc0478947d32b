/* The commands that are clients of the API. */
#pragma once

#include "cli/commands.h"

extern const struct command tenant_command, subscription_command, event_command, delivery_command,
    replay_command, key_command, audit_command, outbox_command;

/* Runs a verb of c; argv follows the command's name. Returns an exit status. */
int client_run(const struct command *c, int argc, char **argv);
/* NULL: c has no such verb. */
const struct verb *find_verb(const struct command *c, const char *name);
int unknown_verb(const struct command *c, const char *name);
