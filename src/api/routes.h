/* The route table: one row a method and path, each an operation of openapi.json. */
#pragma once

#include "api/request.h"

/* Where the {t} and {id} of a pattern may stand. Patterns are also the `route` label of the metrics. */
struct route {
    const char *method;
    const char *pattern;
    enum scope scope;                  /* or a set of them, each of which will do */
    void (*handle)(struct request *r); /* answers, or suspends */
    enum { BODY_NONE, BODY_JSON, BODY_EVENT, BODY_BATCH, BODY_RECEIPT } body;
    /* The part of a tenant's key's reach: with TENANT_ROUTE the path's tenant must be the key's. */
    bool tenant_route;
};

/* Row i of the table, NULL past its end: for the tests that compare it with openapi.json. */
const struct route *routes_at(size_t i);

/* The route of r->path (still percent-encoded), of those that are served where it came in; fills r->id in,
 * and *ret_tenant. NULL: ret_allow has the methods that the path knows, "" when there is no such path. */
const struct route *routes_find(struct request *r, const char *method, char *ret_allow, size_t allow_size,
                                struct slice *ret_tenant);

/* routes_tenants.c */
void route_create_tenant(struct request *r);
void route_list_tenants(struct request *r);
void route_get_tenant(struct request *r);
void route_patch_tenant(struct request *r);
void route_delete_tenant(struct request *r);
/* routes_subscriptions.c, routes_secrets.c */
void route_create_subscription(struct request *r);
void route_list_subscriptions(struct request *r);
void route_get_subscription(struct request *r);
void route_patch_subscription(struct request *r);
void route_delete_subscription(struct request *r);
void route_subscription_stats(struct request *r);
void route_test_subscription(struct request *r);
void route_list_secrets(struct request *r);
void route_rotate_secret(struct request *r);
/* routes_publish.c, routes_events.c */
void route_publish(struct request *r);
void route_publish_batch(struct request *r);
void route_list_events(struct request *r);
void route_get_event(struct request *r);
void route_event_timeline(struct request *r);
/* routes_deliveries.c */
void route_list_deliveries(struct request *r);
void route_get_delivery(struct request *r);
void route_list_attempts(struct request *r);
void route_replay_delivery(struct request *r);
/* routes_dlq.c */
void route_count_deliveries(struct request *r);
/* routes_replays.c */
void route_create_replay(struct request *r);
void route_list_replays(struct request *r);
void route_get_replay(struct request *r);
void route_cancel_replay(struct request *r);
/* routes_receipts.c */
void route_create_receipt(struct request *r);
/* routes_keys.c */
void route_create_key(struct request *r);
void route_list_keys(struct request *r);
void route_delete_key(struct request *r);
void route_list_audit(struct request *r);
/* routes_health.c */
void route_healthz(struct request *r);
void route_readyz(struct request *r);
void route_metrics(struct request *r);
void route_root(struct request *r);
/* openapi.c */
extern const char openapi_document[]; /* the text of openapi.json */
void route_openapi(struct request *r);
