/* Requests through libcurl's multi interface on the loop's epoll: TLS and HTTP/2. libcurl looks nothing up,
 * follows nothing and uses no proxy variables. */
#pragma once

#include "deliver/transport.h"

struct curl_http;

int curl_http_new(const struct transport_options *o, struct curl_http **ret) MUST_USE;
/* Requests under way must have been cancelled. */
void curl_http_free(struct curl_http *c);

/* Addresses: 1 to RESOLVER_ADDRESSES_MAX, their ports are ignored; copied. 0, or a negative errno when
 * nothing was sent: r->error says why, and `ended` will not be called. */
int curl_http_send(struct curl_http *c, struct client_request *r, const struct sockaddr_storage *addresses,
                   size_t n) MUST_USE;
/* Drops a request under way; `ended` is not called. */
void curl_http_cancel(struct curl_http *c, struct client_request *r);
