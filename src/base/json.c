#include "base/json.h"

#include <errno.h>

#include "base/json_tape.h"

struct json_cursor json_open(struct slice text) {
    const char *begin = text.n ? text.p : "";
    return (struct json_cursor){.begin = begin, .at = begin, .end = begin + text.n};
}

struct json_cursor json_open_around(struct slice text, int around) {
    struct json_cursor c = json_open(text);
    c.around = around;
    return c;
}

static int fail(struct json_cursor *c, const char *problem) {
    c->problem = problem;
    return -EINVAL;
}

static void skip_space(struct json_cursor *c) {
    while (c->at < c->end && (*c->at == ' ' || *c->at == '\n' || *c->at == '\r' || *c->at == '\t'))
        c->at++;
}

static bool is_digit(const struct json_cursor *c) {
    return c->at < c->end && *c->at >= '0' && *c->at <= '9';
}

static bool is_hex(char ch) {
    return (ch >= '0' && ch <= '9') || (ch >= 'a' && ch <= 'f') || (ch >= 'A' && ch <= 'F');
}

/* Steps over one multi-byte UTF-8 sequence. */
static int skip_utf8(struct json_cursor *c) {
    const unsigned char *p = (const unsigned char *)c->at;
    size_t left = (size_t)(c->end - c->at), len;
    if (p[0] >= 0xC2 && p[0] < 0xE0)
        len = 2;
    else if (p[0] >= 0xE0 && p[0] < 0xF0)
        len = 3;
    else if (p[0] >= 0xF0 && p[0] <= 0xF4)
        len = 4;
    else
        return fail(c, "invalid UTF-8");
    if (left < len)
        return fail(c, "invalid UTF-8");
    for (size_t i = 1; i < len; i++)
        if ((p[i] & 0xC0) != 0x80)
            return fail(c, "invalid UTF-8");
    if ((p[0] == 0xE0 && p[1] < 0xA0) || (p[0] == 0xED && p[1] > 0x9F) || (p[0] == 0xF0 && p[1] < 0x90) ||
        (p[0] == 0xF4 && p[1] > 0x8F))
        return fail(c, "invalid UTF-8");
    c->at += len;
    return 0;
}

static int skip_escape(struct json_cursor *c) {
    c->at++;
    if (c->at >= c->end)
        return fail(c, "unterminated string");
    if (*c->at == 'u') {
        for (int i = 1; i <= 4; i++)
            if (c->at + i >= c->end || !is_hex(c->at[i]))
                return fail(c, "\\u must be followed by four hex digits");
        c->at += 5;
        return 0;
    }
    if (!*c->at || !strchr("\"\\/bfnrt", *c->at))
        return fail(c, "unknown escape in a string");
    c->at++;
    return 0;
}

#define EACH_BYTE(value) (UINT64_C(0x0101010101010101) * (value))

static uint64_t zero_bytes(uint64_t word) {
    return (word - EACH_BYTE(0x01)) & ~word & EACH_BYTE(0x80);
}

/* Passes over characters that mean nothing but themselves, eight at a time: most of a large payload are. */
static void skip_plain(struct json_cursor *c) {
    uint64_t word;
    while ((size_t)(c->end - c->at) >= sizeof word) {
        memcpy(&word, c->at, sizeof word);
        uint64_t control = (word - EACH_BYTE(0x20)) & ~word & EACH_BYTE(0x80);
        if (control | zero_bytes(word ^ EACH_BYTE('"')) | zero_bytes(word ^ EACH_BYTE('\\')) |
            (word & EACH_BYTE(0x80)))
            return;
        c->at += sizeof word;
    }
}

static int skip_string(struct json_cursor *c) {
    c->at++;
    while (c->at < c->end) {
        unsigned char ch = (unsigned char)*c->at;
        int r = 0;
        if (ch == '"') {
            c->at++;
            return 0;
        }
        if (ch < 0x20)
            return fail(c, "a control character in a string must be escaped");
        if (ch == '\\') {
            r = skip_escape(c);
        } else if (ch >= 0x80) {
            r = skip_utf8(c);
        } else {
            c->at++;
            skip_plain(c);
        }
        if (r < 0)
            return r;
    }
    return fail(c, "unterminated string");
}

static int skip_digits(struct json_cursor *c) {
    if (!is_digit(c))
        return fail(c, "a digit was expected in a number");
    while (is_digit(c))
        c->at++;
    return 0;
}

