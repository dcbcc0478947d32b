#include "cli/source_settings.h"

#include <errno.h>

#include "base/log.h"
#include "cli/config_help.h"
#include "cli/key_file.h"
#include "cli/nearest.h"
#include "ingest/cdc.h"
#include "ingest/outbox.h"

#define OFFSET_OF(field) offsetof(struct source_settings, field)
#define SETTING_ROW(KIND, field, name, preset, least, most, placeholder, what, why)                          \
    {SETTING_##KIND, OFFSET_OF(field), name, preset, least, most, placeholder, what, why},

const struct setting source_setting_rows[SOURCE_SETTINGS_N] = {SOURCE_SETTINGS(SETTING_ROW)};

static const struct source_kind *const kinds[] = {&outbox_source, &cdc_source, NULL};

const struct source_kind *source_kind_find(const char *name) {
    for (size_t i = 0; kinds[i]; i++)
        if (strcmp(kinds[i]->name, name) == 0)
            return kinds[i];
    return NULL;
}

/* ---- one setting ---- */

static const struct setting *find_row(const char *name) {
    for (size_t i = 0; i < SOURCE_SETTINGS_N; i++)
        if (strcmp(name, source_setting_rows[i].name) == 0)
            return &source_setting_rows[i];
    return NULL;
}

int source_setting_set(struct source_settings *s, const char *name, const char *value,
                       struct buf *complaint) {
    const struct setting *row = find_row(name);
    if (row)
        return setting_set_field((char *)s + row->offset, row, slice_of(value), complaint);
    const char *names[SOURCE_SETTINGS_N];
    for (size_t i = 0; i < SOURCE_SETTINGS_N; i++)
        names[i] = source_setting_rows[i].name;
    buf_addf(complaint, "unknown setting of a source: did you mean %s?",
             nearest_word(slice_of(name), names, SOURCE_SETTINGS_N));
    return -EINVAL;
}

int source_settings_preset(struct source_settings *s) {
    int r = 0;
    for (size_t i = 0; r == 0 && i < SOURCE_SETTINGS_N; i++) {
        _cleanup_buf_ struct buf complaint = {0};
        const struct setting *row = &source_setting_rows[i];
        if (row->preset)
            r = setting_set_field((char *)s + row->offset, row, slice_of(row->preset), &complaint);
        CHECK(r != -EINVAL);
    }
    return r;
}

/* ---- sections ---- */

static int open_section(struct source_sections *s, const char *section, size_t *ret, struct buf *complaint) {
    const char *name = section + strlen("source");
    name += strspn(name, " ");
    if (!source_name_valid(slice_of(name))) {
        buf_addf(complaint, "the section must be [source NAME], the name 1 to %d of A-Z a-z 0-9 . _ -",
                 SOURCE_NAME_MAX);
        return -EINVAL;
    }
    for (size_t i = 0; i < s->n; i++) {
        if (strcmp(s->at[i].name, name) == 0) {
            *ret = i;
            return 0;
        }
    }
    if (s->n == SOURCES_MAX) {
        buf_addf(complaint, "there may be %d sources", SOURCES_MAX);
        return -EINVAL;
    }
    struct source_settings *made = &s->at[s->n];
    memcpy(made->name, name, strlen(name) + 1);
    *ret = s->n++;
    return source_settings_preset(made);
}

int source_section_line(struct source_sections *s, const char *section, const char *name, const char *value,
                        struct buf *complaint) {
    size_t i = 0;
    int r = open_section(s, section, &i, complaint);
    if (r < 0)
        return r;
    const struct setting *row = find_row(name);
    uint32_t bit = row ? UINT32_C(1) << (row - source_setting_rows) : 0;
    if (s->given[i] & bit && !setting_repeats(row)) {
        buf_add_str(complaint, "is set twice");
        return -EINVAL;
    }
    s->given[i] |= bit;
    return source_setting_set(&s->at[i], name, value, complaint);
}

/* ---- what must fit together ---- */

static int read_password(struct source_settings *s, struct buf *problems) {
    __attribute__((cleanup(buf_wipe))) struct buf text = {0};
    bool open_to_others = false;
    int r = key_file_read(s->password_file, &text, &open_to_others);
    if (r == -ENOMEM)
        return r;
    if (r < 0) {
        buf_addf(problems, "source %s: password-file %s: %s\n", s->name, s->password_file, strerror(-r));
        return -EINVAL;
    }
    if (open_to_others)
        log_warn("the password file can be read by others: chmod 600", log_str("source", s->name),
                 log_str("file", s->password_file));
    struct slice line = buf_slice(&text);
    line.n = strcspn(line.p, "\r\n");
    s->password = slice_dup(line);
    return s->password ? 0 : -ENOMEM;
}

static int complain(const struct source_settings *s, struct buf *problems, const char *problem) {
    buf_addf(problems, "source %s: %s\n", s->name, problem);
    return -EINVAL;
}

int source_settings_check(struct source_settings *s, struct buf *problems) {
    const struct source_kind *kind = source_kind_find(s->kind);
    if (!kind)
        return complain(s, problems, "kind must be outbox or cdc");
    if (!s->url)
        return complain(s, problems, "url must be given: postgres://…, mysql://… or sqlite:FILE");
    if (s->tenant && !tenant_id_valid(slice_of(s->tenant)))
        return complain(s, problems, "tenant must be 1 to 64 of A-Z a-z 0-9 . _ -");
    _cleanup_buf_ struct buf complaint = {0};
    int r = kind->check(s, &complaint);
    if (r == -EINVAL)
        return complain(s, problems, complaint.p ? complaint.p : "memory is out");
    return r == 0 && s->password_file ? read_password(s, problems) : r;
}

/* ---- help ---- */

void source_settings_markdown(struct buf *out) {
    buf_add_str(out, "\n| of a source | default | allowed | what it is | why one would change it |\n"
                     "| --- | --- | --- | --- | --- |\n");
    for (size_t i = 0; i < SOURCE_SETTINGS_N; i++) {
        const struct setting *s = &source_setting_rows[i];
        buf_addf(out, "| `%s = %s`", s->name, s->placeholder);
        config_help_cells(s, out);
    }
}

void source_settings_file(struct buf *out) {
    buf_add_str(
        out,
        "\n# A producer's database that events are taken from, and so on for each; see docs/producers.md. "
        "Sections stand at\n# the end of the file.\n"
        "# [source NAME]\n");
    for (size_t i = 0; i < SOURCE_SETTINGS_N; i++) {
        const struct setting *s = &source_setting_rows[i];
        buf_addf(out, "#   %s = %s\n#     ", s->name, s->preset ? s->preset : s->placeholder);
        buf_addf(out, "%s\n", s->what);
    }
}
