#include "cli/config_help.h"

#include "cli/config.h"
#include "cli/source_settings.h"

enum { HELP_COLUMN = 28, COMMENT_COLUMNS = 110 };

void config_help(struct buf *out) {
    for (size_t i = 0; i < SETTINGS_N; i++) {
        const struct setting *s = &settings[i];
        size_t before = out->n;
        buf_addf(out, "  --%s%s%s", s->name, s->placeholder ? " " : "", s->placeholder ? s->placeholder : "");
        int width = (int)(out->n - before);
        buf_addf(out, "%*s%s", width < HELP_COLUMN ? HELP_COLUMN - width : 1, "", s->what);
        if (s->preset && (s->kind != SETTING_FLAG || strcmp(s->preset, "true") == 0))
            buf_addf(out, " (default %s)", s->preset);
        buf_add_char(out, '\n');
    }
}

/* A "|" would end the cell. */
static void add_cell(const char *text, struct buf *out) {
    for (const char *c = text; *c; c++) {
        if (*c == '|')
            buf_add_char(out, '\\');
        buf_add_char(out, *c);
    }
}

void config_help_cells(const struct setting *s, struct buf *out) {
    buf_addf(out, " | %s%s%s | ", s->preset ? "`" : "", s->preset ? s->preset : "none", s->preset ? "`" : "");
    setting_allowed(s, out);
    buf_add_str(out, " | ");
    add_cell(s->what, out);
    buf_add_str(out, " | ");
    add_cell(s->why, out);
    buf_add_str(out, " |\n");
}

void config_help_markdown(struct buf *out) {
    buf_add_str(out, "| flag, variable | default | allowed | what it is | why one would change it |\n"
                     "| --- | --- | --- | --- | --- |\n");
    for (size_t i = 0; i < SETTINGS_N; i++) {
        const struct setting *s = &settings[i];
        buf_addf(out, "| `--%s%s", s->name, s->placeholder ? " " : "");
        add_cell(s->placeholder ? s->placeholder : "", out);
        buf_add_str(out, "`<br>`");
        setting_variable(s, out);
        buf_add_char(out, '`');
        config_help_cells(s, out);
    }
    source_settings_markdown(out);
}

/* Comment lines that break between words. */
static void add_comment(const char *first, const char *text, struct buf *out) {
    size_t column = strlen(first);
    buf_add_str(out, first);
    while (*text) {
        size_t n = strcspn(text, " ");
        if (column + n > COMMENT_COLUMNS) {
            buf_add_str(out, "\n#  ");
            column = 3;
        }
        buf_addf(out, " %.*s", (int)n, text);
        column += n + 1;
        text += n + (text[n] == ' ');
    }
    buf_add_char(out, '\n');
}

void config_help_file(struct buf *out) {
    buf_add_str(out,
                "# The settings of posthorn, each with its default and why one would change it.\n"
                "# One \"name = value\" a line; a flag (--name) or a variable (POSTHORN_NAME) wins over it.\n"
                "# Made by: posthorn serve --help-config\n");
    for (size_t i = 0; i < SETTINGS_N; i++) {
        const struct setting *s = &settings[i];
        _cleanup_buf_ struct buf allowed = {0};
        if (strcmp(s->name, "config") == 0) /* a config file names no other */
            continue;
        setting_allowed(s, &allowed);
        buf_add_char(out, '\n');
        add_comment("#", s->what, out);
        add_comment("# Allowed:", allowed.p ? allowed.p : "", out);
        add_comment("# Why change it:", s->why, out);
        if (!s->preset)
            buf_add_str(out, "# No default.\n");
        buf_addf(out, "#%s = %s\n", s->name, s->preset ? s->preset : s->placeholder ? s->placeholder : "");
    }
    source_settings_file(out);
}
