#include "base/log.h"

#include <errno.h>
#include <stdatomic.h>

#include "base/clock.h"

enum { LINE_MAX_BYTES = 1 << 18 }; /* more than a dozen of the longest values, all of them escaped */

static const char *const level_names[] = {"debug", "info", "warn", "error"};

/* Written once before the threads start. */
static enum log_level least_level = LOG_INFO;
static bool as_json;

void log_configure(enum log_level least, bool json) {
    least_level = least;
    as_json = json;
}

bool log_again(struct log_again *l, int64_t what, int64_t mono_us, int64_t *ret_left_out) {
    bool same = atomic_exchange(&l->what, what) == what;
    if (same && atomic_load(&l->at) && mono_us - atomic_load(&l->at) < (int64_t)LOG_AGAIN_MS * 1000) {
        atomic_fetch_add(&l->left_out, 1);
        return false;
    }
    atomic_store(&l->at, mono_us);
    *ret_left_out = atomic_exchange(&l->left_out, 0);
    return true;
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
    struct slice text = {f->str.p, f->str.n < LOG_VALUE_MAX ? f->str.n : LOG_VALUE_MAX};
    if (f->kind == LOG_FIELD_INT)
        buf_addf(b, "%lld", (long long)f->num);
    else if (as_json || needs_quotes(text))
        buf_add_json_string(b, text);
    else
        buf_add_slice(b, text);
}

bool log_enabled(enum log_level level) {
    return level >= least_level;
}

void log_write(enum log_level level, const char *message, const struct log_field *fields, size_t n) {
    if (!log_enabled(level))
        return;
    _cleanup_buf_ struct buf b = {.limit = LINE_MAX_BYTES};
    char at[RFC3339_SIZE];
    rfc3339_format(clock_now_ms(), at);
    if (as_json) {
        buf_addf(&b, "{\"at\":\"%s\",\"level\":\"%s\",\"message\":", at, level_names[level]);
        buf_add_json_string(&b, slice_of(message));
    } else {
        buf_addf(&b, "%s %-5s %s", at, level_names[level], message);
    }
    for (size_t i = 0; i < n; i++) {
        if (fields[i].kind == LOG_FIELD_STR && !fields[i].str.p)
            continue;
        if (as_json) {
            buf_addf(&b, ",\"%s\":", fields[i].key);
        } else {
            buf_addf(&b, " %s=", fields[i].key);
        }
        add_value(&b, &fields[i]);
    }
    buf_add_str(&b, as_json ? "}\n" : "\n");
    if (!buf_ok(&b)) /* memory is out: half a line would spoil the next, too */
        return;
    /* A log that cannot be written must not stop deliveries. */
    ssize_t written = write(STDERR_FILENO, b.p, b.n);
    (void)written;
}
