/* How many deliveries are in the dead-letter queue, kept with each transition. */
#include <errno.h>

#include "store/sqlite/sqlite.h"

int count_dead(struct connection *c, uint32_t subscription_no, enum delivery_reason reason, int delta) {
    sqlite3_stmt *st = connection_prepare(
        c, "INSERT INTO dlq_counts (tenant, subscription, reason, n) SELECT tenant, no, ?2, ?3 FROM"
           " subscriptions WHERE no=?1 ON CONFLICT DO UPDATE SET n = n + excluded.n");
    bind_int(st, 1, subscription_no);
    bind_int(st, 2, reason);
    bind_int(st, 3, delta);
    return statement_run(c, st);
}

static void read_row(sqlite3_stmt *st, struct dlq_count_row *ret) {
    *ret = (struct dlq_count_row){
        .subscription_no = (uint32_t)column_int(st, 0),
        .subscription_id = {.key = (uint64_t)column_int(st, 1), .tail = (uint64_t)column_int(st, 2)},
        .reason = (enum delivery_reason)column_int(st, 3),
        .n = (uint64_t)column_int(st, 4),
    };
}

int sqlite_list_dlq_counts(struct store_reader *r, uint32_t tenant_no, uint32_t subscription_no,
                           uint32_t after_no, dlq_count_row_fn fn, void *arg) {
    struct connection *c = &sqlite_reader_of(r)->conn;
    sqlite3_stmt *st = connection_prepare(
        c, "SELECT d.subscription, s.key, s.tail, d.reason, d.n FROM dlq_counts d CROSS JOIN subscriptions s"
           " ON s.no = d.subscription WHERE d.tenant=?1 AND d.subscription>?2 AND (?3=0 OR d.subscription=?3)"
           " AND d.n > 0 ORDER BY d.subscription, d.reason");
    bind_int(st, 1, tenant_no);
    bind_int(st, 2, after_no);
    bind_int(st, 3, subscription_no);
    int e;
    while ((e = statement_next(c, st)) > 0) {
        struct dlq_count_row row;
        read_row(st, &row);
        e = fn(arg, &row);
        if (e != 0) {
            statement_done(st);
            return e;
        }
    }
    return e;
}

int sqlite_sum_dlq(struct store_reader *r, uint32_t tenant_no, uint32_t subscription_no,
                   uint64_t ret[DELIVERY_REASONS]) {
    struct connection *c = &sqlite_reader_of(r)->conn;
    sqlite3_stmt *st = connection_prepare(c, "SELECT reason, sum(n) FROM dlq_counts WHERE tenant=?1"
                                             " AND (?2=0 OR subscription=?2) GROUP BY reason");
    bind_int(st, 1, tenant_no);
    bind_int(st, 2, subscription_no);
    memset(ret, 0, DELIVERY_REASONS * sizeof *ret);
    int e;
    while ((e = statement_next(c, st)) > 0)
        if (column_int(st, 0) < DELIVERY_REASONS)
            ret[column_int(st, 0)] = (uint64_t)column_int(st, 1);
    return e;
}
