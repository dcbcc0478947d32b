#include "base/check.h"

#include <stdio.h>
#include <stdlib.h>

noreturn void check_failed(const char *file, int line, const char *condition) {
    fprintf(stderr,
            "posthorn: internal error at %s:%d: %s. Nothing acknowledged is lost; start again and "
            "please report this line.\n",
            file, line, condition);
    abort();
}
