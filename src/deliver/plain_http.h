/* HTTP/1.1 without TLS on the loop's epoll: one request at a time a connection, kept connections, the
 * deadline over all of it. What libcurl does for TLS, at a quarter of its cost. */
#pragma once

#include "deliver/transport.h"

struct plain_http;

int plain_http_new(const struct transport_options *o, struct plain_http **ret) MUST_USE;
/* Requests under way must have been cancelled. */
void plain_http_free(struct plain_http *p);

/* Addresses: 1 to RESOLVER_ADDRESSES_MAX, their ports are ignored; copied. 0, or a negative errno when
 * nothing was sent: r->error says why, and `ended` will not be called. */
int plain_http_send(struct plain_http *p, struct client_request *r, const struct sockaddr_storage *addresses,
                    size_t n) MUST_USE;
/* Drops a request under way; `ended` is not called. */
void plain_http_cancel(struct plain_http *p, struct client_request *r);
