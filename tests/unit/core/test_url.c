#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>

#include "core/url.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static void assert_slice(struct slice s, const char *expected) {
    _cleanup_free_ char *text = slice_dup(s);
    assert_string_equal(text, expected);
}

static void assert_canonical(const char *text, const char *canonical) {
    _cleanup_url_ struct url u = {0};
    const char *reason = NULL;
    if (url_parse(slice_of(text), &u, &reason) != 0)
        fail_msg("%s: %s", text, reason);
    assert_string_equal(u.text, canonical);
    _cleanup_url_ struct url again = {0};
    assert_int_equal(url_parse(slice_of(u.text), &again, &reason), 0);
    assert_string_equal(again.text, u.text);
}

static void assert_refused(struct slice text, const char *part_of_reason) {
    struct url u = {.port = 7};
    const char *reason = NULL;
    if (url_parse(text, &u, &reason) != -EINVAL)
        fail_msg("%.*s is accepted as %s", SLICE_ARG(text), u.text);
    if (!strstr(reason, part_of_reason))
        fail_msg("%.*s: \"%s\" lacks \"%s\"", SLICE_ARG(text), reason, part_of_reason);
    assert_int_equal(u.port, 7);
    assert_null(u.text);
}

static void test_parts(void **state) {
    (void)state;
    _cleanup_url_ struct url u = {0};
    const char *reason;
    assert_int_equal(url_parse(SLICE_LIT("HTTPS://Hooks.Example.COM.:8443/a/%2e%2e/B?q=@:[]/x"), &u, &reason),
                     0);
    assert_string_equal(u.text, "https://hooks.example.com:8443/a/%2e%2e/B?q=@:[]/x");
    assert_int_equal(u.scheme, URL_HTTPS);
    assert_int_equal(u.port, 8443);
    assert_false(u.is_literal);
    assert_slice(u.host, "hooks.example.com");
    assert_slice(u.authority, "hooks.example.com:8443");
    assert_slice(u.target, "/a/%2e%2e/B?q=@:[]/x");
}

static void test_parts_of_ipv6(void **state) {
    (void)state;
    _cleanup_url_ struct url u = {0};
    const char *reason;
    assert_int_equal(url_parse(SLICE_LIT("http://[2606:4700:4700:0:0:0:0:1111]:81?x"), &u, &reason), 0);
    assert_int_equal(u.scheme, URL_HTTP);
    assert_int_equal(u.port, 81);
    assert_true(u.is_literal);
    assert_slice(u.host, "2606:4700:4700::1111");
    assert_slice(u.authority, "[2606:4700:4700::1111]:81");
    assert_slice(u.target, "/?x");
    struct in6_addr expected;
    assert_int_equal(inet_pton(AF_INET6, "2606:4700:4700::1111", &expected), 1);
    assert_memory_equal(&u.address, &expected, sizeof expected);
}

static void test_ipv4_is_held_mapped(void **state) {
    (void)state;
    _cleanup_url_ struct url u = {0};
    const char *reason;
    assert_int_equal(url_parse(SLICE_LIT("http://8.8.4.4/"), &u, &reason), 0);
    struct in6_addr expected;
    assert_int_equal(inet_pton(AF_INET6, "::ffff:8.8.4.4", &expected), 1);
    assert_true(u.is_literal);
    assert_memory_equal(&u.address, &expected, sizeof expected);
}

