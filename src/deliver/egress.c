#include "deliver/egress.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <unistd.h>

int egress_socket_to_proxy(const struct egress *e, const struct sockaddr *target, int flags) {
    int fd = socket(target->sa_family, SOCK_STREAM | SOCK_CLOEXEC | flags, IPPROTO_TCP), one = 1;
    if (fd < 0)
        return -errno;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (e->source.ss_family == AF_UNSPEC)
        return fd;
    /* The port is chosen at connect: one address then serves many receivers. */
    (void)setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    socklen_t n = e->source.ss_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
    int r = e->source.ss_family != target->sa_family               ? -EAFNOSUPPORT
            : bind(fd, (const struct sockaddr *)&e->source, n) < 0 ? -errno
                                                                   : 0;
    if (r == 0)
        return fd;
    close(fd);
    return r;
}

int egress_socket(const struct egress *e, const struct sockaddr *target, int flags, const char **ret_reason) {
    /* The last word: whatever was resolved, whoever resolved it, this is where the bytes would go. */
    if (address_judge_endpoint(e->addresses, target, ret_reason) < 0)
        return -EPERM;
    return egress_socket_to_proxy(e, target, flags);
}
