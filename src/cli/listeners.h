/* The sockets of the API and what they are served with: the one for producers, the control plane's own, TLS.
 */
#pragma once

#include "cli/certificate.h"
#include "core/address.h"

struct listeners {
    struct tls *tls;     /* NULL: plain HTTP */
    int fd, admin_fd;    /* -1: not open, or the API's by now */
    char url[128];       /* "https://HOST:PORT" */
    char admin_url[128]; /* where the control plane answers: url, unless it is served apart */
};

/* Reads the certificate and opens what the settings name; deliveries to them are refused in `addresses`. What
 * went wrong is logged; then, too, listeners_free. */
int listeners_open(const struct config *c, struct address_policy *addresses, struct listeners *ret) MUST_USE;
/* Once the API has descriptors of its own. */
void listeners_close(struct listeners *l);
/* After the last handshake. */
void listeners_free(struct listeners *l);
