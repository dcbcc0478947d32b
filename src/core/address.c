#include "core/address.h"

#include <arpa/inet.h>
#include <errno.h>

#define V4_BITS 96 /* the length of ::ffff:0:0/96 */

#define V4(a, b, c, d, n, reason)                                                                            \
    {                                                                                                        \
        {.s6_addr = {[10] = 0xff, [11] = 0xff, [12] = (a), [13] = (b), [14] = (c), [15] = (d)}},             \
            V4_BITS + (n), (reason)                                                                          \
    }
#define V6(n, reason, ...)                                                                                   \
    { {.s6_addr = {__VA_ARGS__}}, (n), (reason) }

/* The first that holds an address gives the reason. */
static const struct {
    struct in6_addr prefix;
    unsigned bits;
    const char *reason;
} special_ranges[] = {
    V4(0, 0, 0, 0, 8, "is an address of this network (0.0.0.0/8)"),
    V4(10, 0, 0, 0, 8, "is a private address (10.0.0.0/8)"),
    V4(100, 64, 0, 0, 10, "is a shared address of carrier NAT (100.64.0.0/10)"),
    V4(127, 0, 0, 0, 8, "is a loopback address (127.0.0.0/8)"),
    V4(168, 63, 129, 16, 32, "is a cloud metadata address (168.63.129.16, of Azure's hosts)"),
    V4(169, 254, 169, 254, 32, "is a cloud metadata address (169.254.169.254)"),
    V4(169, 254, 0, 0, 16, "is a link-local address (169.254.0.0/16)"),
    V4(172, 16, 0, 0, 12, "is a private address (172.16.0.0/12)"),
    V4(192, 0, 0, 0, 24, "is an address of IETF protocols (192.0.0.0/24)"),
    V4(192, 0, 2, 0, 24, "is a documentation address (192.0.2.0/24)"),
    V4(192, 31, 196, 0, 24, "is an AS112 address (192.31.196.0/24)"),
    V4(192, 52, 193, 0, 24, "is an AMT relay address (192.52.193.0/24)"),
    V4(192, 88, 99, 0, 24, "is a 6to4 relay address (192.88.99.0/24)"),
    V4(192, 168, 0, 0, 16, "is a private address (192.168.0.0/16)"),
    V4(192, 175, 48, 0, 24, "is an AS112 address (192.175.48.0/24)"),
    V4(198, 18, 0, 0, 15, "is a benchmarking address (198.18.0.0/15)"),
    V4(198, 51, 100, 0, 24, "is a documentation address (198.51.100.0/24)"),
    V4(203, 0, 113, 0, 24, "is a documentation address (203.0.113.0/24)"),
    V4(224, 0, 0, 0, 4, "is a multicast address (224.0.0.0/4)"),
    V4(255, 255, 255, 255, 32, "is the broadcast address (255.255.255.255)"),
    V4(240, 0, 0, 0, 4, "is a reserved address (240.0.0.0/4)"),
    V6(128, "is the unspecified address (::)", 0),
    V6(128, "is the loopback address (::1)", [15] = 1),
    V6(96, "is an IPv4-compatible address (::/96)", 0),
    V6(96, "is a NAT64 address (64:ff9b::/96)", 0x00, 0x64, 0xff, 0x9b),
    V6(48, "is a NAT64 address (64:ff9b:1::/48)", 0x00, 0x64, 0xff, 0x9b, 0x00, 0x01),
    V6(64, "is a discard-only address (100::/64)", 0x01, 0x00),
    V6(32, "is a Teredo address (2001::/32)", 0x20, 0x01, 0x00, 0x00),
    V6(48, "is a benchmarking address (2001:2::/48)", 0x20, 0x01, 0x00, 0x02),
    V6(28, "is an ORCHID address (2001:10::/28)", 0x20, 0x01, 0x00, 0x10),
    V6(28, "is an ORCHID address (2001:20::/28)", 0x20, 0x01, 0x00, 0x20),
    V6(23, "is an address of IETF protocols (2001::/23)", 0x20, 0x01, 0x00),
    V6(32, "is a documentation address (2001:db8::/32)", 0x20, 0x01, 0x0d, 0xb8),
    V6(16, "is a 6to4 address (2002::/16)", 0x20, 0x02),
    V6(48, "is an AS112 address (2620:4f:8000::/48)", 0x26, 0x20, 0x00, 0x4f, 0x80, 0x00),
    V6(20, "is a documentation address (3fff::/20)", 0x3f, 0xff, 0x00),
    V6(16, "is a segment routing address (5f00::/16)", 0x5f, 0x00),
    V6(7, "is a unique local address (fc00::/7)", 0xfc),
    V6(10, "is a link-local address (fe80::/10)", 0xfe, 0x80),
    V6(10, "is a site-local address (fec0::/10)", 0xfe, 0xc0),
    V6(8, "is a multicast address (ff00::/8)", 0xff),
};

