#include "cli/completion.h"

#include <stdio.h>

#include "cli/help.h"
#include "cli/nearest.h"

/* Text between single quotes, as bash, zsh and fish read it. */
static void add_quoted(struct buf *out, const char *text, bool is_fish) {
    buf_add_char(out, '\'');
    for (const char *c = text; *c; c++)
        if (*c == '\'')
            buf_add_str(out, is_fish ? "\\'" : "'\\''");
        else if (is_fish && *c == '\\')
            buf_add_str(out, "\\\\");
        else
            buf_add_char(out, *c);
    buf_add_char(out, '\'');
}

static bool wants_file(const struct option *o) {
    return o->placeholder && (strcmp(o->placeholder, "FILE") == 0 || strcmp(o->placeholder, "DIR") == 0);
}

static void add_place(struct buf *out, const struct command *c, const struct verb *v) {
    buf_addf(out, "%s%s%s", c->name, v && v->name[0] ? " " : "", v ? v->name : "");
}

/* What an argument of a command may be; NULL: anything. */
static const char *words_of(const struct command *c, struct buf *scratch) {
    if (c != &help_command)
        return c->words;
    for (size_t i = 0; commands[i]; i++)
        buf_addf(scratch, "%s%s", i ? " " : "", commands[i]->name);
    return scratch->p;
}

/* Calls `add` for each command without verbs and for each verb. */
static void for_each_place(struct buf *out,
                           void (*add)(struct buf *, const struct command *, const struct verb *)) {
    for (size_t i = 0; commands[i]; i++)
        for (size_t j = 0; j < (commands[i]->verbs_n ? commands[i]->verbs_n : 1); j++)
            add(out, commands[i], commands[i]->verbs_n ? &commands[i]->verbs[j] : NULL);
}

static bool has_verbs(const struct command *c) {
    return c->verbs_n > 0 && c->verbs[0].name[0];
}

/* ---- bash ---- */

static void bash_values(struct buf *out, const struct command *c, const struct verb *v) {
    struct args all = {0};
    help_options(c, v, &all);
    for (size_t i = 0; i < all.options_n; i++) {
        const struct option *o = all.options[i];
        if (!o->placeholder)
            continue;
        buf_add_str(out, "        '");
        add_place(out, c, v);
        buf_addf(out, " --%s') ", o->name);
        if (wants_file(o))
            buf_add_str(out, "compopt -o default 2>/dev/null; return ;;\n");
        else
            buf_addf(out, "words='%s'; value=1 ;;\n", o->choices ? o->choices : "");
    }
}

static void bash_flags(struct buf *out, const struct command *c, const struct verb *v) {
    struct args all = {0};
    _cleanup_buf_ struct buf scratch = {0};
    const char *words = words_of(c, &scratch);
    help_options(c, v, &all);
    buf_add_str(out, "        '");
    add_place(out, c, v);
    buf_addf(out, "') words='%s", words ? words : "");
    for (size_t i = 0; i < all.options_n; i++)
        buf_addf(out, " --%s", all.options[i]->name);
    buf_add_str(out, " --help' ;;\n");
}

static void add_names(struct buf *out, const struct command *c) {
    for (size_t i = 0; c ? i < c->verbs_n : commands[i] != NULL; i++)
        buf_addf(out, "%s%s", i ? " " : "", c ? c->verbs[i].name : commands[i]->name);
}

static void add_bash(struct buf *out) {
    buf_add_str(out,
                "# bash completion of posthorn; made by: posthorn completion bash\n"
                "_posthorn() {\n"
                "    local cur=${COMP_WORDS[COMP_CWORD]} prev= colon= place=${COMP_WORDS[1]} words= value=\n"
                "    [ \"$COMP_CWORD\" -lt 1 ] || prev=${COMP_WORDS[COMP_CWORD-1]}\n"
                "    # a colon ends a word for bash, but not in events:write\n"
                "    if [ \"$prev\" = : ] && [ \"$COMP_CWORD\" -ge 3 ]; then\n"
                "        colon=${COMP_WORDS[COMP_CWORD-2]}: cur=$colon$cur prev=${COMP_WORDS[COMP_CWORD-3]}\n"
                "    elif [ \"$cur\" = : ] && [ \"$COMP_CWORD\" -ge 2 ]; then\n"
                "        colon=$prev: cur=$colon prev=${COMP_WORDS[COMP_CWORD-2]}\n"
                "    fi\n"
                "    COMPREPLY=()\n"
                "    if [ \"$COMP_CWORD\" -eq 1 ]; then\n        words='");
    add_names(out, NULL);
    buf_add_str(out, "'\n    else\n        case $place in\n");
    for (size_t i = 0; commands[i]; i++) {
        if (!has_verbs(commands[i]))
            continue;
        buf_addf(out, "        %s) place+=\" ${COMP_WORDS[2]}\"; [ \"$COMP_CWORD\" -ne 2 ] || { words='",
                 commands[i]->name);
        add_names(out, commands[i]);
        buf_add_str(out, "'; place=; value=1; } ;;\n");
    }
    buf_add_str(out, "        esac\n        case \"$place $prev\" in\n");
    for_each_place(out, bash_values);
    buf_add_str(out, "        esac\n        [ -n \"$value\" ] || case $place in\n");
    for_each_place(out, bash_flags);
    buf_add_str(out, "        esac\n    fi\n"
                     "    mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$cur\")\n"
                     "    COMPREPLY=(\"${COMPREPLY[@]#\"$colon\"}\")\n"
                     "    [ -n \"${COMPREPLY[*]}\" ] || [ -n \"$value\" ] || compopt -o default 2>/dev/null\n"
                     "}\ncomplete -F _posthorn posthorn\n");
}

