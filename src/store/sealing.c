#include "store/sealing.h"

#include <errno.h>
#include <stdio.h>

#include "base/json.h"
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

/* ---- texts ---- */

/* Appends what is sealed to ret. */
static int seal_text(const struct seal_key *key, struct slice context, struct slice text, struct buf *ret) {
    uint8_t nonce[SEAL_NONCE_SIZE];
    if (text.n > SEAL_PLAIN_MAX)
        return -EIO;
    _cleanup_free_ uint8_t *sealed = malloc(text.n + SEAL_OVERHEAD);
    if (!sealed)
        return -ENOMEM;
    random_bytes(nonce, sizeof nonce);
    int r = seal(key, nonce, context, text, sealed);
    if (r < 0)
        return r;
    buf_add(ret, sealed, text.n + SEAL_OVERHEAD);
    return buf_ok(ret) ? 0 : -ENOMEM;
}

/* Appends the text to ret. */
static int open_text(const struct seal_key *key, struct slice context, struct slice sealed, struct buf *ret) {
    size_t n = 0;
    _cleanup_free_ uint8_t *plain = malloc(sealed.n + 1);
    if (!plain)
        return -ENOMEM;
    int r = seal_open(key, context, sealed, plain, sealed.n, &n);
    if (r < 0)
        return r;
    buf_add(ret, plain, n);
    explicit_bzero(plain, n);
    return buf_ok(ret) ? 0 : -ENOMEM;
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
    int r = seal_key == k->no
                ? open_text(&k->key, tls_context(tenant_no, subscription_no, context), sealed, ret)
                : -EBADMSG;
    if (r == 0 || r == -ENOMEM)
        return r;
    log_error(
        "the TLS key of a subscription does not open: the database was changed from outside; put a backup "
        "in its place",
        log_int("subscription_no", subscription_no));
    return -EIO;
}

/* ---- headers ---- */

static struct slice headers_context(uint32_t tenant_no, struct id id, char out[CONTEXT_MAX]) {
    int n = snprintf(out, CONTEXT_MAX, "posthorn headers %u/%016llx%016llx", tenant_no,
                     (unsigned long long)id.key, (unsigned long long)id.tail);
    CHECK(n > 0 && n < CONTEXT_MAX);
    return (struct slice){out, (size_t)n};
}

int headers_seal(const struct sealing *k, uint32_t tenant_no, struct id subscription, struct slice text,
                 struct buf *ret) {
    char context[CONTEXT_MAX];
    CHECK(k->no);
    return seal_text(&k->key, headers_context(tenant_no, subscription, context), text, ret);
}

int headers_open(const struct sealing *k, int64_t seal_key, uint32_t tenant_no, struct id subscription,
                 struct slice sealed, struct buf *ret) {
    char context[CONTEXT_MAX], id[ID_TEXT_SIZE];
    CHECK(k->no);
    int r = seal_key == k->no
                ? open_text(&k->key, headers_context(tenant_no, subscription, context), sealed, ret)
                : -EBADMSG;
    if (r == 0 || r == -ENOMEM)
        return r;
    id_format(ID_SUBSCRIPTION, subscription, id);
    log_error("the headers of a subscription do not open: the database was changed from outside; put a "
              "backup in its place",
              log_str("subscription", id));
    return -EIO;
}

static int find_headers(struct slice doc, struct json_member *ret) {
    struct json_cursor c = json_open(doc);
    bool first = true;
    int r = json_enter_object(&c);
    while (r >= 0 && (r = json_next_member(&c, &first, ret)) > 0)
        if (json_key_is(ret->key, "headers"))
            return 1;
    return r < 0 ? r : 0;
}

/* 1 with their text when the document has any, else 0. */
static int headers_of_doc(struct slice doc, struct slice *ret) {
    struct json_member m;
    if (find_headers(doc, &m) <= 0 || m.type != JSON_TYPE_OBJECT)
        return 0;
    struct json_cursor c = json_open(m.value);
    struct json_member header;
    bool first = true;
    int r = json_enter_object(&c);
    if (r == 0)
        r = json_next_member(&c, &first, &header);
    if (r > 0)
        *ret = m.value;
    return r > 0;
}

