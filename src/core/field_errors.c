#include "core/field_errors.h"

#include <stdio.h>

void field_error_add(struct field_errors *e, const char *field, const char *format, ...) {
    if (e->n == FIELD_ERRORS_MAX)
        return;
    struct field_error *f = &e->at[e->n++];
    snprintf(f->field, sizeof f->field, "%s", field);
    va_list args;
    va_start(args, format);
    vsnprintf(f->message, sizeof f->message, format, args);
    va_end(args);
}
