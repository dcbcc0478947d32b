#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>

#include "core/address.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static const struct address_policy public_only;

static struct in6_addr parse(const char *text) {
    struct in6_addr a;
    char as_mapped[64];
    snprintf(as_mapped, sizeof as_mapped, strchr(text, ':') ? "%s" : "::ffff:%s", text);
    if (inet_pton(AF_INET6, as_mapped, &a) != 1)
        fail_msg("%s is no address", text);
    return a;
}

static struct sockaddr_storage endpoint(const char *text, uint16_t port) {
    struct sockaddr_storage out = {0};
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    if (inet_pton(AF_INET, text, &in.sin_addr) == 1)
        memcpy(&out, &in, sizeof in);
    else if (inet_pton(AF_INET6, text, &in6.sin6_addr) == 1)
        memcpy(&out, &in6, sizeof in6);
    else
        fail_msg("%s is no address", text);
    return out;
}

/* A policy from a list of CIDRs and one of ports, each separated by spaces. */
static struct address_policy policy(const char *cidrs, const char *ports) {
    struct address_policy p = {0};
    char text[512];
    snprintf(text, sizeof text, "%s", cidrs);
    for (char *rest = NULL, *w = strtok_r(text, " ", &rest); w; w = strtok_r(NULL, " ", &rest))
        assert_int_equal(address_policy_allow_cidr(&p, slice_of(w)), 0);
    snprintf(text, sizeof text, "%s", ports);
    for (char *rest = NULL, *w = strtok_r(text, " ", &rest); w; w = strtok_r(NULL, " ", &rest))
        assert_int_equal(address_policy_allow_port(&p, slice_of(w)), 0);
    return p;
}

static void assert_address(const struct address_policy *p, const char *text, bool allowed) {
    struct in6_addr a = parse(text);
    const char *reason = NULL;
    int r = address_judge(p, &a, &reason);
    if ((r == 0) != allowed)
        fail_msg("%s is %s", text, r == 0 ? "allowed" : reason);
    assert_int_equal(r, allowed ? 0 : -EPERM);
    assert_int_equal(reason != NULL, !allowed);
}

/* The same for a list separated by spaces. */
static void assert_addresses(const struct address_policy *p, const char *list, bool allowed) {
    char text[1024];
    snprintf(text, sizeof text, "%s", list);
    for (char *rest = NULL, *w = strtok_r(text, " ", &rest); w; w = strtok_r(NULL, " ", &rest))
        assert_address(p, w, allowed);
}

static int judge_text(const struct address_policy *p, bool allow_http, struct slice text,
                      const char **reason) {
    _cleanup_url_ struct url u = {0};
    int r = url_parse(text, &u, reason);
    return r < 0 ? r : address_judge_url(p, allow_http, &u, reason);
}

static void assert_url(const struct address_policy *p, bool allow_http, const char *text, bool allowed) {
    const char *reason = NULL;
    int r = judge_text(p, allow_http, slice_of(text), &reason);
    if ((r == 0) != allowed)
        fail_msg("%s is %s", text, r == 0 ? "allowed" : reason);
}

/* ---- the cases file ---- */

/* Returns how many cases the file holds. */
static unsigned judge_cases(const char *name) {
    const char *folder = getenv("POSTHORN_TEST_CASES");
    char path[4096], line[4096];
    snprintf(path, sizeof path, "%s/%s", folder ? folder : "tests/cases", name);
    FILE *f = fopen(path, "r");
    if (!f)
        fail_msg("%s: %s", path, strerror(errno));
    unsigned cases = 0;
    while (fgets(line, sizeof line, f)) {
        char *rest = NULL;
        const char *verdict = strtok_r(line, "\t\n", &rest), *text = strtok_r(NULL, "\t\n", &rest);
        if (!verdict || verdict[0] == '#')
            continue;
        assert_non_null(text);
        assert_true(strcmp(verdict, "allow") == 0 || strcmp(verdict, "block") == 0);
        assert_url(&public_only, true, text, strcmp(verdict, "allow") == 0);
        cases++;
    }
    fclose(f);
    return cases;
}

