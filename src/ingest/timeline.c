#include "ingest/timeline.h"

#include <errno.h>

#include "ingest/pgoutput.h"

static void add(struct timeline_history *h, uint32_t timeline, uint64_t end) {
    if (h->n == TIMELINES_MAX)
        memmove(&h->past[0], &h->past[1], --h->n * sizeof h->past[0]);
    h->past[h->n].timeline = timeline;
    h->past[h->n++].end = end;
}

/* "TIMELINE<tab>LSN<tab>REASON"; a comment or an empty line is passed over. */
static int parse_line(struct slice line, struct timeline_history *h) {
    uint64_t timeline = 0, end;
    size_t i = 0;
    while (i < line.n && (line.p[i] == ' ' || line.p[i] == '\t'))
        i++;
    if (i == line.n || line.p[i] == '#')
        return 0;
    for (; i < line.n && line.p[i] >= '0' && line.p[i] <= '9'; i++)
        timeline = timeline * 10 + (uint64_t)(line.p[i] - '0');
    size_t begin = i + 1;
    if (i == line.n || line.p[i] != '\t' || timeline < 1 || timeline > UINT32_MAX)
        return -EINVAL;
    for (i = begin; i < line.n && line.p[i] != '\t';)
        i++;
    if (lsn_parse((struct slice){line.p + begin, i - begin}, &end) < 0 ||
        (h->n && h->past[h->n - 1].end > end))
        return -EINVAL;
    add(h, (uint32_t)timeline, end);
    return 0;
}

int timeline_parse(struct slice text, struct timeline_history *h) {
    int r = 0;
    h->n = 0;
    while (r == 0 && text.n > 0) {
        const char *end = memchr(text.p, '\n', text.n);
        size_t n = end ? (size_t)(end - text.p) : text.n;
        r = parse_line((struct slice){text.p, n}, h);
        n += end != NULL;
        text = (struct slice){text.p + n, text.n - n};
    }
    return r;
}

uint32_t timeline_at(const struct timeline_history *h, uint64_t lsn) {
    for (size_t i = 0; i < h->n; i++)
        if (lsn < h->past[i].end)
            return h->past[i].timeline;
    return h->timeline;
}

bool timeline_holds(const struct timeline_history *h, uint32_t timeline, uint64_t lsn) {
    for (size_t i = 0; i < h->n; i++)
        if (h->past[i].timeline == timeline)
            return lsn <= h->past[i].end;
    return timeline == h->timeline && lsn <= h->flushed;
}
