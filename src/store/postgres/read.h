/* What reading calls share. */
#pragma once

#include "store/postgres/postgres.h"

/* Deliveries of a tenant by their keys, whole, in this order; those that are gone are left out. Slices in a
 * row live until fn returns; it returns 0 to go on, another value to stop (which is returned). */
struct pg_delivery_keys {
    struct pg_column events, subscriptions; /* PG_BIGINT, PG_INT */
};
#define PG_DELIVERY_KEYS ((struct pg_delivery_keys){PG_COLUMN(PG_BIGINT), PG_COLUMN(PG_INT)})
void pg_delivery_keys_add(struct pg_delivery_keys *k, uint64_t event_key, uint32_t subscription_no);
void pg_delivery_keys_reset(struct pg_delivery_keys *k);
void pg_delivery_keys_free(struct pg_delivery_keys *k);
#define _cleanup_pg_delivery_keys_ _cleanup_(pg_delivery_keys_free)
int pg_read_deliveries(struct pg *c, uint32_t tenant_no, const struct pg_delivery_keys *keys,
                       delivery_row_fn fn, void *arg, size_t *ret_n) MUST_USE;
