#include "deliver/response.h"

#include <openssl/evp.h>

void response_status(struct client_request *r, int status) {
    buf_reset(&r->headers);
    r->status = status >= 200 ? status : 0;
}

void response_header(struct client_request *r, struct slice line) {
    if (r->headers.n + line.n + 2 > CLIENT_HEADERS_KEPT_MAX)
        return;
    buf_add_slice(&r->headers, line);
    buf_add(&r->headers, "\r\n", 2);
}

static void hash(struct client_request *r, struct slice bytes) {
    if (!r->hash) {
        r->hash = EVP_MD_CTX_new();
        r->has_hash = r->hash && EVP_DigestInit_ex2(r->hash, EVP_sha256(), NULL) == 1;
    }
    if (r->has_hash)
        r->has_hash = EVP_DigestUpdate(r->hash, bytes.p, bytes.n) == 1;
}

bool response_body(struct client_request *r, struct slice bytes) {
    size_t left = CLIENT_BODY_READ_MAX - r->body_read, take = bytes.n < left ? bytes.n : left;
    size_t keep = CLIENT_BODY_KEPT_MAX - r->body_kept.n;
    buf_add(&r->body_kept, bytes.p, take < keep ? take : keep);
    hash(r, (struct slice){bytes.p, take});
    r->body_read += take;
    return r->body_read < CLIENT_BODY_READ_MAX;
}

static struct slice header_value(struct slice headers, struct slice name) {
    while (headers.n) {
        const char *end = memchr(headers.p, '\n', headers.n);
        CHECK(end && end > headers.p);
        struct slice line = {headers.p, (size_t)(end - headers.p) - 1};
        if (line.n > name.n && line.p[name.n] == ':' && slice_eq_nocase((struct slice){line.p, name.n}, name))
            return (struct slice){line.p + name.n + 1, line.n - name.n - 1};
        headers.n -= line.n + 2;
        headers.p = end + 1;
    }
    return SLICE_NONE;
}

void response_finish(struct client_request *r) {
    if (r->has_hash)
        r->has_hash = EVP_DigestFinal_ex(r->hash, r->body_hash, NULL) == 1;
    EVP_MD_CTX_free(r->hash);
    r->hash = NULL;
    /* A status decides the outcome, whatever became of the rest. */
    if (r->status)
        r->error = ATTEMPT_OK;
    r->retry_after = header_value(buf_slice(&r->headers), SLICE_LIT("retry-after"));
}

void response_forget(struct client_request *r) {
    EVP_MD_CTX_free(r->hash);
    r->hash = NULL;
    r->has_hash = false;
    r->status = 0;
    r->body_read = 0;
    buf_reset(&r->headers);
    buf_reset(&r->body_kept);
}
