#include "cli/listener.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <stdio.h>

#include "base/log.h"

enum { BACKLOG = 1024 };

static uint16_t port_of(const struct sockaddr_storage *a) {
    return ntohs(a->ss_family == AF_INET6 ? ((const struct sockaddr_in6 *)a)->sin6_port
                                          : ((const struct sockaddr_in *)a)->sin_port);
}

static void write_url(const struct sockaddr_storage *a, const char *scheme, char *out, size_t size) {
    char host[INET6_ADDRSTRLEN] = "";
    bool v6 = a->ss_family == AF_INET6;
    const void *address = v6 ? (const void *)&((const struct sockaddr_in6 *)a)->sin6_addr
                             : (const void *)&((const struct sockaddr_in *)a)->sin_addr;
    inet_ntop(a->ss_family, address, host, sizeof host);
    snprintf(out, size, v6 ? "%s://[%s]:%u" : "%s://%s:%u", scheme, host, port_of(a));
}

int listener_open(const struct listen_address *a, const char *scheme, int *ret_fd, char *ret_url,
                  size_t url_size) {
    _cleanup_close_ int fd = socket(a->address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int on = 1;
    struct sockaddr_storage bound;
    socklen_t size = sizeof bound;
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0 ||
        bind(fd, (const struct sockaddr *)&a->address, a->size) < 0 || listen(fd, BACKLOG) < 0 ||
        getsockname(fd, (struct sockaddr *)&bound, &size) < 0)
        return -errno;
    write_url(&bound, scheme, ret_url, url_size);
    *ret_fd = fd;
    fd = -1;
    return 0;
}

static void refuse(struct address_policy *p, const struct sockaddr *a) {
    if (address_policy_refuse_listener(p, a) == -ENOSPC)
        log_warn("this machine has more addresses than the guard keeps: deliveries to the server itself are "
                 "not all refused");
}

static void refuse_interfaces(struct address_policy *p, uint16_t port) {
    struct ifaddrs *all;
    if (getifaddrs(&all) < 0)
        return;
    for (struct ifaddrs *i = all; i; i = i->ifa_next) {
        struct sockaddr_storage a = {0};
        if (!i->ifa_addr || (i->ifa_addr->sa_family != AF_INET && i->ifa_addr->sa_family != AF_INET6))
            continue;
        if (i->ifa_addr->sa_family == AF_INET6) {
            memcpy(&a, i->ifa_addr, sizeof(struct sockaddr_in6));
            ((struct sockaddr_in6 *)&a)->sin6_port = htons(port);
        } else {
            memcpy(&a, i->ifa_addr, sizeof(struct sockaddr_in));
            ((struct sockaddr_in *)&a)->sin_port = htons(port);
        }
        refuse(p, (const struct sockaddr *)&a);
    }
    freeifaddrs(all);
}

void listener_refuse_own(int fd, struct address_policy *p) {
    struct sockaddr_storage bound = {0};
    socklen_t size = sizeof bound;
    if (getsockname(fd, (struct sockaddr *)&bound, &size) < 0)
        return;
    refuse(p, (const struct sockaddr *)&bound);
    struct in6_addr address;
    uint16_t port;
    if (address_of_sockaddr((const struct sockaddr *)&bound, &address, &port) < 0)
        return;
    static const struct in6_addr any4 = {.s6_addr = {[10] = 0xff, [11] = 0xff}};
    if (IN6_IS_ADDR_UNSPECIFIED(&address) || memcmp(&address, &any4, sizeof address) == 0)
        refuse_interfaces(p, port);
}
