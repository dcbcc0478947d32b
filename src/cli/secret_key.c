#include "cli/secret_key.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>

#include "base/random.h"
#include "cli/key_file.h"

static int refuse(int error, const char *what, const char *from, const char *advice) {
    log_error(what, log_str("key", from), log_str("error", strerror(-error)), log_str("advice", advice));
    return error;
}

static bool is_space(char c) {
    return c == ' ' || c == '\n' || c == '\r' || c == '\t' || c == ',';
}

/* Adds the keys of a text, which stand apart by white space or commas, at most `most` of them. */
static int add_keys(struct seal_keyring *ring, struct slice text, size_t most) {
    size_t added = 0;
    while (text.n) {
        size_t n = 0;
        while (n < text.n && !is_space(text.p[n]))
            n++;
        if (n > 0) {
            if (added == most || ring->n == SEAL_KEYS_MAX)
                return -E2BIG;
            int r = seal_key_parse((struct slice){text.p, n}, &ring->keys[ring->n]);
            if (r < 0)
                return r;
            ring->n++;
            added++;
        }
        text = (struct slice){text.p + n + (n < text.n), text.n - n - (n < text.n)};
    }
    return added ? 0 : -ENODATA;
}

static int add_text(struct seal_keyring *ring, struct slice text, size_t most, const char *from) {
    int r = add_keys(ring, text, most);
    if (r < 0)
        return refuse(r, most == 1 ? "the secret key is no key" : "the previous secret keys are no keys",
                      from,
                      most == 1 ? "it is 32 random bytes as base64 or hex: openssl rand -base64 32"
                                : "each is 32 bytes as base64 or hex, a line each, at most seven");
    return 0;
}

static int add_file(struct seal_keyring *ring, const char *path, size_t most) {
    _cleanup_(buf_wipe) struct buf text = {0};
    bool open_to_others = false;
    int r = key_file_read(path, &text, &open_to_others);
    if (r < 0)
        return refuse(r, "the secret key cannot be read", path,
                      "make it readable for this user, and for nobody else");
    if (open_to_others)
        log_warn("the secret key may be read by others: chmod 600", log_str("key", path));
    return add_text(ring, buf_slice(&text), most, path);
}

static int make_key(const char *path) {
    unsigned char bytes[SEAL_KEY_SIZE];
    char text[2 * SEAL_KEY_SIZE];
    random_bytes(bytes, sizeof bytes);
    EVP_EncodeBlock((unsigned char *)text, bytes, sizeof bytes);
    int r = key_file_make(path, text);
    OPENSSL_cleanse(bytes, sizeof bytes);
    OPENSSL_cleanse(text, sizeof text);
    if (r < 0)
        return refuse(r, "the secret key cannot be made", path, "the data folder must be on a working disk");
    log_info("a key that seals signing secrets was made: keep a copy of it apart from the store's backups; "
             "without it "
             "they cannot be read",
             log_str("key", path));
    return 0;
}

/* The key that is kept in the data folder, because the settings name none. */
static int add_own(struct seal_keyring *ring, const char *data, bool sealed_before) {
    _cleanup_buf_ struct buf path = {0};
    buf_addf(&path, "%s/secret.key", data);
    if (!buf_ok(&path))
        return -ENOMEM;
    if (access(path.p, F_OK) < 0 && errno == ENOENT) {
        if (sealed_before)
            return refuse(-ENOENT, "the key that sealed the signing secrets of this store is missing", path.p,
                          "put it back from a backup, or give it by secret-key-file or POSTHORN_SECRET_KEY");
        int r = make_key(path.p);
        if (r < 0)
            return r;
    }
    return add_file(ring, path.p, 1);
}

static int find_keys(const struct config *c, bool sealed_before, struct seal_keyring *ring) {
    int r;
    if (c->secret_key)
        r = add_text(ring, slice_of(c->secret_key), 1, "POSTHORN_SECRET_KEY");
    else if (c->secret_key_file)
        r = add_file(ring, c->secret_key_file, 1);
    else
        r = add_own(ring, c->data, sealed_before);
    if (r == 0 && c->secret_key_previous)
        r = add_text(ring, slice_of(c->secret_key_previous), SEAL_KEYS_MAX - 1,
                     "POSTHORN_SECRET_KEY_PREVIOUS");
    if (r == 0 && c->secret_key_previous_file)
        r = add_file(ring, c->secret_key_previous_file, SEAL_KEYS_MAX - 1);
    return r;
}

int secret_key_unlock(const struct config *c, struct store *store) {
    struct seal_keyring ring = {.n = 0};
    bool sealed_before = false;
    uint64_t resealed = 0;
    const char *message = "";
    int r = store_is_sealed(store, &sealed_before);
    if (r == 0 && (r = find_keys(c, sealed_before, &ring)) == 0) {
        r = store_unlock(store, &ring, &resealed, &message);
        if (r < 0)
            log_error("the store cannot be unlocked", log_str("reason", message));
    }
    seal_keyring_wipe(&ring);
    if (r == 0 && resealed)
        log_info("signing secrets were sealed with the secret key; previous keys are not needed any more",
                 log_int("secrets", (int64_t)resealed));
    return r;
}

int secret_key_at_hand(const struct config *c, struct seal_keyring *ret) {
    _cleanup_buf_ struct buf own = {0};
    buf_addf(&own, "%s/secret.key", c->data);
    if (!buf_ok(&own))
        return -ENOMEM;
    *ret = (struct seal_keyring){.n = 0};
    if (!c->secret_key && !c->secret_key_file && access(own.p, F_OK) < 0)
        return 0;
    return find_keys(c, true, ret);
}
