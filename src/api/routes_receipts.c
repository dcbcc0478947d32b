/* Receipts: what a subscriber says became of a delivery, by the token that came with it. */
#include <errno.h>
#include <strings.h>

#include "api/routes.h"
#include "api/subscription_json.h"
#include "core/doc.h"

struct receipt {
    struct receipt_record record;
    struct buf note;
};

static void free_receipt(void *data) {
    struct receipt *c = data;
    buf_free(&c->note);
    free(c);
}

/* In its own header, or as a bearer's. */
static struct slice token_of(struct request *r) {
    static const char bearer[] = "bearer ";
    const char *own = request_header_value(r, "posthorn-receipt-token");
    const char *authorization = request_header_value(r, MHD_HTTP_HEADER_AUTHORIZATION);
    if (own)
        return slice_of(own);
    if (authorization && strncasecmp(authorization, bearer, sizeof bearer - 1) == 0)
        return slice_of(authorization + sizeof bearer - 1);
    return SLICE_NONE;
}

/* Whoever has no token of this delivery learns nothing, not even whether there is one. */
static bool identify(struct request *r, struct receipt_record *ret) {
    struct id id;
    struct slice token = token_of(r);
    if (token.p && id_parse(ID_DELIVERY, r->id, &id) == 0 &&
        id_delivery_parts(id, &ret->event_key, &ret->subscription_no) == 0 &&
        receipt_token_valid(r->o->receipt_key, ret->event_key, ret->subscription_no, token, &ret->number))
        return true;
    request_problem(r, 401, "A receipt needs the posthorn-receipt-token that came with the delivery.");
    request_header(r, "WWW-Authenticate", "Bearer realm=\"posthorn receipt\"");
    return false;
}

static bool read_receipt(struct request *r, struct receipt *c) {
    static const char *const names[] = {"status", "note"}, *const statuses[] = {"processed", "failed"};
    _cleanup_json_ json_t *body = request_object(r);
    if (!body)
        return false;
    struct field_errors errors = {0};
    struct doc d;
    doc_begin(&d, body, true, &errors);
    if (!doc_get(&d, "status"))
        doc_error(&d, "status", "is required");
    c->record.status = doc_word(&d, "status", statuses, 2, 0) == 0 ? RECEIPT_PROCESSED : RECEIPT_FAILED;
    const char *note = doc_text(&d, "note", RECEIPT_NOTE_MAX, NULL);
    if (note) {
        buf_add_str(&c->note, note);
        c->record.note = buf_slice(&c->note);
        if (!c->record.note.p)
            c->record.note = SLICE_LIT("");
    }
    doc_refuse_unknown(&d, names, sizeof names / sizeof names[0]);
    json_decref(doc_end(&d));
    if (field_errors_count(&errors))
        request_invalid(r, &errors);
    else if (!buf_ok(&c->note))
        request_unavailable(r, -ENOMEM);
    return !field_errors_count(&errors) && buf_ok(&c->note);
}

static int keep(struct request *r, struct store *s) {
    const struct receipt_record *record = &((struct receipt *)r->data)->record;
    int e = store_insert_receipt(s, record);
    if (e == -ENOENT)
        request_problem(r, 404,
                        "There is no such delivery; deliveries leave after the tenant's retention_days.");
    if (e == -EALREADY)
        request_problem(r, 409, "This token was used, or that of a later attempt: the receipt stands.");
    if (e < 0)
        return e;
    return control_answer(
        r, 200,
        json_pack("{s:s, s:o, s:o}", "status", receipt_status_name(record->status), "note",
                  record->note.p ? json_stringn(record->note.p, record->note.n) : json_null(), "at",
                  control_time(record->at)));
}

void route_create_receipt(struct request *r) {
    struct receipt_record record = {.tenant_no = r->tenant.no, .at = r->now};
    if (!identify(r, &record) || !control_takes_json(r, false))
        return;
    struct receipt *c = request_keep(r, sizeof *c, free_receipt);
    if (!c)
        return;
    c->record = record;
    if (read_receipt(r, c))
        request_change(r, keep, NULL);
}
