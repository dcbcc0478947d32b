/* The socket the API listens on. */
#pragma once

#include "cli/config.h"

/* Binds and listens; writes "SCHEME://HOST:PORT" with the port the system chose when 0 was asked. A negative
 * errno of socket, bind or listen. */
int listener_open(const struct listen_address *a, const char *scheme, int *ret_fd, char *ret_url,
                  size_t url_size) MUST_USE;

/* Keeps deliveries away from the server itself: its address, and every interface's when it listens on all of
 * them. */
void listener_refuse_own(int fd, struct address_policy *p);
