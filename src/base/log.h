/* Structured logs on stderr, one line an entry, as text or JSON lines. Values are never payloads or secrets;
 * what a line is about stands in it by its id (core/log_id.h): tenant, subscription, event, delivery, replay,
 * key. A text that is absent (NULL) leaves its field out. log_info("delivery settled", log_id("delivery",
 * ID_DELIVERY, id), log_int("attempt", n)); Safe from every thread; a line is one write. */
#pragma once

#include "base/bytes.h"

enum { LOG_VALUE_MAX = 1024 }; /* bytes of a text; the rest is cut off */

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };

struct log_field {
    const char *key;
    enum { LOG_FIELD_STR, LOG_FIELD_INT } kind;
    struct slice str;
    int64_t num;
};

static inline struct log_field log_slice(const char *key, struct slice value) {
    return (struct log_field){.key = key, .kind = LOG_FIELD_STR, .str = value};
}

static inline struct log_field log_str(const char *key, const char *value) {
    return log_slice(key, slice_of(value));
}

static inline struct log_field log_int(const char *key, int64_t value) {
    return (struct log_field){.key = key, .kind = LOG_FIELD_INT, .num = value};
}

/* Set before any thread starts. */
void log_configure(enum log_level least, bool json);
/* For lines that cost something to put together. */
bool log_enabled(enum log_level level);
void log_write(enum log_level level, const char *message, const struct log_field *fields, size_t n);

/* A line that may come thousands of times a second, such as an error of the store's. Zero at first. */
struct log_again {
    _Atomic int64_t what, at;
    _Atomic int64_t left_out;
};
enum { LOG_AGAIN_MS = 5000 };

/* Whether the line is to be written: at once when `what` (an error's number) is another than before, then
 * once in LOG_AGAIN_MS of the monotonic clock. *ret_left_out: how often it was not since the last that was.
 * From every thread. */
bool log_again(struct log_again *l, int64_t what, int64_t mono_us, int64_t *ret_left_out);

/* Looks a level up by name ("debug" … "error"); -EINVAL for another. */
int log_level_parse(struct slice s, enum log_level *ret) MUST_USE;

#define LOG_AT(level, message, ...)                                                                          \
    do {                                                                                                     \
        const struct log_field _fields[] = {{0}, __VA_ARGS__};                                               \
        log_write(level, message, _fields + 1, sizeof _fields / sizeof _fields[0] - 1);                      \
    } while (0)

#define log_debug(message, ...) LOG_AT(LOG_DEBUG, message, __VA_ARGS__)
#define log_info(message, ...)  LOG_AT(LOG_INFO, message, __VA_ARGS__)
#define log_warn(message, ...)  LOG_AT(LOG_WARN, message, __VA_ARGS__)
#define log_error(message, ...) LOG_AT(LOG_ERROR, message, __VA_ARGS__)
