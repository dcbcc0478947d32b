/* A small subscriber: an HTTP server that verifies the webhooks it gets (Standard Webhooks 1.0) and prints
 * them on standard output, a block each. Behind `posthorn receive` and `posthorn dev`. */
#pragma once

#include "core/webhook.h"

struct receiver;

/* Takes over the listening socket listen_fd and serves it with a thread of its own. key may be NULL: then
 * nothing is verified. Answers 204, 401 to what is not to be trusted, 405 to another method than POST, 413
 * to a body over 16 MiB. -ENOMEM, -EIO when the server cannot start; listen_fd is closed then. */
int receiver_start(int listen_fd, const struct signing_key *key, struct receiver **ret) MUST_USE;
void receiver_stop(struct receiver *r); /* NULL-safe */
