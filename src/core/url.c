#include "core/url.h"

#include <arpa/inet.h>
#include <errno.h>

#define LABEL_MAX 63

static const struct {
    struct slice prefix;
    uint16_t port;
} schemes[] = {
    [URL_HTTP] = {{"http://", 7}, 80},
    [URL_HTTPS] = {{"https://", 8}, 443},
};

/* The host as the URL spells it, on its way to the canonical one. */
struct host {
    char text[INET6_ADDRSTRLEN > URL_HOST_MAX + 1 ? INET6_ADDRSTRLEN : URL_HOST_MAX + 1];
    size_t n;
    bool is_literal;
    struct in6_addr address;
};

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

static bool is_hex(char c) {
    return is_digit(c) || (c >= 'a' && c <= 'f');
}

static char lower(char c) {
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

static struct slice slice_from(struct slice s, size_t at) {
    return (struct slice){s.p + at, s.n - at};
}

static const char *characters_refused(struct slice s) {
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (c < 0x20 || c == 0x7f)
            return "must not contain control characters";
        if (c == ' ')
            return "must not contain spaces";
        if (c == '\\')
            return "must not contain backslashes";
        if (c >= 0x80)
            return "must be ASCII: punycode for the host, percent-encoding for the path";
        if (c == '#')
            return "must not contain a fragment";
    }
    return NULL;
}

static const char *parse_scheme(struct slice *s, enum url_scheme *ret) {
    for (unsigned i = 0; i < sizeof schemes / sizeof schemes[0]; i++) {
        struct slice prefix = schemes[i].prefix;
        if (s->n >= prefix.n && slice_eq_nocase((struct slice){s->p, prefix.n}, prefix)) {
            *s = slice_from(*s, prefix.n);
            *ret = (enum url_scheme)i;
            return NULL;
        }
    }
    return "must begin with https:// or http://";
}

static const char *parse_port(struct slice s, uint16_t *ret) {
    static const char refused[] = "must have a port between 1 and 65535";
    unsigned port = 0;
    /* A leading zero would be octal to some readers. */
    if (s.n == 0 || s.n > 5 || s.p[0] == '0')
        return refused;
    for (size_t i = 0; i < s.n; i++) {
        if (!is_digit(s.p[i]))
            return refused;
        port = port * 10 + (unsigned)(s.p[i] - '0');
    }
    if (port > UINT16_MAX)
        return refused;
    *ret = (uint16_t)port;
    return NULL;
}

/* Splits host[:port]; *ret_port stays when there is none. */
static const char *split_authority(struct slice s, struct slice *ret_host, bool *ret_bracketed,
                                   uint16_t *ret_port) {
    if (s.n && memchr(s.p, '@', s.n))
        return "must not contain user information";
    size_t end;
    *ret_bracketed = s.n && s.p[0] == '[';
    if (*ret_bracketed) {
        const char *close_at = memchr(s.p, ']', s.n);
        if (!close_at)
            return "must close the bracket of an IPv6 address";
        end = (size_t)(close_at - s.p) + 1;
        *ret_host = (struct slice){s.p + 1, end - 2};
    } else {
        const char *colon = s.n ? memchr(s.p, ':', s.n) : NULL;
        end = colon ? (size_t)(colon - s.p) : s.n;
        *ret_host = (struct slice){s.p, end};
    }
    if (end == s.n)
        return NULL;
    if (s.p[end] != ':')
        return "must not have anything but a port after the host";
    return parse_port(slice_from(s, end + 1), ret_port);
}

