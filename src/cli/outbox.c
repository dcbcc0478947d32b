/* posthorn outbox: the table for a producer's database, and the relay that drains it apart from the server.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "cli/client/call.h"
#include "cli/client/client.h"
#include "cli/client/interrupt.h"
#include "cli/http_sink.h"
#include "cli/source_settings.h"
#include "ingest/outbox.h"
#include "ingest/outbox_text.h"

enum { LOOK_MS = 20 /* between looks whether a relay that is to end is through */ };

/* ---- ddl ---- */

static const struct option ddl_options[] = {
    {"dialect", "DIALECT", "the database: postgres, mysql (MariaDB too) or sqlite", OPTION_TEXT, IN_COMMAND,
     NULL, "postgres mysql sqlite"},
    {"table", "NAME", "the table, with its schema where it needs one (default posthorn_outbox)", OPTION_TEXT,
     IN_COMMAND, NULL, NULL},
    {"notify", NULL,
     "PostgreSQL: a trigger that wakes the relay at each commit (default; --notify=false without)",
     OPTION_BOOL, IN_COMMAND, NULL, NULL},
};

static int print_ddl(struct call *c) {
    _cleanup_buf_ struct buf problems = {0}, out = {0};
    const char *name = args_value(&c->args, "dialect"), *table = args_value(&c->args, "table");
    const struct outbox_dialect *dialect = name ? outbox_dialect_find(name) : NULL;
    struct outbox_ddl_options o = {.table = table ? table : "posthorn_outbox", .notify = true};
    if (!dialect)
        buf_addf(&problems, "--dialect %s: must be postgres, mysql or sqlite\n", name ? name : "");
    if (!outbox_table_valid(o.table))
        buf_addf(&problems, "--table %s: must be NAME or SCHEMA.NAME, each 1 to 40 of A-Z a-z 0-9 _\n",
                 o.table);
    if (problems.n)
        return call_usage(c, &problems);
    if (args_value(&c->args, "notify"))
        o.notify = args_is_set(&c->args, "notify");
    outbox_ddl(dialect, &o, &out);
    return write_out(&out);
}

/* ---- relay ---- */

static const struct option relay_options[] = {
    {"source-url", "URL",
     "the producer's database (POSTHORN_SOURCE_URL): postgres://…, mysql://… or sqlite:FILE", OPTION_TEXT,
     IN_COMMAND, NULL, NULL},
    {"password-file", "FILE", "file whose first line is the database user's password", OPTION_TEXT,
     IN_COMMAND, NULL, NULL},
    {"name", "NAME",
     "of the source: a part of its events' idempotency keys, so never change it (default outbox)",
     OPTION_TEXT, IN_COMMAND, NULL, NULL},
    {"tenant", "TENANT", "the tenant of rows that name none", OPTION_TEXT, IN_COMMAND, NULL, NULL},
    {"table", "NAME", "the table (default posthorn_outbox)", OPTION_TEXT, IN_COMMAND, NULL, NULL},
    {"batch", "N", "rows that are handed on at one time (default 500)", OPTION_NUMBER, IN_COMMAND, NULL,
     NULL},
    {"poll-ms", "MS", "how long an empty outbox is left alone (default 1000)", OPTION_NUMBER, IN_COMMAND,
     NULL, NULL},
    {"once", NULL, "end when the outbox is empty, with status 3 when that does not work", OPTION_BOOL,
     IN_COMMAND, NULL, NULL},
};

/* The options that are settings of a source, by the same name. */
static const char *const setting_names[] = {"password-file", "tenant", "table", "batch", "poll-ms"};

