#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "deliver/http1.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

/* ---- a reader that keeps what it is told ---- */

struct heard {
    int status;
    struct buf headers, body;
    size_t body_wanted;
};

static void on_status(void *arg, int status) {
    ((struct heard *)arg)->status = status;
}

static void on_header(void *arg, struct slice line) {
    struct heard *h = arg;
    buf_add_slice(&h->headers, line);
    buf_add_char(&h->headers, '|');
}

static bool on_body(void *arg, struct slice bytes) {
    struct heard *h = arg;
    buf_add_slice(&h->body, bytes);
    return h->body.n < h->body_wanted;
}

static const struct http1_events events = {on_status, on_header, on_body};

static void heard_free(struct heard *h) {
    buf_free(&h->headers);
    buf_free(&h->body);
}

/* Reads `in` in pieces of at most `piece` bytes, as a connection would: what is not used stands before the
 * next piece. */
static enum http1_result read_pieces(struct http1 *h, struct heard *heard, struct slice in, size_t piece,
                                     size_t *ret_used) {
    _cleanup_buf_ struct buf kept = {0};
    size_t total = 0;
    enum http1_result result = HTTP1_MORE;
    for (size_t at = 0; at < in.n && result == HTTP1_MORE;) {
        size_t n = in.n - at < piece ? in.n - at : piece, used;
        buf_add(&kept, in.p + at, n);
        at += n;
        result = http1_read(h, buf_slice(&kept), &events, heard, &used);
        assert_true(used <= kept.n);
        total += used;
        memmove(kept.p, kept.p + used, kept.n - used);
        kept.n -= used;
    }
    *ret_used = total;
    return result;
}

/* ---- the table ---- */

struct response_case {
    const char *name, *bytes;
    enum http1_result result;
    bool keep_alive, ends_here;
    int status;
    const char *headers, *body;
    const char *rest; /* what is not of this response */
};

#define OK "HTTP/1.1 200 OK\r\n"