static const struct address_cidr global_unicast = {{.s6_addr = {0x20}}, 3};
static const struct address_cidr loopback_v4 = {{.s6_addr = {[10] = 0xff, [11] = 0xff, [12] = 127}},
                                                V4_BITS + 8};

/* Where an IPv6 address carries IPv4 ones: RFC 4291 (compatible), 2765 (::ffff:0:0:0/96), 6052 and 8215
 * (NAT64; of the local-use prefix the /96 form), 3056 (6to4), 4380 (Teredo: its server, and its client with
 * all bits flipped). */
static const struct {
    struct in6_addr prefix;
    unsigned bits;
    unsigned at;   /* first byte of the IPv4 address */
    uint8_t flips; /* xor of each byte */
} wrappers[] = {
    {{.s6_addr = {0}}, 96, 12, 0},
    {{.s6_addr = {[8] = 0xff, [9] = 0xff}}, 96, 12, 0},
    {{.s6_addr = {0x00, 0x64, 0xff, 0x9b}}, 96, 12, 0},
    {{.s6_addr = {0x00, 0x64, 0xff, 0x9b, 0x00, 0x01}}, 48, 12, 0},
    {{.s6_addr = {0x20, 0x02}}, 16, 2, 0},
    {{.s6_addr = {0x20, 0x01}}, 32, 4, 0},
    {{.s6_addr = {0x20, 0x01}}, 32, 12, 0xff},
};

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static bool holds(const struct in6_addr *prefix, unsigned bits, const struct in6_addr *a) {
    unsigned whole = bits / 8, rest = bits % 8;
    if (memcmp(prefix, a, whole) != 0)
        return false;
    return rest == 0 || (prefix->s6_addr[whole] ^ a->s6_addr[whole]) >> (8 - rest) == 0;
}

static struct in6_addr mapped(const uint8_t v4[4]) {
    struct in6_addr a = {.s6_addr = {[10] = 0xff, [11] = 0xff}};
    memcpy(&a.s6_addr[12], v4, 4);
    return a;
}

static struct in6_addr v4_of(uint32_t address) {
    uint32_t in_network_order = htonl(address);
    uint8_t bytes[4];
    memcpy(bytes, &in_network_order, sizeof bytes);
    return mapped(bytes);
}

int address_of_sockaddr(const struct sockaddr *sa, struct in6_addr *ret_address, uint16_t *ret_port) {
    if (sa->sa_family == AF_INET) {
        struct sockaddr_in in;
        memcpy(&in, sa, sizeof in);
        *ret_address = v4_of(ntohl(in.sin_addr.s_addr));
        *ret_port = ntohs(in.sin_port);
        return 0;
    }
    if (sa->sa_family == AF_INET6) {
        struct sockaddr_in6 in6;
        memcpy(&in6, sa, sizeof in6);
        *ret_address = in6.sin6_addr;
        *ret_port = ntohs(in6.sin6_port);
        return 0;
    }
    return -EAFNOSUPPORT;
}

