#include "store/search.h"

struct span span_before(const struct span *s, int64_t event, int64_t subscription) {
    return subscription > 1 ? (struct span){s->first_event, event, subscription}
                            : (struct span){s->first_event, event - 1, SPAN_ALL_OF_EVENT};
}

void span_end_at(struct span *s, uint64_t event) {
    if ((int64_t)event <= s->event)
        *s = span_before(s, (int64_t)event, 0);
}

struct span span_of(const struct delivery_query *q) {
    struct span s = {(int64_t)id_key_at(q->since), (int64_t)ID_KEY_MAX, SPAN_ALL_OF_EVENT};
    if (q->before_event_key)
        s = span_before(&s, (int64_t)q->before_event_key, q->before_subscription_no);
    if (q->until)
        span_end_at(&s, id_key_at(q->until));
    if (q->event_key) {
        span_end_at(&s, q->event_key + 1);
        if ((int64_t)q->event_key > s.first_event)
            s.first_event = (int64_t)q->event_key;
    }
    return s;
}

bool span_has(const struct span *s, uint64_t event_key, uint32_t subscription_no) {
    int64_t event = (int64_t)event_key;
    return event >= s->first_event &&
           (event < s->event || (event == s->event && subscription_no < s->subscription));
}

int search_budget(const struct delivery_query *q) {
    return q->budget ? (int)q->budget : SEARCH_BUDGET;
}

static bool same_or_any(int64_t wanted, int64_t value) {
    return !wanted || wanted == value;
}

bool search_matches(const struct delivery_query *q, const struct search_columns *d) {
    return same_or_any(q->subscription_no, d->subscription) && (q->state < 0 || q->state == d->state) &&
           same_or_any(q->status, d->status) && same_or_any(q->error, d->error) &&
           (!q->reason || (q->reason == d->reason && d->state == DELIVERY_DLQ));
}

bool search_matches_event(const struct delivery_query *q, const struct delivery_row *row) {
    return (!q->event_type.p || slice_eq(q->event_type, row->event_type)) &&
           (!q->ordering_key.p || slice_eq(q->ordering_key, row->ordering_key));
}

bool search_is_failed_state(int state) {
    return state == DELIVERY_RETRY || state == DELIVERY_DLQ || state == DELIVERY_REPLAYING;
}

struct delivery_stop search_stop(int64_t event, int64_t subscription) {
    return (struct delivery_stop){true, (uint64_t)event,
                                  subscription ? (uint32_t)subscription : 1 /* all of it */};
}