static const struct response_case cases[] = {
    {"length", OK "Content-Length: 5\r\n\r\nhello", HTTP1_DONE, true, true, 200, "Content-Length: 5|",
     "hello", ""},
    {"no body", "HTTP/1.1 204 No Content\r\nA: b\r\n\r\n", HTTP1_DONE, true, true, 204, "A: b|", "", ""},
    {"204 has none whatever it says", "HTTP/1.1 204 x\r\ncontent-length: 5\r\n\r\nhello", HTTP1_DONE, true,
     true, 204, "content-length: 5|", "", "hello"},
    {"no reason", "HTTP/1.1 200\r\ncontent-length:0\r\n\r\n", HTTP1_DONE, true, true, 200,
     "content-length:0|", "", ""},
    {"bare line feeds", "HTTP/1.1 201 Made\ncontent-length: 1\n\nx", HTTP1_DONE, true, true, 201,
     "content-length: 1|", "x", ""},
    {"close", OK "connection: Close\r\ncontent-length: 0\r\n\r\n", HTTP1_DONE, false, true, 200,
     "connection: Close|content-length: 0|", "", ""},
    {"close in a list", OK "connection: foo , close\r\ncontent-length: 0\r\n\r\n", HTTP1_DONE, false, true,
     200, "connection: foo , close|content-length: 0|", "", ""},
    {"1.0 is not kept", "HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n", HTTP1_DONE, false, true, 200,
     "content-length: 0|", "", ""},
    {"to the end", OK "\r\nold", HTTP1_MORE, true, true, 200, "", "old", ""},
    {"chunks",
     OK "Transfer-Encoding: Chunked\r\n\r\n3;x=y\r\nabc\r\nA\r\n0123456789\r\n0\r\nt: r\r\n\r\nnext",
     HTTP1_DONE, true, true, 200, "Transfer-Encoding: Chunked|", "abc0123456789", "next"},
    {"chunks and a length", OK "transfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n1\r\na\r\n0\r\n\r\n",
     HTTP1_DONE, false, true, 200, "transfer-encoding: chunked|content-length: 3|", "a", ""},
    {"another coding has no end of its own", OK "transfer-encoding: gzip\r\ncontent-length: 1\r\n\r\nab",
     HTTP1_MORE, false, true, 200, "transfer-encoding: gzip|content-length: 1|", "ab", ""},
    {"the same length twice", OK "content-length: 1, 1\r\n\r\na", HTTP1_DONE, true, true, 200,
     "content-length: 1, 1|", "a", ""},
    {"interim answers",
     "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 x\r\nlink: y\r\n\r\nHTTP/1.1 202 z\r\ncontent-length: "
     "0\r\n\r\n",
     HTTP1_DONE, true, true, 202, "content-length: 0|", "", ""},
    {"another answer after it", OK "content-length: 0\r\n\r\nHTTP/1.1 500 x\r\n\r\n", HTTP1_DONE, true, true,
     200, "content-length: 0|", "", "HTTP/1.1 500 x\r\n\r\n"},
    {"lines that tell nothing", OK "no colon\r\n: no name\r\nA: b\r\n folded: x\r\ncontent-length: 0\r\n\r\n",
     HTTP1_DONE, true, true, 200, "A: b|content-length: 0|", "", ""},
    {"status line alone", OK, HTTP1_MORE, true, false, 200, "", "", ""},
    {"half a body", OK "content-length: 10\r\n\r\nhalf", HTTP1_MORE, true, false, 200, "content-length: 10|",
     "half", ""},

    {"another protocol", "220 mail.example.com ESMTP\r\n", HTTP1_BROKEN, .status = 0},
    {"another protocol, no line yet", "SSH-2.0", HTTP1_BROKEN, .status = 0},
    {"HTTP/2 in the clear", "HTTP/2 200\r\n\r\n", HTTP1_BROKEN, .status = 0},
    {"two digits", "HTTP/1.1 20 OK\r\n", HTTP1_BROKEN, .status = 0},
    {"four digits", "HTTP/1.1 2000 OK\r\n", HTTP1_BROKEN, .status = 0},
    {"below 100", "HTTP/1.1 099 x\r\n\r\n", HTTP1_BROKEN, .status = 0},
    {"an upgrade nobody asked for", "HTTP/1.1 101 x\r\n\r\n", HTTP1_BROKEN, .status = 0},
    {"two lengths", OK "content-length: 1\r\ncontent-length: 2\r\n\r\nab", HTTP1_BROKEN, .status = 200},
    {"a negative length", OK "content-length: -1\r\n\r\n", HTTP1_BROKEN, .status = 200},
    {"an endless length", OK "content-length: 99999999999999999999\r\n\r\n", HTTP1_BROKEN, .status = 200},
    {"a chunk that is no number", OK "transfer-encoding: chunked\r\n\r\nzz\r\nx", HTTP1_BROKEN,
     .status = 200},
    {"a chunk without an end", OK "transfer-encoding: chunked\r\n\r\n1\r\nab\r\n", HTTP1_BROKEN,
     .status = 200},
    {"an endless chunk", OK "transfer-encoding: chunked\r\n\r\n10000000000000000\r\n", HTTP1_BROKEN,
     .status = 200},
};

static void check_case(const struct response_case *c, size_t piece) {
    struct http1 h;
    struct heard heard = {.body_wanted = SIZE_MAX};
    struct slice bytes = slice_of(c->bytes);
    size_t used;
    http1_begin(&h);
    enum http1_result result = read_pieces(&h, &heard, bytes, piece, &used);
    bool same = result == c->result && heard.status == c->status;
    if (result != HTTP1_BROKEN)
        same = same && h.keep_alive == c->keep_alive && http1_ends_here(&h) == c->ends_here &&
               slice_eq(buf_slice(&heard.headers), slice_of(c->headers)) &&
               slice_eq(buf_slice(&heard.body), slice_of(c->body)) && bytes.n - used == strlen(c->rest);
    if (!same)
        fail_msg("%s, %zu bytes at a time: result %d, status %d, headers \"%.*s\", body \"%.*s\", %zu used",
                 c->name, piece, (int)result, heard.status, SLICE_ARG(buf_slice(&heard.headers)),
                 SLICE_ARG(buf_slice(&heard.body)), used);
    heard_free(&heard);
}

