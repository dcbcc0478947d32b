/* Deliveries: reading them with their attempts, and replaying one. */
#include <errno.h>

#include "api/list.h"
#include "api/render.h"
#include "api/routes.h"
#include "api/timeline.h"

/* ---- the list ---- */

static int add_delivery(void *arg, const struct delivery_row *row) {
    struct list *l = arg;
    if (!list_next(l, row->event_key, row->subscription_no))
        return 1;
    render_delivery_open(&l->r->out, l->r->tenant.id, row,
                         row->blocked ? LANE_WAIT_ORDERING : LANE_WAIT_NONE);
    buf_add_char(&l->r->out, '}');
    return 0;
}

static void filter_id(const struct query_param *p, enum id_kind kind, struct id *ret,
                      struct field_errors *errors) {
    if (p->value.p && id_parse(kind, p->value, ret) < 0)
        field_error_add(errors, p->name, "is no id of that kind");
}

static void filter_state(const struct query_param *p, int *ret, struct field_errors *errors) {
    enum delivery_state state;
    *ret = -1;
    if (!p->value.p)
        return;
    if (delivery_state_parse(p->value, &state) < 0)
        field_error_add(errors, p->name,
                        "must be one of PENDING, ATTEMPTING, RETRY, DELIVERED, DLQ, REPLAYING");
    else
        *ret = (int)state;
}

/* 0: any. */
static int filter_status(const struct query_param *p, struct field_errors *errors) {
    int status = 0;
    if (!p->value.p)
        return 0;
    for (size_t i = 0; i < p->value.n && p->value.n == 3; i++)
        status = p->value.p[i] >= '0' && p->value.p[i] <= '9' ? status * 10 + (p->value.p[i] - '0') : 1000;
    if (status < 100 || status > 599)
        field_error_add(errors, p->name, "must be a status code from 100 to 599");
    return status;
}

static int ignore_event(void *arg, const struct event_row *row) {
    (void)arg;
    (void)row;
    return 0;
}

/* What the filters' ids stand for; false when nothing can match. -errno otherwise. */
static int resolve_ids(struct store_reader *reader, struct request *r, const struct query_param *subscription,
                       struct id subscription_id, const struct query_param *event, struct id event_id,
                       struct delivery_query *q) {
    if (event->value.p) {
        int err = store_read_event(reader, r->tenant.no, event_id, ignore_event, NULL);
        if (err < 0)
            return err == -ENOENT ? 0 : err;
        q->event_key = event_id.key;
    }
    if (!subscription->value.p)
        return 1;
    int err = store_find_subscription(reader, r->tenant.no, subscription_id, &q->subscription_no);
    return err == -ENOENT ? 0 : err < 0 ? err : 1;
}

enum {
    BY_LIMIT,
    BY_CURSOR,
    BY_STATE,
    BY_SUBSCRIPTION,
    BY_EVENT,
    BY_TYPE,
    BY_SINCE,
    BY_UNTIL,
    BY_STATUS,
    BY_ERROR,
    BY_REASON,
    BY_KEY,
    BY_PARAMS
};

/* What the parameters ask for, but for their ids. */
static size_t read_query(struct query_param p[BY_PARAMS], struct delivery_query *q,
                         struct field_errors *errors) {
    size_t limit = query_limit(&p[BY_LIMIT], errors);
    q->limit = limit + 1;
    q->event_type = p[BY_TYPE].value;
    q->ordering_key = p[BY_KEY].value;
    q->since = query_time(&p[BY_SINCE], errors);
    q->until = query_time(&p[BY_UNTIL], errors);
    q->status = filter_status(&p[BY_STATUS], errors);
    filter_state(&p[BY_STATE], &q->state, errors);
    if (p[BY_ERROR].value.p && attempt_error_parse(p[BY_ERROR].value, &q->error) < 0)
        field_error_add(errors, p[BY_ERROR].name, "must be an error code of an attempt, such as timeout");
    if (p[BY_REASON].value.p && delivery_reason_parse(p[BY_REASON].value, &q->reason) < 0)
        field_error_add(errors, p[BY_REASON].name, "must be a failure_reason, such as attempts_exhausted");
    uint64_t before[2] = {0};
    if (query_cursor(&p[BY_CURSOR], 'd', before, 2, errors)) {
        q->before_event_key = before[0];
        q->before_subscription_no = (uint32_t)before[1];
    }
    return limit;
}

static int list_them(struct store_reader *reader, const struct delivery_query *q, struct list *l) {
    struct delivery_stop stop;
    int err = store_list_deliveries(reader, q, add_delivery, l, &stop);
    if (err == 0 && stop.stopped)
        list_stop(l, stop.event_key, stop.subscription_no);
    return err;
}

