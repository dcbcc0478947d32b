/* A tenant: who owns subscriptions and events, with the limits that hold for them. */
#pragma once

#include <jansson.h>

#include "core/field_errors.h"

enum tenant_tier { TIER_PREMIUM, TIER_STANDARD, TIER_BULK, TIERS };

enum { TENANT_ID_MAX = 64 };

/* The number of the operator's own, a tenant that is in no table and no list: its one subscription is made by
 * the setting operator-url (cli/operator.h). */
enum { TENANT_OPERATOR = 0 };

struct tenant_limits {
    uint32_t events_per_second; /* token bucket, burst max(1,000, this) */
    uint32_t max_subscriptions;
    uint32_t max_in_flight;     /* over all lanes */
    uint32_t max_payload_bytes; /* of one event's data */
    uint32_t retention_days;
    uint32_t deliveries_per_minute; /* 0: no limit */
};

struct tenant {
    uint32_t no; /* the store's number */
    char id[TENANT_ID_MAX + 1];
    enum tenant_tier tier;
    uint64_t tier_change; /* the number of its last change on a store that nodes share, 0: there was none */
    struct tenant_limits limits;
    bool allow_http;
};

const char *tenant_tier_name(enum tenant_tier t);
/* What a tier grants when the tenant's document says nothing. */
struct tenant_limits tenant_tier_limits(enum tenant_tier t);
/* The retry window that a tier's subscriptions have by default. */
uint32_t tenant_tier_window_seconds(enum tenant_tier t);
/* [A-Za-z0-9._-]{1,64} */
bool tenant_id_valid(struct slice id);

/* Validates a tenant document as the API takes it: {"name","tier","limits":{…},"allow_http"}; "id" is the
 * caller's and passed over. Absent or null members get their defaults. On success fills ret's tier, limits
 * and allow_http, and returns a new normalised document (only what the user set, the caller owns it); NULL
 * with entries in `errors` otherwise, without any when memory is out. */
json_t *tenant_parse(const json_t *doc, struct tenant *ret, struct field_errors *errors);

/* The limits in force as the API answers them; the caller owns it. NULL when memory is out. */
json_t *tenant_limits_doc(const struct tenant_limits *limits);
