#include "core/field_errors.h"

#include <stdio.h>

/* Takes a UTF-8 sequence that was cut short off the end. */
static void trim_partial(char *text) {
    size_t n = strlen(text), tail = 0;
    while (tail < n && tail < 3 && ((unsigned char)text[n - 1 - tail] & 0xC0) == 0x80)
        tail++;
    if (tail == n)
        return;
    unsigned char lead = (unsigned char)text[n - 1 - tail];
    size_t wants = lead >= 0xF0 ? 3 : lead >= 0xE0 ? 2 : lead >= 0xC0 ? 1 : 0;
    if (tail < wants)
        text[n - 1 - tail] = '\0';
}

void field_error_add(struct field_errors *e, const char *field, const char *format, ...) {
    if (e->n == FIELD_ERRORS_MAX) {
        e->dropped++;
        return;
    }
    struct field_error *f = &e->at[e->n++];
    snprintf(f->field, sizeof f->field, "%s", field);
    va_list args;
    va_start(args, format);
    vsnprintf(f->message, sizeof f->message, format, args);
    va_end(args);
    trim_partial(f->field);
    trim_partial(f->message);
}
