#include "api/tls.h"

#include <errno.h>
#include <gnutls/x509.h>

const char tls_priorities[] =
    "SECURE128:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2:-RSA:-CIPHER-ALL:+AES-256-GCM:+AES-128-GCM:"
    "+CHACHA20-POLY1305:%SERVER_PRECEDENCE";

/* What a handshake takes; immutable once it is in force. */
struct certificate {
    gnutls_pcert_st chain[TLS_CHAIN_MAX];
    unsigned chain_n;
    gnutls_privkey_t key;
    int64_t expires_at;
    int64_t replaced_at; /* Unix ms */
    struct certificate *next;
};

struct tls {
    char *certificate_file, *key_file;
    struct certificate *replaced; /* newest first */
    unsigned replaced_n;
};

static struct certificate *_Atomic in_force;

static void certificate_free(struct certificate *c) {
    if (!c)
        return;
    for (unsigned i = 0; i < c->chain_n; i++)
        gnutls_pcert_deinit(&c->chain[i]);
    if (c->key)
        gnutls_privkey_deinit(c->key);
    free(c);
}

DEFINE_CLEANUP(cleanup_certificate, struct certificate, certificate_free)

static int complain(struct buf *complaint, const char *file, const char *what, int gnutls_error) {
    buf_addf(complaint, "%s: %s", file, what);
    if (gnutls_error < 0)
        buf_addf(complaint, " (%s)", gnutls_strerror(gnutls_error));
    return gnutls_error == GNUTLS_E_MEMORY_ERROR ? -ENOMEM : -EINVAL;
}

static void free_secret_datum(gnutls_datum_t *d) {
    if (d->data)
        explicit_bzero(d->data, d->size);
    gnutls_free(d->data);
    d->data = NULL;
}

static int load_chain(const char *file, struct certificate *c, struct buf *complaint) {
    gnutls_datum_t text = {0};
    unsigned n = TLS_CHAIN_MAX;
    int e = gnutls_load_file(file, &text);
    if (e < 0)
        return complain(complaint, file, "cannot be read", e);
    e = gnutls_pcert_list_import_x509_raw(c->chain, &n, &text, GNUTLS_X509_FMT_PEM,
                                          GNUTLS_X509_CRT_LIST_IMPORT_FAIL_IF_EXCEED);
    gnutls_free(text.data);
    if (e < 0 || n == 0)
        return complain(complaint, file, "holds no PEM certificates, or more than 16", e);
    c->chain_n = n;
    return 0;
}

static int load_key(const char *file, struct certificate *c, struct buf *complaint) {
    gnutls_datum_t text = {0};
    int e = gnutls_load_file(file, &text);
    if (e < 0)
        return complain(complaint, file, "cannot be read", e);
    e = gnutls_privkey_init(&c->key);
    if (e >= 0)
        e = gnutls_privkey_import_x509_raw(c->key, &text, GNUTLS_X509_FMT_PEM, NULL, 0);
    free_secret_datum(&text);
    return e < 0 ? complain(complaint, file, "holds no PEM private key without a password", e) : 0;
}

/* A key of another certificate would fail every handshake. */
static int check_pair(const char *file, struct certificate *c, struct buf *complaint) {
    unsigned char of_key[64], of_leaf[64];
    size_t key_n = sizeof of_key, leaf_n = sizeof of_leaf;
    gnutls_pubkey_t public_half;
    int e = gnutls_pubkey_init(&public_half);
    if (e < 0)
        return complain(complaint, file, "cannot be checked", e);
    e = gnutls_pubkey_import_privkey(public_half, c->key, 0, 0);
    if (e >= 0)
        e = gnutls_pubkey_get_key_id(public_half, GNUTLS_KEYID_USE_SHA256, of_key, &key_n);
    if (e >= 0)
        e = gnutls_pubkey_get_key_id(c->chain[0].pubkey, GNUTLS_KEYID_USE_SHA256, of_leaf, &leaf_n);
    gnutls_pubkey_deinit(public_half);
    if (e < 0)
        return complain(complaint, file, "cannot be checked", e);
    if (key_n != leaf_n || memcmp(of_key, of_leaf, key_n) != 0)
        return complain(complaint, file, "is not the key of the certificate", 0);
    return 0;
}

