/* Man pages and the table of docs/cli.md, made of the tables of commands. */
#pragma once

#include "cli/commands.h"

/* posthorn(1), or posthorn-COMMAND(1) of c, in the man macros. */
void man_page(const struct command *c, struct buf *out);
/* Every command and verb with what it does, as a table. */
void commands_markdown(struct buf *out);
