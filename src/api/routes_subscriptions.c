/* Subscriptions: making, changing and deleting them, and how they fare. */
#include <errno.h>
#include <stdio.h>

#include "api/internal.h"
#include "api/side.h"
#include "api/subscription_json.h"
#include "base/log.h"
#include "core/doc.h"

/* Why a subscription is disabled when its owner asked for it. */
#define DISABLED_BY_USER SLICE_LIT("disabled by the API")

/* ---- reading ---- */

void route_get_subscription(struct request *r) {
    struct found_subscription found;
    if (request_no_query(r) && control_subscription(r, &found))
        request_json(r, 200, found.json);
}

struct listing {
    struct page page;
    const char *tenant_id;
};

static int list_subscription(void *arg, const struct subscription_record *row) {
    struct listing *l = arg;
    _cleanup_json_ json_t *doc = json_loadb(row->doc.p, row->doc.n, 0, NULL);
    return page_add(&l->page, row->no, subscription_json(row, doc, l->tenant_id));
}

/* -1: any. */
static int status_filter(const struct query_param *p, struct field_errors *errors) {
    for (int status = SUBSCRIPTION_ACTIVE; p->value.p && status < SUBSCRIPTION_DELETED; status++)
        if (slice_eq_nocase(p->value, slice_of(subscription_status_name((enum subscription_status)status))))
            return status;
    if (p->value.p)
        field_error_add(errors, p->name, "must be active, paused or disabled");
    return -1;
}

void route_list_subscriptions(struct request *r) {
    struct field_errors errors = {0};
    struct query_param filter = {.name = "status"};
    struct listing l = {.tenant_id = r->tenant.id};
    if (!page_begin(r, 's', &filter, 1, &errors, &l.page))
        return;
    int status = status_filter(&filter, &errors);
    struct store_reader *reader = page_reader(r, &l.page, &errors);
    if (!reader)
        return;
    uint32_t before = l.page.before > UINT32_MAX ? UINT32_MAX : (uint32_t)l.page.before;
    page_answer(r, &l.page,
                store_list_subscriptions(reader, r->tenant.no, status, before, l.page.limit + 1,
                                         list_subscription, &l));
}

/* ---- what may be stored ---- */

/* Judges the URL that `from` asks for, and puts its canonical form into doc (NULL: there is none). What is
 * no text of a fit length, subscription_parse has told already. A host that is a name is noted in `name` (may
 * be NULL), to be looked up. */
static int judge_url(const struct request *r, const struct tenant *owner, const json_t *from, json_t *doc,
                     struct field_errors *errors, struct side_lookup *name) {
    struct slice text = doc_string(json_object_get(from, "url"));
    if (!text.p || text.n == 0 || text.n > SUBSCRIPTION_URL_MAX)
        return 0;
    _cleanup_url_ struct url url = {0};
    const char *reason = "is not a URL";
    int e = url_parse(text, &url, &reason);
    if (e == 0)
        e = address_judge_url(r->o->addresses, r->o->allow_http || owner->allow_http, &url, &reason);
    if (e == -ENOMEM)
        return e;
    if (e == 0 && !url.is_literal && name) {
        snprintf(name->host, sizeof name->host, "%.*s", SLICE_ARG(url.host));
        name->port = url.port;
    }
    if (e < 0)
        field_error_add(errors, "url", "%s", reason);
    else if (doc)
        return json_object_set_new(doc, "url", json_string(url.text)) == 0 ? 0 : -ENOMEM;
    return 0;
}

static enum subscription_status status_of(const json_t *doc) {
    enum subscription_status status = SUBSCRIPTION_ACTIVE;
    int e = subscription_status_parse(doc_string(json_object_get(doc, "status")), &status);
    CHECK(e == 0); /* a normal form has one */
    return status;
}

/* The tenant as it is within the transaction; answers 404 when it is gone. */
static int owner_now(struct request *r, struct store *s, struct tenant *ret) {
    struct tenant_record record;
    int e = store_get_tenant(s, r->tenant.no, &record);
    if (e == -ENOENT)
        request_problem(r, 404, "There is no such tenant.");
    if (e == 0)
        e = tenant_of_record(&record, ret);
    return e == -EINVAL ? -EIO : e; /* what the store holds was valid when it went in */
}

