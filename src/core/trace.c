#include "core/trace.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    TRACE_ID_AT = 3,
    SPAN_ID_AT = TRACE_ID_AT + TRACE_ID_N + 1,
    SPAN_ID_N = 16,
    FLAGS_AT = SPAN_ID_AT + SPAN_ID_N + 1,
    FLAG_SAMPLED = 1,
    STATE_MEMBERS_MAX = 32,
    STATE_KEY_MAX = 256,
    STATE_VALUE_MAX = 256,
};

/* Lower-case only: the standard allows no other. */
static bool is_hex(const char *p, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!((p[i] >= '0' && p[i] <= '9') || (p[i] >= 'a' && p[i] <= 'f')))
            return false;
    return true;
}

static bool all_are(const char *p, size_t n, char c) {
    for (size_t i = 0; i < n; i++)
        if (p[i] != c)
            return false;
    return true;
}

static bool parent_valid(struct slice s) {
    if (s.n < TRACEPARENT_N || !is_hex(s.p, 2) || all_are(s.p, 2, 'f'))
        return false;
    if (s.n > TRACEPARENT_N && (all_are(s.p, 2, '0') || s.p[TRACEPARENT_N] != '-'))
        return false;
    return s.p[TRACE_ID_AT - 1] == '-' && s.p[SPAN_ID_AT - 1] == '-' && s.p[FLAGS_AT - 1] == '-' &&
           is_hex(s.p + TRACE_ID_AT, TRACE_ID_N) && !all_are(s.p + TRACE_ID_AT, TRACE_ID_N, '0') &&
           is_hex(s.p + SPAN_ID_AT, SPAN_ID_N) && !all_are(s.p + SPAN_ID_AT, SPAN_ID_N, '0') &&
           is_hex(s.p + FLAGS_AT, 2);
}

static bool sampled_at(const char *flags) {
    char low = flags[1];
    return ((low <= '9' ? low - '0' : low - 'a' + 10) & FLAG_SAMPLED) != 0;
}

static bool key_valid(struct slice key) {
    if (key.n < 1 || key.n > STATE_KEY_MAX)
        return false;
    for (size_t i = 0; i < key.n; i++) {
        char c = key.p[i];
        bool plain = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
        if (!plain && (i == 0 || !memchr("_-*/@", c, 5)))
            return false;
    }
    return true;
}

static bool value_valid(struct slice value) {
    if (value.n < 1 || value.n > STATE_VALUE_MAX)
        return false;
    for (size_t i = 0; i < value.n; i++)
        if (value.p[i] < ' ' || value.p[i] > '~' || value.p[i] == '=')
            return false;
    return true;
}

static struct slice without_space(struct slice s) {
    while (s.n && (s.p[0] == ' ' || s.p[0] == '\t'))
        s = (struct slice){s.p + 1, s.n - 1};
    while (s.n && (s.p[s.n - 1] == ' ' || s.p[s.n - 1] == '\t'))
        s.n--;
    return s;
}

/* Adds a list's members, apart by commas alone; false when it is malformed. */
static bool add_state(struct slice list, struct buf *out) {
    const char *at = list.p, *end = list.p + list.n;
    for (int members = 0; at < end;) {
        const char *comma = memchr(at, ',', (size_t)(end - at)), *stop = comma ? comma : end;
        struct slice member = without_space((struct slice){at, (size_t)(stop - at)});
        at = comma ? comma + 1 : end;
        if (!member.n) /* allowed, and without a meaning */
            continue;
        const char *equals = memchr(member.p, '=', member.n);
        if (!equals || ++members > STATE_MEMBERS_MAX)
            return false;
        struct slice key = {member.p, (size_t)(equals - member.p)};
        if (!key_valid(key) || !value_valid((struct slice){equals + 1, member.n - key.n - 1}))
            return false;
        if (members > 1)
            buf_add_char(out, ',');
        buf_add_slice(out, member);
    }
    return true;
}

bool trace_take(struct slice traceparent, struct slice tracestate, struct buf *out) {
    traceparent = without_space(traceparent);
    if (!traceparent.p || !parent_valid(traceparent))
        return false;
    _cleanup_buf_ struct buf state = {.limit = TRACE_STATE_MAX};
    bool passed_on = tracestate.p && add_state(tracestate, &state) && buf_ok(&state);
    buf_add_str(out, "00");
    buf_add(out, traceparent.p + 2, FLAGS_AT - 2);
    /* The other flags are of versions that we do not know. */
    buf_add_str(out, sampled_at(traceparent.p + FLAGS_AT) ? "01" : "00");
    if (passed_on)
        buf_add_slice(out, buf_slice(&state));
    return true;
}

struct slice trace_state(struct slice trace) {
    CHECK(trace.n >= TRACEPARENT_N);
    return (struct slice){trace.p + TRACEPARENT_N, trace.n - TRACEPARENT_N};
}

bool trace_sampled(struct slice trace) {
    CHECK(trace.n >= TRACEPARENT_N);
    return sampled_at(trace.p + FLAGS_AT);
}

void trace_id(struct slice trace, char ret[TRACE_ID_N + 1]) {
    CHECK(trace.n >= TRACEPARENT_N);
    memcpy(ret, trace.p + TRACE_ID_AT, TRACE_ID_N);
    ret[TRACE_ID_N] = '\0';
}

uint64_t trace_span(struct slice trace) {
    char digits[SPAN_ID_N + 1] = "";
    CHECK(trace.n >= TRACEPARENT_N);
    memcpy(digits, trace.p + SPAN_ID_AT, SPAN_ID_N);
    return strtoull(digits, NULL, 16);
}

void trace_parent_for(struct slice trace, uint64_t span, char ret[TRACEPARENT_N + 1]) {
    CHECK(trace.n >= TRACEPARENT_N && span != 0);
    snprintf(ret, TRACEPARENT_N + 1, "%.*s%016llx%.*s", SPAN_ID_AT, trace.p, (unsigned long long)span,
             TRACEPARENT_N - FLAGS_AT + 1, trace.p + FLAGS_AT - 1);
}
