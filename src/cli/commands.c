#include "cli/commands.h"

#include <stdio.h>
#include <stdio_ext.h>

#include "cli/client/client.h"
#include "cli/client/interrupt.h"
#include "cli/completion.h"
#include "cli/nearest.h"

static int command_version(int argc, char **argv) {
    (void)argc;
    (void)argv;
    _cleanup_buf_ struct buf out = {0};
    buf_add_str(&out, "posthorn " POSTHORN_VERSION "\n");
    return write_out(&out);
}

static const struct command serve_command = {
    .name = "serve",
    .heading = "The server",
    .run = command_serve,
    .summary = "run the server",
    .details =
        "Every setting is also a variable POSTHORN_SETTING and a line \"setting = value\" of the file that\n"
        "--config names; a flag wins over a variable, a variable over the file.\n"
        "POSTHORN_ADMIN_KEY, when set, is the admin key; otherwise one is made on the first start.\n",
    .examples = "posthorn serve --data /var/lib/posthorn --listen 0.0.0.0:8484\n"
                "posthorn serve --allow-http --allow-address 127.0.0.0/8 --allow-port 1-65535\n",
    .has_settings = true,
};

static const struct command dev_command = {
    .name = "dev",
    .run = command_dev,
    .summary = "run the server and a receiver on a throw-away store",
    .details = "Makes a tenant \"demo\" with a subscription to a receiver on loopback that verifies and "
               "prints what\n"
               "it gets, publishes one event, and serves until Ctrl-C. Nothing is kept.\n",
    .examples = "posthorn dev\n",
    .has_settings = true,
};

static const struct command version_command = {
    .name = "version",
    .run = command_version,
    .summary = "print the version",
};

const struct command *const commands[] = {
    &serve_command,      &dev_command,      &backup_command,
    &restore_command,    &check_command,    &migrate_command,
    &import_command,     &tenant_command,   &subscription_command,
    &event_command,      &delivery_command, &replay_command,
    &key_command,        &audit_command,    &outbox_command,
    &receive_command,    &verify_command,   &help_command,
    &completion_command, &version_command,  NULL,
};

const struct command *find_command(const char *name) {
    for (size_t i = 0; commands[i]; i++)
        if (strcmp(commands[i]->name, name) == 0)
            return commands[i];
    return NULL;
}

int unknown_command(const char *name) {
    const char *names[COMMANDS_MAX];
    size_t n = 0;
    for (; commands[n]; n++) {
        CHECK(n < COMMANDS_MAX);
        names[n] = commands[n]->name;
    }
    fprintf(stderr, "posthorn: unknown command %s: did you mean %s?\nTry: posthorn help\n", name,
            nearest_word(slice_of(name), names, n));
    return EXIT_USAGE;
}

int usage_problems(const char *command, const struct buf *problems) {
    const char *at = problems->p ? problems->p : "memory is out\n";
    while (*at) {
        size_t n = strcspn(at, "\n");
        fprintf(stderr, "posthorn %s: %.*s\n", command, (int)n, at);
        at += n + (at[n] == '\n');
    }
    fprintf(stderr, "Try: posthorn %s --help\n", command);
    return EXIT_USAGE;
}

int write_out(const struct buf *text) {
    if (buf_ok(text) && fwrite(text->p, 1, text->n, stdout) == text->n && fflush(stdout) == 0)
        return EXIT_DONE;
    __fpurge(stdout); /* else the end of the program would try once more, and wait as long */
    if (interrupted())
        return EXIT_INTERRUPTED;
    fputs("posthorn: the output cannot be written\n", stderr);
    return EXIT_REFUSED;
}
