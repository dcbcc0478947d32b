#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include <errno.h>

#include "ingest/source_url.h"

static struct mysql_url parse(const char *text) {
    struct mysql_url u;
    const char *why = "";
    if (mysql_url_parse(text, &u, &why) != 0)
        fail_msg("%s: refused: %s", text, why);
    return u;
}

static void assert_text(const char *got, const char *expected) {
    if (expected)
        assert_string_equal(got ? got : "(none)", expected);
    else
        assert_null(got);
}

static void all_parts(void **state) {
    (void)state;
    struct mysql_url u = parse(
        "mysql://re%40lay:p%2Fa%3As%25s@db.example.com:3307/shop?ssl-mode=verify&ssl-ca=%2Fetc%2Fca.pem");
    assert_text(u.user, "re@lay");
    assert_text(u.password, "p/a:s%s");
    assert_text(u.host, "db.example.com");
    assert_text(u.database, "shop");
    assert_text(u.ssl_ca, "/etc/ca.pem");
    assert_text(u.socket, NULL);
    assert_int_equal(u.port, 3307);
    assert_int_equal(u.ssl, MYSQL_SSL_VERIFY);
    mysql_url_free(&u);
}

static void a_socket(void **state) {
    (void)state;
    struct mysql_url u = parse("mariadb://relay@localhost/shop?socket=/run/mysqld/mysqld.sock");
    assert_text(u.socket, "/run/mysqld/mysqld.sock");
    assert_text(u.password, NULL);
    assert_int_equal(u.port, 0);
    assert_int_equal(u.ssl, MYSQL_SSL_PREFERRED);
    mysql_url_free(&u);
}

static void what_is_wrong_is_told_without_the_url(void **state) {
    (void)state;
    static const struct {
        const char *url, *word;
    } bad[] = {
        {"mysql://u:s3cret@host", "names no database"},
        {"mysql://u:s3cret@host/", "names no database"},
        {"mysql:///shop", "names no database"},
        {"mysql://u:s3cret@host/shop?ssl-mode=maybe", "ssl-mode"},
        {"mysql://u:s3cret@host/shop?colour=red", "parameter other than"},
        {"mysql://u:s3cret@host/shop?socket", "NAME=VALUE"},
        {"mysql://u:s3cret@host/shop?ssl-mode=disabled&ssl-ca=/a", "of no use"},
        {"mysql://u:s3cret@host:port/shop", "cannot be read"},
        {"mysql://u:s3cret@ho st/shop", "cannot be read"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct mysql_url u;
        const char *why = "";
        assert_int_equal(mysql_url_parse(bad[i].url, &u, &why), -EINVAL);
        if (!strstr(why, bad[i].word) || strstr(why, "s3cret"))
            fail_msg("%s: %s", bad[i].url, why);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_parts),
        cmocka_unit_test(a_socket),
        cmocka_unit_test(what_is_wrong_is_told_without_the_url),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
