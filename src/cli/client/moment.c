#include "cli/client/moment.h"

#include <stdlib.h>

#include "base/clock.h"

enum { MOMENT_DIGITS_MAX = 6 };

/* Milliseconds of "2h"; negative: it is none. */
static int64_t span_ms(const char *text) {
    static const struct {
        char unit;
        int64_t ms;
    } units[] = {{'s', 1000}, {'m', 60000}, {'h', 3600000}, {'d', 86400000}, {'w', 604800000}};
    size_t n = strspn(text, "0123456789");
    if (strcmp(text, "now") == 0)
        return 0;
    if (n == 0 || n > MOMENT_DIGITS_MAX || text[n] == '\0' || text[n + 1] != '\0')
        return -1;
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++)
        if (units[i].unit == text[n])
            return strtoll(text, NULL, 10) * units[i].ms;
    return -1;
}

void moment_add(struct buf *out, const char *text, bool future, int64_t now) {
    int64_t span = span_ms(text);
    char formatted[RFC3339_SIZE];
    if (span < 0 || (!future && span > now)) {
        buf_add_str(out, text);
        return;
    }
    rfc3339_format(future ? now + span : now - span, formatted);
    buf_add_str(out, formatted);
}
