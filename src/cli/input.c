#include "cli/input.h"

#include <errno.h>
#include <stdio.h>

int input_read(const char *path, size_t limit, struct buf *out, struct buf *problems) {
    bool standard_input = !path || strcmp(path, "-") == 0;
    FILE *f = standard_input ? stdin : fopen(path, "re");
    const char *name = standard_input ? "standard input" : path;
    char block[65536];
    size_t n, before = problems->n;
    out->limit = limit;
    while (f && buf_ok(out) && (n = fread(block, 1, sizeof block, f)) > 0)
        buf_add(out, block, n);
    if (!f || ferror(f))
        buf_addf(problems, "%s: cannot be read: %s\n", name, strerror(errno));
    else if (!buf_ok(out))
        buf_addf(problems, "%s: is longer than %zu bytes\n", name, limit);
    if (f && !standard_input)
        fclose(f);
    return problems->n > before || !buf_ok(problems) ? -EINVAL : 0;
}
