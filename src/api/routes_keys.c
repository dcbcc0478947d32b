/* API keys, and the audit trail of who changed what. */
#include <errno.h>
#include <openssl/sha.h>
#include <stdio.h>

#include "api/base64url.h"
#include "api/routes.h"
#include "api/subscription_json.h"
#include "base/clock.h"
#include "base/random.h"
#include "core/doc.h"
#include "core/log_id.h"

#define KEY_PREFIX "phk_"

enum {
    KEY_BYTES = 32,
    KEY_TEXT_SIZE = sizeof KEY_PREFIX - 1 + BASE64URL_SIZE(KEY_BYTES),
};

static const struct {
    const char *name;
    uint32_t scope;
} scopes[] = {
    {"events:write", SCOPE_EVENTS_WRITE},
    {"events:read", SCOPE_EVENTS_READ},
    {"subscriptions:write", SCOPE_SUBSCRIPTIONS_WRITE},
    {"subscriptions:read", SCOPE_SUBSCRIPTIONS_READ},
    {"deliveries:read", SCOPE_DELIVERIES_READ},
    {"replays:write", SCOPE_REPLAYS_WRITE},
    {"admin", SCOPE_ADMIN},
};

enum { SCOPES_N = sizeof scopes / sizeof scopes[0] };

static json_t *scopes_json(uint32_t set) {
    json_t *list = json_array();
    for (size_t i = 0; i < SCOPES_N; i++) {
        if ((set & scopes[i].scope) && json_array_append_new(list, json_string(scopes[i].name)) < 0) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

/* `text` is the key itself, which is shown once: NULL leaves it out. */
static json_t *key_json(const struct key_record *k, const char *tenant_id, const char *text) {
    char id[ID_TEXT_SIZE];
    id_format(ID_KEY, k->id, id);
    return json_pack("{s:s, s:s*, s:s?, s:o, s:o, s:o}", "id", id, "key", text, "tenant_id", tenant_id,
                     "scopes", scopes_json(k->scopes), "created_at", control_time(k->created_at),
                     "expires_at", control_time(k->expires_at));
}

/* ---- creating ---- */

struct key_creation {
    struct key_record record;
    struct tenant tenant; /* no == 0: every tenant */
    char text[KEY_TEXT_SIZE];
};

static void free_creation(void *data) {
    struct key_creation *c = data;
    explicit_bzero(c, sizeof *c);
    free(c);
}

uint32_t scope_named(struct slice name) {
    for (size_t i = 0; i < SCOPES_N; i++)
        if (slice_eq(name, slice_of(scopes[i].name)))
            return scopes[i].scope;
    return 0;
}

static void read_scopes(struct doc *d, struct key_record *ret) {
    const json_t *given = doc_get(d, "scopes"), *entry;
    size_t i;
    if (!json_is_array(given) || json_array_size(given) == 0) {
        doc_error(d, "scopes", given ? "must be a list of at least one scope" : "is required");
        return;
    }
    json_array_foreach (given, i, entry) {
        uint32_t scope = scope_named(doc_string(entry));
        if (!scope) {
            char name[40];
            snprintf(name, sizeof name, "scopes[%zu]", i);
            doc_error(d, name,
                      "must be one of events:write, events:read, subscriptions:write, subscriptions:read, "
                      "deliveries:read, replays:write and admin");
        }
        ret->scopes |= scope;
    }
}

static void read_tenant(struct request *r, struct doc *d, struct key_creation *c) {
    const json_t *given = doc_get(d, "tenant_id");
    if (given && !directory_tenant(r->o->directory, doc_string(given), &c->tenant))
        doc_error(d, "tenant_id", "must be the id of a tenant");
    if (given && (c->record.scopes & SCOPE_ADMIN))
        doc_error(d, "scopes", "must not hold admin when the key belongs to a tenant");
    c->record.tenant_no = c->tenant.no;
}

static void read_expiry(struct request *r, struct doc *d, struct key_record *ret) {
    const json_t *given = doc_get(d, "expires_at");
    if (!given)
        return;
    struct slice text = doc_string(given);
    if (!text.p || rfc3339_parse(text, &ret->expires_at) < 0)
        doc_error(d, "expires_at", "must be an RFC 3339 time, such as 2026-11-24T20:49:00Z");
    else if (ret->expires_at <= r->now)
        doc_error(d, "expires_at", "must be in the future");
}

/* false after having answered. */
static bool read_key(struct request *r, const json_t *body, struct key_creation *c) {
    static const char *const names[] = {"tenant_id", "scopes", "expires_at"};
    struct field_errors errors = {0};
    struct doc d;
    doc_begin(&d, body, true, &errors);
    read_scopes(&d, &c->record);
    read_tenant(r, &d, c);
    read_expiry(r, &d, &c->record);
    doc_refuse_unknown(&d, names, sizeof names / sizeof names[0]);
    json_decref(doc_end(&d));
    if (field_errors_count(&errors))
        request_invalid(r, &errors);
    return !field_errors_count(&errors);
}

static void make_key(struct request *r, struct key_creation *c) {
    uint8_t bytes[KEY_BYTES];
    random_bytes(bytes, sizeof bytes);
    memcpy(c->text, KEY_PREFIX, sizeof KEY_PREFIX);
    base64url_encode(bytes, sizeof bytes, c->text + sizeof KEY_PREFIX - 1);
    explicit_bzero(bytes, sizeof bytes);
    SHA256((const unsigned char *)c->text, strlen(c->text), c->record.hash);
    c->record.id = control_new_id(r);
    c->record.created_at = r->now;
}

static int create(struct request *r, struct store *s) {
    struct key_creation *c = r->data;
    const char *tenant_id = c->tenant.no ? c->tenant.id : NULL;
    char id[ID_TEXT_SIZE];
    struct tenant_record tenant;
    int e = c->tenant.no ? store_get_tenant(s, c->tenant.no, &tenant) : 0;
    if (e == -ENOENT)
        request_problem(r, 409, "The tenant was deleted meanwhile.");
    if (e == 0)
        e = store_insert_key(s, &c->record);
    if (e < 0)
        return e;
    r->tenant = c->tenant; /* the audit names it */
    id_format(ID_KEY, c->record.id, id);
    _cleanup_json_ json_t *detail = key_json(&c->record, tenant_id, NULL);
    e = detail ? request_audit(r, s, "key.create", id, detail) : -ENOMEM;
    return e < 0 ? e : control_answer(r, 201, key_json(&c->record, tenant_id, c->text));
}

static void created(struct request *r) {
    const struct key_creation *c = r->data;
    struct api_key key = {.id = c->record.id,
                          .tenant_no = c->record.tenant_no,
                          .scopes = c->record.scopes,
                          .expires_at = c->record.expires_at};
    if (directory_put_key(r->o->directory, c->record.hash, &key) < 0)
        log_error("a new API key could not be put in force; restart to do so",
                  log_id("key", ID_KEY, c->record.id));
}

void route_create_key(struct request *r) {
    if (!control_takes_json(r, false))
        return;
    _cleanup_json_ json_t *body = request_object(r);
    if (!body)
        return;
    struct key_creation *c = request_keep(r, sizeof *c, free_creation);
    if (!c)
        return;
    if (!read_key(r, body, c))
        return;
    make_key(r, c);
    request_change(r, create, created);
}

/* ---- listing and revoking ---- */

struct listing {
    struct page page;
    struct directory *directory;
};

static int list_key(void *arg, const struct key_record *row) {
    struct listing *l = arg;
    struct tenant owner;
    if (row->revoked_at || (l->page.before && row->id.key >= l->page.before))
        return 0;
    /* With its tenant a key died, too. */
    if (row->tenant_no && !directory_tenant_by_no(l->directory, row->tenant_no, &owner))
        return 0;
    return page_add(&l->page, row->id.key, key_json(row, row->tenant_no ? owner.id : NULL, NULL));
}

void route_list_keys(struct request *r) {
    struct field_errors errors = {0};
    struct listing l = {.directory = r->o->directory};
    if (!page_begin(r, 'k', NULL, 0, &errors, &l.page))
        return;
    struct store_reader *reader = page_reader(r, &l.page, &errors);
    if (!reader)
        return;
    /* All of them: how many of the newest are revoked is not known, and the page stops the walk. */
    page_answer(r, &l.page, store_list_keys(reader, SIZE_MAX, list_key, &l));
}

struct revocation {
    struct id id;
    char text[ID_TEXT_SIZE];
};

static int revoke_key(struct request *r, struct store *s) {
    const struct revocation *v = r->data;
    int e = store_revoke_key(s, v->id, r->now, &r->tenant.no); /* the audit names it */
    if (e == -ENOENT)
        request_problem(r, 404, "There is no such key.");
    if (e < 0)
        return e;
    (void)request_write(r, 204);
    return request_audit(r, s, "key.delete", v->text, NULL);
}

static void revoked(struct request *r) {
    const struct revocation *v = r->data;
    directory_remove_key(r->o->directory, v->id);
}

void route_delete_key(struct request *r) {
    struct id id;
    if (!request_no_query(r) || !request_id(r, ID_KEY, &id))
        return;
    struct revocation *v = request_keep(r, sizeof *v, free);
    if (!v)
        return;
    v->id = id;
    id_format(ID_KEY, id, v->text);
    request_change(r, revoke_key, revoked);
}

/* ---- the audit trail ---- */

static json_t *text_json(struct slice s) {
    return s.p ? json_stringn(s.p, s.n) : json_null();
}

static int list_audit(void *arg, uint64_t no, const struct audit_record *row) {
    json_t *detail = row->detail.p ? json_loadb(row->detail.p, row->detail.n, JSON_DECODE_ANY, NULL) : NULL;
    return page_add(arg, no,
                    json_pack("{s:o, s:o, s:o, s:o, s:o, s:o}", "at", control_time(row->at), "actor",
                              text_json(row->actor), "action", text_json(row->action), "object",
                              text_json(row->object), "tenant_id", text_json(row->tenant_id), "detail",
                              detail ? detail : json_null()));
}

void route_list_audit(struct request *r) {
    struct field_errors errors = {0};
    struct query_param filter = {.name = "tenant_id"};
    struct page page;
    if (!page_begin(r, 'u', &filter, 1, &errors, &page))
        return;
    if (filter.value.p && !tenant_id_valid(filter.value))
        field_error_add(&errors, filter.name, "must be the id of a tenant");
    struct store_reader *reader = page_reader(r, &page, &errors);
    if (!reader)
        return;
    page_answer(r, &page,
                store_list_audit(reader, filter.value, page.before, page.limit + 1, list_audit, &page));
}
