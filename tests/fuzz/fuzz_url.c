/* URL and address guard: any bytes are parsed and judged. The first byte chooses the policy. */
#include <arpa/inet.h>
#include <errno.h>

#include "core/address.h"
#include "core/url.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_refusal(int r, int expected, const char *reason) {
    CHECK(r == 0 || r == expected);
    CHECK(r == 0 || (reason && reason[0]));
}

static bool contains(struct slice s, char c) {
    return s.n && memchr(s.p, c, s.n);
}

static void check_host(const struct url *u) {
    char host[URL_HOST_MAX + 1];
    struct in_addr v4;
    struct in6_addr v6;
    CHECK(u->host.n > 0 && u->host.n < sizeof host);
    memcpy(host, u->host.p, u->host.n);
    host[u->host.n] = '\0';
    for (const char *c = host; *c; c++)
        CHECK(!(*c >= 'A' && *c <= 'Z') && (unsigned char)*c > ' ' && (unsigned char)*c < 0x7f);
    if (!u->is_literal) {
        /* No reader of addresses may take it for one. */
        CHECK(inet_aton(host, &v4) == 0 && inet_pton(AF_INET6, host, &v6) == 0);
        CHECK(!contains(u->host, ':') && !contains(u->host, '%') && host[u->host.n - 1] != '.');
    } else if (IN6_IS_ADDR_V4MAPPED(&u->address)) {
        CHECK(inet_pton(AF_INET, host, &v4) == 1 && memcmp(&v4, &u->address.s6_addr[12], sizeof v4) == 0);
    } else {
        CHECK(inet_pton(AF_INET6, host, &v6) == 1 && IN6_ARE_ADDR_EQUAL(&v6, &u->address));
    }
}

static void check_parts(const struct url *u) {
    const char *end = u->text + strlen(u->text);
    CHECK((size_t)(end - u->text) <= URL_LENGTH_MAX && u->port != 0);
    CHECK(u->target.p + u->target.n == end && u->target.n > 0 && u->target.p[0] == '/');
    CHECK(u->authority.p + u->authority.n == u->target.p);
    CHECK(!contains(u->authority, '@') && !contains(u->authority, '\\') && !contains(u->target, '#'));
}

/* The canonical form means the same and is its own canonical form. */
static void check_again(const struct url *u) {
    _cleanup_url_ struct url again = {0};
    const char *reason = NULL;
    CHECK(url_parse(slice_of(u->text), &again, &reason) == 0);
    CHECK(strcmp(again.text, u->text) == 0);
    CHECK(again.scheme == u->scheme && again.port == u->port && again.is_literal == u->is_literal);
    CHECK(slice_eq(again.host, u->host) && slice_eq(again.authority, u->authority));
    CHECK(IN6_ARE_ADDR_EQUAL(&again.address, &u->address));
}

static void check_judgement(const struct url *u, struct address_policy *p, bool allow_http) {
    static const struct address_policy public_only;
    const char *reason = NULL;
    int by_default = address_judge_url(&public_only, false, u, &reason);
    check_refusal(by_default, -EPERM, reason);
    CHECK(by_default < 0 || (u->scheme == URL_HTTPS && (u->port == 80 || u->port == 443)));
    int r = address_judge_url(p, allow_http, u, &reason);
    check_refusal(r, -EPERM, reason);
    CHECK(by_default < 0 || r == 0 || p->listener_count); /* a policy only opens, but for the own listener */
    if (u->is_literal && r == 0)
        CHECK(address_judge(p, &u->address, &reason) == 0);
}

static void read_policy(uint8_t choice, struct slice text, struct address_policy *p) {
    struct sockaddr_in listener = {.sin_family = AF_INET, .sin_port = htons(80)};
    if (choice & 2)
        CHECK(address_policy_allow_cidr(p, SLICE_LIT("127.0.0.0/8")) == 0);
    if (choice & 4)
        CHECK(address_policy_allow_cidr(p, SLICE_LIT("::/0")) == 0);
    if (choice & 8)
        CHECK(address_policy_allow_port(p, SLICE_LIT("1-65535")) == 0);
    if (choice & 16)
        CHECK(address_policy_refuse_listener(p, (const struct sockaddr *)&listener) == 0);
    check_refusal(address_policy_allow_cidr(p, text), -EINVAL, "malformed");
    check_refusal(address_policy_allow_port(p, text), -EINVAL, "malformed");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0)
        return 0;
    uint8_t choice = data[0];
    struct slice text = {(const char *)data + 1, size - 1};
    _cleanup_url_ struct url u = {0};
    const char *reason = NULL;
    int r = url_parse(text, &u, &reason);
    check_refusal(r, -EINVAL, reason);
    struct address_policy p = {0};
    read_policy(choice, text, &p);
    if (r == 0) {
        check_parts(&u);
        check_host(&u);
        check_again(&u);
        check_judgement(&u, &p, choice & 1);
    }
    return 0;
}