bool headers_in_doc(struct slice doc) {
    struct slice ignored;
    return headers_of_doc(doc, &ignored);
}

/* Appends the document with these headers in the place of its own. -EIO: it has no such member. */
static int put_headers(struct slice doc, struct slice headers, struct buf *ret) {
    struct json_member m;
    if (find_headers(doc, &m) <= 0)
        return -EIO;
    size_t before = (size_t)(m.value.p - doc.p), after = before + m.value.n;
    buf_add(ret, doc.p, before);
    buf_add_slice(ret, headers);
    buf_add(ret, doc.p + after, doc.n - after);
    return buf_ok(ret) ? 0 : -ENOMEM;
}

void split_doc_free(struct split_doc *d) {
    buf_free(&d->rest);
    buf_free(&d->sealed);
}

int headers_split(const struct sealing *k, uint32_t tenant_no, struct id subscription, struct slice doc,
                  struct split_doc *ret) {
    struct slice headers;
    ret->doc = doc;
    if (!headers_of_doc(doc, &headers))
        return 0;
    int r = put_headers(doc, SLICE_LIT("{}"), &ret->rest);
    if (r == 0)
        r = headers_seal(k, tenant_no, subscription, headers, &ret->sealed);
    ret->doc = buf_slice(&ret->rest);
    return r;
}

int headers_join(const struct sealing *k, int64_t seal_key, struct slice sealed, struct buf *doc,
                 struct subscription_record *row) {
    _cleanup_(buf_wipe) struct buf headers = {0};
    if (!sealed.p)
        return 0;
    int r = headers_open(k, seal_key, row->tenant_no, row->id, sealed, &headers);
    buf_reset(doc);
    if (r == 0)
        r = put_headers(row->doc, buf_slice(&headers), doc);
    row->doc = buf_slice(doc);
    return r;
}

static struct slice attempt_context(uint64_t event_key, uint32_t subscription_no, uint32_t number,
                                    char out[CONTEXT_MAX]) {
    int n = snprintf(out, CONTEXT_MAX, "posthorn attempt %llu/%u/%u", (unsigned long long)event_key,
                     subscription_no, number);
    CHECK(n > 0 && n < CONTEXT_MAX);
    return (struct slice){out, (size_t)n};
}

int attempt_headers_seal(const struct sealing *k, uint64_t event_key, uint32_t subscription_no,
                         uint32_t number, struct slice text, struct buf *ret) {
    char out[CONTEXT_MAX];
    struct seal_key key;
    if (!text.p)
        return 0;
    CHECK(k->no);
    struct slice context = attempt_context(event_key, subscription_no, number, out);
    int r = seal_key_derive(k->attempts_key, context, &key); /* no key may seal all of them */
    if (r == 0)
        r = seal_text(&key, context, text, ret);
    explicit_bzero(&key, sizeof key);
    return r;
}

int attempt_headers_open(const struct sealing *k, uint64_t event_key, uint32_t subscription_no,
                         uint32_t number, struct slice sealed, struct buf *ret) {
    char out[CONTEXT_MAX], id[ID_TEXT_SIZE];
    struct seal_key key;
    if (!sealed.p)
        return 0;
    CHECK(k->no);
    struct slice context = attempt_context(event_key, subscription_no, number, out);
    int r = seal_key_derive(k->attempts_key, context, &key);
    if (r == 0)
        r = open_text(&key, context, sealed, ret);
    explicit_bzero(&key, sizeof key);
    if (r == 0 || r == -ENOMEM)
        return r;
    id_format(ID_DELIVERY, id_of_delivery(event_key, subscription_no), id);
    log_error("the headers of an attempt do not open: the database was changed from outside; put a backup in "
              "its place",
              log_str("delivery", id), log_int("attempt", number));
    return -EIO;
}

int attempt_headers_read(const struct sealing *k, uint64_t event_key, uint32_t subscription_no,
                         struct buf *text, struct attempt_row *row) {
    struct slice sealed = row->attempt.request_headers;
    buf_reset(text);
    int r = attempt_headers_open(k, event_key, subscription_no, row->number, sealed, text);
    row->attempt.request_headers = sealed.p ? buf_slice(text) : SLICE_NONE;
    return r;
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
