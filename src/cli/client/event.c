#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "cli/client/call.h"
#include "cli/client/client.h"
#include "cli/client/field.h"
#include "cli/client/moment.h"
#include "cli/input.h"

enum { DATA_MAX = 64 << 20 }; /* above the largest event that a server may be set to take */

/* ---- publish ---- */

/* The data: the second argument, @FILE, or standard input. */
static int read_data(const struct call *c, struct buf *out, struct buf *problems) {
    const char *given = c->args.plain_n > 1 ? c->args.plain[1] : "-", *problem;
    struct field data;
    bool is_file = given[0] == '@', is_input = strcmp(given, "-") == 0;
    if (is_input && isatty(0))
        fputs("The event's data, as JSON; Ctrl-D ends it:\n", stderr);
    if ((is_file || is_input) && input_read(is_file ? given + 1 : given, DATA_MAX, out, problems) < 0)
        return -EINVAL;
    if (!is_file && !is_input)
        buf_add_str(out, given);
    if (field_parse(buf_slice(out), &data, &problem) == 0)
        return 0;
    buf_addf(problems, "the data is not JSON: %s\n", problem);
    return -EINVAL;
}

/* The event's bytes must stay as they came, so the request is written around them. */
static void add_member(struct buf *body, const char *name, struct slice text) {
    buf_addf(body, ",\"%s\":", name);
    buf_add_json_string(body, text);
}

static void make_body(const struct call *c, struct slice data, struct buf *body) {
    static const struct {
        const char *flag, *member;
    } texts[] = {{"schema-version", "schema_version"}, {"ordering-key", "ordering_key"}};
    const char *deliver_at = args_value(&c->args, "deliver-at");
    buf_add_str(body, "{\"type\":");
    buf_add_json_string(body, slice_of(c->args.plain[0]));
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        const char *value = args_value(&c->args, texts[i].flag);
        if (value)
            add_member(body, texts[i].member, slice_of(value));
    }
    if (deliver_at) {
        _cleanup_buf_ struct buf at = {0};
        moment_add(&at, deliver_at, true, c->now);
        add_member(body, "deliver_at", buf_slice(&at));
    }
    buf_add_str(body, ",\"data\":");
    buf_add_slice(body, data);
    buf_add_char(body, '}');
}

static int publish(struct call *c) {
    _cleanup_buf_ struct buf data = {0}, path = {0}, headers = {0}, body = {0}, problems = {0};
    _cleanup_answer_ struct http_answer answer = {0};
    if (call_path(c, &path, &problems) < 0 || call_headers(c, &headers, &problems) < 0 ||
        read_data(c, &data, &problems) < 0)
        return call_usage(c, &problems);
    make_body(c, buf_slice(&data), &body);
    if (!buf_ok(&body))
        return call_usage(c, &body);
    struct http_request request = {"POST", path.p, "application/json", buf_slice(&body), headers.p};
    int status = call_ask(c, &request, &answer);
    return status == EXIT_DONE ? call_show(c, &answer) : status;
}

/* ---- the table ---- */

static const struct column columns[] = {
    {"ID", "id", false},
    {"TYPE", "type", false},
    {"CREATED", "created_at", false},
    {"ORDERING KEY", "ordering_key", false},
    {"FAN-OUT", "fanout.state", true},
    {"DELIVERIES", "fanout.deliveries", false},
};
static const struct column accepted_columns[] = {
    {"ID", "id", false},
    {"TYPE", "type", false},
    {"CREATED", "created_at", false},
    {"DUPLICATE", "duplicate", false},
};
static const struct column timeline_columns[] = {
    {"AT", "at", false},
    {"DELIVERY", "delivery_id", false},
    {"SUBSCRIPTION", "subscription_id", false},
    {"FROM", "from", true},
    {"TO", "to", true},
    {"REASON", "reason", false},
};
static const struct view list = {COLUMNS(columns)}, record = {0}, timeline = {COLUMNS(timeline_columns)};
static const struct view accepted = {COLUMNS(accepted_columns)};

static const struct option event_fields[] = {
    {"idempotency-key", "TEXT", "the same key and event again is answered as before, and published once",
     OPTION_TEXT, IN_HEADER, "Idempotency-Key", NULL},
    {"ordering-key", "TEXT", "what it is kept in order with", OPTION_TEXT, IN_COMMAND, NULL, NULL},
    {"schema-version", "TEXT", "of the data (default 1)", OPTION_TEXT, IN_COMMAND, NULL, NULL},
    {"deliver-at", "TIME", "not before this time, or \"2h\" from now; up to 30 days ahead", OPTION_FUTURE,
     IN_COMMAND, NULL, NULL},
};
static const struct option filters[] = {
    {"type", "TYPE", "of this type", OPTION_TEXT, IN_QUERY, "type", NULL},
    {"ordering-key", "TEXT", "with this ordering key", OPTION_TEXT, IN_QUERY, "ordering_key", NULL},
    {"since", "TIME", "created then or later; \"2h\" is two hours ago", OPTION_PAST, IN_QUERY, "since", NULL},
    {"until", "TIME", "created before", OPTION_PAST, IN_QUERY, "until", NULL},
};

#define ALL "/v1/tenants/{t}/events"

int event_batch(struct call *c);

static const struct verb verbs[] = {
    {.name = "publish",
     .arguments = "TYPE [DATA]",
     .summary = "publish an event",
     .details = "DATA is any JSON; its bytes are kept as they are. @FILE reads a file; without it, or with "
                "-, standard input\n"
                "is read. Done means that the event is durable.\n",
     .examples = "posthorn event publish invoice.paid '{\"amount\":4200}' --tenant acme\n"
                 "posthorn event publish invoice.paid @invoice.json --tenant acme --idempotency-key inv-17\n"
                 "jq .order order.json | posthorn event publish order.placed --tenant acme\n",
     .method = "POST",
     .path = ALL,
     OPTIONS(event_fields),
     .view = &record,
     .run = publish},
    {.name = "batch",
     .arguments = "[FILE]",
     .summary = "publish many events, one a line (NDJSON)",
     .details = "Each line is an event as the API takes it: {\"type\":…,\"data\":…,\"idempotency_key\":…}. "
                "They go out in\n"
                "requests of up to 1,000, each taken as a whole or not at all. A server that is overloaded "
                "is asked again.\n"
                "When one is refused, those before it stay published: with idempotency keys all can simply "
                "be sent again.\n"
                "Without FILE, or with -, standard input is read.\n",
     .examples = "posthorn event batch events.ndjson --tenant acme\n",
     .method = "POST",
     .path = ALL "/batch",
     .view = &accepted,
     .run = event_batch},
    {.name = "list",
     .summary = "list events, newest first",
     .examples = "posthorn event list --tenant acme --type invoice.paid --since 1h\n",
     .method = "GET",
     .path = ALL,
     OPTIONS(filters),
     .view = &list},
    {.name = "get",
     .arguments = "ID",
     .summary = "show an event with its data",
     .method = "GET",
     .path = ALL "/{id}",
     .view = &record},
    {.name = "timeline",
     .arguments = "ID",
     .summary = "list every transition of every delivery of an event",
     .method = "GET",
     .path = ALL "/{id}/timeline",
     .view = &timeline},
};

const struct command event_command = {
    .name = "event",
    .summary = "what happened, told to whoever subscribed",
    .examples = "posthorn event publish invoice.paid '{\"amount\":4200}' --tenant acme\n"
                "posthorn event timeline evt_… --tenant acme\n",
    VERBS(verbs),
};
