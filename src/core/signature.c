#include "core/signature.h"

#include <errno.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <stdio.h>

#include "base/random.h"

enum {
    HMAC_SIZE = 32,
    ED25519_KEY_SIZE = 32, /* of a seed, of a public key */
    ED25519_SIGNATURE_SIZE = 64,
    BASE64_TEXT_MAX = 88,           /* of 64 bytes */
    BASE64_RAW_SIZE = 66,           /* what OpenSSL writes when it decodes BASE64_TEXT_MAX */
    SIGNATURES_A_HEADER_MAX = 32,   /* those that follow are not looked at */
    MESSAGE_BYTES_KEPT_MAX = 65536, /* a signer's buffer that grew past this is given back */
};

static const struct slice HMAC_LABEL = {"v1,", 3}, ED25519_LABEL = {"v1a,", 4};

struct signer {
    EVP_MAC *mac;
    EVP_MAC_CTX *mac_ctx;
    EVP_MD_CTX *md_ctx;
    bool holds_key;
    struct buf message; /* ed25519 wants "id.timestamp.body" in one piece */
};

DEFINE_CLEANUP(cleanup_pkey, EVP_PKEY, EVP_PKEY_free)
#define _cleanup_pkey_ _cleanup_(cleanup_pkey)

/* OpenSSL's per-thread error queue must not keep what nobody reads: TLS on this thread would take it for its
 * own. */
static int openssl_failed(void) {
    ERR_clear_error();
    return -EIO;
}

struct signer *signer_new(void) {
    struct signer *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    char digest[] = "SHA256";
    OSSL_PARAM params[] = {OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
                           OSSL_PARAM_construct_end()};
    s->mac = EVP_MAC_fetch(NULL, "HMAC", NULL);
    s->mac_ctx = s->mac ? EVP_MAC_CTX_new(s->mac) : NULL;
    s->md_ctx = EVP_MD_CTX_new();
    if (!s->mac_ctx || !s->md_ctx || !EVP_MAC_CTX_set_params(s->mac_ctx, params)) {
        (void)openssl_failed();
        signer_free(s);
        return NULL;
    }
    return s;
}

void signer_free(struct signer *s) {
    if (!s)
        return;
    EVP_MAC_CTX_free(s->mac_ctx);
    EVP_MAC_free(s->mac);
    EVP_MD_CTX_free(s->md_ctx);
    buf_free(&s->message);
    free(s);
}

void signer_forget(struct signer *s) {
    static const unsigned char nothing[SECRET_BYTES_MIN];
    if (!s->holds_key)
        return;
    /* Another key is the one way to make it let go of the last one. */
    if (!EVP_MAC_init(s->mac_ctx, nothing, sizeof nothing, NULL))
        (void)openssl_failed();
    EVP_MD_CTX_reset(s->md_ctx);
    s->holds_key = false;
}

static void encode_base64(const void *p, size_t n, char out[BASE64_TEXT_MAX + 1]) {
    CHECK(n <= SECRET_BYTES_MAX);
    EVP_EncodeBlock((unsigned char *)out, p, (int)n);
}

/* Only the canonical form: padded, no white space, no stray bits in the last character. */
static int decode_base64(struct slice text, uint8_t out[SECRET_BYTES_MAX], size_t *ret_n) {
    unsigned char raw[BASE64_RAW_SIZE];
    char again[BASE64_TEXT_MAX + 1];
    if (text.n == 0 || text.n % 4 != 0 || text.n > BASE64_TEXT_MAX)
        return -EINVAL;
    int padding = text.p[text.n - 1] != '=' ? 0 : text.p[text.n - 2] != '=' ? 1 : 2;
    int n = EVP_DecodeBlock(raw, (const unsigned char *)text.p, (int)text.n) - padding;
    int r = -EINVAL;
    if (n > 0 && n <= SECRET_BYTES_MAX) {
        encode_base64(raw, (size_t)n, again);
        if (strlen(again) == text.n && CRYPTO_memcmp(again, text.p, text.n) == 0) {
            memcpy(out, raw, (size_t)n);
            *ret_n = (size_t)n;
            r = 0;
        }
    }
    OPENSSL_cleanse(raw, sizeof raw);
    OPENSSL_cleanse(again, sizeof again);
    return r;
}

static void format_stamp(int64_t timestamp, char out[32]) {
    snprintf(out, 32, ".%lld.", (long long)timestamp);
}