static int read_end(const char *file, struct certificate *c, struct buf *complaint) {
    gnutls_x509_crt_t leaf;
    int e = gnutls_pcert_export_x509(&c->chain[0], &leaf);
    if (e < 0)
        return complain(complaint, file, "holds no X.509 certificate", e);
    c->expires_at = (int64_t)gnutls_x509_crt_get_expiration_time(leaf) * 1000;
    gnutls_x509_crt_deinit(leaf);
    return 0;
}

static int load(const struct tls *t, int64_t now_ms, struct certificate **ret, struct buf *complaint) {
    _cleanup_(cleanup_certificate) struct certificate *c = calloc(1, sizeof *c);
    if (!c)
        return -ENOMEM;
    int r = load_chain(t->certificate_file, c, complaint);
    if (r == 0)
        r = load_key(t->key_file, c, complaint);
    if (r == 0)
        r = check_pair(t->key_file, c, complaint);
    if (r == 0)
        r = read_end(t->certificate_file, c, complaint);
    if (r == 0 && c->expires_at <= now_ms)
        r = complain(complaint, t->certificate_file, "has expired", 0);
    if (r == 0)
        *ret = TAKE_PTR(c);
    return r;
}

int tls_load(const char *certificate, const char *key, int64_t now_ms, struct tls **ret,
             struct buf *complaint) {
    CHECK(!atomic_load(&in_force));
    struct tls *t = calloc(1, sizeof *t);
    if (!t)
        return -ENOMEM;
    struct certificate *c = NULL;
    t->certificate_file = slice_dup(slice_of(certificate));
    t->key_file = slice_dup(slice_of(key));
    int r = t->certificate_file && t->key_file ? load(t, now_ms, &c, complaint) : -ENOMEM;
    if (r < 0) {
        tls_free(t);
        return r;
    }
    atomic_store(&in_force, c);
    *ret = t;
    return 0;
}

/* Frees what no handshake can use any more. */
static void forget_replaced(struct tls *t, int64_t before) {
    struct certificate **at = &t->replaced;
    while (*at) {
        struct certificate *c = *at;
        if (c->replaced_at > before) {
            at = &c->next;
            continue;
        }
        *at = c->next;
        t->replaced_n--;
        certificate_free(c);
    }
}

int tls_reload(struct tls *t, int64_t now_ms, struct buf *complaint) {
    struct certificate *c;
    forget_replaced(t, now_ms - TLS_REPLACED_SECONDS * INT64_C(1000));
    if (t->replaced_n == TLS_REPLACED_MAX)
        return complain(complaint, t->certificate_file, "was read too often in the last minutes", 0);
    int r = load(t, now_ms, &c, complaint);
    if (r < 0)
        return r;
    struct certificate *old = atomic_exchange(&in_force, c);
    old->replaced_at = now_ms;
    old->next = t->replaced;
    t->replaced = old;
    t->replaced_n++;
    return 0;
}

int64_t tls_expires_at(const struct tls *t) {
    (void)t;
    return atomic_load(&in_force)->expires_at;
}

void tls_free(struct tls *t) {
    if (!t)
        return;
    forget_replaced(t, INT64_MAX);
    certificate_free(atomic_exchange(&in_force, NULL));
    free(t->certificate_file);
    free(t->key_file);
    free(t);
}

int tls_pick(gnutls_session_t session, const gnutls_datum_t *names, int names_n,
             const gnutls_pk_algorithm_t *algorithms, int algorithms_n, gnutls_pcert_st **ret_chain,
             unsigned *ret_chain_n, gnutls_privkey_t *ret_key) {
    (void)session;
    (void)names;
    (void)names_n;
    (void)algorithms;
    (void)algorithms_n;
    struct certificate *c = atomic_load(&in_force);
    *ret_chain = c->chain;
    *ret_chain_n = c->chain_n;
    *ret_key = c->key;
    return 0;
}
