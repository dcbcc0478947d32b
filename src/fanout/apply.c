#include "fanout/apply.h"

#include <errno.h>
#include <utlist.h>

#include "core/log_id.h"
#include "store/snapshot.h"

static int put_in_force(const struct apply_context *c, uint32_t subscription_no, int64_t now) {
    _cleanup_subscription_ struct subscription *s = NULL;
    int r = snapshot_load(c->store, subscription_no, now, c->server_allow_http, c->policies, &s);
    if (r == 0)
        r = fanout_put(c->fanout, s);
    if (r == 0)
        r = dispatch_configure(c->dispatch, s);
    return r == -ENOENT ? 0 : r;
}

void apply_subscription(const struct apply_context *c, uint32_t subscription_no, int64_t now) {
    int r = put_in_force(c, subscription_no, now);
    if (r == 0)
        return;
    const struct subscription *old = fanout_subscription(c->fanout, subscription_no);
    log_error(
        "a changed subscription could not be put in force; restart to do so",
        log_str("tenant", old ? old->tenant_id : NULL),
        log_str("subscription", old ? id_text(ID_SUBSCRIPTION, old->id, (char[ID_TEXT_SIZE]){0}) : NULL),
        log_int("subscription_no", subscription_no), log_str("error", strerror(-r)));
}

bool subscription_is_gone(const struct apply_context *c, uint32_t subscription_no) {
    struct subscription_record record;
    return store_get_subscription(c->store, subscription_no, &record) == -ENOENT;
}

/* ---- of a tenant ---- */

struct tenant_walk {
    struct writer_job job;
    const struct apply_context *context;
    uint32_t tenant_no, next_no;
    unsigned tries; /* with next_no */
    int64_t now;
    struct tenant_walk *next;
};

enum { TRIES_MAX = 5 }; /* with a store that answers others: then it is this subscription's fault */

/* 1: there is more to do. -EIO: the store does not answer. */
static int apply_some(struct tenant_walk *w) {
    struct fanout *f = w->context->fanout;
    unsigned applied = 0, looked_at = 0;
    for (; w->next_no <= fanout_upper(f); w->next_no++) {
        const struct subscription *s = fanout_subscription(f, w->next_no);
        if (applied == APPLY_A_STEP || looked_at++ == APPLY_LOOKED_AT)
            return 1;
        if (!s || s->tenant_no != w->tenant_no)
            continue;
        if (w->context->walks && w->tries < TRIES_MAX) {
            w->tries++;
            if (put_in_force(w->context, w->next_no, w->now) < 0)
                return -EIO;
        } else {
            apply_subscription(w->context, w->next_no, w->now);
        }
        w->tries = 0;
        applied++;
    }
    return 0;
}

static int nothing_to_write(struct writer_job *job, struct store *s) {
    (void)job;
    (void)s;
    return 0;
}

/* What is put in force is what was committed by then, so a failed commit of others does not matter. */
static void apply_on(struct writer_job *job, int result) {
    struct tenant_walk *w = (struct tenant_walk *)job;
    struct apply_walks *walks = w->context->walks;
    (void)result;
    int r = apply_some(w);
    if (r > 0) {
        writer_submit_internal(w->context->writer, job);
    } else if (r < 0) {
        LL_PREPEND(walks->stalled, w);
    } else {
        if (walks)
            atomic_fetch_sub(&walks->under_way, 1);
        free(w);
    }
}

void apply_tenant(const struct apply_context *c, uint32_t tenant_no, int64_t now) {
    struct tenant_walk *w = calloc(1, sizeof *w);
    if (!w) {
        log_error("a changed tenant's subscriptions could not be put in force; restart to do so",
                  log_int("tenant_no", tenant_no));
        return;
    }
    *w = (struct tenant_walk){.job = {.run = nothing_to_write, .done = apply_on},
                              .context = c,
                              .tenant_no = tenant_no,
                              .next_no = 1,
                              .now = now};
    if (c->walks)
        atomic_fetch_add(&c->walks->under_way, 1);
    apply_on(&w->job, 0);
}

void apply_go_on(const struct apply_context *c) {
    struct tenant_walk *w, *next, *stalled = TAKE_PTR(c->walks->stalled);
    LL_FOREACH_SAFE (stalled, w, next)
        writer_submit_internal(c->writer, &w->job);
}

/* ---- disabling ---- */

/* The document with another status, as the store keeps it. */
static int with_status(struct slice doc, const char *status, char **ret) {
    json_t *parsed = json_loadb(doc.p, doc.n, 0, NULL);
    if (!parsed)
        return -EIO;
    int r = json_object_set_new(parsed, "status", json_string(status)) == 0 ? 0 : -ENOMEM;
    char *text = r == 0 ? json_dumps(parsed, JSON_COMPACT) : NULL;
    json_decref(parsed);
    if (!text)
        return -ENOMEM;
    *ret = text;
    return 0;
}

int disable_subscription(const struct apply_context *c, uint32_t subscription_no, const char *reason,
                         int64_t now) {
    struct subscription_record record;
    int r = store_get_subscription(c->store, subscription_no, &record);
    if (r < 0 || record.status == SUBSCRIPTION_DISABLED)
        return r;
    _cleanup_free_ char *doc = NULL;
    r = with_status(record.doc, subscription_status_name(SUBSCRIPTION_DISABLED), &doc);
    /* What matched at publish is delivered, or kept for the endpoint's return: pending jobs come first. */
    if (r == 0)
        r = fanout_settle_jobs_for(c->fanout, c->store, subscription_no, now, &record.jobs_settled);
    if (r < 0)
        return r;
    record.status = SUBSCRIPTION_DISABLED;
    record.disabled_reason = slice_of(reason);
    record.doc = slice_of(doc);
    record.updated_at = now;
    r = store_update_subscription(c->store, &record);
    if (r < 0)
        return r;
    char id[ID_TEXT_SIZE];
    id_format(ID_SUBSCRIPTION, record.id, id);
    const struct subscription *known = fanout_subscription(c->fanout, subscription_no);
    log_warn("a subscription was disabled", log_str("tenant", known ? known->tenant_id : NULL),
             log_str("subscription", id), log_str("reason", reason));
    struct audit_record audit = {.at = now,
                                 .actor = SLICE_LIT("system"),
                                 .action = SLICE_LIT("subscription.disable"),
                                 .object = slice_of(id),
                                 .tenant_no = record.tenant_no};
    r = store_insert_audit(c->store, &audit);
    return r < 0 ? r : 1;
}