static void test_cases_files(void **state) {
    (void)state;
    assert_in_range(judge_cases("ssrf.tsv"), 70, 10000);
    assert_in_range(judge_cases("spellings.tsv"), 170, 10000);
}

/* ---- the ranges ---- */

/* First and last address of each special range, and its neighbours when they are public. */
static const struct {
    const char *before, *first, *last, *after;
} ranges[] = {
    {NULL, "0.0.0.0", "0.255.255.255", "1.0.0.0"},
    {"9.255.255.255", "10.0.0.0", "10.255.255.255", "11.0.0.0"},
    {"100.63.255.255", "100.64.0.0", "100.127.255.255", "100.128.0.0"},
    {"126.255.255.255", "127.0.0.0", "127.255.255.255", "128.0.0.0"},
    {"168.63.129.15", "168.63.129.16", "168.63.129.16", "168.63.129.17"},
    {"169.253.255.255", "169.254.0.0", "169.254.255.255", "169.255.0.0"},
    {NULL, "169.254.169.254", "169.254.170.2", NULL},
    {"172.15.255.255", "172.16.0.0", "172.31.255.255", "172.32.0.0"},
    {"191.255.255.255", "192.0.0.0", "192.0.0.255", "192.0.1.0"},
    {"192.0.1.255", "192.0.2.0", "192.0.2.255", "192.0.3.0"},
    {"192.31.195.255", "192.31.196.0", "192.31.196.255", "192.31.197.0"},
    {"192.52.192.255", "192.52.193.0", "192.52.193.255", "192.52.194.0"},
    {"192.88.98.255", "192.88.99.0", "192.88.99.255", "192.88.100.0"},
    {"192.167.255.255", "192.168.0.0", "192.168.255.255", "192.169.0.0"},
    {"192.175.47.255", "192.175.48.0", "192.175.48.255", "192.175.49.0"},
    {"198.17.255.255", "198.18.0.0", "198.19.255.255", "198.20.0.0"},
    {"198.51.99.255", "198.51.100.0", "198.51.100.255", "198.51.101.0"},
    {"203.0.112.255", "203.0.113.0", "203.0.113.255", "203.0.114.0"},
    {"223.255.255.255", "224.0.0.0", "239.255.255.255", NULL},
    {NULL, "240.0.0.0", "255.255.255.255", NULL},
    {NULL, "::", "::1", NULL},
    {NULL, "::2", "::ffff:ffff", NULL},
    {NULL, "::1:0:0", "::fffe:ffff:ffff", NULL},
    {NULL, "::ffff:0:0:0", "::ffff:0:ffff:ffff", NULL},
    {NULL, "64:ff9b::", "64:ff9b::ffff:ffff", NULL},
    {NULL, "64:ff9b::808:808", "64:ff9b:0:0:0:1::", NULL},
    {NULL, "64:ff9b:1::", "64:ff9b:1:ffff:ffff:ffff:ffff:ffff", NULL},
    {NULL, "100::", "100::ffff:ffff:ffff:ffff", NULL},
    {NULL, "100:0:0:1::", "100:0:0:1:ffff:ffff:ffff:ffff", NULL},
    {NULL, "1fff:ffff::", "1fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "2000::"},
    {"2000:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "2001::", "2001:0:ffff:ffff:ffff:ffff:ffff:ffff", NULL},
    {NULL, "2001:1::1", "2001:1::3", NULL},
    {NULL, "2001:2::", "2001:2:0:ffff:ffff:ffff:ffff:ffff", NULL},
    {NULL, "2001:3::", "2001:4:112:ffff:ffff:ffff:ffff:ffff", NULL},
    {NULL, "2001:10::", "2001:3f:ffff:ffff:ffff:ffff:ffff:ffff", NULL},
    {NULL, "2001:1ff::", "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff", "2001:200::"},
    {"2001:db7:ffff::", "2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", "2001:db9::"},
    {"2001:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "2002::", "2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
     "2003::"},
    {"2620:4f:7fff:ffff::", "2620:4f:8000::", "2620:4f:8000:ffff:ffff:ffff:ffff:ffff", "2620:4f:8001::"},
    {"3ffe:ffff:ffff:ffff::", "3fff::", "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff", "3fff:1000::"},
    {"3fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "4000::", "5eff:ffff::", NULL},
    {NULL, "5f00::", "5f00:ffff:ffff:ffff:ffff:ffff:ffff:ffff", NULL},
    {NULL, "5f01::", "fbff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", NULL},
    {NULL, "fc00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", NULL},
    {NULL, "fe00::", "fe7f:ffff::", NULL},
    {NULL, "fe80::", "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff", NULL},
    {NULL, "fec0::", "feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", NULL},
    {NULL, "ff00::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", NULL},
};

static void test_edges_of_ranges(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(ranges); i++) {
        assert_address(&public_only, ranges[i].first, false);
        assert_address(&public_only, ranges[i].last, false);
        if (ranges[i].before)
            assert_address(&public_only, ranges[i].before, true);
        if (ranges[i].after)
            assert_address(&public_only, ranges[i].after, true);
    }
}

static void test_public_addresses(void **state) {
    (void)state;
    assert_addresses(&public_only, "1.1.1.1 8.8.8.8 93.184.216.34 223.255.255.255 ::ffff:8.8.8.8", true);
    assert_addresses(&public_only, "2606:4700:4700::1111 2001:4860:4860::8888 2a00:1450:4001:80b::200e",
                     true);
    assert_addresses(&public_only, "2620:fe::fe 2400:cb00::1", true);
}

static void test_mapped_is_judged_as_ipv4(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(ranges); i++) {
        if (strchr(ranges[i].first, ':'))
            continue;
        char text[64];
        snprintf(text, sizeof text, "::ffff:%s", ranges[i].first);
        assert_address(&public_only, text, false);
        struct sockaddr_storage as_v6 = endpoint(text, 443);
        const char *reason;
        assert_int_equal(as_v6.ss_family, AF_INET6);
        assert_int_equal(address_judge_endpoint(&public_only, (struct sockaddr *)&as_v6, &reason), -EPERM);
    }
}

static void test_reasons_name_the_range(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"127.8.8.8", "loopback address (127.0.0.0/8)"},
        {"169.254.169.254", "metadata"},
        {"168.63.129.16", "metadata"},
        {"169.254.1.1", "link-local address (169.254.0.0/16)"},
        {"255.255.255.255", "broadcast"},
        {"::1", "loopback address (::1)"},
        {"::", "unspecified"},
        {"::7f00:1", "IPv4-compatible"},
        {"64:ff9b::7f00:1", "NAT64"},
        {"64:ff9b:1::7f00:1", "NAT64"},
        {"2002:7f00:1::", "6to4"},
        {"2001::1", "Teredo"},
        {"2001:10::1", "ORCHID"},
        {"2001:20::1", "ORCHID"},
        {"2001:1::1", "IETF protocols"},
        {"fec0::1", "site-local"},
        {"4000::1", "outside the global unicast"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct in6_addr a = parse(cases[i][0]);
        const char *reason = NULL;
        assert_int_equal(address_judge(&public_only, &a, &reason), -EPERM);
        if (!strstr(reason, cases[i][1]))
            fail_msg("%s: \"%s\" lacks \"%s\"", cases[i][0], reason, cases[i][1]);
    }
}

