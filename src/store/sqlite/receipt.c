/* Receipts of subscribers. */
#include <errno.h>

#include "store/sqlite/sqlite.h"

static int delivery_is_there(struct connection *c, const struct receipt_record *r) {
    sqlite3_stmt *st =
        connection_prepare(c, "SELECT 1 FROM deliveries WHERE event=? AND subscription=? AND tenant=?");
    bind_int(st, 1, (int64_t)r->event_key);
    bind_int(st, 2, r->subscription_no);
    bind_int(st, 3, r->tenant_no);
    int e = statement_next(c, st);
    if (e > 0)
        statement_done(st);
    return e;
}

int sqlite_insert_receipt(struct store *s, const struct receipt_record *r) {
    struct connection *c = &sqlite_of(s)->writer;
    int e = delivery_is_there(c, r);
    if (e <= 0)
        return e < 0 ? e : -ENOENT;
    sqlite3_stmt *st = connection_prepare(
        c, "INSERT INTO receipts (event, subscription, attempt, status, note, at) VALUES (?,?,?,?,?,?)"
           " ON CONFLICT DO UPDATE SET attempt=excluded.attempt, status=excluded.status, note=excluded.note,"
           " at=excluded.at WHERE excluded.attempt > attempt");
    bind_int(st, 1, (int64_t)r->event_key);
    bind_int(st, 2, r->subscription_no);
    bind_int(st, 3, r->number);
    bind_int(st, 4, r->status);
    bind_text(st, 5, r->note);
    bind_int(st, 6, r->at);
    e = statement_run(c, st);
    if (e < 0)
        return e;
    return sqlite3_changes(c->db) ? 0 : -EALREADY;
}