void route_list_deliveries(struct request *r) {
    struct query_param p[BY_PARAMS] = {
        {.name = "limit"},           {.name = "cursor"},         {.name = "state"},
        {.name = "subscription_id"}, {.name = "event_id"},       {.name = "event_type"},
        {.name = "since"},           {.name = "until"},          {.name = "status_code"},
        {.name = "error"},           {.name = "failure_reason"}, {.name = "ordering_key"}};
    struct field_errors errors = {0};
    if (!request_query(r, p, BY_PARAMS, &errors))
        return;
    struct id subscription_id = {0}, event_id = {0};
    struct delivery_query q = {.tenant_no = r->tenant.no};
    size_t limit = read_query(p, &q, &errors);
    filter_id(&p[BY_SUBSCRIPTION], ID_SUBSCRIPTION, &subscription_id, &errors);
    filter_id(&p[BY_EVENT], ID_EVENT, &event_id, &errors);
    if (errors.n) {
        request_invalid(r, &errors);
        return;
    }
    struct store_reader *reader = request_reader(r);
    if (!reader)
        return;
    struct list l;
    list_begin(&l, r, 'd', limit, 2);
    int err = resolve_ids(reader, r, &p[BY_SUBSCRIPTION], subscription_id, &p[BY_EVENT], event_id, &q);
    if (err > 0)
        err = list_them(reader, &q, &l);
    if (err < 0)
        request_unavailable(r, err);
    else
        list_end(&l);
}

/* ---- one delivery ---- */

/* The path's delivery: false after having answered 404. */
static bool delivery_parts(struct request *r, uint64_t *event_key, uint32_t *no) {
    struct id id;
    if (!request_id(r, ID_DELIVERY, &id))
        return false;
    if (id_delivery_parts(id, event_key, no) == 0)
        return true;
    request_problem(r, 404, "There is no such delivery.");
    return false;
}

static void not_read(struct request *r, int err) {
    if (err == -ENOENT)
        request_problem(r, 404,
                        "There is no such delivery; deliveries leave after the tenant's retention_days.");
    else if (err < 0)
        request_unavailable(r, err);
}

struct attempts {
    struct buf *out;
    const struct delivery_row *delivery;
    size_t n;
};

static int add_attempt(void *arg, const struct attempt_row *row) {
    struct attempts *a = arg;
    if (a->n++)
        buf_add_char(a->out, ',');
    render_attempt(a->out, a->delivery, row);
    return 0;
}

/* What holds up a delivery that is due, as its lane says. */
static enum lane_wait waiting_on(struct request *r, const struct delivery_row *row) {
    struct lane_stats stats;
    if (row->blocked)
        return LANE_WAIT_ORDERING;
    if (!row->next_attempt_at || request_lane_stats(r, row->subscription_no, &stats) < 0)
        return LANE_WAIT_NONE;
    return row->next_attempt_at <= r->now || stats.waiting_on == LANE_WAIT_PAUSED ? stats.waiting_on
                                                                                  : LANE_WAIT_NONE;
}

struct reading {
    size_t limit;   /* of the list of attempts */
    uint64_t after; /* attempts up to this number were on the pages before */
    struct request *r;
    struct store_reader *reader;
};

static int write_delivery(void *arg, const struct delivery_row *row) {
    struct reading *reading = arg;
    struct request *r = reading->r;
    struct buf *out = request_write(r, 200);
    render_delivery_open(out, r->tenant.id, row, waiting_on(r, row));
    buf_add_str(out, ",\"attempts\":[");
    struct attempts a = {.out = out, .delivery = row};
    int err = store_list_attempts(reading->reader, row->tenant_no, row->event_key, row->subscription_no,
                                  add_attempt, &a);
    if (err < 0)
        return err;
    struct timeline t = {0};
    err = timeline_add(&t, reading->reader, row);
    buf_add_str(out, "],\"timeline\":");
    timeline_render(&t, out, false);
    buf_add_char(out, '}');
    timeline_free(&t);
    return err;
}

struct attempts_page {
    struct list list;
    const struct delivery_row *delivery;
    uint64_t after;
};

static int add_to_page(void *arg, const struct attempt_row *row) {
    struct attempts_page *p = arg;
    if (row->number <= p->after)
        return 0;
    if (!list_next(&p->list, row->number, 0))
        return 1;
    render_attempt(&p->list.r->out, p->delivery, row);
    return 0;
}

