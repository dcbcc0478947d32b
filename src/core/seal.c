#include "core/seal.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

enum { VERSION = 1, TAG_SIZE = 16, BASE64_SIZE = 44 /* of a key, padded */ };

DEFINE_CLEANUP(cleanup_cipher, EVP_CIPHER_CTX, EVP_CIPHER_CTX_free)

int seal_key_of_bytes(const uint8_t bytes[SEAL_KEY_SIZE], struct seal_key *ret) {
    static const unsigned char label[] = "posthorn secret key";
    unsigned char mac[EVP_MAX_MD_SIZE];
    if (!HMAC(EVP_sha256(), bytes, SEAL_KEY_SIZE, label, sizeof label - 1, mac, NULL))
        return -EIO;
    memcpy(ret->bytes, bytes, SEAL_KEY_SIZE);
    memcpy(ret->fingerprint, mac, SEAL_FINGERPRINT_SIZE);
    return 0;
}

int seal_key_derive(const uint8_t bytes[SEAL_KEY_SIZE], struct slice context, struct seal_key *ret) {
    unsigned n = 0;
    *ret = (struct seal_key){0};
    bool made = HMAC(EVP_sha256(), bytes, SEAL_KEY_SIZE, (const unsigned char *)context.p, context.n,
                     ret->bytes, &n) &&
                n == SEAL_KEY_SIZE;
    return made ? 0 : -EIO;
}

static int hex_digit(char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

static bool decode_hex(struct slice text, uint8_t out[SEAL_KEY_SIZE]) {
    if (text.n != 2 * SEAL_KEY_SIZE)
        return false;
    for (size_t i = 0; i < SEAL_KEY_SIZE; i++) {
        int high = hex_digit(text.p[2 * i]), low = hex_digit(text.p[2 * i + 1]);
        if (high < 0 || low < 0)
            return false;
        out[i] = (uint8_t)(high * 16 + low);
    }
    return true;
}

static bool decode_base64(struct slice text, uint8_t out[SEAL_KEY_SIZE]) {
    char padded[BASE64_SIZE];
    unsigned char raw[BASE64_SIZE / 4 * 3];
    if (text.n != BASE64_SIZE && text.n != BASE64_SIZE - 1)
        return false;
    padded[BASE64_SIZE - 1] = '=';
    for (size_t i = 0; i < text.n; i++)
        padded[i] = text.p[i] == '-' ? '+' : text.p[i] == '_' ? '/' : text.p[i];
    /* One "=" stands for 32 bytes of the 33. */
    bool good = padded[BASE64_SIZE - 1] == '=' && padded[BASE64_SIZE - 2] != '=' &&
                EVP_DecodeBlock(raw, (const unsigned char *)padded, BASE64_SIZE) == (int)sizeof raw;
    if (good)
        memcpy(out, raw, SEAL_KEY_SIZE);
    OPENSSL_cleanse(padded, sizeof padded);
    OPENSSL_cleanse(raw, sizeof raw);
    return good;
}

int seal_key_parse(struct slice text, struct seal_key *ret) {
    uint8_t bytes[SEAL_KEY_SIZE];
    int r = decode_hex(text, bytes) || decode_base64(text, bytes) ? seal_key_of_bytes(bytes, ret) : -EINVAL;
    OPENSSL_cleanse(bytes, sizeof bytes);
    return r;
}

int seal_keyring_find(const struct seal_keyring *k, struct slice fingerprint) {
    for (size_t i = 0; i < k->n; i++)
        if (slice_eq(fingerprint,
                     (struct slice){(const char *)k->keys[i].fingerprint, SEAL_FINGERPRINT_SIZE}))
            return (int)i;
    return -ENOENT;
}

void seal_keyring_wipe(struct seal_keyring *k) {
    OPENSSL_cleanse(k, sizeof *k);
}

int seal(const struct seal_key *key, const uint8_t nonce[SEAL_NONCE_SIZE], struct slice context,
         struct slice plain, uint8_t *out) {
    CHECK(plain.n <= SEAL_PLAIN_MAX && context.n <= SEAL_PLAIN_MAX);
    _cleanup_(cleanup_cipher) EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
    uint8_t *text = out + 1 + SEAL_NONCE_SIZE;
    int n;
    if (!c)
        return -ENOMEM;
    if (!EVP_EncryptInit_ex(c, EVP_aes_256_gcm(), NULL, key->bytes, nonce) ||
        !EVP_EncryptUpdate(c, NULL, &n, (const unsigned char *)context.p, (int)context.n) ||
        !EVP_EncryptUpdate(c, text, &n, (const unsigned char *)plain.p, (int)plain.n) ||
        !EVP_EncryptFinal_ex(c, text + plain.n, &n) ||
        !EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_GCM_GET_TAG, TAG_SIZE, text + plain.n))
        return -EIO;
    out[0] = VERSION;
    memcpy(out + 1, nonce, SEAL_NONCE_SIZE);
    return 0;
}

int seal_open(const struct seal_key *key, struct slice context, struct slice sealed, uint8_t *out,
              size_t size, size_t *ret_n) {
    CHECK(context.n <= SEAL_PLAIN_MAX);
    if (sealed.n < SEAL_OVERHEAD || sealed.n > SEAL_PLAIN_MAX + SEAL_OVERHEAD || sealed.p[0] != VERSION)
        return -EBADMSG;
    size_t plain_n = sealed.n - SEAL_OVERHEAD;
    if (plain_n > size)
        return -EMSGSIZE;
    const unsigned char *nonce = (const unsigned char *)sealed.p + 1, *text = nonce + SEAL_NONCE_SIZE;
    unsigned char tag[TAG_SIZE];
    memcpy(tag, text + plain_n, TAG_SIZE);
    _cleanup_(cleanup_cipher) EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
    int n;
    if (!c)
        return -ENOMEM;
    if (!EVP_DecryptInit_ex(c, EVP_aes_256_gcm(), NULL, key->bytes, nonce) ||
        !EVP_DecryptUpdate(c, NULL, &n, (const unsigned char *)context.p, (int)context.n) ||
        !EVP_DecryptUpdate(c, out, &n, text, (int)plain_n) ||
        !EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_GCM_SET_TAG, TAG_SIZE, tag)) {
        OPENSSL_cleanse(out, plain_n);
        return -EIO;
    }
    if (EVP_DecryptFinal_ex(c, out + plain_n, &n) <= 0) {
        OPENSSL_cleanse(out, plain_n);
        return -EBADMSG;
    }
    *ret_n = plain_n;
    return 0;
}
