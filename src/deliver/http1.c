#include "deliver/http1.h"

void http1_begin(struct http1 *h) {
    *h = (struct http1){.state = HTTP1_STATUS_LINE};
}

/* ---- lines ---- */

/* The line at the beginning of `in` without its end; false when it has not ended yet. Its bytes, end
 * included, go to *ret_n. */
static bool take_line(struct slice in, struct slice *ret, size_t *ret_n) {
    const char *end = memchr(in.p, '\n', in.n);
    if (!end)
        return false;
    *ret_n = (size_t)(end - in.p) + 1;
    *ret = (struct slice){in.p, *ret_n - 1};
    if (ret->n && ret->p[ret->n - 1] == '\r')
        ret->n--;
    return true;
}

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

static struct slice trim(struct slice s) {
    while (s.n && (s.p[0] == ' ' || s.p[0] == '\t')) {
        s.p++;
        s.n--;
    }
    while (s.n && (s.p[s.n - 1] == ' ' || s.p[s.n - 1] == '\t'))
        s.n--;
    return s;
}

/* The next member of a comma-separated list; false when there is none. */
static bool next_member(struct slice *list, struct slice *ret) {
    if (!list->p)
        return false;
    const char *comma = memchr(list->p, ',', list->n);
    size_t n = comma ? (size_t)(comma - list->p) : list->n;
    *ret = trim((struct slice){list->p, n});
    *list = comma ? (struct slice){comma + 1, list->n - n - 1} : SLICE_NONE;
    return true;
}

/* ---- the head ---- */

static const char version_prefix[] = "HTTP/1.";

/* Whether bytes that are no whole line yet may still become a status line. */
static bool may_be_status_line(struct slice in) {
    size_t n = in.n < sizeof version_prefix - 1 ? in.n : sizeof version_prefix - 1;
    return memcmp(in.p, version_prefix, n) == 0;
}

static bool read_status_line(struct http1 *h, struct slice line) {
    /* "HTTP/1.1 200", then nothing or a space and a reason. */
    if (line.n < 12 || !may_be_status_line(line) || !is_digit(line.p[7]) || line.p[8] != ' ' ||
        !is_digit(line.p[9]) || !is_digit(line.p[10]) || !is_digit(line.p[11]) ||
        (line.n > 12 && line.p[12] != ' '))
        return false;
    int status = (line.p[9] - '0') * 100 + (line.p[10] - '0') * 10 + (line.p[11] - '0');
    /* 101 answers an offer that is never made. */
    if (status < 100 || status == 101)
        return false;
    size_t head_read = h->head_read;
    *h = (struct http1){.state = HTTP1_HEADERS, .status = status, .head_read = head_read};
    h->old_version = line.p[7] == '0';
    h->keep_alive = !h->old_version;
    return true;
}

static bool read_length(struct http1 *h, struct slice value) {
    struct slice member;
    while (next_member(&value, &member)) {
        uint64_t n = 0;
        /* 18 digits cannot overflow, and nobody sends an exabyte. */
        if (member.n == 0 || member.n > 18)
            return false;
        for (size_t i = 0; i < member.n; i++) {
            if (!is_digit(member.p[i]))
                return false;
            n = n * 10 + (uint64_t)(member.p[i] - '0');
        }
        if (h->has_length && h->left != n)
            return false;
        h->has_length = true;
        h->left = n;
    }
    return true;
}

static void read_coding(struct http1 *h, struct slice value) {
    struct slice member;
    while (next_member(&value, &member)) {
        /* Only what is chunked last has an end of its own. */
        h->chunked = slice_eq_nocase(member, SLICE_LIT("chunked"));
        h->other_coding |= !h->chunked;
    }
}

static void read_connection(struct http1 *h, struct slice value) {
    struct slice member;
    while (next_member(&value, &member))
        if (slice_eq_nocase(member, SLICE_LIT("close")))
            h->keep_alive = false;
}

static bool read_header(struct http1 *h, struct slice line) {
    const char *colon = memchr(line.p, ':', line.n);
    size_t name_n = (size_t)(colon - line.p);
    struct slice name = {line.p, name_n}, value = {colon + 1, line.n - name_n - 1};
    switch (name_n) {
    case 10:
        if (slice_eq_nocase(name, SLICE_LIT("connection")))
            read_connection(h, value);
        return true;
    case 14:
        return !slice_eq_nocase(name, SLICE_LIT("content-length")) || read_length(h, value);
    case 17:
        if (slice_eq_nocase(name, SLICE_LIT("transfer-encoding")))
            read_coding(h, value);
        return true;
    default:
        return true;
    }
}

/* RFC 9112 §6.3: how the body ends. */
static void head_ended(struct http1 *h) {
    if (h->status < 200) {
        h->state = HTTP1_STATUS_LINE;
        return;
    }
    /* Two ways to tell the length are how responses are smuggled: nothing more of this connection. */
    if ((h->chunked || h->other_coding) && (h->has_length || h->old_version || h->other_coding))
        h->keep_alive = false;
    if (h->status == 204 || h->status == 304)
        h->state = HTTP1_COMPLETE;
    else if (h->chunked)
        h->state = HTTP1_CHUNK_SIZE;
    else if (h->has_length && !h->other_coding)
        h->state = h->left ? HTTP1_BODY_LENGTH : HTTP1_COMPLETE;
    else
        h->state = HTTP1_BODY_TO_END;
}