/* ---- what the operator allows ---- */

static void test_allowed_cidrs(void **state) {
    (void)state;
    struct address_policy p = policy("10.1.2.3/16 127.0.0.1 fd00:1::/32 192.168.3.4/31 ::1", "");
    assert_addresses(&p, "10.1.0.0 10.1.255.255 ::ffff:10.1.2.3 127.0.0.1 192.168.3.4 192.168.3.5", true);
    assert_addresses(&p, "fd00:1:: fd00:1:ffff::1 ::1 8.8.8.8", true);
    assert_addresses(&p, "10.0.255.255 10.2.0.0 127.0.0.2 192.168.3.3 192.168.3.6 169.254.169.254", false);
    assert_addresses(&p, "fd00:2:: fd00:0:ffff:: :: ::2", false);
}

static void test_whole_families(void **state) {
    (void)state;
    struct address_policy v4 = policy("0.0.0.0/0", ""), v6 = policy("::/0", ""),
                          mapped = policy("::ffff:0:0/96", "");
    assert_addresses(&v4, "127.0.0.1 255.255.255.255 ::ffff:127.0.0.1", true);
    assert_addresses(&v4, "::1 ::127.0.0.1", false);
    assert_addresses(&v6, "::1 :: fe80::1", true);
    assert_addresses(&v6, "127.0.0.1 ::ffff:127.0.0.1 64:ff9b::127.0.0.1", false);
    assert_addresses(&mapped, "127.0.0.1", true);
    assert_addresses(&mapped, "::1", false);
}

