#include "cli/args.h"

#include <errno.h>
#include <stdlib.h>

#include "cli/flags.h"
#include "cli/nearest.h"

enum { ARGS_DIGITS_MAX = 18 };

void args_know(struct args *a, const struct option *options, size_t n) {
    for (size_t i = 0; i < n; i++) {
        CHECK(a->options_n < ARGS_OPTIONS_MAX);
        a->options[a->options_n++] = &options[i];
    }
}

static const struct option *find(const struct args *a, struct slice name) {
    for (size_t i = 0; i < a->options_n; i++)
        if (slice_eq(name, slice_of(a->options[i]->name)))
            return a->options[i];
    return NULL;
}

static void unknown(const struct args *a, struct slice name, struct buf *problems) {
    const char *names[ARGS_OPTIONS_MAX + 1];
    for (size_t i = 0; i < a->options_n; i++)
        names[i] = a->options[i]->name;
    names[a->options_n] = "help";
    buf_addf(problems, "unknown flag --%.*s: did you mean --%s?\n", SLICE_ARG(name),
             nearest_word(name, names, a->options_n + 1));
}

static const char *value_of(struct flags *flags, const struct flag *flag, const struct option *o,
                            struct buf *problems) {
    bool is_bool = o->kind == OPTION_BOOL;
    const char *value = is_bool ? (flag->value ? flag->value : "true") : flags_value(flags, flag);
    if (!value)
        buf_addf(problems, "--%s needs a value: --%s %s\n", o->name, o->name, o->placeholder);
    else if (is_bool && strcmp(value, "true") != 0 && strcmp(value, "false") != 0)
        buf_addf(problems, "--%s=%s: must be true or false\n", o->name, value);
    return value;
}

static void take_option(struct args *a, struct flags *flags, const struct flag *flag, struct buf *problems) {
    const struct option *o = find(a, flag->name);
    if (!o) {
        unknown(a, flag->name, problems);
        return;
    }
    const char *value = value_of(flags, flag, o, problems);
    if (value && !option_repeats(o) && args_value(a, o->name))
        buf_addf(problems, "--%s is given twice\n", o->name);
    else if (value && a->given_n == ARGS_GIVEN_MAX)
        buf_addf(problems, "more than %d flags\n", ARGS_GIVEN_MAX);
    else if (value)
        a->given[a->given_n++] = (struct given){o, value};
}

void arguments_count(const char *arguments, size_t *ret_least, size_t *ret_most) {
    *ret_least = *ret_most = 0;
    for (const char *at = arguments + strspn(arguments, " "); *at; at += strspn(at, " ")) {
        *ret_least += *at != '[';
        *ret_most += 1;
        at += strcspn(at, " ");
    }
}

static void name_missing(const char *arguments, size_t given, struct buf *problems) {
    const char *at = arguments + strspn(arguments, " ");
    for (size_t i = 0; i < given; i++) {
        at += strcspn(at, " ");
        at += strspn(at, " ");
    }
    buf_addf(problems, "%.*s is missing\n", (int)strcspn(at, " "), at);
}

int args_parse(struct args *a, int argc, char *const *argv, const char *arguments, struct buf *problems) {
    struct flags flags = {.argc = argc, .argv = argv};
    struct flag flag;
    size_t least, most, before = problems->n;
    arguments_count(arguments, &least, &most);
    CHECK(most <= ARGS_PLAIN_MAX);
    while (flags_next(&flags, &flag)) {
        if (flag.name.p)
            take_option(a, &flags, &flag, problems);
        else if (a->plain_n < most)
            a->plain[a->plain_n++] = flag.value;
        else
            buf_addf(problems, "unexpected argument %s\n", flag.value);
    }
    if (a->plain_n < least)
        name_missing(arguments, a->plain_n, problems);
    return problems->n > before || !buf_ok(problems) ? -EINVAL : 0;
}

const char *args_value(const struct args *a, const char *name) {
    const char *value = NULL;
    for (size_t i = 0; i < a->given_n; i++)
        if (strcmp(a->given[i].option->name, name) == 0)
            value = a->given[i].value;
    return value;
}

bool args_is_set(const struct args *a, const char *name) {
    const char *value = args_value(a, name);
    return value && strcmp(value, "true") == 0;
}

int64_t args_number(const struct args *a, const char *name, int64_t least, int64_t most, int64_t otherwise,
                    struct buf *problems) {
    const char *text = args_value(a, name);
    if (!text)
        return otherwise;
    size_t n = strspn(text, "0123456789");
    int64_t value = n > 0 && n <= ARGS_DIGITS_MAX && text[n] == '\0' ? strtoll(text, NULL, 10) : -1;
    if (value >= least && value <= most)
        return value;
    buf_addf(problems, "--%s %s: must be a number from %lld to %lld\n", name, text, (long long)least,
             (long long)most);
    return otherwise;
}
