#include "timeline.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "memory_store.h"
#include "world.h"

enum { LINES_SHOWN = 300 }; /* of a failure: the last ones */

struct line {
    int64_t at;
    uint32_t subscription_no, number;
    uint64_t event_key;
    const char *what;
    int64_t value;
    bool has_value;
};

static struct {
    struct line *lines;
    size_t n, cap;
    const char *violation;
    uint32_t subscription_no;
    uint64_t event_key;
} timeline;

static void add(struct line line) {
    timeline.lines = host_grow(timeline.lines, &timeline.cap, timeline.n + 1, sizeof line);
    line.at = world.true_ms;
    timeline.lines[timeline.n++] = line;
}

void note(uint32_t subscription_no, uint64_t event_key, uint32_t number, const char *what) {
    add((struct line){
        .subscription_no = subscription_no, .event_key = event_key, .number = number, .what = what});
}

void note_value(uint32_t subscription_no, uint64_t event_key, uint32_t number, const char *what,
                int64_t value) {
    add((struct line){.subscription_no = subscription_no,
                      .event_key = event_key,
                      .number = number,
                      .what = what,
                      .value = value,
                      .has_value = true});
}

void violate(uint32_t subscription_no, uint64_t event_key, const char *what) {
    if (timeline.violation)
        return;
    timeline.violation = what;
    timeline.subscription_no = subscription_no;
    timeline.event_key = event_key;
    note(subscription_no, event_key, 0, what);
}

const char *timeline_violation(void) {
    return timeline.violation;
}

void timeline_begin(void) {
    timeline.n = 0;
    timeline.violation = NULL;
}

void timeline_clear(void) {
    host_free(timeline.lines);
    memset(&timeline, 0, sizeof timeline);
}

/* Of the broken lane, or of the broken event when no lane is; what concerns all always. */
static bool concerns(const struct line *l) {
    if (!l->subscription_no)
        return !l->event_key || !timeline.event_key || l->event_key == timeline.event_key;
    return l->subscription_no == timeline.subscription_no ||
           (!timeline.subscription_no && l->event_key == timeline.event_key);
}

/* "e12" is the twelfth event accepted: short, and the same in every line. */
static void print_line(const struct line *l) {
    fprintf(stderr, "  %10.3f s", (double)l->at / 1000);
    if (l->subscription_no)
        fprintf(stderr, "  lane %u", l->subscription_no);
    if (l->event_key)
        fprintf(stderr, "  e%zu", memory_store_event_no(l->event_key));
    if (l->number)
        fprintf(stderr, " #%u", l->number);
    fprintf(stderr, "  %s", l->what);
    if (l->has_value)
        fprintf(stderr, " %" PRId64, l->value);
    fputc('\n', stderr);
}

void timeline_print(bool everything) {
    size_t from = timeline.n;
    for (size_t shown = 0; !everything && from > 0 && shown < LINES_SHOWN; from--)
        shown += concerns(&timeline.lines[from - 1]);
    if (everything)
        from = 0;
    for (size_t i = from; i < timeline.n; i++)
        if (everything || concerns(&timeline.lines[i]))
            print_line(&timeline.lines[i]);
    if (timeline.violation)
        fprintf(stderr, "seed %" PRIu64 ", lane %u: %s\n", world.seed, timeline.subscription_no,
                timeline.violation);
}
