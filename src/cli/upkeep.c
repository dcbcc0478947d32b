/* Commands on a store as a whole: backup, restore, check, migrate. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "cli/args.h"
#include "cli/commands.h"
#include "cli/hardening.h"
#include "cli/secret_key.h"
#include "store/upkeep.h"

struct upkeep {
    const char *command;
    const char *file, *data, *store, *settings;
    bool force, unverified, json, show_progress;
    struct config config;
    struct seal_keyring keys;
    struct store_summary summary;
    struct buf findings; /* JSON objects */
    size_t findings_n;
    int shown_percent;
};

static void upkeep_free(struct upkeep *u) {
    config_free(&u->config);
    seal_keyring_wipe(&u->keys);
    buf_free(&u->findings);
}

static int refused(const struct upkeep *u, const char *message) {
    fprintf(stderr, "posthorn %s: %s\n", u->command, message);
    return EXIT_REFUSED;
}

/* ---- arguments ---- */

static int load_config(struct upkeep *u, struct buf *problems) {
    const struct {
        const char *name, *value;
    } given[] = {{"data", u->data}, {"store", u->store}, {"config", u->settings}};
    struct buf texts[3] = {0};
    char *argv[3];
    int argc = 0, r = 0;
    for (size_t i = 0; i < 3; i++) {
        if (!given[i].value)
            continue;
        buf_addf(&texts[argc], "--%s=%s", given[i].name, given[i].value);
        argv[argc] = texts[argc].p;
        r = buf_ok(&texts[argc]) ? r : -ENOMEM;
        argc++;
    }
    if (r == 0)
        r = config_load(argc, argv, environ, &u->config, problems);
    for (int i = 0; i < argc; i++)
        buf_free(&texts[i]);
    return r;
}

/* EXIT_DONE, or the status to end with. */
static int parse(struct upkeep *u, const struct command *command, int argc, char **argv) {
    struct args args = {0};
    _cleanup_buf_ struct buf problems = {0};
    args_know(&args, command->options, command->options_n);
    int r = args_parse(&args, argc, argv, command->arguments ? command->arguments : "", &problems);
    u->command = command->name;
    u->file = args.plain[0];
    u->data = args_value(&args, "data");
    u->store = args_value(&args, "store");
    u->settings = args_value(&args, "config");
    u->json = args_is_set(&args, "json");
    u->force = args_is_set(&args, "force");
    u->unverified = args_is_set(&args, "unverified");
    if (r == 0)
        r = load_config(u, &problems);
    if (r < 0)
        return usage_problems(u->command, &problems);
    log_configure(LOG_WARN, u->config.log_json);
    hardening_keep_secrets(&u->config);
    u->show_progress = !u->json && isatty(STDERR_FILENO);
    u->shown_percent = -1;
    return EXIT_DONE;
}

/* ---- what is shown ---- */

/* Without the user, the password and the options that a server's URL may have. */
static void add_store_name(const char *url, struct buf *out) {
    const char *authority = strstr(url, "://");
    if (!authority) {
        buf_add_str(out, url);
        return;
    }
    authority += 3;
    size_t whole = strcspn(authority, "?"), host = strcspn(authority, "/?");
    const char *at = memrchr(authority, '@', host);
    buf_add_slice(out, (struct slice){url, (size_t)(authority - url)});
    const char *from = at ? at + 1 : authority;
    buf_add_slice(out, (struct slice){from, whole - (size_t)(from - authority)});
}

static void show_progress(void *arg, uint64_t done, uint64_t total) {
    struct upkeep *u = arg;
    int percent = total ? (int)(done * 100 / total) : 100;
    if (!u->show_progress || percent == u->shown_percent)
        return;
    u->shown_percent = percent;
    fprintf(stderr, "\rcopied %d %%%s", percent, percent == 100 ? "\n" : "");
}

static void show_looking(void *arg, const char *at) {
    const struct upkeep *u = arg;
    if (u->show_progress)
        fprintf(stderr, "\r\033[Klooking: %s", at);
}

