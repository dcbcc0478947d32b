/* A small subscriber: an HTTP server that verifies the webhooks it gets (Standard Webhooks 1.0) and prints
 * them on standard output, a block each. Behind `posthorn receive` and `posthorn dev`. */
#pragma once

#include "core/signature.h"

enum { WEBHOOK_TOLERANCE_SECONDS = 300, WEBHOOK_ANY_AGE = -1 };

/* What a webhook's headers say, as they came; NULL for one that is missing. */
struct webhook_headers {
    const char *id, *timestamp, *signature;
};

/* Why the webhook is not to be trusted, in a few words; NULL when one of its signatures is of this key and
 * its timestamp no more than tolerance_seconds off (WEBHOOK_ANY_AGE: whatever it is). */
const char *webhook_refusal(struct signer *s, const struct signing_key *key, const struct webhook_headers *h,
                            struct slice body, int64_t now_seconds, int64_t tolerance_seconds);

struct receiver;

/* Takes over the listening socket listen_fd and serves it with a thread of its own. key may be NULL: then
 * nothing is verified. Answers 204, 401 to what is not to be trusted, 405 to another method than POST, 413
 * to a body over 16 MiB. -ENOMEM, -EIO when the server cannot start; listen_fd is closed then. */
int receiver_start(int listen_fd, const struct signing_key *key, struct receiver **ret) MUST_USE;
void receiver_stop(struct receiver *r); /* NULL-safe */
