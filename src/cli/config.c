#include "cli/config.h"

#include <curl/curl.h>
#include <errno.h>
#include <ini.h>
#include <stdio.h>

#include "cli/flags.h"
#include "cli/nearest.h"
#include "core/signature.h"

enum { CONFIG_LINE_MAX = 8192 /* bytes of a line of the config file */ };

/* Variables that are no settings: keys are kept off command lines; the last four are the clients'. */
static const char *const other_variables[] = {
    "POSTHORN_ADMIN_KEY", "POSTHORN_SECRET_KEY", "POSTHORN_SECRET_KEY_PREVIOUS", "POSTHORN_URL",
    "POSTHORN_KEY",       "POSTHORN_TENANT",     "POSTHORN_SOURCE_URL"};

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

struct load {
    struct config *config;
    struct buf *problems;
    bool wrong;
    int error; /* -ENOMEM ends it */
};

/* Where a value comes from, in the words of its source: "--listen 1", "POSTHORN_LISTEN=1", "f.ini:3: listen =
 * 1". */
struct origin {
    enum config_source source;
    const char *file;
    int line;
};

static const struct setting *find_setting(struct slice name) {
    for (size_t i = 0; i < SETTINGS_N; i++)
        if (slice_eq(name, slice_of(settings[i].name)))
            return &settings[i];
    return NULL;
}

static void describe(const struct origin *o, const struct setting *s, struct slice value, struct buf *out) {
    if (o->source == FROM_FLAG) {
        buf_addf(out, "--%s %.*s", s->name, SLICE_ARG(value));
    } else if (o->source == FROM_VARIABLE) {
        setting_variable(s, out);
        buf_addf(out, "=%.*s", SLICE_ARG(value));
    } else {
        buf_addf(out, "%s:%d: %s = %.*s", o->file, o->line, s->name, SLICE_ARG(value));
    }
}

static void assign(struct load *l, const struct setting *s, struct slice value, const struct origin *o) {
    enum config_source *source = &l->config->sources[s - settings];
    _cleanup_buf_ struct buf complaint = {0};
    CHECK(*source <= o->source);
    if (*source < o->source && setting_repeats(s))
        setting_clear(l->config, s);
    *source = o->source;
    int r = setting_set(l->config, s, value, &complaint);
    if (r == -ENOMEM)
        l->error = r;
    if (r != -EINVAL)
        return;
    l->wrong = true;
    describe(o, s, value, l->problems);
    buf_addf(l->problems, ": %.*s\n", SLICE_ARG(buf_slice(&complaint)));
}

/* `more` (NULL: none) is what may stand there beside the settings. */
static const char *nearest_setting(struct slice name, const char *more) {
    const char *names[SETTINGS_N + 1];
    for (size_t i = 0; i < SETTINGS_N; i++)
        names[i] = settings[i].name;
    names[SETTINGS_N] = more;
    return nearest_word(name, names, SETTINGS_N + (more ? 1 : 0));
}

static void preset(struct load *l) {
    for (size_t i = 0; i < SETTINGS_N; i++) {
        if (!settings[i].preset)
            continue;
        _cleanup_buf_ struct buf complaint = {0};
        int r = setting_set(l->config, &settings[i], slice_of(settings[i].preset), &complaint);
        CHECK(r != -EINVAL);
        if (r < 0)
            l->error = r;
    }
}

/* ---- the config file ---- */

struct file_reader {
    struct load *load;
    FILE *stream;
    const char *path;
    int line;
    bool too_long;
};

static char *read_line(char *out, int size, void *arg) {
    struct file_reader *f = arg;
    if (!fgets(out, size, f->stream))
        return NULL;
    f->line++;
    size_t n = strlen(out);
    if (n + 1 == (size_t)size && out[n - 1] != '\n') {
        f->too_long = true;
        return NULL;
    }
    return out;
}

static void take_source_line(struct file_reader *f, const char *section, const char *name,
                             const char *value) {
    _cleanup_buf_ struct buf complaint = {0};
    int r = source_section_line(&f->load->config->from, section, name, value, &complaint);
    if (r == -ENOMEM)
        f->load->error = r;
    if (r != -EINVAL)
        return;
    f->load->wrong = true;
    buf_addf(f->load->problems, "%s:%d: %s: %.*s\n", f->path, f->line, name,
             SLICE_ARG(buf_slice(&complaint)));
}

