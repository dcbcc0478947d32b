/* Bulk replays: asking for one, its progress, and cancelling it. */
#include <errno.h>
#include <stdio.h>
#include <strings.h>

#include "api/routes.h"
#include "api/subscription_json.h"
#include "base/clock.h"
#include "base/random.h"
#include "core/doc.h"
#include "core/event.h"

enum {
    COUNTED_MAX = 200000, /* rows that a request looks at to count; what is beyond is counted on the way */
    PER_SECOND_MAX = 100000,
    REPLAY_STATES = 1 << DELIVERY_DELIVERED | 1 << DELIVERY_DLQ,
};

/* ---- asking for one ---- */

struct replay_creation {
    struct replay_record record;
    struct subscription *subscription; /* the one it names, NULL when it names none */
    struct buf event_type;
    bool exact; /* all that matches was counted */
};

static void free_creation(void *data) {
    struct replay_creation *c = data;
    subscription_unref(c->subscription);
    buf_free(&c->event_type);
    free(c);
}

/* "states": the closed ones; by default the dead-letter queue. */
static uint32_t read_states(struct doc *d, bool may_be_none) {
    const json_t *given = doc_get(d, "states"), *entry;
    uint32_t states = 0;
    size_t i;
    if (!given)
        return 1U << DELIVERY_DLQ;
    if (!json_is_array(given) || (json_array_size(given) == 0 && !may_be_none)) {
        doc_error(d, "states", "must be a list of \"dlq\", \"delivered\" or both");
        return 0;
    }
    json_array_foreach (given, i, entry) {
        enum delivery_state state;
        struct slice word = doc_string(entry);
        if (word.p && delivery_state_parse(word, &state) == 0 && (REPLAY_STATES & 1U << state)) {
            states |= 1U << state;
            continue;
        }
        char name[32];
        snprintf(name, sizeof name, "states[%zu]", i);
        doc_error(d, name, "must be \"dlq\" or \"delivered\": what is still open is being delivered anyway");
    }
    return states;
}

/* Unix ms; 0 when absent or bad. */
static int64_t read_time(struct doc *d, const char *name) {
    const json_t *given = doc_get(d, name);
    struct slice text = doc_string(given);
    int64_t at = 0;
    if (given && (!text.p || rfc3339_parse(text, &at) < 0))
        doc_error(d, name, "must be an RFC 3339 time, such as 2026-11-24T20:49:00Z");
    /* Whatever lies before 1970 is its first moment. */
    return given && at <= 0 ? 1 : at;
}

static void read_event_type(struct doc *d, struct replay_creation *c) {
    const char *text = doc_text(d, "event_type", EVENT_TYPE_MAX, NULL);
    struct slice type = slice_of(text), stem = type;
    if (!text)
        return;
    if (type.n > 2 && memcmp(type.p + type.n - 2, ".*", 2) == 0)
        stem.n -= 2;
    if (!event_type_valid(stem))
        doc_error(d, "event_type", "must be an event type, or one that ends in \".*\"");
    buf_add_slice(&c->event_type, type);
    c->record.filter.event_type = buf_slice(&c->event_type);
}

static int take_subscription(void *arg, const struct subscription_record *row) {
    struct replay_creation *c = arg;
    _cleanup_json_ json_t *doc = json_loadb(row->doc.p, row->doc.n, 0, NULL);
    c->subscription = doc ? subscription_from_doc(doc, SLICE_NONE) : NULL;
    if (!c->subscription)
        return -ENOMEM;
    c->subscription->no = row->no;
    c->record.filter.subscription_no = row->no;
    return 0;
}

/* 0, also for one that is not there (told in the errors). */
static int read_subscription(struct request *r, struct doc *d, struct replay_creation *c) {
    const json_t *given = doc_get(d, "subscription_id");
    struct slice text = doc_string(given);
    struct id id;
    if (!given)
        return 0;
    struct store_reader *reader = request_reader(r);
    if (!reader)
        return -EIO;
    int e = text.p && id_parse(ID_SUBSCRIPTION, text, &id) == 0
                ? store_read_subscription(reader, r->tenant.no, id, take_subscription, c)
                : -ENOENT;
    if (e == -ENOENT)
        doc_error(d, "subscription_id", "must be the id of a subscription of this tenant");
    return e == -ENOENT ? 0 : e;
}

static int read_body(struct request *r, const json_t *body, struct replay_creation *c,
                     struct field_errors *errors) {
    static const char *const names[] = {"subscription_id", "states",          "event_type", "since",
                                        "until",           "include_missing", "dry_run",    "per_second"};
    struct replay_filter *f = &c->record.filter;
    struct doc d;
    doc_begin(&d, body, true, errors);
    int e = read_subscription(r, &d, c);
    f->include_missing = doc_bool(&d, "include_missing", false);
    if (f->include_missing && !doc_get(&d, "subscription_id"))
        doc_error(&d, "include_missing",
                  "needs a subscription_id: the subscription whose events are missing");
    f->states = read_states(&d, f->include_missing);
    read_event_type(&d, c);
    int64_t since = read_time(&d, "since"), until = read_time(&d, "until");
    if (since && until && until <= since)
        doc_error(&d, "until", "must be later than since");
    f->first_event = id_key_at(since);
    if (until && id_key_at(until) - 1 < f->last_event)
        f->last_event = id_key_at(until) - 1;
    c->record.dry_run = doc_bool(&d, "dry_run", false);
    c->record.per_second = (uint32_t)doc_int(&d, "per_second", 1, PER_SECOND_MAX, 0);
    doc_refuse_unknown(&d, names, sizeof names / sizeof names[0]);
    json_decref(doc_end(&d));
    return e < 0 ? e : buf_ok(&c->event_type) ? 0 : -ENOMEM;
}

