/* Colours, for terminals alone. */
#pragma once

#include "base/bytes.h"

enum tone { TONE_PLAIN, TONE_GOOD, TONE_BAD, TONE_WAITING, TONE_QUIET, TONE_TITLE };

/* Of a state or status as the API writes it. */
enum tone tone_of(struct slice state);
/* Appends text in a tone, and blanks up to `width` characters. */
void tone_add(struct buf *out, enum tone tone, bool colours, struct slice text, size_t width);
/* How many characters a UTF-8 text has. */
size_t text_width(struct slice text);
/* Whether a terminal on fd should get colours: NO_COLOR and TERM=dumb say no. */
bool tone_wanted(int fd);
