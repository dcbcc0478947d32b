#include "cli/client/tone.h"

#include <stdlib.h>
#include <unistd.h>

static const char *const codes[] = {
    [TONE_PLAIN] = "",           [TONE_GOOD] = "\033[32m", [TONE_BAD] = "\033[31m",
    [TONE_WAITING] = "\033[33m", [TONE_QUIET] = "\033[2m", [TONE_TITLE] = "\033[1m",
};

enum tone tone_of(struct slice state) {
    static const struct {
        const char *word;
        enum tone tone;
    } known[] = {
        {"DELIVERED", TONE_GOOD},
        {"DLQ", TONE_BAD},
        {"RETRY", TONE_WAITING},
        {"PENDING", TONE_WAITING},
        {"ATTEMPTING", TONE_WAITING},
        {"REPLAYING", TONE_WAITING},
        {"active", TONE_GOOD},
        {"paused", TONE_WAITING},
        {"disabled", TONE_BAD},
        {"done", TONE_GOOD},
        {"running", TONE_WAITING},
        {"cancelled", TONE_BAD},
        {"cancelling", TONE_WAITING},
        {"closed", TONE_GOOD},
        {"open", TONE_BAD},
        {"half_open", TONE_WAITING},
        {"-", TONE_QUIET},
        {"expanding", TONE_WAITING},
        {"pending", TONE_WAITING},
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (slice_eq(state, slice_of(known[i].word)))
            return known[i].tone;
    return TONE_PLAIN;
}

size_t text_width(struct slice text) {
    size_t n = 0;
    for (size_t i = 0; i < text.n; i++)
        n += ((unsigned char)text.p[i] & 0xc0) != 0x80;
    return n;
}

void tone_add(struct buf *out, enum tone tone, bool colours, struct slice text, size_t width) {
    bool coloured = colours && tone != TONE_PLAIN;
    buf_add_str(out, coloured ? codes[tone] : "");
    buf_add_slice(out, text);
    buf_add_str(out, coloured ? "\033[0m" : "");
    for (size_t n = text_width(text); n < width; n++)
        buf_add_char(out, ' ');
}

bool tone_wanted(int fd) {
    const char *no_color = getenv("NO_COLOR"), *term = getenv("TERM");
    return isatty(fd) && !(no_color && no_color[0]) && term && strcmp(term, "dumb") != 0;
}
