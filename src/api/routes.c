#include "api/routes.h"

#include <stdio.h>

static const struct route routes[] = {
    {"GET", "/healthz", SCOPE_NONE, route_healthz, BODY_NONE, false},
    {"GET", "/readyz", SCOPE_NONE, route_readyz, BODY_NONE, false},
    {"GET", "/metrics", SCOPE_NONE, route_metrics, BODY_NONE, false},
    {"GET", "/", SCOPE_NONE, route_root, BODY_NONE, false},
    {"GET", "/v1/openapi.json", SCOPE_NONE, route_openapi, BODY_NONE, false},
    {"POST", "/v1/tenants", SCOPE_ADMIN, route_create_tenant, BODY_JSON, false},
    {"GET", "/v1/tenants", SCOPE_ADMIN, route_list_tenants, BODY_NONE, false},
    {"GET", "/v1/tenants/{t}", SCOPE_ADMIN, route_get_tenant, BODY_NONE, true},
    {"PATCH", "/v1/tenants/{t}", SCOPE_ADMIN, route_patch_tenant, BODY_JSON, true},
    {"DELETE", "/v1/tenants/{t}", SCOPE_ADMIN, route_delete_tenant, BODY_NONE, true},
    {"POST", "/v1/tenants/{t}/subscriptions", SCOPE_SUBSCRIPTIONS_WRITE, route_create_subscription, BODY_JSON,
     true},
    {"GET", "/v1/tenants/{t}/subscriptions", SCOPE_SUBSCRIPTIONS_READ, route_list_subscriptions, BODY_NONE,
     true},
    {"GET", "/v1/tenants/{t}/subscriptions/{id}", SCOPE_SUBSCRIPTIONS_READ, route_get_subscription, BODY_NONE,
     true},
    {"PATCH", "/v1/tenants/{t}/subscriptions/{id}", SCOPE_SUBSCRIPTIONS_WRITE, route_patch_subscription,
     BODY_JSON, true},
    {"DELETE", "/v1/tenants/{t}/subscriptions/{id}", SCOPE_SUBSCRIPTIONS_WRITE, route_delete_subscription,
     BODY_NONE, true},
    {"GET", "/v1/tenants/{t}/subscriptions/{id}/secrets", SCOPE_SUBSCRIPTIONS_READ, route_list_secrets,
     BODY_NONE, true},
    {"POST", "/v1/tenants/{t}/subscriptions/{id}/rotate-secret", SCOPE_SUBSCRIPTIONS_WRITE,
     route_rotate_secret, BODY_JSON, true},
    {"POST", "/v1/tenants/{t}/subscriptions/{id}/test", SCOPE_SUBSCRIPTIONS_WRITE, route_test_subscription,
     BODY_JSON, true},
    {"GET", "/v1/tenants/{t}/subscriptions/{id}/stats", SCOPE_SUBSCRIPTIONS_READ, route_subscription_stats,
     BODY_NONE, true},
    {"POST", "/v1/tenants/{t}/events", SCOPE_EVENTS_WRITE, route_publish, BODY_EVENT, true},
    {"POST", "/v1/tenants/{t}/events/batch", SCOPE_EVENTS_WRITE, route_publish_batch, BODY_BATCH, true},
    {"GET", "/v1/tenants/{t}/events", SCOPE_EVENTS_READ, route_list_events, BODY_NONE, true},
    {"GET", "/v1/tenants/{t}/events/{id}", SCOPE_EVENTS_READ, route_get_event, BODY_NONE, true},
    {"GET", "/v1/tenants/{t}/events/{id}/timeline", SCOPE_EVENTS_READ, route_event_timeline, BODY_NONE, true},
    {"GET", "/v1/tenants/{t}/deliveries", SCOPE_DELIVERIES_READ, route_list_deliveries, BODY_NONE, true},
    {"GET", "/v1/tenants/{t}/deliveries/counts", SCOPE_DELIVERIES_READ, route_count_deliveries, BODY_NONE,
     true},
    {"GET", "/v1/tenants/{t}/deliveries/{id}", SCOPE_DELIVERIES_READ, route_get_delivery, BODY_NONE, true},
    {"GET", "/v1/tenants/{t}/deliveries/{id}/attempts", SCOPE_DELIVERIES_READ, route_list_attempts, BODY_NONE,
     true},
    {"POST", "/v1/tenants/{t}/deliveries/{id}/replay", SCOPE_REPLAYS_WRITE, route_replay_delivery, BODY_JSON,
     true},
    {"POST", "/v1/tenants/{t}/deliveries/{id}/receipt", SCOPE_NONE, route_create_receipt, BODY_RECEIPT, true},
    {"POST", "/v1/tenants/{t}/replays", SCOPE_REPLAYS_WRITE, route_create_replay, BODY_JSON, true},
    {"GET", "/v1/tenants/{t}/replays", SCOPE_REPLAYS_READ, route_list_replays, BODY_NONE, true},
    {"GET", "/v1/tenants/{t}/replays/{id}", SCOPE_REPLAYS_READ, route_get_replay, BODY_NONE, true},
    {"DELETE", "/v1/tenants/{t}/replays/{id}", SCOPE_REPLAYS_WRITE, route_cancel_replay, BODY_NONE, true},
    {"POST", "/v1/keys", SCOPE_ADMIN, route_create_key, BODY_JSON, false},
    {"GET", "/v1/keys", SCOPE_ADMIN, route_list_keys, BODY_NONE, false},
    {"DELETE", "/v1/keys/{id}", SCOPE_ADMIN, route_delete_key, BODY_NONE, false},
    {"GET", "/v1/audit", SCOPE_ADMIN, route_list_audit, BODY_NONE, false},
};

