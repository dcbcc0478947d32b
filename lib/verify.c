/* libposthorn-verify: the program's own verifying, behind a header of its own. */
#include <errno.h>
#include <posthorn/verify.h>
#include <time.h>

#include "core/webhook.h"

#define PUBLIC __attribute__((visibility("default")))

_Static_assert((int)POSTHORN_NO_ID == (int)WEBHOOK_NO_ID &&
                   (int)POSTHORN_NO_TIMESTAMP == (int)WEBHOOK_NO_TIMESTAMP &&
                   (int)POSTHORN_NO_SIGNATURE == (int)WEBHOOK_NO_SIGNATURE &&
                   (int)POSTHORN_BAD_TIMESTAMP == (int)WEBHOOK_BAD_TIMESTAMP &&
                   (int)POSTHORN_FORGED == (int)WEBHOOK_FORGED &&
                   (int)POSTHORN_TOO_FAR_OFF == (int)WEBHOOK_TOO_FAR_OFF &&
                   (int)POSTHORN_ANY_AGE == (int)WEBHOOK_ANY_AGE,
               "both headers have the same numbers");

PUBLIC enum posthorn_verdict posthorn_verify(const char *key, const struct posthorn_webhook *webhook,
                                             int64_t now_seconds, int64_t tolerance_seconds) {
    struct signing_key parsed;
    const struct webhook_headers headers = {webhook->id, webhook->timestamp, webhook->signature};
    struct slice body = {webhook->body ? webhook->body : "", webhook->body ? webhook->body_size : 0};
    int r = key ? signing_key_parse(slice_of(key), &parsed) : -EINVAL;
    if (r < 0)
        return r == -EINVAL ? POSTHORN_BAD_KEY : POSTHORN_NO_MEMORY;
    struct signer *signer = signer_new();
    enum posthorn_verdict verdict = POSTHORN_NO_MEMORY;
    if (signer)
        verdict = (enum posthorn_verdict)webhook_judge(
            signer, &parsed, &headers, body, now_seconds ? now_seconds : (int64_t)time(NULL),
            tolerance_seconds < 0 ? WEBHOOK_ANY_AGE : tolerance_seconds);
    signer_free(signer);
    explicit_bzero(&parsed, sizeof parsed);
    return verdict;
}

PUBLIC const char *posthorn_verdict_text(enum posthorn_verdict verdict) {
    if (verdict == POSTHORN_BAD_KEY)
        return "the key must be whsec_… or whpk_… as the server gave it";
    if (verdict == POSTHORN_NO_MEMORY)
        return "memory is out";
    if ((int)verdict < (int)WEBHOOK_VALID || (int)verdict > (int)WEBHOOK_TOO_FAR_OFF)
        return "no verdict";
    return webhook_verdict_text((enum webhook_verdict)verdict);
}