static int skip_number(struct json_cursor *c) {
    if (*c->at == '-')
        c->at++;
    if (c->at < c->end && *c->at == '0') {
        c->at++;
        if (is_digit(c))
            return fail(c, "a number must not start with 0");
    } else if (skip_digits(c) < 0) {
        return -EINVAL;
    }
    if (c->at < c->end && *c->at == '.') {
        c->at++;
        if (skip_digits(c) < 0)
            return -EINVAL;
    }
    if (c->at < c->end && (*c->at == 'e' || *c->at == 'E')) {
        c->at++;
        if (c->at < c->end && (*c->at == '+' || *c->at == '-'))
            c->at++;
        return skip_digits(c);
    }
    return 0;
}

static int skip_word(struct json_cursor *c, const char *word) {
    size_t n = strlen(word);
    if ((size_t)(c->end - c->at) < n || memcmp(c->at, word, n) != 0)
        return fail(c, "not a JSON value");
    c->at += n;
    return 0;
}

static int skip_value(struct json_cursor *c, int depth, enum json_type *ret_type);

/* Notes where the value or member name at the cursor begins; the type of a node that is still open is none of
 * the values'. */
static int tape_open(struct json_cursor *c, size_t *ret) {
    struct json_tape *t = c->tape;
    if (t->n == t->cap) {
        size_t cap = t->cap ? t->cap * 2 : 64;
        struct json_node *nodes = realloc(t->nodes, cap * sizeof *nodes);
        if (!nodes) {
            c->problem = "memory is out";
            return -ENOMEM;
        }
        t->nodes = nodes;
        t->cap = cap;
    }
    t->nodes[t->n] = (struct json_node){.start = (uint32_t)json_offset(c)};
    *ret = t->n++;
    return 0;
}

static void tape_close(struct json_cursor *c, size_t at, enum json_type type) {
    struct json_node *node = &c->tape->nodes[at];
    size_t n = json_offset(c) - node->start;
    node->n = (uint32_t)n;
    node->next = (uint32_t)c->tape->n;
    node->type = (uint8_t)type;
    node->escaped = type == JSON_TYPE_STRING && memchr(c->begin + node->start, '\\', n);
}

static int skip_name(struct json_cursor *c) {
    size_t slot = 0;
    if (!c->tape)
        return skip_string(c);
    int r = tape_open(c, &slot);
    if (r == 0)
        r = skip_string(c);
    if (r == 0)
        tape_close(c, slot, JSON_TYPE_STRING);
    return r;
}

/* The rest of an object (after its brace) or array, members and closing mark. */
static int skip_container(struct json_cursor *c, int depth, bool object) {
    _Static_assert(JSON_DEPTH_MAX == 64, "the message below tells it");
    if (depth >= JSON_DEPTH_MAX)
        return fail(c, "nested deeper than 64 levels");
    char close = object ? '}' : ']';
    enum json_type ignored;
    c->at++;
    skip_space(c);
    if (c->at < c->end && *c->at == close) {
        c->at++;
        return 0;
    }
    for (;;) {
        skip_space(c);
        if (object) {
            if (c->at >= c->end || *c->at != '"')
                return fail(c, "a member name in quotes was expected");
            int r = skip_name(c);
            if (r < 0)
                return r;
            skip_space(c);
            if (c->at >= c->end || *c->at != ':')
                return fail(c, "':' was expected");
            c->at++;
        }
        int r = skip_value(c, depth + 1, &ignored);
        if (r < 0)
            return r;
        skip_space(c);
        if (c->at < c->end && *c->at == ',') {
            c->at++;
            continue;
        }
        if (c->at < c->end && *c->at == close) {
            c->at++;
            return 0;
        }
        return fail(c, object ? "',' or '}' was expected" : "',' or ']' was expected");
    }
}

/* What begins at the cursor, which is not at the end. */
static int skip_token(struct json_cursor *c, int depth, enum json_type *ret_type) {
    switch (*c->at) {
    case '{':
        *ret_type = JSON_TYPE_OBJECT;
        return skip_container(c, depth, true);
    case '[':
        *ret_type = JSON_TYPE_ARRAY;
        return skip_container(c, depth, false);
    case '"':
        *ret_type = JSON_TYPE_STRING;
        return skip_string(c);
    case 't':
        *ret_type = JSON_TYPE_TRUE;
        return skip_word(c, "true");
    case 'f':
        *ret_type = JSON_TYPE_FALSE;
        return skip_word(c, "false");
    case 'n':
        *ret_type = JSON_TYPE_NULL;
        return skip_word(c, "null");
    default:
        *ret_type = JSON_TYPE_NUMBER;
        if (*c->at != '-' && !is_digit(c))
            return fail(c, "not a JSON value");
        return skip_number(c);
    }
}

