/* A lane's recent attempts, for its statistics. */
#include <math.h>

#include "lanes/lane.h"

enum { HISTORY_MAX = 50000 }; /* attempts; then all counts are halved, so that old ones fade */

struct lane_history *lane_history_of(struct lane *l) {
    if (!l->history)
        l->history = calloc(1, sizeof *l->history);
    return l->history;
}

static int bucket_of(int32_t latency_ms) {
    if (latency_ms < 1)
        return 0;
    int at = 1 + (int)(2 * log2(latency_ms));
    return at < LATENCY_BUCKETS ? at : LATENCY_BUCKETS - 1;
}

void lane_history_add(struct lane *l, bool success, int32_t latency_ms) {
    struct lane_history *h = lane_history_of(l);
    if (!h)
        return;
    *(success ? &h->successes : &h->failures) += 1;
    h->latency[bucket_of(latency_ms)]++;
    if (h->successes + h->failures < HISTORY_MAX)
        return;
    h->successes /= 2;
    h->failures /= 2;
    for (int i = 0; i < LATENCY_BUCKETS; i++)
        h->latency[i] /= 2;
}

int32_t lane_history_percentile(const struct lane_history *h, double share) {
    uint32_t total = 0, seen = 0;
    for (int i = 0; h && i < LATENCY_BUCKETS; i++)
        total += h->latency[i];
    if (!total)
        return -1;
    for (int i = 0; i < LATENCY_BUCKETS; i++) {
        seen += h->latency[i];
        if (seen >= share * total)
            return i == 0 ? 1 : (int32_t)ceil(exp2(i / 2.0));
    }
    UNREACHABLE();
}
