/* Headers, of subscriptions and of what attempts sent: sealed where they enter the database, opened where
 * they leave it. */
#include <errno.h>

#include "store/sqlite/secrets.h"

/* ---- subscriptions ---- */

void headers_bind(sqlite3_stmt *st, int at, const struct sealing *k, const struct split_doc *d) {
    bind_blob(st, at, d->sealed.n ? buf_slice(&d->sealed) : SLICE_NONE);
    bind_time(st, at + 1, d->sealed.n ? k->no : 0);
}

int subscription_read(const struct sealing *k, sqlite3_stmt *st, struct buf *doc,
                      struct subscription_record *ret) {
    read_subscription_columns(st, ret);
    return headers_join(k, column_int(st, SUBSCRIPTION_HEADERS + 1), column_slice(st, SUBSCRIPTION_HEADERS),
                        doc, ret);
}

struct sealed_headers {
    uint32_t no, tenant_no;
    struct id id;
    struct buf text;
};

/* The next headers that `from` has sealed: 1, or 0 when there are none. */
static int find_sealed_by(struct store *s, const struct sealing *from, struct sealed_headers *ret) {
    struct connection *c = &sqlite_of(s)->writer;
    sqlite3_stmt *st = connection_prepare(c, "SELECT no, tenant, key, tail, headers_key, headers FROM"
                                             " subscriptions WHERE headers_key=? LIMIT 1");
    bind_int(st, 1, from->no);
    int r = statement_next(c, st);
    if (r <= 0)
        return r;
    ret->no = (uint32_t)column_int(st, 0);
    ret->tenant_no = (uint32_t)column_int(st, 1);
    ret->id = (struct id){.key = (uint64_t)column_int(st, 2), .tail = (uint64_t)column_int(st, 3)};
    buf_reset(&ret->text);
    r = headers_open(from, column_int(st, 4), ret->tenant_no, ret->id, column_slice(st, 5), &ret->text);
    statement_done(st);
    return r < 0 ? r : 1;
}

static int reseal_one(struct store *s, const struct sealed_headers *h) {
    const struct sealing *k = &sqlite_of(s)->sealing;
    _cleanup_buf_ struct buf sealed = {0};
    int r = headers_seal(k, h->tenant_no, h->id, buf_slice(&h->text), &sealed);
    if (r < 0)
        return r;
    sqlite3_stmt *st = connection_prepare(&sqlite_of(s)->writer,
                                          "UPDATE subscriptions SET headers=?, headers_key=? WHERE no=?");
    bind_blob(st, 1, buf_slice(&sealed));
    bind_int(st, 2, k->no);
    bind_int(st, 3, h->no);
    return statement_run(&sqlite_of(s)->writer, st);
}

int headers_reseal(struct store *s, const struct sealing *from, size_t *ret_n) {
    struct sealed_headers h = {0};
    int r = 1;
    for (*ret_n = 0; r > 0 && *ret_n < STORE_SEAL_STEP; *ret_n += (size_t)(r > 0)) {
        r = find_sealed_by(s, from, &h);
        int stored = r > 0 ? reseal_one(s, &h) : 0;
        r = stored < 0 ? stored : r;
    }
    buf_wipe(&h.text);
    return r < 0 ? r : 0;
}

/* ---- what is from before they were sealed ---- */

int headers_in_clear(struct connection *c, bool *ret) {
    int64_t n = 0;
    int r = read_number(c, "SELECT count(*) FROM marks WHERE name='headers_in_clear'", &n);
    *ret = n > 0;
    return r;
}

/* Of a row of no, tenant, key, tail, doc. */
static int seal_doc(struct store *s, sqlite3_stmt *row, uint64_t *total) {
    const struct sealing *k = &sqlite_of(s)->sealing;
    _cleanup_(split_doc_free) struct split_doc d = {0};
    struct id id = {.key = (uint64_t)column_int(row, 2), .tail = (uint64_t)column_int(row, 3)};
    int r = headers_split(k, (uint32_t)column_int(row, 1), id, column_slice(row, 4), &d);
    if (r < 0 || !d.sealed.n)
        return r;
    ++*total;
    sqlite3_stmt *st = connection_prepare(
        &sqlite_of(s)->writer, "UPDATE subscriptions SET doc=?, headers=?, headers_key=? WHERE no=?");
    bind_text(st, 1, d.doc);
    headers_bind(st, 2, k, &d);
    bind_int(st, 4, column_int(row, 0));
    return statement_run(&sqlite_of(s)->writer, st);
}

int headers_seal_docs(struct store *s, int64_t *at, uint64_t *total, size_t *ret_n) {
    struct connection *c = &sqlite_of(s)->writer;
    sqlite3_stmt *st = connection_prepare(
        c, "SELECT no, tenant, key, tail, doc FROM subscriptions WHERE no>? ORDER BY no LIMIT ?");
    bind_int(st, 1, *at);
    bind_int(st, 2, STORE_SEAL_STEP);
    int r;
    for (*ret_n = 0; (r = statement_next(c, st)) > 0; ++*ret_n) {
        *at = column_int(st, 0);
        if ((r = seal_doc(s, st, total)) < 0)
            break;
    }
    statement_done(st);
    return r;
}

int headers_seal_attempts(struct store *s, struct attempt_key *at, uint64_t *total, size_t *ret_n) {
    struct connection *c = &sqlite_of(s)->writer;
    _cleanup_buf_ struct buf sealed = {0};
    sqlite3_stmt *st = connection_prepare(
        c,
        "SELECT event, subscription, number, request_headers FROM attempts WHERE (event, subscription,"
        " number)>(?,?,?) AND typeof(request_headers)='text' ORDER BY event, subscription, number LIMIT ?");
    bind_int(st, 1, at->event);
    bind_int(st, 2, at->subscription);
    bind_int(st, 3, at->number);
    bind_int(st, 4, STORE_SEAL_STEP);
    int r;
    for (*ret_n = 0; (r = statement_next(c, st)) > 0; ++*ret_n) {
        *at = (struct attempt_key){column_int(st, 0), column_int(st, 1), column_int(st, 2)};
        buf_reset(&sealed);
        r = attempt_headers_seal(&sqlite_of(s)->sealing, (uint64_t)at->event, (uint32_t)at->subscription,
                                 (uint32_t)at->number, column_slice(st, 3), &sealed);
        if (r < 0)
            break;
        sqlite3_stmt *put =
            connection_prepare(c, "UPDATE attempts SET request_headers=? WHERE event=? AND subscription=?"
                                  " AND number=?");
        bind_blob(put, 1, buf_slice(&sealed));
        bind_int(put, 2, at->event);
        bind_int(put, 3, at->subscription);
        bind_int(put, 4, at->number);
        if ((r = statement_run(c, put)) < 0)
            break;
    }
    *total += *ret_n;
    statement_done(st);
    return r;
}