static enum http1_result head_line(struct http1 *h, struct slice line, const struct http1_events *events,
                                   void *arg) {
    if (h->state == HTTP1_STATUS_LINE) {
        if (!read_status_line(h, line))
            return HTTP1_BROKEN;
        events->status(arg, h->status);
        return HTTP1_MORE;
    }
    if (line.n == 0) {
        head_ended(h);
        return HTTP1_MORE;
    }
    /* A continued line (obsolete) or one without a name tells nothing that is needed. */
    const char *colon = memchr(line.p, ':', line.n);
    if (!colon || colon == line.p || line.p[0] == ' ' || line.p[0] == '\t' || h->status < 200)
        return HTTP1_MORE;
    events->header(arg, line);
    return read_header(h, line) ? HTTP1_MORE : HTTP1_BROKEN;
}

/* ---- the body ---- */

static bool read_chunk_size(struct http1 *h, struct slice line) {
    uint64_t n = 0;
    size_t digits = 0;
    for (; digits < line.n; digits++) {
        char c = line.p[digits];
        unsigned digit;
        if (is_digit(c))
            digit = (unsigned)(c - '0');
        else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')
            digit = (unsigned)((c | 0x20) - 'a') + 10;
        else
            break;
        if (digits == 15)
            return false;
        n = n * 16 + digit;
    }
    struct slice rest = trim((struct slice){line.p + digits, line.n - digits});
    if (digits == 0 || (rest.n && rest.p[0] != ';'))
        return false;
    h->left = n;
    h->state = n ? HTTP1_CHUNK_DATA : HTTP1_TRAILERS;
    return true;
}

static bool chunk_line(struct http1 *h, struct slice line) {
    switch (h->state) {
    case HTTP1_CHUNK_SIZE:
        return read_chunk_size(h, line);
    case HTTP1_CHUNK_END:
        h->state = HTTP1_CHUNK_SIZE;
        return line.n == 0;
    default:
        CHECK(h->state == HTTP1_TRAILERS);
        if (line.n == 0)
            h->state = HTTP1_COMPLETE;
        return true;
    }
}

static enum http1_result body_bytes(struct http1 *h, struct slice *in, const struct http1_events *events,
                                    void *arg) {
    size_t n = in->n;
    if (h->state != HTTP1_BODY_TO_END) {
        n = n < h->left ? n : (size_t)h->left;
        h->left -= n;
        if (h->left == 0)
            h->state = h->state == HTTP1_BODY_LENGTH ? HTTP1_COMPLETE : HTTP1_CHUNK_END;
    }
    struct slice bytes = {in->p, n};
    in->p += n;
    in->n -= n;
    return events->body(arg, bytes) ? HTTP1_MORE : HTTP1_STOPPED;
}

/* ---- the whole ---- */

static bool is_line_state(const struct http1 *h) {
    return h->state != HTTP1_BODY_LENGTH && h->state != HTTP1_BODY_TO_END && h->state != HTTP1_CHUNK_DATA;
}

static bool is_head(const struct http1 *h) {
    return h->state == HTTP1_STATUS_LINE || h->state == HTTP1_HEADERS;
}

/* Whether n more bytes of lines are within the limits. */
static bool within_limits(const struct http1 *h, size_t n) {
    return is_head(h) ? h->head_read + n <= HTTP1_HEAD_MAX : n <= HTTP1_CHUNK_LINE_MAX;
}

static enum http1_result line_of(struct http1 *h, struct slice *in, const struct http1_events *events,
                                 void *arg, bool *ret_wait) {
    struct slice line;
    size_t n;
    if (!take_line(*in, &line, &n)) {
        *ret_wait = true;
        bool hopeless = h->state == HTTP1_STATUS_LINE && !may_be_status_line(*in);
        return hopeless || !within_limits(h, in->n) ? HTTP1_BROKEN : HTTP1_MORE;
    }
    if (!within_limits(h, n))
        return HTTP1_BROKEN;
    in->p += n;
    in->n -= n;
    /* Trailers count as headers do, so that they end. */
    if (is_head(h) || h->state == HTTP1_TRAILERS)
        h->head_read += n;
    if (h->head_read > HTTP1_HEAD_MAX)
        return HTTP1_BROKEN;
    if (is_head(h))
        return head_line(h, line, events, arg);
    return chunk_line(h, line) ? HTTP1_MORE : HTTP1_BROKEN;
}

enum http1_result http1_read(struct http1 *h, struct slice in, const struct http1_events *events, void *arg,
                             size_t *ret_used) {
    size_t given = in.n;
    enum http1_result result = HTTP1_MORE;
    bool wait = false;
    while (result == HTTP1_MORE && !wait && in.n && h->state != HTTP1_COMPLETE)
        result = is_line_state(h) ? line_of(h, &in, events, arg, &wait) : body_bytes(h, &in, events, arg);
    *ret_used = given - in.n;
    return result == HTTP1_MORE && h->state == HTTP1_COMPLETE ? HTTP1_DONE : result;
}

bool http1_ends_here(const struct http1 *h) {
    return h->state == HTTP1_COMPLETE || h->state == HTTP1_BODY_TO_END;
}
