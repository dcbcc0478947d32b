/* Receipts of subscribers. */
#include <errno.h>

#include "store/postgres/postgres.h"

static int delivery_is_there(struct pg *c, const struct receipt_record *r) {
    struct pg_params *p = pg_params(c);
    pg_int(p, (int32_t)r->tenant_no);
    pg_bigint(p, (int64_t)r->event_key);
    pg_int(p, (int32_t)r->subscription_no);
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    return pg_query_row(
        c,
        "SELECT 1 FROM deliveries_open WHERE tenant=$1 AND event=$2 AND subscription=$3"
        " UNION ALL"
        " SELECT 1 FROM deliveries_closed WHERE tenant=$1 AND event=$2 AND subscription=$3 LIMIT 1",
        &rows);
}

int postgres_insert_receipt(struct store *store, const struct receipt_record *r) {
    struct pg_store *s = pg_of(store);
    struct pg *c = &s->writer;
    int e = pg_flush(s);
    if (e == 0)
        e = delivery_is_there(c, r);
    if (e <= 0)
        return e < 0 ? e : -ENOENT;
    struct pg_params *p = pg_params(c);
    pg_int(p, (int32_t)r->tenant_no);
    pg_bigint(p, (int64_t)r->event_key);
    pg_int(p, (int32_t)r->subscription_no);
    pg_int(p, (int32_t)r->number);
    pg_int(p, (int32_t)r->status);
    pg_text(p, r->note);
    pg_bigint(p, r->at);
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    e = pg_query(c,
                 "INSERT INTO receipts AS had (tenant, event, subscription, attempt, status, note, at)"
                 " VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (tenant, event, subscription) DO UPDATE"
                 " SET attempt=excluded.attempt, status=excluded.status, note=excluded.note, at=excluded.at"
                 " WHERE excluded.attempt>had.attempt",
                 &rows);
    if (e < 0)
        return e;
    return pg_changed(&rows) ? 0 : -EALREADY;
}