/* Decimal of 1 to 5 digits without a leading zero (0 itself passes), at most max. */
static bool parse_decimal(struct slice s, unsigned max, unsigned *ret) {
    unsigned value = 0;
    if (s.n == 0 || s.n > 5 || (s.n > 1 && s.p[0] == '0'))
        return false;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] < '0' || s.p[i] > '9')
            return false;
        value = value * 10 + (unsigned)(s.p[i] - '0');
    }
    if (value > max)
        return false;
    *ret = value;
    return true;
}

/* Cuts s at the first c; the second half is absent when there is none. */
static struct slice cut(struct slice *s, char c) {
    const char *at = s->n ? memchr(s->p, c, s->n) : NULL;
    if (!at)
        return SLICE_NONE;
    struct slice after = {at + 1, s->n - (size_t)(at + 1 - s->p)};
    s->n = (size_t)(at - s->p);
    return after;
}

int address_policy_allow_cidr(struct address_policy *p, struct slice text) {
    struct address_cidr cidr;
    char spelled[INET6_ADDRSTRLEN];
    uint8_t v4[4];
    struct slice length = cut(&text, '/');
    if (text.n == 0 || text.n >= sizeof spelled || memchr(text.p, '\0', text.n))
        return -EINVAL;
    memcpy(spelled, text.p, text.n);
    spelled[text.n] = '\0';
    unsigned skipped = 0;
    if (inet_pton(AF_INET, spelled, v4) == 1) {
        cidr.prefix = mapped(v4);
        skipped = V4_BITS;
    } else if (inet_pton(AF_INET6, spelled, &cidr.prefix) != 1) {
        return -EINVAL;
    }
    unsigned bits = 128 - skipped;
    if (length.p && !parse_decimal(length, bits, &bits))
        return -EINVAL;
    if (p->cidr_count == ADDRESS_CIDRS_MAX)
        return -ENOSPC;
    cidr.bits = skipped + bits;
    p->cidrs[p->cidr_count++] = cidr;
    return 0;
}

int address_policy_allow_port(struct address_policy *p, struct slice text) {
    unsigned first, last;
    struct slice after = cut(&text, '-');
    if (!parse_decimal(text, UINT16_MAX, &first) || first == 0)
        return -EINVAL;
    last = first;
    if (after.p && (!parse_decimal(after, UINT16_MAX, &last) || last < first))
        return -EINVAL;
    if (p->port_count == ADDRESS_PORTS_MAX)
        return -ENOSPC;
    p->ports[p->port_count++] = (struct address_port_range){(uint16_t)first, (uint16_t)last};
    return 0;
}

int address_policy_refuse_listener(struct address_policy *p, const struct sockaddr *listener) {
    struct address_listener l;
    if (address_of_sockaddr(listener, &l.address, &l.port) < 0 || l.port == 0)
        return -EINVAL;
    if (p->listener_count == ADDRESS_LISTENERS_MAX)
        return -ENOSPC;
    p->listeners[p->listener_count++] = l;
    return 0;
}

static bool allowed_by_cidr(const struct address_policy *p, const struct in6_addr *a) {
    for (size_t i = 0; i < p->cidr_count; i++) {
        const struct address_cidr *c = &p->cidrs[i];
        /* ::/0 says "any IPv6"; that it holds the mapped form of every IPv4 address is an accident. */
        if (IN6_IS_ADDR_V4MAPPED(a) && c->bits < V4_BITS)
            continue;
        if (holds(&c->prefix, c->bits, a))
            return true;
    }
    return false;
}

