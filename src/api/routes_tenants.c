/* Tenants: who they are, and the limits that hold for them. */
#include <errno.h>

#include "api/routes.h"
#include "api/subscription_json.h"
#include "base/log.h"
#include "cluster/node.h"
#include "core/doc.h"
#include "core/merge_patch.h"

static json_t *tenant_json(const struct tenant *t, const json_t *doc, int64_t created_at,
                           int64_t updated_at) {
    const char *name = json_string_value(json_object_get(doc, "name"));
    return json_pack("{s:s, s:s, s:s, s:o, s:b, s:o, s:o}", "id", t->id, "name", name ? name : "", "tier",
                     tenant_tier_name(t->tier), "limits", tenant_limits_doc(&t->limits), "allow_http",
                     t->allow_http, "created_at", control_time(created_at), "updated_at",
                     control_time(updated_at));
}

/* ---- reading ---- */

static json_t *row_json(const struct tenant_record *row) {
    struct tenant t;
    _cleanup_json_ json_t *doc = json_loadb(row->doc.p, row->doc.n, 0, NULL);
    if (!doc || tenant_of_record(row, &t) < 0)
        return NULL;
    return tenant_json(&t, doc, row->created_at, row->updated_at);
}

static int take_tenant(void *arg, const struct tenant_record *row) {
    json_t **ret = arg;
    *ret = row_json(row);
    return *ret ? 0 : -ENOMEM;
}

static int list_tenant(void *arg, const struct tenant_record *row) {
    return page_add(arg, row->no, row_json(row));
}

void route_get_tenant(struct request *r) {
    json_t *found = NULL;
    struct store_reader *reader;
    if (!request_no_query(r) || !(reader = request_reader(r)))
        return;
    int e = store_read_tenant(reader, slice_of(r->tenant.id), take_tenant, &found);
    if (e == -ENOENT)
        request_problem(r, 404, "There is no such tenant.");
    else if (e < 0)
        request_unavailable(r, e);
    else
        request_json(r, 200, found);
}

void route_list_tenants(struct request *r) {
    struct field_errors errors = {0};
    struct page page;
    if (!page_begin(r, 't', NULL, 0, &errors, &page))
        return;
    struct store_reader *reader = page_reader(r, &page, &errors);
    if (!reader)
        return;
    uint32_t before = page.before > UINT32_MAX ? UINT32_MAX : (uint32_t)page.before;
    page_answer(r, &page, store_list_tenants(reader, before, page.limit + 1, list_tenant, &page));
}

/* ---- changing ---- */

/* What a writing route keeps until it is answered. */
struct tenant_change {
    json_t *doc;          /* to create: the normal form; to change: the patch */
    struct tenant tenant; /* as it becomes */
    bool snapshots;       /* those of its subscriptions change, too */
};

static void free_change(void *data) {
    struct tenant_change *c = data;
    json_decref(c->doc);
    free(c);
}

/* Takes doc over; NULL after having answered. */
static struct tenant_change *keep_change(struct request *r, json_t *doc) {
    struct tenant_change *c = request_keep(r, sizeof *c, free_change);
    if (c)
        c->doc = doc;
    else
        json_decref(doc);
    return c;
}

/* After the commit: what memory holds of the tenant. */
static void put_in_force(struct request *r) {
    struct tenant_change *c = r->data;
    int e = directory_put_tenant(r->o->directory, &c->tenant);
    if (e == 0)
        e = dispatch_configure_tenant(r->o->dispatch, c->tenant.no, &c->tenant.limits);
    if (e < 0)
        log_error("a changed tenant could not be put in force; restart to do so",
                  log_str("tenant", c->tenant.id), log_str("error", strerror(-e)));
    if (r->o->node)
        node_tenant_changed(r->o->node);
    if (c->snapshots)
        apply_tenant(r->o->apply, c->tenant.no, r->now);
}

static int create(struct request *r, struct store *s) {
    struct tenant_change *c = r->data;
    _cleanup_free_ char *text = json_dumps(c->doc, JSON_COMPACT);
    if (!text)
        return -ENOMEM;
    struct tenant_record record = {
        .id = slice_of(c->tenant.id), .doc = slice_of(text), .created_at = r->now, .updated_at = r->now};
    int e = store_insert_tenant(s, &record, &c->tenant.no);
    if (e == -EEXIST)
        request_problem(r, 409, "The tenant %s exists already.", c->tenant.id);
    if (e < 0)
        return e;
    r->tenant = c->tenant; /* the audit names it */
    e = request_audit(r, s, "tenant.create", c->tenant.id, c->doc);
    return e < 0 ? e : control_answer(r, 201, tenant_json(&c->tenant, c->doc, r->now, r->now));
}

