/* Events as they were published, and what became of their deliveries. */
#include <errno.h>

#include "api/list.h"
#include "api/render.h"
#include "api/routes.h"
#include "api/timeline.h"

/* ---- the list ---- */

static int add_event(void *arg, const struct event_row *row) {
    struct list *l = arg;
    if (!list_next(l, row->event.id.key, 0))
        return 1;
    render_event(&l->r->out, l->r->tenant.id, row);
    return 0;
}

void route_list_events(struct request *r) {
    enum { LIMIT, CURSOR, TYPE, BY_ORDERING_KEY, SINCE, UNTIL, PARAMS };
    struct query_param p[PARAMS] = {{.name = "limit"},        {.name = "cursor"}, {.name = "type"},
                                    {.name = "ordering_key"}, {.name = "since"},  {.name = "until"}};
    struct field_errors errors = {0};
    if (!request_query(r, p, PARAMS, &errors))
        return;
    size_t limit = query_limit(&p[LIMIT], &errors);
    struct event_query q = {.tenant_no = r->tenant.no,
                            .type = p[TYPE].value,
                            .ordering_key = p[BY_ORDERING_KEY].value,
                            .limit = limit + 1};
    q.since = query_time(&p[SINCE], &errors);
    q.until = query_time(&p[UNTIL], &errors);
    (void)query_cursor(&p[CURSOR], 'e', &q.before_key, 1, &errors);
    if (field_errors_count(&errors)) {
        request_invalid(r, &errors);
        return;
    }
    struct store_reader *reader = request_reader(r);
    if (!reader)
        return;
    struct list l;
    list_begin(&l, r, 'e', limit, 1);
    uint64_t stop = 0;
    int err = store_list_events(reader, &q, add_event, &l, &stop);
    if (err == 0 && stop)
        list_stop(&l, stop, 0);
    if (err < 0)
        request_unavailable(r, err);
    else
        list_end(&l);
}

/* ---- one ---- */

static int write_event(void *arg, const struct event_row *row) {
    struct request *r = arg;
    render_event(request_write(r, 200), r->tenant.id, row);
    return 0;
}

/* Reads the event of the path; false after having answered. */
static bool read_event(struct request *r, event_row_fn fn, struct store_reader **ret_reader,
                       struct id *ret_id) {
    if (!request_id(r, ID_EVENT, ret_id) || !(*ret_reader = request_reader(r)))
        return false;
    int err = store_read_event(*ret_reader, r->tenant.no, *ret_id, fn, r);
    if (err == -ENOENT)
        request_problem(r, 404, "There is no such event; events leave after the tenant's retention_days.");
    else if (err < 0)
        request_unavailable(r, err);
    return err == 0;
}

void route_get_event(struct request *r) {
    struct store_reader *reader;
    struct id id;
    if (request_no_query(r))
        (void)read_event(r, write_event, &reader, &id);
}

/* ---- what became of it: a page of its deliveries, and all they went through by time ---- */

struct timelines {
    struct store_reader *reader;
    struct timeline timeline;
    size_t limit, n;
    bool more;
    uint64_t last[2];
};

static int add_timeline(void *arg, const struct delivery_row *row) {
    struct timelines *t = arg;
    if (t->n == t->limit) {
        t->more = true;
        return 1;
    }
    t->n++;
    t->last[0] = row->event_key;
    t->last[1] = row->subscription_no;
    return timeline_add(&t->timeline, t->reader, row);
}

static int pass_over(void *arg, const struct event_row *row) {
    (void)arg;
    (void)row;
    return 0;
}

static void answer_timelines(struct request *r, struct timelines *t) {
    struct buf *out = request_write(r, 200);
    timeline_sort(&t->timeline);
    buf_add_str(out, "{\"data\":");
    timeline_render(&t->timeline, out, true);
    if (t->more) {
        char cursor[CURSOR_TEXT_SIZE];
        cursor_format('l', t->last, 2, cursor);
        buf_addf(out, ",\"next_cursor\":\"%s\"}", cursor);
    } else {
        buf_add_str(out, ",\"next_cursor\":null}");
    }
}

void route_event_timeline(struct request *r) {
    struct query_param p[] = {{.name = "limit"}, {.name = "cursor"}};
    struct field_errors errors = {0};
    if (!request_query(r, p, 2, &errors))
        return;
    struct timelines t = {.limit = query_limit(&p[0], &errors)};
    uint64_t before[2] = {0};
    (void)query_cursor(&p[1], 'l', before, 2, &errors);
    struct id id;
    if (field_errors_count(&errors)) {
        request_invalid(r, &errors);
        return;
    }
    if (!read_event(r, pass_over, &t.reader, &id))
        return;
    struct delivery_query q = {.tenant_no = r->tenant.no,
                               .before_event_key = before[0],
                               .before_subscription_no = (uint32_t)before[1],
                               .state = -1,
                               .event_key = id.key,
                               .limit = t.limit + 1};
    struct delivery_stop stop; /* there is none: every delivery of the event is wanted */
    int err = store_list_deliveries(t.reader, &q, add_timeline, &t, &stop);
    if (err < 0)
        request_unavailable(r, err);
    else
        answer_timelines(r, &t);
    timeline_free(&t.timeline);
}