/* Writes what `tls` holds; null removes it. */
static int put_tls(struct store *s, const struct tenant *owner, uint32_t no, const json_t *tls) {
    struct buf text = {0};
    int e = json_is_object(tls) ? tls_material_text(tls, &text) : 0;
    if (e == 0)
        e = store_put_tls(s, no, owner->no, text.p ? buf_slice(&text) : SLICE_NONE);
    buf_wipe(&text);
    return e;
}

/* ---- creating ---- */

struct creation {
    struct side_lookup lookup; /* first */
    struct request *r;
    json_t *doc, *tls; /* apart from each other: tls is kept sealed */
    struct signing_key key;
    uint32_t no;
};

static void free_creation(void *data) {
    struct creation *c = data;
    json_decref(c->doc);
    json_decref(c->tls);
    explicit_bzero(&c->key, sizeof c->key);
    free(c);
}

/* Numbers only ascend: while they are below the maximum there is nothing to count. */
static int check_room(struct request *r, struct store *s, const struct tenant *owner, uint32_t newest_no) {
    uint64_t n = 0;
    uint32_t most = owner->limits.max_subscriptions;
    int e = newest_no > most ? store_count_subscriptions(s, owner->no, &n) : 0;
    if (e < 0 || n <= most)
        return e;
    request_problem(r, 409, "The tenant has as many subscriptions as its limit max_subscriptions allows: %u.",
                    (unsigned)most);
    return -EBUSY;
}

/* With its secret, this once. */
static json_t *created_json(const struct request *r, const struct subscription_record *record,
                            const struct creation *c) {
    _cleanup_json_ json_t *to = subscription_json(record, c->doc, r->tenant.id);
    if (!to || secret_show(to, &c->key) < 0)
        return NULL;
    if (c->key.scheme == SIGNING_ED25519 &&
        json_object_set_new(to, "public_key", secret_public_json(&c->key)) < 0)
        return NULL;
    return TAKE_PTR(to);
}

static int create(struct request *r, struct store *s) {
    struct creation *c = r->data;
    struct tenant owner;
    struct secret_record secret;
    char id[ID_TEXT_SIZE];
    _cleanup_free_ char *text = json_dumps(c->doc, JSON_COMPACT);
    if (!text)
        return -ENOMEM;
    int e = owner_now(r, s, &owner);
    if (e < 0)
        return e;
    struct subscription_record record = {.tenant_no = owner.no,
                                         .id = control_new_id(r),
                                         .status = status_of(c->doc),
                                         .doc = slice_of(text),
                                         .created_at = r->now,
                                         .updated_at = r->now};
    if (record.status == SUBSCRIPTION_DISABLED)
        record.disabled_reason = DISABLED_BY_USER;
    id_format(ID_SUBSCRIPTION, record.id, id);
    e = store_insert_subscription(s, &record, &c->no);
    if (e == 0)
        e = check_room(r, s, &owner, c->no);
    if (e == 0)
        e = secret_insert(r, s, c->no, &c->key, &secret);
    if (e == 0 && json_is_object(c->tls))
        e = put_tls(s, &owner, c->no, c->tls);
    if (e == 0)
        e = request_audit(r, s, "subscription.create", id, NULL);
    explicit_bzero(&secret, sizeof secret);
    return e < 0 ? e : control_answer(r, 201, created_json(r, &record, c));
}

static void created(struct request *r) {
    struct creation *c = r->data;
    apply_subscription(r->o->apply, c->no, r->now);
}

