/* libposthorn-verify: whether a webhook is from who it says (Standard Webhooks 1.0). Needs libcrypto alone,
 * keeps no state, and may be called by any number of threads.
 *
 *   struct posthorn_webhook w = {id, timestamp, signature, body, body_size};
 *   if (posthorn_verify("whsec_…", &w, 0, POSTHORN_TOLERANCE_SECONDS) != POSTHORN_VALID)
 *       answer 401;
 */
#ifndef POSTHORN_VERIFY_H
#define POSTHORN_VERIFY_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define POSTHORN_TOLERANCE_SECONDS 300  /* what Standard Webhooks asks for */
#define POSTHORN_ANY_AGE           (-1) /* as a tolerance: the timestamp's age does not matter */

/* Numbers stay what they are. */
enum posthorn_verdict {
    POSTHORN_VALID = 0,
    POSTHORN_NO_ID = 1,         /* the header webhook-id is missing or empty */
    POSTHORN_NO_TIMESTAMP = 2,  /* the header webhook-timestamp is missing */
    POSTHORN_NO_SIGNATURE = 3,  /* the header webhook-signature is missing */
    POSTHORN_BAD_TIMESTAMP = 4, /* it is no number of Unix seconds */
    POSTHORN_FORGED = 5,        /* no signature is of this key over this id, timestamp and body */
    POSTHORN_TOO_FAR_OFF = 6, /* the signature is good, the timestamp is not: sent again, or a wrong clock */
    POSTHORN_BAD_KEY = 7,     /* the key is none: whsec_…, or whpk_… of ed25519, as the server gave it */
    POSTHORN_NO_MEMORY = 8
};

/* The headers as they came, NULL for one that is missing; the body byte for byte, before any parsing. */
struct posthorn_webhook {
    const char *id;        /* webhook-id */
    const char *timestamp; /* webhook-timestamp */
    const char *signature; /* webhook-signature: any number of signatures, separated by spaces */
    const void *body;
    size_t body_size;
};

/* POSTHORN_VALID when one of its signatures is of this key ("whsec_…": HMAC-SHA256, "v1"; "whpk_…" or
 * "whsk_…": ed25519, "v1a") and its timestamp at most tolerance_seconds off. now_seconds is Unix time, 0: the
 * system's. HMACs are compared in constant time. Clears this thread's queue of OpenSSL errors. */
enum posthorn_verdict posthorn_verify(const char *key, const struct posthorn_webhook *webhook,
                                      int64_t now_seconds, int64_t tolerance_seconds);

/* A few words for a log; never NULL. */
const char *posthorn_verdict_text(enum posthorn_verdict verdict);

#ifdef __cplusplus
}
#endif

#endif
