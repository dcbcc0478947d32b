/* The delivery HTTP client of one loop. Names are looked up by the resolver, every address is judged before a
 * connection and once more where the socket is opened, redirects and proxies are off. Plain http goes over a
 * transport of our own, everything with TLS through libcurl. */
#pragma once

#include "base/loop.h"
#include "core/delivery.h"
#include "core/tls_material.h"
#include "deliver/egress.h"
#include "deliver/resolver.h"

struct client;

enum {
    CLIENT_BODY_KEPT_MAX = 4096,     /* bytes of the response that are kept */
    CLIENT_BODY_READ_MAX = 65536,    /* bytes that are read */
    CLIENT_HEADERS_KEPT_MAX = 8192,  /* bytes of response headers that are kept */
    CLIENT_HEADERS_READ_MAX = 65536, /* then the answer is cut off */
};

struct client_options {
    const struct egress *egress; /* outlives the client */
    unsigned connections_kept;   /* idle connections kept for reuse */
};

int client_new(struct loop *l, const struct client_options *o, struct client **ret) MUST_USE;
/* Requests under way are dropped without done. */
void client_free(struct client *c);

/* One POST, embedded by the caller, zero-initialised. */
struct client_request {
    /* in: all borrowed until done */
    const struct url *url;
    bool allow_http;
    const struct tls_material *tls; /* or NULL */
    struct slice header_lines;      /* "Name: value\r\n…", without host and content-length */
    struct slice body;
    uint32_t timeout_ms; /* from now to the final status line, and the end of reading */
    void (*done)(struct client_request *r);

    /* out, valid in done and until client_request_clear */
    int status; /* of the final status line, 0 when none came in time */
    enum attempt_error error;
    const char *error_detail; /* static text or NULL, for the log */
    int64_t latency_us, dns_us, connect_us, tls_us, wait_us;
    struct slice retry_after; /* absent when there was none; points into headers */
    struct buf headers;       /* "Name: value\r\n…" of the final response */
    struct buf body_kept;
    bool has_hash;
    uint8_t body_hash[32]; /* SHA-256 of what was read of the body */

    /* private */
    struct client *client;
    struct resolver_query query;
    void *transfer; /* the transport's, while it has the request */
    struct evp_md_ctx_st *hash;
    int64_t started_us;
    size_t body_read;
    struct client_request *prev, *next;
};

/* done is called once, always later, from the loop. */
void client_send(struct client *c, struct client_request *r);
/* Ends a request that is not to be sent, with this error: done is called later, from the loop. */
void client_fail(struct client *c, struct client_request *r, enum attempt_error error);
void client_request_clear(struct client_request *r);
