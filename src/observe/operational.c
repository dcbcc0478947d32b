#include "observe/operational.h"

#include <jansson.h>

#include "base/clock.h"

const char *operational_type(enum operational_kind kind) {
    static const char *const types[OPERATIONAL_KINDS] = {
        [OPERATIONAL_DISABLED] = "posthorn.subscription.disabled",
        [OPERATIONAL_FAILING] = "posthorn.subscription.failing",
        [OPERATIONAL_RECOVERED] = "posthorn.subscription.recovered",
        [OPERATIONAL_EXHAUSTED] = "posthorn.delivery.exhausted",
    };
    CHECK(kind < OPERATIONAL_KINDS);
    return types[kind];
}

static json_t *text_or_null(const char *text) {
    return text ? json_string(text) : json_null();
}

static json_t *time_or_null(int64_t ms) {
    char text[RFC3339_SIZE];
    if (ms)
        rfc3339_format(ms, text);
    return text_or_null(ms ? text : NULL);
}

/* What the last attempt brought, as a delivery tells it. */
static json_t *with_outcome(json_t *doc, const struct operational_event *e) {
    json_t *status = e->last_status ? json_integer(e->last_status) : json_null();
    if (json_object_set_new(doc, "last_status_code", status) < 0 ||
        json_object_set_new(doc, "last_error", text_or_null(attempt_error_name(e->last_error))) < 0) {
        json_decref(doc);
        return NULL;
    }
    return doc;
}

static json_t *of_subscription(const struct operational_event *e) {
    char id[ID_TEXT_SIZE];
    id_format(ID_SUBSCRIPTION, e->subscription_id, id);
    return json_pack("{s:s, s:s}", "subscription_id", id, "url", e->url);
}

static json_t *delivery_doc(const struct operational_event *e) {
    char delivery_id[ID_TEXT_SIZE], event_id[ID_TEXT_SIZE];
    id_format(ID_DELIVERY, id_of_delivery(e->event_key, e->subscription_no), delivery_id);
    id_format(ID_EVENT, e->event_id, event_id);
    return json_pack("{s:s, s:s, s:s%, s:i, s:s?, s:o}", "delivery_id", delivery_id, "event_id", event_id,
                     "event_type", e->event_type.p, e->event_type.n, "attempt_count", (int)e->attempt_count,
                     "failure_reason", delivery_reason_name(e->reason), "exhausted_at", time_or_null(e->at));
}

static json_t *health_doc(const struct operational_event *e) {
    switch (e->kind) {
    case OPERATIONAL_DISABLED:
        return json_pack("{s:s?, s:o, s:o}", "disabled_reason", e->disabled_reason, "failing_since",
                         time_or_null(e->failing_since), "disabled_at", time_or_null(e->at));
    case OPERATIONAL_FAILING:
        return json_pack("{s:o}", "failing_since", time_or_null(e->failing_since));
    default:
        return json_pack("{s:o, s:o}", "failing_since", time_or_null(e->failing_since), "recovered_at",
                         time_or_null(e->at));
    }
}

char *operational_data(const struct operational_event *e) {
    json_t *doc = of_subscription(e);
    json_t *rest = e->kind == OPERATIONAL_EXHAUSTED ? delivery_doc(e) : health_doc(e);
    if (rest && (e->kind == OPERATIONAL_EXHAUSTED || e->kind == OPERATIONAL_FAILING))
        rest = with_outcome(rest, e);
    char *text = NULL;
    if (doc && rest && json_object_update(doc, rest) == 0)
        text = json_dumps(doc, JSON_COMPACT);
    json_decref(doc);
    json_decref(rest);
    return text;
}