static int write_attempts(void *arg, const struct delivery_row *row) {
    struct reading *reading = arg;
    struct attempts_page page = {.delivery = row, .after = reading->after};
    list_begin(&page.list, reading->r, 'a', reading->limit, 1);
    int err = store_list_attempts(reading->reader, row->tenant_no, row->event_key, row->subscription_no,
                                  add_to_page, &page);
    list_end(&page.list);
    return err < 0 ? err : 0;
}

static void read_delivery(struct request *r, struct reading *reading, delivery_row_fn fn) {
    uint64_t event_key;
    uint32_t no;
    if (!delivery_parts(r, &event_key, &no))
        return;
    reading->r = r;
    reading->reader = request_reader(r);
    if (reading->reader)
        not_read(r, store_read_delivery(reading->reader, r->tenant.no, event_key, no, fn, reading));
}

void route_get_delivery(struct request *r) {
    struct reading reading = {0};
    if (request_no_query(r))
        read_delivery(r, &reading, write_delivery);
}

void route_list_attempts(struct request *r) {
    enum { LIMIT, CURSOR, PARAMS };
    struct query_param p[PARAMS] = {{.name = "limit"}, {.name = "cursor"}};
    struct field_errors errors = {0};
    if (!request_query(r, p, PARAMS, &errors))
        return;
    struct reading reading = {.limit = query_limit(&p[LIMIT], &errors)};
    query_cursor(&p[CURSOR], 'a', &reading.after, 1, &errors);
    if (errors.n)
        request_invalid(r, &errors);
    else
        read_delivery(r, &reading, write_attempts);
}

/* ---- replay ---- */

static int refuse(struct request *r, int err) {
    switch (err) {
    case -ENOENT:
        request_problem(r, 404, "There is no such delivery.");
        break;
    case -EBUSY:
        request_problem(r, 409, "The delivery is still open: it is being delivered anyway.");
        break;
    case -EOWNERDEAD:
        request_problem(r, 409, "The delivery's subscription is gone.");
        break;
    case -ESTALE:
        request_problem(r, 410, "The event's payload has expired.");
        break;
    default:
        break;
    }
    return err;
}

/* An event that is not there: -ESTALE when it was the tenant's and retention has taken it, as far as its id
 * tells; -ENOENT otherwise. */
static int why_gone(struct request *r, struct store *s, uint64_t event_key, uint32_t no) {
    static const int64_t DAY_MS = INT64_C(86400) * 1000;
    uint32_t owner;
    int err = store_get_subscription_tenant(s, no, &owner);
    if (err < 0)
        return err;
    int64_t kept_since = r->now - (int64_t)r->tenant.limits.retention_days * DAY_MS;
    return owner == r->tenant.no && event_key < id_key_at(kept_since) ? -ESTALE : -ENOENT;
}

static int replay(struct request *r, struct store *s) {
    struct id id;
    uint64_t event_key;
    uint32_t no;
    CHECK(id_parse(ID_DELIVERY, r->id, &id) == 0 && id_delivery_parts(id, &event_key, &no) == 0);
    struct event_record event;
    int err = store_get_event(s, r->tenant.no, event_key, &event);
    if (err == -ENOENT)
        err = why_gone(r, s, event_key, no);
    if (err < 0)
        return refuse(r, err);
    struct subscription *subscription = fanout_subscription(r->o->fanout, no);
    if (!subscription)
        return refuse(r, -EOWNERDEAD);
    uint64_t lane_key = subscription_lane_key(subscription->ordering, event.ordering_key);
    err =
        store_replay(s, event_key, no, r->tenant.no, lane_key, r->now, SLICE_LIT("api"), slice_of(r->actor));
    if (err < 0)
        return refuse(r, err);
    char text[ID_TEXT_SIZE];
    id_format(ID_DELIVERY, id, text);
    buf_addf(request_write(r, 202), "{\"id\":\"%s\",\"state\":\"REPLAYING\"}", text);
    return request_audit(r, s, "delivery.replay", text, NULL);
}

static void replayed(struct request *r) {
    struct id id;
    uint64_t event_key;
    struct lane_notice notice = {.due_at = r->now};
    CHECK(id_parse(ID_DELIVERY, r->id, &id) == 0 &&
          id_delivery_parts(id, &event_key, &notice.subscription_no) == 0);
    metrics_gauge_add(r->o->metrics, METRIC_DELIVERIES_PENDING, 1);
    (void)!dispatch_notify(r->o->dispatch, &notice, 1);
}

void route_replay_delivery(struct request *r) {
    uint64_t event_key;
    uint32_t no;
    if (request_no_query(r) && delivery_parts(r, &event_key, &no))
        request_change(r, replay, replayed);
}
