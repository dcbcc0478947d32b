#include "api/timeline.h"

#include <errno.h>
#include <stdio.h>

#include "api/render.h"

void timeline_free(struct timeline *t) {
    free(t->steps);
    *t = (struct timeline){0};
}

/* Makes room for one more of `size` bytes; NULL leaves everything as it was. */
static void *grow(void *items, size_t n, size_t *cap, size_t size) {
    if (n < *cap)
        return items;
    size_t more = *cap ? *cap * 2 : 8;
    void *grown = realloc(items, more * size);
    if (grown)
        *cap = more;
    return grown;
}

static int add_step(struct timeline *t, const struct delivery_row *row, int64_t at, int from,
                    enum delivery_state to, const char *reason) {
    void *grown = grow(t->steps, t->n, &t->cap, sizeof t->steps[0]);
    if (!grown)
        return -ENOMEM;
    t->steps = grown;
    struct timeline_step *s = &t->steps[t->n];
    *s = (struct timeline_step){.delivery_id = id_of_delivery(row->event_key, row->subscription_no),
                                .subscription_id = row->subscription_id,
                                .order = t->n,
                                .at = at,
                                .from = from,
                                .to = to};
    snprintf(s->reason, sizeof s->reason, "%s", reason ? reason : "");
    t->n++;
    return 0;
}

/* ---- deriving ---- */

/* Why an attempt ended as it did; NULL for a success. */
static const char *attempt_reason(const struct attempt_row *a, char text[TIMELINE_REASON_SIZE]) {
    if (a->to == DELIVERY_DELIVERED)
        return NULL;
    if (a->reason != REASON_NONE)
        return delivery_reason_name(a->reason);
    if (a->attempt.error != ATTEMPT_OK || !a->attempt.status)
        return attempt_error_name(a->attempt.error);
    snprintf(text, TIMELINE_REASON_SIZE, "http_%d", a->attempt.status);
    return text;
}

/* Whether the next transition comes before the next attempt. Within one millisecond the state decides: an
 * attempt begins only from an open state, a transition only from the one it names. */
static bool transition_first(enum delivery_state state, const struct transition_row *x,
                             const struct attempt_row *a) {
    if (!a || !x)
        return !a;
    if (x->at != a->attempt.started_at)
        return x->at < a->attempt.started_at;
    return x->from == state && (!delivery_is_open(state) || delivery_is_open(x->to));
}

static int add_attempt(struct timeline *t, const struct delivery_row *row, enum delivery_state from,
                       const struct attempt_row *a) {
    char text[TIMELINE_REASON_SIZE];
    int e = add_step(t, row, a->attempt.started_at, (int)from, DELIVERY_ATTEMPTING, NULL);
    return e < 0 ? e : add_step(t, row, a->settled_at, DELIVERY_ATTEMPTING, a->to, attempt_reason(a, text));
}

int timeline_derive(struct timeline *t, const struct delivery_row *row,
                    const struct timeline_source *source) {
    uint32_t settled = row->attempts - (row->state == DELIVERY_ATTEMPTING ? 1 : 0);
    enum delivery_state state = DELIVERY_PENDING;
    size_t attempts_n = source->attempts_n, i = 0, k = 0;
    while (attempts_n && source->attempts[attempts_n - 1].number > settled)
        attempts_n--;
    int e = add_step(t, row, row->created_at, -1, state, NULL);
    while (e == 0 && (i < attempts_n || k < source->transitions_n)) {
        const struct attempt_row *a = i < attempts_n ? &source->attempts[i] : NULL;
        const struct transition_row *x = k < source->transitions_n ? &source->transitions[k] : NULL;
        if (transition_first(state, x, a)) {
            e = add_step(t, row, x->at, (int)x->from, x->to, delivery_reason_name(x->reason));
            state = x->to;
            k++;
        } else {
            e = add_attempt(t, row, state, a);
            state = a->to;
            i++;
        }
    }
    if (e == 0 && row->state == DELIVERY_ATTEMPTING)
        e = add_step(t, row, row->claimed_at, (int)state, DELIVERY_ATTEMPTING, NULL);
    return e;
}

/* ---- reading ---- */

struct gathering {
    struct attempt_row *attempts;
    size_t attempts_n, attempts_cap;
    struct transition_row *transitions;
    size_t transitions_n, transitions_cap;
};

static int gather_attempt(void *arg, const struct attempt_row *row) {
    struct gathering *g = arg;
    void *grown = grow(g->attempts, g->attempts_n, &g->attempts_cap, sizeof *row);
    if (!grown)
        return -ENOMEM;
    g->attempts = grown;
    g->attempts[g->attempts_n++] = *row;
    return 0;
}

static int gather_transition(void *arg, const struct transition_row *row) {
    struct gathering *g = arg;
    void *grown = grow(g->transitions, g->transitions_n, &g->transitions_cap, sizeof *row);
    if (!grown)
        return -ENOMEM;
    g->transitions = grown;
    g->transitions[g->transitions_n++] = *row;
    return 0;
}

int timeline_add(struct timeline *t, struct store_reader *reader, const struct delivery_row *row) {
    struct gathering g = {0};
    int e =
        store_list_attempts(reader, row->tenant_no, row->event_key, row->subscription_no, gather_attempt, &g);
    if (e == 0)
        e = store_list_transitions(reader, row->tenant_no, row->event_key, row->subscription_no,
                                   gather_transition, &g);
    struct timeline_source source = {g.attempts, g.attempts_n, g.transitions, g.transitions_n};
    if (e == 0)
        e = timeline_derive(t, row, &source);
    free(g.attempts);
    free(g.transitions);
    return e;
}

/* ---- showing ---- */

static int by_time(const void *a, const void *b) {
    const struct timeline_step *x = a, *y = b;
    if (x->at != y->at)
        return x->at < y->at ? -1 : 1;
    return x->order < y->order ? -1 : x->order > y->order;
}

void timeline_sort(struct timeline *t) {
    if (t->n > 1)
        qsort(t->steps, t->n, sizeof t->steps[0], by_time);
}

void timeline_render(const struct timeline *t, struct buf *out, bool with_ids) {
    buf_add_char(out, '[');
    for (size_t i = 0; i < t->n; i++) {
        const struct timeline_step *s = &t->steps[i];
        buf_add_str(out, i ? ",{" : "{");
        if (with_ids) {
            char delivery[ID_TEXT_SIZE], subscription[ID_TEXT_SIZE];
            id_format(ID_DELIVERY, s->delivery_id, delivery);
            id_format(ID_SUBSCRIPTION, s->subscription_id, subscription);
            render_text(out, "delivery_id", slice_of(delivery));
            render_text(out, "subscription_id", slice_of(subscription));
        }
        render_transition(out, s->at, s->from, s->to, s->reason[0] ? s->reason : NULL);
        buf_add_char(out, '}');
    }
    buf_add_char(out, ']');
}
