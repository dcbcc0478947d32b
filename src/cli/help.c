#include "cli/help.h"

#include <stdio.h>

#include "cli/args.h"
#include "cli/client/client.h"
#include "cli/client/tone.h"
#include "cli/config.h"

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
    size_t own = all.options_n - CLIENT_OPTIONS_N;
    add_options(out, "Flags", all.options, own);
    add_options(out, "Flags of every client", all.options + own, CLIENT_OPTIONS_N);
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

int command_help(int argc, char **argv) {
    _cleanup_buf_ struct buf out = {0};
    const struct verb *v = NULL;
    if (argc == 0) {
        help_overview(&out);
        return write_out(&out);
    }
    const struct command *c = find_command(argv[0]);
    if (!c)
        return unknown_command(argv[0]);
    if (argc > 1 && c->verbs_n > 0 && !(v = find_verb(c, argv[1])))
        return unknown_verb(c, argv[1]);
    help_on(c, v, &out);
    return write_out(&out);
}