/* ---- zsh ---- */

/* 'name:what it is', for _describe. */
static void zsh_item(struct buf *out, const char *dashes, const char *name, const char *what) {
    _cleanup_buf_ struct buf text = {0};
    buf_add_str(&text, dashes);
    for (const char *c = name; *c; c++)
        buf_addf(&text, "%s%c", *c == ':' ? "\\" : "", *c);
    if (what)
        buf_addf(&text, ":%s", what);
    buf_add_char(out, ' ');
    add_quoted(out, text.p ? text.p : "", false);
}

/* An item for each of words with spaces between. */
static void zsh_words(struct buf *out, const char *words) {
    for (const char *at = words; *at;) {
        size_t n = strcspn(at, " ");
        _cleanup_free_ char *word = slice_dup((struct slice){at, n});
        zsh_item(out, "", word ? word : "", NULL);
        at += n + (at[n] == ' ');
    }
}

static void zsh_values(struct buf *out, const struct command *c, const struct verb *v) {
    struct args all = {0};
    help_options(c, v, &all);
    for (size_t i = 0; i < all.options_n; i++) {
        const struct option *o = all.options[i];
        if (!o->placeholder)
            continue;
        buf_add_str(out, "        '");
        add_place(out, c, v);
        buf_addf(out, " --%s') ", o->name);
        if (wants_file(o)) {
            buf_add_str(out, "_files; return ;;\n");
        } else {
            buf_add_str(out, "list=(");
            zsh_words(out, o->choices ? o->choices : "");
            buf_add_str(out, " ); _describe value list; return ;;\n");
        }
    }
}

static void zsh_flags(struct buf *out, const struct command *c, const struct verb *v) {
    struct args all = {0};
    _cleanup_buf_ struct buf scratch = {0};
    const char *words = words_of(c, &scratch);
    help_options(c, v, &all);
    buf_add_str(out, "        '");
    add_place(out, c, v);
    buf_add_str(out, "') list=(");
    zsh_words(out, words ? words : "");
    for (size_t i = 0; i < all.options_n; i++)
        zsh_item(out, "--", all.options[i]->name, all.options[i]->what);
    buf_add_str(out, " '--help:explain it' ) ;;\n");
}

static void zsh_names(struct buf *out, const struct command *c) {
    for (size_t i = 0; c ? i < c->verbs_n : commands[i] != NULL; i++)
        zsh_item(out, "", c ? c->verbs[i].name : commands[i]->name,
                 c ? c->verbs[i].summary : commands[i]->summary);
}

static void add_zsh(struct buf *out) {
    buf_add_str(out, "#compdef posthorn\n# made by: posthorn completion zsh\n"
                     "_posthorn() {\n    local -a list\n    local place=$words[2]\n"
                     "    if (( CURRENT == 2 )); then\n        list=(");
    zsh_names(out, NULL);
    buf_add_str(out, " )\n        _describe command list\n        return\n    fi\n    case $place in\n");
    for (size_t i = 0; commands[i]; i++) {
        if (!has_verbs(commands[i]))
            continue;
        buf_addf(out, "        %s) place+=\" $words[3]\"; if (( CURRENT == 3 )); then list=(",
                 commands[i]->name);
        zsh_names(out, commands[i]);
        buf_add_str(out, " ); _describe verb list; return; fi ;;\n");
    }
    buf_add_str(out, "    esac\n    case \"$place $words[CURRENT-1]\" in\n");
    for_each_place(out, zsh_values);
    buf_add_str(out, "    esac\n    case $place in\n");
    for_each_place(out, zsh_flags);
    buf_add_str(
        out,
        "    esac\n    _describe flag list || _files\n}\n"
        "if [ \"$funcstack[1]\" = _posthorn ]; then _posthorn \"$@\"; else compdef _posthorn posthorn; fi\n");
}

