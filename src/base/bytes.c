#include "base/bytes.h"

#include <endian.h>
#include <malloc.h>
#include <stdio.h>

static char ascii_lower(char c) {
    return c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
}

bool slice_eq_nocase(struct slice a, struct slice b) {
    if (a.n != b.n)
        return false;
    for (size_t i = 0; i < a.n; i++)
        if (ascii_lower(a.p[i]) != ascii_lower(b.p[i]))
            return false;
    return true;
}

bool slice_starts_with(struct slice s, struct slice prefix) {
    return s.n >= prefix.n && (prefix.n == 0 || memcmp(s.p, prefix.p, prefix.n) == 0);
}

char *slice_dup(struct slice s) {
    return s.p ? strndup(s.p, s.n) : NULL;
}

static bool buf_reserve(struct buf *b, size_t more) {
    if (b->failed)
        return false;
    if (b->limit && b->n + more > b->limit) {
        b->failed = true;
        return false;
    }
    size_t need = b->n + more + 1;
    if (need <= b->cap)
        return true;
    size_t cap = b->cap ? b->cap : 128;
    while (cap < need)
        cap *= 2;
    char *p = realloc(b->p, cap);
    if (!p) {
        b->failed = true;
        return false;
    }
    b->p = p;
    b->cap = cap;
    return true;
}

void buf_add(struct buf *b, const void *p, size_t n) {
    if (!buf_reserve(b, n))
        return;
    if (n)
        memcpy(b->p + b->n, p, n);
    b->n += n;
    b->p[b->n] = '\0';
}

void buf_add_slice(struct buf *b, struct slice s) {
    buf_add(b, s.p, s.n);
}

void buf_add_str(struct buf *b, const char *s) {
    buf_add(b, s, strlen(s));
}

void buf_add_char(struct buf *b, char c) {
    buf_add(b, &c, 1);
}

void buf_addf(struct buf *b, const char *format, ...) {
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    /* Into the room there is: mostly it suffices, and the text is made once. */
    size_t room = b->failed || b->cap == 0 ? 0 : b->cap - b->n;
    int n = vsnprintf(room ? b->p + b->n : NULL, room, format, args);
    va_end(args);
    if (n < 0) {
        b->failed = true;
    } else if (buf_reserve(b, (size_t)n)) {
        if ((size_t)n >= room)
            vsnprintf(b->p + b->n, (size_t)n + 1, format, again);
        b->n += (size_t)n;
    } else if (room) {
        b->p[b->n] = '\0';
    }
    va_end(again);
}

/* Length of the valid UTF-8 sequence at p (at most n bytes), or 0. */
static size_t utf8_sequence(const unsigned char *p, size_t n) {
    unsigned char c = p[0];
    if (c < 0x80)
        return 1;
    size_t len = c >= 0xF0 && c <= 0xF4 ? 4 : c >= 0xE0 && c < 0xF0 ? 3 : c >= 0xC2 && c < 0xE0 ? 2 : 0;
    if (len == 0 || len > n)
        return 0;
    for (size_t i = 1; i < len; i++)
        if ((p[i] & 0xC0) != 0x80)
            return 0;
    if ((c == 0xE0 && p[1] < 0xA0) || (c == 0xED && p[1] > 0x9F) || (c == 0xF0 && p[1] < 0x90) ||
        (c == 0xF4 && p[1] > 0x8F))
        return 0;
    return len;
}

static void add_json_escape(struct buf *b, unsigned char c) {
    switch (c) {
    case '"':
        buf_add_str(b, "\\\"");
        break;
    case '\\':
        buf_add_str(b, "\\\\");
        break;
    case '\n':
        buf_add_str(b, "\\n");
        break;
    case '\r':
        buf_add_str(b, "\\r");
        break;
    case '\t':
        buf_add_str(b, "\\t");
        break;
    default:
        buf_addf(b, "\\u%04x", c);
    }
}

void buf_add_json_string(struct buf *b, struct slice s) {
    buf_add_char(b, '"');
    size_t start = 0, i = 0;
    while (i < s.n) {
        unsigned char c = (unsigned char)s.p[i];
        size_t len = utf8_sequence((const unsigned char *)s.p + i, s.n - i);
        if (len > 1 || (len == 1 && c >= 0x20 && c != '"' && c != '\\')) {
            i += len;
            continue;
        }
        buf_add(b, s.p + start, i - start);
        if (len == 0)
            buf_add_str(b, "\xEF\xBF\xBD");
        else
            add_json_escape(b, c);
        start = ++i;
    }
    if (start < s.n)
        buf_add(b, s.p + start, s.n - start);
    buf_add_char(b, '"');
}

void buf_reset(struct buf *b) {
    b->n = 0;
    b->failed = false;
    if (b->p)
        b->p[0] = '\0';
}

void wipe_free(void *p) {
    if (p)
        explicit_bzero(p, malloc_usable_size(p));
    free(p);
}

void buf_wipe(struct buf *b) {
    if (b->p)
        explicit_bzero(b->p, b->cap);
    buf_free(b);
}

void buf_free(struct buf *b) {
    free(b->p);
    *b = (struct buf){0};
}

struct blob *blob_new(size_t n) {
    struct blob *b = malloc(sizeof *b + n + 1);
    if (!b)
        return NULL;
    atomic_init(&b->refs, 1);
    b->n = n;
    b->p[n] = '\0';
    return b;
}

struct blob *blob_of(struct slice s) {
    struct blob *b = blob_new(s.n);
    if (b && s.n)
        memcpy(b->p, s.p, s.n);
    return b;
}

struct blob *blob_ref(struct blob *b) {
    unsigned before = atomic_fetch_add_explicit(&b->refs, 1, memory_order_relaxed);
    CHECK(before > 0);
    return b;
}

void blob_unref(struct blob *b) {
    if (!b)
        return;
    unsigned before = atomic_fetch_sub_explicit(&b->refs, 1, memory_order_acq_rel);
    CHECK(before > 0);
    if (before == 1)
        free(b);
}

void hex_encode(const void *p, size_t n, char *out) {
    static const char digits[] = "0123456789abcdef";
    const unsigned char *u = p;
    for (size_t i = 0; i < n; i++) {
        out[2 * i] = digits[u[i] >> 4];
        out[2 * i + 1] = digits[u[i] & 15];
    }
    out[2 * n] = '\0';
}

uint64_t mix64(uint64_t x) {
    /* The finaliser of splitmix64 (Steele, Lea, Flood 2014). */
    x ^= x >> 30;
    x *= 0xbf58476d1ce4e5b9ULL;
    x ^= x >> 27;
    x *= 0x94d049bb133111ebULL;
    return x ^ (x >> 31);
}

uint64_t hash64(const void *p, size_t n) {
    const unsigned char *u = p;
    uint64_t h = 0x9e3779b97f4a7c15ULL ^ n;
    while (n >= 8) {
        uint64_t w;
        memcpy(&w, u, 8);
        h = mix64(h ^ le64toh(w)) + 0x9e3779b97f4a7c15ULL;
        u += 8;
        n -= 8;
    }
    uint64_t tail = 0;
    if (n)
        memcpy(&tail, u, n);
    return mix64(h ^ le64toh(tail));
}
