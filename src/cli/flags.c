#include "cli/flags.h"

bool flags_next(struct flags *f, struct flag *ret) {
    if (f->at < f->argc && !f->ended && strcmp(f->argv[f->at], "--") == 0) {
        f->ended = true;
        f->at++;
    }
    if (f->at >= f->argc)
        return false;
    const char *text = f->argv[f->at++];
    bool negative = text[0] == '-' && text[1] >= '0' && text[1] <= '9'; /* a number is no flag */
    if (f->ended || negative || text[0] != '-' || text[1] == '\0') {
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
