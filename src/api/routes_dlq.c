/* What is in the dead-letter queue: counts by reason and by subscription. */
#include <errno.h>

#include "api/routes.h"
#include "api/subscription_json.h"

static json_t *reasons_json(const uint64_t n[DELIVERY_REASONS], uint64_t *ret_total) {
    json_t *reasons = json_object();
    *ret_total = 0;
    for (int i = REASON_NONE + 1; i < DELIVERY_REASONS; i++) {
        if (!n[i])
            continue;
        *ret_total += n[i];
        if (json_object_set_new(reasons, delivery_reason_name((enum delivery_reason)i),
                                json_integer((json_int_t)n[i])) < 0) {
            json_decref(reasons);
            return NULL;
        }
    }
    return reasons;
}

/* The rows of a subscription follow one another. */
struct counting {
    struct page page;
    uint32_t no; /* whose are gathered, 0: nobody's */
    struct id id;
    uint64_t n[DELIVERY_REASONS];
};

static int end_subscription(struct counting *c) {
    char id[ID_TEXT_SIZE];
    uint64_t total;
    if (!c->no)
        return 0;
    id_format(ID_SUBSCRIPTION, c->id, id);
    json_t *reasons = reasons_json(c->n, &total);
    return page_add(&c->page, c->no,
                    json_pack("{s:s, s:I, s:o}", "subscription_id", id, "total", (json_int_t)total,
                              "by_reason", reasons));
}

static int add_count(void *arg, const struct dlq_count_row *row) {
    struct counting *c = arg;
    if (row->subscription_no != c->no) {
        int e = end_subscription(c);
        if (e != 0)
            return e;
        c->no = row->subscription_no;
        c->id = row->subscription_id;
        memset(c->n, 0, sizeof c->n);
    }
    if (row->reason < DELIVERY_REASONS)
        c->n[row->reason] += row->n;
    return 0;
}

static void answer(struct request *r, struct counting *c, const uint64_t sums[DELIVERY_REASONS]) {
    char cursor[CURSOR_TEXT_SIZE];
    uint64_t total;
    json_t *reasons = reasons_json(sums, &total);
    cursor_format(c->page.list, &c->page.last, 1, cursor);
    request_json(r, 200,
                 json_pack("{s:I, s:o, s:O, s:s?}", "total", (json_int_t)total, "by_reason", reasons, "data",
                           c->page.data, "next_cursor", c->page.more ? cursor : NULL));
}

static int read_counts(struct request *r, struct store_reader *reader, struct counting *c,
                       const struct query_param *subscription, struct id id) {
    uint64_t sums[DELIVERY_REASONS] = {0};
    uint32_t no = 0;
    int e = subscription->value.p ? store_find_subscription(reader, r->tenant.no, id, &no) : 0;
    if (e == -ENOENT) {
        answer(r, c, sums); /* nothing is in a queue that is not there */
        return 0;
    }
    if (e == 0)
        e = store_sum_dlq(reader, r->tenant.no, no, sums);
    if (e == 0)
        e = store_list_dlq_counts(reader, r->tenant.no, no, (uint32_t)c->page.before, add_count, c);
    if (e == 0)
        e = end_subscription(c);
    if (e >= 0)
        answer(r, c, sums);
    return e;
}

void route_count_deliveries(struct request *r) {
    struct field_errors errors = {0};
    struct query_param filter = {.name = "subscription_id"};
    struct counting c = {0};
    struct id id = {0};
    struct store_reader *reader;
    if (!page_begin(r, 'q', &filter, 1, &errors, &c.page))
        return;
    if (filter.value.p && id_parse(ID_SUBSCRIPTION, filter.value, &id) < 0)
        field_error_add(&errors, filter.name, "is no id of that kind");
    if (field_errors_count(&errors)) {
        request_invalid(r, &errors);
    } else if ((reader = request_reader(r))) {
        int e = read_counts(r, reader, &c, &filter, id);
        if (e < 0)
            request_unavailable(r, e);
    }
    page_drop(&c.page);
}