const struct route *routes_at(size_t i) {
    return i < sizeof routes / sizeof routes[0] ? &routes[i] : NULL;
}

/* Up to the next slash; *at moves past it. */
static struct slice next_part(const char **at) {
    const char *slash = strchrnul(*at, '/');
    struct slice part = {*at, (size_t)(slash - *at)};
    *at = *slash ? slash + 1 : slash;
    return part;
}

static bool matches(const char *pattern, const char *path, struct slice *ret_tenant, struct slice *ret_id) {
    while (*pattern && *path) {
        struct slice want = next_part(&pattern), have = next_part(&path);
        if (slice_eq(want, SLICE_LIT("{t}")) && have.n)
            *ret_tenant = have;
        else if (slice_eq(want, SLICE_LIT("{id}")) && have.n)
            *ret_id = have;
        else if (!slice_eq(want, have))
            return false;
    }
    return !*pattern && !*path;
}

static void allow_method(const char *method, char *ret, size_t size) {
    size_t n = strlen(ret);
    snprintf(ret + n, size - n, "%s%s%s", n ? ", " : "", method, strcmp(method, "GET") == 0 ? ", HEAD" : "");
}

/* What producers, subscribers and balancers use; the rest is the control plane. */
static bool is_public(const struct route *route) {
    static const char *const others[] = {"/healthz", "/readyz", "/v1/tenants/{t}/deliveries/{id}/receipt"};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        if (strcmp(route->pattern, others[i]) == 0)
            return true;
    return route->scope == SCOPE_EVENTS_WRITE;
}

static bool is_served(const struct request *r, const struct route *route) {
    if (r->o->health_only && strncmp(route->pattern, "/v1/", 4) == 0)
        return false;
    return !r->public_only || is_public(route);
}

const struct route *routes_find(struct request *r, const char *method, char *ret_allow, size_t allow_size,
                                struct slice *ret_tenant) {
    const char *wanted = strcmp(method, "HEAD") == 0 ? "GET" : method;
    size_t length = strlen(r->path);
    *ret_allow = '\0';
    /* "/x/" is not "/x". */
    if (r->path[0] != '/' || (length > 1 && r->path[length - 1] == '/'))
        return NULL;
    for (size_t i = 0; i < sizeof routes / sizeof routes[0]; i++) {
        struct slice tenant = SLICE_NONE, id = SLICE_NONE;
        if (!is_served(r, &routes[i]) || !matches(routes[i].pattern, r->path, &tenant, &id))
            continue;
        if (strcmp(routes[i].method, wanted) == 0) {
            r->id = id;
            *ret_tenant = tenant;
            return &routes[i];
        }
        allow_method(routes[i].method, ret_allow, allow_size);
    }
    return NULL;
}
