#include "core/webhook.h"

#include <stdlib.h>

enum { TIMESTAMP_DIGITS_MAX = 15 };

/* Digits as they were signed: without a sign or leading zeros, which would not be the text that was signed.
 */
static bool parse_timestamp(const char *text, int64_t *ret) {
    size_t n = strspn(text, "0123456789");
    if (n == 0 || text[n] != '\0' || n > TIMESTAMP_DIGITS_MAX || (text[0] == '0' && n > 1))
        return false;
    *ret = strtoll(text, NULL, 10);
    return true;
}

enum webhook_verdict webhook_judge(struct signer *s, const struct signing_key *key,
                                   const struct webhook_headers *h, struct slice body, int64_t now_seconds,
                                   int64_t tolerance_seconds) {
    int64_t timestamp, off;
    if (!h->id || !h->id[0])
        return WEBHOOK_NO_ID;
    if (!h->timestamp)
        return WEBHOOK_NO_TIMESTAMP;
    if (!h->signature)
        return WEBHOOK_NO_SIGNATURE;
    if (!parse_timestamp(h->timestamp, &timestamp))
        return WEBHOOK_BAD_TIMESTAMP;
    /* Taken apart from the age, so that a wrong clock is not told as a wrong secret. */
    if (!signer_verify(s, key, slice_of(h->id), timestamp, body, slice_of(h->signature), timestamp, 0))
        return WEBHOOK_FORGED;
    if (tolerance_seconds == WEBHOOK_ANY_AGE)
        return WEBHOOK_VALID;
    bool far_off = __builtin_sub_overflow(now_seconds, timestamp, &off) || off > tolerance_seconds ||
                   off < -tolerance_seconds;
    return far_off ? WEBHOOK_TOO_FAR_OFF : WEBHOOK_VALID;
}

const char *webhook_verdict_text(enum webhook_verdict v) {
    switch (v) {
    case WEBHOOK_VALID:
        return "valid";
    case WEBHOOK_NO_ID:
        return "there is no webhook-id";
    case WEBHOOK_NO_TIMESTAMP:
        return "there is no webhook-timestamp";
    case WEBHOOK_NO_SIGNATURE:
        return "there is no webhook-signature";
    case WEBHOOK_BAD_TIMESTAMP:
        return "webhook-timestamp is no number of Unix seconds";
    case WEBHOOK_FORGED:
        return "no signature is of this secret over this id, timestamp and body";
    case WEBHOOK_TOO_FAR_OFF:
        return "the signature is good, but webhook-timestamp is too far off: an old webhook sent again, or a "
               "wrong clock";
    }
    UNREACHABLE();
}
