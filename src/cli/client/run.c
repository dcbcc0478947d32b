#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "cli/client/call.h"
#include "cli/client/client.h"
#include "cli/client/list.h"
#include "cli/client/tone.h"
#include "cli/help.h"
#include "cli/nearest.h"

#define DEFAULT_URL "http://127.0.0.1:8484"

enum { VERBS_MAX = 32 };

const struct verb *find_verb(const struct command *c, const char *name) {
    for (size_t i = 0; i < c->verbs_n; i++)
        if (strcmp(c->verbs[i].name, name) == 0)
            return &c->verbs[i];
    return NULL;
}

int unknown_verb(const struct command *c, const char *name) {
    const char *names[VERBS_MAX];
    CHECK(c->verbs_n > 0 && c->verbs_n <= VERBS_MAX);
    for (size_t i = 0; i < c->verbs_n; i++)
        names[i] = c->verbs[i].name;
    if (name[0] == '-')
        fprintf(stderr, "posthorn %s: first comes what to do, then the flags: posthorn %s %s %s …\n", c->name,
                c->name, names[0], name);
    else
        fprintf(stderr, "posthorn %s: cannot %s: did you mean %s?\n", c->name, name,
                nearest_word(slice_of(name), names, c->verbs_n));
    fprintf(stderr, "Try: posthorn %s --help\n", c->name);
    return EXIT_USAGE;
}

/* ---- where the server is, and as whom ---- */

/* A flag, else a variable; an empty one counts as none. */
static const char *setting_of(const struct call *c, const char *flag, const char *variable) {
    const char *value = args_value(&c->args, flag);
    if (!value)
        value = getenv(variable);
    return value && value[0] ? value : NULL;
}

static bool is_url(const char *text) {
    return strncmp(text, "http://", 7) == 0 || strncmp(text, "https://", 8) == 0;
}

static bool is_key(const char *text) {
    for (; *text; text++)
        if (*text <= ' ' || *text >= 0x7f)
            return false;
    return true;
}

static int connect_call(struct call *c, struct buf *problems) {
    const char *url = setting_of(c, "url", "POSTHORN_URL"), *key = setting_of(c, "key", "POSTHORN_KEY");
    url = url ? url : DEFAULT_URL;
    if (!is_url(url))
        buf_addf(problems, "the server's URL %s must begin with http:// or https://\n", url);
    if (!key && !c->verb->keyless)
        buf_add_str(problems, "there is no key: set POSTHORN_KEY, or give --key\n");
    if (key && !is_key(key))
        buf_add_str(problems, "the key must be visible ASCII characters without spaces\n");
    if (verb_has_tenant(c->verb) && !(c->tenant = setting_of(c, "tenant", "POSTHORN_TENANT")))
        buf_add_str(problems, "there is no tenant: give --tenant, or set POSTHORN_TENANT\n");
    if (problems->n)
        return EXIT_USAGE;
    c->http = http_new(url, c->verb->keyless ? NULL : key, args_value(&c->args, "ca"));
    return c->http ? EXIT_DONE : EXIT_USAGE;
}

static int run_default(struct call *c) {
    _cleanup_answer_ struct http_answer answer = {0};
    if (verb_is_list(c->verb))
        return list_run(c);
    int status = call_ask_verb(c, &answer);
    return status == EXIT_DONE ? call_show(c, &answer) : status;
}

static int run_verb(const struct command *command, const struct verb *v, int argc, char **argv) {
    struct call call = {.command = command, .verb = v, .now = clock_now_ms(), .colours = tone_wanted(1)};
    _cleanup_buf_ struct buf problems = {0};
    verb_options(v, &call.args);
    if (args_parse(&call.args, argc, argv, v->arguments ? v->arguments : "", &problems) < 0)
        return call_usage(&call, &problems);
    call.json = args_is_set(&call.args, "json");
    int status = v->local ? EXIT_DONE : connect_call(&call, &problems);
    if (status != EXIT_DONE)
        return call_usage(&call, &problems);
    status = v->run ? v->run(&call) : run_default(&call);
    http_free(call.http);
    return status;
}

int client_run(const struct command *c, int argc, char **argv) {
    const struct verb *v = find_verb(c, "");
    if (v)
        return run_verb(c, v, argc, argv);
    if (argc == 0) {
        _cleanup_buf_ struct buf out = {0};
        help_on(c, NULL, &out);
        fputs(out.p ? out.p : "", stderr);
        return EXIT_USAGE;
    }
    v = find_verb(c, argv[0]);
    return v ? run_verb(c, v, argc - 1, argv + 1) : unknown_verb(c, argv[0]);
}
