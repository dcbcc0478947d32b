#include "fanout/raise.h"

#include <errno.h>

#include "core/event.h"

/* What the store knows of the delivery. 1; 0 when it is none to tell of. */
static int look_up_delivery(struct store *s, struct operational_event *e) {
    struct exhausted_delivery d;
    int r = store_get_exhausted(s, e->tenant_no, e->event_key, e->subscription_no, &d);
    if (r < 0)
        return r == -ENOENT ? 0 : r;
    e->event_id = d.event_id;
    e->event_type = d.event_type;
    e->attempt_count = d.attempts;
    e->reason = d.reason;
    e->last_status = d.last_status;
    e->last_error = d.last_error;
    e->at = d.closed_at;
    return !event_type_reserved(d.event_type);
}

/* One event of `to`'s, with `data`, about a subscription of `tenant_id`. */
static int publish(const struct raiser *r, struct store *s, uint32_t to, const char *tenant_id,
                   const struct operational_event *e, struct slice data) {
    struct publish p = {
        .type = slice_of(operational_type(e->kind)), .schema_version = SLICE_LIT("1"), .data = data};
    uint64_t random;
    random_bytes(&random, sizeof random);
    struct id id = id_source_next(r->ids, e->at, random);
    _cleanup_blob_ struct blob *envelope = event_envelope(id, tenant_id, &p);
    if (!envelope)
        return -ENOMEM;
    struct event_record record = {.id = id,
                                  .tenant_no = to,
                                  .type = p.type,
                                  .schema_version = p.schema_version,
                                  .body = blob_slice(envelope),
                                  .data_size = (uint32_t)data.n};
    int error = fanout_event(r->fanout, s, &record, 0, e->at, NULL);
    if (error == 0)
        error = store_insert_events(s, &record, 1);
    if (error == 0)
        body_cache_put(r->bodies, id.key,
                       &(struct body){.envelope = envelope, .data_size = record.data_size});
    return error;
}

int raise_operational(const struct raiser *r, struct store *s, const struct operational_event *e) {
    const struct subscription *about = fanout_subscription(r->fanout, e->subscription_no);
    struct slice type = slice_of(operational_type(e->kind));
    if (!about)
        return 0;
    bool by_tenant = fanout_wanted(r->fanout, about->tenant_no, type),
         by_operator = fanout_wanted(r->fanout, TENANT_OPERATOR, type);
    if (!by_tenant && !by_operator)
        return 0;
    struct operational_event whole = *e;
    whole.subscription_id = about->id;
    whole.url = about->url;
    int found = e->kind == OPERATIONAL_EXHAUSTED ? look_up_delivery(s, &whole) : 1;
    if (found <= 0)
        return found;
    _cleanup_free_ char *data = operational_data(&whole);
    if (!data)
        return -ENOMEM;
    int error = by_tenant ? publish(r, s, about->tenant_no, about->tenant_id, &whole, slice_of(data)) : 0;
    if (error == 0 && by_operator)
        error = publish(r, s, TENANT_OPERATOR, about->tenant_id, &whole, slice_of(data));
    return error;
}