static int skip_value(struct json_cursor *c, int depth, enum json_type *ret_type) {
    skip_space(c);
    if (c->at >= c->end)
        return fail(c, "the text ends where a value was expected");
    if (!c->tape)
        return skip_token(c, depth, ret_type);
    size_t slot;
    int r = tape_open(c, &slot);
    if (r == 0)
        r = skip_token(c, depth, ret_type);
    if (r == 0)
        tape_close(c, slot, *ret_type);
    return r;
}

int json_tape_read(struct json_tape *t, struct slice text) {
    struct json_cursor c = json_open(text);
    enum json_type type;
    t->n = 0;
    if (text.n > UINT32_MAX)
        return -E2BIG;
    c.tape = t;
    int r = skip_value(&c, 0, &type);
    if (r == 0)
        r = json_finish(&c);
    if (r < 0)
        t->n = 0;
    return r;
}

int json_value(struct json_cursor *c, struct slice *ret_value, enum json_type *ret_type) {
    skip_space(c);
    const char *start = c->at;
    int r = skip_value(c, -c->around, ret_type);
    if (r < 0)
        return r;
    *ret_value = (struct slice){start, (size_t)(c->at - start)};
    return 0;
}

static int enter(struct json_cursor *c, char open, const char *problem) {
    skip_space(c);
    if (c->at >= c->end || *c->at != open)
        return fail(c, problem);
    c->at++;
    return 0;
}

int json_enter_object(struct json_cursor *c) {
    return enter(c, '{', "an object was expected");
}

int json_enter_array(struct json_cursor *c) {
    return enter(c, '[', "an array was expected");
}

/* Steps over what stands between two members: 1 when one follows, 0 at the end. */
static int next_item(struct json_cursor *c, bool *first, char close) {
    skip_space(c);
    if (c->at < c->end && *c->at == close) {
        c->at++;
        return 0;
    }
    if (*first) {
        *first = false;
        return 1;
    }
    if (c->at >= c->end || *c->at != ',')
        return fail(c, close == '}' ? "',' or '}' was expected" : "',' or ']' was expected");
    c->at++;
    skip_space(c);
    return 1;
}

int json_next_member(struct json_cursor *c, bool *first, struct json_member *ret) {
    int r = next_item(c, first, '}');
    if (r <= 0)
        return r;
    const char *start = c->at;
    if (c->at >= c->end || *c->at != '"')
        return fail(c, "a member name in quotes was expected");
    if (skip_string(c) < 0)
        return -EINVAL;
    ret->key = (struct slice){start + 1, (size_t)(c->at - start) - 2};
    skip_space(c);
    if (c->at >= c->end || *c->at != ':')
        return fail(c, "':' was expected");
    c->at++;
    r = json_value(c, &ret->value, &ret->type);
    return r < 0 ? r : 1;
}

int json_next_element(struct json_cursor *c, bool *first, struct slice *ret_value, enum json_type *ret_type) {
    int r = next_item(c, first, ']');
    if (r <= 0)
        return r;
    r = json_value(c, ret_value, ret_type);
    return r < 0 ? r : 1;
}

int json_finish(struct json_cursor *c) {
    skip_space(c);
    return c->at == c->end ? 0 : fail(c, "text follows the value");
}

static unsigned hex4(const char *p) {
    unsigned v = 0;
    for (int i = 0; i < 4; i++) {
        char ch = p[i];
        v = v << 4 | (unsigned)(ch <= '9' ? ch - '0' : (ch | 0x20) - 'a' + 10);
    }
    return v;
}

static size_t put_utf8(char out[4], unsigned v) {
    if (v < 0x80) {
        out[0] = (char)v;
        return 1;
    }
    size_t n = v < 0x800 ? 2 : v < 0x10000 ? 3 : 4;
    for (size_t i = n - 1; i > 0; i--, v >>= 6)
        out[i] = (char)(0x80 | (v & 0x3F));
    out[0] = (char)((n == 2 ? 0xC0 : n == 3 ? 0xE0 : 0xF0) | v);
    return n;
}