/* Opening a wrapper does not open what it wraps. */
static void test_wrapped_addresses(void **state) {
    (void)state;
    struct address_policy p =
        policy("::/96 ::ffff:0:0:0/96 64:ff9b::/96 64:ff9b:1::/48 2002::/16 2001::/32", "");
    assert_addresses(&p, "::8.8.8.8 ::ffff:0:8.8.8.8 64:ff9b::8.8.8.8 64:ff9b:1::8.8.8.8 2002:808:808::1",
                     true);
    assert_addresses(&p, "::127.0.0.1 ::ffff:0:127.0.0.1 64:ff9b::169.254.169.254 64:ff9b::", false);
    assert_addresses(&p, "64:ff9b:1::10.0.0.1 2002:7f00:1::1 2002:a9fe:a9fe::", false);
    /* Teredo: its server, then its client with all bits flipped. */
    assert_address(&p, "2001:0:808:808::f7f7:f7f7", true); /* 8.8.8.8 both */
    assert_address(&p, "2001:0:7f00:1::f7f7:f7f7", false);
    assert_address(&p, "2001:0:808:808::80ff:fffe", false);
    assert_address(&p, "2001:0:808:808::5601:5601", false);
    assert_address(&p, "::1", true); /* within ::/96, but wraps nothing */
    p = policy("64:ff9b::/96 10.0.0.0/8", "");
    assert_address(&p, "64:ff9b::10.0.0.1", true);
    assert_address(&p, "64:ff9b::192.168.0.1", false);
}

static void test_malformed_cidrs(void **state) {
    (void)state;
    static const char list[] =
        ",/,/8,10.0.0.0/,10.0.0.0/33,10.0.0.0/-1,10.0.0.0/08,10.0.0.0/8/8,10.0.0.0/8 ,10.0.0/8,"
        "010.0.0.0/8,0x7f.0.0.1,2130706433,::/129,::1%lo,[::1]/128,localhost,10.0.0.0/a,"
        ":::/0,1:2:3:4:5:6:7:8:9/10,10.0.0.0/99999999999,"
        "0000:0000:0000:0000:0000:0000:0000:0000:0000:0000/8";
    struct address_policy p = {0};
    char text[sizeof list], *rest = text;
    memcpy(text, list, sizeof list);
    for (char *w; (w = strsep(&rest, ","));)
        assert_int_equal(address_policy_allow_cidr(&p, slice_of(w)), -EINVAL);
    assert_int_equal(address_policy_allow_cidr(&p, SLICE_LIT("10.0.0.1\0/8")), -EINVAL);
    assert_int_equal(p.cidr_count, 0);
}

