/* What a command line may hold, as data: parsing, help, completion and man pages all read these tables. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

enum option_kind {
    OPTION_TEXT,
    OPTION_NUMBER,
    OPTION_BOOL,    /* takes no value; --name=false takes it back */
    OPTION_LIST,    /* texts: comma-separated, and given again */
    OPTION_NUMBERS, /* the same of numbers */
    OPTION_PAIRS,   /* NAME=VALUE, may be given again */
    OPTION_JSON,
    OPTION_PAST,   /* a time; "2h" is two hours ago */
    OPTION_FUTURE, /* a time; "2h" is in two hours */
    OPTION_FILE,   /* the content of a file */
};

/* Where its value goes in the request of a client. */
enum option_place { IN_COMMAND /* the command reads it itself */, IN_QUERY, IN_BODY, IN_HEADER };

struct option {
    const char *name, *placeholder; /* placeholder: NULL for OPTION_BOOL */
    const char *what;
    enum option_kind kind;
    enum option_place place;
    const char
        *field; /* the query parameter, the header, or the body's member with dots: "policy.timeout_ms" */
    const char *choices; /* words to complete, with spaces between; the server judges */
};

static inline bool option_repeats(const struct option *o) {
    return o->kind == OPTION_LIST || o->kind == OPTION_NUMBERS || o->kind == OPTION_PAIRS;
}

#define OPTIONS(array) .options = (array), .options_n = sizeof(array) / sizeof(array)[0]