static void test_canonical(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"https://example.com", "https://example.com/"},
        {"https://example.com?", "https://example.com/?"},
        {"https://example.com?a=/b", "https://example.com/?a=/b"},
        {"https://example.com:443/", "https://example.com/"},
        {"http://example.com:80/", "http://example.com/"},
        {"http://example.com:443/", "http://example.com:443/"},
        {"https://example.com:80/", "https://example.com:80/"},
        {"https://example.com:65535/", "https://example.com:65535/"},
        {"https://example.com:1/", "https://example.com:1/"},
        {"https://example.com./", "https://example.com/"},
        {"https://EXAMPLE.com/Path", "https://example.com/Path"},
        {"https://example.com//a//b", "https://example.com//a//b"},
        {"https://example.com/a/../b/./c", "https://example.com/a/../b/./c"},
        {"https://example.com/a%0d%0ab", "https://example.com/a%0d%0ab"},
        {"https://example.com/?u=https://user@other/", "https://example.com/?u=https://user@other/"},
        {"https://xn--mnchen-3ya.example/", "https://xn--mnchen-3ya.example/"},
        {"https://under_score.example/", "https://under_score.example/"},
        {"https://intranet/", "https://intranet/"},
        {"https://1.example/", "https://1.example/"},
        {"https://127.0.0.1.example/", "https://127.0.0.1.example/"},
        {"https://0x7f.example/", "https://0x7f.example/"},
        {"https://7f/", "https://7f/"},
        {"https://0x7g/", "https://0x7g/"},
        {"https://1e3/", "https://1e3/"},
        {"https://[::]/", "https://[::]/"},
        {"https://[0:0:0:0:0:0:0:1]/", "https://[::1]/"},
        {"https://[::0001]/", "https://[::1]/"},
        {"https://[FE80::ABCD]/", "https://[fe80::abcd]/"},
        {"https://[1:0:0:2:0:0:0:3]/", "https://[1:0:0:2::3]/"},
        {"https://[64:ff9b::1.2.3.4]/", "https://[64:ff9b::102:304]/"},
        {"https://[::ffff:127.0.0.1]/", "https://127.0.0.1/"},
        {"https://[::FFFF:7f00:1]:8080/", "https://127.0.0.1:8080/"},
        {"https://[0:0:0:0:0:ffff:a9fe:a9fe]/", "https://169.254.169.254/"},
    };
    for (size_t i = 0; i < COUNT(cases); i++)
        assert_canonical(cases[i][0], cases[i][1]);
}

/* Every spelling that inet_aton(3) reads is read as the same address. */
static void test_ipv4_spellings(void **state) {
    (void)state;
    static const char *const spellings[] = {"127.0.0.1",
                                            "127.1",
                                            "127.0.1",
                                            "2130706433",
                                            "017700000001",
                                            "0x7f000001",
                                            "0x7F.1",
                                            "0177.0.0.1",
                                            "0177.0.0x1",
                                            "0x7f.0.0.01",
                                            "127.0x1",
                                            "127.65535",
                                            "127.16777215",
                                            "0",
                                            "0.0",
                                            "00",
                                            "0.0.0.0",
                                            "0xffffffff",
                                            "4294967295",
                                            "037777777777",
                                            "255.255.65535",
                                            "1.2.3.4",
                                            "01.02.03.04",
                                            "0x1.0x2.0x3.0x4",
                                            "10.1",
                                            "0300.0250.1",
                                            "0xA9FEA9FE",
                                            "2852039166",
                                            "0251.254.169.254",
                                            "00000000000000000000000177.0.0.1",
                                            "0x000000000000000000007f.1"};
    for (size_t i = 0; i < COUNT(spellings); i++) {
        struct in_addr expected;
        char dotted[INET_ADDRSTRLEN], text[128], canonical[64];
        assert_int_not_equal(inet_aton(spellings[i], &expected), 0);
        assert_non_null(inet_ntop(AF_INET, &expected, dotted, sizeof dotted));
        snprintf(canonical, sizeof canonical, "http://%s/", dotted);
        snprintf(text, sizeof text, "http://%s/", spellings[i]);
        assert_canonical(text, canonical);
        snprintf(text, sizeof text, "http://%s./", spellings[i]);
        assert_canonical(text, canonical);
        snprintf(text, sizeof text, "http://%s:80", spellings[i]);
        assert_canonical(text, canonical);
    }
}