static void test_lists_are_bounded(void **state) {
    (void)state;
    struct address_policy p = {0};
    struct sockaddr_storage l = endpoint("192.168.0.1", 8484);
    for (unsigned i = 0; i < ADDRESS_CIDRS_MAX; i++)
        assert_int_equal(address_policy_allow_cidr(&p, SLICE_LIT("10.0.0.0/8")), 0);
    for (unsigned i = 0; i < ADDRESS_PORTS_MAX; i++)
        assert_int_equal(address_policy_allow_port(&p, SLICE_LIT("8443")), 0);
    for (unsigned i = 0; i < ADDRESS_LISTENERS_MAX; i++)
        assert_int_equal(address_policy_refuse_listener(&p, (struct sockaddr *)&l), 0);
    assert_int_equal(address_policy_allow_cidr(&p, SLICE_LIT("10.0.0.0/8")), -ENOSPC);
    assert_int_equal(address_policy_allow_port(&p, SLICE_LIT("8443")), -ENOSPC);
    assert_int_equal(address_policy_refuse_listener(&p, (struct sockaddr *)&l), -ENOSPC);
}

static void test_ports(void **state) {
    (void)state;
    struct address_policy p = policy("", "8443 9000-9002 65535 1-2");
    static const unsigned allowed[] = {1, 2, 80, 443, 8443, 9000, 9001, 9002, 65535};
    static const unsigned refused[] = {3, 22, 25, 79, 81, 442, 444, 8442, 8444, 8999, 9003, 65534};
    char text[64];
    for (size_t i = 0; i < COUNT(allowed); i++) {
        snprintf(text, sizeof text, "https://example.com:%u/", allowed[i]);
        assert_url(&p, false, text, true);
        snprintf(text, sizeof text, "https://8.8.8.8:%u/", allowed[i]);
        assert_url(&p, false, text, true);
    }
    for (size_t i = 0; i < COUNT(refused); i++) {
        snprintf(text, sizeof text, "https://example.com:%u/", refused[i]);
        assert_url(&p, false, text, false);
        struct sockaddr_storage e = endpoint("8.8.8.8", (uint16_t)refused[i]);
        const char *reason;
        assert_int_equal(address_judge_endpoint(&p, (struct sockaddr *)&e, &reason), -EPERM);
    }
}

static void test_malformed_ports(void **state) {
    (void)state;
    static const char *const texts[] = {"",   "-", "0",  "0-1", "65536", "1-65536", "2-1",  "1-",
                                        "-1", "a", "1 ", "+1",  "080",   "1-2-3",   "0x50", "99999999999"};
    struct address_policy p = {0};
    for (size_t i = 0; i < COUNT(texts); i++)
        assert_int_equal(address_policy_allow_port(&p, slice_of(texts[i])), -EINVAL);
    assert_int_equal(p.port_count, 0);
}

/* ---- URLs ---- */

static void test_schemes(void **state) {
    (void)state;
    assert_url(&public_only, false, "https://example.com/", true);
    assert_url(&public_only, false, "http://example.com/", false);
    assert_url(&public_only, false, "http://example.com:443/", false);
    assert_url(&public_only, true, "http://example.com/", true);
    assert_url(&public_only, true, "https://example.com:80/", true);
}

static void test_spellings_of_loopback(void **state) {
    (void)state;
    struct address_policy p = policy("127.0.0.1/32", "");
    char list[] = "127.0.0.1 127.1 127.0.1 2130706433 017700000001 0x7f000001 0x7F.1 0177.0.0.1 127.0.0.1. "
                  "[::ffff:7f00:1] [::ffff:127.0.0.1]";
    for (char *rest = NULL, *w = strtok_r(list, " ", &rest); w; w = strtok_r(NULL, " ", &rest)) {
        char text[64];
        snprintf(text, sizeof text, "http://%s/", w);
        assert_url(&public_only, true, text, false);
        assert_url(&p, true, text, true);
    }
    assert_url(&p, true, "http://[::1]/", false);
    assert_url(&p, true, "http://[::127.0.0.1]/", false);
    assert_url(&p, true, "http://[64:ff9b::7f00:1]/", false);
    assert_url(&p, true, "http://127.0.0.2/", false);
    assert_url(&p, true, "http://0/", false);
}

