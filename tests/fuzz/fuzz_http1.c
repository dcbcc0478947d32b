/* The reader of HTTP/1 responses: any bytes, in any pieces, are read alike. The first byte chooses the piece.
 */
#include "deliver/http1.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct heard {
    int status;
    size_t headers_n, body_n;
    uint64_t digest;
};

static void mix(struct heard *h, struct slice s) {
    for (size_t i = 0; i < s.n; i++)
        h->digest = mix64(h->digest ^ (uint8_t)s.p[i]);
}

static void on_status(void *arg, int status) {
    struct heard *h = arg;
    CHECK(status >= 100 && status <= 999 && status != 101);
    h->status = status;
}

static void on_header(void *arg, struct slice line) {
    struct heard *h = arg;
    CHECK(line.n && memchr(line.p, ':', line.n) && !memchr(line.p, '\n', line.n));
    h->headers_n++;
    mix(h, line);
    mix(h, SLICE_LIT("\n"));
}

static bool on_body(void *arg, struct slice bytes) {
    struct heard *h = arg;
    CHECK(bytes.n > 0);
    h->body_n += bytes.n;
    mix(h, bytes);
    return true;
}

static const struct http1_events events = {on_status, on_header, on_body};

static enum http1_result read_in_pieces(struct slice in, size_t piece, struct http1 *h, struct heard *heard,
                                        size_t *ret_used) {
    size_t at = 0, end = 0;
    enum http1_result result = HTTP1_MORE;
    http1_begin(h);
    while (end < in.n && result == HTTP1_MORE) {
        size_t used;
        end = in.n - end < piece ? in.n : end + piece;
        result = http1_read(h, (struct slice){in.p + at, end - at}, &events, heard, &used);
        CHECK(used <= end - at);
        at += used;
    }
    *ret_used = at;
    return result;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 2)
        return 0;
    struct slice in = {(const char *)data + 1, size - 1};
    struct http1 whole, parts;
    struct heard heard_whole = {0}, heard_parts = {0};
    size_t used_whole, used_parts;
    enum http1_result a = read_in_pieces(in, in.n, &whole, &heard_whole, &used_whole);
    enum http1_result b = read_in_pieces(in, data[0] ? data[0] : 1, &parts, &heard_parts, &used_parts);
    CHECK(a == b && a != HTTP1_STOPPED);
    CHECK(heard_whole.status == heard_parts.status);
    if (a == HTTP1_BROKEN)
        return 0;
    CHECK(used_whole == used_parts && whole.state == parts.state && whole.keep_alive == parts.keep_alive);
    CHECK(heard_whole.headers_n == heard_parts.headers_n && heard_whole.body_n == heard_parts.body_n &&
          heard_whole.digest == heard_parts.digest);
    CHECK((a == HTTP1_DONE) == (whole.state == HTTP1_COMPLETE));
    return 0;
}