static void show_finding(void *arg, const struct store_finding *f) {
    struct upkeep *u = arg;
    if (u->show_progress)
        fputs("\r\033[K", stderr);
    if (!u->json)
        printf("found: %s: %llu, such as %s\n", f->what, (unsigned long long)f->n, f->example);
    buf_addf(&u->findings, "%s{\"what\":", u->findings_n++ ? "," : "");
    buf_add_json_string(&u->findings, slice_of(f->what));
    buf_addf(&u->findings, ",\"count\":%llu,\"example\":", (unsigned long long)f->n);
    buf_add_json_string(&u->findings, slice_of(f->example));
    buf_add_char(&u->findings, '}');
}

static void add_fingerprints(const struct store_summary *s, const char *quote, struct buf *out) {
    for (size_t i = 0; i < s->keys_n; i++) {
        char text[2 * SEAL_FINGERPRINT_SIZE + 1];
        hex_encode(s->keys[i], SEAL_FINGERPRINT_SIZE, text);
        buf_addf(out, "%s%s%s%s", i ? "," : "", quote, text, quote);
    }
}

/* The members that every answer has. */
static void add_summary(const struct store_summary *s, struct buf *out) {
    buf_addf(out,
             "\"schema\":%zu,\"bytes\":%llu,\"tenants\":%llu,\"subscriptions\":%llu,\"events\":%llu,"
             "\"deliveries\":%llu,\"secret_key_fingerprints\":[",
             s->schema, (unsigned long long)s->bytes, (unsigned long long)s->tenants,
             (unsigned long long)s->subscriptions, (unsigned long long)s->events,
             (unsigned long long)s->deliveries);
    add_fingerprints(s, "\"", out);
    buf_add_char(out, ']');
}

static void print_summary(const struct upkeep *u, const char *what, const char *file) {
    const struct store_summary *s = &u->summary;
    printf("%s %s: %llu tenants, %llu subscriptions, %llu events, %llu deliveries (%llu bytes, schema %zu)\n",
           what, file, (unsigned long long)s->tenants, (unsigned long long)s->subscriptions,
           (unsigned long long)s->events, (unsigned long long)s->deliveries, (unsigned long long)s->bytes,
           s->schema);
}

static int end_output(struct buf *out) {
    bool written = buf_ok(out) && (out->n == 0 || fwrite(out->p, 1, out->n, stdout) == out->n);
    return written && fflush(stdout) == 0 ? EXIT_DONE : EXIT_REFUSED;
}

static int print_json(const struct upkeep *u, const char *member, const char *value) {
    _cleanup_buf_ struct buf out = {0};
    buf_addf(&out, "{\"%s\":", member);
    buf_add_json_string(&out, slice_of(value));
    buf_add_char(&out, ',');
    add_summary(&u->summary, &out);
    buf_add_str(&out, "}\n");
    return end_output(&out);
}

/* ---- backup ---- */

static int run_backup(struct upkeep *u) {
    const char *message = "";
    int r = store_backup(u->config.store, u->file, show_progress, u, &u->summary, &message);
    if (r < 0)
        return refused(u, message);
    if (u->json)
        return print_json(u, "file", u->file);
    print_summary(u, "backed up into", u->file);
    _cleanup_buf_ struct buf out = {0};
    if (u->summary.keys_n) {
        buf_add_str(&out, "Its secrets are sealed with the key of fingerprint ");
        add_fingerprints(&u->summary, "", &out);
        buf_add_str(&out, ", which is not in it: keep a copy of that key apart.\n");
    }
    return end_output(&out);
}

static int command_backup(int argc, char **argv) {
    _cleanup_(upkeep_free) struct upkeep u = {0};
    int status = parse(&u, &backup_command, argc, argv);
    return status == EXIT_DONE ? run_backup(&u) : status;
}

/* ---- check ---- */

static int print_check(const struct upkeep *u, const char *looked_at) {
    _cleanup_buf_ struct buf out = {0};
    if (u->json) {
        buf_addf(&out, "{\"sound\":%s,\"findings\":[%s],", u->findings_n ? "false" : "true",
                 u->findings.p ? u->findings.p : "");
        add_summary(&u->summary, &out);
        buf_add_str(&out, "}\n");
    } else {
        print_summary(u, "looked at", looked_at);
        if (u->summary.schema < u->summary.schema_known)
            buf_addf(&out,
                     "Its schema is of an older posthorn (%zu; this one's is %zu): its pages alone were "
                     "looked at. "
                     "posthorn migrate brings it up to date.\n",
                     u->summary.schema, u->summary.schema_known);
        else if (u->keys.n == 0 && u->summary.keys_n)
            buf_add_str(
                &out, "There is no secret key at hand: whether the sealed secrets open was not looked at.\n");
        buf_add_str(&out, u->findings_n ? "NOT SOUND\n" : "sound\n");
    }
    int status = end_output(&out);
    return u->findings_n || !buf_ok(&u->findings) ? EXIT_REFUSED : status;
}

