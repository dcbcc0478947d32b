/* Who asks, and what may they: key (401), tenant (404), scope (403), in this order. */
#include <openssl/crypto.h>
#include <openssl/sha.h>
#include <strings.h>

#include "api/internal.h"

void auth_hash(struct slice key, uint8_t ret[32]) {
    SHA256((const unsigned char *)key.p, key.n, ret);
}

static bool refuse(struct request *r, const char *detail) {
    request_problem(r, 401, "%s", detail);
    request_header(r, "WWW-Authenticate", "Bearer realm=\"posthorn\"");
    return false;
}

/* The key of "Authorization: Bearer KEY"; absent when there is none. */
static struct slice bearer(struct request *r) {
    const char *value = request_header_value(r, MHD_HTTP_HEADER_AUTHORIZATION);
    if (!value || strncasecmp(value, "bearer ", 7) != 0)
        return SLICE_NONE;
    value += 7;
    while (*value == ' ')
        value++;
    struct slice key = slice_of(value);
    while (key.n && key.p[key.n - 1] == ' ')
        key.n--;
    return key.n ? key : SLICE_NONE;
}

bool auth_identify(struct request *r, const uint8_t admin_hash[32]) {
    struct slice key = bearer(r);
    if (!key.p)
        return refuse(r, "A key is needed: Authorization: Bearer KEY.");
    uint8_t hash[32];
    auth_hash(key, hash);
    if (CRYPTO_memcmp(hash, admin_hash, sizeof hash) == 0) {
        r->is_admin_key = true;
        r->scopes = SCOPE_ADMIN;
        strcpy(r->actor, "admin");
        return true;
    }
    /* Found by its hash: what a timing could tell of a table of hashes tells nothing of a key. */
    struct api_key known;
    if (!directory_key(r->o->directory, hash, &known) || (known.expires_at && known.expires_at <= r->now))
        return refuse(r, "This key is not known here, was revoked, or has expired.");
    r->key_id = known.id;
    r->scopes = known.scopes;
    r->key_tenant_no = known.tenant_no;
    id_format(ID_KEY, known.id, r->actor);
    return true;
}

bool auth_permit(struct request *r, struct slice tenant_id) {
    if (r->route->tenant_route) {
        bool found = directory_tenant(r->o->directory, tenant_id, &r->tenant);
        if (!found || (r->key_tenant_no && r->key_tenant_no != r->tenant.no)) {
            r->tenant = (struct tenant){0};
            request_problem(r, 404, "There is no such tenant.");
            return false;
        }
    }
    /* A tenant's admin key rules that tenant's objects, not the control plane over all of them. */
    bool control_plane = r->route->scope == SCOPE_ADMIN;
    if (control_plane ? (r->scopes & SCOPE_ADMIN) && !r->key_tenant_no
                      : (r->scopes & ((unsigned)r->route->scope | SCOPE_ADMIN)) != 0)
        return true;
    request_problem(r, 403, "This key has not the scope that %s %s needs.", r->route->method,
                    r->route->pattern);
    return false;
}
