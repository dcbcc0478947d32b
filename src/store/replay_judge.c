#include "store/replay_judge.h"

#include <errno.h>

enum { FILTER_STEPS_A_ROW = 100 /* so much of judging by a filter counts as one row looked at */ };

static enum replay_verdict judge_missing(const struct subscription *sub, struct slice type) {
    if (slice_eq(type, SLICE_LIT("posthorn.test")) || !subscription_matches(sub, type))
        return REPLAY_PASS;
    return sub->filter ? REPLAY_ASK_FILTER : REPLAY_TAKE;
}

enum replay_verdict replay_judge(const struct replay_filter *f, const struct subscription *sub,
                                 const struct replay_place *place) {
    if (place->out_of_bounds || (f->event_type.p && !event_type_covered(f->event_type, place->type)))
        return REPLAY_PASS;
    if (place->state < 0)
        return f->include_missing ? judge_missing(sub, place->type) : REPLAY_PASS;
    bool taken = (f->states & 1U << place->state) && (!f->reasons || (f->reasons & 1U << place->reason)) &&
                 place->closed_at >= f->closed_after;
    return taken ? REPLAY_TAKE : REPLAY_PASS;
}

int replay_ask_filter(const struct subscription *sub, const struct replay_place *place,
                      struct slice schema_version, struct slice body, uint32_t data_size, unsigned *budget) {
    struct filter_subject event = {
        .type = place->type, .ordering_key = place->ordering_key, .schema_version = schema_version};
    struct json_tape tape = {0};
    uint64_t steps = 0;
    event.data = event_data(body, data_size);
    int r = json_tape_read(&tape, event.data);
    event.tape = &tape;
    if (r == 0)
        r = subscription_wants(sub, &event, &steps);
    steps = (steps + tape.n) / FILTER_STEPS_A_ROW;
    *budget -= steps < *budget ? (unsigned)steps : *budget - 1;
    json_tape_free(&tape);
    return r < 0 && r != -ENOMEM ? -EIO : r; /* what the store holds was JSON when it went in */
}