static int take_line(void *arg, const char *section, const char *name, const char *value) {
    struct file_reader *f = arg;
    struct load *l = f->load;
    const struct setting *s = find_setting(slice_of(name));
    struct origin origin = {FROM_FILE, f->path, f->line};
    const char *problem = NULL;
    if (is_source_section(section)) {
        take_source_line(f, section, name, value);
        return 1;
    }
    if (section[0])
        problem = "is in a section other than [source NAME], the one kind there is";
    else if (s && strcmp(s->name, "config") == 0)
        problem = "a config file names no other";
    else if (s && l->config->sources[s - settings] == FROM_FILE && !setting_repeats(s))
        problem = "is set twice";
    if (!s || problem)
        l->wrong = true;
    if (problem)
        buf_addf(l->problems, "%s:%d: %s: %s\n", f->path, f->line, name, problem);
    else if (!s)
        buf_addf(l->problems, "%s:%d: unknown setting %s: did you mean %s?\n", f->path, f->line, name,
                 nearest_setting(slice_of(name), NULL));
    else
        assign(l, s, slice_of(value), &origin);
    return 1;
}

static void load_file(struct load *l, const char *path) {
    struct file_reader f = {.load = l, .path = path, .stream = fopen(path, "re")};
    if (!f.stream) {
        l->wrong = true;
        buf_addf(l->problems, "config file %s: %s\n", path, strerror(errno));
        return;
    }
    ini_allow_multiline = false;
    ini_use_stack = false;
    ini_max_line = CONFIG_LINE_MAX;
    int r = ini_parse_stream(read_line, &f, take_line, &f);
    bool unreadable = ferror(f.stream) != 0;
    fclose(f.stream);
    if (r == -2)
        l->error = -ENOMEM;
    if (r == 0 && !f.too_long && !unreadable)
        return;
    l->wrong = true;
    if (unreadable)
        buf_addf(l->problems, "config file %s: cannot be read\n", path);
    else if (f.too_long)
        buf_addf(l->problems, "%s:%d: the line is longer than %d bytes\n", path, f.line, CONFIG_LINE_MAX - 3);
    else
        buf_addf(l->problems, "%s:%d: must be a line name = value\n", path, r);
}

/* ---- variables ---- */

static const struct setting *setting_of_variable(struct slice name) {
    for (size_t i = 0; i < SETTINGS_N; i++) {
        _cleanup_buf_ struct buf variable = {0};
        setting_variable(&settings[i], &variable);
        if (slice_eq(name, buf_slice(&variable)))
            return &settings[i];
    }
    return NULL;
}

static void unknown_variable(struct load *l, struct slice name) {
    struct buf texts[SETTINGS_N] = {0};
    const char *names[SETTINGS_N + COUNT(other_variables)];
    size_t n = 0;
    for (size_t i = 0; i < SETTINGS_N; i++) {
        setting_variable(&settings[i], &texts[i]);
        if (buf_ok(&texts[i]))
            names[n++] = texts[i].p;
    }
    for (size_t i = 0; i < COUNT(other_variables); i++)
        names[n++] = other_variables[i];
    l->wrong = true;
    buf_addf(l->problems, "unknown variable %.*s: did you mean %s?\n", SLICE_ARG(name),
             nearest_word(name, names, n));
    for (size_t i = 0; i < SETTINGS_N; i++)
        buf_free(&texts[i]);
}

/* Whether "NAME=value" is of this name; then *ret_value is what follows. */
static bool is_variable(const char *entry, const char *name, const char **ret_value) {
    size_t n = strlen(name);
    if (strncmp(entry, name, n) != 0 || entry[n] != '=')
        return false;
    *ret_value = entry + n + 1;
    return true;
}

static void take_key(struct load *l, char **field, const char *key) {
    free(*field);
    *field = slice_dup(slice_of(key));
    if (!*field)
        l->error = -ENOMEM;
}

static void take_admin_key(struct load *l, const char *key) {
    bool usable = key[0] != '\0';
    for (const char *c = key; *c; c++)
        usable = usable && *c > ' ' && *c < 0x7f;
    if (!usable) {
        l->wrong = true;
        buf_add_str(l->problems,
                    "POSTHORN_ADMIN_KEY is set but is no key: it must be visible ASCII characters "
                    "without spaces; unset it to have an admin key made\n");
        return;
    }
    take_key(l, &l->config->admin_key, key);
}

static void load_variable(struct load *l, const char *entry) {
    static const struct origin origin = {.source = FROM_VARIABLE};
    const char *value, *equals = strchr(entry, '=');
    if (strncmp(entry, "POSTHORN_", strlen("POSTHORN_")) != 0 || !equals)
        return;
    if (is_variable(entry, "POSTHORN_ADMIN_KEY", &value)) {
        take_admin_key(l, value);
        return;
    }
    if (is_variable(entry, "POSTHORN_SECRET_KEY", &value)) {
        take_key(l, &l->config->secret_key, value);
        return;
    }
    if (is_variable(entry, "POSTHORN_SECRET_KEY_PREVIOUS", &value)) {
        take_key(l, &l->config->secret_key_previous, value);
        return;
    }
    for (size_t i = 0; i < COUNT(other_variables); i++)
        if (is_variable(entry, other_variables[i], &value))
            return;
    struct slice name = {entry, (size_t)(equals - entry)};
    const struct setting *s = setting_of_variable(name);
    if (s)
        assign(l, s, slice_of(equals + 1), &origin);
    else
        unknown_variable(l, name);
}

