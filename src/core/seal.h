/* Sealing of small secrets for the store: AES-256-GCM (NIST SP 800-38D). Pure: the nonce is an argument, 96
 * random bits that are never used twice with a key (at random, a key is good for 2^32 seals). */
#pragma once

#include "base/bytes.h"

enum {
    SEAL_KEY_SIZE = 32,
    SEAL_NONCE_SIZE = 12,
    SEAL_FINGERPRINT_SIZE = 16,
    SEAL_OVERHEAD = 1 + SEAL_NONCE_SIZE + 16, /* version, nonce, tag */
    SEAL_PLAIN_MAX = 512 * 1024,
    SEAL_KEYS_MAX = 8,
};

struct seal_key {
    uint8_t bytes[SEAL_KEY_SIZE];
    uint8_t fingerprint[SEAL_FINGERPRINT_SIZE]; /* tells keys apart and nothing of the key */
};

/* The first one seals, all of them open. */
struct seal_keyring {
    struct seal_key keys[SEAL_KEYS_MAX];
    size_t n;
};

/* -EIO when OpenSSL fails. */
int seal_key_of_bytes(const uint8_t bytes[SEAL_KEY_SIZE], struct seal_key *ret) MUST_USE;
/* A key for one context alone, which tells nothing of the others, nor of the bytes. -EIO. */
int seal_key_derive(const uint8_t bytes[SEAL_KEY_SIZE], struct slice context, struct seal_key *ret) MUST_USE;
/* 64 hex digits, or base64 of 32 bytes in either alphabet, padded or not. -EINVAL, -EIO. */
int seal_key_parse(struct slice text, struct seal_key *ret) MUST_USE;
/* The position of the key with this fingerprint, or -ENOENT. */
int seal_keyring_find(const struct seal_keyring *k, struct slice fingerprint);
void seal_keyring_wipe(struct seal_keyring *k);

/* Seals `plain` (at most SEAL_PLAIN_MAX) into out, which holds plain.n + SEAL_OVERHEAD bytes. `context` is
 * bound to it: only the same one opens it. -EIO when OpenSSL fails. */
int seal(const struct seal_key *key, const uint8_t nonce[SEAL_NONCE_SIZE], struct slice context,
         struct slice plain, uint8_t *out) MUST_USE;
/* Opens into out, which holds `size` bytes. -EBADMSG: not sealed with this key and context, or changed since;
 * -EMSGSIZE: larger than size; -EIO. On failure nothing of the content is left in out. */
int seal_open(const struct seal_key *key, struct slice context, struct slice sealed, uint8_t *out,
              size_t size, size_t *ret_n) MUST_USE;
