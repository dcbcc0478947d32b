/* Spellings of addresses: any IPv4 address in any of the forms that inet_aton(3) reads, and any IPv6 address,
 * mean themselves and are judged alike, however they come. Any bytes as a host, too: libc is the second
 * opinion. */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>

#include "core/address.h"
#include "core/url.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct address_policy public_only;

static int judge_host(const char *host, struct in6_addr *ret_address) {
    char text[512];
    const char *reason;
    _cleanup_url_ struct url u = {0};
    CHECK((size_t)snprintf(text, sizeof text, "https://%s/", host) < sizeof text);
    if (url_parse(slice_of(text), &u, &reason) < 0)
        return -EINVAL;
    if (!u.is_literal)
        return 1;
    *ret_address = u.address;
    return address_judge_url(&public_only, false, &u, &reason);
}

/* One part of an address, in the base that two bits choose, with as many leading zeros as two more do. */
static void add_part(char *out, size_t size, uint32_t value, unsigned choice) {
    int zeros = (int)(choice >> 2 & 3) * 4;
    static const char digits[] = "000000000000";
    switch (choice & 3) {
    case 0: /* leading zeros would make it octal */
        snprintf(out, size, "%u", value);
        break;
    case 1:
        snprintf(out, size, "0%.*s%o", zeros, digits, value);
        break;
    case 2:
        snprintf(out, size, "0x%.*s%x", zeros, digits, value);
        break;
    default:
        snprintf(out, size, "0X%.*s%X", zeros, digits, value);
    }
}

/* The address in 1 to 4 parts, of which the last has all the bits that are left. */
static void spell_ipv4(uint32_t address, const uint8_t *choices, char *out, size_t size) {
    unsigned parts = 1 + (choices[0] & 3);
    size_t n = 0;
    for (unsigned i = 0; i < parts; i++) {
        bool last = i == parts - 1;
        uint32_t value = last ? address << 8 * i >> 8 * i : address >> (24 - 8 * i) & 0xff;
        add_part(out + n, size - n, value, choices[1 + i]);
        n += strlen(out + n);
        if (!last || choices[0] & 4)
            n += (size_t)snprintf(out + n, size - n, "."); /* the last one: the root's */
    }
}

static void check_ipv4(const uint8_t *data) {
    uint32_t address = (uint32_t)data[0] << 24 | (uint32_t)data[1] << 16 | (uint32_t)data[2] << 8 | data[3];
    char text[128], dotted[INET_ADDRSTRLEN], mapped[64];
    struct in6_addr plain, other;
    const char *reason;
    spell_ipv4(address, data + 4, text, sizeof text);
    CHECK(inet_ntop(AF_INET, data, dotted, sizeof dotted));
    snprintf(mapped, sizeof mapped, "[::ffff:%s]", dotted);
    int verdict = judge_host(dotted, &plain);
    CHECK(verdict == 0 || verdict == -EPERM);
    CHECK(IN6_IS_ADDR_V4MAPPED(&plain) && memcmp(&plain.s6_addr[12], data, 4) == 0);
    CHECK(judge_host(text, &other) == verdict && IN6_ARE_ADDR_EQUAL(&plain, &other));
    CHECK(judge_host(mapped, &other) == verdict && IN6_ARE_ADDR_EQUAL(&plain, &other));

    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(443)};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(443), .sin6_addr = plain};
    memcpy(&in.sin_addr, data, 4);
    CHECK(address_judge_endpoint(&public_only, (const struct sockaddr *)&in, &reason) == verdict);
    CHECK(address_judge_endpoint(&public_only, (const struct sockaddr *)&in6, &reason) == verdict);
    CHECK(address_judge(&public_only, &plain, &reason) == verdict);
}

static void check_ipv6(const uint8_t *data) {
    struct in6_addr address, other;
    char text[INET6_ADDRSTRLEN], host[INET6_ADDRSTRLEN + 2];
    const char *reason;
    memcpy(&address, data, sizeof address);
    CHECK(inet_ntop(AF_INET6, &address, text, sizeof text));
    snprintf(host, sizeof host, "[%s]", text);
    int verdict = address_judge(&public_only, &address, &reason);
    CHECK(judge_host(host, &other) == verdict && IN6_ARE_ADDR_EQUAL(&address, &other));
    if (verdict == 0)
        CHECK(IN6_IS_ADDR_V4MAPPED(&address) || (address.s6_addr[0] & 0xe0) == 0x20);
}

/* A range opens what lies in it, and nothing else. */
static void check_range(const uint8_t *data) {
    struct address_policy p = {0};
    struct in6_addr prefix, address;
    char text[INET6_ADDRSTRLEN + 4];
    const char *reason;
    unsigned bits = data[0] % 129;
    memcpy(&prefix, data + 1, sizeof prefix);
    memcpy(&address, data + 9, sizeof address);
    CHECK(inet_ntop(AF_INET6, &prefix, text, INET6_ADDRSTRLEN));
    snprintf(text + strlen(text), 5, "/%u", bits);
    CHECK(address_policy_allow_cidr(&p, slice_of(text)) == 0);
    bool inside = true;
    for (unsigned i = 0; i < bits; i++)
        inside = inside && !((prefix.s6_addr[i / 8] ^ address.s6_addr[i / 8]) & 0x80 >> i % 8);
    int before = address_judge(&public_only, &address, &reason);
    int after = address_judge(&p, &address, &reason);
    CHECK(after == before || (after == 0 && inside) ||
          (before == 0 && inside)); /* wrappers are judged within */
}

static void check_text(struct slice s) {
    char host[256];
    struct in6_addr address;
    struct in_addr v4;
    if (s.n == 0 || s.n >= sizeof host || memchr(s.p, '\0', s.n))
        return;
    memcpy(host, s.p, s.n);
    host[s.n] = '\0';
    if (strpbrk(host, "/?#@\\: \t\r\n\v\f"))
        return;
    int verdict = judge_host(host, &address);
    /* What libc reads as an address is that address to us, or refused; never a name. */
    if (inet_aton(host, &v4))
        CHECK(verdict <= 0 && (verdict == -EINVAL || memcmp(&v4, &address.s6_addr[12], sizeof v4) == 0));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    check_text((struct slice){(const char *)data, size});
    if (size < 25)
        return 0;
    check_ipv4(data);
    check_ipv6(data + 9);
    check_range(data);
    return 0;
}
