#include "cli/flags.h"

#include <errno.h>

#include "cli/nearest.h"

enum { FLAG_SPECS_MAX = 32 };

bool flags_next(struct flags *f, struct flag *ret) {
    if (f->at < f->argc && !f->ended && strcmp(f->argv[f->at], "--") == 0) {
        f->ended = true;
        f->at++;
    }
    if (f->at >= f->argc)
        return false;
    const char *text = f->argv[f->at++];
    if (f->ended || text[0] != '-' || text[1] == '\0') {
        *ret = (struct flag){.value = text};
        return true;
    }
    const char *name = text + (text[1] == '-' ? 2 : 1);
    const char *equals = strchr(name, '=');
    *ret = (struct flag){.name = slice_of(name), .value = equals ? equals + 1 : NULL};
    if (equals)
        ret->name.n = (size_t)(equals - name);
    return true;
}

const char *flags_value(struct flags *f, const struct flag *flag) {
    if (flag->value)
        return flag->value;
    if (f->at >= f->argc || strncmp(f->argv[f->at], "--", 2) == 0)
        return NULL;
    return f->argv[f->at++];
}

static const struct flag_spec *find(const struct flag_spec *specs, size_t n, struct slice name) {
    for (size_t i = 0; i < n; i++)
        if (slice_eq(name, slice_of(specs[i].name)))
            return &specs[i];
    return NULL;
}

static void unknown(const struct flag_spec *specs, size_t n, struct slice name, struct buf *problems) {
    const char *names[FLAG_SPECS_MAX];
    CHECK(n > 0 && n <= FLAG_SPECS_MAX);
    for (size_t i = 0; i < n; i++)
        names[i] = specs[i].name;
    buf_addf(problems, "unknown flag --%.*s: did you mean --%s?\n", SLICE_ARG(name),
             nearest_word(name, names, n));
}

int flags_parse(int argc, char *const *argv, const struct flag_spec *specs, size_t n, const char **plain,
                struct buf *problems) {
    struct flags flags = {.argc = argc, .argv = argv};
    struct flag flag;
    bool wrong = false;
    while (flags_next(&flags, &flag)) {
        const struct flag_spec *spec = flag.name.p ? find(specs, n, flag.name) : NULL;
        if (spec && spec->given && !flag.value) {
            *spec->given = true;
            continue;
        }
        if (spec && spec->value && (*spec->value = flags_value(&flags, &flag)))
            continue;
        if (!flag.name.p && plain && !*plain) {
            *plain = flag.value;
            continue;
        }
        wrong = true;
        if (spec)
            buf_addf(problems, "--%s %s a value\n", spec->name, spec->given ? "does not take" : "needs");
        else if (flag.name.p)
            unknown(specs, n, flag.name, problems);
        else
            buf_addf(problems, "unexpected argument %s\n", flag.value);
    }
    return wrong ? -EINVAL : 0;
}
