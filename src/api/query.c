#include "api/query.h"

#include <endian.h>
#include <errno.h>
#include <stdio.h>

#include "api/base64url.h"
#include "base/clock.h"
#include "core/id.h"

static int hex_digit(char c) {
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int percent_decode(char *p, size_t *n, bool form) {
    size_t to = 0;
    for (size_t i = 0; i < *n; i++) {
        char c = p[i];
        if (c == '%') {
            int high = i + 2 < *n ? hex_digit(p[i + 1]) : -1, low = high >= 0 ? hex_digit(p[i + 2]) : -1;
            if (low < 0)
                return -EINVAL;
            c = (char)(high << 4 | low);
            i += 2;
        } else if (c == '+' && form) {
            c = ' ';
        }
        p[to++] = c;
    }
    *n = to;
    return 0;
}

static void take_pair(struct slice name, struct slice value, struct query_param *params, size_t n,
                      struct field_errors *errors) {
    for (size_t i = 0; i < n; i++) {
        if (!slice_eq(name, slice_of(params[i].name)))
            continue;
        if (params[i].value.p)
            field_error_add(errors, params[i].name, "is given more than once");
        params[i].value = value;
        return;
    }
    char field[sizeof errors->at[0].field];
    snprintf(field, sizeof field, "%.*s", (int)(name.n < sizeof field ? name.n : sizeof field), name.p);
    field_error_add(errors, field, "is not a parameter of this list");
}

int query_parse(char *query, size_t n, struct query_param *params, size_t params_n,
                struct field_errors *errors) {
    char *at = query, *end = query + n;
    while (at < end) {
        char *stop = memchr(at, '&', (size_t)(end - at));
        stop = stop ? stop : end;
        char *equals = memchr(at, '=', (size_t)(stop - at));
        char *name_end = equals ? equals : stop, *value = equals ? equals + 1 : stop;
        size_t name_n = (size_t)(name_end - at), value_n = (size_t)(stop - value);
        if (percent_decode(at, &name_n, true) < 0 || percent_decode(value, &value_n, true) < 0)
            return -EINVAL;
        if (stop > at)
            take_pair((struct slice){at, name_n}, (struct slice){value, value_n}, params, params_n, errors);
        at = stop < end ? stop + 1 : end;
    }
    return 0;
}

size_t query_limit(const struct query_param *p, struct field_errors *errors) {
    size_t limit = 0;
    if (!p->value.p)
        return QUERY_LIMIT_DEFAULT;
    for (size_t i = 0; i < p->value.n; i++) {
        char c = p->value.p[i];
        if (c < '0' || c > '9' || limit > QUERY_LIMIT_MAX) {
            limit = 0;
            break;
        }
        limit = limit * 10 + (size_t)(c - '0');
    }
    if (limit >= 1 && limit <= QUERY_LIMIT_MAX)
        return limit;
    field_error_add(errors, p->name, "must be a number from 1 to %d", QUERY_LIMIT_MAX);
    return QUERY_LIMIT_DEFAULT;
}

int64_t query_time(const struct query_param *p, struct field_errors *errors) {
    int64_t at = 0;
    char text[64];
    if (!p->value.p)
        return 0;
    size_t n = p->value.n < sizeof text ? p->value.n : sizeof text - 1;
    for (size_t i = 0; i < n; i++)
        text[i] = p->value.p[i];
    for (size_t i = sizeof "2026-01-01T00:00:00" - 1; i < n; i++)
        if (text[i] == ' ')
            text[i] = '+';
    if (n < p->value.n || rfc3339_parse((struct slice){text, n}, &at) < 0)
        field_error_add(errors, p->name, "must be an RFC 3339 time, such as 2026-11-24T20:49:00Z");
    /* 0 means that there is no wish: whatever lies before 1970 is its first moment. */
    return at > 0 ? at : 1;
}

struct __attribute__((packed)) cursor {
    char list;
    uint64_t parts[CURSOR_PARTS_MAX]; /* big-endian */
};

static size_t cursor_size(size_t parts) {
    CHECK(parts >= 1 && parts <= CURSOR_PARTS_MAX);
    return offsetof(struct cursor, parts) + parts * sizeof(uint64_t);
}

void cursor_format(char list, const uint64_t *parts, size_t n, char out[CURSOR_TEXT_SIZE]) {
    struct cursor c = {.list = list};
    _Static_assert(BASE64URL_SIZE(sizeof c) <= CURSOR_TEXT_SIZE, "a cursor's text must fit");
    for (size_t i = 0; i < n; i++)
        c.parts[i] = htobe64(parts[i]);
    base64url_encode(&c, cursor_size(n), out);
}

bool query_cursor(const struct query_param *p, char list, uint64_t *parts, size_t n,
                  struct field_errors *errors) {
    struct cursor c;
    if (!p->value.p)
        return false;
    if (base64url_decode(p->value, &c, cursor_size(n)) < 0 || c.list != list) {
        field_error_add(errors, p->name, "must be the next_cursor of a page of this list");
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        parts[i] = be64toh(c.parts[i]);
        if (parts[i] == 0 || parts[i] > ID_KEY_MAX) {
            field_error_add(errors, p->name, "must be the next_cursor of a page of this list");
            return false;
        }
    }
    return true;
}