static int sign_hmac(struct signer *s, const struct signing_key *key, struct slice id, int64_t timestamp,
                     struct slice body, char out[SIGNATURE_TEXT_SIZE]) {
    unsigned char mac[HMAC_SIZE];
    size_t n = 0;
    char stamp[32];
    format_stamp(timestamp, stamp);
    s->holds_key = true;
    if (!EVP_MAC_init(s->mac_ctx, key->bytes, key->size, NULL) ||
        !EVP_MAC_update(s->mac_ctx, (const unsigned char *)id.p, id.n) ||
        !EVP_MAC_update(s->mac_ctx, (const unsigned char *)stamp, strlen(stamp)) ||
        !EVP_MAC_update(s->mac_ctx, (const unsigned char *)body.p, body.n) ||
        !EVP_MAC_final(s->mac_ctx, mac, &n, sizeof mac))
        return openssl_failed();
    CHECK(n == sizeof mac);
    memcpy(out, HMAC_LABEL.p, HMAC_LABEL.n);
    encode_base64(mac, sizeof mac, out + HMAC_LABEL.n);
    return 0;
}

/* Gathers "id.timestamp.body"; the slice holds until the next call. */
static int gather_message(struct signer *s, struct slice id, int64_t timestamp, struct slice body,
                          struct slice *ret) {
    char stamp[32];
    format_stamp(timestamp, stamp);
    if (s->message.cap > MESSAGE_BYTES_KEPT_MAX)
        buf_free(&s->message);
    buf_reset(&s->message);
    buf_add_slice(&s->message, id);
    buf_add_str(&s->message, stamp);
    buf_add_slice(&s->message, body);
    if (!buf_ok(&s->message))
        return -ENOMEM;
    *ret = buf_slice(&s->message);
    return 0;
}

static const uint8_t *public_half(const struct signing_key *key) {
    CHECK(key->scheme == SIGNING_ED25519 &&
          (key->size == ED25519_KEY_SIZE || key->size == 2 * ED25519_KEY_SIZE));
    return key->bytes + key->size - ED25519_KEY_SIZE;
}

static int sign_ed25519(struct signer *s, const struct signing_key *key, struct slice id, int64_t timestamp,
                        struct slice body, char out[SIGNATURE_TEXT_SIZE]) {
    unsigned char signature[ED25519_SIGNATURE_SIZE];
    size_t n = sizeof signature;
    struct slice message;
    if (key->size != 2 * ED25519_KEY_SIZE)
        return -EINVAL;
    int r = gather_message(s, id, timestamp, body, &message);
    if (r < 0)
        return r;
    _cleanup_pkey_ EVP_PKEY *pkey =
        EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, key->bytes, ED25519_KEY_SIZE);
    EVP_MD_CTX_reset(s->md_ctx);
    s->holds_key = true;
    if (!pkey || EVP_DigestSignInit(s->md_ctx, NULL, NULL, NULL, pkey) <= 0 ||
        EVP_DigestSign(s->md_ctx, signature, &n, (const unsigned char *)message.p, message.n) <= 0)
        return openssl_failed();
    CHECK(n == sizeof signature);
    memcpy(out, ED25519_LABEL.p, ED25519_LABEL.n);
    encode_base64(signature, sizeof signature, out + ED25519_LABEL.n);
    return 0;
}

int signer_sign(struct signer *s, const struct signing_key *key, struct slice id, int64_t timestamp,
                struct slice body, char out[SIGNATURE_TEXT_SIZE]) {
    return key->scheme == SIGNING_HMAC ? sign_hmac(s, key, id, timestamp, body, out)
                                       : sign_ed25519(s, key, id, timestamp, body, out);
}

/* Takes the next of the space-separated signatures off `header`; false when none is left. */
static bool next_signature(struct slice *header, struct slice *ret) {
    while (header->n && *header->p == ' ')
        header->p++, header->n--;
    if (!header->n)
        return false;
    const char *space = memchr(header->p, ' ', header->n);
    *ret = (struct slice){header->p, space ? (size_t)(space - header->p) : header->n};
    header->p += ret->n;
    header->n -= ret->n;
    return true;
}

static bool verify_hmac(struct signer *s, const struct signing_key *key, struct slice id, int64_t timestamp,
                        struct slice body, struct slice header) {
    char expected[SIGNATURE_TEXT_SIZE];
    if (sign_hmac(s, key, id, timestamp, body, expected) < 0)
        return false;
    struct slice given;
    bool found = false;
    size_t n = strlen(expected);
    for (int i = 0; i < SIGNATURES_A_HEADER_MAX && next_signature(&header, &given); i++)
        found |= given.n == n && CRYPTO_memcmp(given.p, expected, n) == 0;
    return found;
}

static bool verify_ed25519(struct signer *s, const struct signing_key *key, struct slice id,
                           int64_t timestamp, struct slice body, struct slice header) {
    struct slice message, given;
    if (gather_message(s, id, timestamp, body, &message) < 0)
        return false;
    _cleanup_pkey_ EVP_PKEY *pkey =
        EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, public_half(key), ED25519_KEY_SIZE);
    bool found = false;
    for (int i = 0; i < SIGNATURES_A_HEADER_MAX && !found && next_signature(&header, &given); i++) {
        uint8_t signature[SECRET_BYTES_MAX];
        size_t n;
        if (!slice_starts_with(given, ED25519_LABEL))
            continue;
        given.p += ED25519_LABEL.n;
        given.n -= ED25519_LABEL.n;
        if (decode_base64(given, signature, &n) < 0 || n != ED25519_SIGNATURE_SIZE)
            continue;
        EVP_MD_CTX_reset(s->md_ctx);
        found = pkey && EVP_DigestVerifyInit(s->md_ctx, NULL, NULL, NULL, pkey) == 1 &&
                EVP_DigestVerify(s->md_ctx, signature, n, (const unsigned char *)message.p, message.n) == 1;
    }
    if (!found)
        (void)openssl_failed();
    return found;
}

