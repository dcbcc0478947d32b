/* Sealing: a published vector, and everything that must not open. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "core/seal.h"

static const uint8_t nonce[SEAL_NONCE_SIZE] = "nonce 1 2 3";

static struct seal_key key_of(uint8_t filling) {
    uint8_t bytes[SEAL_KEY_SIZE];
    struct seal_key key;
    memset(bytes, filling, sizeof bytes);
    assert_int_equal(seal_key_of_bytes(bytes, &key), 0);
    return key;
}

/* McGrew and Viega, "The Galois/Counter Mode of Operation", test case 14. */
static void test_published_vector(void **state) {
    (void)state;
    static const uint8_t zeros[16],
        expected[32] = {0xce, 0xa7, 0x40, 0x3d, 0x4d, 0x60, 0x6b, 0x6e, 0x07, 0x4e, 0xc5,
                        0xd3, 0xba, 0xf3, 0x9d, 0x18, 0xd0, 0xd1, 0xc8, 0xa7, 0x99, 0x99,
                        0x6b, 0xf0, 0x26, 0x5b, 0x98, 0xb5, 0xd4, 0x8a, 0xb9, 0x19};
    struct seal_key key = key_of(0);
    uint8_t sealed[16 + SEAL_OVERHEAD];
    assert_int_equal(seal(&key, zeros, SLICE_LIT(""), (struct slice){(const char *)zeros, 16}, sealed), 0);
    assert_memory_equal(sealed + 1 + SEAL_NONCE_SIZE, expected, sizeof expected);
}

static int open_text(const struct seal_key *key, struct slice context, const uint8_t *sealed, size_t n,
                     char *out, size_t size) {
    size_t got = 0;
    int r = seal_open(key, context, (struct slice){(const char *)sealed, n}, (uint8_t *)out, size, &got);
    if (r == 0)
        out[got] = '\0';
    return r;
}

static void test_what_was_sealed_opens(void **state) {
    (void)state;
    struct seal_key key = key_of(7);
    static const struct slice texts[] = {
        {"", 0}, {"s", 1}, {"a secret of some length, more than one block", 44}};
    for (size_t i = 0; i < 3; i++) {
        uint8_t sealed[64 + SEAL_OVERHEAD];
        char out[65];
        assert_int_equal(seal(&key, nonce, SLICE_LIT("row 1"), texts[i], sealed), 0);
        assert_int_equal(open_text(&key, SLICE_LIT("row 1"), sealed, texts[i].n + SEAL_OVERHEAD, out, 64), 0);
        assert_string_equal(out, texts[i].p);
    }
}

