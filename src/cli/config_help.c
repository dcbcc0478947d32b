#include "cli/config.h"

enum { HELP_COLUMN = 28 };

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

void config_help_markdown(struct buf *out) {
    buf_add_str(out, "| flag, variable | default | allowed | what it is | why one would change it |\n"
                     "| --- | --- | --- | --- | --- |\n");
    for (size_t i = 0; i < SETTINGS_N; i++) {
        const struct setting *s = &settings[i];
        buf_addf(out, "| `--%s%s", s->name, s->placeholder ? " " : "");
        add_cell(s->placeholder ? s->placeholder : "", out);
        buf_add_str(out, "`<br>`");
        setting_variable(s, out);
        buf_addf(out, "` | %s%s%s | ", s->preset ? "`" : "", s->preset ? s->preset : "none",
                 s->preset ? "`" : "");
        setting_allowed(s, out);
        buf_add_str(out, " | ");
        add_cell(s->what, out);
        buf_add_str(out, " | ");
        add_cell(s->why, out);
        buf_add_str(out, " |\n");
    }
}