static const char *special_reason(const struct in6_addr *a) {
    for (size_t i = 0; i < COUNT(special_ranges); i++) {
        if (holds(&special_ranges[i].prefix, special_ranges[i].bits, a))
            return special_ranges[i].reason;
    }
    if (!IN6_IS_ADDR_V4MAPPED(a) && !holds(&global_unicast.prefix, global_unicast.bits, a))
        return "is outside the global unicast addresses (2000::/3)";
    return NULL;
}

/* The reason why the IPv4 address within an allowed wrapper is refused, or NULL. */
static const char *wrapped_reason(const struct address_policy *p, const struct in6_addr *a) {
    if (IN6_IS_ADDR_UNSPECIFIED(a) || IN6_IS_ADDR_LOOPBACK(a))
        return NULL;
    for (size_t i = 0; i < COUNT(wrappers); i++) {
        if (!holds(&wrappers[i].prefix, wrappers[i].bits, a))
            continue;
        uint8_t bytes[4];
        for (unsigned j = 0; j < sizeof bytes; j++)
            bytes[j] = a->s6_addr[wrappers[i].at + j] ^ wrappers[i].flips;
        struct in6_addr v4 = mapped(bytes);
        if (special_reason(&v4) && !allowed_by_cidr(p, &v4))
            return "wraps an IPv4 address that is not public";
    }
    return NULL;
}

static int refuse(const char *reason, const char **ret_reason) {
    if (!reason)
        return 0;
    *ret_reason = reason;
    return -EPERM;
}

int address_judge(const struct address_policy *p, const struct in6_addr *address, const char **ret_reason) {
    if (allowed_by_cidr(p, address))
        return refuse(wrapped_reason(p, address), ret_reason);
    return refuse(special_reason(address), ret_reason);
}

static int judge_port(const struct address_policy *p, uint16_t port, const char **ret_reason) {
    if (port == 80 || port == 443)
        return 0;
    for (size_t i = 0; i < p->port_count; i++) {
        if (port >= p->ports[i].first && port <= p->ports[i].last)
            return 0;
    }
    return refuse("must use port 80, 443 or one that the operator allows", ret_reason);
}

static bool is_unspecified(const struct in6_addr *a) {
    static const struct in6_addr any_v4 = {.s6_addr = {[10] = 0xff, [11] = 0xff}};
    return IN6_IS_ADDR_UNSPECIFIED(a) || IN6_ARE_ADDR_EQUAL(a, &any_v4);
}

static bool is_loopback(const struct in6_addr *a) {
    return IN6_IS_ADDR_LOOPBACK(a) || holds(&loopback_v4.prefix, loopback_v4.bits, a);
}

static int judge_listener(const struct address_policy *p, const struct in6_addr *a, uint16_t port,
                          const char **ret_reason) {
    for (size_t i = 0; i < p->listener_count; i++) {
        const struct address_listener *l = &p->listeners[i];
        if (l->port != port)
            continue;
        /* Connecting to 0.0.0.0 or :: reaches this host. */
        if (IN6_ARE_ADDR_EQUAL(a, &l->address) || is_unspecified(a) ||
            (is_unspecified(&l->address) && is_loopback(a)))
            return refuse("is this server's own listener", ret_reason);
    }
    return 0;
}

static int judge_address_and_port(const struct address_policy *p, const struct in6_addr *a, uint16_t port,
                                  const char **ret_reason) {
    int r = judge_listener(p, a, port, ret_reason);
    if (r == 0)
        r = judge_port(p, port, ret_reason);
    return r < 0 ? r : address_judge(p, a, ret_reason);
}

int address_judge_endpoint(const struct address_policy *p, const struct sockaddr *endpoint,
                           const char **ret_reason) {
    struct in6_addr a;
    uint16_t port;
    if (address_of_sockaddr(endpoint, &a, &port) < 0)
        return refuse("is neither an IPv4 nor an IPv6 address", ret_reason);
    return judge_address_and_port(p, &a, port, ret_reason);
}

