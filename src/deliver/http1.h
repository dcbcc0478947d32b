/* Reads one HTTP/1.x response (RFC 9112) out of bytes as they come. Pure: no I/O, no memory of its own. It is
 * as lenient as receivers need (bare LF, no reason phrase) and refuses what would let two readers disagree on
 * where a response ends. */
#pragma once

#include "base/bytes.h"

enum {
    HTTP1_HEAD_MAX = 65536,      /* bytes of status lines and headers, those of interim answers included */
    HTTP1_CHUNK_LINE_MAX = 4096, /* bytes of a chunk's size line, or of a trailer's */
};

enum http1_result {
    HTTP1_MORE,    /* the response goes on */
    HTTP1_DONE,    /* it is complete */
    HTTP1_BROKEN,  /* it is not HTTP, or over a limit: no further byte of the connection can be trusted */
    HTTP1_STOPPED, /* `body` wanted no more */
};

struct http1 {
    enum {
        HTTP1_STATUS_LINE,
        HTTP1_HEADERS,
        HTTP1_BODY_LENGTH,
        HTTP1_BODY_TO_END,
        HTTP1_CHUNK_SIZE,
        HTTP1_CHUNK_DATA,
        HTTP1_CHUNK_END,
        HTTP1_TRAILERS,
        HTTP1_COMPLETE,
    } state;
    int status;       /* of the latest status line, 0 before one has come */
    bool keep_alive;  /* the connection may carry another request, once the response is complete */
    bool old_version; /* HTTP/1.0 */
    bool has_length, chunked, other_coding;
    uint64_t left;    /* of the body by length, or of the chunk */
    size_t head_read; /* towards HTTP1_HEAD_MAX */
};

/* What the reader tells, in the order of the bytes. An interim answer (1xx) tells only its status. */
struct http1_events {
    void (*status)(void *arg, int status);
    void (*header)(void *arg, struct slice line); /* "Name: value", without the line's end */
    bool (*body)(void *arg, struct slice bytes);  /* false: enough */
};

/* Begins a response. */
void http1_begin(struct http1 *h);
/* Reads what it can of `in`; *ret_used bytes need not come again, the rest must stand before what comes next.
 */
enum http1_result http1_read(struct http1 *h, struct slice in, const struct http1_events *events, void *arg,
                             size_t *ret_used);
/* The peer has closed: whether the response is complete by that. */
bool http1_ends_here(const struct http1 *h);