/* ---- fish ---- */

static void fish_line(struct buf *out, const char *condition, const char *more, const char *what) {
    buf_add_str(out, "complete -c posthorn -n ");
    add_quoted(out, condition, true);
    buf_addf(out, " %s -d ", more);
    add_quoted(out, what, true);
    buf_add_char(out, '\n');
}

static void fish_options(struct buf *out, const struct command *c, const struct verb *v) {
    struct args all = {0};
    _cleanup_buf_ struct buf where = {0}, scratch = {0};
    const char *words = words_of(c, &scratch);
    help_options(c, v, &all);
    buf_add_str(&where, "__posthorn_in ");
    add_place(&where, c, v);
    for (size_t i = 0; i < all.options_n && buf_ok(&where); i++) {
        const struct option *o = all.options[i];
        _cleanup_buf_ struct buf more = {0};
        buf_addf(&more, "-l %s%s", o->name, !o->placeholder ? "" : wants_file(o) ? " -r -F" : " -x");
        if (o->choices)
            buf_addf(&more, " -a '%s'", o->choices);
        fish_line(out, where.p, more.p ? more.p : "", o->what);
    }
    if (words && buf_ok(&where))
        buf_addf(out, "complete -c posthorn -f -n '%s' -a '%s'\n", where.p, words);
}

static void fish_names(struct buf *out, const struct command *c) {
    _cleanup_buf_ struct buf condition = {0};
    buf_addf(&condition, "%s%s%stest (count (commandline -opc)) -eq %d", c ? "__posthorn_in " : "",
             c ? c->name : "", c ? "; and " : "", c ? 2 : 1);
    for (size_t i = 0; c ? i < c->verbs_n : commands[i] != NULL; i++) {
        _cleanup_buf_ struct buf more = {0};
        buf_addf(&more, "-f -a %s", c ? c->verbs[i].name : commands[i]->name);
        fish_line(out, condition.p ? condition.p : "", more.p ? more.p : "",
                  c ? c->verbs[i].summary : commands[i]->summary);
    }
}

static void add_fish(struct buf *out) {
    buf_add_str(out, "# fish completion of posthorn; made by: posthorn completion fish\n"
                     "function __posthorn_in\n"
                     "    set -l words (commandline -opc)\n"
                     "    set -e words[1]\n"
                     "    for i in (seq (count $argv))\n"
                     "        test \"$words[$i]\" = \"$argv[$i]\"; or return 1\n"
                     "    end\n"
                     "end\n");
    fish_names(out, NULL);
    for (size_t i = 0; commands[i]; i++)
        if (has_verbs(commands[i]))
            fish_names(out, commands[i]);
    for_each_place(out, fish_options);
}

/* ---- the command ---- */

static int command_completion(int argc, char **argv) {
    static const char *const shells[] = {"bash", "zsh", "fish"};
    static void (*const add[])(struct buf *) = {add_bash, add_zsh, add_fish};
    struct args args = {0};
    _cleanup_buf_ struct buf problems = {0}, out = {0};
    if (args_parse(&args, argc, argv, completion_command.arguments, &problems) < 0)
        return usage_problems("completion", &problems);
    for (size_t i = 0; i < sizeof shells / sizeof shells[0]; i++)
        if (strcmp(args.plain[0], shells[i]) == 0) {
            add[i](&out);
            return write_out(&out);
        }
    buf_addf(&problems, "there is none for %s: did you mean %s?\n", args.plain[0],
             nearest_word(slice_of(args.plain[0]), shells, sizeof shells / sizeof shells[0]));
    return usage_problems("completion", &problems);
}

const struct command completion_command = {
    .name = "completion",
    .run = command_completion,
    .arguments = "SHELL",
    .summary = "print a script that completes commands in bash, zsh or fish",
    .details =
        "An installed posthorn is completed already where the shell looks for scripts of its packages.\n",
    .examples = "source <(posthorn completion bash)\n"
                "posthorn completion zsh >\"${fpath[1]}/_posthorn\"\n"
                "posthorn completion fish >~/.config/fish/completions/posthorn.fish\n",
    .words = "bash zsh fish",
};
