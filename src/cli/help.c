#include "cli/help.h"

#include <stdio.h>

#include "cli/args.h"
#include "cli/client/client.h"
#include "cli/client/tone.h"
#include "cli/config.h"
#include "cli/man.h"

enum { HELP_COLUMN = 28 };

void help_overview(struct buf *out) {
    buf_add_str(out, "posthorn " POSTHORN_VERSION ": delivers webhooks, at least once\n");
    for (size_t i = 0; commands[i]; i++) {
        if (commands[i]->heading)
            buf_addf(out, "\n%s\n", commands[i]->heading);
        buf_addf(out, "  posthorn %-12s  %s\n", commands[i]->name, commands[i]->summary);
    }
    buf_add_str(
        out,
        "\nposthorn COMMAND --help says more, with examples.\n"
        "Exit status: 0 done, 1 refused by the server, 2 wrong usage, 3 the server cannot be reached.\n");
}

static void add_word(struct buf *out, const char *word) {
    if (word && word[0])
        buf_addf(out, " %s", word);
}

void help_usage(const struct command *c, const struct verb *v, struct buf *out) {
    buf_addf(out, "posthorn %s", c->name);
    add_word(out, v ? v->name : c->verbs_n > 0 ? "VERB" : NULL);
    add_word(out, v ? v->arguments : c->arguments);
    if (c->has_settings)
        buf_add_str(out, " [--SETTING VALUE]…");
    else if (v || c->options_n > 0 || c->verbs_n > 0)
        buf_add_str(out, " [--FLAG VALUE]…");
}

/* The settings as flags. */
static const struct option *setting_options(void) {
    static struct option made[SETTINGS_N];
    for (size_t i = 0; i < SETTINGS_N; i++)
        made[i] = (struct option){.name = settings[i].name,
                                  .placeholder = settings[i].placeholder,
                                  .what = settings[i].what,
                                  .kind = settings[i].placeholder ? OPTION_TEXT : OPTION_BOOL};
    return made;
}

void help_options(const struct command *c, const struct verb *v, struct args *a) {
    if (v)
        verb_options(v, a);
    args_know(a, c->options, c->options_n);
    if (c->has_settings)
        args_know(a, setting_options(), SETTINGS_N);
}

static void add_option(struct buf *out, const struct option *o) {
    _cleanup_buf_ struct buf name = {0};
    buf_addf(&name, "  --%s", o->name);
    add_word(&name, o->placeholder);
    tone_add(out, TONE_PLAIN, false, buf_slice(&name), HELP_COLUMN - 1);
    buf_addf(out, " %s%s\n", o->what,
             option_repeats(o) && o->kind == OPTION_PAIRS ? "; may be given again" : "");
}

static void add_options(struct buf *out, const char *title, const struct option *const *options, size_t n) {
    if (n > 0)
        buf_addf(out, "\n%s\n", title);
    for (size_t i = 0; i < n; i++)
        add_option(out, options[i]);
}

static void add_examples(struct buf *out, const char *examples) {
    if (!examples)
        return;
    buf_add_str(out, "\nExamples\n");
    for (const char *at = examples; *at;) {
        size_t n = strcspn(at, "\n");
        buf_addf(out, "  %.*s\n", (int)n, at);
        at += n + (at[n] == '\n');
    }
}

static void add_verb_options(struct buf *out, const struct verb *v) {
    struct args all = {0};
    verb_options(v, &all);
    size_t own = all.options_n - verb_client_options(v);
    add_options(out, "Flags", all.options, own);
    add_options(out, "Flags of every client", all.options + own, verb_client_options(v));
}

static void add_verbs(struct buf *out, const struct command *c) {
    buf_add_str(out, "\nVerbs\n");
    for (size_t i = 0; i < c->verbs_n; i++) {
        _cleanup_buf_ struct buf name = {0};
        buf_addf(&name, "  %s", c->verbs[i].name);
        add_word(&name, c->verbs[i].arguments);
        tone_add(out, TONE_PLAIN, false, buf_slice(&name), HELP_COLUMN - 4);
        buf_addf(out, " %s\n", c->verbs[i].summary);
    }
    buf_addf(out, "\nposthorn %s VERB --help says more.\n", c->name);
}

static void add_own_options(struct buf *out, const struct command *c) {
    if (c->options_n > 0)
        buf_add_str(out, "\nFlags\n");
    for (size_t i = 0; i < c->options_n; i++)
        add_option(out, &c->options[i]);
    if (c->has_settings) {
        buf_add_str(out, "\nFlags\n");
        config_help(out);
    }
}

void help_on(const struct command *c, const struct verb *v, struct buf *out) {
    if (!v)
        v = find_verb(c, "");
    const char *details = v && v->name[0] ? v->details : c->details;
    buf_add_str(out, "usage: ");
    help_usage(c, v, out);
    buf_addf(out, "\n\n%s\n", v && v->name[0] ? v->summary : c->summary);
    if (details)
        buf_addf(out, "\n%s", details);
    if (v)
        add_verb_options(out, v);
    else if (c->verbs_n > 0)
        add_verbs(out, c);
    else
        add_own_options(out, c);
    add_examples(out, v && v->name[0] ? v->examples : c->examples);
}

static int help_text(const struct command *c, const struct verb *v) {
    _cleanup_buf_ struct buf out = {0};
    if (c)
        help_on(c, v, &out);
    else
        help_overview(&out);
    return write_out(&out);
}

static int command_help(int argc, char **argv) {
    struct args args = {0};
    _cleanup_buf_ struct buf problems = {0}, out = {0};
    const struct command *c = NULL;
    const struct verb *v = NULL;
    args_know(&args, help_command.options, help_command.options_n);
    if (args_parse(&args, argc, argv, help_command.arguments, &problems) < 0)
        return usage_problems("help", &problems);
    if (args.plain_n > 0 && !(c = find_command(args.plain[0])))
        return unknown_command(args.plain[0]);
    if (args.plain_n > 1 && c->verbs_n > 0 && !(v = find_verb(c, args.plain[1])))
        return unknown_verb(c, args.plain[1]);
    if (args_is_set(&args, "markdown"))
        commands_markdown(&out);
    else if (args_is_set(&args, "man"))
        man_page(c, &out);
    else
        return help_text(c, v);
    return write_out(&out);
}

static const struct option options[] = {
    {"man", NULL, "as a man page, for man -l -", OPTION_BOOL, IN_COMMAND, NULL, NULL},
    {"markdown", NULL, "every command in a table, for docs/cli.md", OPTION_BOOL, IN_COMMAND, NULL, NULL},
};

const struct command help_command = {
    .name = "help",
    .heading = "Beside",
    .run = command_help,
    .arguments = "[COMMAND] [VERB]",
    .summary = "explain the program, a command or a verb",
    .examples = "posthorn help\nposthorn help subscription create\nposthorn help event --man | man -l -\n",
    OPTIONS(options),
};