/* The character that the escape at s.p[i] (a backslash) stands for; returns how many bytes it took. */
static size_t decode_escape(struct slice s, size_t i, unsigned *ret) {
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    const char *simple = strchr(from, s.p[i + 1]);
    if (simple) {
        *ret = (unsigned char)to[simple - from];
        return 2;
    }
    unsigned v = hex4(s.p + i + 2);
    if (v >= 0xD800 && v < 0xDC00 && i + 12 <= s.n && s.p[i + 6] == '\\' && s.p[i + 7] == 'u') {
        unsigned low = hex4(s.p + i + 8);
        if (low >= 0xDC00 && low < 0xE000) {
            *ret = 0x10000 + ((v - 0xD800) << 10) + (low - 0xDC00);
            return 12;
        }
    }
    *ret = v >= 0xD800 && v < 0xE000 ? 0xFFFD : v;
    return 6;
}

/* The next bytes that the inner of a string stands for, up to its next escape, or of that (in `room`); moves
 * *i behind them. */
static struct slice next_run(struct slice s, size_t *i, char room[4]) {
    const char *start = s.p + *i;
    if (*start == '\\') {
        unsigned v;
        *i += decode_escape(s, *i, &v);
        return (struct slice){room, put_utf8(room, v)};
    }
    const char *escape = memchr(start, '\\', s.n - *i);
    size_t n = escape ? (size_t)(escape - start) : s.n - *i;
    *i += n;
    return (struct slice){start, n};
}

static int decode_inner(struct slice s, struct buf *out) {
    char room[4];
    for (size_t i = 0; i < s.n;) {
        struct slice run = next_run(s, &i, room);
        if (run.p[0] == '\0')
            return -EINVAL;
        buf_add_slice(out, run);
    }
    return buf_ok(out) ? 0 : -ENOMEM;
}

static struct slice inner(struct slice value) {
    CHECK(value.n >= 2 && value.p[0] == '"');
    return (struct slice){value.p + 1, value.n - 2};
}

int json_string_compare(struct slice value, struct slice prefix) {
    struct slice s = inner(value);
    char room[4];
    size_t matched = 0;
    for (size_t i = 0; i < s.n;) {
        struct slice run = next_run(s, &i, room);
        size_t n = run.n < prefix.n - matched ? run.n : prefix.n - matched;
        if (memcmp(run.p, prefix.p + matched, n) != 0)
            return -1;
        matched += n;
        if (n < run.n)
            return 0;
    }
    return matched == prefix.n ? 1 : -1;
}

bool json_string_ends_with(struct slice value, struct slice suffix) {
    struct slice s = inner(value);
    char room[4];
    size_t total = 0, at = 0;
    for (size_t i = 0; i < s.n;)
        total += next_run(s, &i, room).n;
    if (total < suffix.n)
        return false;
    size_t before = total - suffix.n;
    for (size_t i = 0; i < s.n;) {
        struct slice run = next_run(s, &i, room);
        size_t skip = at < before ? before - at : 0;
        if (skip < run.n && memcmp(run.p + skip, suffix.p + (at + skip - before), run.n - skip) != 0)
            return false;
        at += run.n;
    }
    return true;
}

bool json_key_is(struct slice key, const char *name) {
    if (!key.n || !memchr(key.p, '\\', key.n))
        return slice_eq(key, slice_of(name));
    _cleanup_buf_ struct buf plain = {0};
    return decode_inner(key, &plain) == 0 && slice_eq(buf_slice(&plain), slice_of(name));
}

int json_string_decode(struct slice value, struct buf *out) {
    return decode_inner(inner(value), out);
}

int json_int(struct slice value, int64_t *ret) {
    uint64_t v = 0;
    size_t i = value.n && value.p[0] == '-' ? 1 : 0;
    bool negative = i == 1, too_large = false;
    uint64_t most = (uint64_t)INT64_MAX + (negative ? 1 : 0);
    if (i >= value.n)
        return -EINVAL;
    for (; i < value.n; i++) {
        if (value.p[i] < '0' || value.p[i] > '9')
            return -EINVAL;
        too_large = too_large || v > (uint64_t)INT64_MAX / 10;
        v = too_large ? v : v * 10 + (uint64_t)(value.p[i] - '0');
        too_large = too_large || v > most;
    }
    if (too_large)
        return -ERANGE;
    *ret = negative ? (int64_t)(0 - v) : (int64_t)v;
    return 0;
}
