/* What a client command does, as data: which request it makes and how the answer is shown. */
#pragma once

#include "base/bytes.h"
#include "cli/commands.h"
#include "cli/option.h"

struct call;

struct column {
    const char *title;
    const char *field; /* with dots: "fanout.state" */
    bool state;        /* coloured by what it says */
};

/* A member that is an array of objects, shown as a table. */
struct section {
    const char *title, *field;
    const struct column *columns;
    size_t columns_n;
};

enum { VIEW_SECTIONS_MAX = 2 };

/* An answer is a page of rows (columns are set), or a record whose members stand one a line. */
struct view {
    const struct column *columns;
    size_t columns_n;
    struct section sections[VIEW_SECTIONS_MAX]; /* beneath a record; those without columns are none */
    const char *note;                           /* said after a record; NULL: nothing */
};

#define COLUMNS(array) .columns = (array), .columns_n = sizeof(array) / sizeof(array)[0]

struct verb {
    const char *name;      /* "" when the command has no other */
    const char *arguments; /* "ID", "TYPE [DATA]" */
    const char *summary, *details, *examples;
    const char *method, *path;  /* {t} is --tenant, {id} the first argument */
    const char *argument_field; /* the member of the body that the first argument is; NULL: none */
    const char *fixed_body;
    const char *done; /* what became of it, said for an answer without a body: "deleted" */
    const struct option *options;
    size_t options_n;
    const struct view *view;
    bool keyless;              /* needs no key */
    bool local;                /* asks no server: takes none of the clients' flags; its run is all there is */
    int (*run)(struct call *); /* NULL: makes the request and shows the answer */
};

#define VERBS(array) .verbs = (array), .verbs_n = sizeof(array) / sizeof(array)[0]

/* Those that many verbs share. */
enum { CLIENT_OPTIONS_N = 4, LIST_OPTIONS_N = 3, BODY_OPTIONS_N = 2 };
extern const struct option client_options[CLIENT_OPTIONS_N], list_options[LIST_OPTIONS_N],
    body_options[BODY_OPTIONS_N], tenant_option;

/* How many of its options are those that every client has; they come last. */
static inline size_t verb_client_options(const struct verb *v) {
    return v->local ? 0 : CLIENT_OPTIONS_N;
}
static inline bool verb_has_tenant(const struct verb *v) {
    return strstr(v->path, "{t}") != NULL;
}
/* Its answer is a page of a longer list. */
static inline bool verb_is_list(const struct verb *v) {
    return v->view && v->view->columns && strcmp(v->method, "GET") == 0;
}
static inline bool verb_has_body(const struct verb *v) {
    if (v->fixed_body || v->argument_field)
        return true;
    for (size_t i = 0; i < v->options_n; i++)
        if (v->options[i].place == IN_BODY)
            return true;
    return false;
}

struct args;
/* Adds every option that v takes to the args: its own, then the shared ones. */
void verb_options(const struct verb *v, struct args *a);
