/* Requests to the server, one at a time, over a kept connection. */
#pragma once

#include "base/bytes.h"

enum {
    HTTP_CONNECT_LIMIT_MS = 10000,
    HTTP_SILENCE_LIMIT_SECONDS = 60, /* without a byte either way */
    HTTP_ANSWER_MAX = 512 << 20,     /* bytes; a page of 250 events may be long */
};

struct http;

struct http_request {
    const char *method, *path; /* path begins with "/" and is escaped, with its query */
    const char *content_type;  /* NULL: there is no body */
    struct slice body;
    const char *headers; /* "name: value\n" lines beside; NULL: none */
};

/* Zero-initialise it; release it with http_answer_free. */
struct http_answer {
    long status;
    struct buf body;
    int64_t retry_after_seconds; /* 0: none */
};

/* `url` is http://HOST[:PORT] or https://…, key NULL: none is sent, ca a file of certificates or NULL. NULL
 * when memory is out. The texts are borrowed. */
struct http *http_new(const char *url, const char *key, const char *ca);
void http_free(struct http *h);
/* -EHOSTUNREACH: there was no answer; http_problem says why. -ECANCELED: interrupted. */
int http_ask(struct http *h, const struct http_request *request, struct http_answer *ret) MUST_USE;
const char *http_problem(const struct http *h);
/* As they were given. */
const char *http_url(const struct http *h);
const char *http_key(const struct http *h);
void http_answer_free(struct http_answer *a);

DEFINE_CLEANUP(cleanup_http, struct http, http_free)
#define _cleanup_answer_ _cleanup_(http_answer_free)
