/* What lanes have learnt of their endpoints, for whoever owns them next. */
#include "store/postgres/postgres.h"

int postgres_set_lane_state(struct store *s, uint32_t subscription_no, uint32_t tenant_no, struct slice state,
                            int64_t now) {
    struct pg *c = &pg_of(s)->writer;
    struct pg_params *p = pg_params(c);
    pg_int(p, (int32_t)tenant_no);
    pg_int(p, (int32_t)subscription_no);
    if (!state.p)
        return pg_send(c, "DELETE FROM lane_states WHERE tenant=$1 AND subscription=$2");
    pg_bytea(p, state);
    pg_bigint(p, now);
    return pg_send(c, "INSERT INTO lane_states (tenant, subscription, state, at) VALUES ($1,$2,$3,$4)"
                      " ON CONFLICT (tenant, subscription) DO UPDATE SET state=$3, at=$4");
}

int postgres_each_lane_state(struct store_reader *r, lane_state_row_fn fn, void *arg) {
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    int e = pg_query(&pg_reader_of(r)->conn, "SELECT subscription, state FROM lane_states", &rows);
    while (e == 0 && pg_next(&rows))
        e = fn(arg, (uint32_t)pg_column_int(&rows, 0), pg_column_slice(&rows, 1));
    return e;
}