/* ---- flags ---- */

static void load_flag(struct load *l, struct flags *flags, const struct flag *flag) {
    static const struct origin origin = {.source = FROM_FLAG};
    const struct setting *s = flag->name.p ? find_setting(flag->name) : NULL;
    const char *value = NULL;
    if (s)
        value = s->kind == SETTING_FLAG ? (flag->value ? flag->value : "true") : flags_value(flags, flag);
    if (value) {
        assign(l, s, slice_of(value), &origin);
        return;
    }
    l->wrong = true;
    if (s)
        buf_addf(l->problems, "--%s needs a value: --%s %s\n", s->name, s->name, s->placeholder);
    else if (flag->name.p)
        buf_addf(l->problems, "unknown setting --%.*s: did you mean --%s?\n", SLICE_ARG(flag->name),
                 nearest_setting(flag->name, "help"));
    else
        buf_addf(l->problems, "unexpected argument %s\n", flag->value);
}

/* The config file to read: the flag's, else the variable's. */
static const char *config_path(int argc, char *const *argv, char *const *environment) {
    struct flags flags = {.argc = argc, .argv = argv};
    struct flag flag;
    const char *path = NULL, *value;
    for (char *const *e = environment; *e; e++)
        if (is_variable(*e, "POSTHORN_CONFIG", &value))
            path = value;
    while (flags_next(&flags, &flag)) {
        const struct setting *s = flag.name.p ? find_setting(flag.name) : NULL;
        value = s && s->kind != SETTING_FLAG ? flags_value(&flags, &flag) : NULL;
        if (value && strcmp(s->name, "config") == 0)
            path = value;
    }
    return path && path[0] ? path : NULL;
}

/* ---- what must fit together ---- */

static bool is_loopback(const struct listen_address *l) {
    struct in6_addr a;
    uint16_t port;
    if (address_of_sockaddr((const struct sockaddr *)&l->address, &a, &port) < 0)
        return false;
    return IN6_IS_ADDR_LOOPBACK(&a) || (IN6_IS_ADDR_V4MAPPED(&a) && a.s6_addr[12] == 127);
}

static void refuse(struct load *l, const char *problem) {
    l->wrong = true;
    buf_addf(l->problems, "%s\n", problem);
}

static void check_operator(struct load *l) {
    const struct config *c = l->config;
    struct signing_key key;
    if (c->operator_url && !c->operator_secret)
        refuse(l, "operator-url needs operator-secret, which signs what is sent there");
    if (c->operator_secret && !c->operator_url)
        refuse(l, "operator-secret is of no use without operator-url");
    if (c->operator_secret && (!slice_starts_with(slice_of(c->operator_secret), SLICE_LIT("whsec_")) ||
                               signing_key_parse(slice_of(c->operator_secret), &key) < 0))
        refuse(l, "operator-secret must be whsec_ and base64 of 24 to 64 bytes");
    explicit_bzero(&key, sizeof key);
}

/* Whether it is an http or https URL with a host, and without user or query. */
static bool is_plain_url(const char *text) {
    static const CURLUPart refused[] = {CURLUPART_USER, CURLUPART_PASSWORD, CURLUPART_QUERY,
                                        CURLUPART_FRAGMENT};
    bool good = strncmp(text, "http://", strlen("http://")) == 0 ||
                strncmp(text, "https://", strlen("https://")) == 0;
    CURLU *url = curl_url();
    good = good && url && curl_url_set(url, CURLUPART_URL, text, 0) == CURLUE_OK;
    for (size_t i = 0; good && i < COUNT(refused); i++) {
        char *part = NULL;
        good = curl_url_get(url, refused[i], &part, 0) != CURLUE_OK;
        curl_free(part);
    }
    curl_url_cleanup(url);
    return good;
}

static void check_tracing(struct load *l) {
    const struct config *c = l->config;
    if (c->otlp_url && !is_plain_url(c->otlp_url))
        refuse(l, "otlp-url must be an http or https URL without user, query or fragment, such as "
                  "http://127.0.0.1:4318");
    if (c->otlp_header && !c->otlp_url)
        refuse(l, "otlp-header is of no use without otlp-url");
    if (!c->otlp_header)
        return;
    const char *colon = strstr(c->otlp_header, ": ");
    bool good = colon && colon != c->otlp_header && colon[2] != '\0';
    for (const char *at = c->otlp_header; good && *at; at++)
        good = (unsigned char)*at >= ' ' && *at != 0x7f && (at >= colon || *at != ' ');
    if (!good)
        refuse(l, "otlp-header must be NAME: VALUE, such as Authorization: Bearer KEY");
}

