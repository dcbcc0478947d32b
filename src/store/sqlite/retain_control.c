/* Retention of what the control plane leaves behind: audit, ended keys, workers that are gone. */
#include "store/sqlite/sqlite.h"

int sqlite_see_worker(struct store *s, uint32_t no, int64_t now) {
    struct connection *c = &sqlite_of(s)->writer;
    sqlite3_stmt *st = connection_prepare(c, "UPDATE workers SET seen_at=? WHERE no=?");
    bind_int(st, 1, now);
    bind_int(st, 2, no);
    return statement_run(c, st);
}

/* Runs a deletion of what is from before ?1, up to *left (?2) rows, which go off it. */
static int delete_before(struct connection *c, const char *sql, int64_t before, unsigned *left) {
    if (*left == 0)
        return 0;
    sqlite3_stmt *st = connection_prepare(c, sql);
    bind_int(st, 1, before);
    bind_int(st, 2, *left);
    int r = statement_run(c, st);
    if (r == 0)
        *left -= (unsigned)sqlite3_changes(c->db);
    return r;
}

int sqlite_retain_control(struct store *s, const struct control_retention *keep, unsigned limit,
                          unsigned *ret_n) {
    struct connection *c = &sqlite_of(s)->writer;
    unsigned left = limit;
    /* Its numbers go with the time. */
    int r =
        delete_before(c,
                      "DELETE FROM audit WHERE no IN (SELECT no FROM (SELECT no, at FROM audit ORDER BY no"
                      " LIMIT ?2) WHERE at<?1)",
                      keep->audit_before, &left);
    if (r == 0)
        r = delete_before(c,
                          "DELETE FROM api_keys WHERE (key, tail) IN (SELECT key, tail FROM api_keys WHERE"
                          " coalesce(revoked_at, expires_at)<?1 LIMIT ?2)",
                          keep->keys_before, &left);
    /* An attempt was made after its event came: a worker that was gone before the oldest of all has none. */
    if (r == 0)
        r = delete_before(c,
                          "DELETE FROM workers WHERE no IN (SELECT no FROM workers WHERE seen_at<?1 AND"
                          " seen_at<coalesce(((SELECT min(key) FROM events)>>12)-86400000, seen_at+1)"
                          " LIMIT ?2)",
                          keep->workers_before, &left);
    if (r == 0)
        *ret_n = limit - left;
    return r;
}
