/* The commands of the program; main.c has the table. Each gets the arguments after its name and returns an
 * exit status. */
#pragma once

#include "base/bytes.h"

/* Part of the contract (api.md §6): scripts rely on them. */
enum exit_status {
    EXIT_DONE = 0,
    EXIT_REFUSED = 1, /* by the server; for verify: the signature is not valid */
    EXIT_USAGE = 2,
    EXIT_UNREACHABLE = 3,
};

struct command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *arguments; /* for the usage line */
    const char *summary;   /* a line */
    const char *details;   /* for its own help; NULL: none */
    bool has_settings;     /* takes every setting of the server as a flag */
};

int command_serve(int argc, char **argv);
int command_dev(int argc, char **argv);
int command_receive(int argc, char **argv);
int command_verify(int argc, char **argv);
int command_backup(int argc, char **argv);
int command_restore(int argc, char **argv);
int command_check(int argc, char **argv);
int command_migrate(int argc, char **argv);

/* Prints "posthorn COMMAND: LINE" on stderr for each line of `problems`, then where the help is. Returns
 * EXIT_USAGE. */
int usage_problems(const char *command, const struct buf *problems);
