#include "core/tls_material.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include "core/doc.h"

static const char certificate_name[] = "client_certificate", key_name[] = "client_key", ca_name[] = "ca";
static const char *const names[] = {certificate_name, key_name, ca_name};

enum { NAMES_N = sizeof names / sizeof names[0], CERTIFICATES_MAX = 64 };

struct tls_material *tls_material_ref(struct tls_material *t) {
    unsigned before = atomic_fetch_add_explicit(&t->refs, 1, memory_order_relaxed);
    CHECK(before > 0);
    return t;
}

static void wipe(char *text) {
    if (text)
        explicit_bzero(text, strlen(text));
    free(text);
}

void tls_material_unref(struct tls_material *t) {
    if (!t)
        return;
    unsigned before = atomic_fetch_sub_explicit(&t->refs, 1, memory_order_acq_rel);
    CHECK(before > 0);
    if (before > 1)
        return;
    wipe(t->client_certificate);
    wipe(t->client_key);
    wipe(t->ca);
    free(t);
}

/* ---- what PEM holds ---- */

DEFINE_CLEANUP(cleanup_bio, BIO, BIO_free_all)
DEFINE_CLEANUP(cleanup_x509, X509, X509_free)
DEFINE_CLEANUP(cleanup_pkey, EVP_PKEY, EVP_PKEY_free)

/* How many certificates there are, the first one in *ret_first when asked for; -1 when something in it is
 * none. */
static int count_certificates(struct slice pem, X509 **ret_first) {
    _cleanup_(cleanup_bio) BIO *bio = BIO_new_mem_buf(pem.p, (int)pem.n);
    int n = 0;
    X509 *x;
    while (bio && n <= CERTIFICATES_MAX && (x = PEM_read_bio_X509(bio, NULL, NULL, NULL))) {
        if (n++ == 0 && ret_first)
            *ret_first = x;
        else
            X509_free(x);
    }
    /* The end of the file is told as "no start line"; anything else is damage. */
    bool ended = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
    ERR_clear_error();
    return ended ? n : -1;
}

int tls_certificates_count(struct slice pem) {
    int n = count_certificates(pem, NULL);
    return n < 0 ? -EINVAL : n;
}

/* A key that asks for a passphrase gets none. */
static int no_passphrase(char *out, int size, int writing, void *arg) {
    (void)out;
    (void)size;
    (void)writing;
    (void)arg;
    return -1;
}

static EVP_PKEY *read_key(struct slice pem) {
    _cleanup_(cleanup_bio) BIO *bio = BIO_new_mem_buf(pem.p, (int)pem.n);
    EVP_PKEY *key = bio ? PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL) : NULL;
    ERR_clear_error();
    return key;
}

/* ---- reading a document ---- */

static struct slice text_member(struct doc *d, const char *name, size_t most) {
    const json_t *value = doc_get(d, name);
    struct slice text = doc_string(value);
    if (!value)
        return SLICE_NONE;
    if (!json_is_string(value) || !text.p)
        doc_error(d, name, "must be a string in PEM form");
    else if (text.n > most)
        doc_error(d, name, "must have at most %zu bytes", most);
    else
        return text;
    return SLICE_NONE;
}

static void check_pair(struct doc *d, struct slice certificate, struct slice key) {
    _cleanup_(cleanup_x509) X509 *first = NULL;
    _cleanup_(cleanup_pkey) EVP_PKEY *pkey = key.p ? read_key(key) : NULL;
    if (certificate.p && count_certificates(certificate, &first) < 1)
        doc_error(d, certificate_name, "must be a certificate in PEM form, and its chain");
    if (key.p && !pkey)
        doc_error(d, key_name, "must be a private key in PEM form without a passphrase");
    if (first && pkey && X509_check_private_key(first, pkey) != 1)
        doc_error(d, key_name, "does not belong to client_certificate");
    ERR_clear_error();
}

void tls_material_parse(struct doc *d) {
    struct doc within;
    doc_enter(&within, d, "tls");
    struct slice certificate = text_member(&within, certificate_name, TLS_CERTIFICATE_BYTES_MAX);
    struct slice key = text_member(&within, key_name, TLS_KEY_BYTES_MAX);
    struct slice ca = text_member(&within, ca_name, TLS_CA_BYTES_MAX);
    if (!doc_get(&within, certificate_name) != !doc_get(&within, key_name))
        doc_error(&within, doc_get(&within, key_name) ? certificate_name : key_name,
                  "is missing: client_certificate and client_key come together");
    check_pair(&within, certificate, key);
    if (ca.p && count_certificates(ca, NULL) < 1)
        doc_error(&within, ca_name, "must be one or more certificates in PEM form");
    doc_refuse_unknown(&within, names, NAMES_N);
    for (size_t i = 0; i < NAMES_N; i++)
        if (doc_get(&within, names[i]))
            doc_put(&within, names[i], json_deep_copy(doc_get(&within, names[i])));
    bool empty = json_object_size(within.to) == 0;
    if (json_dumpb(within.to, NULL, 0, JSON_COMPACT) > TLS_TEXT_MAX)
        doc_error(d, "tls", "has too many characters that take space in JSON");
    doc_leave(&within, d, "tls");
    if (empty)
        (void)json_object_del(d->to, "tls");
}

/* ---- the stored form ---- */

static int add_text(const char *bytes, size_t n, void *arg) {
    buf_add(arg, bytes, n);
    return 0;
}

int tls_material_text(const json_t *object, struct buf *ret) {
    CHECK(json_is_object(object));
    return json_dump_callback(object, add_text, ret, JSON_COMPACT) == 0 && buf_ok(ret) ? 0 : -ENOMEM;
}

static int take(const json_t *object, const char *name, char **ret) {
    struct slice text = doc_string(json_object_get(object, name));
    *ret = slice_dup(text);
    return text.p && !*ret ? -ENOMEM : 0;
}

int tls_material_of_text(struct slice text, struct tls_material **ret) {
    json_t *object = json_loadb(text.p, text.n, 0, NULL);
    if (!object)
        return -EINVAL;
    struct tls_material *t = calloc(1, sizeof *t);
    int r = t ? 0 : -ENOMEM;
    if (t) {
        atomic_init(&t->refs, 1);
        r = take(object, certificate_name, &t->client_certificate);
        if (r == 0)
            r = take(object, key_name, &t->client_key);
        if (r == 0)
            r = take(object, ca_name, &t->ca);
    }
    json_decref(object);
    if (r < 0)
        tls_material_unref(t);
    else
        *ret = t;
    return r;
}
