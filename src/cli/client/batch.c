/* posthorn event batch: a file of events, one a line, in as many requests as it takes. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "cli/client/call.h"
#include "cli/client/field.h"
#include "cli/client/interrupt.h"
#include "cli/client/progress.h"
#include "cli/client/show.h"

int event_batch(struct call *c);

enum {
    BATCH_EVENTS_MAX = 1000,
    BATCH_BYTES_MAX = 8 << 20,   /* of a request, unless one event is longer */
    BATCH_PATIENCE = 20,         /* times that an overloaded server is asked again */
    BATCH_WAIT_SECONDS_MAX = 30, /* between them */
};

struct batch {
    struct call *call;
    FILE *in;
    char *line; /* read, and not yet taken; of getline */
    size_t line_cap;
    ssize_t line_n; /* -1: the end */
    int64_t published;
    struct buf request, path;
    struct table table;
    struct progress progress;
    bool any;
};

/* Reads on to the next line that is not blank. */
static void next_line(struct batch *b) {
    do {
        b->line_n = getline(&b->line, &b->line_cap, b->in);
    } while (b->line_n >= 0 && (size_t)b->line_n == strspn(b->line, " \t\r\n"));
}

/* Gathers a request. Returns how many events are in it. */
static size_t fill(struct batch *b) {
    size_t n = 0;
    buf_reset(&b->request);
    while (n < BATCH_EVENTS_MAX && b->line_n >= 0 &&
           (n == 0 || b->request.n + (size_t)b->line_n <= BATCH_BYTES_MAX)) {
        buf_add(&b->request, b->line, (size_t)b->line_n);
        if (b->line[b->line_n - 1] != '\n')
            buf_add_char(&b->request, '\n');
        n++;
        next_line(b);
    }
    return n;
}

static bool is_overload(const struct http_answer *a) {
    return a->status == 429 || a->status == 503;
}

static int ask(struct batch *b, struct http_answer *answer) {
    struct http_request request = {"POST", b->path.p, "application/x-ndjson", buf_slice(&b->request), NULL};
    int r = 0;
    for (int i = 0; i <= BATCH_PATIENCE; i++) {
        r = http_ask(b->call->http, &request, answer);
        if (r < 0 || !is_overload(answer) || i == BATCH_PATIENCE)
            break;
        int64_t wait = answer->retry_after_seconds > 0 ? answer->retry_after_seconds : 1;
        if (!interrupt_sleep(1000 * (wait < BATCH_WAIT_SECONDS_MAX ? wait : BATCH_WAIT_SECONDS_MAX)))
            break;
    }
    if (call_succeeded(r, answer))
        return EXIT_DONE;
    progress_clear(&b->progress);
    int status = call_complain(b->call, r, answer);
    if (b->published > 0)
        call_say(b->call, "the %lld events before it are published", (long long)b->published);
    return status;
}

static int show(struct batch *b, struct slice document) {
    _cleanup_buf_ struct buf out = {0};
    struct field data = field_find(document, "data"), element;
    struct json_cursor cursor = json_open(data.text);
    bool first = true;
    if (!b->call->json && data.text.p && show_rows(&b->table, data.text, b->call->colours, &out) == 0)
        return write_out(&out);
    if (!data.text.p || json_enter_array(&cursor) < 0)
        return EXIT_DONE;
    while (json_next_element(&cursor, &first, &element.text, &element.type) > 0) {
        buf_add_str(&out, b->any ? "," : "{\"data\":[");
        buf_add_slice(&out, element.text);
        b->any = true;
    }
    return out.n > 0 ? write_out(&out) : EXIT_DONE;
}

static int work_off(struct batch *b) {
    int status = EXIT_DONE;
    size_t n;
    while (status == EXIT_DONE && (n = fill(b)) > 0) {
        _cleanup_answer_ struct http_answer answer = {0};
        if (!buf_ok(&b->request)) {
            call_say(b->call, "memory is out");
            return EXIT_REFUSED;
        }
        status = ask(b, &answer);
        if (status != EXIT_DONE)
            break;
        progress_clear(&b->progress);
        status = show(b, buf_slice(&answer.body));
        b->published += (int64_t)n;
        progress_show(&b->progress, b->published, 0, 0, "published");
    }
    progress_clear(&b->progress);
    if (b->call->json && b->any)
        puts("]}");
    return status;
}

int event_batch(struct call *c) {
    const char *path = c->args.plain_n > 0 ? c->args.plain[0] : "-";
    bool is_input = strcmp(path, "-") == 0;
    _cleanup_buf_ struct buf problems = {0};
    struct batch b = {
        .call = c,
        .in = is_input ? stdin : fopen(path, "re"),
        .table = {.columns = c->verb->view->columns, .columns_n = c->verb->view->columns_n},
    };
    if (!b.in)
        buf_addf(&problems, "%s: cannot be read: %s\n", path, strerror(errno));
    interrupt_catch(); /* so that it is said how many were published */
    progress_start(&b.progress, isatty(2) && !isatty(1));
    if (!b.in || call_path(c, &b.path, &problems) < 0)
        return call_usage(c, &problems);
    next_line(&b);
    if (b.line_n < 0)
        buf_addf(&problems, "%s: there is no event in it\n", is_input ? "standard input" : path);
    int status = problems.n ? call_usage(c, &problems) : work_off(&b);
    if (!is_input)
        fclose(b.in);
    free(b.line);
    buf_free(&b.request);
    buf_free(&b.path);
    return status;
}
