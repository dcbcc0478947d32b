/* One listening socket of the API: libmicrohttpd with epoll threads, plain or with TLS. */
#pragma once

#include <microhttpd.h>

#include "api/connections.h"

struct http_listener;

/* The calls that libmicrohttpd makes; `arg` is their first argument. */
struct http_handlers {
    void *(*uri)(void *arg, const char *uri, struct MHD_Connection *connection);
    MHD_AccessHandlerCallback request;
    MHD_RequestCompletedCallback completed;
    void *arg;
};

struct http_listener_options {
    int fd; /* bound and listening; it takes a descriptor of its own */
    unsigned threads;
    unsigned connections_max, connections_per_client_max; /* 0: as many as connections_max */
    size_t head_bytes_max;
    unsigned idle_seconds;
    bool tls; /* with what tls.h has loaded */
    struct connections *connections;
    struct http_handlers handlers;
};

int http_listener_start(const struct http_listener_options *o, struct http_listener **ret) MUST_USE;
/* No new connections; those that are open go on. */
void http_listener_quiesce(struct http_listener *l);
void http_listener_stop(struct http_listener *l); /* NULL-safe */

/* The watch over a request's connection. */
struct connection_watch *http_connection_watch(struct MHD_Connection *connection);
