/* The certificate of the API's listeners, which is replaced while they serve: each handshake takes the
 * newest, and connections that are open keep theirs. One a process, since the library's callback carries no
 * argument. */
#pragma once

#include <gnutls/abstract.h>

#include "base/bytes.h"

struct tls;

enum {
    TLS_CHAIN_MAX = 16,         /* certificates of one file */
    TLS_REPLACED_MAX = 16,      /* kept for handshakes that still use them */
    TLS_REPLACED_SECONDS = 600, /* no handshake lasts so long */
};

/* TLS 1.2 and 1.3 with forward secrecy and AEAD; the server's order counts. */
extern const char tls_priorities[];

/* Reads PEM files: the certificate with its chain, leaf first, and its private key. -EINVAL: complaint says
 * what is wrong with them, in one line; -ENOMEM. */
int tls_load(const char *certificate, const char *key, int64_t now_ms, struct tls **ret,
             struct buf *complaint) MUST_USE;
/* Reads the same files again. On failure the old certificate stays in force. One thread at a time. */
int tls_reload(struct tls *t, int64_t now_ms, struct buf *complaint) MUST_USE;
/* The leaf's end, Unix ms. */
int64_t tls_expires_at(const struct tls *t);
/* After the last handshake. NULL-safe. */
void tls_free(struct tls *t);

/* libmicrohttpd's MHD_OPTION_HTTPS_CERT_CALLBACK. */
int tls_pick(gnutls_session_t session, const gnutls_datum_t *names, int names_n,
             const gnutls_pk_algorithm_t *algorithms, int algorithms_n, gnutls_pcert_st **ret_chain,
             unsigned *ret_chain_n, gnutls_privkey_t *ret_key);
