#include <stdio.h>

#include "cli/commands.h"
#include "cli/config.h"
#include "cli/nearest.h"

static int command_help(int argc, char **argv);
static int command_version(int argc, char **argv);

#define UPKEEP_FLAGS                                                                                         \
    "  --data DIR     the data folder (default ./posthorn-data)\n"                                           \
    "  --store URL    the store, where it is not in the data folder\n"                                       \
    "  --config FILE  the settings of the server\n"                                                          \
    "  --json         answer with a JSON object\n"

static const struct command commands[] = {
    {"serve", command_serve, "[--SETTING VALUE]…", "run the server",
     "Every setting is also a variable POSTHORN_SETTING and a line \"setting = value\" of the file that\n"
     "--config names; a flag wins over a variable, a variable over the file.\n"
     "POSTHORN_ADMIN_KEY, when set, is the admin key; otherwise one is made on the first start.\n",
     true},
    {"dev", command_dev, "[--SETTING VALUE]…", "run the server and a receiver on a throw-away store",
     "Makes a tenant \"demo\" with a subscription to a receiver on loopback that verifies and prints what "
     "it\n"
     "gets, publishes one event, and serves until Ctrl-C. Nothing is kept.\n",
     true},
    {"receive", command_receive, "[--listen HOST:PORT] [--secret whsec_…]",
     "run a receiver that verifies and prints webhooks",
     "  --listen HOST:PORT  where it listens (default 127.0.0.1:0: the system chooses the port)\n"
     "  --secret SECRET     the subscription's secret (whsec_…) or public key (whpk_…); without it nothing\n"
     "                      is verified\n"
     "Answers 204, or 401 to a signature that is not valid.\n",
     false},
    {"verify", command_verify, "--secret S --id ID --timestamp T --signature SIG [FILE|-]",
     "check a webhook's signature",
     "  --secret SECRET     the subscription's secret (whsec_…) or public key (whpk_…)\n"
     "  --id ID             header webhook-id\n"
     "  --timestamp T       header webhook-timestamp: Unix seconds\n"
     "  --signature SIG     header webhook-signature\n"
     "  --tolerance S       how many seconds the timestamp may be off (default 300; \"any\": any age)\n"
     "The body is read from FILE, or from standard input. Exit status 0: valid, 1: not valid.\n",
     false},
    {"backup", command_backup, "FILE [--data DIR]", "copy the store into one file, while a server runs on it",
     UPKEEP_FLAGS
     "FILE is made whole or not at all, with mode 0600. The signing secrets in it are sealed: the key\n"
     "(secret.key) is not in it, keep a copy of that apart.\n",
     false},
    {"restore", command_restore, "FILE [--data DIR] [--force]", "put a backup in the place of the store",
     UPKEEP_FLAGS "  --force        also into a folder that is not empty: its store is replaced\n"
                  "  --unverified   do not look whether the backup is sound\n"
                  "All or nothing, and never under a running server.\n",
     false},
    {"check", command_check, "[FILE] [--data DIR]", "look whether the store, or a backup, is sound",
     UPKEEP_FLAGS "Exit status 0: sound, 1: not, or it could not be looked at.\n", false},
    {"migrate", command_migrate, "[--data DIR]", "bring the store's schema up to date without serving",
     UPKEEP_FLAGS, false},
    {"help", command_help, "[COMMAND]", "explain the program or a command", NULL, false},
    {"version", command_version, "", "print the version", NULL, false},
};

enum { COMMANDS_N = sizeof commands / sizeof commands[0] };

static int write_out(const struct buf *text) {
    if (!buf_ok(text) || fwrite(text->p, 1, text->n, stdout) != text->n || fflush(stdout) != 0) {
        fputs("posthorn: the output cannot be written\n", stderr);
        return EXIT_REFUSED;
    }
    return EXIT_DONE;
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

static const struct command *find_command(const char *name) {
    for (size_t i = 0; i < COMMANDS_N; i++)
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    return NULL;
}

static int unknown_command(const char *name) {
    const char *names[COMMANDS_N];
    for (size_t i = 0; i < COMMANDS_N; i++)
        names[i] = commands[i].name;
    fprintf(stderr, "posthorn: unknown command %s: did you mean %s?\nTry: posthorn help\n", name,
            nearest_word(slice_of(name), names, COMMANDS_N));
    return EXIT_USAGE;
}

static void add_overview(struct buf *out) {
    buf_add_str(out, "posthorn " POSTHORN_VERSION ": delivers webhooks, at least once\n\n");
    for (size_t i = 0; i < COMMANDS_N; i++)
        buf_addf(out, "  posthorn %-8s  %s\n", commands[i].name, commands[i].summary);
    buf_add_str(out, "\nposthorn COMMAND --help says more.\n");
}

static int help_on(const struct command *c) {
    _cleanup_buf_ struct buf out = {0};
    buf_addf(&out, "usage: posthorn %s %s\n\n%s\n", c->name, c->arguments, c->summary);
    if (c->details)
        buf_addf(&out, "\n%s", c->details);
    if (c->has_settings) {
        buf_add_char(&out, '\n');
        config_help(&out);
    }
    return write_out(&out);
}

static int command_help(int argc, char **argv) {
    _cleanup_buf_ struct buf out = {0};
    if (argc > 0) {
        const struct command *c = find_command(argv[0]);
        return c ? help_on(c) : unknown_command(argv[0]);
    }
    add_overview(&out);
    return write_out(&out);
}

static int command_version(int argc, char **argv) {
    (void)argc;
    (void)argv;
    _cleanup_buf_ struct buf out = {0};
    buf_add_str(&out, "posthorn " POSTHORN_VERSION "\n");
    return write_out(&out);
}

static int print_settings(void (*write)(struct buf *out)) {
    _cleanup_buf_ struct buf out = {0};
    write(&out);
    return write_out(&out);
}

static bool is_help(const char *text) {
    return strcmp(text, "--help") == 0 || strcmp(text, "-h") == 0;
}

static int run(const struct command *c, int argc, char **argv) {
    for (int i = 0; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (is_help(argv[i]))
            return help_on(c);
        if (c->has_settings && strcmp(argv[i], "--help-markdown") == 0)
            return print_settings(config_help_markdown);
        if (c->has_settings && strcmp(argv[i], "--help-config") == 0)
            return print_settings(config_help_file);
    }
    return c->run(argc, argv);
}

int main(int argc, char **argv) {
    if (argc < 2) {
        _cleanup_buf_ struct buf overview = {0};
        add_overview(&overview);
        fputs(overview.p ? overview.p : "", stderr);
        return EXIT_USAGE;
    }
    if (is_help(argv[1]))
        return command_help(argc - 2, argv + 2);
    if (strcmp(argv[1], "--version") == 0)
        return command_version(argc - 2, argv + 2);
    const struct command *c = find_command(argv[1]);
    return c ? run(c, argc - 2, argv + 2) : unknown_command(argv[1]);
}
