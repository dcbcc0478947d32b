/* A command line taken apart: "--name value", "--name=value", and plain arguments. "--" ends the flags. */
#pragma once

#include "base/bytes.h"

/* argv holds arguments alone (no program or command name). Zero-initialise the rest. */
struct flags {
    int argc;
    char *const *argv;
    int at;
    bool ended;
};

struct flag {
    struct slice name; /* without the dashes; absent: a plain argument */
    const char *value; /* after "=", or the plain argument; NULL: none yet */
};

/* The next flag or argument; false at the end. "-" and "-1" are plain arguments, "-x" is a flag named "x". */
bool flags_next(struct flags *f, struct flag *ret);
/* The value of the flag just returned: what follows "=", else the next argument, which is taken; NULL when
 * there is none or it begins with "--" (then write --name=--text). */
const char *flags_value(struct flags *f, const struct flag *flag);
