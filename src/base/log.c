#include "base/log.h"

#include <errno.h>

#include "base/clock.h"

static const char *const level_names[] = {"debug", "info", "warn", "error"};

/* Written once before the threads start. */
static enum log_level least_level = LOG_INFO;
static bool as_json;

void log_configure(enum log_level least, bool json) {
    least_level = least;
    as_json = json;
}

int log_level_parse(struct slice s, enum log_level *ret) {
    for (size_t i = 0; i < sizeof level_names / sizeof level_names[0]; i++) {
        if (slice_eq(s, slice_of(level_names[i]))) {
            *ret = (enum log_level)i;
            return 0;
        }
    }
    return -EINVAL;
}

static bool needs_quotes(struct slice s) {
    for (size_t i = 0; i < s.n; i++)
        if ((unsigned char)s.p[i] <= ' ' || s.p[i] == '"' || s.p[i] == '=' || s.p[i] == '\\' ||
            s.p[i] == 0x7f)
            return true;
    return s.n == 0;
}

static void add_value(struct buf *b, const struct log_field *f) {
    if (f->kind == LOG_FIELD_INT)
        buf_addf(b, "%lld", (long long)f->num);
    else if (as_json || needs_quotes(f->str))
        buf_add_json_string(b, f->str);
    else
        buf_add_slice(b, f->str);
}

void log_write(enum log_level level, const char *message, const struct log_field *fields, size_t n) {
    if (level < least_level)
        return;
    _cleanup_buf_ struct buf b = {.limit = 16384};
    char at[RFC3339_SIZE];
    rfc3339_format(clock_now_ms(), at);
    if (as_json) {
        buf_addf(&b, "{\"at\":\"%s\",\"level\":\"%s\",\"message\":", at, level_names[level]);
        buf_add_json_string(&b, slice_of(message));
    } else {
        buf_addf(&b, "%s %-5s %s", at, level_names[level], message);
    }
    for (size_t i = 0; i < n; i++) {
        if (as_json) {
            buf_addf(&b, ",\"%s\":", fields[i].key);
        } else {
            buf_addf(&b, " %s=", fields[i].key);
        }
        add_value(&b, &fields[i]);
    }
    buf_add_str(&b, as_json ? "}\n" : "\n");
    /* A log that cannot be written must not stop deliveries. */
    ssize_t written = write(STDERR_FILENO, b.p, b.n);
    (void)written;
}