/* Reads what is to be made out of a body; false after having answered. */
static bool read_creation(struct request *r, json_t *body, struct creation *c) {
    struct field_errors errors = {0};
    int scheme = subscription_scheme(body);
    int given = secret_given(body, scheme, &c->key, &errors);
    (void)json_object_del(body, "secret");
    c->doc = subscription_parse_for(body, r->tenant.tier, &errors);
    int e = given < 0 ? given : judge_url(r, &r->tenant, body, c->doc, &errors, &c->lookup);
    if (e == 0 && field_errors_count(&errors)) {
        request_invalid(r, &errors);
        return false;
    }
    c->tls = c->doc ? subscription_take_tls(c->doc) : NULL;
    if (e == 0 && !c->tls)
        e = -ENOMEM;
    if (e == 0 && given == 0)
        e = signing_key_generate((enum signing_scheme)scheme, &c->key);
    if (e < 0)
        request_unavailable(r, e);
    return e == 0;
}

/* What the name resolves to now is judged, too; a name that does not resolve is let in. */
static void creation_judged(struct side_lookup *l, const char *refused) {
    struct creation *c = (struct creation *)l;
    if (refused) {
        struct field_errors errors;
        field_errors_init(&errors);
        field_error_add(&errors, "url", "resolves to an address that %s", refused);
        request_invalid(c->r, &errors);
        request_resume(c->r);
        return;
    }
    request_change_suspended(c->r, create, created);
}

void route_create_subscription(struct request *r) {
    if (!control_takes_json(r, false))
        return;
    _cleanup_json_ json_t *body = request_object(r);
    if (!body)
        return;
    struct creation *c = request_keep(r, sizeof *c, free_creation);
    if (!c)
        return;
    if (!read_creation(r, body, c))
        return;
    if (!c->lookup.host[0]) {
        request_change(r, create, created);
        return;
    }
    c->r = r;
    c->lookup.done = creation_judged;
    request_suspend(r);
    side_judge(api_side(r->api), &c->lookup);
}

/* ---- changing ---- */

struct patching {
    struct side_lookup lookup; /* first */
    const char *refused;       /* what the name of a new URL resolves to; NULL: nothing against it */
    struct request *r;
    json_t *patch;
    uint32_t no;
    bool enabled; /* was disabled, and is so no more */
};

static void free_patching(void *data) {
    struct patching *p = data;
    json_decref(p->patch);
    free(p);
}

/* The document that the patch makes of `stored`; NULL with *ret_error, answered when that is -EINVAL. */
static json_t *patched(struct request *r, const struct tenant *owner, const json_t *stored, int *ret_error) {
    const struct patching *p = r->data;
    struct field_errors errors = {0};
    _cleanup_json_ json_t *merged = subscription_merge(stored, p->patch);
    *ret_error = -ENOMEM;
    if (!merged)
        return NULL;
    if (json_object_del(merged, "secret") == 0)
        field_error_add(&errors, "secret", "cannot be changed: rotate-secret makes a new one");
    int scheme = subscription_scheme(merged);
    if (scheme >= 0 && scheme != subscription_scheme(stored))
        field_error_add(&errors, "signature", "cannot be changed");
    _cleanup_json_ json_t *doc = subscription_parse_for(merged, owner->tier, &errors);
    if (json_object_get(p->patch, "url") && judge_url(r, owner, merged, doc, &errors, NULL) < 0)
        return NULL;
    if (p->refused)
        field_error_add(&errors, "url", "resolves to an address that %s", p->refused);
    if (field_errors_count(&errors)) {
        request_invalid(r, &errors);
        *ret_error = -EINVAL;
        return NULL;
    }
    return TAKE_PTR(doc);
}

/* The stored document with its TLS material in place, so that a patch can change a part of that. */
static int restore_tls(struct store *s, uint32_t no, json_t *stored) {
    struct buf text = {0};
    if (!json_is_true(json_object_get(stored, "tls")))
        return 0;
    int e = store_get_tls(s, no, &text);
    if (e == 0 && json_object_set_new(stored, "tls", json_loadb(text.p, text.n, 0, NULL)) < 0)
        e = -ENOMEM;
    buf_wipe(&text);
    return e == -ENOENT ? -EIO : e;
}

static bool differs(const json_t *a, const json_t *b, const char *name) {
    return !json_equal(json_object_get(a, name), json_object_get(b, name));
}