/* A backup is held against a key only where one was named: that of the data folder may be another store's. */
static bool names_key(const struct upkeep *u) {
    return !u->file || u->data || u->config.secret_key || u->config.secret_key_file;
}

static int run_check(struct upkeep *u) {
    _cleanup_buf_ struct buf url = {0};
    struct stat st;
    const char *message = "";
    if (names_key(u) && secret_key_at_hand(&u->config, &u->keys) < 0)
        return EXIT_REFUSED;
    buf_addf(&url, "sqlite:%s", u->file ? u->file : "");
    struct store_check how = {.now = clock_now_ms(),
                              .keys = u->keys.n ? &u->keys : NULL,
                              .looking = show_looking,
                              .found = show_finding,
                              .arg = u};
    if (u->file && stat(u->file, &st) == 0)
        how.now = (int64_t)st.st_mtime * 1000;
    int r = store_check(u->file ? url.p : u->config.store, &how, &u->summary, &message);
    if (u->show_progress)
        fputs("\r\033[K", stderr);
    if (r == -EUCLEAN)
        show_finding(u, &(struct store_finding){"the file is damaged, or no store", 1, message});
    if (r < 0 && r != -EUCLEAN)
        return refused(u, message);
    _cleanup_buf_ struct buf name = {0};
    add_store_name(u->file ? u->file : u->config.store, &name);
    return print_check(u, buf_ok(&name) ? name.p : "the store");
}

static int command_check(int argc, char **argv) {
    _cleanup_(upkeep_free) struct upkeep u = {0};
    int status = parse(&u, &check_command, argc, argv);
    return status == EXIT_DONE ? run_check(&u) : status;
}

/* ---- restore ---- */

