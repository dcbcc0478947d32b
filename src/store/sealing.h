/* What a store keeps sealed: signing secrets, TLS keys, headers and the server's own keys, sealed where they
 * enter the database, opened where they leave it. The same bytes in every kind of store. */
#pragma once

#include "core/tls_material.h"
#include "store/store.h"

enum { SERVER_KEY_SIZE = 32 };

/* What seals the secrets, once the store is unlocked (no != 0). */
struct sealing {
    int64_t no; /* in seal_keys */
    struct seal_key key;
    /* For the headers of attempts, which are too many to be sealed anew with another key: a server's key. */
    uint8_t attempts_key[SERVER_KEY_SIZE];
};
#define ATTEMPTS_KEY_NAME "attempts" /* among the server's keys */

enum {
    SEALED_SECRET_MAX = SECRET_BYTES_MAX + SEAL_OVERHEAD,
    SEALED_TLS_MAX = TLS_TEXT_MAX + SEAL_OVERHEAD,
    SERVER_KEY_NAME_MAX = 32,
    SEALED_SERVER_KEY_SIZE = SERVER_KEY_SIZE + SEAL_OVERHEAD,
};

/* What stands in the column "sealed" for this record, with a fresh nonce. -EIO: OpenSSL failed; -ENOMEM. */
int secret_seal(const struct sealing *k, const struct secret_record *r, uint8_t out[SEALED_SECRET_MAX],
                size_t *ret_n) MUST_USE;
/* Opens what seal_key has sealed into r->key, the rest of which is filled in. -EIO, logged with the secret's
 * id: it was changed from outside, or k is not the key that sealed it. The caller wipes *r. */
int secret_open(const struct sealing *k, int64_t seal_key, struct slice sealed,
                struct secret_record *r) MUST_USE;

/* Into out, which holds text.n + SEAL_OVERHEAD bytes. */
int tls_seal(const struct sealing *k, uint32_t tenant_no, uint32_t subscription_no, struct slice text,
             uint8_t *out) MUST_USE;
/* Appends to ret, which the caller wipes. */
int tls_open(const struct sealing *k, int64_t seal_key, uint32_t tenant_no, uint32_t subscription_no,
             struct slice sealed, struct buf *ret) MUST_USE;

/* The headers of a subscription: the text of its document's member of that name. Both append to ret; the
 * caller wipes what was opened. */
int headers_seal(const struct sealing *k, uint32_t tenant_no, struct id subscription, struct slice text,
                 struct buf *ret) MUST_USE;
int headers_open(const struct sealing *k, int64_t seal_key, uint32_t tenant_no, struct id subscription,
                 struct slice sealed, struct buf *ret) MUST_USE;
/* Whether a document has any. */
bool headers_in_doc(struct slice doc);
/* A document as it is stored: its headers apart from the rest, sealed. Zero-initialise. */
struct split_doc {
    struct slice doc;        /* to be stored: with {} in the place of headers */
    struct buf rest, sealed; /* sealed: empty when there are none */
};
void split_doc_free(struct split_doc *d);
/* `doc` must outlive *ret. */
int headers_split(const struct sealing *k, uint32_t tenant_no, struct id subscription, struct slice doc,
                  struct split_doc *ret) MUST_USE;
/* Puts them back into the document of a row, in doc, which the caller wipes; when none are sealed, the row
 * stays as it is. */
int headers_join(const struct sealing *k, int64_t seal_key, struct slice sealed, struct buf *doc,
                 struct subscription_record *row) MUST_USE;

/* The headers that an attempt has sent. Both append to ret; of an absent text nothing. */
int attempt_headers_seal(const struct sealing *k, uint64_t event_key, uint32_t subscription_no,
                         uint32_t number, struct slice text, struct buf *ret) MUST_USE;
int attempt_headers_open(const struct sealing *k, uint64_t event_key, uint32_t subscription_no,
                         uint32_t number, struct slice sealed, struct buf *ret) MUST_USE;
/* Opens those of a row that was read as it is stored, in text, which the caller wipes. */
int attempt_headers_read(const struct sealing *k, uint64_t event_key, uint32_t subscription_no,
                         struct buf *text, struct attempt_row *row) MUST_USE;

/* A key that the server made for itself (store_server_key); its name has at most SERVER_KEY_NAME_MAX bytes.
 */
int server_key_seal(const struct sealing *k, struct slice name, const uint8_t bytes[SERVER_KEY_SIZE],
                    uint8_t out[SEALED_SERVER_KEY_SIZE]) MUST_USE;
/* -EIO, logged with its name; the caller wipes ret. */
int server_key_open(const struct sealing *k, int64_t seal_key, struct slice name, struct slice sealed,
                    uint8_t ret[SERVER_KEY_SIZE]) MUST_USE;

enum { SEAL_KEYS_KNOWN_MAX = 64 /* rows of seal_keys: two but for damage */ };

/* What a store knows of the keys that sealed its secrets. */
struct known_keys {
    struct {
        int64_t no;
        uint8_t fingerprint[SEAL_FINGERPRINT_SIZE];
    } at[SEAL_KEYS_KNOWN_MAX];
    size_t n;
};
void known_keys_add(struct known_keys *known, int64_t no, struct slice fingerprint);
/* The i-th of them, out of the ring. -EKEYREJECTED: it is not in there; *ret_message says what to do. */
int known_keys_find(const struct known_keys *known, size_t i, const struct seal_keyring *keys,
                    struct sealing *ret, const char **ret_message) MUST_USE;
