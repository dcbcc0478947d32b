/* traceparent and tracestate of strangers: a line each. POSIX regular expressions are the second opinion. */
#include <regex.h>

#include "core/trace.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FIELDS "-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}"
#define MEMBER "[a-z0-9][a-z0-9_*/@-]*=[^,=]*[^,= ]"

static bool matches(const char *pattern, const char *text) {
    regex_t re;
    CHECK(regcomp(&re, pattern, REG_EXTENDED | REG_NOSUB) == 0);
    bool found = regexec(&re, text, 0, NULL, 0) == 0;
    regfree(&re);
    return found;
}

static bool parent_valid(const char *text) {
    static const char *const wrong[] = {"^ff", "^..-0{32}", "^.{35}-0{16}"};
    bool valid =
        matches("^00" FIELDS "$", text) || matches("^(0[1-9a-f]|[1-9a-f][0-9a-f])" FIELDS "(-|$)", text);
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        valid = valid && !matches(wrong[i], text);
    return valid;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    _cleanup_buf_ struct buf out = {0};
    struct slice all = {(const char *)data, size};
    const char *end = size ? memchr(data, '\n', size) : NULL;
    struct slice parent = {all.p, end ? (size_t)(end - all.p) : size};
    struct slice state = end ? (struct slice){end + 1, size - parent.n - 1} : SLICE_NONE;
    if ((size && memchr(data, '\0', size)) || (parent.n && strchr(" \t", parent.p[0])) ||
        (parent.n && strchr(" \t", parent.p[parent.n - 1])))
        return 0; /* no header has these */
    _cleanup_free_ char *text = slice_dup(parent);
    bool taken = trace_take(parent, state, &out);
    CHECK(taken == (text && parent_valid(text)));
    if (!taken) {
        CHECK(out.n == 0);
        return 0;
    }
    CHECK(buf_ok(&out) && out.n >= TRACEPARENT_N && out.n <= TRACE_TEXT_MAX);
    CHECK(memcmp(out.p + 2, text + 2, TRACEPARENT_N - 4) == 0);
    struct slice kept = trace_state(buf_slice(&out));
    _cleanup_free_ char *list = slice_dup(kept);
    CHECK(list && (kept.n == 0 || matches("^" MEMBER "(," MEMBER ")*$", list)));
    for (size_t i = 0; i < kept.n; i++)
        CHECK(kept.p[i] >= ' ' && kept.p[i] <= '~');
    char step[TRACEPARENT_N + 1];
    trace_parent_for(buf_slice(&out), 1 + size, step);
    CHECK(parent_valid(step));
    return 0;
}