static void test_cases_in_pieces_of_any_size(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++)
        for (size_t piece = 1; piece <= strlen(cases[i].bytes); piece++)
            check_case(&cases[i], piece);
}

/* ---- limits ---- */

/* What comes of a beginning and then `line` again and again. */
static enum http1_result flood(const char *begin, const char *line, size_t *ret_total) {
    struct http1 h;
    struct heard heard = {.body_wanted = SIZE_MAX};
    size_t used;
    http1_begin(&h);
    enum http1_result result = http1_read(&h, slice_of(begin), &events, &heard, &used);
    for (*ret_total = 0; result == HTTP1_MORE && *ret_total < 1000000; *ret_total += strlen(line)) {
        assert_int_equal(used, *ret_total ? strlen(line) : strlen(begin));
        result = http1_read(&h, slice_of(line), &events, &heard, &used);
    }
    heard_free(&heard);
    return result;
}

static void test_floods_end(void **state) {
    (void)state;
    size_t total;
    assert_int_equal(flood(OK, "a: b\r\n", &total), HTTP1_BROKEN);
    assert_in_range(total, HTTP1_HEAD_MAX - 100, HTTP1_HEAD_MAX + 100);
    assert_int_equal(flood("", "HTTP/1.1 100 x\r\n\r\n", &total), HTTP1_BROKEN);
    assert_in_range(total, HTTP1_HEAD_MAX - 100, HTTP1_HEAD_MAX + 100);
    assert_int_equal(flood(OK "transfer-encoding: chunked\r\n\r\n0\r\n", "a: b\r\n", &total), HTTP1_BROKEN);
    assert_in_range(total, HTTP1_HEAD_MAX - 100, HTTP1_HEAD_MAX + 100);
}

static void test_a_line_without_an_end_is_refused(void **state) {
    (void)state;
    static char line[HTTP1_HEAD_MAX + 1];
    struct heard heard = {.body_wanted = SIZE_MAX};
    struct http1 h;
    size_t used;
    memset(line, 'a', sizeof line);
    http1_begin(&h);
    assert_int_equal(http1_read(&h, SLICE_LIT(OK), &events, &heard, &used), HTTP1_MORE);
    assert_int_equal(http1_read(&h, (struct slice){line, 60000}, &events, &heard, &used), HTTP1_MORE);
    assert_int_equal(used, 0);
    assert_int_equal(http1_read(&h, (struct slice){line, sizeof line}, &events, &heard, &used), HTTP1_BROKEN);
    http1_begin(&h);
    assert_int_equal(
        http1_read(&h, SLICE_LIT(OK "transfer-encoding: chunked\r\n\r\n"), &events, &heard, &used),
        HTTP1_MORE);
    memset(line, '0', HTTP1_CHUNK_LINE_MAX + 1);
    assert_int_equal(http1_read(&h, (struct slice){line, HTTP1_CHUNK_LINE_MAX + 1}, &events, &heard, &used),
                     HTTP1_BROKEN);
    heard_free(&heard);
}

static void test_stops_when_the_body_is_enough(void **state) {
    (void)state;
    struct heard heard = {.body_wanted = 4};
    struct http1 h;
    size_t used;
    http1_begin(&h);
    assert_int_equal(http1_read(&h, SLICE_LIT(OK "content-length: 9\r\n\r\n12345"), &events, &heard, &used),
                     HTTP1_STOPPED);
    heard_free(&heard);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cases_in_pieces_of_any_size),
        cmocka_unit_test(test_floods_end),
        cmocka_unit_test(test_a_line_without_an_end_is_refused),
        cmocka_unit_test(test_stops_when_the_body_is_enough),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
