#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>

#include "api/base64url.h"

/* RFC 4648 §10, without the padding. */
static const char *const vectors[][2] = {
    {"", ""},           {"f", "Zg"},          {"fo", "Zm8"},          {"foo", "Zm9v"},
    {"foob", "Zm9vYg"}, {"fooba", "Zm9vYmE"}, {"foobar", "Zm9vYmFy"}, {"\xfb\xff\xfe", "-__-"},
};

static void test_vectors(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++) {
        char text[16], back[8];
        size_t n = strlen(vectors[i][0]);
        assert_true(BASE64URL_SIZE(n) <= sizeof text);
        base64url_encode(vectors[i][0], n, text);
        assert_string_equal(text, vectors[i][1]);
        assert_int_equal(base64url_decode(slice_of(text), back, n), 0);
        assert_memory_equal(back, vectors[i][0], n);
    }
}

static void test_refused(void **state) {
    (void)state;
    char back[4];
    const char *const bad[] = {"Zm9", "Zm9vY", "Zm9+", "Zm9/", "Zm9=", "Zm 9", "Zm9v\n", ""};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(base64url_decode(slice_of(bad[i]), back, 3), -EINVAL);
    /* Bits past the last byte must be zero, so that a text stands for one value only. */
    assert_int_equal(base64url_decode(SLICE_LIT("Zh"), back, 1), -EINVAL);
    assert_int_equal(base64url_decode(SLICE_LIT("Zm9"), back, 2), -EINVAL);
    assert_int_equal(base64url_decode((struct slice){"Zm\0v", 4}, back, 3), -EINVAL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vectors),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
