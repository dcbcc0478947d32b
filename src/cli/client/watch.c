#include "cli/client/watch.h"

#include <errno.h>
#include <stdio.h>

#include "base/clock.h"
#include "cli/client/field.h"
#include "cli/client/interrupt.h"
#include "cli/client/show.h"

enum {
    WATCH_PAGE = 250,
    WATCH_PAGES_MAX = 4, /* of a round: the newest 1,000 are watched */
    WATCH_ROWS_MAX = WATCH_PAGE * WATCH_PAGES_MAX,
    WATCH_LAST = 10, /* shown of what was there before */
    WATCH_INTERVAL_MS = 1000,
};

static const struct column columns[] = {
    {"DELIVERY", "id", false},           {"STATE", "state", true},       {"TRIES", "attempt_count", false},
    {"CODE", "last_status_code", false}, {"ERROR", "last_error", false}, {"TYPE", "event_type", false},
    {"REASON", "failure_reason", false},
};

struct watch {
    struct call *call;
    struct seen seen;
    struct table table;
    struct http_answer pages[WATCH_PAGES_MAX]; /* of the round under way */
    struct slice changed[WATCH_ROWS_MAX];      /* in the pages, newest first */
    size_t changed_n;
    bool first, away; /* the server was not there last time */
};

static uint64_t hash_of(struct slice object, const char *const *fields, size_t n) {
    uint64_t hash = 0;
    for (size_t i = 0; i < n; i++) {
        struct slice text = field_find(object, fields[i]).text;
        hash = mix64(hash ^ hash64(text.p ? text.p : "", text.n));
    }
    return hash;
}

bool seen_changes(struct seen *s, struct slice delivery) {
    static const char *const id_fields[] = {"id"}, *const look_fields[] = {"state", "attempt_count",
                                                                           "last_status_code"};
    uint64_t id = hash_of(delivery, id_fields, 1), look = hash_of(delivery, look_fields, 3);
    for (size_t i = 0; i < s->n; i++)
        if (s->at[i].id == id) {
            bool changed = s->at[i].look != look;
            s->at[i].look = look;
            return changed;
        }
    s->at[s->next].id = id;
    s->at[s->next].look = look;
    s->next = (s->next + 1) % WATCH_SEEN_MAX;
    s->n += s->n < WATCH_SEEN_MAX;
    return true;
}

/* How many rows the page had. */
static size_t look_through(struct watch *w, struct slice document) {
    struct field data = field_find(document, "data");
    struct json_cursor c = json_open(data.text);
    struct slice row;
    enum json_type type;
    bool first = true;
    size_t n = 0;
    if (!data.text.p || json_enter_array(&c) < 0)
        return 0;
    for (; json_next_element(&c, &first, &row, &type) > 0; n++)
        if (w->changed_n < WATCH_ROWS_MAX && seen_changes(&w->seen, row))
            w->changed[w->changed_n++] = row;
    return n;
}

/* Everything that is watched, asked once. What http_ask says; *ret_answer is the last. */
static int ask_round(struct watch *w, struct http_answer **ret_answer) {
    _cleanup_buf_ struct buf cursor = {0};
    w->changed_n = 0;
    for (size_t i = 0; i < WATCH_PAGES_MAX; i++) {
        _cleanup_buf_ struct buf path = {0}, problems = {0};
        if (call_path(w->call, &path, &problems) < 0)
            return -ENOMEM; /* what else could be wrong was seen before the first round */
        buf_addf(&path, "%climit=%d", strchr(path.p, '?') ? '&' : '?', WATCH_PAGE);
        buf_addf(&path, cursor.n > 0 ? "&cursor=%s" : "%s", cursor.n > 0 ? cursor.p : "");
        *ret_answer = &w->pages[i];
        int r = buf_ok(&path) ? call_get(w->call, path.p, &w->pages[i]) : -ENOMEM;
        if (!call_succeeded(r, &w->pages[i]))
            return r;
        struct slice document = buf_slice(&w->pages[i].body);
        size_t rows = look_through(w, document);
        buf_reset(&cursor);
        field_plain(field_find(document, "next_cursor"), &cursor);
        if (rows < WATCH_PAGE || cursor.n == 0)
            break;
    }
    return 0;
}

static void add_row(struct watch *w, struct slice row, struct buf *out) {
    char now[RFC3339_SIZE];
    if (w->call->json) {
        buf_add_slice(out, row);
        buf_add_char(out, '\n');
        return;
    }
    rfc3339_format(clock_now_ms(), now);
    buf_addf(out, "%.8s  ", now + 11); /* the time of day */
    show_row(&w->table, row, w->call->colours, out);
}

static int show_changes(struct watch *w) {
    _cleanup_buf_ struct buf out = {0};
    size_t n = w->first && w->changed_n > WATCH_LAST ? WATCH_LAST : w->changed_n;
    if (w->first && !w->call->json) {
        buf_add_str(&out, "UTC       ");
        show_titles(&w->table, w->call->colours, &out);
    }
    while (n > 0)
        add_row(w, w->changed[--n], &out);
    if (!w->first && w->changed_n == WATCH_ROWS_MAX)
        call_say(w->call, "more changed at once than is watched: some are not shown");
    w->first = false;
    return out.n > 0 ? write_out(&out) : EXIT_DONE;
}

/* A server that is away in between is waited for. */
static int round_of(struct watch *w) {
    struct http_answer *answer;
    int r = ask_round(w, &answer);
    if (interrupted())
        return EXIT_DONE;
    bool overloaded = r == 0 && (answer->status == 503 || answer->status == 429);
    if (call_succeeded(r, answer)) {
        if (w->away)
            call_say(w->call, "the server is back");
        w->away = false;
        return show_changes(w);
    }
    if (w->first || (r == 0 && !overloaded))
        return call_complain(w->call, r, answer);
    if (!w->away)
        call_say(w->call, "the server is away; waiting for it");
    w->away = true;
    return EXIT_DONE;
}

int watch_run(struct call *c) {
    _cleanup_buf_ struct buf problems = {0}, path = {0};
    static struct watch w; /* its table of what was seen is too large for a stack */
    static const size_t widths[] = {30, 10, 5, 4, 15, 20, 0};
    w = (struct watch){.call = c,
                       .first = true,
                       .table = {.columns = columns, .columns_n = sizeof columns / sizeof columns[0]}};
    memcpy(w.table.widths, widths, sizeof widths);
    int64_t interval = args_number(&c->args, "interval-ms", 100, 3600000, WATCH_INTERVAL_MS, &problems);
    if (call_path(c, &path, &problems) < 0 || problems.n)
        return call_usage(c, &problems);
    interrupt_catch();
    int status;
    do
        status = round_of(&w);
    while (status == EXIT_DONE && interrupt_sleep(interval));
    for (size_t i = 0; i < WATCH_PAGES_MAX; i++)
        http_answer_free(&w.pages[i]);
    return status == EXIT_INTERRUPTED ? EXIT_DONE : status; /* so it ends, however it was come upon */
}
