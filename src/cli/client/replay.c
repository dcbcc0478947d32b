#include <stdio.h>
#include <unistd.h>

#include "cli/client/call.h"
#include "cli/client/client.h"
#include "cli/client/field.h"
#include "cli/client/interrupt.h"
#include "cli/client/progress.h"

enum {
    REPLAY_POLL_MS = 250,
    REPLAY_PATIENCE = 120, /* times in a row that a server may be away */
};

/* ---- wait ---- */

static bool has_state(struct slice replay, const char *state) {
    _cleanup_buf_ struct buf text = {0};
    field_plain(field_find(replay, "state"), &text);
    return slice_eq(buf_slice(&text), slice_of(state));
}

static bool is_over(struct slice replay) {
    return has_state(replay, "done") || has_state(replay, "cancelled");
}

static void show_progress(struct progress *p, struct slice replay) {
    progress_show(p, field_int(field_find(replay, "done"), 0), field_int(field_find(replay, "failed"), 0),
                  field_int(field_find(replay, "matched"), 0), "replayed");
}

/* Polls until the replay is over; the last answer is in ret. */
static int poll_replay(struct call *c, const char *path, struct progress *p, struct http_answer *ret) {
    for (int away = 0;;) {
        int r = call_get(c, path, ret);
        bool overloaded = r == 0 && (ret->status == 503 || ret->status == 429);
        if (interrupted())
            return EXIT_INTERRUPTED;
        if (call_succeeded(r, ret)) {
            away = 0;
            show_progress(p, buf_slice(&ret->body));
            if (is_over(buf_slice(&ret->body)))
                return EXIT_DONE;
        } else if ((r == 0 && !overloaded) || ++away > REPLAY_PATIENCE) {
            progress_clear(p);
            return call_complain(c, r, ret);
        }
        if (!interrupt_sleep(REPLAY_POLL_MS))
            return EXIT_INTERRUPTED;
    }
}

/* Exit status 0: it is done; 1: it was cancelled. */
static int wait_for(struct call *c, const char *id) {
    _cleanup_buf_ struct buf path = {0};
    _cleanup_answer_ struct http_answer answer = {0};
    struct progress progress;
    buf_add_str(&path, "/v1/tenants/");
    call_add_escaped(&path, c->tenant);
    buf_add_str(&path, "/replays/");
    call_add_escaped(&path, id);
    CHECK(buf_ok(&path));
    interrupt_catch();
    progress_start(&progress, isatty(2));
    int status = poll_replay(c, path.p, &progress, &answer);
    progress_clear(&progress);
    if (status == EXIT_INTERRUPTED)
        call_say(c,
                 "the replay goes on. Follow it: posthorn replay wait %s; end it: posthorn replay cancel %s",
                 id, id);
    if (status != EXIT_DONE)
        return status;
    status = call_show(c, &answer);
    return status == EXIT_DONE && has_state(buf_slice(&answer.body), "cancelled") ? EXIT_REFUSED : status;
}

static int wait_run(struct call *c) {
    _cleanup_buf_ struct buf path = {0}, problems = {0};
    return call_path(c, &path, &problems) < 0 ? call_usage(c, &problems) : wait_for(c, c->args.plain[0]);
}

static int create_run(struct call *c) {
    _cleanup_answer_ struct http_answer answer = {0};
    _cleanup_buf_ struct buf id = {0};
    bool dry = args_is_set(&c->args, "dry-run");
    int status = call_ask_verb(c, &answer);
    field_plain(field_find(buf_slice(&answer.body), "id"), &id);
    if (status == EXIT_DONE && args_is_set(&c->args, "wait") && !dry && id.n > 0)
        return wait_for(c, id.p);
    if (status == EXIT_DONE)
        status = call_show(c, &answer);
    if (status == EXIT_DONE && !c->json && dry)
        fputs("A dry run: nothing was sent.\n", stderr);
    else if (status == EXIT_DONE && !c->json && id.n > 0)
        fprintf(stderr, "It goes on by itself. Follow it: posthorn replay wait %s\n", id.p);
    return status;
}

/* ---- the table ---- */

static const struct column columns[] = {
    {"ID", "id", false},
    {"STATE", "state", true},
    {"MATCHED", "matched", false},
    {"DONE", "done", false},
    {"FAILED", "failed", false},
    {"REQUESTED BY", "requested_by", false},
    {"CREATED", "created_at", false},
};
static const struct view list = {COLUMNS(columns)}, record = {0};

static const struct option fields[] = {
    {"subscription", "ID", "of this subscription alone", OPTION_TEXT, IN_BODY, "subscription_id", NULL},
    {"state", "STATE", "dlq (the default), delivered or both", OPTION_LIST, IN_BODY, "states",
     "dlq delivered"},
    {"type", "TYPE", "of events of this type; \"invoice.*\" is one, too", OPTION_TEXT, IN_BODY, "event_type",
     NULL},
    {"since", "TIME", "of events created then or later; \"2h\" is two hours ago", OPTION_PAST, IN_BODY,
     "since", NULL},
    {"until", "TIME", "of events created before", OPTION_PAST, IN_BODY, "until", NULL},
    {"include-missing", NULL, "also events from before the subscription existed", OPTION_BOOL, IN_BODY,
     "include_missing", NULL},
    {"per-second", "N", "no more than this a second", OPTION_NUMBER, IN_BODY, "per_second", NULL},
    {"dry-run", NULL, "count, and send nothing", OPTION_BOOL, IN_BODY, "dry_run", NULL},
    {"wait", NULL, "stay until it is done, with a progress bar on a terminal", OPTION_BOOL, IN_COMMAND, NULL,
     NULL},
};

#define ALL "/v1/tenants/{t}/replays"

static const struct verb verbs[] = {
    {.name = "create",
     .summary = "send many deliveries again, in their own share beside the live traffic",
     .examples =
         "posthorn replay create --tenant acme --subscription sub_… --since 24h --dry-run\n"
         "posthorn replay create --tenant acme --subscription sub_… --since 24h --per-second 50 --wait\n",
     .method = "POST",
     .path = ALL,
     OPTIONS(fields),
     .run = create_run,
     .view = &record},
    {.name = "list",
     .summary = "list bulk replays, newest first",
     .method = "GET",
     .path = ALL,
     .view = &list},
    {.name = "get",
     .arguments = "ID",
     .summary = "show how far a bulk replay has come",
     .method = "GET",
     .path = ALL "/{id}",
     .view = &record},
    {.name = "wait",
     .arguments = "ID",
     .summary = "stay until a bulk replay is done, with a progress bar on a terminal",
     .details = "Ctrl-C leaves the replay going on. Exit status 0: it is done, 1: it was cancelled.\n",
     .method = "GET",
     .path = ALL "/{id}",
     .view = &record,
     .run = wait_run},
    {.name = "cancel",
     .arguments = "ID",
     .summary = "end it; what was not attempted goes back to the dead-letter queue",
     .method = "DELETE",
     .path = ALL "/{id}",
     .done = "cancelled"},
};

const struct command replay_command = {
    .name = "replay",
    .summary = "send many deliveries again",
    .details = "A replay keeps event ids, delivery ids and bytes, so receivers know what they have seen. For "
               "a single one:\n"
               "posthorn delivery replay.\n",
    .examples = "posthorn replay create --tenant acme --state dlq --since 24h --dry-run\nposthorn replay "
                "list --tenant acme\n",
    VERBS(verbs),
};