int address_judge_resolved(const struct address_policy *p, const struct sockaddr_storage *addresses, size_t n,
                           uint16_t port, const char **ret_reason) {
    if (n == 0)
        return refuse("has no address", ret_reason);
    for (size_t i = 0; i < n; i++) {
        struct in6_addr a;
        uint16_t ignored;
        if (address_of_sockaddr((const struct sockaddr *)&addresses[i], &a, &ignored) < 0)
            return refuse("is neither an IPv4 nor an IPv6 address", ret_reason);
        int r = judge_address_and_port(p, &a, port, ret_reason);
        if (r < 0)
            return r;
    }
    return 0;
}

/* The name is `domain`, or (when domain begins with a dot) lies below it or is it without the dot. */
static bool name_matches(struct slice name, struct slice domain) {
    if (domain.p[0] != '.')
        return slice_eq(name, domain);
    if (slice_eq(name, (struct slice){domain.p + 1, domain.n - 1}))
        return true;
    return name.n > domain.n && slice_eq((struct slice){name.p + name.n - domain.n, domain.n}, domain);
}

static bool name_in(struct slice name, const struct slice *domains, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (name_matches(name, domains[i]))
            return true;
    }
    return false;
}

#define D(s)                                                                                                 \
    { (s), sizeof(s) - 1 }

/* RFC 6761, and what hosts files of common distributions call the host itself. */
static const struct slice loopback_names[] = {D(".localhost"),    D(".localhost.localdomain"),
                                              D("localhost4"),    D("localhost6"),
                                              D("ip6-localhost"), D("ip6-loopback")};
static const struct slice metadata_names[] = {D("metadata"), D(".metadata.google.internal"),
                                              D(".metadata.goog"), D("instance-data"),
                                              D("instance-data.ec2.internal")};
/* RFC 6762 (local, and the private top-level names of its appendix G), RFC 8375 (home.arpa), ICANN
 * (internal). */
static const struct slice private_names[] = {D(".local"),    D(".localdomain"), D(".internal"),
                                             D(".intranet"), D(".private"),     D(".corp"),
                                             D(".home"),     D(".lan"),         D(".home.arpa")};

static bool allows_beyond_loopback(const struct address_policy *p) {
    for (size_t i = 0; i < p->cidr_count; i++) {
        const struct address_cidr *c = &p->cidrs[i];
        bool within_v4 =
            c->bits >= loopback_v4.bits && holds(&loopback_v4.prefix, loopback_v4.bits, &c->prefix);
        bool within_v6 = c->bits == 128 && IN6_IS_ADDR_LOOPBACK(&c->prefix);
        if (!within_v4 && !within_v6)
            return true;
    }
    return false;
}

static const char *name_reason(const struct address_policy *p, struct slice name) {
    struct in6_addr loopback = v4_of(INADDR_LOOPBACK), metadata = v4_of(0xa9fea9feU);
    if (name_in(name, loopback_names, COUNT(loopback_names)))
        return allowed_by_cidr(p, &loopback) || allowed_by_cidr(p, &in6addr_loopback)
                   ? NULL
                   : "must not name the server's own host (localhost)";
    if (name_in(name, metadata_names, COUNT(metadata_names)))
        return allowed_by_cidr(p, &metadata) ? NULL : "must not name a cloud metadata service";
    if (name_in(name, private_names, COUNT(private_names)))
        return allows_beyond_loopback(p) ? NULL : "must not name a host of a private network";
    return NULL;
}

int address_judge_url(const struct address_policy *p, bool allow_http, const struct url *u,
                      const char **ret_reason) {
    if (u->scheme != URL_HTTPS && !allow_http)
        return refuse("must use https", ret_reason);
    if (u->is_literal)
        return judge_address_and_port(p, &u->address, u->port, ret_reason);
    int r = judge_port(p, u->port, ret_reason);
    return r < 0 ? r : refuse(name_reason(p, u->host), ret_reason);
}
