/* A received webhook judged: headers, signature, age (Standard Webhooks 1.0). */
#pragma once

#include "core/signature.h"

enum { WEBHOOK_TOLERANCE_SECONDS = 300, WEBHOOK_ANY_AGE = -1 };

/* What a webhook's headers say, as they came; NULL for one that is missing. */
struct webhook_headers {
    const char *id, *timestamp, *signature;
};

/* The numbers are those of enum posthorn_verdict (include/posthorn/verify.h). */
enum webhook_verdict {
    WEBHOOK_VALID,
    WEBHOOK_NO_ID,
    WEBHOOK_NO_TIMESTAMP,
    WEBHOOK_NO_SIGNATURE,
    WEBHOOK_BAD_TIMESTAMP,
    WEBHOOK_FORGED,
    WEBHOOK_TOO_FAR_OFF,
};

/* WEBHOOK_VALID when one of its signatures is of this key and its timestamp no more than tolerance_seconds
 * off (WEBHOOK_ANY_AGE: whatever it is). */
enum webhook_verdict webhook_judge(struct signer *s, const struct signing_key *key,
                                   const struct webhook_headers *h, struct slice body, int64_t now_seconds,
                                   int64_t tolerance_seconds);
/* In a few words. */
const char *webhook_verdict_text(enum webhook_verdict v);
