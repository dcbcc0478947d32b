/* Receipt tokens: each names its attempt, and cannot be made without the key. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "core/receipt.h"

static const uint8_t key[RECEIPT_KEY_SIZE] = {1, 2, 3}, other_key[RECEIPT_KEY_SIZE] = {1, 2, 4};

static void test_a_token_tells_its_attempt(void **state) {
    (void)state;
    static const uint32_t numbers[] = {1, 2, 24, 0xffffffff};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        char token[RECEIPT_TOKEN_SIZE];
        uint32_t number = 0;
        receipt_token(key, 77, 5, numbers[i], token);
        assert_int_equal(strlen(token), RECEIPT_TOKEN_SIZE - 1);
        assert_true(receipt_token_valid(key, 77, 5, slice_of(token), &number));
        assert_int_equal(number, numbers[i]);
        assert_false(receipt_token_valid(other_key, 77, 5, slice_of(token), &number));
        assert_false(receipt_token_valid(key, 78, 5, slice_of(token), &number));
        assert_false(receipt_token_valid(key, 77, 6, slice_of(token), &number));
    }
}

static void test_every_changed_character_spoils_it(void **state) {
    (void)state;
    char token[RECEIPT_TOKEN_SIZE];
    uint32_t number;
    receipt_token(key, 77, 5, 1, token);
    for (size_t i = 0; i + 1 < sizeof token; i++) {
        char before = token[i];
        static const char others[] = "0f-G";
        for (const char *c = others; *c; c++) {
            token[i] = *c;
            assert_true(*c == before || !receipt_token_valid(key, 77, 5, slice_of(token), &number));
        }
        token[i] = before;
    }
    assert_false(receipt_token_valid(key, 77, 5, (struct slice){token, sizeof token - 2}, &number));
    assert_false(receipt_token_valid(key, 77, 5, SLICE_LIT(""), &number));
}

static void test_number_zero_is_no_attempt(void **state) {
    (void)state;
    char token[RECEIPT_TOKEN_SIZE];
    uint32_t number;
    receipt_token(key, 77, 5, 0, token);
    assert_false(receipt_token_valid(key, 77, 5, slice_of(token), &number));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_token_tells_its_attempt),
        cmocka_unit_test(test_every_changed_character_spoils_it),
        cmocka_unit_test(test_number_zero_is_no_attempt),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