static void check_listener(struct load *l, const char *name, const struct listen_address *a) {
    if (is_loopback(a) || l->config->tls_certificate || l->config->insecure_listen)
        return;
    l->wrong = true;
    buf_addf(l->problems,
             "%s %s: is not a loopback address, and the API speaks plain HTTP: keys and payloads would be "
             "readable on "
             "the way; give tls-certificate and tls-key, put a TLS proxy in front, or say insecure-listen "
             "where the "
             "network is trusted\n",
             name, a->text);
}

static void check_sources(struct load *l) {
    struct source_sections *from = &l->config->from;
    for (size_t i = 0; i < from->n; i++) {
        int r = source_settings_check(&from->at[i], l->problems);
        if (r == -ENOMEM)
            l->error = r;
        l->wrong = l->wrong || r < 0;
    }
}

bool config_is_shared(const struct config *c) {
    return c->store && (strncmp(c->store, "postgres:", strlen("postgres:")) == 0 ||
                        strncmp(c->store, "postgresql:", strlen("postgresql:")) == 0);
}

static void check_store(struct load *l) {
    const struct config *c = l->config;
    if (config_is_shared(c))
        return;
    if (c->store && strncmp(c->store, "sqlite:", strlen("sqlite:")) != 0) {
        l->wrong = true;
        /* It may hold a password. */
        buf_add_str(l->problems, "store: must be sqlite:FILE or postgres://…, the kinds there are\n");
    }
    if (c->roles != ROLES_ALL)
        refuse(l, "roles must be api,fanout,deliver: an SQLite data folder belongs to one process with all "
                  "roles");
    if (c->tiers != (1U << TIERS) - 1)
        refuse(l, "tiers must be premium,standard,bulk: an SQLite data folder belongs to one process, which "
                  "sends for all of them");
}

static void check_together(struct load *l) {
    const struct config *c = l->config;
    check_sources(l);
    check_operator(l);
    check_tracing(l);
    check_listener(l, "listen", &c->listen);
    if (c->admin_listen.size)
        check_listener(l, "admin-listen", &c->admin_listen);
    if (!c->tls_certificate != !c->tls_key)
        refuse(l, "tls-certificate and tls-key go together: a PEM file each");
    if (c->secret_key && c->secret_key_file)
        refuse(l, "POSTHORN_SECRET_KEY and secret-key-file are both set: one key seals, the file's or the "
                  "variable's");
    if (c->batch_bytes_max < c->event_bytes_max)
        refuse(l, "batch-bytes-max must be at least event-bytes-max: a batch holds whole events");
    check_store(l);
}

/* Fills in what depends on other settings or on the machine. */
static void derive(struct load *l) {
    struct config *c = l->config;
    if (!c->store && asprintf(&c->store, "sqlite:%s/posthorn.db", c->data) < 0) {
        c->store = NULL;
        l->error = -ENOMEM;
    }
    if (c->loops == 0) {
        const struct setting *s = find_setting(SLICE_LIT("loops"));
        long cores = sysconf(_SC_NPROCESSORS_ONLN);
        c->loops = cores < 1 ? 1 : cores > s->most ? s->most : cores;
    }
}

int config_load(int argc, char *const *argv, char *const *environment, struct config *ret,
                struct buf *problems) {
    _cleanup_config_ struct config c = {0};
    struct load l = {.config = &c, .problems = problems};
    struct flags flags = {.argc = argc, .argv = argv};
    struct flag flag;
    preset(&l);
    const char *path = config_path(argc, argv, environment);
    if (path)
        load_file(&l, path);
    for (char *const *e = environment; *e; e++)
        load_variable(&l, *e);
    while (flags_next(&flags, &flag))
        load_flag(&l, &flags, &flag);
    if (l.error == 0)
        check_together(&l);
    if (l.error == 0 && !l.wrong)
        derive(&l);
    if (l.error < 0 || l.wrong)
        return l.error < 0 ? l.error : -EINVAL;
    *ret = c;
    c = (struct config){0};
    return 0;
}

void config_free(struct config *c) {
    for (size_t i = 0; i < SETTINGS_N; i++)
        if (setting_is_text(&settings[i]))
            wipe_free(*(char **)((char *)c + settings[i].offset)); /* the operator's secret is one */
    wipe_free(c->admin_key);
    wipe_free(c->secret_key);
    wipe_free(c->secret_key_previous);
    for (size_t i = 0; i < c->from.n; i++)
        source_settings_free(&c->from.at[i]);
    *c = (struct config){0};
}

bool config_is_given(const struct config *c, const char *name) {
    const struct setting *s = find_setting(slice_of(name));
    CHECK(s);
    return c->sources[s - settings] != FROM_PRESET;
}