static void test_names(void **state) {
    (void)state;
    struct address_policy v4 = policy("127.0.0.1", ""), v6 = policy("::1", ""),
                          lan = policy("10.0.0.0/8", ""), loopback_net = policy("127.0.0.0/8 ::1/128", ""),
                          metadata = policy("169.254.0.0/16", "");
    static const struct {
        const char *text;
        bool with_loopback, with_lan, with_metadata;
    } cases[] = {
        {"https://localhost/", true, false, false},
        {"https://LocalHost./", true, false, false},
        {"https://a.b.localhost/", true, false, false},
        {"https://localhost.localdomain/", true, false, false},
        {"https://ip6-localhost/", true, false, false},
        {"https://x.local/", false, true, true},
        {"https://svc.ns.svc.cluster.local/", false, true, true},
        {"https://local/", false, true, true},
        {"https://x.internal./", false, true, true},
        {"https://printer.lan/", false, true, true},
        {"https://x.home.arpa/", false, true, true},
        {"https://metadata.google.internal/", false, false, true},
        {"https://METADATA.google.internal./", false, false, true},
        {"https://metadata/", false, false, true},
        {"https://instance-data/", false, false, true},
        {"https://localhost.example.com/", true, true, true},
        {"https://notlocalhost/", true, true, true},
        {"https://xlocal/", true, true, true},
        {"https://local.example/", true, true, true},
        {"https://nowhere.invalid/", true, true, true},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        bool always = cases[i].with_loopback && cases[i].with_lan && cases[i].with_metadata;
        assert_url(&public_only, false, cases[i].text, always);
        assert_url(&v4, false, cases[i].text, cases[i].with_loopback);
        assert_url(&v6, false, cases[i].text, cases[i].with_loopback);
        assert_url(&loopback_net, false, cases[i].text, cases[i].with_loopback);
        assert_url(&lan, false, cases[i].text, cases[i].with_lan);
        assert_url(&metadata, false, cases[i].text, cases[i].with_metadata);
    }
}

/* ---- resolved addresses and the socket ---- */

static void test_resolved(void **state) {
    (void)state;
    struct sockaddr_storage addresses[] = {endpoint("8.8.8.8", 0), endpoint("2606:4700::1", 0),
                                           endpoint("1.1.1.1", 0)};
    const char *reason = NULL;
    assert_int_equal(address_judge_resolved(&public_only, addresses, 3, 443, &reason), 0);
    assert_int_equal(address_judge_resolved(&public_only, addresses, 3, 8080, &reason), -EPERM);
    assert_int_equal(address_judge_resolved(&public_only, addresses, 0, 443, &reason), -EPERM);
    static const char *const poisons[] = {"127.0.0.1", "::1", "::ffff:10.0.0.1", "169.254.169.254",
                                          "64:ff9b::1"};
    for (size_t i = 0; i < COUNT(poisons); i++) {
        for (size_t at = 0; at < 3; at++) {
            struct sockaddr_storage kept = addresses[at];
            addresses[at] = endpoint(poisons[i], 0);
            assert_int_equal(address_judge_resolved(&public_only, addresses, 3, 443, &reason), -EPERM);
            addresses[at] = kept;
        }
    }
    addresses[1].ss_family = AF_UNIX;
    assert_int_equal(address_judge_resolved(&public_only, addresses, 3, 443, &reason), -EPERM);
}

static bool endpoint_allowed(const struct address_policy *p, const char *text, uint16_t port) {
    struct sockaddr_storage e = endpoint(text, port);
    const char *reason = NULL;
    return address_judge_endpoint(p, (struct sockaddr *)&e, &reason) == 0;
}

static void test_endpoint_family(void **state) {
    (void)state;
    struct sockaddr_storage e = {.ss_family = AF_UNIX};
    const char *reason = NULL;
    assert_int_equal(address_judge_endpoint(&public_only, (struct sockaddr *)&e, &reason), -EPERM);
    assert_true(endpoint_allowed(&public_only, "8.8.8.8", 443));
    assert_true(endpoint_allowed(&public_only, "2606:4700::1", 80));
    assert_false(endpoint_allowed(&public_only, "127.0.0.1", 443));
}