void route_create_tenant(struct request *r) {
    struct field_errors errors = {0};
    struct tenant t = {0};
    if (!control_takes_json(r, false))
        return;
    _cleanup_json_ json_t *body = request_object(r);
    if (!body)
        return;
    struct slice id = doc_string(json_object_get(body, "id"));
    if (!tenant_id_valid(id))
        field_error_add(&errors, "id", "must be 1 to %d of A-Z, a-z, 0-9, '.', '_' and '-'", TENANT_ID_MAX);
    _cleanup_json_ json_t *doc = tenant_parse(body, &t, &errors);
    if (field_errors_count(&errors)) {
        request_invalid(r, &errors);
        return;
    }
    if (!doc) {
        request_unavailable(r, -ENOMEM);
        return;
    }
    memcpy(t.id, id.p, id.n);
    struct tenant_change *c = keep_change(r, TAKE_PTR(doc));
    if (!c)
        return;
    c->tenant = t;
    request_change(r, create, put_in_force);
}

static int no_tenant(struct request *r) {
    request_problem(r, 404, "There is no such tenant.");
    return -ENOENT;
}

/* The document that a patch makes; NULL after having answered 422, or when memory is out. Fills c->tenant. */
static json_t *patched(struct request *r, const struct tenant_record *record, int *ret_error) {
    struct tenant_change *c = r->data;
    struct field_errors errors = {0};
    _cleanup_json_ json_t *stored = json_loadb(record->doc.p, record->doc.n, 0, NULL);
    _cleanup_json_ json_t *merged = stored ? json_merge_patch(stored, c->doc) : NULL;
    static const char *const answered[] = {"created_at", "updated_at"};
    const json_t *id = json_object_get(c->doc, "id");
    *ret_error = -ENOMEM;
    if (!merged || json_keep_nulls(merged, c->doc, answered, 2) < 0 ||
        json_keep_nulls(json_object_get(merged, "limits"), json_object_get(c->doc, "limits"), NULL, 0) < 0)
        return NULL;
    if (id && !slice_eq(doc_string(id), slice_of(c->tenant.id)))
        field_error_add(&errors, "id", "cannot be changed");
    _cleanup_json_ json_t *doc = tenant_parse(merged, &c->tenant, &errors);
    if (field_errors_count(&errors)) {
        request_invalid(r, &errors);
        *ret_error = -EINVAL;
        return NULL;
    }
    return TAKE_PTR(doc);
}

static int change(struct request *r, struct store *s) {
    struct tenant_change *c = r->data;
    struct tenant_record record;
    struct tenant before;
    int e = store_get_tenant(s, r->tenant.no, &record);
    if (e == -ENOENT)
        return no_tenant(r);
    if (e == 0)
        e = tenant_of_record(&record, &before);
    if (e < 0)
        return e == -EINVAL ? -EIO : e; /* what the store holds was valid when it went in */
    c->tenant = before;
    int64_t created_at = record.created_at;
    _cleanup_json_ json_t *doc = patched(r, &record, &e);
    if (!doc)
        return e;
    _cleanup_free_ char *text = json_dumps(doc, JSON_COMPACT);
    if (!text)
        return -ENOMEM;
    c->snapshots = before.tier != c->tenant.tier || before.allow_http != c->tenant.allow_http;
    e = store_update_tenant(s, before.no, slice_of(text), r->now);
    if (e == 0 && before.tier != c->tenant.tier && store_is_shared(s))
        e = store_change_tier(s, before.no, &c->tenant.tier_change);
    if (e == 0)
        e = request_audit(r, s, "tenant.update", before.id, c->doc);
    return e < 0 ? e : control_answer(r, 200, tenant_json(&c->tenant, doc, created_at, r->now));
}

void route_patch_tenant(struct request *r) {
    if (!control_takes_json(r, true))
        return;
    json_t *patch = request_object(r);
    if (patch && keep_change(r, patch))
        request_change(r, change, put_in_force);
}

static int remove_tenant(struct request *r, struct store *s) {
    int e = store_delete_tenant(s, r->tenant.no, r->now);
    if (e == -ENOENT)
        return no_tenant(r);
    if (e == -EBUSY)
        request_problem(r, 409,
                        "The tenant still has subscriptions or open deliveries: delete its subscriptions, "
                        "and try again once what they left behind is closed.");
    if (e < 0)
        return e;
    (void)request_write(r, 204);
    return request_audit(r, s, "tenant.delete", r->tenant.id, NULL);
}

static void deleted(struct request *r) {
    directory_remove_tenant(r->o->directory, r->tenant.no);
}

void route_delete_tenant(struct request *r) {
    if (request_no_query(r))
        request_change(r, remove_tenant, deleted);
}
