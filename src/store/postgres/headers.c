/* Headers, of subscriptions and of what attempts sent: sealed where they enter the database, opened where
 * they leave it. */
#include <errno.h>

#include "store/postgres/secrets.h"

/* ---- subscriptions ---- */

void pg_add_headers(struct pg_params *p, const struct sealing *k, const struct split_doc *d) {
    pg_bytea(p, d->sealed.n ? buf_slice(&d->sealed) : SLICE_NONE);
    pg_time(p, d->sealed.n ? k->no : 0);
}

int pg_open_subscription(const struct sealing *k, const struct pg_rows *rows, struct buf *doc,
                         struct subscription_record *ret) {
    pg_read_subscription(rows, ret);
    return headers_join(k, pg_column_int(rows, PG_SUBSCRIPTION_HEADERS + 1),
                        pg_column_slice(rows, PG_SUBSCRIPTION_HEADERS), doc, ret);
}

/* Seals the text anew, of the row of tenant, no, key, tail. */
static int reseal_one(struct pg_store *s, const struct pg_rows *rows, struct slice text) {
    _cleanup_buf_ struct buf sealed = {0};
    struct id id = {.key = (uint64_t)pg_column_int(rows, 2), .tail = (uint64_t)pg_column_int(rows, 3)};
    int r = headers_seal(&s->sealing, (uint32_t)pg_column_int(rows, 0), id, text, &sealed);
    if (r < 0)
        return r;
    struct pg_params *p = pg_params(&s->writer);
    pg_int(p, (int32_t)pg_column_int(rows, 0));
    pg_int(p, (int32_t)pg_column_int(rows, 1));
    pg_bytea(p, buf_slice(&sealed));
    pg_int(p, (int32_t)s->sealing.no);
    return pg_send(&s->writer,
                   "UPDATE subscriptions SET headers=$3, headers_key=$4 WHERE tenant=$1 AND no=$2");
}

int pg_reseal_headers(struct pg_store *s, const struct sealing *from, size_t *ret_n) {
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    _cleanup_(buf_wipe) struct buf text = {0};
    struct pg_params *p = pg_params(&s->writer);
    pg_bigint(p, from->no);
    pg_bigint(p, STORE_SEAL_STEP);
    int r = pg_query(&s->writer,
                     "SELECT tenant, no, key, tail, headers_key, headers FROM subscriptions"
                     " WHERE headers_key=$1 LIMIT $2 FOR UPDATE",
                     &rows);
    for (*ret_n = 0; r == 0 && pg_next(&rows); ++*ret_n) {
        struct id id = {.key = (uint64_t)pg_column_int(&rows, 2), .tail = (uint64_t)pg_column_int(&rows, 3)};
        buf_reset(&text);
        r = headers_open(from, pg_column_int(&rows, 4), (uint32_t)pg_column_int(&rows, 0), id,
                         pg_column_slice(&rows, 5), &text);
        if (r == 0)
            r = reseal_one(s, &rows, buf_slice(&text));
    }
    return r;
}

/* ---- what is from before they were sealed ---- */

int pg_headers_in_clear(struct pg *c, bool *ret) {
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    int r = pg_query_row(c, "SELECT count(*) FROM marks WHERE name='headers_in_clear'", &rows);
    *ret = r > 0 && pg_column_int(&rows, 0) > 0;
    return r > 0 ? 0 : r < 0 ? r : -EIO;
}

/* Of a row of tenant, no, key, tail, doc. */
static int seal_doc(struct pg_store *s, const struct pg_rows *rows, uint64_t *total) {
    _cleanup_(split_doc_free) struct split_doc d = {0};
    struct id id = {.key = (uint64_t)pg_column_int(rows, 2), .tail = (uint64_t)pg_column_int(rows, 3)};
    int r = headers_split(&s->sealing, (uint32_t)pg_column_int(rows, 0), id, pg_column_slice(rows, 4), &d);
    if (r < 0 || !d.sealed.n)
        return r;
    ++*total;
    struct pg_params *p = pg_params(&s->writer);
    pg_int(p, (int32_t)pg_column_int(rows, 0));
    pg_int(p, (int32_t)pg_column_int(rows, 1));
    pg_text(p, d.doc);
    pg_add_headers(p, &s->sealing, &d);
    return pg_send(&s->writer, "UPDATE subscriptions SET doc=$3, headers=$4, headers_key=$5"
                               " WHERE tenant=$1 AND no=$2");
}

int pg_seal_docs(struct pg_store *s, int64_t *at, uint64_t *total, size_t *ret_n) {
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    struct pg_params *p = pg_params(&s->writer);
    pg_bigint(p, *at);
    pg_bigint(p, STORE_SEAL_STEP);
    int r = pg_query(&s->writer,
                     "SELECT tenant, no, key, tail, doc FROM subscriptions WHERE no>$1 ORDER BY no LIMIT $2"
                     " FOR UPDATE",
                     &rows);
    for (*ret_n = 0; r == 0 && pg_next(&rows); ++*ret_n) {
        *at = pg_column_int(&rows, 1);
        r = seal_doc(s, &rows, total);
    }
    return r;
}

int pg_seal_attempts(struct pg_store *s, struct pg_attempt_key *at, uint64_t *total, size_t *ret_n) {
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    _cleanup_buf_ struct buf sealed = {0};
    struct pg_params *p = pg_params(&s->writer);
    pg_int(p, at->tenant);
    pg_bigint(p, at->event);
    pg_int(p, at->subscription);
    pg_int(p, at->number);
    pg_bigint(p, STORE_SEAL_STEP);
    int r = pg_query(&s->writer,
                     "SELECT tenant, event, subscription, number, request_headers_clear FROM attempts"
                     " WHERE (tenant, event, subscription, number)>($1, $2, $3, $4) AND"
                     " request_headers_clear IS NOT NULL ORDER BY tenant, event, subscription, number"
                     " LIMIT $5 FOR UPDATE",
                     &rows);
    for (*ret_n = 0; r == 0 && pg_next(&rows); ++*ret_n) {
        *at = (struct pg_attempt_key){(int32_t)pg_column_int(&rows, 0), pg_column_int(&rows, 1),
                                      (int32_t)pg_column_int(&rows, 2), (int32_t)pg_column_int(&rows, 3)};
        buf_reset(&sealed);
        r = attempt_headers_seal(&s->sealing, (uint64_t)at->event, (uint32_t)at->subscription,
                                 (uint32_t)at->number, pg_column_slice(&rows, 4), &sealed);
        if (r < 0)
            break;
        p = pg_params(&s->writer);
        pg_int(p, at->tenant);
        pg_bigint(p, at->event);
        pg_int(p, at->subscription);
        pg_int(p, at->number);
        pg_bytea(p, buf_slice(&sealed));
        r = pg_send(&s->writer, "UPDATE attempts SET request_headers=$5, request_headers_clear=NULL"
                                " WHERE tenant=$1 AND event=$2 AND subscription=$3 AND number=$4");
    }
    *total += *ret_n;
    return r;
}
