#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/bytes.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static void test_slice_comparisons(void **state) {
    (void)state;
    assert_true(slice_eq(SLICE_LIT("ab"), slice_of("ab")));
    assert_false(slice_eq(SLICE_LIT("ab"), SLICE_LIT("aB")));
    assert_true(slice_eq(SLICE_NONE, SLICE_LIT("")));
    assert_true(slice_eq_nocase(SLICE_LIT("Webhook-ID"), SLICE_LIT("wEBHOOK-id")));
    assert_false(slice_eq_nocase(SLICE_LIT("abc"), SLICE_LIT("ab")));
    assert_true(slice_starts_with(SLICE_LIT("posthorn.x"), SLICE_LIT("posthorn.")));
    assert_false(slice_starts_with(SLICE_LIT("posthorn"), SLICE_LIT("posthorn.")));
    assert_true(slice_starts_with(SLICE_NONE, SLICE_NONE));
}

static void test_nocase_looks_past_nul(void **state) {
    (void)state;
    assert_false(slice_eq_nocase(SLICE_LIT("a\0b"), SLICE_LIT("a\0c")));
    assert_true(slice_eq_nocase(SLICE_LIT("a\0B"), SLICE_LIT("A\0b")));
}

static void test_nocase_is_of_letters_only(void **state) {
    (void)state;
    assert_false(slice_eq_nocase(SLICE_LIT("@["), SLICE_LIT("`{")));
    assert_false(slice_eq_nocase(SLICE_LIT("\xC3\x84"), SLICE_LIT("\xC3\xA4")));
}

static void test_slice_dup(void **state) {
    (void)state;
    _cleanup_free_ char *copy = slice_dup((struct slice){"abcdef", 3});
    assert_string_equal(copy, "abc");
    assert_null(slice_dup(SLICE_NONE));
    _cleanup_free_ char *empty = slice_dup(SLICE_LIT(""));
    assert_string_equal(empty, "");
}

static void test_buf_grows(void **state) {
    (void)state;
    _cleanup_buf_ struct buf b = {0};
    for (int i = 0; i < 10000; i++)
        buf_addf(&b, "%d,", i);
    assert_true(buf_ok(&b));
    assert_int_equal(b.n, 48890);
    assert_int_equal(strlen(b.p), b.n);
    assert_memory_equal(b.p + b.n - 5, "9999,", 6);
    buf_reset(&b);
    assert_int_equal(b.n, 0);
    assert_string_equal(b.p, "");
    buf_add(&b, "a\0b", 3);
    assert_true(slice_eq(buf_slice(&b), SLICE_LIT("a\0b")));
}

static void test_empty_buf_is_a_text(void **state) {
    (void)state;
    struct buf b = {0};
    assert_string_equal(buf_slice(&b).p, "");
    buf_add_slice(&b, SLICE_NONE);
    assert_string_equal(b.p, "");
    buf_free(&b);
    assert_null(b.p);
    buf_free(&b);
}

static void test_limit_keeps_what_was_there(void **state) {
    (void)state;
    _cleanup_buf_ struct buf b = {.limit = 5};
    buf_add_str(&b, "12345");
    assert_true(buf_ok(&b));
    buf_add_char(&b, '6');
    assert_false(buf_ok(&b));
    assert_string_equal(b.p, "12345");
    buf_add_str(&b, "");
    assert_false(buf_ok(&b));
    buf_reset(&b);
    assert_true(buf_ok(&b));
    buf_addf(&b, "%s", "123456");
    assert_false(buf_ok(&b));
    assert_int_equal(b.n, 0);
}