static void test_refusals(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"", "empty"},
        {"example.com", "begin with https://"},
        {"https", "begin with https://"},
        {"https:", "begin with https://"},
        {"https:/example.com/", "begin with https://"},
        {"https:example.com/", "begin with https://"},
        {"//example.com/", "begin with https://"},
        {"httpss://example.com/", "begin with https://"},
        {"ftp://x/", "begin with https://"},
        {"file:///etc/passwd", "begin with https://"},
        {"gopher://x/", "begin with https://"},
        {"javascript:alert(1)", "begin with https://"},
        {"https://", "must have a host"},
        {"https:///x", "must have a host"},
        {"https://?x", "must have a host"},
        {"https://:443/", "must have a host"},
        {"https://./", "must have a host"},
        {"https://../", "labels"},
        {"https://a../", "labels"},
        {"https://.a/", "labels"},
        {"https://a..b/", "labels"},
        {"https://user@example.com/", "user information"},
        {"https://user:pass@example.com/", "user information"},
        {"https://@example.com/", "user information"},
        {"https://example.com@127.0.0.1/", "user information"},
        {"https://example.com:80@127.0.0.1/", "user information"},
        {"https://example.com:0/", "port"},
        {"https://example.com:/", "port"},
        {"https://example.com:65536/", "port"},
        {"https://example.com:99999999999999999999/", "port"},
        {"https://example.com:080/", "port"},
        {"https://example.com:+80/", "port"},
        {"https://example.com:-1/", "port"},
        {"https://example.com:0x50/", "port"},
        {"https://example.com:80:80/", "port"},
        {"https://::1/", "port"},
        {"https://example.com/#", "fragment"},
        {"https://example.com#@127.0.0.1/", "fragment"},
        {"https://example.com/a b", "spaces"},
        {" https://example.com/", "spaces"},
        {"https://example.com/ ", "spaces"},
        {"https://example.com/\n", "control"},
        {"https://exa\tmple.com/", "control"},
        {"https://example.com/\r\nHost: x", "control"},
        {"https://example.com/\x7f", "control"},
        {"https://example.com\\@127.0.0.1/", "backslash"},
        {"https:\\\\example.com/", "backslash"},
        {"https://example.com/\\", "backslash"},
        {"https://m\xc3\xbcnchen.example/", "ASCII"},
        {"https://\xef\xbc\x91\xef\xbc\x92\xef\xbc\x97.0.0.1/", "ASCII"}, /* fullwidth digits */
        {"https://\xe2\x91\xa0\xe2\x91\xa1\xe2\x91\xa6.0.0.1/", "ASCII"}, /* circled digits */
        {"https://127\xe3\x80\x82"
         "0.0.1/",
         "ASCII"}, /* ideographic full stop */
        {"https://example.com/\xc3\xbc", "ASCII"},
        {"https://127%2e0.0.1/", "percent-encode the host"},
        {"https://%31%32%37.0.0.1/", "percent-encode the host"},
        {"https://exa%6dple.com/", "percent-encode the host"},
        {"https://exa,mple.com/", "letters, digits"},
        {"https://a;b/", "letters, digits"},
        {"https://a|b/", "letters, digits"},
        {"https://$host/", "letters, digits"},
        {"https://256.0.0.1/", "IPv4"},
        {"https://1.2.3.256/", "IPv4"},
        {"https://1.2.3.4.5/", "IPv4"},
        {"https://1.2.65536/", "IPv4"},
        {"https://1.16777216/", "IPv4"},
        {"https://4294967296/", "IPv4"},
        {"https://0x100000000/", "IPv4"},
        {"https://99999999999999999999999999/", "IPv4"},
        {"https://08/", "IPv4"},
        {"https://127.0.0.09/", "IPv4"},
        {"https://0x/", "IPv4"},
        {"https://127.0x/", "IPv4"},
        {"https://example.1/", "IPv4"},
        {"https://x.1/", "IPv4"},
        {"https://example.0x7f/", "IPv4"},
        {"https://a.b.c.1./", "IPv4"},
        {"https://1.2.3.4../", "labels"},
        {"https://[]/", "IPv6"},
        {"https://[::1/", "bracket"},
        {"https://[/", "bracket"},
        {"https://::1]/", "port"},
        {"https://[::1]x/", "after the host"},
        {"https://[::1].example.com/", "after the host"},
        {"https://[::1]80/", "after the host"},
        {"https://[:::1]/", "IPv6"},
        {"https://[1:2:3:4:5:6:7]/", "IPv6"},
        {"https://[1:2:3:4:5:6:7:8:9]/", "IPv6"},
        {"https://[12345::]/", "IPv6"},
        {"https://[::g]/", "IPv6"},
        {"https://[::ffff:256.0.0.1]/", "IPv6"},
        {"https://[::ffff:0x7f.1]/", "IPv6"},
        {"https://[127.0.0.1]/", "IPv6"},
        {"https://[v1.x]/", "IPv6"},
        {"https://[example.com]/", "IPv6"},
        {"https://[fe80::1%25eth0]/", "zone"},
        {"https://[fe80::1%eth0]/", "zone"},
        {"https://[[::1]]/", "after the host"},
        {"https://[0000000000000000000000000000000000000000000000000000::1]/", "IPv6"},
    };
    for (size_t i = 0; i < COUNT(cases); i++)
        assert_refused(slice_of(cases[i][0]), cases[i][1]);
}

