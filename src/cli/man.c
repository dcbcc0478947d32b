#include "cli/man.h"

#include "cli/help.h"

/* Text for roff: no line of it is a request, and its dashes are those one types. */
static void add_text(struct buf *out, const char *text, size_t n) {
    bool begins = true;
    for (size_t i = 0; i < n; i++) {
        if (begins && (text[i] == '.' || text[i] == '\''))
            buf_add_str(out, "\\&");
        if (text[i] == '\\')
            buf_add_str(out, "\\e");
        else if (text[i] == '-')
            buf_add_str(out, "\\-");
        else
            buf_add_char(out, text[i]);
        begins = text[i] == '\n';
    }
}

static void add_line(struct buf *out, const char *text) {
    add_text(out, text, strlen(text));
    buf_add_char(out, '\n');
}

static void add_usage(struct buf *out, const struct command *c, const struct verb *v) {
    _cleanup_buf_ struct buf usage = {0};
    help_usage(c, v, &usage);
    buf_add_str(out, ".nf\n");
    add_line(out, usage.p ? usage.p : "");
    buf_add_str(out, ".fi\n");
}

static void add_option(struct buf *out, const struct option *o) {
    buf_add_str(out, ".TP\n\\fB\\-\\-");
    add_text(out, o->name, strlen(o->name));
    buf_add_str(out, "\\fR");
    if (o->placeholder) {
        buf_add_str(out, " \\fI");
        add_text(out, o->placeholder, strlen(o->placeholder));
        buf_add_str(out, "\\fR");
    }
    buf_add_char(out, '\n');
    add_line(out, o->what);
}

static void add_options(struct buf *out, const struct args *all, size_t from, size_t n) {
    for (size_t i = from; i < from + n; i++)
        add_option(out, all->options[i]);
}

static void add_examples(struct buf *out, const char *heading, const char *examples) {
    if (!examples)
        return;
    buf_addf(out, "%s\n.EX\n", heading);
    add_text(out, examples, strlen(examples));
    buf_add_str(out, ".EE\n");
}

static void add_verb(struct buf *out, const struct command *c, const struct verb *v) {
    struct args all = {0};
    verb_options(v, &all);
    buf_add_str(out, ".SS ");
    add_line(out, v->name);
    add_line(out, v->summary);
    buf_add_str(out, ".PP\n");
    add_usage(out, c, v);
    if (v->details) {
        buf_add_str(out, ".PP\n");
        add_text(out, v->details, strlen(v->details));
    }
    add_options(out, &all, 0, all.options_n - verb_client_options(v));
    add_examples(out, ".PP", v->examples);
}

static void add_environment(struct buf *out) {
    buf_add_str(
        out,
        ".SH ENVIRONMENT\n"
        ".TP\n.B POSTHORN_URL\nwhere the server is\n"
        ".TP\n.B POSTHORN_KEY\nthe API key\n"
        ".TP\n.B POSTHORN_TENANT\nthe tenant, in place of \\-\\-tenant (but for new keys and the audit)\n"
        ".TP\n.B NO_COLOR\nwhen set, there are no colours\n"
        ".SH EXIT STATUS\n"
        "0 done, 1 refused by the server, 2 wrong usage, 3 the server cannot be reached.\n");
}

static void add_head(struct buf *out, const char *name, const char *summary) {
    buf_addf(out, ".TH %s 1 \"\" \"posthorn " POSTHORN_VERSION "\" \"posthorn\"\n.SH NAME\n", name);
    add_text(out, name, strlen(name));
    buf_add_str(out, " \\- ");
    add_line(out, summary);
}

static void overview_page(struct buf *out) {
    add_head(out, "posthorn", "delivers webhooks, at least once");
    buf_add_str(out, ".SH SYNOPSIS\n.B posthorn\n.I COMMAND\n[\\fIVERB\\fR] [\\fB\\-\\-\\fIFLAG "
                     "VALUE\\fR]…\n.SH COMMANDS\n");
    for (size_t i = 0; commands[i]; i++) {
        if (commands[i]->heading)
            buf_addf(out, ".SS %s\n", commands[i]->heading);
        buf_addf(out, ".TP\n.BR posthorn\\-%s (1)\n", commands[i]->name);
        add_line(out, commands[i]->summary);
    }
    add_environment(out);
}

void man_page(const struct command *c, struct buf *out) {
    _cleanup_buf_ struct buf name = {0};
    struct args all = {0};
    if (!c) {
        overview_page(out);
        return;
    }
    bool verbs = c->verbs_n > 0 && c->verbs[0].name[0];
    const struct verb *own = c->verbs_n > 0 && !verbs ? c->verbs : NULL;
    /* Of a command with verbs, the last one's tell which flags all of them have: a local one stands before.
     */
    help_options(c, verbs ? &c->verbs[c->verbs_n - 1] : own, &all);
    size_t shared = c->verbs_n > 0 ? verb_client_options(&c->verbs[c->verbs_n - 1]) : 0;
    buf_addf(&name, "posthorn-%s", c->name);
    add_head(out, name.p ? name.p : "posthorn", c->summary);
    buf_add_str(out, ".SH SYNOPSIS\n");
    add_usage(out, c, own);
    if (c->details) {
        buf_add_str(out, ".SH DESCRIPTION\n");
        add_text(out, c->details, strlen(c->details));
    }
    if (verbs)
        buf_add_str(out, ".SH VERBS\n");
    for (size_t i = 0; verbs && i < c->verbs_n; i++)
        add_verb(out, c, &c->verbs[i]);
    if (!verbs && all.options_n > shared) {
        buf_add_str(out, ".SH FLAGS\n");
        add_options(out, &all, 0, all.options_n - shared);
    }
    if (shared) {
        buf_add_str(out, ".SH FLAGS OF EVERY CLIENT\n");
        add_options(out, &all, all.options_n - shared, shared);
    }
    add_examples(out, ".SH EXAMPLES", c->examples);
    if (shared)
        add_environment(out);
    buf_add_str(out, ".SH SEE ALSO\n.BR posthorn (1)\n");
}

/* ---- docs/cli.md ---- */

static void add_row(struct buf *out, const struct command *c, const struct verb *v) {
    const char *arguments = v ? v->arguments : c->arguments;
    buf_addf(out, "| `posthorn %s%s%s%s%s` | %s |\n", c->name, v && v->name[0] ? " " : "", v ? v->name : "",
             arguments ? " " : "", arguments ? arguments : "", v && v->name[0] ? v->summary : c->summary);
}

void commands_markdown(struct buf *out) {
    buf_add_str(out, "| command | what it does |\n| --- | --- |\n");
    for (size_t i = 0; commands[i]; i++) {
        const struct command *c = commands[i];
        for (size_t j = 0; j < c->verbs_n; j++)
            add_row(out, c, &c->verbs[j]);
        if (c->verbs_n == 0)
            add_row(out, c, NULL);
    }
}