bool signer_verify(struct signer *s, const struct signing_key *key, struct slice id, int64_t timestamp,
                   struct slice body, struct slice header, int64_t now_seconds, int64_t tolerance_seconds) {
    int64_t off;
    if (__builtin_sub_overflow(now_seconds, timestamp, &off) || off > tolerance_seconds ||
        off < -tolerance_seconds)
        return false;
    return key->scheme == SIGNING_HMAC ? verify_hmac(s, key, id, timestamp, body, header)
                                       : verify_ed25519(s, key, id, timestamp, body, header);
}

static int derive_public(const uint8_t seed[ED25519_KEY_SIZE], uint8_t out[ED25519_KEY_SIZE]) {
    size_t n = ED25519_KEY_SIZE;
    _cleanup_pkey_ EVP_PKEY *pkey =
        EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, seed, ED25519_KEY_SIZE);
    if (!pkey || EVP_PKEY_get_raw_public_key(pkey, out, &n) <= 0)
        return openssl_failed();
    CHECK(n == ED25519_KEY_SIZE);
    return 0;
}

/* A pair whose halves do not belong together would sign what its own public key refuses. */
static int check_pair(const struct signing_key *key) {
    uint8_t derived[ED25519_KEY_SIZE];
    int r = derive_public(key->bytes, derived);
    if (r < 0)
        return r;
    return CRYPTO_memcmp(derived, key->bytes + ED25519_KEY_SIZE, sizeof derived) == 0 ? 0 : -EINVAL;
}

int signing_key_parse(struct slice text, struct signing_key *ret) {
    static const struct {
        struct slice prefix;
        enum signing_scheme scheme;
        size_t least, most;
    } forms[] = {
        {{"whsec_", 6}, SIGNING_HMAC, SECRET_BYTES_MIN, SECRET_BYTES_MAX},
        {{"whsk_", 5}, SIGNING_ED25519, 2 * ED25519_KEY_SIZE, 2 * ED25519_KEY_SIZE},
        {{"whpk_", 5}, SIGNING_ED25519, ED25519_KEY_SIZE, ED25519_KEY_SIZE},
    };
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        if (!slice_starts_with(text, forms[i].prefix))
            continue;
        struct slice encoded = {text.p + forms[i].prefix.n, text.n - forms[i].prefix.n};
        struct signing_key key = {.scheme = forms[i].scheme};
        size_t n = 0;
        int r = decode_base64(encoded, key.bytes, &n);
        if (r == 0 && (n < forms[i].least || n > forms[i].most))
            r = -EINVAL;
        if (r == 0 && forms[i].scheme == SIGNING_ED25519 && n == 2 * ED25519_KEY_SIZE)
            r = check_pair(&key);
        key.size = (uint8_t)n;
        if (r == 0)
            *ret = key;
        OPENSSL_cleanse(&key, sizeof key);
        return r;
    }
    return -EINVAL;
}

int signing_key_generate(enum signing_scheme scheme, struct signing_key *ret) {
    struct signing_key key = {.scheme = scheme, .size = SECRET_BYTES_MADE};
    int r = 0;
    random_bytes(key.bytes, SECRET_BYTES_MADE);
    if (scheme == SIGNING_ED25519) {
        key.size = 2 * ED25519_KEY_SIZE;
        r = derive_public(key.bytes, key.bytes + ED25519_KEY_SIZE);
    }
    if (r == 0)
        *ret = key;
    OPENSSL_cleanse(&key, sizeof key);
    return r;
}

static void key_text(const char *prefix, const uint8_t *bytes, size_t n, char out[SECRET_TEXT_SIZE]) {
    size_t prefix_length = strlen(prefix);
    memcpy(out, prefix, prefix_length);
    encode_base64(bytes, n, out + prefix_length);
}

void signing_key_text(const struct signing_key *key, char out[SECRET_TEXT_SIZE]) {
    CHECK(key->scheme == SIGNING_HMAC || key->size == 2 * ED25519_KEY_SIZE);
    key_text(key->scheme == SIGNING_HMAC ? "whsec_" : "whsk_", key->bytes, key->size, out);
}

void signing_key_public_text(const struct signing_key *key, char out[SECRET_TEXT_SIZE]) {
    key_text("whpk_", public_half(key), ED25519_KEY_SIZE, out);
}
