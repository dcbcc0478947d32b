/* Webhook URLs, parsed once into a canonical form that every later step (registration, the guard, the HTTP
 * client) reads alike, so that no two parsers can disagree on where a request goes. Pure; no look-ups. */
#pragma once

#include <netinet/in.h>
#include <stdint.h>

#include "base/bytes.h"

#define URL_LENGTH_MAX 2048
#define URL_HOST_MAX   253

enum url_scheme { URL_HTTP, URL_HTTPS };

/* The slices point into `text` and are not NUL-terminated. */
struct url {
    char *text; /* owned: the canonical URL, NUL-terminated; parses to itself */
    enum url_scheme scheme;
    uint16_t port;           /* 1…65535, the scheme's own when none is given */
    bool is_literal;         /* the host is an address, not a name */
    struct in6_addr address; /* when is_literal; IPv4 as ::ffff:a.b.c.d */
    struct slice host;       /* lower case, no brackets, no trailing dot: for look-up, connection and SNI */
    struct slice authority;  /* host[:port], IPv6 in brackets, a default port left out: the Host header */
    struct slice target;     /* path?query as given, begins with '/': the request line */
};

/* Parses an absolute http or https URL (RFC 3986) of 1 to URL_LENGTH_MAX bytes. IPv4 hosts are read as
 * inet_aton(3) does (decimal, octal, hex, 1 to 4 parts), IPv4-mapped IPv6 becomes IPv4; a host whose last
 * label is a number is an address or refused, never a name. Refused too: user information, fragments, zone
 * ids, control characters, spaces, backslashes, and anything outside ASCII.
 * 0 and *ret_url (release with url_free); -EINVAL and *ret_reason, a static text that reads on after the
 * field's name ("must not contain a fragment"); or -ENOMEM. */
int url_parse(struct slice text, struct url *ret_url, const char **ret_reason) MUST_USE;
void url_free(struct url *u); /* frees and zeroes */

#define _cleanup_url_ _cleanup_(url_free)
