/* The address guard's judgement: which schemes, ports, names and addresses a request may go to. Pure; the
 * caller looks names up and asks again for every address, and once more where the socket is opened.
 * Ranges: the IANA IPv4 and IPv6 Special-Purpose Address Registries, multicast, reserved space, every IPv6
 * address outside 2000::/3, and the one public address that a cloud's host answers its guests at. IPv4
 * addresses travel as IPv4-mapped IPv6 (::ffff:a.b.c.d). */
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include "base/bytes.h"
#include "core/url.h"

#define ADDRESS_CIDRS_MAX     64
#define ADDRESS_PORTS_MAX     64
#define ADDRESS_LISTENERS_MAX 64

struct address_cidr {
    struct in6_addr prefix;
    unsigned bits; /* of 128 */
};

struct address_port_range {
    uint16_t first, last;
};

struct address_listener {
    struct in6_addr address;
    uint16_t port;
};

/* Zero-initialised: public addresses on ports 80 and 443. Grow it with the functions below, then only read.
 */
struct address_policy {
    struct address_cidr cidrs[ADDRESS_CIDRS_MAX];
    size_t cidr_count;
    struct address_port_range ports[ADDRESS_PORTS_MAX];
    size_t port_count;
    struct address_listener listeners[ADDRESS_LISTENERS_MAX];
    size_t listener_count;
};

/* The three below: -EINVAL for a malformed text, -ENOSPC when the list is full. */

/* "10.0.0.0/8", "fd00::/8", or one address; bits after the prefix are ignored. An IPv4 range holds the mapped
 * addresses too; an IPv6 range shorter than ::ffff:0:0/96 holds no IPv4 address. A range within NAT64, 6to4,
 * Teredo or ::/96 opens the wrapper alone: the IPv4 address within is judged as well. */
int address_policy_allow_cidr(struct address_policy *p, struct slice text) MUST_USE;
/* "8443" or "8000-8999", 1 to 65535. */
int address_policy_allow_port(struct address_policy *p, struct slice text) MUST_USE;
/* An address and port the server itself listens on: always refused. An unspecified address (0.0.0.0, ::)
 * stands for the loopback ones too; for the other interfaces the caller adds each address. */
int address_policy_refuse_listener(struct address_policy *p, const struct sockaddr *listener) MUST_USE;

/* The judges: 0, or -EPERM and *ret_reason, a static text that reads on after "url" or the address ("must use
 * https", "is a private address (10.0.0.0/8)"). */

/* An address alone. */
int address_judge(const struct address_policy *p, const struct in6_addr *address,
                  const char **ret_reason) MUST_USE;
/* An address and port that a socket is about to connect to (AF_INET or AF_INET6; others are refused). */
int address_judge_endpoint(const struct address_policy *p, const struct sockaddr *endpoint,
                           const char **ret_reason) MUST_USE;
/* What a name resolved to (the ports within are ignored): refused when any address is, or when n is 0. */
int address_judge_resolved(const struct address_policy *p, const struct sockaddr_storage *addresses, size_t n,
                           uint16_t port, const char **ret_reason) MUST_USE;
/* What a URL says without a look-up: scheme, port, spelling of the name, literal address. Names that mean
 * this host (localhost) pass only when loopback is allowed, names of private networks (.local, .internal, …)
 * only when a range beyond loopback is, those of cloud metadata only when 169.254.169.254 is. */
int address_judge_url(const struct address_policy *p, bool allow_http, const struct url *u,
                      const char **ret_reason) MUST_USE;

/* -EAFNOSUPPORT for anything but AF_INET and AF_INET6. */
int address_of_sockaddr(const struct sockaddr *sa, struct in6_addr *ret_address, uint16_t *ret_port) MUST_USE;