/* The record as the new document has it. */
static void update_record(struct subscription_record *record, const json_t *doc, int64_t now) {
    enum subscription_status before = record->status, after = status_of(doc);
    if (before == SUBSCRIPTION_PAUSED && after != SUBSCRIPTION_PAUSED)
        record->resumed_at = now;
    if (after != SUBSCRIPTION_DISABLED)
        record->disabled_reason = SLICE_NONE;
    else if (before != SUBSCRIPTION_DISABLED)
        record->disabled_reason = DISABLED_BY_USER;
    record->status = after;
    record->updated_at = now;
}

/* Which members were given. Never their values: headers hold secrets. */
static json_t *patch_detail(json_t *patch) {
    json_t *fields = json_array();
    for (void *at = json_object_iter(patch); at; at = json_object_iter_next(patch, at))
        if (json_array_append_new(fields, json_string(json_object_iter_key(at))) < 0)
            break; /* memory is out: the audit then names fewer */
    return json_pack("{s:o}", "fields", fields);
}

/* One that is enabled again may ask for what it lost. */
static int recover(struct request *r, struct store *s, const struct subscription_record *record,
                   const json_t *doc) {
    _cleanup_subscription_ struct subscription *snapshot = subscription_from_doc(doc, SLICE_NONE);
    if (!snapshot)
        return -ENOMEM;
    snapshot->no = record->no;
    snapshot->tenant_no = record->tenant_no;
    return replayer_recover(r->o->replayer, s, snapshot, r->now);
}

/* Writes a changed subscription, whose record's slices are the caller's. */
static int write_change(struct request *r, struct store *s, struct subscription_record *record,
                        const json_t *stored, const json_t *doc) {
    struct patching *p = r->data;
    char id[ID_TEXT_SIZE];
    id_format(ID_SUBSCRIPTION, record->id, id);
    p->enabled = record->status == SUBSCRIPTION_DISABLED && status_of(doc) != SUBSCRIPTION_DISABLED;
    update_record(record, doc, r->now);
    _cleanup_free_ char *text = json_dumps(doc, JSON_COMPACT);
    _cleanup_json_ json_t *detail = patch_detail(p->patch);
    if (!text || !detail)
        return -ENOMEM;
    record->doc = slice_of(text);
    /* What matched at publish is delivered: pending jobs come first. */
    int e = differs(stored, doc, "event_types") || differs(stored, doc, "filter") ||
                    differs(stored, doc, "status")
                ? fanout_settle_jobs_for(r->o->fanout, s, p->no, r->now, &record->jobs_settled)
                : 0;
    /* What waits moves to its new lane keys first: the lane holds until then. */
    if (differs(stored, doc, "ordering"))
        record->relane = control_new_id(r).key;
    if (e == 0)
        e = store_update_subscription(s, record);
    if (e == 0 && p->enabled)
        e = store_set_health(s, p->no, 0, 0);
    if (e == 0 && p->enabled)
        e = recover(r, s, record, doc);
    if (e == 0)
        e = request_audit(r, s, "subscription.update", id, detail);
    return e < 0 ? e : control_answer(r, 200, subscription_json(record, doc, r->tenant.id));
}

static int change(struct request *r, struct store *s) {
    struct patching *p = r->data;
    struct subscription_record record;
    struct tenant owner;
    int e = store_get_subscription(s, p->no, &record);
    if (e == -ENOENT)
        control_no_subscription(r);
    if (e < 0)
        return e;
    _cleanup_json_ json_t *stored = json_loadb(record.doc.p, record.doc.n, 0, NULL);
    _cleanup_free_ char *reason = slice_dup(record.disabled_reason);
    if (!stored || (record.disabled_reason.p && !reason))
        return -ENOMEM;
    record.disabled_reason = slice_of(reason);
    e = restore_tls(s, p->no, stored);
    if (e == 0)
        e = owner_now(r, s, &owner);
    if (e < 0)
        return e;
    _cleanup_json_ json_t *doc = patched(r, &owner, stored, &e);
    _cleanup_json_ json_t *tls = doc ? subscription_take_tls(doc) : NULL;
    if (!tls)
        return doc ? -ENOMEM : e;
    e = json_object_get(p->patch, "tls") ? put_tls(s, &owner, p->no, tls) : 0;
    return e < 0 ? e : write_change(r, s, &record, stored, doc);
}

