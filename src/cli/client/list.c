#include "cli/client/list.h"

#include <errno.h>
#include <stdio.h>

#include "cli/client/field.h"
#include "cli/client/show.h"

enum { PAGE_MAX = 250, LIST_DEFAULT = 50, LIST_MAX = 1000000000 };

struct list {
    struct call *call;
    struct table table;
    int64_t left;      /* objects still wanted; INT64_MAX: all */
    struct buf cursor; /* of the page to come; empty: the first */
    bool begun;        /* the head of the JSON document was written */
    bool any;          /* an object was written, as JSON */
};

static int parse_limit(struct list *l, struct buf *problems) {
    const struct args *args = &l->call->args;
    bool all = args_is_set(args, "all");
    l->left = args_number(args, "limit", 1, LIST_MAX, LIST_DEFAULT, problems);
    if (all && args_value(args, "limit"))
        buf_add_str(problems, "--limit and --all exclude each other\n");
    if (all)
        l->left = INT64_MAX;
    return problems->n ? -EINVAL : 0;
}

static int page_path(struct list *l, struct buf *out, struct buf *problems) {
    if (call_path(l->call, out, problems) < 0)
        return -EINVAL;
    buf_addf(out, "%climit=%lld", strchr(out->p, '?') ? '&' : '?',
             (long long)(l->left < PAGE_MAX ? l->left : PAGE_MAX));
    if (l->cursor.n > 0) {
        buf_add_str(out, "&cursor=");
        call_add_escaped(out, l->cursor.p);
    }
    return buf_ok(out) ? 0 : -EINVAL;
}

/* The elements of a page, as they came, between those of the pages around it. */
static void add_elements(struct list *l, struct slice array, struct buf *out) {
    struct json_cursor c = json_open_around(array, ANSWER_AROUND);
    struct slice element;
    enum json_type type;
    bool first = true;
    if (json_enter_array(&c) < 0)
        return;
    while (json_next_element(&c, &first, &element, &type) > 0) {
        buf_add_str(out, l->any ? "," : "");
        buf_add_slice(out, element);
        l->any = true;
    }
}

static void take_cursor(struct list *l, struct slice document) {
    buf_reset(&l->cursor);
    field_plain(field_find(document, "next_cursor"), &l->cursor);
}

static int write_page(struct list *l, struct slice document) {
    _cleanup_buf_ struct buf out = {0};
    struct field data = field_find(document, "data");
    if (!data.text.p || data.type != JSON_TYPE_ARRAY) {
        call_say(l->call, "the answer is no list: is this a posthorn server?");
        return EXIT_REFUSED;
    }
    take_cursor(l, document);
    if (l->call->json)
        add_elements(l, data.text, &out);
    else if (show_rows(&l->table, data.text, l->call->colours, &out) < 0)
        buf_add_slice(&out, data.text);
    return out.n > 0 ? write_out(&out) : EXIT_DONE;
}

static int ask_page(struct list *l) {
    _cleanup_buf_ struct buf path = {0}, problems = {0};
    _cleanup_answer_ struct http_answer answer = {0};
    if (page_path(l, &path, &problems) < 0)
        return call_usage(l->call, &problems);
    struct http_request request = {.method = "GET", .path = path.p};
    int status = call_ask(l->call, &request, &answer);
    if (status != EXIT_DONE)
        return status;
    if (l->call->json && !l->begun)
        fputs("{\"data\":[", stdout);
    l->begun = true;
    return write_page(l, buf_slice(&answer.body));
}

static int end(struct list *l) {
    _cleanup_buf_ struct buf out = {0};
    if (!l->call->json) {
        if (l->cursor.n > 0)
            fprintf(stderr, "There is more: --cursor %s, or --all.\n", l->cursor.p);
        return EXIT_DONE;
    }
    buf_add_str(&out, "],\"next_cursor\":");
    if (l->cursor.n > 0)
        buf_add_json_string(&out, buf_slice(&l->cursor));
    else
        buf_add_str(&out, "null");
    buf_add_str(&out, "}\n");
    return write_out(&out);
}

int list_run(struct call *c) {
    struct list l = {.call = c,
                     .table = {.columns = c->verb->view->columns, .columns_n = c->verb->view->columns_n}};
    _cleanup_buf_ struct buf problems = {0};
    const char *cursor = args_value(&c->args, "cursor");
    if (parse_limit(&l, &problems) < 0)
        return call_usage(c, &problems);
    int status;
    buf_add_str(&l.cursor, cursor ? cursor : "");
    do {
        status = ask_page(&l);
        if (l.left != INT64_MAX)
            l.left -= l.left < PAGE_MAX ? l.left : PAGE_MAX;
    } while (status == EXIT_DONE && l.cursor.n > 0 && l.left > 0);
    if (status == EXIT_DONE)
        status = end(&l);
    buf_free(&l.cursor);
    return status;
}
