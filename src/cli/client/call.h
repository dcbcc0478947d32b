/* One run of a client command: its arguments, its connection, and what it prints. */
#pragma once

#include <jansson.h>

#include "cli/args.h"
#include "cli/client/http.h"
#include "cli/client/verb.h"

struct call {
    const struct command *command;
    const struct verb *verb;
    struct args args;
    struct http *http;
    const char *tenant; /* NULL: none is needed */
    bool json, colours;
    int64_t now; /* when it began */
};

/* The path and query of the request, from the verb, its arguments and its options. -EINVAL with lines in
 * problems. */
int call_path(const struct call *c, struct buf *out, struct buf *problems) MUST_USE;
/* The body that arguments and options make. *ret is NULL when the verb sends none. -EINVAL with lines in
 * problems. */
int call_body(const struct call *c, json_t **ret, struct buf *problems) MUST_USE;
/* "name: value\n" for each option that is a header. -EINVAL with lines in problems. */
int call_headers(const struct call *c, struct buf *out, struct buf *problems) MUST_USE;

/* Appends text as a part of a path or query. */
void call_add_escaped(struct buf *out, const char *text);

/* Makes a request. Returns EXIT_DONE for an answer of 2xx; otherwise says in words on stderr what is wrong
 * and returns EXIT_REFUSED or EXIT_UNREACHABLE. */
int call_ask(struct call *c, const struct http_request *r, struct http_answer *ret) MUST_USE;
/* Says why there was no 2xx: r is what http_ask returned. The exit status that goes with it. */
int call_complain(const struct call *c, int r, const struct http_answer *a);
/* The request that the verb describes. */
int call_ask_verb(struct call *c, struct http_answer *ret) MUST_USE;
/* GET of a path; otherwise as http_ask. */
int call_get(struct call *c, const char *path, struct http_answer *ret) MUST_USE;
static inline bool call_succeeded(int r, const struct http_answer *a) {
    return r == 0 && a->status >= 200 && a->status < 300;
}
/* Prints an answer as the verb's view and --json say. */
int call_show(struct call *c, const struct http_answer *a) MUST_USE;

/* Prints the problems of a command line. Returns EXIT_USAGE. */
int call_usage(const struct call *c, const struct buf *problems);
/* "posthorn subscription create" on stderr, then the message and a line end. */
void call_say(const struct call *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