/* One part of an IPv4 address: 0x hex, 0 octal, or decimal; false when it is none or above 32 bits. */
static bool parse_ipv4_part(struct slice s, uint64_t *ret) {
    unsigned base = 10;
    if (s.n >= 2 && s.p[0] == '0' && s.p[1] == 'x') {
        base = 16;
        s = slice_from(s, 2);
    } else if (s.n >= 2 && s.p[0] == '0') {
        base = 8;
        s = slice_from(s, 1);
    }
    uint64_t value = 0;
    for (size_t i = 0; i < s.n; i++) {
        if (!is_hex(s.p[i]))
            return false;
        unsigned digit = (unsigned)(is_digit(s.p[i]) ? s.p[i] - '0' : s.p[i] - 'a' + 10);
        value = value * base + digit;
        if (digit >= base || value > UINT32_MAX)
            return false;
    }
    *ret = value;
    return s.n > 0;
}

/* As inet_aton(3): the last part fills all bytes that the others leave. */
static bool parse_ipv4(struct slice s, uint32_t *ret) {
    uint32_t address = 0;
    for (unsigned parts = 0; parts < 4; parts++) {
        const char *dot = s.n ? memchr(s.p, '.', s.n) : NULL;
        struct slice part = {s.p, dot ? (size_t)(dot - s.p) : s.n};
        uint64_t value;
        if (!parse_ipv4_part(part, &value))
            return false;
        if (!dot) {
            if (value > UINT32_MAX >> (8 * parts))
                return false;
            *ret = address | (uint32_t)value;
            return true;
        }
        if (value > UINT8_MAX)
            return false;
        address |= (uint32_t)value << (24 - 8 * parts);
        s = slice_from(s, part.n + 1);
    }
    return false;
}

/* A label that some resolver would read as a number makes the whole host an address (WHATWG URL, "ends in a
 * number"). */
static bool ends_in_number(struct slice s) {
    const char *dot = s.n ? memrchr(s.p, '.', s.n) : NULL;
    struct slice last = dot ? slice_from(s, (size_t)(dot + 1 - s.p)) : s;
    bool digits = last.n > 0, hex = last.n >= 2 && last.p[0] == '0' && last.p[1] == 'x';
    for (size_t i = 0; i < last.n; i++) {
        digits = digits && is_digit(last.p[i]);
        hex = hex && (i == 1 || is_hex(last.p[i]));
    }
    return digits || hex;
}

static void host_set_ipv4(struct host *h, uint32_t address) {
    uint32_t in_network_order = htonl(address);
    h->is_literal = true;
    h->address = (struct in6_addr)IN6ADDR_ANY_INIT;
    h->address.s6_addr[10] = h->address.s6_addr[11] = 0xff;
    memcpy(&h->address.s6_addr[12], &in_network_order, sizeof in_network_order);
    CHECK(inet_ntop(AF_INET, &in_network_order, h->text, sizeof h->text));
    h->n = strlen(h->text);
}

static const char *parse_ipv6(struct slice s, struct host *h) {
    char text[INET6_ADDRSTRLEN];
    if (s.n && memchr(s.p, '%', s.n))
        return "must not contain an IPv6 zone id";
    if (s.n >= sizeof text)
        return "must hold a valid IPv6 address in the brackets";
    memcpy(text, s.p, s.n);
    text[s.n] = '\0';
    if (inet_pton(AF_INET6, text, &h->address) != 1)
        return "must hold a valid IPv6 address in the brackets";
    if (IN6_IS_ADDR_V4MAPPED(&h->address)) {
        uint32_t in_network_order;
        memcpy(&in_network_order, &h->address.s6_addr[12], sizeof in_network_order);
        host_set_ipv4(h, ntohl(in_network_order));
        return NULL;
    }
    h->is_literal = true;
    CHECK(inet_ntop(AF_INET6, &h->address, h->text, sizeof h->text));
    h->n = strlen(h->text);
    return NULL;
}

