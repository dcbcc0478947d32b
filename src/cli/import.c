/* Moves a store from SQLite to PostgreSQL. */
#include <stdio.h>

#include "base/log.h"
#include "cli/args.h"
#include "cli/client/progress.h"
#include "cli/commands.h"
#include "store/import.h"

struct import {
    const char *from, *to;
    bool json;
    struct progress progress;
    bool comparing;
    struct buf tables; /* JSON members */
};

static void show_progress(void *arg, bool comparing, uint64_t done, uint64_t total) {
    struct import *i = arg;
    /* The rate begins anew. */
    if (comparing != i->comparing) {
        progress_clear(&i->progress);
        progress_start(&i->progress, i->progress.shown);
    }
    i->comparing = comparing;
    progress_show(&i->progress, (int64_t)done, 0, (int64_t)total,
                  comparing ? "rows compared" : "rows copied");
}

static void show_table(void *arg, const char *table, uint64_t rows) {
    struct import *i = arg;
    progress_clear(&i->progress);
    if (!i->json && rows)
        printf("%-18s %12llu rows, as they were\n", table, (unsigned long long)rows);
    buf_addf(&i->tables, "%s\"%s\":%llu", i->tables.n ? "," : "", table, (unsigned long long)rows);
}

static void take_url(const struct args *args, const char *name, const char *scheme, const char **ret,
                     struct buf *problems) {
    *ret = args_value(args, name);
    if (!*ret)
        buf_addf(problems, "--%s is missing: %s…\n", name, scheme);
}

static int parse(struct import *i, int argc, char **argv) {
    struct args args = {0};
    _cleanup_buf_ struct buf problems = {0};
    args_know(&args, import_command.options, import_command.options_n);
    int r = args_parse(&args, argc, argv, "", &problems);
    if (r == 0) {
        take_url(&args, "from", "sqlite:", &i->from, &problems);
        take_url(&args, "to", "postgres://", &i->to, &problems);
    }
    if (r == 0 && i->from && strncmp(i->from, "sqlite:", strlen("sqlite:")) != 0)
        buf_add_str(&problems, "--from must be sqlite:FILE, such as sqlite:/var/lib/posthorn/posthorn.db\n");
    if (r == 0 && i->to && strncmp(i->to, "postgres", strlen("postgres")) != 0)
        buf_add_str(&problems, "--to must be postgres://USER@HOST/DATABASE\n");
    i->json = args_is_set(&args, "json");
    return r < 0 || problems.n ? usage_problems("import", &problems) : EXIT_DONE;
}

static int print_done(const struct import *i, uint64_t rows) {
    _cleanup_buf_ struct buf out = {0};
    if (i->json)
        buf_addf(&out, "{\"rows\":%llu,\"tables\":{%s}}\n", (unsigned long long)rows,
                 i->tables.p ? i->tables.p : "");
    else
        buf_addf(
            &out,
            "moved %llu rows. Now start posthorn with --store and this URL, and with the same secret.key "
            "and\nadmin.key; do not start it on %s any more.\n",
            (unsigned long long)rows, i->from + strlen("sqlite:"));
    return write_out(&out);
}

static int command_import(int argc, char **argv) {
    struct import i = {0};
    uint64_t rows = 0;
    const char *message = "";
    int status = parse(&i, argc, argv);
    if (status != EXIT_DONE)
        return status;
    log_configure(LOG_WARN, false);
    progress_start(&i.progress, !i.json && isatty(STDERR_FILENO));
    struct store_import how = {.progress = show_progress, .copied = show_table, .arg = &i};
    int r = store_import(i.from, i.to, &how, &rows, &message);
    progress_clear(&i.progress);
    if (r < 0) {
        fprintf(stderr, "posthorn import: %s\n", message);
        status = EXIT_REFUSED;
    } else {
        status = print_done(&i, rows);
    }
    buf_free(&i.tables);
    return status;
}

static const struct option options[] = {
    {"from", "URL", "the store to move: sqlite:FILE, of a server that is stopped", OPTION_TEXT, IN_COMMAND,
     NULL, NULL},
    {"to", "URL", "where to: postgres://USER@HOST/DATABASE, an empty database", OPTION_TEXT, IN_COMMAND, NULL,
     NULL},
    {"json", NULL, "answer with a JSON object", OPTION_BOOL, IN_COMMAND, NULL, NULL},
};

const struct command import_command = {
    .name = "import",
    .run = command_import,
    .summary = "move a store from SQLite to PostgreSQL",
    .details =
        "Stop the server first. Everything moves, under the same ids, in one transaction, and is read\n"
        "back and compared before it is committed: when anything fails, the database is as empty as\n"
        "before, and import can be run again. The SQLite file stays as it is. What was open is "
        "delivered\n"
        "by the server that starts on the database; keep secret.key and admin.key.\n",
    .examples = "posthorn import --from sqlite:/var/lib/posthorn/posthorn.db --to "
                "postgres://posthorn@db.internal/posthorn\n",
    OPTIONS(options),
};
