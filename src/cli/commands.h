/* The commands of the program, as data. Help, completion and man pages are made of this table. */
#pragma once

#include "base/bytes.h"
#include "cli/option.h"

/* Part of the contract (api.md §6): scripts rely on them. */
enum exit_status {
    EXIT_DONE = 0,
    EXIT_REFUSED = 1, /* by the server; for verify: the signature is not valid */
    EXIT_USAGE = 2,
    EXIT_UNREACHABLE = 3,
};

struct verb; /* cli/client/verb.h */

struct command {
    const char *name;
    const char
        *heading; /* in the overview, before the first of its kind; NULL: it belongs to the one before */
    int (*run)(int argc, char **argv); /* gets what follows its name; NULL: a client of the API */
    const char *arguments;             /* plain ones, for the usage line; NULL: none */
    const char *summary;               /* a line */
    const char *details, *examples;    /* for its own help; NULL: none */
    const char *words;                 /* what its argument may be, with spaces between; NULL: anything */
    bool has_settings;                 /* takes every setting of the server as a flag */
    const struct option *options;
    size_t options_n;
    const struct verb *verbs; /* of a client; one without a name: the command itself */
    size_t verbs_n;
};

/* In the order of the help; NULL ends it. */
extern const struct command *const commands[];
enum { COMMANDS_MAX = 32 };

const struct command *find_command(const char *name); /* NULL: there is none */
/* Says so, with the nearest. Returns EXIT_USAGE. */
int unknown_command(const char *name);

extern const struct command help_command, receive_command, verify_command, backup_command, restore_command,
    check_command, migrate_command, import_command;

int command_serve(int argc, char **argv);
int command_dev(int argc, char **argv);

/* Prints "posthorn COMMAND: LINE" on stderr for each line of `problems`, then where the help is. Returns
 * EXIT_USAGE. */
int usage_problems(const char *command, const struct buf *problems);
/* Prints text on stdout. EXIT_REFUSED when it cannot be written, which is told; EXIT_INTERRUPTED when that
 * was noted meanwhile. */
int write_out(const struct buf *text);