static void changed(struct request *r) {
    const struct patching *p = r->data;
    apply_subscription(r->o->apply, p->no, r->now);
}

static void patch_judged(struct side_lookup *l, const char *refused) {
    struct patching *p = (struct patching *)l;
    p->refused = refused;
    request_change_suspended(p->r, change, changed);
}

/* Whether the patch brings a name that is to be looked up; what else is wrong with its URL is told later. */
static bool names_host(struct request *r, struct patching *p) {
    struct field_errors later;
    field_errors_init(&later);
    return judge_url(r, &r->tenant, p->patch, NULL, &later, &p->lookup) == 0 && p->lookup.host[0];
}

void route_patch_subscription(struct request *r) {
    struct found_subscription found;
    if (!control_takes_json(r, true) || !control_subscription(r, &found))
        return;
    json_decref(found.json);
    _cleanup_json_ json_t *patch = request_object(r);
    if (!patch)
        return;
    struct patching *p = request_keep(r, sizeof *p, free_patching);
    if (!p)
        return;
    *p = (struct patching){.r = r, .patch = TAKE_PTR(patch), .no = found.no};
    if (!names_host(r, p)) {
        request_change(r, change, changed);
        return;
    }
    p->lookup.done = patch_judged;
    request_suspend(r);
    side_judge(api_side(r->api), &p->lookup);
}

/* ---- deleting: answered once nothing is sent any more ---- */

struct deletion {
    struct writer_job job;
    struct request *r;
    uint32_t no;
    char id[ID_TEXT_SIZE];
};

static int delete_it(struct writer_job *job, struct store *s) {
    struct deletion *d = (struct deletion *)job;
    /* What matched at publish becomes a delivery, for the dead-letter queue to tell of. */
    uint64_t settled;
    int e = fanout_settle_jobs_for(d->r->o->fanout, s, d->no, d->r->now, &settled);
    if (e == 0)
        e = store_delete_subscription(s, d->no, d->r->now);
    if (e == 0)
        e = request_audit(d->r, s, "subscription.delete", d->id, NULL);
    return e;
}

static void stopped(void *arg) {
    request_resume(arg);
}

static void deleted(struct writer_job *job, int result) {
    struct deletion *d = (struct deletion *)job;
    struct request *r = d->r;
    if (result == -ENOENT)
        control_no_subscription(r);
    else if (result < 0)
        request_unavailable(r, result);
    if (result < 0) {
        request_resume(r);
        return;
    }
    const struct subscription *known = fanout_subscription(r->o->fanout, d->no);
    enum tenant_tier tier = known ? known->tier : r->tenant.tier;
    fanout_remove(r->o->fanout, d->no);
    (void)request_write(r, 204);
    /* From here on the request may be gone at any time. */
    if (r->o->node && node_await_stopped(r->o->node, d->no, tier, stopped, r))
        return;
    int e = dispatch_remove(r->o->dispatch, d->no, stopped, r);
    if (e < 0) {
        log_error("a deleted subscription's lane could not be told; it stops at the next start",
                  log_str("tenant", r->tenant.id), log_slice("subscription", r->id),
                  log_str("error", strerror(-e)));
        request_resume(r);
    }
}

void route_delete_subscription(struct request *r) {
    struct found_subscription found;
    if (!request_no_query(r) || !control_subscription(r, &found))
        return;
    json_decref(found.json);
    struct deletion *d = request_keep(r, sizeof *d, free);
    if (!d)
        return;
    *d = (struct deletion){
        .job = {.run = delete_it, .done = deleted, .guarded = true}, .r = r, .no = found.no};
    memcpy(d->id, found.id, sizeof d->id);
    request_suspend(r);
    int e = writer_submit(r->o->writer, &d->job);
    if (e < 0) {
        request_unavailable(r, e);
        request_resume(r);
    }
}