static void test_json_string(void **state) {
    (void)state;
    static const struct {
        struct slice text;
        const char *json;
    } cases[] = {
        {{"", 0}, "\"\""},
        {{NULL, 0}, "\"\""},
        {{"plain", 5}, "\"plain\""},
        {{"a\"b\\c/d", 7}, "\"a\\\"b\\\\c/d\""},
        {{"\n\r\t\b\f\x01\x1f\0\x7f", 9}, "\"\\n\\r\\t\\u0008\\u000c\\u0001\\u001f\\u0000\x7f\""},
        {{"é€😀", 9}, "\"é€😀\""},
        {{"\xff", 1}, "\"\xEF\xBF\xBD\""},
        {{"a\xC3", 2}, "\"a\xEF\xBF\xBD\""},                                                 /* cut short */
        {{"\xC0\xAF", 2}, "\"\xEF\xBF\xBD\xEF\xBF\xBD\""},                                   /* overlong */
        {{"\xED\xA0\x80", 3}, "\"\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\""},                   /* a surrogate */
        {{"\xF4\x90\x80\x80x", 5}, "\"\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBDx\""}, /* too great */
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        _cleanup_buf_ struct buf b = {0};
        buf_add_json_string(&b, cases[i].text);
        assert_string_equal(b.p, cases[i].json);
    }
}

static void test_blob(void **state) {
    (void)state;
    _cleanup_blob_ struct blob *b = blob_of(SLICE_LIT("a\0b"));
    assert_non_null(b);
    assert_true(slice_eq(blob_slice(b), SLICE_LIT("a\0b")));
    assert_int_equal(b->p[b->n], 0);
    struct blob *again = blob_ref(b);
    assert_ptr_equal(again, b);
    blob_unref(again);
    assert_int_equal(atomic_load(&b->refs), 1);
    _cleanup_blob_ struct blob *empty = blob_of(SLICE_NONE);
    assert_int_equal(empty->n, 0);
    blob_unref(NULL);
}

static void test_hex(void **state) {
    (void)state;
    char out[9];
    hex_encode("\x00\x0f\xf0\xff", 4, out);
    assert_string_equal(out, "000ff0ff");
    hex_encode("", 0, out);
    assert_string_equal(out, "");
}

/* The values are on disk: they must never change. */
static void test_hash_is_stable(void **state) {
    (void)state;
    static const struct {
        struct slice text;
        uint64_t hash;
    } cases[] = {
        {{"", 0}, 0xe220a8397b1dcdaf},
        {{"a", 1}, 0x6232969000262121},
        {{"a\0", 2}, 0x4f5da978776a9db1},
        {{"12345678", 8}, 0x27a6056c50d5ed18},
        {{"customer-42/order-7", 19}, 0xc5fd05d0f6aadba8},
    };
    for (size_t i = 0; i < COUNT(cases); i++)
        if (hash64(cases[i].text.p, cases[i].text.n) != cases[i].hash)
            fail_msg("the hash of case %zu is 0x%016llx now", i,
                     (unsigned long long)hash64(cases[i].text.p, cases[i].text.n));
}

static void test_hash_does_not_care_where_bytes_stand(void **state) {
    (void)state;
    char room[64];
    uint64_t expected = hash64("customer-42/order-7", 19);
    for (size_t i = 0; i < 16; i++) {
        memcpy(room + i, "customer-42/order-7", 19);
        assert_true(hash64(room + i, 19) == expected);
    }
}

static void test_wiping(void **state) {
    (void)state;
    struct buf b = {0};
    buf_wipe(&b);
    buf_add_str(&b, "a secret");
    buf_wipe(&b);
    assert_true(!b.p && !b.n && !b.cap);
    wipe_free(NULL);
    wipe_free(slice_dup(SLICE_LIT("a secret")));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_slice_comparisons),
        cmocka_unit_test(test_nocase_looks_past_nul),
        cmocka_unit_test(test_nocase_is_of_letters_only),
        cmocka_unit_test(test_slice_dup),
        cmocka_unit_test(test_buf_grows),
        cmocka_unit_test(test_empty_buf_is_a_text),
        cmocka_unit_test(test_limit_keeps_what_was_there),
        cmocka_unit_test(test_json_string),
        cmocka_unit_test(test_wiping),
        cmocka_unit_test(test_blob),
        cmocka_unit_test(test_hex),
        cmocka_unit_test(test_hash_is_stable),
        cmocka_unit_test(test_hash_does_not_care_where_bytes_stand),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
