#include "api/base64url.h"

#include <errno.h>

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

void base64url_encode(const void *p, size_t n, char *out) {
    const uint8_t *in = p;
    uint32_t bits = 0;
    unsigned have = 0;
    for (size_t i = 0; i < n; i++) {
        bits = (bits << 8 | in[i]) & 0xFFFF;
        for (have += 8; have >= 6;)
            *out++ = alphabet[bits >> (have -= 6) & 63];
    }
    if (have)
        *out++ = alphabet[bits << (6 - have) & 63];
    *out = '\0';
}

int base64url_decode(struct slice text, void *out, size_t n) {
    uint8_t *to = out;
    uint32_t bits = 0;
    unsigned have = 0;
    if (text.n != BASE64URL_SIZE(n) - 1)
        return -EINVAL;
    for (size_t i = 0; i < text.n; i++) {
        const char *at = text.p[i] ? strchr(alphabet, text.p[i]) : NULL;
        if (!at)
            return -EINVAL;
        bits = (bits << 6 | (uint32_t)(at - alphabet)) & 0xFFFF;
        have += 6;
        if (have >= 8)
            *to++ = (uint8_t)(bits >> (have -= 8));
    }
    return bits & ((1U << have) - 1) ? -EINVAL : 0;
}
