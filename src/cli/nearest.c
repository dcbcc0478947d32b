#include "cli/nearest.h"

static size_t least(size_t a, size_t b) {
    return a < b ? a : b;
}

static struct slice cut(struct slice s) {
    s.n = least(s.n, NEAREST_LENGTH_MAX);
    return s;
}

size_t edit_distance(struct slice a, struct slice b) {
    /* Three rows of the table of distances between the beginnings of a and b. */
    size_t rows[3][NEAREST_LENGTH_MAX + 1] = {0};
    size_t *before = rows[0], *last = rows[1], *now = rows[2];
    a = cut(a);
    b = cut(b);
    for (size_t j = 0; j <= b.n; j++)
        last[j] = j;
    for (size_t i = 1; i <= a.n; i++) {
        now[0] = i;
        for (size_t j = 1; j <= b.n; j++) {
            now[j] = last[j - 1] + (a.p[i - 1] != b.p[j - 1]);
            now[j] = least(now[j], least(last[j], now[j - 1]) + 1);
            if (i > 1 && j > 1 && a.p[i - 1] == b.p[j - 2] && a.p[i - 2] == b.p[j - 1])
                now[j] = least(now[j], before[j - 2] + 1);
        }
        size_t *oldest = before;
        before = last;
        last = now;
        now = oldest;
    }
    return last[b.n];
}

const char *nearest_word(struct slice word, const char *const *known, size_t n) {
    CHECK(n > 0);
    size_t best = 0, best_distance = SIZE_MAX;
    for (size_t i = 0; i < n; i++) {
        size_t distance = edit_distance(word, slice_of(known[i]));
        if (distance < best_distance) {
            best = i;
            best_distance = distance;
        }
    }
    return known[best];
}