static int read_settings(const struct call *c, struct source_settings *s, struct buf *problems) {
    const char *url = args_value(&c->args, "source-url"), *name = args_value(&c->args, "name");
    url = url ? url : getenv("POSTHORN_SOURCE_URL");
    name = name ? name : "outbox";
    int r = source_settings_preset(s);
    if (!source_name_valid(slice_of(name)))
        buf_addf(problems, "--name %s: must be 1 to %d of A-Z a-z 0-9 . _ -\n", name, SOURCE_NAME_MAX);
    else
        snprintf(s->name, sizeof s->name, "%s", name);
    if (!url || !url[0])
        buf_add_str(problems, "there is no database: set POSTHORN_SOURCE_URL, or give --source-url\n");
    else if (r == 0)
        r = source_setting_set(s, "url", url, problems);
    for (size_t i = 0; r == 0 && i < sizeof setting_names / sizeof setting_names[0]; i++) {
        const char *value = args_value(&c->args, setting_names[i]);
        _cleanup_buf_ struct buf complaint = {0};
        if (value && source_setting_set(s, setting_names[i], value, &complaint) == -EINVAL)
            buf_addf(problems, "--%s %s: %s\n", setting_names[i], value, complaint.p ? complaint.p : "");
    }
    if (r == 0 && !problems->n)
        r = source_settings_check(s, problems);
    return problems->n ? -EINVAL : r;
}

static struct source_sink *new_sink(void *arg) {
    const struct call *c = arg;
    return http_sink_new(http_url(c->http), http_key(c->http), args_value(&c->args, "ca"));
}

/* Whether one that runs once is through; *ret_status then. */
static bool is_through(struct sources *s, int *ret_status) {
    struct source_status status;
    sources_status(s, 0, clock_now_ms(), &status);
    *ret_status = status.health == SOURCE_FAILING ? EXIT_UNREACHABLE : EXIT_DONE;
    return status.health == SOURCE_FAILING || status.health == SOURCE_STANDING_BY ||
           (status.health == SOURCE_RUNNING && status.lag_ms == 0);
}

static int relay(struct call *c, const struct source_settings *from) {
    struct sources_options o = {.sink = new_sink, .arg = c};
    struct sources *sources = NULL;
    bool once = args_is_set(&c->args, "once");
    int status = EXIT_DONE;
    int r = sources_new(&o, &sources);
    if (r == 0)
        r = sources_add(sources, from, &outbox_source);
    if (r == 0)
        r = sources_start(sources);
    if (r < 0) {
        call_say(c, "the relay cannot start: %s", strerror(-r));
        status = EXIT_REFUSED;
    }
    while (r == 0 && interrupt_sleep(once ? LOOK_MS : 1000) && !(once && is_through(sources, &status)))
        ;
    sources_stop(sources);
    sources_free(sources);
    return status;
}

static int run_relay(struct call *c) {
    struct source_settings from = {0};
    _cleanup_buf_ struct buf problems = {0};
    int r = read_settings(c, &from, &problems);
    int status = EXIT_REFUSED;
    if (r == -EINVAL) {
        status = call_usage(c, &problems);
    } else if (r == 0) {
        log_configure(LOG_INFO, c->json);
        signal(SIGPIPE, SIG_IGN);
        interrupt_catch();
        status = relay(c, &from);
    } else {
        call_say(c, "%s", strerror(-r));
    }
    source_settings_free(&from);
    return status;
}

static const struct verb verbs[] = {
    {.name = "ddl",
     .summary = "print the statements that make the outbox in a producer's database",
     .details = "A table, an index, a helper that publishes within the producer's transaction "
                "(posthorn_publish), and "
                "a table of\nrows that cannot be events.\n",
     .examples = "posthorn outbox ddl --dialect postgres | psql shop\n"
                 "posthorn outbox ddl --dialect mysql | mariadb shop\n"
                 "posthorn outbox ddl --dialect sqlite | sqlite3 shop.db\n",
     .method = "",
     .path = "",
     OPTIONS(ddl_options),
     .local = true,
     .run = print_ddl},
    {.name = "relay",
     .summary = "take rows out of an outbox and publish them, until Ctrl-C",
     .details = "For producers whose database the server does not reach; a server that does takes a section\n"
                "[source NAME] of its config file. Several relays of one outbox share the work. The log is "
                "on stderr, "
                "with\n--json as a JSON object a line.\n",
     .examples = "POSTHORN_KEY=… posthorn outbox relay --source-url postgres://relay@db/shop --tenant acme\n",
     .method = "",
     .path = "",
     OPTIONS(relay_options),
     .run = run_relay},
};

const struct command outbox_command = {
    .name = "outbox",
    .summary = "events out of a producer's database: exactly when its change is committed",
    .examples = "posthorn outbox ddl --dialect postgres | psql shop\n",
    VERBS(verbs),
};
