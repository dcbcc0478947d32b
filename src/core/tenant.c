#include "core/tenant.h"

#include "core/doc.h"

enum {
    NAME_BYTES_MAX = 200,
    EVENTS_PER_SECOND_MAX = 1000000,
    MAX_SUBSCRIPTIONS_MAX = 10000000,
    MAX_IN_FLIGHT_MAX = 100000,
    MAX_PAYLOAD_BYTES_MAX = 16 * 1024 * 1024,
    RETENTION_DAYS_MAX = 3650,
    DELIVERIES_PER_MINUTE_MAX = 100000000,
};

static const char *const tier_names[TIERS] = {"premium", "standard", "bulk"};

static const struct tenant_limits tier_limits[TIERS] = {
    [TIER_PREMIUM] = {.events_per_second = 200000,
                      .max_subscriptions = 1000000,
                      .max_in_flight = 10000,
                      .max_payload_bytes = 1024 * 1024,
                      .retention_days = 90},
    [TIER_STANDARD] = {.events_per_second = 50000,
                       .max_subscriptions = 200000,
                       .max_in_flight = 2000,
                       .max_payload_bytes = 1024 * 1024,
                       .retention_days = 30},
    [TIER_BULK] = {.events_per_second = 10000,
                   .max_subscriptions = 50000,
                   .max_in_flight = 500,
                   .max_payload_bytes = 1024 * 1024,
                   .retention_days = 7},
};

static const struct {
    const char *name;
    size_t at; /* in struct tenant_limits */
    uint32_t least, most;
} limit_fields[] = {
    {"events_per_second", offsetof(struct tenant_limits, events_per_second), 1, EVENTS_PER_SECOND_MAX},
    {"max_subscriptions", offsetof(struct tenant_limits, max_subscriptions), 1, MAX_SUBSCRIPTIONS_MAX},
    {"max_in_flight", offsetof(struct tenant_limits, max_in_flight), 1, MAX_IN_FLIGHT_MAX},
    {"max_payload_bytes", offsetof(struct tenant_limits, max_payload_bytes), 1, MAX_PAYLOAD_BYTES_MAX},
    {"retention_days", offsetof(struct tenant_limits, retention_days), 1, RETENTION_DAYS_MAX},
    {"deliveries_per_minute", offsetof(struct tenant_limits, deliveries_per_minute), 0,
     DELIVERIES_PER_MINUTE_MAX},
};

enum { LIMIT_FIELDS = sizeof limit_fields / sizeof limit_fields[0] };

const char *tenant_tier_name(enum tenant_tier t) {
    CHECK(t < TIERS);
    return tier_names[t];
}

struct tenant_limits tenant_tier_limits(enum tenant_tier t) {
    CHECK(t < TIERS);
    return tier_limits[t];
}

uint32_t tenant_tier_window_seconds(enum tenant_tier t) {
    static const uint32_t hours[TIERS] = {[TIER_PREMIUM] = 72, [TIER_STANDARD] = 72, [TIER_BULK] = 24};
    CHECK(t < TIERS);
    return hours[t] * 3600;
}

bool tenant_id_valid(struct slice id) {
    if (id.n < 1 || id.n > TENANT_ID_MAX)
        return false;
    for (size_t i = 0; i < id.n; i++) {
        char c = id.p[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
              c == '_' || c == '-'))
            return false;
    }
    return true;
}

static uint32_t *limit_at(struct tenant_limits *l, size_t i) {
    return (uint32_t *)(void *)((char *)l + limit_fields[i].at);
}

static struct tenant_limits parse_limits(struct doc *parent, enum tenant_tier tier) {
    const char *names[LIMIT_FIELDS];
    struct tenant_limits limits = tier_limits[tier];
    struct doc d;
    doc_enter(&d, parent, "limits");
    for (size_t i = 0; i < LIMIT_FIELDS; i++) {
        uint32_t *limit = limit_at(&limits, i);
        names[i] = limit_fields[i].name;
        *limit = (uint32_t)doc_int(&d, names[i], limit_fields[i].least, limit_fields[i].most, *limit);
    }
    doc_refuse_unknown(&d, names, LIMIT_FIELDS);
    doc_leave(&d, parent, "limits");
    return limits;
}

json_t *tenant_limits_doc(const struct tenant_limits *limits) {
    struct tenant_limits copy = *limits;
    json_t *doc = json_object();
    for (size_t i = 0; i < LIMIT_FIELDS; i++) {
        if (json_object_set_new(doc, limit_fields[i].name, json_integer(*limit_at(&copy, i))) < 0) {
            json_decref(doc);
            return NULL;
        }
    }
    return doc;
}

json_t *tenant_parse(const json_t *doc, struct tenant *ret, struct field_errors *errors) {
    static const char *const names[] = {"id", "name", "tier", "limits", "allow_http"};
    struct doc d;
    doc_begin(&d, doc, true, errors);
    (void)doc_text(&d, "name", NAME_BYTES_MAX, "");
    enum tenant_tier tier = (enum tenant_tier)doc_word(&d, "tier", tier_names, TIERS, TIER_STANDARD);
    struct tenant_limits limits = parse_limits(&d, tier);
    bool allow_http = doc_bool(&d, "allow_http", false);
    doc_refuse_unknown(&d, names, sizeof names / sizeof names[0]);
    json_t *normal = doc_end(&d);
    if (!normal)
        return NULL;
    ret->tier = tier;
    ret->limits = limits;
    ret->allow_http = allow_http;
    return normal;
}
