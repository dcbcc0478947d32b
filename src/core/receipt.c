#include "core/receipt.h"

#include <endian.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdio.h>

enum { NUMBER_DIGITS = 8, MAC_BYTES = 20 };

const char *receipt_status_name(enum receipt_status s) {
    static const char *const names[] = {NULL, "processed", "failed"};
    CHECK(s <= RECEIPT_FAILED);
    return names[s];
}

void receipt_token(const uint8_t key[RECEIPT_KEY_SIZE], uint64_t event_key, uint32_t subscription_no,
                   uint32_t number, char ret[RECEIPT_TOKEN_SIZE]) {
    struct __attribute__((packed)) {
        uint64_t event_key;
        uint32_t subscription_no, number;
    } message = {htobe64(event_key), htobe32(subscription_no), htobe32(number)};
    uint8_t mac[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    CHECK(
        HMAC(EVP_sha256(), key, RECEIPT_KEY_SIZE, (const unsigned char *)&message, sizeof message, mac, &n));
    CHECK(n >= MAC_BYTES);
    snprintf(ret, NUMBER_DIGITS + 1, "%08x", (unsigned)number);
    hex_encode(mac, MAC_BYTES, ret + NUMBER_DIGITS);
}

static bool parse_number(struct slice digits, uint32_t *ret) {
    uint32_t number = 0;
    for (size_t i = 0; i < digits.n; i++) {
        char c = digits.p[i];
        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f')))
            return false;
        number = number << 4 | (uint32_t)(c <= '9' ? c - '0' : c - 'a' + 10);
    }
    *ret = number;
    return true;
}

bool receipt_token_valid(const uint8_t key[RECEIPT_KEY_SIZE], uint64_t event_key, uint32_t subscription_no,
                         struct slice token, uint32_t *ret_number) {
    char wanted[RECEIPT_TOKEN_SIZE];
    uint32_t number;
    if (token.n != RECEIPT_TOKEN_SIZE - 1 || !parse_number((struct slice){token.p, NUMBER_DIGITS}, &number) ||
        number == 0)
        return false;
    receipt_token(key, event_key, subscription_no, number, wanted);
    if (CRYPTO_memcmp(wanted, token.p, token.n) != 0)
        return false;
    *ret_number = number;
    return true;
}
