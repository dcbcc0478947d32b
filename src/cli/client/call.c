#include "cli/client/call.h"

#include <errno.h>
#include <stdio.h>

#include "cli/client/field.h"
#include "cli/client/interrupt.h"
#include "cli/client/list.h"
#include "cli/client/show.h"

enum { TEXT_ANSWER_SHOWN_MAX = 300 /* bytes of an answer that is no problem document */ };

void call_say(const struct call *c, const char *format, ...) {
    va_list args;
    fprintf(stderr, "posthorn %s%s%s: ", c->command->name, c->verb->name[0] ? " " : "", c->verb->name);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
}

int call_usage(const struct call *c, const struct buf *problems) {
    _cleanup_buf_ struct buf name = {0};
    buf_addf(&name, "%s%s%s", c->command->name, c->verb->name[0] ? " " : "", c->verb->name);
    return usage_problems(name.p ? name.p : c->command->name, problems);
}

/* ---- refusals in words ---- */

static void say_errors(struct slice document) {
    struct field errors = field_find(document, "errors"), one;
    struct json_cursor cursor = json_open(errors.text);
    bool first = true;
    if (!errors.text.p || json_enter_array(&cursor) < 0)
        return;
    while (json_next_element(&cursor, &first, &one.text, &one.type) > 0) {
        _cleanup_buf_ struct buf line = {0};
        field_show(field_find(one.text, "field"), &line);
        buf_add_str(&line, ": ");
        field_show(field_find(one.text, "message"), &line);
        fprintf(stderr, "  %.*s\n", SLICE_ARG(buf_slice(&line)));
    }
}

static void say_refusal(const struct call *c, const struct http_answer *a) {
    _cleanup_buf_ struct buf detail = {0};
    struct slice document = buf_slice(&a->body);
    struct field whole;
    const char *problem;
    if (field_parse(document, &whole, &problem) < 0)
        document = SLICE_NONE;
    /* The detail of a document with errors tells no more than that they follow. */
    const char *what = field_find(document, "errors").text.p ? "title" : "detail";
    struct field f = document.p ? field_find(document, what) : (struct field){0};
    if (f.text.p) {
        field_show(f, &detail);
        call_say(c, "refused: %.*s (%ld)", SLICE_ARG(buf_slice(&detail)), a->status);
        say_errors(document);
    } else {
        struct slice text = buf_slice(&a->body);
        text.n = text.n > TEXT_ANSWER_SHOWN_MAX ? TEXT_ANSWER_SHOWN_MAX : text.n;
        field_show_text(text, &detail);
        call_say(c, "the server answered %ld, and not as posthorn does: %.*s", a->status,
                 SLICE_ARG(buf_slice(&detail)));
    }
    if (a->retry_after_seconds > 0)
        fprintf(stderr, "  try again in %lld s\n", (long long)a->retry_after_seconds);
    if (a->status == 401)
        fprintf(stderr, "  the key is POSTHORN_KEY or --key; the first admin key stands in DATA/admin.key of "
                        "the server\n");
}

int call_complain(const struct call *c, int r, const struct http_answer *a) {
    if (r == 0) {
        say_refusal(c, a);
        return EXIT_REFUSED;
    }
    if (r == -ECANCELED) {
        call_say(c, "interrupted: a request under way may have had its effect");
        return EXIT_INTERRUPTED;
    }
    call_say(c, "the server cannot be reached: %s", http_problem(c->http));
    return EXIT_UNREACHABLE;
}

int call_ask(struct call *c, const struct http_request *request, struct http_answer *ret) {
    int r = http_ask(c->http, request, ret);
    return call_succeeded(r, ret) ? EXIT_DONE : call_complain(c, r, ret);
}

int call_get(struct call *c, const char *path, struct http_answer *ret) {
    struct http_request request = {.method = "GET", .path = path};
    return http_ask(c->http, &request, ret);
}

int call_ask_verb(struct call *c, struct http_answer *ret) {
    _cleanup_buf_ struct buf path = {0}, problems = {0}, headers = {0};
    json_auto_t *body = NULL;
    int bad_path = call_path(c, &path, &problems), bad_body = call_body(c, &body, &problems);
    if (bad_path < 0 || bad_body < 0 || call_headers(c, &headers, &problems) < 0)
        return call_usage(c, &problems);
    char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
    struct http_request request = {
        .method = c->verb->method,
        .path = path.p,
        .content_type = text ? "application/json" : NULL,
        .body = slice_of(text),
        .headers = headers.p,
    };
    int status = call_ask(c, &request, ret);
    wipe_free(text); /* it may hold a secret */
    return status;
}

/* ---- answers ---- */

static int show_document(struct call *c, struct slice document) {
    _cleanup_buf_ struct buf out = {0};
    const struct view *view = c->verb->view;
    struct table table = {.columns = view->columns, .columns_n = view->columns_n};
    struct field data = field_find(document, "data");
    int r = view->columns && data.type == JSON_TYPE_ARRAY && data.text.p
                ? show_rows(&table, data.text, c->colours, &out)
                : show_record(view, document, c->colours, &out);
    if (r < 0) { /* deeper than the scanner goes: better as it came than not at all */
        buf_reset(&out);
        buf_add_slice(&out, document);
        buf_add_char(&out, '\n');
    }
    int status = write_out(&out);
    if (status == EXIT_DONE && view->note)
        fprintf(stderr, "%s\n", view->note);
    return status;
}

int call_show(struct call *c, const struct http_answer *a) {
    _cleanup_buf_ struct buf out = {0};
    struct slice document = buf_slice(&a->body);
    if (c->json || (document.n > 0 && !c->verb->view)) {
        buf_add_slice(&out, document);
        if (document.n > 0 && document.p[document.n - 1] != '\n')
            buf_add_char(&out, '\n');
        return write_out(&out);
    }
    if (document.n > 0)
        return show_document(c, document);
    buf_addf(&out, "%s%s%s\n", c->args.plain_n > 0 ? c->args.plain[0] : "", c->args.plain_n > 0 ? " " : "",
             c->verb->done ? c->verb->done : "done");
    return write_out(&out);
}