static void test_nul_is_a_control_character(void **state) {
    (void)state;
    assert_refused(SLICE_LIT("https://example.com\0.evil.example/"), "control");
    assert_refused(SLICE_LIT("https://example.com/\0"), "control");
}

static void test_lengths(void **state) {
    (void)state;
    char text[URL_LENGTH_MAX + 2];
    const char *reason;
    memset(text, 'a', sizeof text);
    memcpy(text, "https://x/", 10);
    _cleanup_url_ struct url longest = {0};
    assert_int_equal(url_parse((struct slice){text, URL_LENGTH_MAX}, &longest, &reason), 0);
    assert_refused((struct slice){text, URL_LENGTH_MAX + 1}, "2048");
    /* The canonical form is longer than what was given. */
    memcpy(text, "https://1/", 10);
    assert_refused((struct slice){text, URL_LENGTH_MAX}, "2048");
    memcpy(text, "https://x?", 10);
    assert_refused((struct slice){text, URL_LENGTH_MAX}, "2048");
}

static void test_host_lengths(void **state) {
    (void)state;
    char host[URL_HOST_MAX + 2], text[URL_HOST_MAX + 16];
    for (size_t i = 0; i < sizeof host; i++)
        host[i] = i % 64 == 63 ? '.' : 'a';
    snprintf(text, sizeof text, "https://%.*s/", URL_HOST_MAX, host);
    assert_canonical(text, text);
    snprintf(text, sizeof text, "https://%.*s/", URL_HOST_MAX + 1, host);
    assert_refused(slice_of(text), "253");
    memset(host, 'a', sizeof host);
    snprintf(text, sizeof text, "https://%.*s/", 63, host);
    assert_canonical(text, text);
    snprintf(text, sizeof text, "https://%.*s/", 64, host);
    assert_refused(slice_of(text), "labels");
    snprintf(text, sizeof text, "https://%.*s.b/", 64, host);
    assert_refused(slice_of(text), "labels");
}

static void test_free_twice(void **state) {
    (void)state;
    struct url u;
    const char *reason;
    assert_int_equal(url_parse(SLICE_LIT("https://example.com"), &u, &reason), 0);
    url_free(&u);
    assert_null(u.text);
    url_free(&u);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parts),
        cmocka_unit_test(test_parts_of_ipv6),
        cmocka_unit_test(test_ipv4_is_held_mapped),
        cmocka_unit_test(test_canonical),
        cmocka_unit_test(test_ipv4_spellings),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_nul_is_a_control_character),
        cmocka_unit_test(test_lengths),
        cmocka_unit_test(test_host_lengths),
        cmocka_unit_test(test_free_twice),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
