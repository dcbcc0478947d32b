/* Help for people, made of the tables of commands. */
#pragma once

#include "cli/args.h"
#include "cli/client/verb.h"
#include "cli/commands.h"

void help_overview(struct buf *out);
/* v: one verb of c; NULL: the command itself. */
void help_on(const struct command *c, const struct verb *v, struct buf *out);
/* "posthorn CMD [VERB] ARGS [--flag …]" */
void help_usage(const struct command *c, const struct verb *v, struct buf *out);
/* Adds every flag that c, or its verb, takes: its own first, those of every client last. */
void help_options(const struct command *c, const struct verb *v, struct args *a);
