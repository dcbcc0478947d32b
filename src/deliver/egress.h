/* How requests leave this machine: what the guard lets through, from which address, through which proxy, and
 * whose certificates are trusted. Settings of the server, the same for every attempt. */
#pragma once

#include <sys/socket.h>

#include "core/address.h"
#include "deliver/resolver.h"

struct egress {
    const struct address_policy *addresses;
    struct sockaddr_storage source; /* AF_UNSPEC: the system chooses */
    const char *proxy;              /* "http://[USER:PASSWORD@]HOST:PORT", asked to CONNECT; NULL: none */
    const char *ca_file;            /* PEM, trusted in place of the system's; NULL: the system's */
    const char *name_servers;       /* "IP:PORT,…"; NULL: those of resolv.conf */
};

/* A socket that may connect to `target`, bound to the source address, not yet connected; `flags` as of
 * socket(2) beside SOCK_CLOEXEC. -EPERM: the guard refuses it, *ret_reason says why; -EAFNOSUPPORT: the
 * source address is of the other family; else of socket or bind. */
int egress_socket(const struct egress *e, const struct sockaddr *target, int flags,
                  const char **ret_reason) MUST_USE;

/* The same without the guard, for the proxy. */
int egress_socket_to_proxy(const struct egress *e, const struct sockaddr *target, int flags) MUST_USE;
