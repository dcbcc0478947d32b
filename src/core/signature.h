/* Signatures of Standard Webhooks 1.0: HMAC-SHA256 ("v1") and ed25519 ("v1a") over "id.timestamp.body". */
#pragma once

#include "base/bytes.h"

enum signing_scheme { SIGNING_HMAC, SIGNING_ED25519 };

enum {
    SECRET_BYTES_MIN = 24,
    SECRET_BYTES_MAX = 64,
    SECRET_BYTES_MADE = 32,   /* when the server makes one */
    SECRET_TEXT_SIZE = 96,    /* "whsec_" or "whsk_", base64 of 64 bytes, NUL */
    SIGNATURE_TEXT_SIZE = 96, /* "v1a," and base64 of 64 bytes, NUL */
};

struct signing_key {
    enum signing_scheme scheme;
    uint8_t size;                    /* of bytes */
    uint8_t bytes[SECRET_BYTES_MAX]; /* HMAC key, or ed25519 seed (32) and public key (32), or public key */
    int64_t expires_at;              /* Unix ms; 0: in force until it is rotated out */
};

/* One a thread: holds what OpenSSL wants set up only once. */
struct signer;
struct signer *signer_new(void); /* NULL when memory is out */
void signer_free(struct signer *s);
/* Wipes the key that it signed with last, which OpenSSL keeps until the next one. */
void signer_forget(struct signer *s);

/* "v1,BASE64" or "v1a,BASE64" of one key over "id.timestamp.body" into out. -EINVAL for a
 * public key, -EIO when OpenSSL fails, -ENOMEM. */
int signer_sign(struct signer *s, const struct signing_key *key, struct slice id, int64_t timestamp,
                struct slice body, char out[SIGNATURE_TEXT_SIZE]) MUST_USE;

/* Whether one of the space-separated signatures in `header` is of this key (for ed25519 its public half
 * suffices) and `timestamp` is within tolerance_seconds of now. Constant time in the comparison. */
bool signer_verify(struct signer *s, const struct signing_key *key, struct slice id, int64_t timestamp,
                   struct slice body, struct slice header, int64_t now_seconds, int64_t tolerance_seconds);

/* "whsec_…" (24…64 bytes) or "whsk_…" (64 bytes: seed and public key) or "whpk_…" (32 bytes, for verifying
 * only), in canonical base64. -EINVAL, also when seed and public key do not belong together; -EIO when
 * OpenSSL fails. */
int signing_key_parse(struct slice text, struct signing_key *ret) MUST_USE;
/* A new random key of this scheme. -EIO when OpenSSL fails. */
int signing_key_generate(enum signing_scheme scheme, struct signing_key *ret) MUST_USE;
/* The secret as text ("whsec_…" or "whsk_…"); a public key has none. The caller wipes `out`. */
void signing_key_text(const struct signing_key *key, char out[SECRET_TEXT_SIZE]);
/* "whpk_…" of an ed25519 key. */
void signing_key_public_text(const struct signing_key *key, char out[SECRET_TEXT_SIZE]);