/* Lower-cases a name into h and looks at its labels; one trailing dot (the root) is dropped. */
static const char *parse_labels(struct slice s, struct host *h) {
    if (s.n && s.p[s.n - 1] == '.')
        s.n--;
    if (s.n == 0)
        return "must have a host";
    if (s.n > URL_HOST_MAX)
        return "must have a host of at most 253 characters";
    static const char label_refused[] = "must have host labels of 1 to 63 characters";
    size_t label = 0;
    for (size_t i = 0; i < s.n; i++) {
        char c = lower(s.p[i]);
        if (c == '%')
            return "must not percent-encode the host";
        if (!is_digit(c) && !(c >= 'a' && c <= 'z') && c != '-' && c != '_' && c != '.')
            return "must have only letters, digits, '-', '_' and '.' in its host";
        if (label > LABEL_MAX || (c == '.' && label == 0))
            return label_refused;
        label = c == '.' ? 0 : label + 1;
        h->text[i] = c;
    }
    if (label == 0 || label > LABEL_MAX)
        return label_refused;
    h->text[s.n] = '\0';
    h->n = s.n;
    return NULL;
}

static const char *parse_host(struct slice s, bool bracketed, struct host *h) {
    if (bracketed)
        return parse_ipv6(s, h);
    const char *refused = parse_labels(s, h);
    struct slice name = {h->text, h->n};
    if (refused || !ends_in_number(name))
        return refused;
    uint32_t address;
    if (!parse_ipv4(name, &address))
        return "must hold a valid IPv4 address when its host ends in a number";
    host_set_ipv4(h, address);
    return NULL;
}

static int build(struct url *u, const struct host *h, struct slice target, const char **ret_reason) {
    _cleanup_buf_ struct buf b = {0};
    bool brackets = h->is_literal && !IN6_IS_ADDR_V4MAPPED(&h->address);
    struct slice prefix = schemes[u->scheme].prefix;
    buf_add_slice(&b, prefix);
    buf_addf(&b, brackets ? "[%s]" : "%s", h->text);
    if (u->port != schemes[u->scheme].port)
        buf_addf(&b, ":%u", u->port);
    size_t authority_end = b.n;
    if (target.n == 0 || target.p[0] != '/')
        buf_add_char(&b, '/');
    buf_add_slice(&b, target);
    if (!buf_ok(&b))
        return -ENOMEM;
    if (b.n > URL_LENGTH_MAX) {
        *ret_reason = "must be at most 2048 characters long";
        return -EINVAL;
    }
    size_t end = b.n;
    u->text = TAKE_PTR(b.p);
    u->host = (struct slice){u->text + prefix.n + (brackets ? 1 : 0), h->n};
    u->authority = (struct slice){u->text + prefix.n, authority_end - prefix.n};
    u->target = (struct slice){u->text + authority_end, end - authority_end};
    return 0;
}

int url_parse(struct slice text, struct url *ret_url, const char **ret_reason) {
    if (text.n == 0 || text.n > URL_LENGTH_MAX) {
        *ret_reason = text.n ? "must be at most 2048 characters long" : "must not be empty";
        return -EINVAL;
    }
    struct url u = {0};
    struct host host = {0};
    struct slice rest = text, spelled;
    bool bracketed;
    const char *refused = characters_refused(text);
    if (!refused)
        refused = parse_scheme(&rest, &u.scheme);
    size_t authority_n = 0;
    while (authority_n < rest.n && rest.p[authority_n] != '/' && rest.p[authority_n] != '?')
        authority_n++;
    u.port = schemes[u.scheme].port;
    if (!refused)
        refused = split_authority((struct slice){rest.p, authority_n}, &spelled, &bracketed, &u.port);
    if (!refused)
        refused = parse_host(spelled, bracketed, &host);
    if (refused) {
        *ret_reason = refused;
        return -EINVAL;
    }
    u.is_literal = host.is_literal;
    u.address = host.address;
    int r = build(&u, &host, slice_from(rest, authority_n), ret_reason);
    if (r == 0)
        *ret_url = u;
    return r;
}

void url_free(struct url *u) {
    free(u->text);
    *u = (struct url){0};
}
