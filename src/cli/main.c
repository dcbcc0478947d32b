#include <stdio.h>

#include "cli/client/client.h"
#include "cli/config.h"
#include "cli/help.h"

static int print_settings(void (*write)(struct buf *out)) {
    _cleanup_buf_ struct buf out = {0};
    write(&out);
    return write_out(&out);
}

static bool is_help(const char *text) {
    return strcmp(text, "--help") == 0 || strcmp(text, "-h") == 0;
}

static int print_help(const struct command *c, int argc, char **argv) {
    _cleanup_buf_ struct buf out = {0};
    help_on(c, argc > 0 ? find_verb(c, argv[0]) : NULL, &out);
    return write_out(&out);
}

static int run(const struct command *c, int argc, char **argv) {
    for (int i = 0; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (is_help(argv[i]))
            return print_help(c, argc, argv);
        if (c->has_settings && strcmp(argv[i], "--help-markdown") == 0)
            return print_settings(config_help_markdown);
        if (c->has_settings && strcmp(argv[i], "--help-config") == 0)
            return print_settings(config_help_file);
    }
    return c->run ? c->run(argc, argv) : client_run(c, argc, argv);
}

int main(int argc, char **argv) {
    if (argc < 2) {
        _cleanup_buf_ struct buf overview = {0};
        help_overview(&overview);
        fputs(overview.p ? overview.p : "", stderr);
        return EXIT_USAGE;
    }
    if (is_help(argv[1]))
        return help_command.run(argc - 2, argv + 2);
    const struct command *c = find_command(strcmp(argv[1], "--version") == 0 ? "version" : argv[1]);
    return c ? run(c, argc - 2, argv + 2) : unknown_command(argv[1]);
}