static void test_own_listener(void **state) {
    (void)state;
    struct address_policy p = policy("127.0.0.0/8 0.0.0.0/8 ::/127 10.0.0.0/8", "1-65535");
    struct sockaddr_storage l = endpoint("127.0.0.1", 8484);
    assert_true(endpoint_allowed(&p, "127.0.0.1", 8484));
    assert_int_equal(address_policy_refuse_listener(&p, (struct sockaddr *)&l), 0);
    assert_false(endpoint_allowed(&p, "127.0.0.1", 8484));
    assert_false(endpoint_allowed(&p, "::ffff:127.0.0.1", 8484));
    assert_false(endpoint_allowed(&p, "0.0.0.0", 8484));
    assert_false(endpoint_allowed(&p, "::", 8484));
    assert_true(endpoint_allowed(&p, "127.0.0.1", 8485));
    assert_true(endpoint_allowed(&p, "127.0.0.2", 8484));
    assert_true(endpoint_allowed(&p, "10.0.0.1", 8484));
    assert_url(&p, true, "http://127.0.0.1:8484/", false);
    assert_url(&p, true, "http://127.1:8484/", false);
    assert_url(&p, true, "http://127.0.0.1:8485/", true);
    assert_url(&p, true, "http://localhost:8484/", true); /* judged once resolved */
    struct sockaddr_storage resolved = endpoint("127.0.0.1", 0);
    const char *reason;
    assert_int_equal(address_judge_resolved(&p, &resolved, 1, 8484, &reason), -EPERM);
    assert_int_equal(address_judge_resolved(&p, &resolved, 1, 8485, &reason), 0);
}

static void test_own_listener_everywhere(void **state) {
    (void)state;
    static const char *const wildcards[] = {"0.0.0.0", "::"};
    for (size_t i = 0; i < COUNT(wildcards); i++) {
        struct address_policy p = policy("127.0.0.0/8 ::1", "8000-9000");
        struct sockaddr_storage l = endpoint(wildcards[i], 8484), public = endpoint("93.184.216.34", 8484);
        assert_int_equal(address_policy_refuse_listener(&p, (struct sockaddr *)&l), 0);
        assert_int_equal(address_policy_refuse_listener(&p, (struct sockaddr *)&public), 0);
        assert_false(endpoint_allowed(&p, "127.0.0.1", 8484));
        assert_false(endpoint_allowed(&p, "127.9.9.9", 8484));
        assert_false(endpoint_allowed(&p, "::1", 8484));
        assert_false(endpoint_allowed(&p, "93.184.216.34", 8484));
        assert_true(endpoint_allowed(&p, "93.184.216.35", 8484));
        assert_true(endpoint_allowed(&p, "127.0.0.1", 8485));
    }
}

static void test_malformed_listeners(void **state) {
    (void)state;
    struct address_policy p = {0};
    struct sockaddr_storage no_port = endpoint("127.0.0.1", 0), no_ip = {.ss_family = AF_UNIX};
    assert_int_equal(address_policy_refuse_listener(&p, (struct sockaddr *)&no_port), -EINVAL);
    assert_int_equal(address_policy_refuse_listener(&p, (struct sockaddr *)&no_ip), -EINVAL);
    assert_int_equal(p.listener_count, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cases_files),
        cmocka_unit_test(test_edges_of_ranges),
        cmocka_unit_test(test_public_addresses),
        cmocka_unit_test(test_mapped_is_judged_as_ipv4),
        cmocka_unit_test(test_reasons_name_the_range),
        cmocka_unit_test(test_allowed_cidrs),
        cmocka_unit_test(test_whole_families),
        cmocka_unit_test(test_wrapped_addresses),
        cmocka_unit_test(test_malformed_cidrs),
        cmocka_unit_test(test_lists_are_bounded),
        cmocka_unit_test(test_ports),
        cmocka_unit_test(test_malformed_ports),
        cmocka_unit_test(test_schemes),
        cmocka_unit_test(test_spellings_of_loopback),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_resolved),
        cmocka_unit_test(test_endpoint_family),
        cmocka_unit_test(test_own_listener),
        cmocka_unit_test(test_own_listener_everywhere),
        cmocka_unit_test(test_malformed_listeners),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