static bool ends_with(const char *text, const char *end) {
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

/* Keys may be put there first; the lock and what a killed restore left behind are ours. */
static bool may_be_there(const char *name) {
    return strcmp(name, ".") == 0 || strcmp(name, "..") == 0 || strcmp(name, "secret.key") == 0 ||
           strcmp(name, "admin.key") == 0 || ends_with(name, ".lock") || ends_with(name, ".restoring");
}

/* The first thing in the folder that speaks against it, copied; NULL: nothing. */
static char *what_is_there(const char *folder) {
    DIR *d = opendir(folder);
    char *found = NULL;
    for (struct dirent *e; d && !found && (e = readdir(d));)
        if (!may_be_there(e->d_name))
            found = strdup(e->d_name);
    if (d)
        closedir(d);
    return found;
}

static void say_key(const struct upkeep *u, struct buf *out) {
    if (!u->summary.keys_n)
        return;
    buf_add_str(out, "Its secrets are sealed with the key of fingerprint ");
    add_fingerprints(&u->summary, "", out);
    buf_addf(out,
             u->keys.n == 0  ? ": put that key into %s/secret.key, or name it, before a start.\n"
             : u->unverified ? ", which was not held against the key of %s.\n"
                             : ", which is at hand (%s).\n",
             u->config.data);
}

static int run_restore(struct upkeep *u) {
    const char *message = "";
    _cleanup_free_ char *there = u->force ? NULL : what_is_there(u->config.data);
    if (there) {
        fprintf(stderr,
                "posthorn restore: %s is not empty (%s): name another --data, or say --force to replace its "
                "store\n",
                u->config.data, there);
        return EXIT_REFUSED;
    }
    struct stat st;
    if (stat(u->file, &st) < 0)
        return refused(u, "the FILE cannot be read: is its name right?");
    if (hardening_take_data(&u->config) < 0 || secret_key_at_hand(&u->config, &u->keys) < 0)
        return EXIT_REFUSED;
    struct store_check check = {.now = (int64_t)st.st_mtime * 1000,
                                .keys = u->keys.n ? &u->keys : NULL,
                                .looking = show_looking,
                                .found = show_finding,
                                .arg = u};
    struct store_restore how = {
        .replace = u->force, .check = u->unverified ? NULL : &check, .progress = show_progress, .arg = u};
    int r = store_restore(u->file, u->config.store, &how, &u->summary, &message);
    if (u->show_progress)
        fputs("\r\033[K", stderr);
    if (r < 0)
        return refused(u, message);
    if (u->json)
        return print_json(u, "data", u->config.data);
    print_summary(u, "restored into", u->config.data);
    _cleanup_buf_ struct buf out = {0};
    say_key(u, &out);
    return end_output(&out);
}

static int command_restore(int argc, char **argv) {
    _cleanup_(upkeep_free) struct upkeep u = {0};
    int status = parse(&u, &restore_command, argc, argv);
    return status == EXIT_DONE ? run_restore(&u) : status;
}

/* ---- migrate ---- */

static int run_migrate(struct upkeep *u) {
    const char *message = "";
    size_t from = 0, to = 0;
    if (hardening_take_data(&u->config) < 0)
        return EXIT_REFUSED;
    int r = store_migrate(u->config.store, &from, &to, &message);
    if (r < 0)
        return refused(u, message);
    _cleanup_buf_ struct buf out = {0};
    if (u->json)
        buf_addf(&out, "{\"from\":%zu,\"schema\":%zu}\n", from, to);
    else if (from == to)
        buf_addf(&out, "up to date: schema %zu\n", to);
    else if (from == 0)
        buf_addf(&out, "made a store: schema %zu\n", to);
    else
        buf_addf(&out, "migrated: schema %zu to %zu\n", from, to);
    return end_output(&out);
}

static int command_migrate(int argc, char **argv) {
    _cleanup_(upkeep_free) struct upkeep u = {0};
    int status = parse(&u, &migrate_command, argc, argv);
    return status == EXIT_DONE ? run_migrate(&u) : status;
}

/* ---- the table ---- */

#define FLAGS                                                                                                \
    {"data", "DIR", "the data folder (default ./posthorn-data)", OPTION_TEXT, IN_COMMAND, NULL, NULL},       \
        {"store", "URL", "the store, where it is not in the data folder", OPTION_TEXT, IN_COMMAND,           \
         NULL,    NULL},                                                                                     \
        {"config", "FILE", "the settings of the server", OPTION_TEXT, IN_COMMAND, NULL, NULL},               \
        {"json", NULL, "answer with a JSON object", OPTION_BOOL, IN_COMMAND, NULL, NULL},

static const struct option options[] = {FLAGS};
static const struct option restore_options[] = {
    FLAGS{"force", NULL, "also into a folder that is not empty: its store is replaced", OPTION_BOOL,
          IN_COMMAND, NULL, NULL},
    {"unverified", NULL, "do not look whether the backup is sound", OPTION_BOOL, IN_COMMAND, NULL, NULL},
};

const struct command backup_command = {
    .name = "backup",
    .heading = "Its store",
    .run = command_backup,
    .arguments = "FILE",
    .summary = "copy the store into one file, while a server runs on it",
    .details =
        "FILE is made whole or not at all, with mode 0600. The signing secrets in it are sealed: the key\n"
        "(secret.key) is not in it, keep a copy of that apart.\n",
    .examples = "posthorn backup /backup/posthorn-monday.db --data /var/lib/posthorn\n",
    OPTIONS(options),
};

const struct command restore_command = {
    .name = "restore",
    .run = command_restore,
    .arguments = "FILE",
    .summary = "put a backup in the place of the store",
    .details = "All or nothing, and never under a running server.\n",
    .examples = "posthorn restore /backup/posthorn-monday.db --data /var/lib/posthorn\n",
    OPTIONS(restore_options),
};

const struct command check_command = {
    .name = "check",
    .run = command_check,
    .arguments = "[FILE]",
    .summary = "look whether the store, or a backup, is sound",
    .details = "Exit status 0: sound, 1: not, or it could not be looked at.\n",
    .examples = "posthorn check --data /var/lib/posthorn\nposthorn check /backup/posthorn-monday.db\n"
                "posthorn check --store postgres://posthorn@db.internal/posthorn\n",
    OPTIONS(options),
};

const struct command migrate_command = {
    .name = "migrate",
    .run = command_migrate,
    .summary = "bring the store's schema up to date without serving",
    .examples = "posthorn migrate --data /var/lib/posthorn\n",
    OPTIONS(options),
};
