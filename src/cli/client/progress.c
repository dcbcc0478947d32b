#include "cli/client/progress.h"

#include <stdio.h>

#include "base/clock.h"

enum { BAR_WIDTH = 24 };

void progress_line(int64_t done, int64_t failed, int64_t total, const char *what, int64_t elapsed_ms,
                   struct buf *out) {
    int64_t ended = done + failed;
    if (total > 0) {
        int64_t part = ended < total ? ended : total;
        buf_add_char(out, '[');
        for (int64_t i = 0; i < BAR_WIDTH; i++)
            buf_add_char(out, i < part * BAR_WIDTH / total ? '#' : '-');
        buf_addf(out, "] %3lld %%  %lld of %lld %s", (long long)(part * 100 / total), (long long)ended,
                 (long long)total, what);
    } else {
        buf_addf(out, "%lld %s", (long long)ended, what);
    }
    if (failed > 0)
        buf_addf(out, ", %lld failed", (long long)failed);
    if (elapsed_ms >= 1000)
        buf_addf(out, ", %lld/s", (long long)(ended * 1000 / elapsed_ms));
}

void progress_start(struct progress *p, bool shown) {
    *p = (struct progress){.shown = shown, .start_us = clock_mono_us()};
}

void progress_show(struct progress *p, int64_t done, int64_t failed, int64_t total, const char *what) {
    _cleanup_buf_ struct buf line = {0};
    if (!p->shown)
        return;
    progress_line(done, failed, total, what, (clock_mono_us() - p->start_us) / 1000, &line);
    fprintf(stderr, "\r\033[K%.*s", SLICE_ARG(buf_slice(&line)));
    p->drawn = true;
}

void progress_clear(struct progress *p) {
    if (p->drawn)
        fputs("\r\033[K", stderr);
    p->drawn = false;
}
