/* A command line held against the options that a command knows. */
#pragma once

#include "base/bytes.h"
#include "cli/option.h"

enum { ARGS_OPTIONS_MAX = 128, ARGS_GIVEN_MAX = 256, ARGS_PLAIN_MAX = 3 };

struct given {
    const struct option *option;
    const char *value; /* "true" or "false" of OPTION_BOOL */
};

/* Zero-initialise it. Values borrow from argv. */
struct args {
    const struct option *options[ARGS_OPTIONS_MAX];
    size_t options_n;
    struct given given[ARGS_GIVEN_MAX];
    size_t given_n;
    const char *plain[ARGS_PLAIN_MAX];
    size_t plain_n;
};

/* Adds to the options that args_parse knows. */
void args_know(struct args *a, const struct option *options, size_t n);
/* `arguments` names the plain ones, as the usage line has them: "ID", "TYPE [DATA]". Every mistake adds a
 * line to `problems`; -EINVAL when there was one. */
int args_parse(struct args *a, int argc, char *const *argv, const char *arguments,
               struct buf *problems) MUST_USE;
/* What was given last; NULL: not given. */
const char *args_value(const struct args *a, const char *name);
/* Whether an OPTION_BOOL is set. */
bool args_is_set(const struct args *a, const char *name);
/* The whole number that was given, from least to most; `otherwise` when it was not. A line in problems says
 * what is wrong with it. */
int64_t args_number(const struct args *a, const char *name, int64_t least, int64_t most, int64_t otherwise,
                    struct buf *problems);
/* How many words of `arguments` must, and may, be given. */
void arguments_count(const char *arguments, size_t *ret_least, size_t *ret_most);