/* What was asked for, for the audit trail. */
static json_t *creation_detail(json_t *body, uint64_t matched) {
    json_t *detail = json_object();
    if (json_object_set(detail, "asked", body) < 0 ||
        json_object_set_new(detail, "matched", json_integer((json_int_t)matched)) < 0) {
        json_decref(detail);
        return NULL;
    }
    return detail;
}

static int create(struct request *r, struct store *s) {
    struct replay_creation *c = r->data;
    struct replay_record *record = &c->record;
    char id[ID_TEXT_SIZE];
    id_format(ID_REPLAY, record->id, id);
    _cleanup_json_ json_t *body = json_loadb(r->body.p, r->body.n, 0, NULL);
    _cleanup_json_ json_t *detail = body ? creation_detail(body, record->matched) : NULL;
    if (!detail)
        return -ENOMEM;
    int e = store_insert_replay(s, record, REPLAY_OPEN_MAX);
    if (e == -EDQUOT)
        request_problem(
            r, 409,
            "The tenant has %d bulk replays under way, which is the most there may be: wait until "
            "one ends, or cancel one.",
            REPLAY_OPEN_MAX);
    if (e < 0)
        return e;
    buf_addf(request_write(r, 202), "{\"id\":\"%s\",\"matched\":%llu}", id,
             (unsigned long long)record->matched);
    return request_audit(r, s, record->dry_run ? "replay.dry_run" : "replay.create", id, detail);
}

static void created(struct request *r) {
    replayer_kick(r->o->replayer);
}

static int count(struct request *r, struct replay_creation *c) {
    struct store_reader *reader = request_reader(r);
    if (!reader)
        return -EIO;
    struct replay_record *record = &c->record;
    int e = store_count_replayable(reader, &record->filter, c->subscription, COUNTED_MAX, &record->matched,
                                   &c->exact);
    if (e == 0 && record->dry_run && c->exact) {
        record->state = REPLAY_DONE;
        record->started = record->matched;
    }
    return e;
}

void route_create_replay(struct request *r) {
    if (!control_takes_json(r, false))
        return;
    _cleanup_json_ json_t *body = request_object(r);
    if (!body)
        return;
    struct replay_creation *c = request_keep(r, sizeof *c, free_creation);
    if (!c)
        return;
    struct field_errors errors = {0};
    c->record = (struct replay_record){.id = control_new_id(r), .most = INT64_MAX};
    c->record.requested_by = slice_of(r->actor);
    c->record.filter = (struct replay_filter){.tenant_no = r->tenant.no, .last_event = c->record.id.key};
    int e = read_body(r, body, c, &errors);
    if (e == 0 && field_errors_count(&errors)) {
        request_invalid(r, &errors);
        return;
    }
    if (e == 0)
        e = count(r, c);
    if (e < 0)
        request_unavailable(r, e);
    else
        request_change(r, create, created);
}

/* ---- looking ---- */

static json_t *replay_json(const struct replay_record *row) {
    char id[ID_TEXT_SIZE];
    id_format(ID_REPLAY, row->id, id);
    return json_pack("{s:s, s:s, s:I, s:I, s:I, s:o, s:o}", "id", id, "state", replay_state_name(row->state),
                     "matched", (json_int_t)replay_matched(row), "done", (json_int_t)row->done, "failed",
                     (json_int_t)row->failed, "requested_by",
                     json_stringn(row->requested_by.p, row->requested_by.n), "created_at",
                     control_time(id_ms(row->id)));
}

static int add_replay(void *arg, const struct replay_record *row) {
    struct page *page = arg;
    return page_add(page, row->id.key, replay_json(row));
}

void route_list_replays(struct request *r) {
    struct field_errors errors = {0};
    struct page page;
    if (!page_begin(r, 'r', NULL, 0, &errors, &page))
        return;
    struct store_reader *reader = page_reader(r, &page, &errors);
    if (!reader)
        return;
    page_answer(r, &page,
                store_list_replays(reader, r->tenant.no, page.before, page.limit + 1, add_replay, &page));
}

static int answer_replay(void *arg, const struct replay_record *row) {
    request_json(arg, 200, replay_json(row));
    return 0;
}

static void no_replay(struct request *r) {
    request_problem(r, 404, "There is no such replay; ended ones leave after the tenant's retention_days.");
}

void route_get_replay(struct request *r) {
    struct id id;
    struct store_reader *reader;
    if (!request_no_query(r) || !request_id(r, ID_REPLAY, &id) || !(reader = request_reader(r)))
        return;
    int e = store_read_replay(reader, r->tenant.no, id, answer_replay, r);
    if (e == -ENOENT)
        no_replay(r);
    else if (e < 0)
        request_unavailable(r, e);
}

/* ---- cancelling ---- */

static int cancel(struct request *r, struct store *s) {
    struct id id;
    char text[ID_TEXT_SIZE];
    CHECK(id_parse(ID_REPLAY, r->id, &id) == 0);
    int e = store_cancel_replay(s, r->tenant.no, id);
    if (e == -ENOENT)
        no_replay(r);
    if (e < 0 && e != -EALREADY)
        return e;
    (void)request_write(r, 204);
    id_format(ID_REPLAY, id, text);
    return e == -EALREADY ? 0 : request_audit(r, s, "replay.cancel", text, NULL);
}

void route_cancel_replay(struct request *r) {
    struct id id;
    if (request_no_query(r) && request_id(r, ID_REPLAY, &id))
        request_change(r, cancel, created);
}
