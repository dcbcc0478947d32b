/* What a subscription's `tls` holds: a client certificate (with its chain) and key to show to the receiver,
 * and authorities that are trusted for it in place of the system's. PEM (RFC 7468). Shared by reference,
 * wiped when the last one goes. */
#pragma once

#include <jansson.h>

#include "base/bytes.h"

struct doc;

enum {
    TLS_CERTIFICATE_BYTES_MAX = 16384, /* with its chain */
    TLS_KEY_BYTES_MAX = 8192,
    TLS_CA_BYTES_MAX = 24576,
    TLS_TEXT_MAX = 60000, /* of tls_material_text: below what a seal holds */
};

struct tls_material {
    atomic_uint refs;
    char *client_certificate, *client_key; /* both or neither */
    char *ca;                              /* or NULL */
};

struct tls_material *tls_material_ref(struct tls_material *t);
void tls_material_unref(struct tls_material *t); /* NULL-safe */

/* Reads the member `tls` of a document into its normal form: an object of strings or null, certificate and
 * key must parse, belong together and need no passphrase; errors are told by field, never with a value.
 * Absent when nothing is in it. */
void tls_material_parse(struct doc *d);

/* The text form of a valid object, as it is sealed and stored. The caller wipes it. -ENOMEM. */
int tls_material_text(const json_t *object, struct buf *ret) MUST_USE;
/* From that text: -EINVAL when it is another, -ENOMEM. */
int tls_material_of_text(struct slice text, struct tls_material **ret) MUST_USE;

/* How many certificates a PEM text holds; -EINVAL when something in it is none, or there are too many. */
int tls_certificates_count(struct slice pem);
