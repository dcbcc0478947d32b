#include "store/sealing.h"

#include <errno.h>
#include <stdio.h>

#include "base/log.h"
#include "base/random.h"
#include "store/backend.h"

enum { CONTEXT_MAX = 128 };
_Static_assert((int)TLS_TEXT_MAX <= (int)SEAL_PLAIN_MAX, "it can be sealed");

/* Binds a sealed secret to its row: moved to another, it does not open. */
static struct slice secret_context(const struct secret_record *r, char out[CONTEXT_MAX]) {
    int n = snprintf(out, CONTEXT_MAX, "posthorn secret %u/%u/%016llx%016llx/%d", r->tenant_no,
                     r->subscription_no, (unsigned long long)r->id.key, (unsigned long long)r->id.tail,
                     (int)r->key.scheme);
    CHECK(n > 0 && n < CONTEXT_MAX);
    return (struct slice){out, (size_t)n};
}

static struct slice tls_context(uint32_t tenant_no, uint32_t subscription_no, char out[CONTEXT_MAX]) {
    int n = snprintf(out, CONTEXT_MAX, "posthorn tls %u/%u", tenant_no, subscription_no);
    CHECK(n > 0 && n < CONTEXT_MAX);
    return (struct slice){out, (size_t)n};
}

/* ---- secrets ---- */

int secret_seal(const struct sealing *k, const struct secret_record *r, uint8_t out[SEALED_SECRET_MAX],
                size_t *ret_n) {
    char context[CONTEXT_MAX];
    uint8_t nonce[SEAL_NONCE_SIZE];
    CHECK(k->no && r->subscription_no && r->key.size <= SECRET_BYTES_MAX);
    random_bytes(nonce, sizeof nonce);
    int e = seal(&k->key, nonce, secret_context(r, context),
                 (struct slice){(const char *)r->key.bytes, r->key.size}, out);
    if (e == 0)
        *ret_n = (size_t)r->key.size + SEAL_OVERHEAD;
    return e;
}

int secret_open(const struct sealing *k, int64_t seal_key, struct slice sealed, struct secret_record *r) {
    char context[CONTEXT_MAX], id[ID_TEXT_SIZE];
    size_t n = 0;
    CHECK(k->no);
    int e = seal_key == k->no ? seal_open(&k->key, secret_context(r, context), sealed, r->key.bytes,
                                          sizeof r->key.bytes, &n)
                              : -EBADMSG;
    r->key.size = (uint8_t)n;
    if (e == 0 && n > 0)
        return 0;
    id_format(ID_SECRET, r->id, id);
    log_error(e == -ENOMEM
                  ? "a signing secret cannot be opened: memory is out"
                  : "a signing secret in the store does not open: the database was changed from outside; put "
                    "a backup in its place",
              log_str("secret", id), log_int("subscription_no", r->subscription_no));
    return e == -ENOMEM ? e : -EIO;
}

/* ---- TLS keys ---- */

int tls_seal(const struct sealing *k, uint32_t tenant_no, uint32_t subscription_no, struct slice text,
             uint8_t *out) {
    char context[CONTEXT_MAX];
    uint8_t nonce[SEAL_NONCE_SIZE];
    CHECK(k->no && text.n <= TLS_TEXT_MAX);
    random_bytes(nonce, sizeof nonce);
    return seal(&k->key, nonce, tls_context(tenant_no, subscription_no, context), text, out);
}

int tls_open(const struct sealing *k, int64_t seal_key, uint32_t tenant_no, uint32_t subscription_no,
             struct slice sealed, struct buf *ret) {
    char context[CONTEXT_MAX];
    size_t n = 0;
    _cleanup_free_ uint8_t *plain = malloc(SEAL_PLAIN_MAX);
    if (!plain)
        return -ENOMEM;
    int r = seal_key == k->no ? seal_open(&k->key, tls_context(tenant_no, subscription_no, context), sealed,
                                          plain, SEAL_PLAIN_MAX, &n)
                              : -EBADMSG;
    if (r == 0) {
        buf_add(ret, plain, n);
        explicit_bzero(plain, n);
        return buf_ok(ret) ? 0 : -ENOMEM;
    }
    log_error(
        "the TLS key of a subscription does not open: the database was changed from outside; put a backup "
        "in its place",
        log_int("subscription_no", subscription_no));
    return -EIO;
}

/* ---- the server's own keys ---- */

static struct slice server_key_context(struct slice name, char out[CONTEXT_MAX]) {
    int n = snprintf(out, CONTEXT_MAX, "posthorn server key %.*s", SLICE_ARG(name));
    CHECK(n > 0 && n < CONTEXT_MAX);
    return (struct slice){out, (size_t)n};
}

int server_key_seal(const struct sealing *k, struct slice name, const uint8_t bytes[SERVER_KEY_SIZE],
                    uint8_t out[SEALED_SERVER_KEY_SIZE]) {
    char context[CONTEXT_MAX];
    uint8_t nonce[SEAL_NONCE_SIZE];
    CHECK(k->no && name.n <= SERVER_KEY_NAME_MAX);
    random_bytes(nonce, sizeof nonce);
    return seal(&k->key, nonce, server_key_context(name, context),
                (struct slice){(const char *)bytes, SERVER_KEY_SIZE}, out);
}

int server_key_open(const struct sealing *k, int64_t seal_key, struct slice name, struct slice sealed,
                    uint8_t ret[SERVER_KEY_SIZE]) {
    char context[CONTEXT_MAX];
    size_t n = 0;
    int r = seal_key == k->no && name.n <= SERVER_KEY_NAME_MAX
                ? seal_open(&k->key, server_key_context(name, context), sealed, ret, SERVER_KEY_SIZE, &n)
                : -EBADMSG;
    if (r == -ENOMEM || (r == 0 && n == SERVER_KEY_SIZE))
        return r;
    log_error("a key that the server made for itself does not open: the database was changed from outside; "
              "put a backup in its place",
              log_slice("name", name));
    return -EIO;
}

/* ---- keys ---- */

void known_keys_add(struct known_keys *known, int64_t no, struct slice fingerprint) {
    CHECK(known->n < SEAL_KEYS_KNOWN_MAX);
    known->at[known->n].no = no;
    memset(known->at[known->n].fingerprint, 0, SEAL_FINGERPRINT_SIZE);
    if (fingerprint.n == SEAL_FINGERPRINT_SIZE)
        memcpy(known->at[known->n].fingerprint, fingerprint.p, SEAL_FINGERPRINT_SIZE);
    known->n++;
}

int known_keys_find(const struct known_keys *known, size_t i, const struct seal_keyring *keys,
                    struct sealing *ret, const char **ret_message) {
    const uint8_t *fingerprint = known->at[i].fingerprint;
    int at = seal_keyring_find(keys, (struct slice){(const char *)fingerprint, SEAL_FINGERPRINT_SIZE});
    if (at >= 0) {
        *ret = (struct sealing){.no = known->at[i].no, .key = keys->keys[at]};
        return 0;
    }
    char hex[2 * SEAL_FINGERPRINT_SIZE + 1];
    hex_encode(fingerprint, SEAL_FINGERPRINT_SIZE, hex);
    return store_explain(
        -EKEYREJECTED, ret_message,
        "the secret key is not the one that sealed the signing secrets of this store (fingerprint "
        "%s): give that key, or, to change keys, give it as the previous one",
        hex);
}