static void test_every_changed_bit_is_noticed(void **state) {
    (void)state;
    struct seal_key key = key_of(7);
    enum { N = 24, SEALED = N + SEAL_OVERHEAD };
    uint8_t sealed[SEALED];
    assert_int_equal(seal(&key, nonce, SLICE_LIT("row 1"), SLICE_LIT("twenty-four secret bytes"), sealed), 0);
    for (size_t bit = 0; bit < (size_t)SEALED * 8; bit++) {
        char out[N + 1] = "untouched";
        sealed[bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_int_equal(open_text(&key, SLICE_LIT("row 1"), sealed, SEALED, out, N), -EBADMSG);
        assert_null(strstr(out, "secret"));
        sealed[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
}

static void test_what_must_not_open(void **state) {
    (void)state;
    struct seal_key key = key_of(7), other = key_of(8);
    enum { N = 24, SEALED = N + SEAL_OVERHEAD };
    uint8_t sealed[SEALED];
    char out[N + 1];
    assert_int_equal(seal(&key, nonce, SLICE_LIT("row 1"), SLICE_LIT("twenty-four secret bytes"), sealed), 0);
    assert_int_equal(open_text(&other, SLICE_LIT("row 1"), sealed, SEALED, out, N), -EBADMSG);
    assert_int_equal(open_text(&key, SLICE_LIT("row 2"), sealed, SEALED, out, N), -EBADMSG);
    assert_int_equal(open_text(&key, SLICE_LIT(""), sealed, SEALED, out, N), -EBADMSG);
    assert_int_equal(open_text(&key, SLICE_LIT("row 1"), sealed, SEALED - 1, out, N), -EBADMSG);
    assert_int_equal(open_text(&key, SLICE_LIT("row 1"), sealed, SEAL_OVERHEAD - 1, out, N), -EBADMSG);
    assert_int_equal(open_text(&key, SLICE_LIT("row 1"), sealed, 0, out, N), -EBADMSG);
    assert_int_equal(open_text(&key, SLICE_LIT("row 1"), sealed, SEALED, out, N - 1), -EMSGSIZE);
}

static void test_forms_of_a_key(void **state) {
    (void)state;
    static const char *const same[] = {
        "fbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfb",
        "FBFBFBFBFBFBFBFBFBFBFBFBFBFBFBFBFBFBFBFBFBFBFBFBFBFBFBFBFBFBFBFB",
        "+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/s=",
        "+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/s",
        "-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_s",
    };
    static const char *const none[] = {
        "",
        "short",
        "fbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfb",
        "xbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfbfb",
        "+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/==",
        "+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7",
        "+/v7+/v7+/v7+/v7+/v7 /v7+/v7+/v7+/v7+/v7+/s=",
    };
    struct seal_key expected = key_of(0xfb), got;
    for (size_t i = 0; i < sizeof same / sizeof same[0]; i++) {
        assert_int_equal(seal_key_parse(slice_of(same[i]), &got), 0);
        assert_memory_equal(got.bytes, expected.bytes, SEAL_KEY_SIZE);
        assert_memory_equal(got.fingerprint, expected.fingerprint, SEAL_FINGERPRINT_SIZE);
    }
    for (size_t i = 0; i < sizeof none / sizeof none[0]; i++)
        assert_int_equal(seal_key_parse(slice_of(none[i]), &got), -EINVAL);
}

static void test_derived_keys(void **state) {
    (void)state;
    const uint8_t bytes[SEAL_KEY_SIZE] = {1}, others[SEAL_KEY_SIZE] = {2};
    struct seal_key a, b;
    assert_int_equal(seal_key_derive(bytes, SLICE_LIT("a"), &a), 0);
    assert_int_equal(seal_key_derive(bytes, SLICE_LIT("a"), &b), 0);
    assert_memory_equal(a.bytes, b.bytes, SEAL_KEY_SIZE);
    assert_int_equal(seal_key_derive(bytes, SLICE_LIT("b"), &b), 0);
    assert_memory_not_equal(a.bytes, b.bytes, SEAL_KEY_SIZE);
    assert_int_equal(seal_key_derive(others, SLICE_LIT("a"), &b), 0);
    assert_memory_not_equal(a.bytes, b.bytes, SEAL_KEY_SIZE);
}

static void test_keyring(void **state) {
    (void)state;
    struct seal_keyring ring = {.keys = {key_of(1), key_of(2)}, .n = 2};
    struct seal_key other = key_of(3);
    assert_int_equal(seal_keyring_find(&ring, (struct slice){(char *)ring.keys[1].fingerprint, 16}), 1);
    assert_int_equal(seal_keyring_find(&ring, (struct slice){(char *)other.fingerprint, 16}), -ENOENT);
    assert_int_equal(seal_keyring_find(&ring, (struct slice){(char *)ring.keys[1].fingerprint, 15}), -ENOENT);
    seal_keyring_wipe(&ring);
    static const struct seal_keyring empty;
    assert_memory_equal(&ring, &empty, sizeof ring);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_published_vector),
        cmocka_unit_test(test_what_was_sealed_opens),
        cmocka_unit_test(test_every_changed_bit_is_noticed),
        cmocka_unit_test(test_what_must_not_open),
        cmocka_unit_test(test_forms_of_a_key),
        cmocka_unit_test(test_derived_keys),
        cmocka_unit_test(test_keyring),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
