/* The token with which a subscriber tells what became of a delivery (api.md §2): each attempt carries its
 * own. It names the attempt and proves that the server made it, so nothing is stored until it is used. */
#pragma once

#include "base/bytes.h"

enum {
    RECEIPT_KEY_SIZE = 32,
    RECEIPT_TOKEN_SIZE = 8 + 40 + 1, /* the attempt's number and 160 bits of HMAC-SHA256, in hex, and NUL */
    RECEIPT_NOTE_MAX = 1024,         /* bytes */
};

/* Stored: append only. */
enum receipt_status { RECEIPT_NONE, RECEIPT_PROCESSED, RECEIPT_FAILED };
const char *receipt_status_name(enum receipt_status s); /* "processed", "failed"; NULL for none */

void receipt_token(const uint8_t key[RECEIPT_KEY_SIZE], uint64_t event_key, uint32_t subscription_no,
                   uint32_t number, char ret[RECEIPT_TOKEN_SIZE]);
/* Whether it is the token of an attempt at this delivery; *ret_number then tells which. */
bool receipt_token_valid(const uint8_t key[RECEIPT_KEY_SIZE], uint64_t event_key, uint32_t subscription_no,
                         struct slice token, uint32_t *ret_number);
